"""Every backbone under ``ppmtl/models/backbones``: one public class per file, and what heads rely on."""

from __future__ import annotations

import inspect

import numpy as np
import paddle
import pytest
from listing import class_of, modules
from paddle.static import InputSpec

from ppmtl.models.base import Backbone
from ppmtl.structures import FeatureSpec

PACKAGE = "ppmtl.models.backbones"
MODULES = modules(PACKAGE)
# The smallest settings of each; a new backbone needs none if its defaults are small
SMALL = {
    "convnext": {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "layer_scale_init": 1.0},
    "yolov7_af": {"depth_multiplier": 0.5, "width_multiplier": 0.02},
    "vit": {
        "dim": 12,
        "depth": 4,
        "num_heads": 2,
        "window": 3,
        "tokens": (0, 2),
        "position_grid": 4,
        "drop_path_rate": 0.1,
        "global_blocks": (1, 3),
    },
}


def build(name: str) -> Backbone:
    paddle.seed(0)
    backbone = class_of(PACKAGE, name)(**SMALL.get(name, {}))
    assert isinstance(backbone, Backbone)
    return backbone


def test_the_listing_found_the_backbones() -> None:
    assert {"convnext", "vit"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_setting_is_an_annotated_keyword_with_a_default(name: str) -> None:
    parameters = list(inspect.signature(class_of(PACKAGE, name)).parameters.values())
    assert parameters
    for p in parameters:
        assert p.kind is p.KEYWORD_ONLY, p
        assert p.annotation is not p.empty, p
        assert p.default is not p.empty, p


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("size", [(64, 96), (90, 45)])
def test_outputs_have_the_promised_channels_and_strides(name: str, size: tuple[int, int]) -> None:
    backbone = build(name)
    features = backbone(paddle.rand([2, 3, *size]))
    specs = backbone.out_specs
    assert list(features) == list(specs)
    assert all(isinstance(spec, FeatureSpec) for spec in specs.values())
    for name_of, spec in specs.items():
        feature = features[name_of]
        assert list(feature.shape[:2]) == [2, spec.channels]
        for cells, pixels in zip(
            feature.shape[2:], size, strict=True
        ):  # one more or less where the stride does not divide
            assert abs(cells - pixels // spec.stride) <= (pixels % spec.stride > 0)
        assert feature.dtype == paddle.float32


@pytest.mark.parametrize("name", MODULES)
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    backbone = build(name)
    backbone.train()
    sum((f * paddle.rand(f.shape)).sum() for f in backbone(paddle.rand([2, 3, 64, 64])).values()).backward()
    parameters = {key: p for key, p in backbone.named_parameters() if not p.stop_gradient}
    assert len(parameters) > 10
    assert [key for key, p in parameters.items() if p.grad is None or not np.isfinite(p.grad.numpy()).all()] == []
    assert [key for key, p in parameters.items() if not p.grad.numpy().any()] == []


@pytest.mark.parametrize("name", MODULES)
def test_the_exported_graph_equals_eager_at_sizes_it_was_not_traced_with(name: str, tmp_path) -> None:
    backbone = build(name)
    backbone.eval()
    paddle.jit.save(backbone, str(tmp_path / "net"), input_spec=[InputSpec([None, 3, None, None], "float32")])
    loaded = paddle.jit.load(str(tmp_path / "net"))
    for shape in ([1, 3, 64, 96], [2, 3, 90, 45]):
        x = paddle.rand(shape)
        features = backbone(x)
        for name_of, exported in zip(sorted(features), loaded(x), strict=True):  # Paddle sorts the outputs by name
            np.testing.assert_allclose(exported.numpy(), features[name_of].numpy(), atol=1e-5, err_msg=name_of)


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_has_a_depth_for_layer_wise_learning_rates(name: str) -> None:
    backbone = build(name)
    if backbone.num_depths is None:
        pytest.skip(f"{name} says no depths")
    depths = {key: backbone.depth_of(key) for key, _ in backbone.named_parameters()}
    assert set(depths.values()) == set(range(backbone.num_depths))  # from the stem, 0, to the last block, none left out
    with pytest.raises(ValueError, match=r"has no parameter 'nothing\.weight'"):
        backbone.depth_of("nothing.weight")
