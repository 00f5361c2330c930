"""Scores a submission against the ground truth as the official tool does, and beside it as one would want it done.

Source: the challenge's tools/eval.py with paddleseg 2.7.0 and pycocotools, restated from its behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppmtl.challenge.expected import SEG_CLASSES, SEG_SIZE
from ppmtl.challenge.reading import SubmissionFile
from ppmtl.data.classes import read_categories
from ppmtl.data.label_maps import read_label_map
from ppmtl.data.listing import read_json, read_text
from ppmtl.ops.average_precision import average_precision_of_rows
from ppmtl.ops.confusion import class_iou, confusion_matrix, mean_iou
from ppmtl.ops.polygons import decode


def score(file: str | Path, gt: str | Path, *, seg_classes: int = SEG_CLASSES) -> dict[str, Any]:
    """{"official-2.7.0": figures, "strict": figures, "notes": where the official tool would crash or mislead}.

    Figures are fractions 0..1: miou, top1, ap50 and score, their mean rounded to 4 digits (the A list). How the two
    conventions count: docs/submission.md. Where the official tool would crash, its figure is what it would count
    without the cause.

    Args:
        file: the submission, in either form.
        gt: folder with cls.txt ("name id" lines), dec.json (COCO) and seg/*.png.
        seg_classes: 19 in the challenge.

    Raises:
        ValueError: a file is missing or unreadable, or the submission is too malformed to be counted: run the check.
    """
    folder = Path(gt)
    maps = sorted((folder / "seg").glob("*.png"))
    if not maps:
        raise ValueError(f"{folder / 'seg'}: holds no label maps (*.png)")
    sizes = {path.name: read_label_map(path).shape for path in maps}
    submitted = _read(Path(file), sizes)
    if set(sizes.values()) != {SEG_SIZE}:
        submitted.notes.append(
            f"seg: the official tool paints {SEG_SIZE[1]}x{SEG_SIZE[0]} only; the labels' own sizes were used"
        )
    figures = (
        _score_seg(submitted, maps, seg_classes),
        _score_cls(submitted, folder / "cls.txt"),
        _score_det(submitted, folder / "dec.json"),
    )
    result: dict[str, Any] = {"notes": submitted.notes}
    for convention, (miou, top1, ap50) in zip(("official-2.7.0", "strict"), zip(*figures, strict=True), strict=True):
        result[convention] = {"miou": miou, "top1": top1, "ap50": ap50, "score": round((top1 + ap50 + miou) / 3, 4)}
    return result


@dataclass
class _Submitted:
    """A submission file's content; ``seg`` as PNG bytes of every entry (1000 maps as arrays would be 900 MB)."""

    seg: dict[str, list[bytes]] = field(default_factory=dict)
    cls: list[tuple[str, Any]] = field(default_factory=list)
    dec: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _read(file: Path, sizes: Mapping[str, Sequence[int]]) -> _Submitted:
    result, submission = _Submitted(), SubmissionFile(file)
    for section, place, entry in submission:
        try:  # what is malformed raises one of several errors
            if section.name == "cls":
                result.cls.extend(entry.items())
            elif section.name == "dec":
                complete = {"image_id", "category_id", "bbox", "score"} <= entry.keys()
                if not complete or not isinstance(entry["image_id"], int) or len(entry["bbox"]) != 4:
                    raise ValueError("a row needs image_id, category_id, bbox and score")
                result.dec.append(entry)
            elif section.name == "seg":
                for name, polygons in entry.items():
                    height, width = sizes.get(name) or next(iter(sizes.values()))
                    label_map = decode(polygons, (height, width))
                    result.seg.setdefault(name, []).append(cv2.imencode(".png", label_map)[1].tobytes())
        except (ValueError, TypeError, AttributeError, cv2.error) as error:
            raise ValueError(f"{file}: {place} cannot be scored ({error}); tools/submit.py check says more") from error
    for name, entries in result.seg.items():
        if len(entries) > 1:
            result.notes.append(f"seg: {name} is there more than once; the official tool keeps the last entry")
    for section in submission.sections:
        if section.form == "dict":
            result.notes.append(
                f"{section.name}: one dict; the official tool crashes, it wants a list of one-key dicts"
            )
    return result


def _score_seg(submitted: _Submitted, maps: Sequence[Path], classes: int) -> tuple[float, float]:
    """The mIoU in the official and in the strict convention."""
    names = sorted(submitted.seg)
    if names != [path.name for path in maps]:
        submitted.notes.append(
            f"seg: {len(names)} images for {len(maps)} label maps, or other names; the official tool pairs them by "
            "sorted position all the same, so they are compared with the wrong images"
        )
    official = np.zeros((classes, classes), np.int64)
    strict = np.zeros((classes + 1, classes + 1), np.int64)  # one more class: not predicted at all
    for index, path in enumerate(maps):
        label = read_label_map(path)
        by_position = _label_map(submitted.seg[names[index]][-1]) if index < len(names) else None
        if by_position is not None and by_position.shape == label.shape:
            official += confusion_matrix(by_position, label, classes)
        by_name = (
            _label_map(submitted.seg[path.name][0]) if path.name in submitted.seg else np.full_like(label, classes)
        )
        strict += confusion_matrix(by_name, label, classes + 1)
    iou = class_iou(strict)[:classes]
    return mean_iou(official, "zero"), float(iou[~np.isnan(iou)].mean())


def _label_map(encoded: bytes) -> np.ndarray:
    label_map = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert label_map is not None
    return label_map


def _score_cls(submitted: _Submitted, truth_file: Path) -> tuple[float, float]:
    """Top-1 in the official and in the strict convention."""
    lines = [line.split() for line in read_text(truth_file).splitlines() if line.strip()]
    if not lines or any(len(line) != 2 for line in lines):
        raise ValueError(f"{truth_file}: needs lines 'name id'")
    truth = {line[0]: line[1] for line in lines}
    rows = submitted.cls
    _note_unknown(submitted.notes, "cls: names", [name for name, _ in rows if name not in truth])
    if not rows:
        submitted.notes.append("cls: no rows; the official tool divides by zero")
    hits = sum(str(label) == truth.get(name) for name, label in rows)
    first = dict(reversed(rows))
    strict = sum(str(first.get(name)) == label for name, label in truth.items())
    return (hits / len(rows) if rows else 0.0), strict / len(truth)


def _score_det(submitted: _Submitted, truth_file: Path) -> tuple[float, float]:
    """AP50 twice: COCO counts missing images as wrong anyway."""
    truth, classes, rows = read_json(truth_file), read_categories(truth_file), submitted.dec
    image_ids = [image["id"] for image in truth["images"]]
    _note_unknown(submitted.notes, "dec: image_ids", sorted({row["image_id"] for row in rows} - set(image_ids)))
    if not rows:
        submitted.notes.append("dec: no rows; the official tool crashes")
    ap50 = average_precision_of_rows(image_ids, truth["annotations"], rows, classes).ap50
    return ap50, ap50


def _note_unknown(notes: list[str], what: str, unknown: Sequence[object]) -> None:
    if unknown:
        notes.append(
            f"{what} that the ground truth lacks ({len(unknown)}, e.g. {unknown[0]}); the official tool crashes"
        )
