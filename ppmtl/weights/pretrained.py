"""Pretrained ConvNeXt trunks from the checkpoints of other toolkits, with a report of what went where.

Names known: facebook's (PaddleClas and PaddleDetection use the same), timm's, timm's with ``features_only``, Hugging
Face transformers', and this project's own checkpoints. Heads and the final normalisation are dropped, so 1k and 22k
classes, 224 and 384 pixels make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppmtl.files import sha256
from ppmtl.weights.download import fetch, is_url
from ppmtl.weights.files import Layout, StoredTensor, WeightFile, open_weights
from ppmtl.weights.names import NAMINGS, Naming

if TYPE_CHECKING:
    from paddle import nn  # converting needs no Paddle, and importing it takes seconds

Shape = tuple[int, ...]

_LINEAR = re.compile(r"stages\.\d+\.\d+\.pwconv[12]\.weight\Z")
_OUTPUT_NORM = re.compile(r"norm\d\.(weight|bias)\Z")  # of dense models only: never in a classifier's checkpoint


@dataclass(frozen=True)
class Report:
    """What became of a file's tensors and of a backbone's parameters.

    Attributes:
        source: path or URL as given.
        sha256: of the file.
        naming, prefix, layout: how the file was understood; ``layout`` is of its linear weights.
        matched: parameters that have a tensor of the right shape.
        missing: trunk parameters without a tensor.
        unexpected: trunk tensors of the file without a parameter (a deeper net, another family).
        mismatched: "name: file [..], model [..]".
        dropped: tensors of the file outside the trunk: classifier, final normalisation, other tasks' heads, EMA.
        fresh: output normalisations that the file does not have and that keep their initial 1 and 0.
    """

    source: str
    sha256: str
    naming: str
    prefix: str
    layout: Layout
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]

    def require_complete(self) -> None:
        """Raises ValueError with counts and first names unless every trunk tensor found its place."""
        groups = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.mismatched))
        if any(names for _, names in groups):
            lines = [f"pretrained: {self.source} does not fit this backbone ({len(self.matched)} tensors do):"]
            lines += [f"  {len(names)} {title}: {_first(names)}" for title, names in groups if names]
            lines.append(
                f"It was read as {self.naming} names. Set model.backbone.arch (or depths and dims) to what the file "
                "was trained with, or choose another file; nothing was loaded"
            )
            raise ValueError("\n".join(lines))

    def text(self) -> str:
        """Returns the report in a few lines."""
        prefix = f" under '{self.prefix}'" if self.prefix else ""
        lines = [
            f"{self.source} (sha256 {self.sha256[:16]}...)",
            f"{self.naming} names{prefix}, linear weights as in {self.layout}",
            f"matched {len(self.matched)}, missing {len(self.missing)}, unexpected {len(self.unexpected)}, "
            f"of another shape {len(self.mismatched)}",
        ]
        if self.dropped:
            lines.append(f"dropped {len(self.dropped)} outside the trunk: {_first(self.dropped)}")
        if self.fresh:
            lines.append(f"not in the file, at their initial values: {_first(self.fresh)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Match:
    """One tensor's way: from the file, by way of a transposition or not, to our name."""

    name: str
    shape: Shape
    tensor: StoredTensor
    transpose: bool

    def read(self) -> np.ndarray:
        """Returns the array as our layer wants it, float32 and contiguous."""
        array = self.tensor.read()
        if _LINEAR.match(self.name):
            array = array.reshape(array.shape[:2])  # timm's small ones have 1x1 convolutions for linears
        return np.ascontiguousarray(array.T if self.transpose else array)


def load_pretrained(backbone: nn.Layer, path_or_url: str) -> Report:
    """Fills a ConvNeXt with a checkpoint's trunk, one tensor at a time, and returns the report.

    Args:
        backbone: a ConvNeXt; nothing of it is changed when the file does not fit.
        path_or_url: a file or checkpoint folder, or a URL, optionally ``url#sha256=<digest>``.

    Raises:
        ValueError: if the file is damaged, of an unknown naming, or does not fill the trunk exactly.
    """
    state = backbone.state_dict()
    with open_weights(local_file(path_or_url)) as file:
        report, matches = match(file, {name: tuple(value.shape) for name, value in state.items()}, path_or_url)
        report.require_complete()
        for found in matches:
            state[found.name].set_value(found.read())
    return report


def local_file(path_or_url: str) -> Path:
    """Returns the weights file on this machine, downloading it if it is a URL that is not cached yet.

    Raises:
        ValueError: if there is none.
    """
    if is_url(path_or_url):
        return fetch(path_or_url)
    path = Path(path_or_url).expanduser()
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"pretrained: {path} does not exist; give a .pth, .pdparams or .safetensors file, or a URL")
    return path


def match(file: WeightFile, expected: Mapping[str, Shape] | None, source: str) -> tuple[Report, list[Match]]:
    """Returns the report and, in the order of ``expected``, how each parameter is to be read.

    Args:
        file: the open file.
        expected: {our name: shape} of the backbone; None = of the ConvNeXt that the file itself describes.
        source: named in messages.

    Raises:
        ValueError: if no known naming fits, several trunks are in the file, or linears are stored in both ways.
    """
    naming, prefix = _recognise(file.tensors, source)
    ours: dict[str, StoredTensor] = {}
    named: dict[str, str] = {}  # our name: the file's
    dropped, unexpected = [], []
    for name, tensor in file.tensors.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or not naming.is_trunk(inner):
            dropped.append(name)
        elif (translated := naming.translate(inner)) is None:
            unexpected.append(name)
        else:
            ours[translated], named[translated] = tensor, name
    expected = expected or described_shapes(ours, source)
    extra = ours.keys() - expected.keys()
    dropped += sorted(named[name] for name in extra if _OUTPUT_NORM.match(name))
    unexpected += sorted(named[name] for name in extra if not _OUTPUT_NORM.match(name))
    absent = [name for name in expected if name not in ours]
    present = [name for name in expected if name in ours]
    pairs = [(ours[n].shape, expected[n]) for n in present if _LINEAR.match(n)]
    layout = linear_layout(pairs, file.layout, source)
    matches, mismatched = [], []
    for name in present:
        shape, transpose = _shape_here(name, ours[name].shape, layout)
        if shape == expected[name]:
            matches.append(Match(name, shape, ours[name], transpose))
        else:
            mismatched.append(f"{name}: file {list(shape)}, model {list(expected[name])}")
    report = Report(
        source, sha256(file.path), naming.title, prefix, layout,
        matched=tuple(found.name for found in matches),
        missing=tuple(name for name in absent if not _OUTPUT_NORM.match(name)),
        unexpected=tuple(unexpected),
        mismatched=tuple(mismatched),
        dropped=tuple(dropped),
        fresh=tuple(name for name in absent if _OUTPUT_NORM.match(name)),
    )  # fmt: skip
    return report, matches


def _recognise(names: Iterable[str], source: str) -> tuple[Naming, str]:
    """Returns the naming and what stands before the trunk's names, e.g. "model.module." or "backbone."."""
    found = [
        (naming, name.removesuffix(naming.stem))
        for name in names
        for naming in NAMINGS
        if name == naming.stem or name.endswith(f".{naming.stem}")
    ]
    # An averaged copy beside the weights ("model_ema.") is not what the published numbers were measured with
    plain = [(naming, prefix) for naming, prefix in found if "ema" not in prefix.lower()] or found
    if len(plain) == 1:
        return plain[0]
    if plain:
        where = ", ".join(f"'{prefix}'" for _, prefix in plain)
        raise ValueError(
            f"pretrained: {source} holds {len(plain)} ConvNeXt trunks, under {where}; save the wanted one alone"
        )
    known = ", ".join(naming.title for naming in NAMINGS)
    first = _first(tuple(names)) or "no tensors at all"
    raise ValueError(f"pretrained: {source} holds no ConvNeXt of a known naming ({known}); its names are {first}")


def linear_layout(pairs: Iterable[tuple[Shape, Shape]], stated: Layout | None, source: str) -> Layout:
    """Returns how a file stores linear weights, judged by all of them together.

    Args:
        pairs: (shape in the file, shape (in, out) wanted). A square one says nothing and follows the others.
        stated: what the file's format implies; used only when the shapes say nothing.
        source: named in messages.

    Raises:
        ValueError: if some are (in, out) and some (out, in), or if nothing tells.
    """
    pairs = [
        (stored, wanted) for stored, wanted in pairs if len(stored) == 2
    ]  # 1x1 convolutions are (out, in) everywhere
    telling = [(stored, wanted) for stored, wanted in pairs if stored[0] != stored[1]]
    paddle = sum(stored == wanted for stored, wanted in telling)
    torch = sum(stored == wanted[::-1] for stored, wanted in telling)
    if paddle and torch:
        raise ValueError(
            f"pretrained: {source} stores {paddle} linear weights as (in, out) and {torch} as (out, in): a conversion "
            "went wrong half-way; use the original file"
        )
    if paddle or torch:
        return "paddle" if paddle else "torch"
    if stated is None and pairs and not telling:
        raise ValueError(
            f"pretrained: all linear weights of {source} are square and its format does not say their order"
        )
    return stated or "torch"


def _shape_here(name: str, stored: Shape, layout: Layout) -> tuple[Shape, bool]:
    """Returns a tensor's shape once it is in our layout, and whether that takes a transposition."""
    if not _LINEAR.match(name):
        return stored, False
    if len(stored) == 4 and stored[2:] == (1, 1):
        return (stored[1], stored[0]), True
    if len(stored) == 2 and layout == "torch":
        return (stored[1], stored[0]), True
    return stored, False


def described_shapes(ours: Mapping[str, StoredTensor], source: str) -> dict[str, Shape]:
    """Returns {name: shape} of the whole ConvNeXt trunk whose depths, dims and kernels the given tensors show.

    Raises:
        ValueError: if a stage's width or blocks cannot be seen.
    """
    depths, dims = [], []
    for stage in range(4):
        convolution = ours.get(f"downsample_layers.{stage}.{0 if stage == 0 else 1}.weight")
        blocks = [int(name.split(".")[2]) for name in ours if re.match(rf"stages\.{stage}\.\d+\.", name)]
        if convolution is None or not convolution.shape or not blocks:
            raise ValueError(f"pretrained: {source} has no whole stage {stage}; a ConvNeXt trunk has stages 0 to 3")
        dims.append(convolution.shape[0])
        depths.append(len(set(blocks)))  # not the largest number: a gap must show up as missing
    norms = {name: tensor.shape for name, tensor in ours.items() if _OUTPUT_NORM.match(name)}
    layer_scale = any(name.endswith(".gamma") for name in ours)
    depthwise = ours.get("stages.0.0.dwconv.weight")
    kernel = depthwise.shape[2:] if depthwise else (7, 7)
    return dict(_trunk_shapes(depths, dims, kernel, layer_scale=layer_scale)) | norms


def _trunk_shapes(
    depths: Sequence[int], dims: Sequence[int], kernel: Shape, *, layer_scale: bool
) -> Iterator[tuple[str, Shape]]:
    for stage, (depth, c) in enumerate(zip(depths, dims, strict=True)):
        before, (norm, conv) = (c, (1, 0)) if stage == 0 else (dims[stage - 1], (0, 1))
        down = (c, 3, 4, 4) if stage == 0 else (c, before, 2, 2)
        at = f"downsample_layers.{stage}"
        yield from ((f"{at}.{conv}.weight", down), (f"{at}.{conv}.bias", (c,)))
        yield from ((f"{at}.{norm}.weight", (before,)), (f"{at}.{norm}.bias", (before,)))
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            if layer_scale:
                yield f"{at}.gamma", (c,)
            yield from ((f"{at}.dwconv.weight", (c, 1, *kernel)), (f"{at}.dwconv.bias", (c,)))
            yield from ((f"{at}.norm.weight", (c,)), (f"{at}.norm.bias", (c,)))
            yield from ((f"{at}.pwconv1.weight", (c, 4 * c)), (f"{at}.pwconv1.bias", (4 * c,)))
            yield from ((f"{at}.pwconv2.weight", (4 * c, c)), (f"{at}.pwconv2.bias", (c,)))


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
