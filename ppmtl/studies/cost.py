"""What a run costs, without running it: parameters, multiply-adds, memory, from shapes alone.

Convolutions and linear layers are replaced by stand-ins that compute their output's shape, note their multiply-adds and
return zeros. Everything else runs as it is, on a batch of zero pictures: exact for any input size, in milliseconds. A
model for counting needs no weights either (``without_weights``): ConvNeXt-L is there in a tenth of a second.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import paddle
from paddle import nn

from ppmtl.config.settings import Settings
from ppmtl.structures import Size
from ppmtl.tasks.base import Task

FLOP_PER_MAC = 2
FORWARD_AND_BACKWARD = 3  # the backward pass computes two products (by input, by weight) for each of the forward's
_SHRINK = 4  # activations are measured on inputs of a quarter of the sides, then scaled by area


@dataclass(frozen=True)
class SourceCost:
    """One source's share of a training step.

    Attributes:
        size: (height, width) of its network input.
        backbone: multiply-adds of one picture's forward pass.
        heads: the same for each head that it supervises, training-only parts included.
        activation_bytes: what one picture's forward pass keeps for the backward pass.
    """

    name: str
    batch_size: int
    size: Size
    backbone: int
    heads: dict[str, int]
    activation_bytes: int

    @property
    def macs(self) -> int:
        """Returns the multiply-adds of one picture's forward pass."""
        return self.backbone + sum(self.heads.values())


@dataclass(frozen=True)
class EvalCost:
    """One picture's evaluation; ``size`` is the plain view's, ``tta_macs`` the sum over all ``tta_views``."""

    task: str
    size: Size
    backbone: int
    head: int
    tta_views: int
    tta_macs: int


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        parameters: {"backbone" or "heads.<task>": {part: trainable numbers}}; running statistics are not counted.
        state_bytes_per_parameter: weight, gradient, AdamW's two moments, and the average when EMA is on.
        uncounted: parameters of layers whose multiply-adds are not known here.
    """

    parameters: dict[str, dict[str, int]]
    sources: list[SourceCost]
    evaluation: list[EvalCost]
    state_bytes_per_parameter: int
    total_steps: int
    uncounted: tuple[str, ...]

    @property
    def parameter_count(self) -> int:
        """Returns the number of trainable parameters."""
        return sum(sum(parts.values()) for parts in self.parameters.values())

    @property
    def step_flop(self) -> int:
        """Returns the floating-point operations of one optimizer step on one process."""
        return FLOP_PER_MAC * FORWARD_AND_BACKWARD * sum(s.batch_size * s.macs for s in self.sources)

    @property
    def state_bytes(self) -> int:
        """Returns the memory of weights, gradients and optimizer."""
        return self.parameter_count * self.state_bytes_per_parameter

    @property
    def activation_bytes(self) -> int:
        """Returns the largest source's: the loop runs one after the other, so memory is one source's, not the sum."""
        return max((s.batch_size * s.activation_bytes for s in self.sources), default=0)


def without_weights(build: Callable[[], nn.Layer]) -> nn.Layer:
    """Returns a model whose convolutions and linears have shapes but no numbers: for counting only."""
    with paddle.LazyGuard():
        model = build()
    replaced = {id(layer.weight) for _, layer in _counted_layers(model)}
    for parameter in model.parameters():
        if id(parameter) not in replaced:
            parameter.initialize()
    return model


def estimate(
    model: nn.Layer, settings: Settings, tasks: Mapping[str, Task], sizes: Mapping[str, Size], picture: Size
) -> Cost:
    """Returns what the run of ``settings`` costs.

    Args:
        model: the MultiTaskModel; with or without weights.
        settings: the run.
        tasks: {name: task}, for evaluation sizes and views.
        sizes: {source: (height, width)} of its network inputs.
        picture: (height, width) of an original picture, for tasks that show it at its own size.
    """
    sources = []
    for name, source in settings.sources.items():
        macs = count_macs(model, sizes[name], source.tasks, training=True)
        heads = {task: _under(macs, f"heads.{task}") for task in source.tasks}
        activations = measure_activations(model, sizes[name], source.tasks)
        sources.append(SourceCost(name, source.batch_size, sizes[name], _under(macs, "backbone"), heads, activations))
    evaluation = []
    for name, task in tasks.items():
        plain = task.plain_size(picture)
        macs = count_macs(model, plain, [name], training=False)
        views = task.views(picture, augment=True)
        total = sum(sum(count_macs(model, view.size, [name], training=False).values()) for view in views)
        backbone, head = _under(macs, "backbone"), _under(macs, f"heads.{name}")
        evaluation.append(EvalCost(name, plain, backbone, head, len(views), total))
    return Cost(
        count_parameters(model),
        sources,
        evaluation,
        state_bytes_per_parameter=16 + (4 if settings.train.ema_decay else 0),
        total_steps=settings.train.total_steps,
        uncounted=uncounted_parameters(model),
    )


def train_sizes(settings: Settings, given: Mapping[str, Size]) -> dict[str, Size]:
    """Returns {source: (height, width)}: the ``size`` of its last transform that has one, unless given.

    Raises:
        ValueError: if neither says it.
    """
    sizes = {}
    for name, source in settings.sources.items():
        found = [size for t in source.transforms if (size := getattr(t, "keywords", {}).get("size")) is not None]
        if name not in given and not found:
            raise ValueError(
                f"sources.{name}: no transform fixes the input's size; give it: --size {name}=HEIGHTxWIDTH"
            )
        height, width = given.get(name) or found[-1]
        sizes[name] = (int(height), int(width))
    return sizes


def count_parameters(model: nn.Layer) -> dict[str, dict[str, int]]:
    """Returns {"backbone" or "heads.<task>": {its part: trainable numbers}}, both in the order of the model."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:  # batch norm's running statistics are parameters to Paddle
            continue
        words = name.split(".")
        at = 2 if words[0] == "heads" else 1
        counts[".".join(words[:at])][words[at]] += int(parameter.size)
    return {part: dict(inner) for part, inner in counts.items()}


def count_macs(model: nn.Layer, size: Size, tasks: Sequence[str], *, training: bool) -> dict[str, int]:
    """Returns {layer: multiply-adds} of one picture's forward pass.

    Args:
        model: the MultiTaskModel.
        size: (height, width) of the network input.
        tasks: the heads to run.
        training: count what only training runs, such as auxiliary heads.
    """
    for batch in (0, 1):
        macs: dict[str, int] = defaultdict(int)

        def note(name: str, layer: nn.Layer, _: paddle.Tensor, output: list[int], macs: dict[str, int] = macs) -> None:
            positions = math.prod(output[2:] if isinstance(layer, nn.Conv2D) else output[1:-1])
            macs[name] += positions * int(layer.weight.size)

        try:
            with paddle.no_grad(), _untouched(model, training=False), _stand_ins(model, note):
                _forward(model, batch, size, tasks, training=training)
            return dict(macs)
        except (ValueError, RuntimeError, ZeroDivisionError):
            # A custom head may not take an empty batch. With one picture it is slow, and an error then is a real one.
            if batch == 1:
                raise
    raise AssertionError("unreachable")


def measure_activations(model: nn.Layer, size: Size, tasks: Sequence[str]) -> int:
    """Returns how many bytes one picture's training forward pass keeps for the backward pass.

    Measured on a smaller input, and scaled by area: Paddle itself reports what its operators save, each memory counted
    once; convolutions and linears, which are stand-ins here, save their input. Work space of kernels is not included.
    """
    small = small_size(size, _SHRINK)
    own = {p.data_ptr() for p in model.parameters() if p._is_initialized()}
    kept: dict[int, paddle.Tensor] = {}  # holding the tensors keeps their addresses from being used again

    def keep(x: paddle.Tensor) -> paddle.Tensor:
        kept[x.data_ptr()] = x
        return x

    batch = 2  # batch norm of a 1 x 1 map cannot train on one picture
    hooks = paddle.autograd.saved_tensors_hooks(keep, lambda x: x)
    with _untouched(model, training=True), _stand_ins(model, lambda _name, _layer, x, _output: keep(x)), hooks:
        _forward(model, batch, small, tasks, training=True)
    total = sum(int(x.size) * x.element_size() for address, x in kept.items() if address not in own)
    return round(total / batch * math.prod(size) / math.prod(small))


def small_size(size: Size, shrink: int) -> Size:
    """Returns about 1 / ``shrink`` of both sides, in multiples of 32, at least 64 px and at most the whole."""
    height, width = (min(side, max(64, round(side / shrink / 32) * 32)) for side in size)
    return (height, width) if shrink > 1 else size


def uncounted_parameters(model: nn.Layer) -> tuple[str, ...]:
    """Returns matrices and kernels that belong to no layer whose multiply-adds are counted."""
    counted = {id(layer.weight) for _, layer in _counted_layers(model)}
    named = model.named_parameters()
    return tuple(name for name, p in named if p.ndim > 1 and not p.stop_gradient and id(p) not in counted)


def dummy_targets(model: nn.Layer, batch: int, size: Size, tasks: Sequence[str]) -> dict[str, dict[str, paddle.Tensor]]:
    """Returns targets of the right form for each head; detection gets one box in the first picture.

    Raises:
        ValueError: if a head answers a task type without known targets.
    """
    first = 0.0 if batch else -1.0  # -1 = padding (the contract of tasks/detection.py)
    makers: dict[str, Callable[[], dict[str, paddle.Tensor]]] = {
        "segmentation": lambda: {"label_map": paddle.zeros([batch, *size], "int64")},
        "classification": lambda: {"class_index": paddle.zeros([batch], "int64")},
        "detection": lambda: {"boxes": paddle.to_tensor([[first, 0.0, 0.5, 0.5, 0.1, 0.1]])},
    }
    kinds = {task: model.heads[task].task_type for task in tasks}
    unknown = [f"{task} ({kind})" for task, kind in kinds.items() if kind not in makers]
    if unknown:
        raise ValueError(f"no targets are known to count {', '.join(unknown)} with; known are {', '.join(makers)}")
    return {task: makers[kind]() for task, kind in kinds.items()}


def _forward(model: nn.Layer, batch: int, size: Size, tasks: Sequence[str], *, training: bool) -> None:
    images = paddle.zeros([batch, *size, 3], "uint8")
    if training:
        model(images, targets=dummy_targets(model, batch, size, tasks))
    else:
        model(images, tasks=tasks)


def _under(macs: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in macs.items() if name.startswith(f"{prefix}."))


def _counted_layers(model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
    for name, layer in model.named_sublayers():
        if isinstance(layer, nn.Conv2D | nn.Linear):
            yield name, layer


@contextmanager
def _untouched(model: nn.Layer, *, training: bool) -> Iterator[None]:
    """Switches the mode; afterwards mode and batch norm's running statistics are as before."""
    was_training = model.training
    statistics = [(p, p.clone()) for p in model.parameters() if p.stop_gradient]
    (model.train if training else model.eval)()
    try:
        yield
    finally:
        (model.train if was_training else model.eval)()
        for parameter, value in statistics:
            parameter.set_value(value)


@contextmanager
def _stand_ins(model: nn.Layer, note: Callable[[str, nn.Layer, paddle.Tensor, list[int]], object]) -> Iterator[None]:
    """Replaces the forward of every convolution and linear layer by one that notes the call and returns zeros."""
    layers = list(_counted_layers(model))

    def stand_in(name: str, layer: nn.Layer) -> Callable[[paddle.Tensor], paddle.Tensor]:
        def forward(x: paddle.Tensor) -> paddle.Tensor:
            shape = (
                _conv_shape(name, layer, x) if isinstance(layer, nn.Conv2D) else [*x.shape[:-1], layer.weight.shape[1]]
            )
            note(name, layer, x, shape)
            result = paddle.zeros(shape)
            result.stop_gradient = False  # so that the layers behind it save what their backward needs
            return result

        return forward

    try:
        for name, layer in layers:
            layer.forward = stand_in(name, layer)
        yield
    finally:
        for _, layer in layers:
            layer.__dict__.pop("forward", None)


def _conv_shape(name: str, layer: nn.Conv2D, x: paddle.Tensor) -> list[int]:
    """Returns the output's shape, by the formula in Paddle's documentation of Conv2D."""
    pads = list(layer._updated_padding)
    if layer._padding_algorithm != "EXPLICIT" or layer._padding_mode != "zeros" or len(pads) not in (2, 4):
        raise ValueError(
            f"{name}: its multiply-adds cannot be counted: padding must be given in pixels, filled with zeros"
        )
    around = [2 * pad for pad in pads] if len(pads) == 2 else [pads[0] + pads[1], pads[2] + pads[3]]
    sides = [
        (int(side) + pad - dilation * (kernel - 1) - 1) // stride + 1
        for side, pad, dilation, kernel, stride in zip(
            x.shape[2:], around, layer._dilation, layer._kernel_size, layer._stride, strict=True
        )
    ]
    return [int(x.shape[0]), int(layer.weight.shape[0]), *sides]
