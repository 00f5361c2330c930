"""The backbone: outputs equal timm's, parameter counts, drop-path, layer scale, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from golden_weights import assert_equals_summary, parameter_count, seeded
from levels import NAMES, specs

from ppmtl.models.backbones.convnext import ConvNeXt, drop_path_rates
from ppmtl.models.layers import DropPath

GOLDEN = Path(__file__).parents[1] / "golden"
FORWARD = json.loads((GOLDEN / "convnext_tiny_forward.json").read_text())


def small(**changes) -> ConvNeXt:
    values = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "drop_path_rate": 0.0} | changes
    paddle.seed(0)
    return ConvNeXt(**values)


def golden_value(key: str, shape: list[int]) -> np.ndarray:
    """Returns the weight by the golden recipe, in Paddle's layout: [in, out] for linears."""
    linear = len(shape) == 2
    value = seeded(key, shape[::-1] if linear else shape)
    if key.endswith("gamma"):
        value = 0.5 + 0.1 * value
    elif len(shape) == 1 and key.endswith("weight"):
        value = 1 + 0.1 * value
    else:
        value = 0.1 * value
    return np.ascontiguousarray(value.T if linear else value).astype(np.float32)


@pytest.fixture(scope="module")
def golden_outputs() -> dict[str, paddle.Tensor]:
    net = small(output_norm=False)
    state = {key: golden_value(key, list(value.shape)) for key, value in net.state_dict().items()}
    assert len(state) == 16 + 5 * 9  # four downsampling layers of four tensors, five blocks of nine
    net.set_state_dict({key: paddle.to_tensor(value) for key, value in state.items()})
    net.eval()
    return net(paddle.to_tensor(np.random.RandomState(7).randn(1, 3, 64, 96).astype(np.float32)))


def test_stage_outputs_equal_timm(golden_outputs):
    assert tuple(golden_outputs) == NAMES
    # float32 against float64: 1e-5 of the magnitude. GELU's tanh form differs by 1e-3 here, a swapped linear by 1.
    for feature, expected in zip(golden_outputs.values(), FORWARD["stages"], strict=True):
        assert_equals_summary(feature.numpy(), expected, rtol=1e-5)


def test_logits_of_the_reference_classifier_equal_timm(golden_outputs):
    pooled = golden_outputs["c5"].mean([2, 3])
    norm = [paddle.to_tensor(golden_value(f"norm.{name}", [32])) for name in ("weight", "bias")]
    weight, bias = golden_value("head.weight", [32, 5]), golden_value("head.bias", [5])
    logits = F.layer_norm(pooled, 32, *norm, epsilon=1e-6).numpy() @ weight + bias
    np.testing.assert_allclose(logits, FORWARD["logits"], atol=1e-5)


def test_output_norms_normalise_each_level_over_its_channels():
    raw, normed = small(output_norm=False), small()
    normed.set_state_dict(raw.state_dict())
    x = paddle.rand([1, 3, 64, 96])
    for before, after in zip(raw(x).values(), normed(x).values(), strict=True):
        values = before.numpy()
        expected = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(after.numpy(), expected, atol=1e-5)


def test_the_large_net_has_the_papers_parameters():
    net = ConvNeXt(arch="large")
    body = {name: p for name, p in net.named_parameters() if not name.startswith("norm")}
    assert sum(int(np.prod(p.shape)) for p in body.values()) == 196_227_264
    assert parameter_count(net) == 196_227_264 + 5_760
    assert len(body) == 340  # the checkpoint's 344 less its final norm and head
    stages = [parameter_count(stage) for stage in net.stages]
    assert stages == [918_144, 3_605_760, 128_604_672, 56_890_368]
    assert [parameter_count(layer) for layer in net.downsample_layers] == [9_792, 295_680, 1_181_184, 4_721_664]
    assert net.out_specs == specs(192, 384, 768, 1536)
    rates = [layer.rate for layer in net.sublayers() if isinstance(layer, DropPath)]
    np.testing.assert_allclose(rates, json.loads((GOLDEN / "drop_path.json").read_text())["rates"], atol=1e-7)


def test_drop_path_rates_rise_from_zero_over_all_blocks():
    golden = json.loads((GOLDEN / "drop_path.json").read_text())
    # The reference computed linspace in float32
    np.testing.assert_allclose(
        drop_path_rates(golden["drop_path_rate"], sum(golden["depths"])), golden["rates"], atol=1e-7
    )
    assert drop_path_rates(0.3, 1) == [0.0]


def test_drop_path_drops_whole_samples_at_its_rate_and_keeps_the_mean():
    paddle.seed(1)
    layer, x = DropPath(0.3), paddle.ones([20_000, 2, 3, 1])
    out = layer(x).numpy()
    assert (out == out[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.7], rtol=1e-6)
    assert (out[:, 0, 0] == 0).mean() == pytest.approx(0.3, abs=0.015)  # four and a half standard deviations
    assert out.mean() == pytest.approx(1.0, abs=0.025)
    layer.eval()
    assert (layer(x).numpy() == 1).all()


def test_layer_scale_multiplies_every_block_and_may_be_absent():
    blocks = [block for stage in small(layer_scale_init=1e-6).stages for block in stage]
    assert len(blocks) == 5
    for block in blocks:
        np.testing.assert_array_equal(block.gamma.numpy(), np.float32(1e-6))
    block, x = blocks[0], paddle.rand([1, 8, 8, 8])
    np.testing.assert_allclose(block(x).numpy(), x.numpy(), atol=1e-5)  # starts as the identity
    assert all(block.gamma is None for stage in small(layer_scale_init=None).stages for block in stage)


def test_weights_start_as_truncated_normals_and_biases_at_zero():
    net = small(dims=(32, 64, 96, 128))
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert (parameter.numpy() == 0).all(), name
        elif parameter.ndim > 1 and parameter.numpy().size > 4000:
            assert parameter.numpy().std() == pytest.approx(0.02, rel=0.08), name


@pytest.mark.parametrize(
    ("side", "levels"),
    [(720, [180, 90, 45, 22]), (448, [112, 56, 28, 14]), (538, [134, 67, 33, 16]), (32, [8, 4, 2, 1])],
)
def test_odd_sizes_round_down_level_by_level(side, levels):
    net = small(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4))
    assert [feature.shape[2] for feature in net(paddle.rand([1, 3, side, 32])).values()] == levels
    assert [feature.shape[3] for feature in net(paddle.rand([1, 3, 32, side])).values()] == levels


@pytest.mark.parametrize("size", [(31, 64), (64, 31)])
def test_a_side_below_32_pixels_is_refused_with_its_size(size):
    with pytest.raises(ValueError, match=r"at least 32 px, got .*31"):
        small()(paddle.rand([1, 3, *size]))
