"""UPerNet and SETR-PUP against PaddleSeg, YOLOCSPPAN against PaddleDetection, CBAM against timm.

Outputs and gradients, with the same weights.
"""

import copy
import re

import numpy as np
import paddle
import pytest
from paddleseg_names import paddleseg_name
from references import DOUBLE, Row, need, parity, patch_timm, relative, release, seeded

from ppmtl.models.heads._pixel_loss import pixel_cross_entropy
from ppmtl.models.heads.cbam_fc import _CBAM
from ppmtl.models.heads.setr_pup import SETRPUP
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import FeatureSpec


def random_weight(key, shape):
    value = seeded(key, shape)
    if key.endswith("_variance"):
        return 1 + np.abs(0.1 * value)
    if len(shape) == 1:
        return (1 if key.endswith("bn.weight") else 0) + 0.1 * value
    return value / np.sqrt(np.prod(shape[1:])).astype(np.float32)


def share_weights(ours, theirs, name_there):
    """Gives both the same random weights, in float64; every tensor of ours must have one of the same shape there."""
    there = theirs.state_dict()
    for key, value in ours.state_dict().items():
        assert there[name_there(key)].shape == value.shape, key
        number = paddle.to_tensor(random_weight(key, list(value.shape)))
        value.set_value(number)
        there[name_there(key)].set_value(number)
    for net in (ours, theirs):
        net.to(dtype="float64")


def run(net, shapes, training, forward):
    """Outputs, and gradients by name of the randomly weighted sum of them (inputs' as "input 0", ...)."""
    net.train() if training else net.eval()
    for layer in net.sublayers():
        if isinstance(layer, paddle.nn.Dropout | paddle.nn.Dropout2D):
            layer.eval()  # chance is not what is compared
    arrays = [seeded(f"input {i}", shape, np.float64) for i, shape in enumerate(shapes)]
    inputs = [paddle.to_tensor(array, stop_gradient=False) for array in arrays]
    outputs = forward(net, inputs)
    weights = [paddle.to_tensor(seeded(f"weight {i}", o.shape, np.float64)) for i, o in enumerate(outputs)]
    paddle.add_n([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    return [o.numpy() for o in outputs], gradients | {f"input {i}": x.grad.numpy() for i, x in enumerate(inputs)}


def rows(component, mode, reference, ours, theirs, name_there=str, *, tolerances=(1e-10, 1e-9), reason=DOUBLE):
    wanted = {name: theirs[1][name_there(name)] for name in ours[1]}
    gradients = f"gradients of {len(wanted)} tensors, {mode}, relative"
    cancel = f"{reason}; sums over positions cancel"
    outputs, slopes = tolerances
    return (
        Row(component, f"outputs, {mode}, relative", reference, relative(ours[0], theirs[0]), outputs, reason),
        Row(component, gradients, reference, relative(ours[1], wanted), slopes, cancel),
    )


@parity("UPerNet", "paddleseg")
@pytest.mark.parametrize("training", [False, True])
def test_upernet_equals_paddleseg(training, compare):
    module = need("paddleseg.models.upernet")
    channels, sizes = (16, 24, 32, 40), ((45, 80), (22, 40), (11, 20), (5, 10))  # sizes that do not divide
    theirs = module.UPerNetHead(19, list(channels), 24, enable_auxiliary_loss=True)
    ours = UPerNet({f"c{i + 2}": FeatureSpec(c, 4 * 2**i) for i, c in enumerate(channels)}, 19, channels=24)
    share_weights(ours, theirs, paddleseg_name)
    features = [(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    mine = run(ours, features, training, lambda net, x: [net.logits(x), net.aux(x[2])])
    other = run(theirs, features, training, lambda net, x: net(x))
    mode = "training (batch statistics)" if training else "evaluation"
    reason = "Paddle's resize rounds its positions to float32, ours (two matrix products) does not"
    pair = rows(
        "UPerNet", mode, release("paddleseg"), mine, other, paddleseg_name, tolerances=(1e-5, 1e-5), reason=reason
    )
    compare(*pair)


def setr_name(key):
    """PaddleSeg's name of one of SETR-PUP's tensors."""
    for ours, theirs in (
        (r"^norm\.", "cls_head_norm."),
        (r"^convs\.(\d)\.", lambda found: f"cls_head.{2 * int(found[1])}."),
        (r"^classifier\.", "cls_head.7."),
        (r"^aux\.(\d)\.norm\.", r"aux_head_norms.\1."),
        (r"^aux\.(\d)\.conv\.", r"aux_heads.\1.0."),
        (r"^aux\.(\d)\.classifier\.", r"aux_heads.\1.2."),
        (r"\.conv\.", "._conv."),
        (r"\.bn\.", "._batch_norm."),
    ):
        key = re.sub(ours, theirs, key)
    return key.replace(".0.conv.", ".0._conv.").replace(".0.bn.", ".0._batch_norm.")


@parity("SETR-PUP", "paddleseg")
@pytest.mark.parametrize("shared", [False, True])
def test_setr_pup_equals_paddleseg(shared, compare):
    module = need("paddleseg.models.setr")
    theirs = module.PUPHead(19, (0, 1, 2, 3), 16)
    if not shared:  # what its list multiplication was meant to be
        for name in ("aux_heads", "aux_head_norms"):
            setattr(theirs, name, paddle.nn.LayerList([copy.deepcopy(layer) for layer in getattr(theirs, name)]))
    names = [f"tokens{i}" for i in range(4)]
    ours = SETRPUP(dict.fromkeys(names, FeatureSpec(16, 16)), 19, reads=tuple(names), shared_aux=shared)
    share_weights(ours, theirs, setr_name)
    size = (5, 7)

    def there(net, maps):
        return net([x.flatten(2).transpose([0, 2, 1]) for x in maps], [2, 3, *size])

    shapes = [(2, 16, *size)] * 4
    mine = run(ours, shapes, True, lambda net, maps: [net.logits(maps[-1]), *net.aux_logits(maps)])
    other = run(theirs, shapes, True, there)
    mode = f"{'one shared' if shared else 'four own'} auxiliary, training"
    compare(*rows("SETR-PUP", mode, release("paddleseg"), mine, other, setr_name))


@parity("pixel cross entropy", "paddleseg")
def test_cross_entropy_equals_paddleseg(compare):
    losses = need("paddleseg.models.losses")
    logits = seeded("logits", (2, 19, 24, 40))
    labels = np.random.RandomState(0).randint(0, 19, (2, 24, 40))
    labels[:, :6] = 255
    tensors = paddle.to_tensor(logits), paddle.to_tensor(labels)
    try:
        expected = float(losses.CrossEntropyLoss(ignore_index=255)(*tensors))
    except TypeError as error:
        words = str(error).strip().splitlines()[-1][:150]
        pytest.skip(f"its CrossEntropyLoss fails on {release('paddlepaddle')}: {words}")
    difference = abs(float(pixel_cross_entropy(*tensors)) - expected)
    reason = "float32 sums of 1,400 pixels"
    compare(Row("pixel cross entropy", "loss", release("paddleseg"), difference, 1e-5, reason))


@parity("YOLOCSPPAN", "paddledet")
@pytest.mark.parametrize("depth", [1.0, 0.33])
@pytest.mark.parametrize("training", [False, True])
def test_yolocsppan_equals_paddledetection(depth, training, compare):
    module = need("ppdet.modeling.necks.yolo_fpn")
    channels = (16, 24, 32)
    theirs = module.YOLOCSPPAN(depth_mult=depth, in_channels=list(channels))
    specs = [FeatureSpec(c, 8 * 2**i) for i, c in enumerate(channels)]
    # The suite's trainer sets its YOLO models' batch norm from outside; the bare layer has Paddle's constants
    ours = YOLOCSPPAN(specs, depth_multiplier=depth, bn_epsilon=1e-5, bn_momentum=0.9)
    share_weights(ours, theirs, str)
    features = [(2, c, 48 // 2**i, 32 // 2**i) for i, c in enumerate(channels)]
    mine, other = (run(net, features, training, lambda n, x: n(x)) for net in (ours, theirs))
    mode = f"depth {depth:g}, {'training' if training else 'evaluation'}"
    compare(*rows("YOLOCSPPAN", mode, release("paddledet"), mine, other))


@parity("CBAM", "timm", "torch")
def test_cbam_equals_timm(compare):
    torch, replaced, module = need("torch"), patch_timm(), need("timm.layers.cbam")
    channel, spatial = module.ChannelAttn(48, mlp_bias=True), module.SpatialAttn(7)
    spatial.conv.bn = torch.nn.Identity()  # timm normalises the map; the published CBAM and the baseline have a bias
    theirs = torch.nn.Sequential(channel, spatial).double()
    ours = _CBAM(48, 16)
    ours.to(dtype="float64")
    ours.conv_after_concat.bias.set_value(paddle.zeros([1], "float64"))
    layers = {"fc1": channel.fc1, "fc2": channel.fc2, "conv_after_concat": spatial.conv.conv}
    for name, layer in layers.items():
        for part in ("weight", "bias") if layer.bias is not None else ("weight",):
            value = random_weight(f"{name}.{part}", list(getattr(layer, part).shape)).astype(np.float64)
            getattr(layer, part).data = torch.from_numpy(value)
            getattr(getattr(ours, name), part).set_value(paddle.to_tensor(value))
    image, weight = (seeded(key, (2, 48, 9, 11), np.float64) for key in ("picture", "weight"))
    x = paddle.to_tensor(image, stop_gradient=False)
    y = torch.from_numpy(image).requires_grad_()
    mine, other = ours(x), theirs(y)
    (mine * paddle.to_tensor(weight)).sum().backward()
    (other * torch.from_numpy(weight)).sum().backward()
    gradients = [x.grad.numpy(), *[getattr(ours, name).weight.grad.numpy() for name in layers]]
    wanted = [y.grad.numpy(), *[layer.weight.grad.numpy() for layer in layers.values()]]
    reference = f"{release('timm')}, {release('torch')}; without its batch norm{replaced}"
    output = relative([mine.numpy()], [other.detach().numpy()])
    compare(
        Row("CBAM", "output, relative", reference, output, 1e-10, DOUBLE),
        Row("CBAM", "gradients of 4 tensors, relative", reference, relative(gradients, wanted), 1e-10, DOUBLE),
    )


@parity("YOLOv5 head and loss")
def test_yolov5_has_no_reference():
    pytest.skip("none of the suites on the registry has it; golden files instead (tests/golden)")
