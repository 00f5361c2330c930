"""ConvNeXt against PaddleClas and timm: features and gradients with the same random weights.

The reference's weights reach our net the way a user's do, from a file through ``ppmtl.weights.pretrained``.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from parity_checks.outcome import NotRun, Outcome, need, not_run, relative, release, seeded
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.weights.pretrained import load_pretrained

SIZE = (72, 104)  # no multiple of 32: levels of 18, 9, 4 and 2 rows
DOUBLE = "both in float64, so only rounding is left"
SINGLE = "float32 through 36 blocks; another order of summation"
_TIMM_WITHOUT_TORCHVISION = "torchvision (unused here) replaced by empty modules"


def checks() -> Iterator[Outcome]:
    """Yields the rows of the backbone."""
    for run, title, reference in (
        (_against_paddleclas, "ConvNeXt", release("paddleclas")),
        (_against_timm, "ConvNeXt", release("timm")),
    ):
        try:
            yield from run()
        except NotRun as reason:
            yield not_run(title, reference, str(reason))


def random_weight(name: str, shape: list[int]) -> np.ndarray:
    """Returns weights that keep activations near 1, with layer scale and norms away from their initial values."""
    value = seeded(name, shape)
    if name.endswith("gamma"):
        return np.float32(0.5) + np.float32(0.1) * value
    if len(shape) == 1:
        return (1 if name.endswith("weight") else 0) + 0.1 * value
    # 0.5, not 1, over root fan-in: 36 residual blocks would otherwise grow the signal beyond float32's comfort
    fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
    return value * np.float32(0.5 / np.sqrt(fan_in))


def _against_paddleclas() -> Iterator[Outcome]:
    module = need("paddleclas.ppcls.arch.backbone.model_zoo.convnext", "paddleclas")
    reference = release("paddleclas")
    for arch, dtype, tolerance, reason in (
        ("tiny", "float64", 1e-10, DOUBLE),
        ("large", "float32", 1e-5, SINGLE),
    ):
        theirs = getattr(module, f"ConvNeXt_{'large_224' if arch == 'large' else arch}")()
        theirs.set_state_dict(
            {k: paddle.to_tensor(random_weight(k, list(v.shape))) for k, v in theirs.state_dict().items()}
        )
        with tempfile.TemporaryDirectory() as folder:
            paddle.save(theirs.state_dict(), f"{folder}/weights.pdparams")
            ours = _ours(arch, Path(folder) / "weights.pdparams", dtype)
        theirs.to(dtype=dtype)
        theirs.eval()
        x = _picture(dtype)
        outputs = ours(x)
        _backward(outputs)
        features, gradients = [f.numpy() for f in outputs], _gradients(ours)
        ours.clear_gradients()
        expected = _paddleclas_stages(theirs, x)
        _backward(expected)
        wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
        yield _row(f"ConvNeXt-{arch}", "features of 4 stages, relative", reference,
                   relative(features, [f.numpy() for f in expected]), tolerance, reason)  # fmt: skip
        yield _row(f"ConvNeXt-{arch}", f"gradients of {len(wanted)} tensors, relative", reference,
                   _of_gradients(gradients, wanted), tolerance, reason)  # fmt: skip


def _paddleclas_stages(net: Any, x: paddle.Tensor) -> list[paddle.Tensor]:
    """Returns what its ``forward_features`` computes, before the pooling."""
    outputs = []
    for downsample, stage in zip(net.downsample_layers, net.stages, strict=True):
        x = stage(downsample(x))
        outputs.append(x)
    return outputs


def _against_timm() -> Iterator[Outcome]:
    torch = need("torch", "torch")
    mended = import_timm()
    timm = need("timm", "timm")
    reference = f"{release('timm')}, {release('torch')}" + (f"; {mended}" if mended else "")
    theirs = timm.create_model("convnext_tiny", features_only=True, pretrained=False)
    theirs.load_state_dict(
        {k: torch.from_numpy(_in_torch_layout(k, list(v.shape))) for k, v in theirs.state_dict().items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), f"{folder}/weights.pth")
        ours = _ours("tiny", Path(folder) / "weights.pth", "float64")
    theirs.double().eval()
    x = _picture("float64")
    outputs = ours(x)
    _backward(outputs)
    expected = theirs(torch.from_numpy(x.numpy()))
    sum((f * torch.from_numpy(_weights_of(i, f.shape))).sum() for i, f in enumerate(expected)).backward()
    naming = next(n for n in ConvNeXt.weight_names.namings if n.title == "timm")
    wanted = {
        naming.translate(name): p.grad.numpy().T if p.ndim == 2 else p.grad.numpy()
        for name, p in theirs.named_parameters()
    }
    features = relative([f.numpy() for f in outputs], [f.detach().numpy() for f in expected])
    yield _row("ConvNeXt-tiny", "features of 4 stages, relative", reference, features, 1e-10, DOUBLE)
    gradients = _of_gradients(_gradients(ours), wanted)
    name = f"gradients of {len(wanted)} tensors, relative"
    yield _row("ConvNeXt-tiny", name, reference, gradients, 1e-10, DOUBLE)


def _in_torch_layout(name: str, shape: list[int]) -> np.ndarray:
    value = random_weight(name, shape[::-1]).T if len(shape) == 2 else random_weight(name, shape)
    return np.ascontiguousarray(value)


@functools.cache
def import_timm() -> str:
    """Makes timm importable without torchvision; returns what was mended, "" if nothing.

    torchvision has no build for CPU-only PyTorch on every registry. timm needs it for its data pipeline and for one
    frozen batch norm, neither of which ConvNeXt touches.
    """
    if importlib.util.find_spec("torchvision"):
        return ""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise NotRun("timm is not installed")
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})  # type: ignore[attr-defined]
    folder = Path(spec.origin).parent / "data"
    constants = importlib.util.spec_from_file_location("timm_data_constants", folder / "constants.py")
    assert constants is not None
    assert constants.loader is not None
    numbers = importlib.util.module_from_spec(constants)
    constants.loader.exec_module(numbers)
    data = types.ModuleType("timm.data")
    data.__path__ = [str(folder)]
    data.__dict__.update({key: value for key, value in vars(numbers).items() if key.isupper()})
    sys.modules["timm.data"] = data
    return _TIMM_WITHOUT_TORCHVISION


def _ours(arch: Any, weights: Path, dtype: str) -> ConvNeXt:
    net = ConvNeXt(arch=arch, output_norm=False, drop_path_rate=0.0)
    load_pretrained(net, str(weights))
    net.to(dtype=dtype)
    net.eval()
    return net


def _picture(dtype: str) -> paddle.Tensor:
    return paddle.to_tensor(seeded("picture", (1, 3, *SIZE)).astype(dtype))


def _weights_of(level: int, shape: Any) -> np.ndarray:
    return seeded(f"weights of level {level}", tuple(shape)).astype(np.float64)


def _backward(features: list[paddle.Tensor]) -> None:
    """Runs back the sum of all outputs, each number with its own random weight."""
    weighted = [f * paddle.to_tensor(_weights_of(i, f.shape)).astype(f.dtype) for i, f in enumerate(features)]
    paddle.add_n([w.sum() for w in weighted]).backward()


def _gradients(net: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}


def _of_gradients(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Returns the relative difference of gradients by name; inf when the names differ."""
    if ours.keys() != theirs.keys():
        return float("inf")
    return relative([ours[name] for name in sorted(ours)], [theirs[name] for name in sorted(ours)])


def _row(component: str, quantity: str, reference: str, difference: float, tolerance: float, reason: str) -> Outcome:
    return Outcome(component, quantity, reference, difference, tolerance, reason)
