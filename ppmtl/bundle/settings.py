"""infer_cfg.yml of an exported bundle: what each file holds and how to use it. Nothing else of the project is needed.

    <bundle>/trunk.*          the backbone: images (B, H, W, 3) uint8 RGB -> named features; normalisation is inside
    <bundle>/head_<task>.*    features -> the task's raw arrays, decoded; non-maximum suppression is not inside
    <bundle>/head_<task>_step.*  the second graph of a head that answers word by word, see StepGraph
    <bundle>/infer_cfg.yml    this schema
    <bundle>/export_report.*  what the export measured
    <bundle>/model.onnx       where asked for: all of it in one graph, for other programs; nothing here reads it

One graph per head: any subset of heads can be run, the backbone runs once, and parameters are stored once. In format 1, which
bundles in the field have, the backbone is called "trunk".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ppmtl.config import ConfigTree, check
from ppmtl.config.parts import Part
from ppmtl.config.settings import InferSettings, Positive
from ppmtl.files import sha256
from ppmtl.structures import ClassList

SETTINGS_FILE = "infer_cfg.yml"
SINGLE_FILE = "model.onnx"
TRUNK = "trunk"  # the backbone's files, without suffix
IMAGES = "images"  # the backbone's input
IMAGE_SIZE = "image_size"  # a head's input that is no feature: int32 (2,) [H, W] of the network input

TaskPart = Annotated[Callable[..., Any], Part("ppmtl.tasks")]
GraphFormat = Literal["paddle", "paddle-json", "onnx"]
Pointwise = Literal["linear", "conv"]
Precision = Literal["float32", "int8"]
ImageType = Literal["uint8", "float32"]
SUFFIXES: dict[str, tuple[str, ...]] = {  # of the files that make one graph; the first is the graph itself
    "paddle": (".pdmodel", ".pdiparams"),
    "paddle-json": (".json", ".pdiparams"),
    "onnx": (".onnx",),
}


@dataclass(frozen=True)
class InputSettings:
    """The network input: (height, width) and images per run where the export fixed them, None = any.

    No side may be shorter than ``min_side``: the backbone would halve it to nothing, which oneDNN does not refuse.
    """

    size: tuple[Positive, Positive] | None = None
    batch: Positive | None = None
    min_side: Positive = 1


@dataclass(frozen=True)
class BackboneGraph:
    """The graph that runs once per input: ``file`` is a name without suffix, ``outputs`` name its outputs in order."""

    file: str
    outputs: tuple[str, ...]
    images: ImageType = "uint8"  # float32 where the pixels of some task are changed first


@dataclass(frozen=True)
class PixelSettings:
    """What pixels (RGB, 0..255) become before the backbone's graph normalises them: pixel * ``factor`` + ``shift``."""

    factor: tuple[float, float, float]
    shift: tuple[float, float, float]


@dataclass(frozen=True)
class Search:
    """The keywords of ``ppmtl.ops.beam_search``: sequences followed at a time, three tokens, and tokens at most."""

    beam_size: Positive
    end: int
    pad: int
    length: Positive
    unknown: int = -1  # as bundles before this key: every token may be said


@dataclass(frozen=True)
class StepGraph:
    """The second graph of a head whose answer is a sequence, which ``ppmtl.ops.beam_search`` calls once per token.

    The head's own graph then gives log probabilities of the first token, a state and a memory. This one takes "tokens",
    "rows", "state" and "memory" and gives log probabilities of the next token and the new state.
    """

    file: str
    search: Search


@dataclass(frozen=True)
class HeadGraph:
    """One head's graph: its inputs are outputs of the backbone, then "image_size" if it needs it; its outputs raw arrays.

    Both are in the graph's order; Paddle itself calls the outputs fetch_name_0, fetch_name_1, ...
    ``pixels`` is of a task that is normalised otherwise than the backbone's graph does it: that one then runs for it apart.
    With ``steps`` the raw arrays are what the search finds.
    """

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pixels: PixelSettings | None = None
    steps: StepGraph | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Its graphs, without suffix."""
        return (self.file,) if self.steps is None else (self.file, self.steps.file)


@dataclass(frozen=True)
class SourceRecord:
    """What was exported; the step of the training is None where the checkpoint does not say it."""

    config: str
    weights: str
    weights_sha256: str
    step: int | None = None


@dataclass(frozen=True)
class FileRecord:
    """Name, digest and length of one file, checked on loading. (A list of them: keys of a config have no dots.)"""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class BundleSettings:
    """A complete infer_cfg.yml.

    Attributes:
        graph_format: "paddle" (.pdmodel, runs on Paddle 2.6 to 3.3), "paddle-json" (3.x) or "onnx".
        pointwise: "conv" where the backbone's pointwise linears were rewritten to 1x1 convolutions, which is what bfloat16
            on CPU is fast with; else "linear".
        tasks: as in the training config, with post-processing and test-time augmentation, without classes.
        infer: the (height, width) shown to all heads at once, and the drawing threshold.
        precision: "int8" where convolutions and linears compute in 8 bit.
    """

    format: Literal[1]
    name: str
    graph_format: GraphFormat
    trunk: BackboneGraph
    heads: dict[str, HeadGraph]
    tasks: dict[str, TaskPart]
    classes: dict[str, ClassList]
    versions: dict[str, str]
    source: SourceRecord
    files: tuple[FileRecord, ...]
    pointwise: Pointwise = "linear"
    input: InputSettings = field(default_factory=InputSettings)
    infer: InferSettings = field(default_factory=InferSettings)
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not set(self.heads) == set(self.tasks) == set(self.classes):
            found = ", ".join(f"{group} has {sorted(getattr(self, group))}" for group in ("heads", "tasks", "classes"))
            raise ValueError(f"{found}; they must be the same")
        for name, head in self.heads.items():
            unknown = set(head.inputs) - {*self.trunk.outputs, IMAGE_SIZE}
            if unknown:
                raise ValueError(f"heads.{name}.inputs: {sorted(unknown)} is no output of the trunk")
        needed, listed = self.all_files(self.heads), sorted(record.name for record in self.files)
        if sorted(needed) != listed:
            raise ValueError(f"files lists {listed}, the graphs are made of {sorted(needed)}")
        outside = [file for file in needed if Path(file).name != file]
        if outside:
            raise ValueError(f"files must lie in the bundle itself, got {outside}")

    def all_files(self, heads: Iterable[str]) -> list[str]:
        """The names of the files of the backbone and of these heads."""
        stems = [self.trunk.file, *(stem for name in heads for stem in self.heads[name].files)]
        return [file for stem in stems for file in self.graph_files(stem)]

    def graph_files(self, stem: str) -> tuple[str, ...]:
        """The names of the files that make the graph called ``stem``; the first is the graph itself."""
        return tuple(stem + suffix for suffix in SUFFIXES[self.graph_format])


def file_records(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The entries of ``files`` in infer_cfg.yml."""
    return [{"name": file.name, "sha256": sha256(file), "bytes": file.stat().st_size} for file in files]


def write_settings(folder: Path, document: Mapping[str, Any]) -> BundleSettings:
    """Writes a bundle's infer_cfg.yml and returns it as settings; raises ConfigError if it does not fit the schema."""
    tree = ConfigTree(dict(document), {}, str(folder / SETTINGS_FILE))
    settings = check(BundleSettings, tree)
    (folder / SETTINGS_FILE).write_text(tree.dump(), encoding="utf-8")
    return settings
