"""Checkpoints of other projects with a backbone and heads, under our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppmtl.weights.names import Naming

if TYPE_CHECKING:
    from paddle import nn


def own_names(arrays: Mapping[str, np.ndarray], model: nn.Layer) -> dict[str, np.ndarray]:
    """Renames a checkpoint where a head of the model recognises its weights by another project's names; else as it is.

    Each head and the backbone take what their ``weight_names`` know; what is left (an optimizer's state, heads that this
    model does not have, branches that nothing reads) is dropped. Values and shapes are not looked at.

    Args:
        arrays: of a checkpoint, linear weights as Paddle stores them.
        model: a MultiTaskModel.
    """
    found = {f"heads.{name}": _find(arrays, head.weight_names) for name, head in model.heads.items()}
    if not any(found.values()):
        return dict(arrays)
    of_backbone = model.backbone.weight_names
    if of_backbone is not None:
        found["backbone"] = _find(arrays, of_backbone.namings)
    renamed, state = {}, model.state_dict()
    for place, hit in found.items():
        naming, prefix = hit or (None, "")
        for name, array in arrays.items():
            inner = name.removeprefix(prefix)
            if naming is None or not name.startswith(prefix) or not re.match(naming.inside, inner):
                continue
            ours = naming.translate(inner)
            needless = place == "backbone" and of_backbone is not None and re.match(of_backbone.optional, ours)
            if f"{place}.{ours}" in state or not needless:
                renamed[f"{place}.{ours}"] = array
    return renamed


def holds_heads(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the weights of a model, under our names, and not of a backbone alone."""
    return any(name.startswith("heads.") for name in arrays)


def _find(names: Iterable[str], namings: Iterable[Naming]) -> tuple[Naming, str] | None:
    """The naming, and what stands in front of its names."""
    for naming in namings:
        for name in names:
            if stem := re.fullmatch(rf"((?:.*\.)?){naming.stem}", name):
                return naming, stem[1]
    return None
