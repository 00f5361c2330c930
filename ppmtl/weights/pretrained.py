"""Pretrained backbones from the checkpoints of other projects, with a report of what went where.

How a backbone is named elsewhere stands beside it (its ``weight_names``). Heads and the final normalisation are
dropped, so 1k and 22k classes, 224 and 384 pixels make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppmtl.files import sha256
from ppmtl.weights.download import fetch, is_url
from ppmtl.weights.files import Layout, WeightFile, as_float32, read_weights
from ppmtl.weights.location import MODEL, find_weights
from ppmtl.weights.names import Naming, Shape, WeightNames

if TYPE_CHECKING:
    from paddle import nn  # converting needs no Paddle, and importing it takes seconds


@dataclass
class Report:
    """What became of a file's tensors and of a backbone's parameters."""

    source: str  # path or URL as given
    sha256: str
    naming: str
    prefix: str
    layout: Layout = "torch"  # of linear weights
    matched: list[str] = field(default_factory=list)  # parameters with a tensor of the right shape
    missing: list[str] = field(default_factory=list)  # parameters without a tensor
    unexpected: list[str] = field(default_factory=list)  # backbone tensors without a parameter: a deeper net, ...
    mismatched: list[str] = field(default_factory=list)  # "name: file [..], model [..]"
    dropped: list[str] = field(default_factory=list)  # tensors outside the backbone: classifier, other heads, EMA, ...
    fresh: list[str] = field(default_factory=list)  # optional parameters that keep their initial values

    def require_complete(self) -> None:
        """Raises ValueError with counts and first names unless every tensor of the backbone found its place."""
        groups = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.mismatched}
        wrong = [f"\n  {len(names)} {title}: {_first(names)}" for title, names in groups.items() if names]
        if wrong:
            raise ValueError(
                f"pretrained: {self.source} does not fit this backbone ({len(self.matched)} tensors do):{''.join(wrong)}\n"
                f"It was read as {self.naming} names. Set the sizes of model.backbone (arch and the like) to what the file "
                "was trained with, or choose another file; nothing was loaded"
            )

    def text(self) -> str:
        """The report in a few lines."""
        under = f" under '{self.prefix}'" if self.prefix else ""
        text = (
            f"{self.source} (sha256 {self.sha256[:16]}...)\n"
            f"{self.naming} names{under}, linear weights as in {self.layout}\n"
            f"matched {len(self.matched)}, missing {len(self.missing)}, unexpected {len(self.unexpected)}, "
            f"of another shape {len(self.mismatched)}"
        )
        text += f"\ndropped {len(self.dropped)} outside the backbone: {_first(self.dropped)}" if self.dropped else ""
        return text + (f"\nnot in the file, at their initial values: {_first(self.fresh)}" if self.fresh else "")


def load_pretrained(backbone: nn.Layer, path_or_url: str) -> Report:
    """Fills a backbone from a URL (``url#sha256=<digest>`` checks it) or what ``find_weights`` takes: a run, a file, ...

    Raises:
        ValueError: if the file is damaged, of an unknown naming, or does not fill the backbone exactly; nothing of the
            backbone is changed then.
    """
    names: WeightNames | None = getattr(backbone, "weight_names", None)
    if names is None:
        raise ValueError(
            f"pretrained: {type(backbone).__name__} knows no other project's names of its weights; to start from a "
            "checkpoint of this project, set weights= instead"
        )
    state = backbone.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    report, tensors = match(read_weights(local_file(path_or_url)), names, shapes, path_or_url)
    report.require_complete()
    for name, array in tensors.items():
        state[name].set_value(np.ascontiguousarray(array))
    return report


def local_file(path_or_url: str) -> Path:
    """The weights file on this machine, downloaded if it is a URL that is not cached yet.

    Raises:
        ValueError: if there is none.
    """
    if is_url(path_or_url):
        return fetch(path_or_url)
    path = find_weights(path_or_url, "pretrained")
    return path / MODEL if path.is_dir() else path


def match(
    file: WeightFile, names: WeightNames, expected: Mapping[str, Shape] | None, source: str
) -> tuple[Report, dict[str, np.ndarray]]:
    """Finds a tensor for each parameter.

    Args:
        file: what was read.
        names: how other projects name this kind of backbone.
        expected: {our name: shape}; None = of the backbone that the file itself describes.
        source: named in messages.

    Returns:
        The report, and {our name: float32 in our layout, perhaps a view} in the order of ``expected``.

    Raises:
        ValueError: if no known naming fits, several backbones are in the file, or linears are stored in both ways.
    """
    naming, prefix = _recognise(file.tensors, names, source)
    report = Report(source, sha256(file.path), naming.title, prefix)
    named: dict[str, str] = {}  # ours: the file's
    for name in file.tensors:
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or not re.match(naming.inside, inner):
            report.dropped.append(name)
        elif named.setdefault(naming.translate(inner), name) != name:
            report.unexpected.append(name)  # two names for one parameter
    found = {ours: file.tensors[name] for ours, name in named.items()}
    expected = expected or names.shapes({ours: array.shape for ours, array in found.items()}, source)
    for ours, name in named.items():
        if ours not in expected:
            (report.dropped if re.match(names.optional, ours) else report.unexpected).append(name)
    linear = {ours for ours in found.keys() & expected.keys() if re.match(names.linear, ours)}
    report.layout = _linear_layout([(found[ours].shape, expected[ours]) for ours in linear], file.layout, source)
    tensors = {}
    for ours, wanted in expected.items():
        if ours not in found:
            (report.fresh if re.match(names.optional, ours) else report.missing).append(ours)
            continue
        array = as_float32(found[ours])
        pointwise = array.ndim == 4 and array.shape[2:] == (1, 1)  # timm's small ones: (out, in) everywhere
        if ours in linear and (pointwise or (array.ndim == 2 and report.layout == "torch")):
            array = array.reshape(array.shape[:2]).T
        array = names.fit(ours, array, wanted)
        tensors[ours] = array
        if array.shape == wanted:
            report.matched.append(ours)
        else:
            report.mismatched.append(f"{ours}: file {list(found[ours].shape)}, model {list(wanted)}")
    return report, tensors


def _recognise(tensors: Iterable[str], names: WeightNames, source: str) -> tuple[Naming, str]:
    """The naming and what stands before the backbone's names, e.g. "model.module." or "backbone."."""
    found = [
        (naming, stem[1])
        for name in tensors
        for naming in names.namings
        if (stem := re.fullmatch(rf"((?:.*\.)?){naming.stem}", name))
    ]
    # An averaged copy beside the weights ("model_ema.") is not what the published numbers were measured with; of DINO's
    # pair they were measured with the teacher
    copies = ("ema", "student")
    plain = [found_one for found_one in found if not any(copy in found_one[1].lower() for copy in copies)] or found
    if not plain:
        known = ", ".join(naming.title for naming in names.namings)
        first = _first(list(tensors)) or "no tensors at all"
        raise ValueError(
            f"pretrained: {source} holds no {names.backbone} of a known naming ({known}); its names are {first}"
        )
    if len(plain) > 1:
        where = ", ".join(f"'{prefix}'" for _, prefix in plain)
        raise ValueError(
            f"pretrained: {source} holds {len(plain)} backbones, each a {names.backbone}, under {where}; "
            "save the wanted one alone"
        )
    return plain[0]


def _linear_layout(pairs: Iterable[tuple[Shape, Shape]], stated: Layout | None, source: str) -> Layout:
    """How a file stores linear weights, by all pairs of (shape in it, shape (in, out) wanted): a square one says nothing.

    ``stated`` is what the file's format implies; it counts only when no shape tells.
    """
    telling = [(stored, wanted) for stored, wanted in pairs if wanted != wanted[::-1]]
    paddle = sum(stored == wanted for stored, wanted in telling)
    torch = sum(stored == wanted[::-1] for stored, wanted in telling)
    if paddle and torch:
        raise ValueError(
            f"pretrained: {source} stores {paddle} linear weights as (in, out) and {torch} as (out, in): a conversion "
            "went wrong half-way; use the original file"
        )
    return "paddle" if paddle else "torch" if torch else stated or "torch"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
