"""The model around the parts: normalisation, one backbone pass, only the heads asked for, one exported graph."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.heads.yolov5 import YOLOv5
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Counting(paddle.nn.Layer):
    """A part that remembers what it was given."""

    def __init__(self, answer=lambda given: given) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.answer = answer

    def forward(self, *given):
        self.calls.append(given)
        return self.answer(*given)


def counting_model() -> MultiTaskModel:
    heads = {name: Counting(lambda *_: {"probs": paddle.zeros([1])}) for name in ("seg", "cls", "det")}
    return MultiTaskModel(Counting(lambda x: {"c2": x}), heads)


def small_model() -> MultiTaskModel:
    paddle.seed(0)
    backbone = ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), layer_scale_init=1.0)
    specs = backbone.out_specs
    heads = {
        "seg": UPerNet(specs, 3, channels=8),
        "cls": CBAMFC(specs, 5, channels=8),
        "det": YOLOv5(specs, 2, neck=partial(YOLOCSPPAN, depth_multiplier=0.33)),
    }
    model = MultiTaskModel(backbone, heads)
    model.eval()
    return model


def pixels(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.RandomState(height + width).randint(0, 256, (batch, height, width, 3)).astype(np.uint8)


def test_the_backbone_sees_imagenet_normalised_rgb_channels_first():
    model, image = counting_model(), pixels(5, 7, batch=2)
    model(paddle.to_tensor(image))
    seen = model.backbone.calls[0][0].numpy()
    expected = ((image / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_float_pixels_give_exactly_what_uint8_pixels_give():
    model, image = counting_model(), pixels(5, 7)
    model(paddle.to_tensor(image))
    model(paddle.to_tensor(image.astype(np.float32)))
    first, second = (call[0].numpy() for call in model.backbone.calls)
    np.testing.assert_array_equal(first, second)


def test_mean_and_std_are_settings():
    model = MultiTaskModel(
        Counting(lambda x: {"c2": x}), {"a": Counting(lambda *_: {})}, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    model(paddle.to_tensor(np.array([[[[0, 127.5, 255]]]], np.float32)))
    np.testing.assert_allclose(model.backbone.calls[0][0].numpy().ravel(), [-1, 0, 1], atol=1e-6)


def test_a_head_may_have_its_own_normalisation_and_the_backbone_runs_once_for_each():
    heads = {name: Counting(lambda *_: {"probs": paddle.zeros([1])}) for name in ("seg", "cls", "signs")}
    half = ((0.5,) * 3, (0.5,) * 3)
    own = {"seg": half, "signs": half, "cls": (MEAN, STD)}  # the last is the model's own
    model = MultiTaskModel(Counting(lambda x: {"c2": x}), heads, answers={"signs": "det"}, own=own)
    image = pixels(5, 7)
    assert list(model(paddle.to_tensor(image), tasks=["cls", "seg", "det"])) == ["cls", "seg", "det"]
    plain, halved = (call[0].numpy() for call in model.backbone.calls)
    np.testing.assert_allclose(plain, ((image / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_allclose(halved, ((image / 255.0 - 0.5) / 0.5).transpose(0, 3, 1, 2), atol=1e-6)
    assert heads["seg"].calls[0][0] is heads["signs"].calls[0][0]
    assert heads["seg"].calls[0][0] is not heads["cls"].calls[0][0]
    factor, shift = model.pixels_for("det")  # what an exported backbone is shown instead
    changed = model.normalise(paddle.to_tensor(image * factor + shift)).numpy()
    np.testing.assert_allclose(changed, halved, atol=1e-5)
    assert model.pixels_for("cls") is None


def test_a_heads_own_mean_and_std_are_three_numbers():
    with pytest.raises(ValueError, match=r"three numbers each \(R, G, B\), std > 0; got .* \(0.5, 0, 0.5\)"):
        MultiTaskModel(Counting(), {"a": Counting()}, own={"a": ((0.5,) * 3, (0.5, 0, 0.5))})


def test_the_backbone_runs_once_for_all_heads():
    model = counting_model()
    assert list(model(paddle.to_tensor(pixels(32, 32)))) == ["seg", "cls", "det"]
    assert len(model.backbone.calls) == 1
    features = {id(model.heads[name].calls[0][0]) for name in ("seg", "cls", "det")}
    assert len(features) == 1  # one and the same dict, not three


def test_heads_not_asked_for_are_not_executed():
    model = counting_model()
    assert list(model(paddle.to_tensor(pixels(32, 32)), tasks=["det"])) == ["det"]
    model(paddle.to_tensor(pixels(32, 32)), targets={"cls": {"class_index": paddle.zeros([1], "int64")}})
    assert {name: len(model.heads[name].calls) for name in model.heads} == {"seg": 0, "cls": 1, "det": 1}


def test_a_head_gets_features_input_size_and_its_own_targets():
    model = counting_model()
    targets = {"cls": {"class_index": paddle.zeros([1], "int64")}}
    model(paddle.to_tensor(pixels(40, 56)), targets=targets)
    features, size, given = model.heads["cls"].calls[0]
    assert features["c2"].shape[2:] == [40, 56]
    assert tuple(size) == (40, 56)
    assert given is targets["cls"]


def test_a_head_may_have_another_name_than_the_task_that_it_answers():
    heads = {name: Counting(lambda *_: {"probs": paddle.zeros([1])}) for name in ("large", "cls")}
    model = MultiTaskModel(Counting(lambda x: {"c2": x}), heads, answers={"large": "seg"})
    assert model.head_of == {"seg": "large", "cls": "cls"}
    assert model.head("seg") is heads["large"]
    assert list(model(paddle.to_tensor(pixels(32, 32)), tasks=["seg"])) == ["seg"]
    assert (len(heads["large"].calls), len(heads["cls"].calls)) == (1, 0)


def test_two_heads_for_one_task_are_refused():
    with pytest.raises(ValueError, match=r"a task of its own, got \{'other': 'seg'\}"):
        MultiTaskModel(Counting(), {"seg": Counting(), "other": Counting()}, answers={"other": "seg"})


def test_normalisation_is_not_a_weight():
    model = counting_model()
    assert list(model.state_dict()) == []
    assert list(model.parameters()) == []


def test_each_task_trains_its_head_and_the_backbone_and_nothing_else():
    targets = {
        "seg": {"label_map": paddle.zeros([2, 64, 64], "int64")},
        "cls": {"class_index": paddle.zeros([2], "int64")},
        "det": {"boxes": paddle.to_tensor([[0.0, 1, 0.5, 0.5, 0.3, 0.3]]), "supervised": paddle.ones([2])},
    }
    for task, target in targets.items():
        model = small_model()
        model.train()
        terms = model(paddle.to_tensor(pixels(64, 64, batch=2)), targets={task: target})
        assert list(terms) == [task]
        sum(terms[task].values()).backward()
        trained = {
            name.split(".")[0 if name[0] == "b" else 1] for name, p in model.named_parameters() if p.grad is not None
        }
        assert trained == {"backbone", task}


def predictor(folder, suffix: str):
    """Returns a function from an image to a list of arrays: a saved graph in Paddle Inference, as deployed."""
    config = paddle.inference.Config(str(folder / f"net.{suffix}"), str(folder / "net.pdiparams"))
    config.disable_glog_info()
    engine = paddle.inference.create_predictor(config)

    def run(image: np.ndarray) -> list[np.ndarray]:
        engine.get_input_handle("images").copy_from_cpu(image)
        engine.run()
        return [engine.get_output_handle(name).copy_to_cpu() for name in engine.get_output_names()]

    return run


@pytest.mark.parametrize("suffix", ["pdmodel", "json"])
def test_one_exported_graph_equals_eager_for_all_heads_at_any_size(tmp_path, suffix):
    model = small_model()
    with paddle.pir_utils.OldIrGuard() if suffix == "pdmodel" else nullcontext():
        spec = InputSpec([None, None, None, 3], "uint8", name="images")
        paddle.jit.save(model, str(tmp_path / "net"), input_spec=[spec])
    exported = predictor(tmp_path, suffix)
    for height, width, batch in ((64, 96, 1), (90, 45, 2), (720, 64, 1)):
        image = pixels(height, width, batch)
        raw = model(paddle.to_tensor(image))
        assert list(raw["seg"]["probs"].shape) == [batch, 3, height, width]
        # Outputs come as a flat list, in the order of the names
        eager = [raw[task][name].numpy() for task in sorted(raw) for name in sorted(raw[task])]
        for output, value in zip(exported(image), eager, strict=True):
            assert list(output.shape) == list(value.shape)
            # oneDNN's convolutions add in another order; boxes are in pixels, up to about 800 here
            np.testing.assert_allclose(output, value, rtol=1e-5, atol=1e-4 if value.shape[-1] == 4 else 1e-5)
            np.testing.assert_array_equal(output == 0, value == 0)  # scores of cells outside the image


def test_a_task_without_a_head_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no head for 'depth'.*seg, cls, det"):
        counting_model()(paddle.to_tensor(pixels(32, 32)), tasks=["depth"])


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (32, 32, 3)])
def test_images_in_another_layout_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\) RGB, got shape"):
        counting_model()(paddle.zeros(shape))


@pytest.mark.parametrize("wrong", [{"heads": {}}, {"std": (0.1, 0.0, 0.1)}, {"mean": (0.5,)}])
def test_settings_that_cannot_work_are_refused(wrong):
    values = {"backbone": Counting(), "heads": {"a": Counting()}} | wrong
    with pytest.raises(ValueError, match=r"at least one head|three numbers"):
        MultiTaskModel(values.pop("backbone"), values.pop("heads"), **values)
