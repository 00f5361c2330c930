"""The YOLOv7-AF backbone against the reference's numbers: its blocks, every tap of the body, its parameter counts."""

import numpy as np
import paddle
import pytest
from golden_weights import parameter_count
from yolor_golden import assert_equals, fill, golden, hv

from ppmtl.models.backbones.yolov7_af import _ELAN, _SPPCSPC, YOLOv7AF, _Down


def elan_names(ours: str, side: int, fuse: int) -> dict[str, str]:
    """The layers of a block have consecutive numbers from its first; the number before ``fuse`` is the joining."""
    start = f"{ours}." if ours else ""
    convs = {f"{start}convs.{i}": f"model.{side + 2 + i}" for i in range(4)}
    return {
        f"{start}side": f"model.{side}",
        f"{start}main": f"model.{side + 1}",
        **convs,
        f"{start}fuse": f"model.{fuse}",
    }


def down_names(ours: str, pooled: int) -> dict[str, str]:
    start = f"{ours}." if ours else ""
    return {f"{start}{name}": f"model.{pooled + i}" for i, name in enumerate(("pooled", "reduce", "strided"))}


def spp_names(ours: str, theirs: str) -> dict[str, str]:
    places = {"before.0": 1, "before.1": 3, "before.2": 4, "after.0": 5, "after.1": 6, "side": 2, "fuse": 7}
    return {f"{ours}{name}": f"{theirs}.cv{number}" for name, number in places.items()}


BODY = {
    **{f"stem.{i}": f"model.{i}" for i in range(4)},
    **elan_names("stage2", 4, 11),
    **down_names("stage3.0", 13), **elan_names("stage3.1", 17, 24),
    **down_names("stage4.0", 26), **elan_names("stage4.1", 30, 37),
    **down_names("stage5.0", 39), **elan_names("stage5.1", 43, 50),
    **spp_names("spp.", "model.51"),
    "reduce5": "model.52", "lateral4": "model.54", **elan_names("top_down4", 56, 63),
    "reduce4": "model.64", "lateral3": "model.66", **elan_names("top_down3", 68, 75),
    **down_names("down4", 77), **elan_names("bottom_up4", 81, 88),
    **down_names("down5", 90), **elan_names("bottom_up5", 94, 101),
    **{f"outputs.{i}": f"model.{102 + i}" for i in range(3)},
}  # fmt: skip
TAPS = {"stem.0": "0", "stem": "3", "stage2": "11", "stage3": "24", "stage4": "37", "stage5": "50", "spp": "51",
        "top_down4": "63", "top_down3": "75", "bottom_up4": "88", "bottom_up5": "101"}  # fmt: skip


def test_an_elan_block_equals_the_reference():
    expected = golden("elan_block")["elan"]
    block = _ELAN(16, 8, 8, 32, depth=4, every=2)
    fill(block, elan_names("", 4, 11), gain=2.8)
    block.eval()
    x = paddle.to_tensor(hv("elan.in", (2, 16, 6, 8), -1, 1))
    assert_equals(paddle.concat(block.branches(x), axis=1), expected["concat_layer_10"], atol=1e-4, rtol=1e-4)
    assert_equals(block(x)[:, :, :3, :4], expected["out_layer_11"], atol=1e-4, rtol=1e-4)
    assert_equals(block(x), expected["out_summary"], atol=1e-4, rtol=1e-4)


def test_a_wide_elan_block_of_the_neck_equals_the_reference():
    expected = golden("elan_block")["elan_w"]
    block = _ELAN(64, 32, 16, 32, depth=4, every=1)
    fill(block, elan_names("", 56, 63), gain=2.8)
    block.eval()
    x = paddle.to_tensor(hv("elanw.in", (2, 64, 6, 8), -1, 1))
    assert_equals(paddle.concat(block.branches(x), axis=1), expected["concat_layer_62"], atol=1e-4, rtol=1e-4)
    assert_equals(block(x)[:, :, :3, :4], expected["out_layer_63"], atol=1e-4, rtol=1e-4)
    assert_equals(block(x), expected["out_summary"], atol=1e-4, rtol=1e-4)


def test_a_transition_puts_the_strided_branch_before_the_pooled_one():
    down = _Down(32, 16)
    fill(down, down_names("", 13), gain=2.8)
    down.eval()
    x = paddle.to_tensor(hv("mp.in", (1, 32, 6, 8), -1, 1))
    assert_equals(down(x), golden("elan_block")["mp_transition"]["out_layer_16"], atol=1e-4, rtol=1e-4)


def test_spatial_pyramid_pooling_equals_the_reference():
    expected = golden("sppcspc")
    spp = _SPPCSPC(16, 8)
    fill(spp, spp_names("", "spp"))
    spp.eval()
    x = paddle.to_tensor(hv("spp.in", (2, 16, 7, 9), -1, 1))
    assert_equals(spp.before(x), expected["cv4_out"], atol=1e-4, rtol=1e-4)
    assert_equals(spp(x), expected["out"], atol=1e-4, rtol=1e-4)
    assert parameter_count(_SPPCSPC(1024, 512)) == expected["params_full_size_1024_512"]


def test_every_tap_and_every_output_of_the_body_equal_the_reference():
    expected = golden("yolov7_af_body")
    net = YOLOv7AF(width_multiplier=1 / 8)
    fill(net, BODY, gain=2.8)
    net.eval()
    taps, layers = {}, dict(net.named_sublayers())
    for name, number in TAPS.items():
        layers[name].register_forward_post_hook(lambda _, __, output, at=number: taps.__setitem__(at, output))
    features = net(paddle.to_tensor(hv("body.in", (1, 3, 128, 128), 0, 1)))
    assert set(taps) == set(expected["taps"])
    for number, block in expected["taps"].items():
        assert_equals(taps[number], block, atol=1e-3 * block["std"])
    assert [name[:2].lower() for name in expected["outputs"]] == list(features)
    for name, block in expected["outputs"].items():  # "P3_102"
        assert_equals(features[name[:2].lower()], block, atol=1e-3 * block["std"])


def test_the_full_size_body_has_36_47_million_parameters():
    assert parameter_count(YOLOv7AF()) == golden("yolov7_af_body")["params_full_size_width_1"]["body_layers_0_104"]
    assert parameter_count(YOLOv7AF()) == 36_470_688


def test_norms_use_the_familys_epsilon_and_momentum():
    norms = [layer for layer in YOLOv7AF(width_multiplier=0.02).sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert len(norms) > 50
    assert {(norm._epsilon, norm._momentum) for norm in norms} == {(1e-3, 0.97)}


def test_sizes_that_do_not_nest_are_those_of_the_padded_image():
    net = YOLOv7AF(width_multiplier=0.02)
    net.eval()
    x = paddle.rand([1, 3, 90, 45])
    padded = paddle.concat([x, paddle.zeros([1, 3, 6, 45])], axis=2)
    padded = paddle.concat([padded, paddle.zeros([1, 3, 96, 19])], axis=3)
    for name, expected in net(padded).items():
        feature = net(x)[name]
        np.testing.assert_array_equal(feature.numpy(), expected.numpy()[:, :, : feature.shape[2], : feature.shape[3]])


def test_inputs_below_32_pixels_are_refused():
    with pytest.raises(ValueError, match=r"at least 32 px, got 31 x 64 \(H x W\)"):
        YOLOv7AF(width_multiplier=0.02)(paddle.rand([1, 3, 31, 64]))


@pytest.mark.parametrize(("depth", "narrow", "wide"), [(1.0, 4, 4), (0.5, 2, 2), (0.1, 2, 1), (1.5, 6, 6)])
def test_the_depth_multiplier_scales_the_convolutions_of_every_block(depth, narrow, wide):
    net = YOLOv7AF(depth_multiplier=depth, width_multiplier=0.02)
    assert (len(net.stage2.convs), len(net.top_down3.convs)) == (narrow, wide)
    net(paddle.rand([1, 3, 32, 32]))
