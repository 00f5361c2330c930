"""Images that are there twice: inside a data set, in training and validation, in several tasks; exactly or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ppmtl.data.findings import Finding, Severity
from ppmtl.doctor.samples import Examined

# Of 256 bits. Measured on photographs of cars and streets: copies of half the size, recompressed and darker differ in 8 to 13
# (median; 90 % in up to 24), frames of one video in 2 to 30, images of different scenes in 50 and more
_NEAR_BITS = 20

Place = tuple[int, int]  # data set, sample


def duplicate_findings(examined: Sequence[Examined]) -> Iterator[Finding]:
    """Findings about images that occur more than once."""
    first_of: dict[str, Place] = {}
    groups: dict[str, dict[str, Place]] = defaultdict(dict)  # {digest: {file: one place of it}}
    for number, of_set in enumerate(examined):
        for index, (file, facts) in enumerate(zip(of_set.files, of_set.images, strict=True)):
            if facts.problem is None:
                path = f"{number} {Path(file).absolute()}"
                groups[facts.digest].setdefault(path, (number, index))
                first_of.setdefault(facts.digest, (number, index))
    for places in groups.values():
        yield from _compare(examined, list(places.values()), exact=True)
    for one, other in _near([(examined[n].images[i].fingerprint or "", (n, i)) for n, i in first_of.values()]):
        yield from _compare(examined, [one, other], exact=False)


def _compare(examined: Sequence[Examined], places: Sequence[Place], *, exact: bool) -> Iterator[Finding]:
    """Findings about the first of ``places`` in every data set against every later place."""
    if len(places) < 2:
        return
    number, index = places[0]
    for other_number, other_index in places[1:]:
        one, other = examined[number], examined[other_number]
        kind, severity, text = _kind(one, other, exact, _labels_differ(one, index, other, other_index))
        if one.files[index] != other.files[other_index] or kind in ("leakage", "shared_images"):
            where = f"{one.files[index]} ({one.dataset.name})"
            yield Finding(f"{other.files[other_index]} ({other.dataset.name})", f"{text} {where}", severity, kind)


def _kind(one: Examined, other: Examined, exact: bool, differ: bool) -> tuple[str, Severity, str]:
    same = "is the same image as" if exact else "looks like"
    if one.dataset.split != other.dataset.split:
        tasks = [of_set.dataset.reader.tasks if of_set.dataset.reader else {} for of_set in (one, other)]
        other_task = "" if set(tasks[0]) & set(tasks[1]) else ", of another task,"
        return ("leakage" if exact else "near_leakage"), "warning", f"{same}{other_task} in {one.dataset.split}"
    if one.dataset.name != other.dataset.name:
        return ("shared_images" if exact else "near_duplicate"), "note", same
    if exact and differ:
        return "conflicting_labels", "warning", "has another label than the same image"
    return ("duplicate_image" if exact else "near_duplicate"), ("warning" if exact else "note"), same


def _labels_differ(one: Examined, index: int, other: Examined, other_index: int) -> bool:
    labels, others = one.labels[index], other.labels[other_index]
    return labels is not None and others is not None and labels.counts != others.counts


def _near(fingerprints: Iterable[tuple[str, Place]]) -> Iterator[tuple[Place, Place]]:
    """Pairs of different images whose fingerprints differ in a few bits only."""
    known = [(text, place) for text, place in fingerprints if text]
    if len(known) < 2:
        return
    bits = np.array([list(bytes.fromhex(text)) for text, _ in known], np.uint8)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).radiusMatch(bits, bits, _NEAR_BITS + 0.5)
    for of_one in matches:
        for match in of_one:
            if match.queryIdx < match.trainIdx:
                yield known[match.queryIdx][1], known[match.trainIdx][1]
