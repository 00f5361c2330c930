"""How other projects name the weights of a backbone: what a backbone states as its attribute ``weight_names``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Naming:
    """One project's names, as regular expressions over names without the prefix that a whole model gives them."""

    title: str  # in reports, e.g. "timm"
    stem: str  # a name by which the naming is recognised; whatever stands in front of it in a file is the prefix
    inside: str  # how names of the backbone begin: such a tensor must find its place, any other is dropped
    rules: tuple[tuple[str, str], ...] = ()  # (pattern, replacement), applied in order: they turn a name into ours

    def translate(self, name: str) -> str:
        """Our name of a tensor; a name that no rule knows stays as it is and fits no parameter."""
        for pattern, ours in self.rules:
            name = re.sub(pattern, ours, name)
        return name


@dataclass(frozen=True)
class WeightNames:
    """What reading other projects' files has to know of one kind of backbone.

    Attributes:
        backbone: its name in messages, e.g. "ConvNeXt".
        linear: pattern of our names of linear weights: (in, out) in Paddle, (out, in) in torch.
        shapes: ({our name: shape} of a file's tensors, the file's name for errors) -> {name: shape} of the complete
            backbone that they belong to, for converting without a model. Raises ValueError if it cannot be seen.
        optional: pattern of our parameters that a file may lack (they keep their values) or have in vain.
        fit: (our name, array, shape wanted) -> the array as it is stored here, where other projects keep it in other forms.
    """

    backbone: str
    namings: tuple[Naming, ...]
    linear: str
    shapes: Callable[[Mapping[str, Shape], str], dict[str, Shape]]
    optional: str = r"(?!)"  # none
    fit: Callable[[str, np.ndarray, Shape], np.ndarray] = lambda _name, array, _wanted: array
