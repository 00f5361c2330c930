"""Small facts of golden misc.json that several rooms rely on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
import yaml

from ppmtl.ops import affine

ROOT = Path(__file__).parents[1]
MISC = json.loads((ROOT / "tests" / "golden" / "misc.json").read_text())
BINS = {
    tuple(int(part[1:]) for part in key.split("_")): rows
    for key, rows in MISC["adaptive_avg_pool_bins"].items()
    if key.startswith("n")
}


def test_the_file_holds_the_bins_of_every_map_size_of_the_recipe():
    assert {size for size, _ in BINS} >= {16, 22, 32, 40}
    assert {bins for _, bins in BINS} == {1, 2, 3, 6}


@pytest.mark.parametrize(("size", "bins"), sorted(BINS))
def test_pooling_bins_overlap_as_in_the_reference(size, bins):
    x = np.arange(size, dtype=np.float32) ** 2
    pooled = F.adaptive_avg_pool2d(paddle.to_tensor(x.reshape(1, 1, size, 1)), (bins, 1)).numpy().ravel()
    np.testing.assert_allclose(pooled, [x[start:end].mean() for start, end in BINS[size, bins]], rtol=1e-6)


def test_enlarging_in_the_graph_and_in_numpy_is_half_pixel_bilinear():
    expected = MISC["bilinear_4_to_8"]
    row = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    for aligned in (False, True):
        graph = F.interpolate(paddle.to_tensor(row), size=[1, 8], mode="bilinear", align_corners=aligned)
        np.testing.assert_allclose(graph.numpy().ravel(), expected[f"align_corners_{str(aligned).lower()}"], atol=1e-6)
    warped = affine.warp(row[0, 0], affine.scaling(2, 1), (1, 8), "linear", 0)
    np.testing.assert_allclose(warped.ravel(), expected["align_corners_false"], atol=1e-6)


def test_mirroring_boxes_needs_no_minus_one():
    case = MISC["flip_boxes"]
    moved = affine.apply_to_boxes(affine.horizontal_flip(case["W"]), np.array([case["xyxy"]], np.float32))
    assert moved.tolist() == [case["flipped"]]


def test_the_papers_config_has_the_references_epoch_arithmetic():
    config = yaml.safe_load((ROOT / "configs" / "allinone_traffic.yml").read_text())
    expected = MISC["batch_sizes"]
    assert {task: source["batch_size"] for task, source in config["sources"].items()} == {
        task: expected[task] for task in ("seg", "cls", "det")
    }
    assert config["train"]["steps_per_epoch"] == expected["M_from_seg"] == 7000 // (expected["seg"] * expected["gpus"])
    assert config["train"]["steps_per_epoch"] * config["train"]["epochs"] == expected["T"]
