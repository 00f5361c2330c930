"""Targets, masks and average precision of instances."""

import contextlib
import io
import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from pycocotools import mask as api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppmtl.data import labels
from ppmtl.ops.masks import Rle, draw_mask
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.instances import InstanceMasks, Instances
from ppmtl.tasks.views import View

GOLDEN = Path(__file__).parents[1] / "golden" / "yolor"
CLASSES = ClassList(("a", "b"), (3, 7))


def sample(label=None, size=(32, 48)):
    return Sample("a.jpg", np.zeros((*size, 3), np.uint8), {} if label is None else {"ins": label})


def square(x1, y1, x2, y2):
    return (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),)


def boxed(*masks, size=(32, 48)):
    found = [np.nonzero(draw_mask(mask, size)) for mask in masks]
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in found]
    return labels.Instances(np.array(boxes, np.float32), np.arange(len(masks)) % 2, masks=masks)


# ---- targets ------------------------------------------------------------------------------------


def test_masks_are_drawn_at_a_quarter_of_the_size_in_the_order_of_the_boxes():
    label = boxed(square(8, 4, 24, 12), Rle.of(np.ones((8, 4)), (32, 48), (0, 40)))
    nothing = labels.Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    targets = Instances("ins", CLASSES).collate([sample(nothing), sample(label)])
    assert targets["boxes"][:, :2].tolist() == [[1, 0], [1, 1]]
    wanted = np.zeros((2, 8, 12), np.uint8)
    wanted[0, 1:3, 2:6] = 1
    wanted[1, 0:2, 10] = 1
    np.testing.assert_array_equal(targets["masks"], wanted)
    assert targets["has_mask"].tolist() == [1, 1]
    assert targets["supervised"].tolist() == [1, 1]


def test_boxes_without_a_mask_and_images_without_a_label_are_marked():
    boxes = np.array([[0, 0, 9, 9], [3, 3, 4, 4]], np.float32)
    known = labels.Instances(boxes, np.array([0, 1]), masks=(None, square(3, 3, 4, 4)))
    targets = Instances("ins", CLASSES).collate([sample(), sample(known)])
    assert targets["supervised"].tolist() == [0, 1]
    assert targets["has_mask"].tolist() == [0, 0]  # the second one holds no cell's centre
    nobody = Instances("ins", CLASSES).collate([sample(), sample()])
    assert nobody["boxes"].tolist() == [[-1] * 6]
    assert (nobody["masks"].shape, nobody["has_mask"].tolist()) == ((1, 8, 12), [0])


# ---- decoding -----------------------------------------------------------------------------------


def _hv(name, shape, low, high):
    """The pseudo-random numbers of the golden files (see the README of tests/golden)."""
    k = np.arange(np.prod(shape), dtype=np.uint64)
    h = (np.uint64(crc32(name.encode())) + np.uint64(2654435761) * (k + np.uint64(1))) % np.uint64(2**32)
    for _ in range(2):
        h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x45D9F3B)) % np.uint64(2**32)
    h ^= h >> np.uint64(16)
    return (low + (high - low) * h.astype(np.float64) / 2**32).astype(np.float32).reshape(shape)


def _by_rows(counts, shape):
    return np.repeat(np.arange(len(counts)) % 2, counts).reshape(shape).astype(np.uint8)


def test_masks_of_prototypes_are_the_golden_ones_pixel_by_pixel():
    golden = json.loads((GOLDEN / "mask_loss.json").read_text())["assembly"]
    raw = {
        "boxes": np.array(golden["boxes_px"], np.float32)[None],
        "scores": np.array([[[0.9], [0.8], [0.7]]], np.float32),
        "coefficients": _hv("asm14.coef", (3, 4), -2, 2)[None],
        "prototypes": _hv("asm14.proto", (4, 16, 24), -1.5, 1.5)[None],
    }
    task = Instances("ins", ClassList(("a",)), nms_iou=None)
    found = task.decode(raw, 0, View((64, 96)).meta((64, 96), "x"), single=True)
    assert [mask.area() for mask in found.masks] == golden["pixels"]["upsample_then_crop"]
    for mask, counts in zip(found.masks, golden["upsample_then_crop_64x96"], strict=True):
        np.testing.assert_array_equal(mask.pixels(), _by_rows(counts, (64, 96)))


def test_masks_follow_their_boxes_through_suppression():
    raw = {
        "boxes": np.array([[[0, 0, 8, 8], [0, 0, 8, 8], [16, 16, 32, 32]]], np.float32),
        "scores": np.array([[[0.5, 0], [0.9, 0], [0, 0.7]]], np.float32),
        "coefficients": np.eye(3, dtype=np.float32)[None],
        "prototypes": np.full((1, 3, 8, 12), -9, np.float32),
    }
    raw["prototypes"][0, 1, :1] = raw["prototypes"][0, 2, 6:] = 9
    found = Instances("ins", CLASSES).decode(raw, 0, View((32, 48)).meta((32, 48), "x"), single=True)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert [(mask.pixels().nonzero()[0].min(), mask.area()) for mask in found.masks] == [(0, 4 * 8), (24, 8 * 16)]


def test_a_merged_box_has_the_mask_of_its_best_view():
    def view(score, x, rows):
        box, mask = np.array([[x, 0, x + 10, 10]], np.float32), Rle.of(np.ones((rows, 10)), (32, 48), (0, x))
        return InstanceMasks(box, np.array([score], np.float32), np.array([0]), (mask,))

    for how, score in (("wbf", 0.6), ("nms", 0.8)):
        merge = Instances("ins", CLASSES, merge=how).new_merge()
        for each in (view(0.4, 0, 3), view(0.8, 1, 7)):
            merge.add(each)
        found = merge.result()
        assert found.scores.tolist() == pytest.approx([score])
        assert [mask.area() for mask in found.masks] == [70]


def test_merging_views_without_anything_gives_nothing():
    merge = Instances("ins", CLASSES).new_merge()
    empty = InstanceMasks(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())
    merge.add(empty)
    merge.add(empty)
    assert len(merge.result()) == len(merge.result().masks) == 0


# ---- average precision --------------------------------------------------------------------------


def measured(task, images):
    """The metrics for (label, prediction, size) per image."""
    meter = task.new_meter()
    for label, prediction, size in images:
        meter.add(sample(label, size), prediction)
    return meter.result()


def _mask(segmentation, size):
    if isinstance(segmentation, dict):
        return Rle(size, np.array(segmentation["counts"]))
    return tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in segmentation)


def _xyxy(rows):
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def _images(dataset, detections, classes):
    """COCO rows as labels and predictions."""
    index_of = classes.index_of()
    for image in dataset["images"]:
        size = (image["height"], image["width"])
        parts = []
        for crowd in (0, 1):
            rows = [a for a in dataset["annotations"] if a["image_id"] == image["id"] and a.get("iscrowd", 0) == crowd]
            found = np.array([index_of[row["category_id"]] for row in rows], np.int64)
            parts.append((_xyxy(rows), found, tuple(_mask(row["segmentation"], size) for row in rows)))
        (boxes, found, masks), (crowds, of_crowds, crowd_masks) = parts
        rows = [row for row in detections if row["image_id"] == image["id"]]
        prediction = InstanceMasks(
            _xyxy(rows),
            np.array([row["score"] for row in rows], np.float32),
            np.array([index_of[row["category_id"]] for row in rows], np.int64),
            tuple(_mask(row["segmentation"], size) for row in rows),
        )
        yield labels.Instances(boxes, found, crowds, of_crowds, masks, crowd_masks), prediction, size


@pytest.mark.parametrize("case", ["segm", "segm_with_crowds_removed"])
def test_average_precision_is_the_golden_one(case):
    golden = json.loads((GOLDEN / "mask_ap.json").read_text())
    dataset = golden["dataset"]
    if case != "segm":
        dataset["annotations"] = [a for a in dataset["annotations"] if not a["iscrowd"]]
    classes = ClassList(("a", "b", "c"), (1, 3, 7))
    found = measured(Instances("ins", classes), _images(dataset, golden["detections"], classes))
    stats, values = golden[case]["stats"], found.values
    assert values["mask_ap50_95"] == pytest.approx(stats["AP"], abs=1e-6)
    assert values["mask_ap50"] == pytest.approx(stats["AP50"], abs=1e-6)
    assert found.per_class["mask_ap50_95"] == pytest.approx([c["ap"] for c in golden[case]["per_category"]], abs=1e-6)
    assert found.per_class["mask_ap50"] == pytest.approx([c["ap50"] for c in golden[case]["per_category"]], abs=1e-6)
    if case == "segm":
        assert values["box_ap50_95"] == pytest.approx(golden["bbox"]["stats"]["AP"], abs=1e-6)
        assert values["box_ap50"] == pytest.approx(golden["bbox"]["stats"]["AP50"], abs=1e-6)


def _ellipse(rng, size, near=None):
    """A random ellipse, or one like ``near``: parameters and polygon."""
    if near is None:
        near = np.array([*rng.uniform(0.2, 0.8, 2) * size[::-1], *rng.uniform(3, 14, 2)])
    else:
        near = near + rng.normal(0, 1.2, 4)
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    return near, np.round(near[:2] + np.abs(near[2:]) * np.stack([np.cos(angles), np.sin(angles)], 1), 2)


def _random_set(seed):
    rng = np.random.default_rng(seed)
    images, annotations, detections = [], [], []
    for number in range(1, 9):
        size = tuple(int(v) for v in rng.integers(40, 70, 2))
        images.append({"id": number, "height": size[0], "width": size[1]})
        shapes = [_ellipse(rng, size) for _ in range(rng.integers(0, 6))]
        for near, ring in shapes:
            rle = api.frPyObjects([ring.ravel().tolist()], *size)[0]
            counts = Rle.of(api.decode(rle)).counts.tolist()
            crowd = int(rng.random() < 0.2)
            box = [*ring.min(0), *(ring.max(0) - ring.min(0))]
            category = int(rng.choice([3, 7]))
            shape = {"size": list(size), "counts": counts} if crowd or rng.random() < 0.3 else [ring.ravel().tolist()]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box,
                                "iscrowd": crowd, "area": float(api.area(rle)), "segmentation": shape})  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                _, ring = _ellipse(rng, size, near)
                pixels = draw_mask((ring,), size)
                detections.append({"image_id": number, "category_id": category if rng.random() < 0.8 else 3,
                                   "segmentation": {"size": list(size), "counts": Rle.of(pixels).counts.tolist()},
                                   "bbox": [*ring.min(0), *(ring.max(0) - ring.min(0))],
                                   "score": float(np.float32(round(rng.random(), 2)))})  # fmt: skip
    categories = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, detections


def _by_pycocotools(dataset, detections, kind):
    def rounded(row):  # our boxes are corners in float32
        x1, y1, x2, y2 = _xyxy([row])[0].tolist()
        return {**row, "bbox": [x1, y1, x2 - x1, y2 - y1]}

    truth, found = COCO(), COCO()
    truth.dataset = {**dataset, "annotations": [rounded(row) for row in dataset["annotations"]]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        rows = [{**rounded(row), "id": n, "area": 0, "iscrowd": 0} for n, row in enumerate(detections, 1)]
        rows = [
            {**row, "segmentation": api.frPyObjects(row["segmentation"], *row["segmentation"]["size"])} for row in rows
        ]
        found.dataset = {**dataset, "annotations": rows}
        found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]
    return [float(np.mean(p[p > -1])) for p in (precision, precision[0])]


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_of_boxes_and_masks_equals_pycocotools_on_random_sets(seed):
    dataset, detections = _random_set(seed)
    values = measured(Instances("ins", CLASSES), _images(dataset, detections, CLASSES)).values
    for ours, kind in (("mask", "segm"), ("box", "bbox")):
        wanted = _by_pycocotools(dataset, detections, kind)
        assert [values[f"{ours}_ap50_95"], values[f"{ours}_ap50"]] == pytest.approx(wanted, abs=1e-12)
    assert 0.05 < values["mask_ap50_95"] < 0.95


def test_an_object_without_a_mask_counts_for_boxes_and_is_ignored_for_masks():
    task = Instances("ins", ClassList(("a",)))
    box, other = [2, 2, 12, 12], [20, 4, 40, 20]
    label = labels.Instances(np.array([box, other], np.float32), np.zeros(2, int), masks=(None, square(*other)))
    found = InstanceMasks(
        np.array([box, other], np.float32), np.array([0.9, 0.8], np.float32), np.zeros(2, int),
        (Rle.of(np.ones((10, 10)), (32, 48), (2, 2)), Rle.of(np.ones((16, 20)), (32, 48), (4, 20))),
    )  # fmt: skip
    values = measured(task, [(label, found, (32, 48))]).values
    assert (values["mask_ap50"], values["box_ap50"]) == (1.0, 1.0)
    without = measured(task, [(label, found[:1], (32, 48))]).values
    assert (without["mask_ap50"], without["box_ap50"] > 0) == (0.0, True)


# ---- for people and programs --------------------------------------------------------------------


def test_json_holds_run_lengths_that_coco_reads():
    pixels = np.zeros((32, 48), np.uint8)
    pixels[3:9, 5:20] = 1
    box, score = np.array([[5, 3, 20, 9]], np.float32), np.array([0.75], np.float32)
    found = InstanceMasks(box, score, np.array([1]), (Rle.of(pixels),))
    (entry,) = json.loads(json.dumps(Instances("ins", CLASSES).to_json(found)))["instances"]
    assert (entry["class"], entry["category_id"], entry["score"]) == ("b", 7, 0.75)
    np.testing.assert_array_equal(api.decode(entry["segmentation"]), pixels)


def test_drawing_colours_the_pixels_of_the_mask_and_not_those_below_the_threshold():
    masks = (Rle.of(np.ones((9, 9)), (60, 80), (40, 10)), Rle.of(np.ones((9, 9)), (60, 80), (40, 50)))
    boxes = np.array([[10, 40, 19, 49], [50, 40, 59, 49]], np.float32)
    found = InstanceMasks(boxes, np.array([0.9, 0.2], np.float32), np.array([0, 0]), masks)
    drawn = Instances("ins", CLASSES).draw(np.full((60, 80, 3), 100, np.uint8), found, 0.5)
    assert (drawn[42:47, 12:17] != 100).any(axis=-1).all()
    assert (drawn[42:47, 52:57] == 100).all()
