"""UPerNet against PaddleSeg, YOLOCSPPAN against PaddleDetection: outputs and gradients with the same random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from parity_checks.backbone import import_timm
from parity_checks.outcome import NotRun, Outcome, need, not_run, relative, release, seeded
from ppmtl.models.heads.cbam_fc import _CBAM
from ppmtl.models.heads.upernet import UPerNet, pixel_cross_entropy
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import FeatureSpec

DOUBLE = "both in float64, so only rounding is left"
# Our names (beginning) -> PaddleSeg's
PADDLESEG_NAMES = {
    **{f"ppm.{i}": f"ppm.stages.{i}.1" for i in range(4)},
    "ppm_bottleneck": "ppm.conv_bn_relu2",
    **{f"laterals.{i}": f"lateral_convs.{i}" for i in range(3)},
    **{f"fpn_convs.{i}": f"fpn_convs.{i}" for i in range(3)},
    "fpn_bottleneck": "fpn_bottleneck",
    "classifier": "conv_seg",
    "aux.0": "aux_head.conv_bn_relu",
    "aux.2": "aux_head.conv",
}
NO_YOLOV5 = "none of the suites on the registry has it; golden files instead (tests/golden)"


def checks() -> Iterator[Outcome]:
    """Yields the rows of heads and necks."""
    runs: tuple[tuple[Callable[[], Iterator[Outcome]], str, str], ...] = (
        (_upernet, "UPerNet", release("paddleseg")),
        (_cross_entropy, "pixel cross entropy", release("paddleseg")),
        (_yolocsppan, "YOLOCSPPAN", release("paddledet")),
        (_cbam, "CBAM", release("timm")),
    )
    for run, title, reference in runs:
        try:
            yield from run()
        except NotRun as reason:
            yield not_run(title, reference, str(reason))
    yield not_run("YOLOv5 head and loss", "none", NO_YOLOV5)


def paddleseg_name(key: str) -> str:
    """Returns PaddleSeg's name of one of UPerNet's tensors."""
    ours = next(name for name in PADDLESEG_NAMES if key.startswith(name + "."))
    rest = key[len(ours) + 1 :].replace("conv.", "_conv.").replace("bn.", "_batch_norm.")
    return f"{PADDLESEG_NAMES[ours]}.{rest}"


def _upernet() -> Iterator[Outcome]:
    module = need("paddleseg.models.upernet", "paddleseg")
    channels, sizes = (16, 24, 32, 40), ((45, 80), (22, 40), (11, 20), (5, 10))  # sizes that do not divide
    specs = [FeatureSpec(c, 4 * 2**i) for i, c in enumerate(channels)]
    theirs = module.UPerNetHead(19, list(channels), 24, enable_auxiliary_loss=True)
    ours = UPerNet(specs, 19, channels=24)
    _share(ours, theirs, paddleseg_name)
    features = [(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    for training in (False, True):
        mode = "training (batch statistics)" if training else "evaluation"
        mine = _run(ours, features, training, lambda net, x: [net.logits(x), net.aux(x[2])])
        other = _run(theirs, features, training, lambda net, x: net(x))
        names = {n: n if n.startswith("input") else paddleseg_name(n) for n in mine[1]}
        yield from _rows("UPerNet", mode, release("paddleseg"), mine, other, names)


def _cross_entropy() -> Iterator[Outcome]:
    losses = need("paddleseg.models.losses", "paddleseg")
    logits = seeded("logits", (2, 19, 24, 40))
    labels = np.random.RandomState(0).randint(0, 19, (2, 24, 40))
    labels[:, :6] = 255
    loss = losses.CrossEntropyLoss(ignore_index=255)
    try:
        expected = float(loss(paddle.to_tensor(logits), paddle.to_tensor(labels)))
    except TypeError as error:
        first = str(error).strip().splitlines()[-1][:150]
        raise NotRun(f"its CrossEntropyLoss fails on {release('paddlepaddle')}: {first}") from error
    value = float(pixel_cross_entropy(paddle.to_tensor(logits), paddle.to_tensor(labels)))
    yield Outcome("pixel cross entropy", "loss", release("paddleseg"), abs(value - expected), 1e-5,
                  "float32 sums of 1,400 pixels")  # fmt: skip


def _yolocsppan() -> Iterator[Outcome]:
    module = need("ppdet.modeling.necks.yolo_fpn", "paddledet")
    channels = (16, 24, 32)
    specs = [FeatureSpec(c, 8 * 2**i) for i, c in enumerate(channels)]
    for depth in (1.0, 0.33):
        theirs = module.YOLOCSPPAN(depth_mult=depth, in_channels=list(channels))
        # The suite's trainer sets its YOLO models' batch norm from outside; the bare layer has Paddle's constants
        ours = YOLOCSPPAN(specs, depth_multiplier=depth, bn_epsilon=1e-5, bn_momentum=0.9)
        _share(ours, theirs, lambda name: name)
        features = [(2, c, 48 // 2**i, 32 // 2**i) for i, c in enumerate(channels)]
        for training in (False, True):
            mode = f"depth {depth:g}, {'training' if training else 'evaluation'}"
            mine, other = (_run(net, features, training, lambda n, x: n(x)) for net in (ours, theirs))
            yield from _rows("YOLOCSPPAN", mode, release("paddledet"), mine, other, {n: n for n in mine[1]})


def _cbam() -> Iterator[Outcome]:
    torch = need("torch", "torch")
    mended = import_timm()
    module = need("timm.layers.cbam", "timm")
    channel, spatial = module.ChannelAttn(48, mlp_bias=True), module.SpatialAttn(7)
    spatial.conv.bn = torch.nn.Identity()  # timm normalises the map; the published CBAM and the baseline have a bias
    theirs = torch.nn.Sequential(channel, spatial).double()
    ours = _CBAM(48, 16)
    ours.to(dtype="float64")
    ours.conv_after_concat.bias.set_value(paddle.zeros([1], "float64"))
    with torch.no_grad():
        for name, layer in (("fc1", channel.fc1), ("fc2", channel.fc2), ("conv_after_concat", spatial.conv.conv)):
            for part in ("weight", "bias") if layer.bias is not None else ("weight",):
                value = _weight(f"{name}.{part}", list(getattr(layer, part).shape)).astype(np.float64)
                getattr(layer, part).copy_(torch.from_numpy(value))
                getattr(getattr(ours, name), part).set_value(paddle.to_tensor(value))
    picture, weight = (seeded(key, (2, 48, 9, 11)).astype(np.float64) for key in ("picture", "weight"))
    x = paddle.to_tensor(picture, stop_gradient=False)
    y = torch.from_numpy(picture).requires_grad_()
    mine, other = ours(x), theirs(y)
    (mine * paddle.to_tensor(weight)).sum().backward()
    (other * torch.from_numpy(weight)).sum().backward()
    reference = f"{release('timm')}, {release('torch')}; without its batch norm" + (f"; {mended}" if mended else "")
    yield Outcome("CBAM", "output, relative", reference, relative([mine.numpy()], [other.detach().numpy()]), 1e-10,
                  DOUBLE)  # fmt: skip
    layers = {"fc1": channel.fc1, "fc2": channel.fc2, "conv_after_concat": spatial.conv.conv}
    gradients = [x.grad.numpy(), *[getattr(ours, name).weight.grad.numpy() for name in layers]]
    wanted = [y.grad.numpy(), *[layer.weight.grad.numpy() for layer in layers.values()]]
    yield Outcome("CBAM", "gradients of 4 tensors, relative", reference, relative(gradients, wanted), 1e-10, DOUBLE)


def _share(ours: paddle.nn.Layer, theirs: Any, name_there: Callable[[str], str]) -> None:
    """Gives both the same random weights, in float64.

    Raises:
        ValueError: if a tensor of ours has no counterpart of the same shape there.
    """
    state, there = ours.state_dict(), theirs.state_dict()
    for key, value in state.items():
        other = there.get(name_there(key))
        if other is None or list(other.shape) != list(value.shape):
            raise ValueError(f"{key}: the reference has no {name_there(key)} of shape {list(value.shape)}")
        number = paddle.to_tensor(_weight(key, list(value.shape)))
        value.set_value(number)
        other.set_value(number)
    for net in (ours, theirs):
        net.to(dtype="float64")


def _weight(key: str, shape: list[int]) -> np.ndarray:
    value = seeded(key, shape)
    if key.endswith("_variance"):
        return 1 + np.abs(0.1 * value)
    if len(shape) == 1:
        return (1 if key.endswith("bn.weight") else 0) + 0.1 * value
    return value / np.sqrt(np.prod(shape[1:])).astype(np.float32)


def _run(
    net: Any, shapes: Sequence[tuple[int, ...]], training: bool, forward: Callable[[Any, list[paddle.Tensor]], Any]
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Returns outputs, and gradients by name of the randomly weighted sum of them (inputs' as "input 0", ...)."""
    net.train() if training else net.eval()
    for layer in net.sublayers():
        if isinstance(layer, (paddle.nn.Dropout, paddle.nn.Dropout2D)):
            layer.eval()  # chance is not what is compared
    net.clear_gradients()
    inputs = [
        paddle.to_tensor(seeded(f"input {i}", shape).astype(np.float64), stop_gradient=False)
        for i, shape in enumerate(shapes)
    ]
    outputs = forward(net, inputs)
    weights = [paddle.to_tensor(seeded(f"weight {i}", o.shape).astype(np.float64)) for i, o in enumerate(outputs)]
    paddle.add_n([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    gradients |= {f"input {i}": x.grad.numpy() for i, x in enumerate(inputs)}
    return [o.numpy() for o in outputs], gradients


def _rows(
    component: str,
    mode: str,
    reference: str,
    ours: tuple[list[np.ndarray], dict[str, np.ndarray]],
    theirs: tuple[list[np.ndarray], dict[str, np.ndarray]],
    names: dict[str, str],
) -> Iterator[Outcome]:
    yield Outcome(component, f"outputs, {mode}, relative", reference, relative(ours[0], theirs[0]), 1e-10, DOUBLE)
    wanted = [theirs[1][names[name]] for name in ours[1]]
    yield Outcome(component, f"gradients of {len(wanted)} tensors, {mode}, relative", reference,
                  relative(ours[1].values(), wanted), 1e-9, f"{DOUBLE}; sums over positions cancel")  # fmt: skip
