"""The scorer gives the official tool's figures, quirks included, and beside them the strict ones."""

import json

import cv2
import numpy as np
import pytest
from perfect_submission import SIZE, write_perfect

from ppmtl.challenge.scoring import score

OFFICIAL, STRICT = "official-2.7.0", "strict"


def _official_miou(content, truth, size):
    """The official tool's mIoU, as docs/submission.md describes it, without the code under test."""
    masks = {}
    for entry in content["seg"]:
        for name in entry:
            mask = np.zeros(size, np.uint8)
            for key in entry[name]:
                contours = [np.array(contour, np.int32) for contour in entry[name][key] if len(contour) > 2]
                cv2.fillPoly(mask, contours, int(key))
            masks[name] = mask
    intersect, pred_area, label_area = np.zeros(19), np.zeros(19), np.zeros(19)
    for name, path in zip(sorted(masks), sorted((truth / "seg").glob("*.png")), strict=False):
        label, pred = cv2.imread(str(path), cv2.IMREAD_UNCHANGED), masks[name]
        for index in range(19):
            intersect[index] += ((pred == index) & (label == index)).sum()
            pred_area[index] += ((pred == index) & (label != 255)).sum()
            label_area[index] += (label == index).sum()
    union = pred_area + label_area - intersect
    return np.mean([i / u if u else 0.0 for i, u in zip(intersect, union, strict=True)])


def test_a_perfect_submission_scores_one_in_every_convention(root, perfect):
    result = score(perfect, root.truth)
    for convention in (OFFICIAL, STRICT):
        assert result[convention] == {"miou": 1.0, "top1": 1.0, "ap50": 1.0, "score": 1.0}
    assert [note.split(";")[0] for note in result["notes"]] == ["seg: the official tool paints 1280x720 only"]


def test_both_forms_score_the_same(root):
    listed = score(write_perfect(root, root.out), root.truth)
    as_dict = score(write_perfect(root, root.out, form="dict"), root.truth)
    assert listed[OFFICIAL] == as_dict[OFFICIAL]
    assert any("crashes" in note for note in as_dict["notes"])


def test_an_absent_class_costs_even_a_perfect_submission_in_the_official_convention(root):
    """PaddleSeg 2.7.0 counts a class with an empty union as 0 and divides by all 19."""
    for path in (root.truth / "seg").glob("*.png"):
        label_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        label_map[(label_map == 16) | (label_map == 17)] = 3
        cv2.imwrite(str(path), label_map)
    result = score(write_perfect(root, root.out), root.truth)
    assert result[OFFICIAL]["miou"] == pytest.approx(17 / 19, abs=1e-12)
    assert result[STRICT]["miou"] == 1.0
    assert result[OFFICIAL]["score"] == round((17 / 19 + 2) / 3, 4)


def test_random_polygons_score_as_the_official_tool_counts(root, edit):
    rng = np.random.default_rng(1)

    def change(content):
        for entry in content["seg"]:
            for polygons in entry.values():
                for key in polygons:
                    contours = rng.integers(0, min(SIZE), (2, 5, 2)).tolist()
                    polygons[key] = [*contours, [[3, 3], [4, 4]]] if rng.random() < 0.8 else []

    file = edit(change)
    result = score(file, root.truth)
    expected = _official_miou(json.loads(file.read_text()), root.truth, SIZE)
    assert 0.001 < expected < 0.9
    assert result[OFFICIAL]["miou"] == pytest.approx(expected, abs=1e-15)


def test_missing_images_cost_nothing_officially_and_count_as_wrong_strictly(root, edit):
    result = score(edit(lambda c: c.update(cls=c["cls"][:3], seg=c["seg"][:2])), root.truth)
    assert result[OFFICIAL]["top1"] == 1.0
    assert result[STRICT]["top1"] == 0.75
    assert result[OFFICIAL]["miou"] == 1.0
    assert 0.6 < result[STRICT]["miou"] < 0.7  # each class has about a third of its pixels in the missing image
    assert any("2 images for 3 label maps" in note for note in result["notes"])


def test_a_missing_image_in_the_middle_shifts_the_official_pairs(root):
    for index, path in enumerate(sorted((root.truth / "seg").glob("*.png"))):
        cv2.imwrite(str(path), np.full(SIZE, index, np.uint8))
    write_perfect(root, root.out)
    content = json.loads(root.out.read_text())
    content["seg"].pop(0)  # b and c are then compared with a and b
    root.out.write_text(json.dumps(content))
    result = score(root.out, root.truth)
    assert result[OFFICIAL]["miou"] == 0.0
    assert result[STRICT]["miou"] == pytest.approx(2 / 3)


def test_duplicate_rows_count_twice_officially_and_once_strictly(root, edit):
    result = score(edit(lambda c: c["cls"].append({"0.jpg": 5})), root.truth)
    assert result[OFFICIAL]["top1"] == 4 / 5
    assert result[STRICT]["top1"] == 1.0

    def repeat_another(content):
        content["seg"].append({"a.png": {key: [] for key in content["seg"][0]["a.png"]}})

    result = score(edit(repeat_another), root.truth)
    assert result[OFFICIAL]["miou"] < 0.8
    assert result[STRICT]["miou"] == 1.0
    assert any("keeps the last entry" in note for note in result["notes"])


def test_what_crashes_the_official_tool_is_noted_and_counted_without_it(root, edit):
    def change(content):
        content["cls"].append({"unknown.jpg": 1})
        content["dec"].append({"image_id": 99, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1.0})

    result = score(edit(change), root.truth)
    assert result[OFFICIAL]["ap50"] == 1.0
    assert any("cls: names" in note and "unknown.jpg" in note for note in result["notes"])
    assert any("dec: image_ids" in note and "99" in note for note in result["notes"])


def test_an_empty_submission_scores_nothing_and_says_why(root, edit):
    result = score(edit(lambda c: c.update(seg=[], cls=[], dec=[])), root.truth)
    for convention in (OFFICIAL, STRICT):
        assert result[convention] == {"miou": 0.0, "top1": 0.0, "ap50": 0.0, "score": 0.0}
    assert sum("crashes" in note or "divides by zero" in note for note in result["notes"]) == 2


def test_ap50_equals_pycocotools_on_the_same_files(root, edit, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(4)

    def change(content):
        for row in list(content["dec"]):
            for _ in range(3):
                near = [v + d for v, d in zip(row["bbox"], rng.normal(0, 1.5, 4).tolist(), strict=True)]
                content["dec"].append({**row, "bbox": near, "score": round(float(rng.random()), 2)})
            row["score"] = 0.3
        content["dec"].append({"image_id": 2, "category_id": 8, "bbox": [1, 1, 9, 9], "score": 0.95})

    file = edit(change)
    truth = coco.COCO(str(root.truth / "dec.json"))
    evaluation = evaluator.COCOeval(truth, truth.loadRes(json.loads(file.read_text())["dec"]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    assert 0.1 < evaluation.stats[1] < 1
    assert score(file, root.truth)[OFFICIAL]["ap50"] == pytest.approx(evaluation.stats[1], abs=1e-15)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["dec"].append({"image_id": 1}), r"dec\[4\] cannot be scored .a row needs"),
        (lambda c: c["seg"].append({"a.png": {"x": [[[1, 1], [2, 2], [3, 3]]]}}), r"seg\[3\] cannot be scored"),
        (lambda c: c["cls"].append(7), r"cls\[4\] cannot be scored"),
    ],
)
def test_a_malformed_entry_is_named(root, edit, change, message):
    with pytest.raises(ValueError, match=message):
        score(edit(lambda c: change(c) and None), root.truth)


def test_missing_ground_truth_is_named(perfect, tmp_path):
    with pytest.raises(ValueError, match="holds no label maps"):
        score(perfect, tmp_path)
