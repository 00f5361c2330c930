"""ConvNeXt against PaddleClas and timm, ViT against timm: features and gradients with the same random weights.

The reference's weights reach our net the way a user's do, from a file through ``ppmtl.weights.pretrained``.
"""

import numpy as np
import paddle
import pytest
from references import DOUBLE, Row, need, parity, patch_timm, relative, release, seeded

from ppmtl.models.backbones._convnext_weights import WEIGHT_NAMES
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.backbones.vit import ViT
from ppmtl.weights.pretrained import load_pretrained

SIZE = (72, 104)  # no multiple of 32: levels of 18, 9, 4 and 2 rows
SINGLE = "float32 through 36 blocks; another order of summation"


def random_weight(name, shape):
    """Weights that keep activations near 1, with layer scale and norms away from their initial values."""
    value = seeded(name, shape)
    if name.endswith("gamma"):
        return np.float32(0.5) + np.float32(0.1) * value
    if len(shape) == 1:
        return (1 if name.endswith("weight") else 0) + 0.1 * value
    # 0.5, not 1, over root fan-in: 36 residual blocks would otherwise grow the signal beyond float32's comfort
    fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
    return value * np.float32(0.5 / np.sqrt(fan_in))


def ours(arch, weights, dtype):
    """Features and gradients of our net with the weights of a file; and the input."""
    net = ConvNeXt(arch=arch, output_norm=False, drop_path_rate=0.0)
    load_pretrained(net, str(weights))
    net.to(dtype=dtype)
    net.eval()
    x = paddle.to_tensor(seeded("picture", (1, 3, *SIZE), dtype))
    features = list(net(x).values())
    return [f.numpy() for f in features], gradients(net, features), x


def gradients(net, features):
    """Gradients, by name, of the sum of all features, each number with its own random weight."""
    paddle.add_n(
        [(f * paddle.to_tensor(factors(i, f.shape)).astype(f.dtype)).sum() for i, f in enumerate(features)]
    ).backward()
    return {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}


def factors(level, shape):
    return seeded(f"weights of level {level}", shape, np.float64)


def rows(component, reference, mine, theirs, tolerance, reason):
    (features, slopes), (wanted, wanted_slopes) = mine, theirs
    name = f"gradients of {len(wanted_slopes)} tensors, relative"
    return (
        Row(component, "features of 4 stages, relative", reference, relative(features, wanted), tolerance, reason),
        Row(component, name, reference, relative(slopes, wanted_slopes), tolerance, reason),
    )


@parity("ConvNeXt", "paddleclas")
@pytest.mark.parametrize(
    "arch, dtype, tolerance, reason", [("tiny", "float64", 1e-10, DOUBLE), ("large", "float32", 1e-5, SINGLE)]
)
def test_convnext_equals_paddleclas(arch, dtype, tolerance, reason, tmp_path, compare):
    module = need("paddleclas.ppcls.arch.backbone.model_zoo.convnext")
    net = getattr(module, f"ConvNeXt_{'large_224' if arch == 'large' else arch}")()
    net.set_state_dict({k: paddle.to_tensor(random_weight(k, list(v.shape))) for k, v in net.state_dict().items()})
    paddle.save(net.state_dict(), str(tmp_path / "weights.pdparams"))
    *mine, x = ours(arch, tmp_path / "weights.pdparams", dtype)
    net.to(dtype=dtype)
    net.eval()
    features = []
    for downsample, stage in zip(
        net.downsample_layers, net.stages, strict=True
    ):  # its forward_features, before pooling
        x = stage(downsample(x))
        features.append(x)
    theirs = [f.numpy() for f in features], gradients(net, features)
    compare(*rows(f"ConvNeXt-{arch}", release("paddleclas"), mine, theirs, tolerance, reason))


@parity("ConvNeXt", "timm", "torch")
def test_convnext_equals_timm(tmp_path, compare):
    torch, replaced, timm = need("torch"), patch_timm(), need("timm")
    net = timm.create_model("convnext_tiny", features_only=True, pretrained=False)
    weights = {}
    for key, value in net.state_dict().items():
        shape = list(value.shape)
        array = random_weight(key, shape[::-1]).T if len(shape) == 2 else random_weight(key, shape)
        weights[key] = torch.from_numpy(np.ascontiguousarray(array))
    net.load_state_dict(weights)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    *mine, x = ours("tiny", tmp_path / "weights.pth", "float64")
    net.double().eval()
    features = net(torch.from_numpy(x.numpy()))
    sum((f * torch.from_numpy(factors(i, f.shape))).sum() for i, f in enumerate(features)).backward()
    naming = next(n for n in WEIGHT_NAMES.namings if n.title == "timm")
    slopes = {
        str(naming.translate(name)): p.grad.numpy().T if p.ndim == 2 else p.grad.numpy()
        for name, p in net.named_parameters()
    }
    theirs = [f.detach().numpy() for f in features], slopes
    compare(*rows("ConvNeXt-tiny", f"{release('timm')}, {release('torch')}{replaced}", mine, theirs, 1e-10, DOUBLE))


@parity("ViT", "timm", "torch")
@pytest.mark.parametrize(
    "arch, window, dtype, tolerance, reason",
    [("tiny", 4, "float64", 1e-10, DOUBLE), ("base", 14, "float32", 1e-5, "float32 through 12 blocks")],
)
def test_vit_equals_timm(arch, window, dtype, tolerance, reason, tmp_path, compare):
    torch, replaced, module = need("torch"), patch_timm(), need("timm.models.vision_transformer_sam")
    ours = ViT(arch=arch, window=window, relative_grid=14, position_grid=14, scaled_positions=False, tokens=range(12))
    dim, heads = ours.out_specs["p4"].channels, ours.blocks[0].attn.num_heads
    net = module.VisionTransformerSAM(
        img_size=224, embed_dim=dim, num_heads=heads, use_rel_pos=True, window_size=window,
        global_attn_indexes=(2, 5, 8, 11), norm_layer=lambda n, **k: torch.nn.LayerNorm(n, eps=1e-6, **k),
    )  # fmt: skip
    weights = {}
    for key, value in net.state_dict().items():
        shape = list(value.shape)
        linear = len(shape) == 2 and "rel_pos" not in key
        array = random_weight(key, shape[::-1]).T if linear else random_weight(key, shape)
        weights[key] = torch.from_numpy(np.ascontiguousarray(array))
    net.load_state_dict(weights)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    load_pretrained(ours, str(tmp_path / "weights.pth"))
    ours.to(dtype=dtype)
    ours.eval()
    net.to(getattr(torch, dtype)).eval()
    theirs, x = [], seeded("picture", (1, 3, 224, 224), np.dtype(dtype))
    for block in net.blocks:
        block.register_forward_hook(lambda _block, _given, answer: theirs.append(answer.permute(0, 3, 1, 2)))
    net(torch.from_numpy(x))
    sum((f * torch.from_numpy(factors(i, f.shape))).sum() for i, f in enumerate(theirs)).backward()
    mine = [f for name, f in ours(paddle.to_tensor(x)).items() if name.startswith("tokens")]
    slopes = gradients(ours, mine)
    wanted = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    wanted = {n: g.T if g.ndim == 2 and "rel_pos" not in n else g.reshape(slopes[n].shape) for n, g in wanted.items()}
    reference = f"{release('timm')}, {release('torch')}{replaced}"
    features = [f.numpy() for f in mine], {n: slopes[n] for n in wanted}
    compared = rows(
        f"ViT-{arch}", reference, features, ([f.detach().numpy() for f in theirs], wanted), tolerance, reason
    )
    compare(*(row._replace(quantity=row.quantity.replace("4 stages", "12 blocks")) for row in compared))
