"""Task-aligned assignment against the reference's, and the cases that decide nothing by chance."""

import numpy as np
import pytest
from yolor_golden import golden

from ppmtl.models.heads._tal import assign

GOLDEN = golden("tal_assigner")


def arrays(image: int) -> dict[str, np.ndarray]:
    boxes = np.array(GOLDEN["pred_boxes"]["data"], np.float32).reshape(GOLDEN["pred_boxes"]["shape"])
    scores = np.array(GOLDEN["pred_scores"]["data"], np.float32).reshape(GOLDEN["pred_scores"]["shape"])
    real = np.array(GOLDEN["mask_gt"][image], bool)
    return {
        "points": np.array(GOLDEN["anchors_xy"], np.float32),
        "boxes": boxes[image],
        "scores": scores[image].T,
        "truth": np.array(GOLDEN["gt_boxes"][image], np.float32)[real],
        "labels": np.array(GOLDEN["gt_labels"][image])[real],
    }


@pytest.mark.parametrize("image", [0, 1])
def test_cells_objects_and_scores_equal_the_reference(image):
    expected = [row for row in GOLDEN["positives"] if row["b"] == image]
    assert len(expected) == GOLDEN["fg_count"][image] > 20
    found = assign(**arrays(image), top_k=10)
    assert found.cell.tolist() == [row["a"] for row in expected]
    assert found.box.tolist() == [row["gt"] for row in expected]
    np.testing.assert_allclose(found.score, [row["score"] for row in expected], rtol=1e-5)


def test_the_golden_case_has_conflicts_and_they_are_settled_as_there():
    found = assign(**arrays(0), top_k=10)
    winners = dict(zip(found.cell.tolist(), found.box.tolist(), strict=True))
    conflicts = [row for row in GOLDEN["conflicts_b_anchor_gts_winner"] if row[0] == 0]
    assert len(conflicts) > 3
    assert [winners[cell] for _, cell, _, _ in conflicts] == [winner for *_, winner in conflicts]


def test_a_contested_cell_goes_to_the_highest_overlap_even_if_that_object_did_not_want_it():
    case = GOLDEN["third_box_case"]
    truth = np.array(case["gt_label_x1y1x2y2"], np.float32)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (16, 1))
    boxes[5], boxes[10] = case["pred_5"], case["pred_10"]
    x, y = np.meshgrid(np.arange(4) * 8 + 4, np.arange(4) * 8 + 4)
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    found = assign(points, boxes, np.full((3, 16), 0.5, np.float32), truth[:, 1:], truth[:, 0].astype(int), top_k=1)
    assert list(zip(found.cell.tolist(), found.box.tolist(), strict=True)) == [tuple(p) for p in case["positives_a_gt"]]
    np.testing.assert_allclose(found.score, case["score"], rtol=1e-5)


def test_the_order_of_the_cells_does_not_matter():
    given = arrays(0)
    order = np.random.RandomState(0).permutation(len(given["points"]))
    plain = assign(**given, top_k=10)
    shuffled = given | {
        "points": given["points"][order],
        "boxes": given["boxes"][order],
        "scores": given["scores"][:, order],
    }
    found = assign(**shuffled, top_k=10)
    assert set(zip(order[found.cell].tolist(), found.box.tolist(), strict=True)) == set(
        zip(plain.cell.tolist(), plain.box.tolist(), strict=True)
    )


@pytest.mark.parametrize("truth", [[], [[3.0, 3.0, 3.0, 3.0]], [[4.5, 4.5, 7.0, 7.0]], [[60.0, 60.0, 70.0, 70.0]]])
def test_no_object_and_objects_without_a_cell_centre_give_nothing(truth):
    given = arrays(0) | {"truth": np.array(truth, np.float32).reshape(-1, 4), "labels": np.zeros(len(truth), np.int64)}
    found = assign(**given, top_k=10)
    assert (len(found.cell), len(found.box), len(found.score)) == (0, 0, 0)


def test_cells_whose_prediction_overlaps_nothing_are_never_chosen():
    given = arrays(0)
    away = given | {"boxes": np.tile(np.array([200, 200, 210, 210], np.float32), (len(given["points"]), 1))}
    assert len(assign(**away, top_k=10).cell) == 0
    away["boxes"][27] = given["boxes"][27]
    found = assign(**away, top_k=10)
    assert found.cell.tolist() == [27]
    assert found.score[0] > 0
