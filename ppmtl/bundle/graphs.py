"""The evaluation model as graphs: one of the backbone, one per head, two for a head that answers in steps.

Only what evaluation computes is in them. Auxiliary heads are not traced, batch normalisation and layer scale are folded
into the weights beside them, dropout and drop-path are gone, and features that no exported head reads are not computed.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddle.pir_utils import OldIrGuard
from paddle.static import InputSpec

from ppmtl.bundle.settings import (
    IMAGE_SIZE,
    IMAGES,
    TRUNK,
    HeadGraph,
    ImageType,
    PixelSettings,
    Pointwise,
    Search,
    StepGraph,
)
from ppmtl.models.base import Head, StepwiseHead
from ppmtl.models.layers import Foldable
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.ops.beam_search import SEQUENCE_ARRAYS
from ppmtl.structures import Size

_PROBE: Size = (128, 128)  # where the size is free: large enough for every backbone, small enough to cost nothing


@dataclass(frozen=True)
class Plan:
    """What is exported: (height, width) of the input and images per run, None = any; each task's graph.

    ``shapes`` is (channels, height, width) of every feature that some head reads; None where the size is free.
    """

    size: Size | None
    batch: int | None
    heads: dict[str, HeadGraph]
    shapes: dict[str, tuple[int, int | None, int | None]]

    @property
    def images(self) -> ImageType:
        """What the backbone takes: pixels that were changed first are no whole numbers."""
        return "float32" if any(head.pixels for head in self.heads.values()) else "uint8"


class _Sides(tuple[int, int]):
    """An (H, W) that remembers whether a head looked at it."""

    asked = False

    def __getitem__(self, index: Any) -> Any:
        self.asked = True
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in (0, 1))


class _Features(dict[str, paddle.Tensor]):
    """Features that remember at which of them a head looked: those of auxiliary losses it does not need here."""

    def __init__(self, features: Mapping[str, paddle.Tensor]) -> None:
        super().__init__(features)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> paddle.Tensor:
        self.asked.add(name)
        return super().__getitem__(name)


@paddle.no_grad()
def make_plan(model: MultiTaskModel, tasks: Sequence[str], size: Size | None, batch: int | None) -> Plan:
    """The plan for a model; runs it once on a black image for the shapes and the names of its outputs.

    Raises:
        ValueError: if the model refuses images of ``size``.
    """
    model.eval()
    height, width = size or _PROBE
    try:
        features = model.backbone(model.normalise(paddle.zeros([1, height, width, 3], "uint8")))
    except ValueError as error:
        raise ValueError(f"the model cannot be exported for inputs of {height} x {width} (H x W): {error}") from error
    heads = {}
    for task in tasks:
        head, sides = model.head(task), _Sides((height, width))
        given = _Features({name: features[name] for name in head.reads})
        steps = None
        if isinstance(head, StepwiseHead):
            head.begin(given)  # it alone looks at features
            outputs, steps = SEQUENCE_ARRAYS, StepGraph(f"head_{task}_step", Search(**head.search))
        else:
            outputs = tuple(sorted(head(given, sides)))
        inputs = [name for name in head.reads if name in given.asked]
        # A fixed size is written into the graph instead of being asked for
        asks = (IMAGE_SIZE,) if size is None and sides.asked else ()
        changed = model.pixels_for(task)
        pixels = None if changed is None else PixelSettings(*changed)
        heads[task] = HeadGraph(f"head_{task}", (*inputs, *asks), outputs, pixels, steps)
    used = [name for name in features if any(name in head.inputs for head in heads.values())]
    shapes = {n: (features[n].shape[1], *(features[n].shape[2:] if size else (None, None))) for n in used}
    return Plan(size, batch, heads, shapes)


def inference_copy(model: MultiTaskModel, pointwise: Pointwise = "linear") -> MultiTaskModel:
    """A copy of the model with the same outputs in evaluation and nothing left that only training needs.

    ``pointwise`` "conv" turns the backbone's pointwise linears into 1x1 convolutions, for bfloat16 on CPU; ConfigError if it
    cannot.
    """
    copied = copy.deepcopy(model)
    copied.eval()
    for layer in copied.sublayers(include_self=True):
        if isinstance(layer, Foldable):
            layer.fold_for_inference()
        for name, child in layer.named_children():
            if isinstance(child, nn.Dropout | nn.Dropout2D):
                setattr(layer, name, nn.Identity())
    if pointwise == "conv":
        copied.backbone.use_pointwise_convolutions()
    return copied


class _BackboneLayer(nn.Layer):
    def __init__(self, model: MultiTaskModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        features = self.model.backbone(self.model.normalise(images))
        return [features[name] for name in self.names]


class _HeadLayer(nn.Layer):
    def __init__(self, head: Head, graph: HeadGraph, size: Size | None) -> None:
        super().__init__()
        self.head, self.graph = head, graph
        self.size = size or _PROBE  # a head that does not ask never sees the probe's

    def forward(self, inputs: list[paddle.Tensor]) -> list[paddle.Tensor]:
        given = dict(zip(self.graph.inputs, inputs))  # noqa: B905  (Paddle rewrites zip and does not know "strict")
        size = given.pop(IMAGE_SIZE, None)
        raw = self.head(given, self.size if size is None else (size[0], size[1]))
        return [raw[name] for name in self.graph.outputs]


class _WholeLayer(nn.Layer):
    def __init__(self, model: MultiTaskModel, plan: Plan) -> None:
        super().__init__()
        self.model, self.plan = model, plan

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        raw = self.model(images, tasks=list(self.plan.heads))
        return [raw[task][name] for task, head in self.plan.heads.items() for name in head.outputs]


class _BeginLayer(nn.Layer):
    def __init__(self, head: StepwiseHead, graph: HeadGraph) -> None:
        super().__init__()
        self.head, self.graph = head, graph

    def forward(self, inputs: list[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        return self.head.begin(dict(zip(self.graph.inputs, inputs)))  # noqa: B905  (as above)


class _StepLayer(nn.Layer):
    def __init__(self, head: StepwiseHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, tokens: paddle.Tensor, rows: paddle.Tensor, state: paddle.Tensor, memory: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        return self.head.step(tokens, rows, state, memory)


@paddle.no_grad()
def _step_specs(head: StepwiseHead, given: Sequence[InputSpec]) -> list[InputSpec]:
    """The inputs of a head's step for features of these forms; an axis is free where two examples differ."""

    def begin(side: int) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        return head.begin({s.name: paddle.zeros([side if n in (None, -1) else n for n in s.shape]) for s in given})

    (log_probs, state, memory), (_, _, other_memory) = begin(2), begin(4)
    rows = paddle.arange(len(log_probs)).repeat_interleave(2)  # two sequences of every image
    _, other_state = head.step(paddle.zeros_like(rows), rows, state, memory)
    numbers = [InputSpec([None], "int64", name) for name in ("tokens", "rows")]
    examples = {"state": (state.shape, other_state.shape), "memory": (memory.shape, other_memory.shape)}
    return numbers + [
        InputSpec([a if a == b else None for a, b in zip(*shapes, strict=True)], "float32", name)
        for name, shapes in examples.items()
    ]


def save_graphs(model: MultiTaskModel, plan: Plan, folder: Path, *, old_format: bool) -> None:
    """Writes the backbone and the planned heads of an :func:`inference_copy`, parameters beside each graph.

    ``old_format`` is .pdmodel, which Paddle 2.6 to 3.3 run; the new one is .json, for Paddle 3.
    """
    images = InputSpec([plan.batch, *(plan.size or (None, None)), 3], plan.images, IMAGES)
    _save(_BackboneLayer(model, list(plan.shapes)), [images], folder / TRUNK, old_format)
    specs = {name: InputSpec([plan.batch, *shape], "float32", name) for name, shape in plan.shapes.items()}
    specs[IMAGE_SIZE] = InputSpec([2], "int32", IMAGE_SIZE)
    for task, graph in plan.heads.items():
        head, given = model.head(task), [specs[name] for name in graph.inputs]
        if graph.steps is not None:
            assert isinstance(head, StepwiseHead)
            _save(_BeginLayer(head, graph), [given], folder / graph.file, old_format)
            _save(_StepLayer(head), _step_specs(head, given), folder / graph.steps.file, old_format)
        else:
            _save(_HeadLayer(head, graph, plan.size), [given], folder / graph.file, old_format)


def save_whole(model: MultiTaskModel, plan: Plan, path: Path) -> None:
    """Writes backbone and planned heads of an :func:`inference_copy` as one graph in Paddle's new format, ``path``.json.

    Its outputs are those of the first head, of the second, ...; no head may answer in steps.
    """
    images = InputSpec([plan.batch, *(plan.size or (None, None)), 3], "uint8", IMAGES)
    _save(_WholeLayer(model, plan), [images], path, False)


def _save(graph: nn.Layer, specs: list[Any], path: Path, old_format: bool) -> None:
    """Traces and writes one graph. Its layers exist already: built inside the guard they could not be traced."""
    graph.eval()
    with OldIrGuard() if old_format else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on Paddle's own deprecated attributes
        paddle.jit.save(graph, str(path), input_spec=specs)
    path.with_name(f"{path.name}.pdiparams.info").unlink(missing_ok=True)  # only paddle.jit.load would read it
    if old_format:
        _tidy(path.with_name(f"{path.name}.pdmodel"))


def _tidy(file: Path) -> None:
    """Rewrites a .pdmodel without the call stacks of its tracing, and with biases where oneDNN looks for them."""
    with OldIrGuard():
        program = paddle.static.Program.parse_from_string(file.read_bytes())
        for index in range(program.desc.num_blocks()):
            block = program.desc.block(index)
            for operator in (block.op(i) for i in range(block.op_size())):
                operator.remove_attr("op_callstack")  # Python files and lines, with the paths of this machine
            _attach_biases(block)
        file.write_bytes(program.desc.serialize_to_string())


def _attach_biases(block: Any) -> None:
    """Turns conv -> add(reshape(bias), axis=-1), as Paddle traces it, into conv -> add(bias, axis=1); same numbers.

    Only the second form is known to Paddle Inference's oneDNN passes (conv + bias, + activation, + residual). Without it
    every bias is a pass over memory, and half of a ConvNeXt's convolutions stay in float32 when bfloat16 is asked for.
    """
    operators = [block.op(i) for i in range(block.op_size())]
    makers = {name: i for i, operator in enumerate(operators) for name in operator.output_arg_names()}
    readers = Counter(name for operator in operators for name in operator.input_arg_names())
    reshapes = []
    for operator in operators:
        if operator.type() != "elementwise_add":
            continue
        (left,), (right,) = operator.input("X"), operator.input("Y")
        if left not in makers or right not in makers or readers[right] > 1:
            continue
        made_by, reshape = operators[makers[left]], operators[makers[right]]
        if made_by.type() in ("conv2d", "depthwise_conv2d") and reshape.type() == "reshape2":
            (bias,) = reshape.input("X")
            if bias not in makers and reshape.attr("shape")[2:] == [1, 1]:  # a parameter, along the channels
                operator.set_input("Y", [bias])
                operator._set_attr("axis", 1)
                reshapes.append(makers[right])
    for index in sorted(reshapes, reverse=True):
        block._remove_op(index, index + 1)
