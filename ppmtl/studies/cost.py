"""What a run costs, before it is run: parameters, multiply-adds, memory; and how fast this machine computes it.

Multiply-adds are counted by hooks while an EMPTY batch goes through the real model at the real input size: every layer
sees its true shapes and computes nothing. Memory is what Paddle keeps for the backward pass of a small input, scaled by area.
Every function changes the mode of the model that it gets.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import paddle
from paddle import nn

from ppmtl.config.settings import Settings, named_views
from ppmtl.models.base import StepwiseHead
from ppmtl.structures import Size
from ppmtl.tasks.base import Task

FLOP_PER_MAC = 2
FORWARD_AND_BACKWARD = 3  # the backward pass computes two products (by input, by weight) for each of the forward's
_SMALL_BATCH = 2  # batch norm of a 1 x 1 map cannot train on one image
_SHRINK = 8  # activations are measured on inputs of an eighth of the sides
_ENOUGH_FLOP = 1e11  # of a timed pass: some three seconds on one core
_TIMED = 3  # passes
_COUNTED = (nn.Conv2D, nn.Linear)


@dataclass(frozen=True)
class SourceCost:
    """One view of a source in a training step, per image; ``activation_bytes`` is kept for the backward pass."""

    name: str
    batch_size: int
    size: Size
    backbone: int
    heads: dict[str, int]
    activation_bytes: int


@dataclass(frozen=True)
class EvalCost:
    """One image's evaluation; ``size`` is the plain view's, ``tta_macs`` the sum over all ``tta_views``."""

    task: str
    size: Size
    backbone: int
    head: int
    tta_views: int
    tta_macs: int


@dataclass(frozen=True)
class Cost:
    """What a run costs. ``backbone``, ``head`` and ``heads`` above are multiply-adds of a forward pass.

    Attributes:
        parameters: {"backbone" or "heads.<task>": {part: trainable numbers}}; running statistics are not counted.
        parameter_count: their sum.
        state_bytes: weights, gradients and optimizer.
        activation_bytes: of the largest view: the loop runs one after the other, so memory is not the sum.
        step_flop: floating-point operations of one optimizer step on one process; the mean where a source has ``every``.
        uncounted: parameters of layers whose multiply-adds are not known here.
    """

    parameters: dict[str, dict[str, int]]
    parameter_count: int
    sources: list[SourceCost]
    evaluation: list[EvalCost]
    state_bytes_per_parameter: int
    state_bytes: int
    activation_bytes: int
    step_flop: int
    total_steps: int
    uncounted: tuple[str, ...]


def estimate(
    model: nn.Layer, settings: Settings, tasks: Mapping[str, Task[Any]], sizes: Mapping[str, Size], original: Size
) -> Cost:
    """Estimates the run of ``settings``; the model's running statistics change.

    ``sizes`` are the (height, width) of the network inputs, {"source" or "source.view": size}, ``original`` those of an
    original image, for tasks that show it at its own size.
    """
    parameters, sources = count_parameters(model), []
    for name, (source, view) in named_views(settings.sources).items():
        chosen = {task: tasks[task] for task in view.tasks}
        counted = count_macs(model, sizes[name], chosen, training=True)
        heads = {task: _under(counted, f"heads.{model.head_of[task]}") for task in chosen}
        kept = measure_activations(model, sizes[name], chosen)
        sources.append(SourceCost(name, source.batch_size, sizes[name], _under(counted, "backbone"), heads, kept))
    count = sum(sum(parts.values()) for parts in parameters.values())
    per_parameter = 16 + (4 if settings.train.ema_decay else 0)  # weight, gradient, AdamW's two moments, average
    paces = [source.every for source, _ in named_views(settings.sources).values()]
    macs = sum(s.batch_size * (s.backbone + sum(s.heads.values())) / n for s, n in zip(sources, paces, strict=True))
    return Cost(
        parameters=parameters,
        parameter_count=count,
        sources=sources,
        evaluation=[_evaluation(model, name, task, original) for name, task in tasks.items()],
        state_bytes_per_parameter=per_parameter,
        state_bytes=count * per_parameter,
        activation_bytes=max((s.batch_size * s.activation_bytes for s in sources), default=0),
        step_flop=round(FLOP_PER_MAC * FORWARD_AND_BACKWARD * macs),
        total_steps=settings.train.total_steps,
        uncounted=uncounted_parameters(model),
    )


def _evaluation(model: nn.Layer, name: str, task: Task[Any], original: Size) -> EvalCost:
    sides = [task.plain_size(original), *(view.size for view in task.views(original, augment=True))]
    plain, *views = (count_macs(model, side, {name: task}, training=False) for side in sides)
    total = sum(sum(macs.values()) for macs in views)
    head = _under(plain, f"heads.{model.head_of[name]}")
    return EvalCost(name, sides[0], _under(plain, "backbone"), head, len(views), total)


def train_sizes(settings: Settings, given: Mapping[str, Size]) -> dict[str, Size]:
    """Input size of every view of every source: the ``size`` of its last transform that has one, unless given."""
    sizes = {}
    for name, (_, view) in named_views(settings.sources).items():
        found = [size for t in view.transforms if (size := getattr(t, "keywords", {}).get("size"))]
        if name not in given and not found:
            problem = "no transform fixes the input's size"
            raise ValueError(f"sources.{name}: {problem}; give it: --size {name}=HEIGHTxWIDTH")
        height, width = given.get(name) or found[-1]
        sizes[name] = (int(height), int(width))
    return sizes


def count_parameters(model: nn.Layer) -> dict[str, dict[str, int]]:
    """{"backbone" or "heads.<task>": {its part: trainable numbers}}, both in the order of the model."""
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:  # batch norm's running statistics are parameters to Paddle
            continue
        words = name.split(".")
        at = 2 if words[0] == "heads" else 1
        part = counts.setdefault(".".join(words[:at]), {})
        part[words[at]] = part.get(words[at], 0) + int(parameter.size)
    return counts


def uncounted_parameters(model: nn.Layer) -> tuple[str, ...]:
    """Matrices and kernels that belong to no layer whose multiply-adds are counted."""
    counted = {id(layer.weight) for layer in model.sublayers() if isinstance(layer, _COUNTED)}
    named = model.named_parameters()
    matrices = [(name, p) for name, p in named if sum(length > 1 for length in p.shape) > 1 and not p.stop_gradient]
    return tuple(name for name, p in matrices if id(p) not in counted)


@paddle.no_grad()
def count_macs(model: nn.Layer, size: Size, tasks: Mapping[str, Task[Any]], *, training: bool) -> dict[str, int]:
    """{layer: multiply-adds} of one image's forward pass at ``size``, with the heads of ``tasks``.

    ``training`` counts what only training runs too, such as auxiliary heads. The evaluation of a head that answers in steps
    is that of its longest answer, with all sequences followed to the end; most images take less.
    """
    macs: dict[str, int] = defaultdict(int)

    def count(name: str, layer: nn.Layer, _: object, output: paddle.Tensor) -> None:
        positions = math.prod(output.shape[2:] if isinstance(layer, nn.Conv2D) else output.shape[1:-1])
        macs[name] += positions * int(layer.weight.size)

    layers = [(name, layer) for name, layer in model.named_sublayers() if isinstance(layer, _COUNTED)]
    hooks = [layer.register_forward_post_hook(partial(count, name)) for name, layer in layers]
    stepwise = {} if training else {f"heads.{model.head_of[task]}.": model.head(task) for task in tasks}
    stepwise = {prefix: head for prefix, head in stepwise.items() if isinstance(head, StepwiseHead)}
    given: dict[str, Any] = {}  # the features that each of them saw
    for prefix, head in stepwise.items():
        hooks.append(head.register_forward_pre_hook(partial(_keep, given, prefix)))

    def forward(batch: int) -> None:
        _forward(model, batch, size, tasks, training=training)
        for prefix, head in stepwise.items():
            _count_steps(macs, prefix, head, given[prefix])

    model.eval()  # an empty batch must not change batch norm's statistics
    try:
        forward(0)
    except (ValueError, RuntimeError, OSError, ZeroDivisionError):  # OSError: Paddle's name for errors of CUDA
        macs.clear()  # a head of one's own may not take an empty batch; one image is slow, and always right
        forward(1)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(macs)


def _keep(given: dict[str, Any], key: str, _: nn.Layer, inputs: tuple[Any, ...]) -> None:
    given[key] = inputs[0]


def _count_steps(macs: dict[str, int], prefix: str, head: StepwiseHead, features: Mapping[str, paddle.Tensor]) -> None:
    """Replaces what the search computed by its longest way: once for the image, then a step per token and sequence."""
    for name in [name for name in macs if name.startswith(prefix)]:
        del macs[name]
    log_probs, state, memory = head.begin(features)
    first = dict(macs)
    tokens = paddle.zeros([len(log_probs)], "int64")
    head.step(tokens, tokens, state, memory)
    steps = (head.search["length"] - 1) * head.search["beam_size"]
    macs.update({name: first.get(name, 0) + steps * (macs[name] - first.get(name, 0)) for name in macs})


def measure_activations(model: nn.Layer, size: Size, tasks: Mapping[str, Task[Any]]) -> int:
    """Bytes that one image's training forward pass keeps for the backward pass.

    Measured on a smaller input and scaled by area, as Paddle's operators report it; the work space of kernels is not
    included.
    """
    small = small_size(size, _SHRINK)
    # What two batches differ by: copies of weights, which no image makes larger, are not to be scaled by area
    once, twice = (_kept_bytes(model, batch, small, tasks) for batch in (_SMALL_BATCH, 2 * _SMALL_BATCH))
    return round((twice - once) / _SMALL_BATCH * math.prod(size) / math.prod(small))


def _kept_bytes(model: nn.Layer, batch: int, size: Size, tasks: Mapping[str, Task[Any]]) -> int:
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, paddle.Tensor] = {}  # holding the tensors keeps their addresses from being used again

    def keep(x: paddle.Tensor) -> paddle.Tensor:
        kept[x.data_ptr()] = x
        return x

    model.train()
    with paddle.autograd.saved_tensors_hooks(keep, lambda x: x):
        _forward(model, batch, size, tasks, training=True)
    return sum(int(x.size) * x.element_size() for address, x in kept.items() if address not in own)


def small_size(size: Size, shrink: int) -> Size:
    """About 1 / ``shrink`` of both sides, in multiples of 32, at least 64 px and at most ``size``."""
    height, width = (min(side, max(64, round(side / shrink / 32) * 32)) for side in size)
    return (height, width) if shrink > 1 else size


def measure_throughput(
    model: nn.Layer, settings: Settings, tasks: Mapping[str, Task[Any]], sizes: Mapping[str, Size]
) -> float:
    """FLOP/s of this machine over a step: forward and backward passes of every view at its own size and batch.

    Each view is timed by itself, since small inputs give fewer FLOP/s than large ones: the median of some passes after one
    that is not counted. What would take too long is timed on a smaller batch or input and scaled by its multiply-adds.
    """
    done = spent = 0.0
    for name, (source, view) in named_views(settings.sources).items():
        chosen = {task: tasks[task] for task in view.tasks}

        def per_image(size: Size, chosen: Mapping[str, Task[Any]] = chosen) -> int:
            macs = sum(count_macs(model, size, chosen, training=True).values())
            return macs * FLOP_PER_MAC * FORWARD_AND_BACKWARD

        for shrink in (1, 2, 4, 8):
            size = small_size(sizes[name], shrink)
            flop = per_image(size)
            if _SMALL_BATCH * flop <= _ENOUGH_FLOP:
                break
        batch = max(_SMALL_BATCH, min(source.batch_size, int(_ENOUGH_FLOP / flop)))
        seconds = _pass_seconds(model, batch, size, chosen)
        wanted = source.batch_size * per_image(sizes[name]) / source.every
        done, spent = done + wanted, spent + seconds * wanted / (batch * flop)
    return done / spent


def _pass_seconds(model: nn.Layer, batch: int, size: Size, tasks: Mapping[str, Task[Any]]) -> float:
    """The median time of a forward and backward pass."""
    model.train()
    seconds = []
    for _ in range(1 + _TIMED):  # the first also pays for memory and the choice of kernels
        started = time.perf_counter()
        terms = _forward(model, batch, size, tasks, training=True)
        loss = paddle.add_n([value for of_task in terms.values() for value in of_task.values()])
        loss.backward()
        float(loss)  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _forward(model: nn.Layer, batch: int, size: Size, tasks: Mapping[str, Task[Any]], *, training: bool) -> Any:
    images = paddle.zeros([batch, *size, 3], "uint8")
    if not training:
        return model(images, tasks=tuple(tasks))
    arrays = {name: task.example_targets(batch, size) for name, task in tasks.items()}
    targets = {name: {key: paddle.to_tensor(array) for key, array in of.items()} for name, of in arrays.items()}
    return model(images, targets=targets)


def _under(macs: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in macs.items() if name.startswith(f"{prefix}."))
