"""Pretrained backbones: every naming gives the same network, and whatever does not fit is refused."""

import numpy as np
import paddle
import pytest
from foreign_weights import (
    TorchZip,
    classifier_state,
    features,
    hugging_face_names,
    random_convnext,
    timm_names,
    to_bf16,
    write_safetensors,
)

from ppmtl.train import checkpoint
from ppmtl.weights.names import Naming, WeightNames
from ppmtl.weights.pretrained import load_pretrained


def pth(path, tree):
    TorchZip().write(path, tree)


def pdparams(path, tree):
    paddle.save(tree, str(path))


def pdparams_of_tensors(path, state):
    tensors = {n: paddle.to_tensor(a) for n, a in state.items()}
    paddle.save({"model": tensors, "epoch": 1}, str(path), protocol=2)


def wrapped(state):
    state = {f"module.{n}": a for n, a in state.items()}
    return {"epoch": 3, "state_dict": state, "state_dict_ema": {n: a + 1 for n, a in state.items()}, "best": (1, "x")}


def with_convolutions(state):
    return {n: a[:, :, None, None] if "mlp.fc" in n and a.ndim == 2 else a for n, a in timm_names(state).items()}


CASES = {  # who wrote it: (how, what from facebook's names; naming, prefix and layout that are recognised)
    "facebook": (pth, lambda state: {"model": state}, "facebook / PaddleClas", "model.", "torch"),
    "wrapped beside an average": (pth, wrapped, "facebook / PaddleClas", "state_dict.module.", "torch"),
    "PaddleClas": (pdparams, dict, "facebook / PaddleClas", "", "paddle"),
    "Paddle, protocol 2": (pdparams_of_tensors, dict, "facebook / PaddleClas", "model.", "paddle"),
    "timm": (write_safetensors, timm_names, "timm", "", "torch"),
    "timm, linears as convolutions": (write_safetensors, with_convolutions, "timm", "", "torch"),
    "timm features_only": (pth, lambda state: timm_names(state, dot="_"), "timm", "", "torch"),
    "Hugging Face": (write_safetensors, hugging_face_names, "Hugging Face transformers", "convnext.", "torch"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_naming_gives_the_same_network(tmp_path, case):
    write, tree, *understood = CASES[case]
    dims = (8, 32, 8, 32)  # C and 4C repeat: a wrong transposition could pass for another stage's
    source, target = (random_convnext(seed=seed, dims=dims, output_norm=False) for seed in (0, 1))
    wanted = features(source)
    assert not np.allclose(wanted[0], features(target)[0], atol=0.1)
    write(tmp_path / "w", tree(classifier_state(source, torch=understood[-1] == "torch")))
    report = load_pretrained(target, str(tmp_path / "w"))
    assert [report.naming, report.prefix, report.layout] == understood
    assert len(report.matched) == len(target.state_dict())
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(features(target), wanted, strict=True))


def test_a_checkpoint_of_ours_fills_the_output_norms_too(tmp_path):
    source, target = random_convnext(), random_convnext(seed=1)
    state = {f"backbone.{n}": v.numpy() for n, v in source.state_dict().items()}
    checkpoint.save(tmp_path / "best", {"model": {**state, "heads.seg.fc.weight": np.ones((3, 4), "float32")}}, {})
    report = load_pretrained(target, str(tmp_path / "best"))
    assert (report.prefix, report.layout, report.fresh) == ("backbone.", "paddle", [])
    assert report.dropped == ["heads.seg.fc.weight"]
    assert all(np.array_equal(*pair) for pair in zip(features(target), features(source), strict=True))


def facebook(folder, **arguments):
    pth(folder / "w.pth", {"model": classifier_state(random_convnext(**arguments))})
    return str(folder / "w.pth")


def test_output_norms_and_dropped_heads_are_reported_and_keep_their_values(tmp_path):
    target = random_convnext(seed=1, output_norm=True)
    before = target.norm2.weight.numpy()
    report = load_pretrained(target, facebook(tmp_path))
    assert len(report.fresh) == 8
    assert np.array_equal(target.norm2.weight.numpy(), before)
    assert set(report.dropped) == {f"model.{n}" for n in ("norm.weight", "norm.bias", "head.weight", "head.bias")}
    assert "dropped 4" in report.text()
    assert "facebook" in report.text()


def test_half_precision_is_widened_to_float32(tmp_path):
    state = timm_names(classifier_state(random_convnext()))
    low = {n: to_bf16(a) for n, a in state.items()}
    write_safetensors(tmp_path / "bf16.safetensors", low)
    TorchZip().write(tmp_path / "bf16.pth", low)
    TorchZip().write(tmp_path / "f16.pth", {n: a.astype("float16") for n, a in state.items()})
    for name, tolerance in (("bf16.safetensors", 2**-7), ("bf16.pth", 2**-7), ("f16.pth", 2**-10)):
        target = random_convnext(seed=1)
        load_pretrained(target, str(tmp_path / name))
        kernel = target.stages[2][1].dwconv.weight
        assert kernel.dtype == paddle.float32
        np.testing.assert_allclose(kernel.numpy(), state["stages.2.blocks.1.conv_dw.weight"], rtol=tolerance, atol=1e-6)


REFUSED = {
    "a deeper net": ({"depths": (1, 1, 4, 1)}, r"18 unexpected: model\.stages\.2\.2\."),
    "a shallower net": ({"depths": (1, 1, 1, 1)}, r"9 missing: stages\.2\.1\."),
    "a wider net": (
        {"dims": (8, 16, 24, 40)},
        r"of another shape: downsample_layers\.3\.1\.weight: file \[40, 24, 2, 2\]",
    ),
    "no layer scale": ({"layer_scale_init": None}, r"5 missing: .*gamma"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, case):
    arguments, words = REFUSED[case]
    target = random_convnext(seed=1, output_norm=False)
    before = {name: value.numpy() for name, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=words) as error:
        load_pretrained(target, facebook(tmp_path, **arguments))
    assert "nothing was loaded" in str(error.value)
    for name, value in target.state_dict().items():
        assert np.array_equal(value.numpy(), before[name])


def test_another_family_with_the_same_names_is_refused(tmp_path):
    state = timm_names(classifier_state(random_convnext()))
    state["stages.0.blocks.0.mlp.grn.weight"] = np.ones(32, "float32")  # ConvNeXt V2
    write_safetensors(tmp_path / "v2.safetensors", state)
    with pytest.raises(ValueError, match=r"1 unexpected: stages\.0\.blocks\.0\.mlp\.grn\.weight"):
        load_pretrained(random_convnext(), str(tmp_path / "v2.safetensors"))


def test_a_file_without_a_known_stem_is_refused_with_its_names(tmp_path):
    write_safetensors(tmp_path / "resnet.safetensors", {"layer1.0.conv1.weight": np.ones((4, 4), "float32")})
    with pytest.raises(ValueError, match=r"no ConvNeXt of a known naming .*layer1\.0\.conv1"):
        load_pretrained(random_convnext(), str(tmp_path / "resnet.safetensors"))


def test_two_backbones_in_one_file_are_refused(tmp_path):
    state = classifier_state(random_convnext())
    TorchZip().write(tmp_path / "two.pth", {"first": state, "second": dict(state)})
    with pytest.raises(ValueError, match=r"2 backbones, each a ConvNeXt, under 'first\.', 'second\.'"):
        load_pretrained(random_convnext(), str(tmp_path / "two.pth"))


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.pth does not exist"):
        load_pretrained(random_convnext(), str(tmp_path / "gone.pth"))


class Transformer(paddle.nn.Layer):
    """A backbone of another kind: a square linear layer says nothing of its own order."""

    weight_names = WeightNames(
        "Transformer",
        (Naming("elsewhere", r"patch\.weight", r"(patch|layers)\.", ((r"^layers\.(\d)\.", r"blocks.\1.linear."),)),),
        linear=r"blocks\.\d\.linear\.weight\Z",
        shapes=lambda *_: {},
    )

    def __init__(self):
        super().__init__()
        self.patch = paddle.nn.Conv2D(3, 4, 4)
        self.blocks = paddle.nn.LayerList(paddle.nn.Sequential(("linear", paddle.nn.Linear(4, n))) for n in (4, 6))


def test_a_backbone_of_another_kind_brings_its_own_table(tmp_path):
    rng, target = np.random.default_rng(0), Transformer()
    shapes = {"patch.weight": (4, 3, 4, 4), "patch.bias": (4,)}
    shapes |= {"layers.0.weight": (4, 4), "layers.0.bias": (4,), "layers.1.weight": (6, 4), "layers.1.bias": (6,)}
    state = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    write_safetensors(tmp_path / "w", {f"encoder.{n}": a for n, a in state.items()})
    report = load_pretrained(target, str(tmp_path / "w"))
    assert (report.naming, report.prefix, report.layout) == ("elsewhere", "encoder.", "torch")
    for block in (0, 1):
        assert np.array_equal(target.blocks[block].linear.weight.numpy(), state[f"layers.{block}.weight"].T)


def test_a_file_with_linear_weights_in_both_orders_is_refused(tmp_path):
    state = classifier_state(random_convnext())
    state["stages.0.0.pwconv1.weight"] = state["stages.0.0.pwconv1.weight"].T
    pth(tmp_path / "w.pth", state)
    with pytest.raises(ValueError, match=r"1 linear weights as \(in, out\) and 9 as \(out, in\)"):
        load_pretrained(random_convnext(), str(tmp_path / "w.pth"))


def test_a_backbone_without_a_table_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"Linear knows no other project's names .*weights="):
        load_pretrained(paddle.nn.Linear(2, 3), facebook(tmp_path))


def test_two_names_for_one_parameter_are_refused(tmp_path):
    state = timm_names(classifier_state(random_convnext()))
    state["stages.0.0.gamma"] = state["stages.0.blocks.0.gamma"]
    write_safetensors(tmp_path / "twice.safetensors", state)
    with pytest.raises(ValueError, match=r"1 unexpected: stages\.0\."):
        load_pretrained(random_convnext(), str(tmp_path / "twice.safetensors"))
