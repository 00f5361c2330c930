"""The loss: assignment, complete IoU and totals against reference numbers, and the cases that break other versions."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppmtl.models.heads._yolov5_loss import YOLOv5LossSettings, assign_targets, complete_iou, yolov5_loss
from ppmtl.models.heads.yolov5 import COCO_ANCHORS

GOLDEN = Path(__file__).parents[1] / "golden"
STRIDES = (8, 16, 32)
LOSS_CASES = {case["name"]: case for case in json.loads((GOLDEN / "yolov5_loss.json").read_text())["cases"]}
ASSIGNMENT_CASES = json.loads((GOLDEN / "target_assignment.json").read_text())["cases"]
CIOU_CASES = json.loads((GOLDEN / "ciou.json").read_text())["cases"]


def settings(num_classes: int, **changes) -> YOLOv5LossSettings:
    values = {
        "num_classes": num_classes,
        "anchors": COCO_ANCHORS,
        "strides": STRIDES,
        "gain": None,
        "box_weight": 0.05,
        "objectness_weight": 1.0,
        "class_weight": 0.5,
        "scaling": "paddleyolo",
        "balance": (4.0, 1.0, 0.4),
        "anchor_threshold": 4.0,
        "label_smoothing": 0.0,
    }
    return YOLOv5LossSettings(**(values | changes))


def random_maps(seed: int, batch: int, num_classes: int, size: tuple[int, int]) -> list[paddle.Tensor]:
    """Returns raw maps by the golden file's recipe, asking for gradients."""
    random = np.random.RandomState(seed)
    maps = []
    for stride in STRIDES:
        shape = (batch, 3 * (5 + num_classes), -(-size[0] // stride), -(-size[1] // stride))
        values = np.round(random.randn(*shape), 4).astype(np.float32)
        maps.append(paddle.to_tensor(values, stop_gradient=False))
    return maps


def rows(values) -> paddle.Tensor:
    return paddle.to_tensor(np.array(values, np.float32).reshape(-1, 6))


def run_case(case: dict, **changes) -> tuple[dict[str, float], list[np.ndarray]]:
    maps = random_maps(case["seed"], case["B"], case["nc"], (case["S"], case["S"]))
    for level, checksum in zip(maps, case["pred_checksums"], strict=True):
        assert level.numpy().astype(np.float64).sum() == pytest.approx(checksum, abs=1e-6)
    terms = yolov5_loss(maps, rows(case["targets"]), (case["S"], case["S"]), settings(case["nc"], **changes))
    sum(terms.values()).backward()
    return {name: float(term) for name, term in terms.items()}, [level.grad.numpy() for level in maps]


OPTIONS = {
    "unscaled": {},
    "scaled_640": {"scaling": "ultralytics"},
    "smooth0.1": {"label_smoothing": 0.1},
}
LOSS_RUNS = [(name, option) for name, case in LOSS_CASES.items() for option in case["ult"]]


def test_the_golden_file_holds_every_case_and_option():
    assert len(LOSS_CASES) == len(ASSIGNMENT_CASES) == 5
    assert len(CIOU_CASES) == 7
    assert len(LOSS_RUNS) == 7
    assert {option for _, option in LOSS_RUNS} == set(OPTIONS)


@pytest.mark.parametrize(("name", "option"), LOSS_RUNS)
def test_terms_and_gradients_equal_the_reference(name, option):
    case = LOSS_CASES[name]
    expected = case["ult"][option]["float64"]
    terms, gradients = run_case(case, **OPTIONS[option])
    # the reference's parts are per image in the batch, its sum is not
    parts = [expected["lbox"], expected["lobj"], expected["lcls"]]
    np.testing.assert_allclose(list(terms.values()), np.array(parts) * case["B"], rtol=1e-5)
    assert sum(terms.values()) == pytest.approx(expected["loss_times_bs"], rel=1e-5)
    np.testing.assert_allclose([np.abs(g).sum() for g in gradients], expected["grad_abs_sum"], rtol=1e-5)
    np.testing.assert_allclose([g.sum() for g in gradients], expected["grad_sum"], rtol=2e-5)


@pytest.mark.parametrize("name", [name for name in LOSS_CASES if name != "border_and_anchor_limits"])
def test_terms_equal_the_paddle_reference_where_it_clamps_like_us(name):
    expected = LOSS_CASES[name]["paddle"]["eps0"]
    terms, _ = run_case(LOSS_CASES[name])
    parts = [expected["lbox_times_bs"], expected["lobj_times_bs"], expected["lcls_times_bs"]]
    np.testing.assert_allclose(list(terms.values()), parts, rtol=1e-5)


@pytest.mark.parametrize("case", ASSIGNMENT_CASES, ids=lambda case: case["name"])
def test_assignment_equals_the_reference_row_for_row(case):
    targets = np.array(case["targets"], np.float32).reshape(-1, 6)
    for stride, anchors, expected in zip(STRIDES, COCO_ANCHORS, case["levels"], strict=True):
        cells = case["S"] // stride
        found = assign_targets(
            targets, np.array(anchors, np.float32) / stride, scale=(cells, cells), grid=(cells, cells), threshold=4.0
        )
        names = {"image": "b", "anchor": "a", "row": "gj", "column": "gi", "label": "cls"}
        for ours, theirs in names.items():
            assert getattr(found, ours).tolist() == expected[theirs], ours
        boxes = np.array(expected["tbox"], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(found.boxes, boxes, atol=2e-5)


def test_an_anchor_four_times_off_does_not_fit_but_just_below_does():
    anchors = np.array([[2.0, 2.0]], np.float32)
    for side, count in ((8.0, 0), (7.99, 1), (0.5, 0), (0.51, 1), (0.0, 0)):
        targets = np.array([[0, 0, 0.5 / 16, 0.5 / 16, side / 16, side / 16]], np.float32)
        found = assign_targets(targets, anchors, scale=(16, 16), grid=(16, 16), threshold=4.0)
        assert len(found) == count, side


def test_a_centre_on_the_far_border_belongs_to_the_last_cell():
    targets = np.array([[0, 0, 1.0, 1.0, 0.25, 0.25]], np.float32)
    found = assign_targets(targets, np.ones((1, 2), np.float32), scale=(8, 8), grid=(8, 8), threshold=4.0)
    assert set(zip(found.row.tolist(), found.column.tolist(), strict=True)) == {(7, 7)}
    assert found.boxes[0].tolist() == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("case", CIOU_CASES, ids=lambda case: str(case["box1_xywh"]))
def test_complete_iou_and_its_gradient_equal_the_reference(case):
    for dtype, suffix, tolerance in (("float32", "f32", 1e-6), ("float64", "f64", 1e-7)):
        boxes = paddle.to_tensor([case["box1_xywh"]], dtype, stop_gradient=False)
        value = complete_iou(boxes, paddle.to_tensor([case["box2_xywh"]], dtype))
        value.backward()
        assert float(value[0]) == pytest.approx(case[f"ciou_{suffix}_eps1e-7"], abs=tolerance)
        np.testing.assert_allclose(boxes.grad.numpy()[0], case[f"dciou_dbox1_{suffix}"], atol=tolerance)


def test_a_height_that_underflowed_to_zero_gives_no_nan():
    boxes = paddle.to_tensor([[1.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0]], stop_gradient=False)
    value = complete_iou(boxes, paddle.to_tensor([[1.0, 1.0, 2.0, 2.0]] * 2))
    value.sum().backward()
    assert np.isfinite(value.numpy()).all()
    assert np.isfinite(boxes.grad.numpy()).all()


def test_a_prediction_equal_to_its_target_costs_no_box_loss_and_no_nan():
    # sigmoid(0) = .5 predicts the cell's centre at the anchor's own size. The centre of cell (3, 3) of stride 8 has no
    # neighbour to share with; an anchor threshold just above 1 leaves stride 8 alone.
    maps = [paddle.zeros([1, 6, 64 // stride, 64 // stride]) for stride in STRIDES]
    for level in maps:
        level.stop_gradient = False
    anchors = tuple((level[1],) for level in COCO_ANCHORS)
    width, height = anchors[0][0]
    target = rows([0, 0, 28 / 64, 28 / 64, width / 64, height / 64])
    terms = yolov5_loss(maps, target, (64, 64), settings(1, anchors=anchors, anchor_threshold=1.01))
    sum(terms.values()).backward()
    assert float(terms["loss_box"]) == pytest.approx(0.0, abs=1e-7)
    assert all(np.isfinite(level.grad.numpy()).all() for level in maps)
    assert np.isfinite(float(sum(terms.values())))


def test_a_batch_without_boxes_pays_objectness_only():
    for targets in ([], [[-1, 0, 0.5, 0.5, 0.2, 0.2]]):
        maps = random_maps(4, 2, 3, (64, 64))
        terms = yolov5_loss(maps, rows(targets), (64, 64), settings(3))
        assert float(terms["loss_box"]) == float(terms["loss_cls"]) == 0.0
        assert float(terms["loss_obj"]) == pytest.approx(LOSS_CASES["empty"]["ult"]["unscaled"]["float64"]["lobj"] * 2)
        sum(terms.values()).backward()
        for level in maps:
            gradient = level.grad.numpy().reshape(2, 3, 8, -1)
            assert (gradient[:, :, 4] != 0).all()
            assert (np.delete(gradient, 4, axis=2) == 0).all()


def test_padding_rows_change_nothing():
    case = LOSS_CASES["basic"]
    plain, gradients = run_case(case)
    padding = [[-1, 0, 0, 0, 0, 0], [-1, 2, 0.4, 0.4, 0.3, 0.3]]
    padded, padded_gradients = run_case(case | {"targets": [padding[0], *case["targets"], padding[1]]})
    assert plain == padded
    for one, other in zip(gradients, padded_gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_two_boxes_on_one_cell_the_last_row_sets_the_objectness_target():
    first, second = [0, 0, 0.45, 0.45, 0.3, 0.3], [0, 0, 0.45, 0.45, 0.29, 0.32]  # the same cells and anchors

    def objectness(*targets) -> float:
        maps = random_maps(3, 1, 1, (64, 64))
        return float(yolov5_loss(maps, rows(targets), (64, 64), settings(1, class_weight=0.0))["loss_obj"])

    assert objectness(first, second) == objectness(second)
    assert objectness(second, first) == objectness(first)
    assert objectness(first) != objectness(second)


def test_terms_are_scalars_in_float32_whatever_the_maps_are():
    maps = [paddle.cast(level, "float16") for level in random_maps(1, 2, 3, (64, 64))]
    terms = yolov5_loss(maps, rows(LOSS_CASES["basic"]["targets"]), (64, 64), settings(3))
    assert list(terms) == ["loss_box", "loss_obj", "loss_cls"]
    for term in terms.values():
        assert list(term.shape) == []
        assert term.dtype == paddle.float32
    expected = LOSS_CASES["basic"]["ult"]["unscaled"]["float64"]["loss_times_bs"]
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-3)


def test_a_given_gain_replaces_the_batch_size():
    case = LOSS_CASES["basic"]
    by_batch, _ = run_case(case)
    fixed, _ = run_case(case, gain=7.0)
    for name, term in fixed.items():
        assert term == pytest.approx(by_batch[name] * 7 / case["B"], rel=1e-6)


def test_ultralytics_scaling_uses_the_area_and_the_class_count():
    weights = settings(45, scaling="ultralytics").weights((1024, 1024))
    assert weights == pytest.approx((0.05, 2.56, 0.28125))
    assert settings(45, scaling="ultralytics").weights((512, 2048))[1] == pytest.approx(2.56)
    assert settings(45).weights((512, 2048)) == (0.05, 1.0, 0.5)


def test_rectangular_inputs_use_their_own_height_and_width():
    maps = random_maps(6, 1, 3, (64, 128))
    targets = np.array([[0, 1, 0.8, 0.3, 0.15, 0.2]], np.float32)
    terms = yolov5_loss(maps, rows(targets), (64, 128), settings(3))
    mirrored = [level.detach().transpose([0, 1, 3, 2]).numpy() for level in maps]
    for level in mirrored:  # transposing the image swaps x with y and w with h
        grouped = level.reshape(1, 3, 8, *level.shape[2:])
        grouped[:, :, [0, 1, 2, 3]] = grouped[:, :, [1, 0, 3, 2]]
    swapped = tuple(tuple((h, w) for w, h in level) for level in COCO_ANCHORS)
    again = yolov5_loss(
        [paddle.to_tensor(level) for level in mirrored],
        rows(targets[:, [0, 1, 3, 2, 5, 4]]),
        (128, 64),
        settings(3, anchors=swapped),
    )
    for name, term in terms.items():
        assert float(term) == pytest.approx(float(again[name]), rel=1e-5), name


def test_padded_cells_outside_the_image_take_no_part():
    size = (72, 64)  # 9 rows of stride 8, 4.5 of 16, 2.25 of 32: padded to 12, 6 and 3
    targets = rows([[0, 1, 0.5, 0.999, 0.3, 0.3], [0, 0, 0.3, 0.4, 0.9, 0.9]])
    maps = [paddle.rand([1, 24, 96 // s, 64 // s]) for s in STRIDES]
    other = [level.clone() for level in maps]
    for level, rows_inside in zip(other, (9, 5, 3), strict=True):
        level[:, :, rows_inside:] = 77.0
        level.stop_gradient = False
    before = yolov5_loss(maps, targets, size, settings(3))
    after = yolov5_loss(other, targets, size, settings(3))
    assert {k: float(v) for k, v in before.items()} == {k: float(v) for k, v in after.items()}
    sum(after.values()).backward()
    for level, rows_inside in zip(other, (9, 5, 3), strict=True):
        assert (level.grad.numpy()[:, :, rows_inside:] == 0).all()


@pytest.mark.parametrize("row", [[2, 0, 0.5, 0.5, 0.1, 0.1], [0, 3, 0.5, 0.5, 0.1, 0.1], [0, -1, 0.5, 0.5, 0.1, 0.1]])
def test_rows_that_name_no_image_or_class_are_refused(row):
    with pytest.raises(ValueError, match=r"images are 0\.\.1 and classes 0\.\.2"):
        yolov5_loss(random_maps(1, 2, 3, (64, 64)), rows([row]), (64, 64), settings(3))
