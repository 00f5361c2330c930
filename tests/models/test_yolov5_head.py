"""The head: decoding against reference numbers, priors, any input size, and the exported graph."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_weights import parameter_count
from levels import random_features, specs

from ppmtl.models.heads.yolov5 import COCO_ANCHORS, STRIDES, YOLOv5, _decode
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import FeatureSpec

GOLDEN = Path(__file__).parents[1] / "golden"
CHANNELS = (4, 4, 6, 8)
SPECS = specs(*CHANNELS)
SMALL_NECK = partial(YOLOCSPPAN, depth_multiplier=0.33)
CLASSES = 3


def head(num_classes: int = CLASSES, **changes) -> YOLOv5:
    paddle.seed(0)
    return YOLOv5(SPECS, num_classes, neck=SMALL_NECK, **changes)


def backbone_sizes(side: int) -> list[int]:
    """Returns the four lengths that the ConvNeXt backbone makes of a side: each halving rounds down."""
    sizes = [side // 4]
    for _ in range(3):
        sizes.append(sizes[-1] // 2)
    return sizes


def features(image_size: tuple[int, int], batch: int = 1) -> dict[str, paddle.Tensor]:
    sizes = zip(backbone_sizes(image_size[0]), backbone_sizes(image_size[1]), strict=True)
    return random_features(CHANNELS, tuple(sizes), batch)


def boxes_target(*rows: list[float]) -> dict[str, paddle.Tensor]:
    boxes = paddle.to_tensor(np.array(rows, np.float32).reshape(-1, 6))
    return {"boxes": boxes, "supervised": paddle.ones([2])}


def test_decoding_equals_the_reference():
    golden = json.loads((GOLDEN / "decode.json").read_text())
    maps = [np.array(level, np.float32) for level in golden["head_outs"]]
    assert [level.shape for level in maps] == [(1, 21, 4, 6), (1, 21, 2, 3), (1, 21, 1, 2)]
    # the coarsest level reaches to 32 x 64 px; nothing may be masked here
    decoded = [
        _decode(paddle.to_tensor(level), anchors, stride, (32, 64), 2)
        for level, anchors, stride in zip(maps, COCO_ANCHORS, STRIDES, strict=True)
    ]
    boxes = np.concatenate([level[0].numpy()[0] for level in decoded])
    scores = np.concatenate([level[1].numpy()[0] for level in decoded])
    assert len(golden["boxes_xyxy_px"]) == 3 * (24 + 6 + 2)
    np.testing.assert_allclose(boxes, golden["boxes_xyxy_px"], atol=1e-4)
    np.testing.assert_allclose(scores, golden["scores"], atol=1e-6)


def test_parameter_count_at_the_papers_size():
    model = YOLOv5(specs(192, 384, 768, 1536), 45, neck=SMALL_NECK)
    assert parameter_count(model.outputs) == 403_650


def test_biases_start_at_the_prior_and_boxes_at_their_anchors():
    expected = json.loads((GOLDEN / "yolov5_bias.json").read_text())
    for conv, objectness in zip(head(45).outputs, expected["obj"], strict=True):
        bias = conv.bias.numpy().reshape(3, 50)
        np.testing.assert_allclose(bias[:, :4], 0)
        np.testing.assert_allclose(bias[:, 4], objectness, rtol=1e-6)
        np.testing.assert_allclose(bias[:, 5:], expected["cls_paddleyolo_0.999999"], rtol=1e-6)


def test_one_class_is_legal():
    model = head(1)
    terms = model(features((64, 64)), (64, 64), boxes_target([0, 0, 0.5, 0.5, 0.3, 0.3]))
    assert all(math.isfinite(float(term)) for term in terms.values())
    assert list(model(features((64, 64)), (64, 64))["scores"].shape) == [1, 3 * (64 + 16 + 4), 1]


@pytest.mark.parametrize("image_size", [(64, 96), (720, 128), (36, 45), (67, 33)])
def test_outputs_cover_every_cell_and_masked_cells_are_exactly_those_outside(image_size):
    model = head()
    model.eval()
    raw = model(features(image_size, batch=2), image_size)
    coarse = [
        max(-(-n // factor) for n, factor in zip(backbone_sizes(side)[1:], (4, 2, 1), strict=True))
        for side in image_size
    ]
    grids = [(coarse[0] * factor, coarse[1] * factor) for factor in (4, 2, 1)]
    total = sum(3 * h * w for h, w in grids)
    assert list(raw["boxes"].shape) == [2, total, 4]
    assert list(raw["scores"].shape) == [2, total, CLASSES]
    assert raw["boxes"].dtype == raw["scores"].dtype == paddle.float32
    inside = []
    for (height, width), stride in zip(grids, STRIDES, strict=True):
        row, column = np.mgrid[:height, :width] * stride
        inside.append(np.tile(((row < image_size[0]) & (column < image_size[1])).ravel(), 3))
    positive = raw["scores"].numpy() > 0
    np.testing.assert_array_equal(positive.all(axis=2), np.tile(np.concatenate(inside), (2, 1)))
    np.testing.assert_array_equal(positive.any(axis=2), positive.all(axis=2))


def test_a_720_row_image_keeps_its_last_rows_and_drops_the_padding():
    model = head()
    model.eval()
    scores = model(features((720, 64)), (720, 64))["scores"].numpy()[0, :, 0]
    fine, middle, coarse = np.split(scores, [3 * 92 * 8, 3 * (92 * 8 + 46 * 4)])
    assert [(part.reshape(3, rows, -1) > 0).all(axis=(0, 2)).sum() for part, rows in ((fine, 92), (middle, 46))] == [
        90,
        45,
    ]
    assert (coarse > 0).all()  # row 22 of stride 32 shows pixels 704..719, although the backbone itself lost it


def test_boxes_stay_where_the_object_is_when_features_are_padded():
    model = head()
    for conv in model.outputs:
        conv.weight.set_value(paddle.zeros_like(conv.weight))
    model.eval()
    boxes = model(features((72, 40)), (72, 40))["boxes"].numpy()[0]
    first = boxes[: 3 * 12 * 8].reshape(3, 12, 8, 4)  # nested grid: 3 x 2 coarse cells
    assert first[1, 8, 4].tolist() == [36 - 8, 68 - 15, 36 + 8, 68 + 15]


def test_padding_is_zeros_at_the_right_and_bottom():
    model = head()
    model.eval()
    inputs = features((72, 40))  # strides 8, 16, 32: 9 x 5, 4 x 2 and 2 x 1 cells
    by_hand = {}
    for (name, level), (height, width) in zip(list(inputs.items())[1:], ((12, 8), (6, 4), (3, 2)), strict=True):
        padded = np.zeros((*level.shape[:2], height, width), np.float32)
        padded[:, :, : level.shape[2], : level.shape[3]] = level.numpy()
        by_hand[name] = paddle.to_tensor(padded)
    raw, expected = model(inputs, (72, 40)), model(by_hand, (72, 40))
    for name, values in raw.items():
        np.testing.assert_array_equal(values.numpy(), expected[name].numpy())


@pytest.mark.parametrize("image_size", [(64, 64), (72, 96), (45, 70)])
def test_training_drives_the_loss_down_and_the_decoded_box_onto_the_target(image_size):
    model = head(loss_gain=1.0, box_weight=1.0)
    inputs = features(image_size)
    height, width = image_size
    target = np.array([0.55 * width, 0.6 * height, 30.0, 24.0])
    normalised = target / [width, height, width, height]
    optimizer = paddle.optimizer.Adam(0.02, parameters=model.parameters())
    losses = []
    for _ in range(150):
        terms = model(inputs, image_size, boxes_target([0, 2, *normalised]))
        total = sum(terms.values())
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(total))
    assert losses[-1] < 0.25 * losses[0]
    raw = model(inputs, image_size)  # batch statistics as in training
    scores = raw["scores"].numpy()[0]
    best = int(scores.max(axis=1).argmax())
    x1, y1, x2, y2 = raw["boxes"].numpy()[0, best]
    assert scores[best].argmax() == 2
    np.testing.assert_allclose([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], target, atol=3)


def test_every_parameter_gets_a_gradient_from_a_batch_without_boxes():
    model = head()
    terms = model(features((64, 64), batch=2), (64, 64), boxes_target())
    assert sorted(terms) == ["loss_box", "loss_cls", "loss_obj"]
    sum(terms.values()).backward()
    without = [name for name, p in model.named_parameters() if not p.stop_gradient and p.grad is None]
    assert without == []


# A second pyramid beside the backbone's own levels: several features of one stride
PYRAMID = {f"p{level}": FeatureSpec(4, 2**level) for level in (3, 4, 5)}


def test_three_named_features_are_read_whatever_else_the_backbone_offers():
    names = ("p3", "c4", "p5")
    model = YOLOv5(SPECS | PYRAMID, CLASSES, neck=SMALL_NECK, reads=names)
    assert model.reads == names
    model.eval()
    inputs = {
        name: paddle.rand([1, (SPECS | PYRAMID)[name].channels, n, n]) for name, n in zip(names, (8, 4, 2), strict=True)
    }
    assert model(inputs, (64, 64))["boxes"].shape == [1, 3 * (64 + 16 + 4), 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"in_specs": {name: SPECS[name] for name in ("c2", "c3", "c4")}},
            r"8, 16 and 32, .* got strides {'c3': 8, 'c4': 16}",
        ),
        ({"in_specs": SPECS | PYRAMID}, r"YOLOv5: .* several features of stride 8 \(c3, p3\); .*reads"),
        ({"reads": ("c3", "c4", "p5")}, r"YOLOv5: reads 'p5'.*c2.*c3.*c4.*c5"),
        ({"reads": ("c2", "c3", "c4")}, r"got strides {'c2': 4, 'c3': 8, 'c4': 16}"),
        ({"anchors": COCO_ANCHORS[:2]}, r"got \[3, 3\] anchors"),
        ({"anchors": (*COCO_ANCHORS[:2], ((0, 5), (1, 1), (2, 2)))}, "must be > 0"),
        ({"balance": (4.0, 1.0)}, "2 weights"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes, message):
    values = {"in_specs": SPECS, "num_classes": 3, "neck": SMALL_NECK} | changes
    with pytest.raises(ValueError, match=message):
        YOLOv5(**values)


def test_assigned_anchors_are_those_of_the_loss_as_boxes_around_their_cells():
    # In 64 x 64 px: a box of 16 x 30 px around (30, 27), exactly an anchor of stride 8, and a speck that fits none
    rows = np.array([[-1] * 6, [1, 2, 30 / 64, 27 / 64, 16 / 64, 30 / 64], [1, 0, 0.9, 0.9, 0.01, 0.01]], np.float32)
    levels = head().assigned({"boxes": rows}, (64, 64))
    assert list(levels) == ["stride 8", "stride 16", "stride 32"]
    assert {tuple(row[:2]) for found in levels.values() for row in found} == {(1, 0)}  # image 1, its first object
    fine = levels["stride 8"][:, 2:]
    centres = {tuple(row) for row in ((fine[:, :2] + fine[:, 2:]) / 2).tolist()}
    assert centres == {(28, 28), (36, 28), (28, 20)}  # the middle lies right of and above that of its cell
    assert {tuple(row) for row in (fine[:, 2:] - fine[:, :2]).tolist()} == {(10, 13), (16, 30), (33, 23)}
    assert len(fine) == 9
