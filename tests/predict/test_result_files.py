"""Result files: what other tools read from them, and that they measure as the evaluation that wrote them."""

import contextlib
import csv
import functools
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO as COCOFile
from pycocotools.cocoeval import COCOeval
from samples import make_sample
from together import together

from ppmtl.data.label_maps import read_label_map
from ppmtl.data.labels import Captions as Sentences
from ppmtl.data.labels import Instances as Objects
from ppmtl.data.reader import Reader
from ppmtl.data.readers.coco import COCO
from ppmtl.data.readers.joined import Joined
from ppmtl.ops.boxes import Detections
from ppmtl.ops.masks import Rle
from ppmtl.predict.evaluate import EvalSet, EvaluationError, evaluate
from ppmtl.predict.files import predict_files
from ppmtl.predict.processes import Processes
from ppmtl.predict.result_files import ImageNames, ResultFiles, csv_rows, image_ids
from ppmtl.predict.stored import StoredPredictions, stored_tasks
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.captions import Caption, Captions
from ppmtl.tasks.classification import Classification, ClassProbs
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.instances import InstanceMasks, Instances
from ppmtl.tasks.segmentation import SegMap, Segmentation

SIZE = (24, 40)
COUNT = 7
CLASSES = ClassList(("a", "b", "c", "d", "e", "f"), (3, 5, 7, 9, 11, 13))
WORDS = ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", *"abcdef"))
TASKS = {
    "seg": Segmentation("seg", CLASSES),
    "cls": Classification("cls", CLASSES),
    "det": Detection("det", CLASSES),
    "ins": Instances("ins", CLASSES),
    "cap": Captions("cap", WORDS),
}


def boxes(rng, count):
    corners = rng.uniform(0, 14, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(4, 10, (count, 2))], axis=1).astype(np.float32)


def masks(rng, count):
    return tuple(Rle.of(rng.integers(0, 2, SIZE)) for _ in range(count))


def sentence(rng):
    return " ".join(rng.choice(list("abcdef"), 6))


class Images(Reader):
    """Images with labels of all kinds, made from their number."""

    def __init__(self, folder, count=COUNT):
        super().__init__(folder, dict.fromkeys(TASKS, CLASSES))
        self.count = count

    required_paths = None

    def __len__(self):
        return self.count

    def path(self, index):
        return str(self.root / f"{index}.jpg")

    def image_id(self, index, task):  # noqa: ARG002
        return 100 + index

    def labels(self, index, image):
        raise NotImplementedError

    def describe(self):
        return "made up"

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        truth = boxes(rng, 4)
        sample = make_sample(
            np.full((*SIZE, 3), index, np.uint8),
            label_map=rng.integers(0, 6, SIZE).astype(np.uint8),
            boxes=truth,
            classes=rng.integers(0, 6, 4),
            class_index=int(rng.integers(6)),
            path=self.path(index),
        )
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        more = {
            "ins": Objects(truth, rng.integers(0, 6, 4), *none, masks(rng, 4)),
            "cap": Sentences((sentence(rng), sentence(rng))),
        }
        return Sample(sample.path, sample.image, {**sample.labels, **more})


class Network:
    """A predictor in the place of a pipeline; it answers by the image's number, near the truth, with ties of scores."""

    def __init__(self, tasks, *_, **__):
        self.tasks, self.batch_size = tasks, 1

    def views(self, size):
        return [size]

    def predict(self, images, _):
        return [{name: self.answer(name, int(image[0, 0, 0])) for name in self.tasks} for image in images]

    def answer(self, name, number):
        rng, truth = np.random.default_rng(number + 1000), Images(Path("x"))[number].labels

        def near(label):
            return np.concatenate([label.boxes + rng.normal(0, 0.5, (4, 4)), boxes(rng, 5)]).astype(np.float32)

        scores = -np.sort(-rng.integers(1, 8, 9) / 8).astype(np.float32) * np.float32(0.999)
        if name == "seg":
            return SegMap(np.where(rng.random(SIZE) < 0.5, truth["seg"].labels, 2).astype(np.uint8))
        if name == "cls":
            probs = rng.random(6).astype(np.float32)
            return ClassProbs(np.zeros(6, np.float32) if number == 1 else probs / probs.sum())
        if name == "cap":
            return Caption(truth["cap"].texts[0][:7] + " e f", 0.25)
        classes = np.concatenate([truth[name].classes, rng.integers(0, 6, 5)])
        if name == "det":
            return Detections(near(truth["det"]), scores, classes)
        return InstanceMasks(near(truth["ins"]), scores, classes, (*truth["ins"].masks, *masks(rng, 4), None))


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    monkeypatch.setattr("ppmtl.predict.evaluate.Pipeline", Network)


def measured(folder, saved, processes=Processes(), threshold=0.5):  # noqa: B008
    results = ResultFiles(saved, TASKS, threshold=threshold, processes=processes)
    found = evaluate(TASKS, {"made": EvalSet(Images(folder), tuple(TASKS))}, None, results=results, processes=processes)
    results.write({"weights": "w", "limit": 30})
    return found


def again(folder, place, tasks=None):
    chosen = {name: TASKS[name] for name in tasks or TASKS}
    return evaluate(chosen, {"made": EvalSet(Images(folder), tuple(chosen))}, StoredPredictions(place, chosen))


def values(evaluation):
    return {f"{task}.{key}": value for task, of in evaluation.metrics.items() for key, value in of.values.items()}


def test_stored_predictions_measure_what_the_evaluation_that_wrote_them_measured(tmp_path):
    before = values(measured(tmp_path, tmp_path / "saved"))
    assert 0.1 < before["det.ap50_95"] < 0.9
    assert 0.1 < before["ins.mask_ap50_95"] < 0.99
    after = values(again(tmp_path, tmp_path / "saved"))
    # Box corners come back to the last digit of a float32, everything else exactly
    assert after == pytest.approx(before, abs=1e-6, nan_ok=True)
    assert {key: after[key] for key in after if key[:3] in ("seg", "cls", "cap")} == {
        key: before[key] for key in before if key[:3] in ("seg", "cls", "cap")
    }
    assert stored_tasks(tmp_path / "saved") == (list(TASKS), 30)


def test_one_file_measures_one_task(tmp_path):
    before = values(measured(tmp_path, tmp_path / "saved"))
    for name in ("det", "ins", "cap"):
        file = tmp_path / "saved" / f"{name}.json"
        assert stored_tasks(file) == ([name], 30)
        after = values(again(tmp_path, file, [name]))
        assert after == pytest.approx({key: before[key] for key in after}, abs=1e-6, nan_ok=True)
    with pytest.raises(ValueError, match="one file holds one task; say which: --tasks det"):
        StoredPredictions(file, {name: TASKS[name] for name in ("det", "cap")})


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_several_processes_write_the_files_of_one(tmp_path):
    measured(tmp_path, tmp_path / "alone")
    together(3, lambda processes: measured(tmp_path, tmp_path / "shared", processes))
    assert len(files(tmp_path / "alone")) == 1 + COUNT + 1 + 3 * 3
    assert files(tmp_path / "shared") == files(tmp_path / "alone")


def test_what_an_earlier_run_left_is_replaced(tmp_path):
    (tmp_path / "saved" / "seg").mkdir(parents=True)
    (tmp_path / "saved" / "seg" / "old.png").write_bytes(b"")
    measured(tmp_path, tmp_path / "saved")
    assert not (tmp_path / "saved" / "seg" / "old.png").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"saved"}


def quiet(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def test_pycocotools_loads_the_results_and_measures_what_we_do(tmp_path):
    evaluation, saved = measured(tmp_path, tmp_path / "saved"), tmp_path / "saved"
    truth, reader = COCOFile(), Images(tmp_path)
    labels = [reader[index].labels["det"] for index in range(COUNT)]
    rows = [
        {"image_id": 100 + image, "category_id": CLASSES.ids[c], "bbox": [x1, y1, x2 - x1, y2 - y1],
         "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        for image, label in enumerate(labels) for (x1, y1, x2, y2), c in zip(label.boxes.tolist(), label.classes, strict=True)
    ]  # fmt: skip
    truth.dataset = {
        "images": [{"id": 100 + index} for index in range(COUNT)],
        "categories": [{"id": i, "name": n} for i, n in zip(CLASSES.ids, CLASSES.names, strict=True)],
        "annotations": [{"id": n, **row} for n, row in enumerate(rows, 1)],
    }
    quiet(truth.createIndex)
    scored = COCOeval(truth, quiet(truth.loadRes, str(saved / "det.json")), "bbox")
    for step in (scored.evaluate, scored.accumulate, scored.summarize):
        quiet(step)
    found = evaluation.metrics["det"].values
    assert scored.stats[:2].tolist() == pytest.approx([found["ap50_95"], found["ap50"]], abs=1e-6)


@pytest.mark.parametrize("name", ["det", "ins", "cap"])
def test_the_whole_file_names_images_and_categories_and_has_what_people_are_shown(tmp_path, name):
    measured(tmp_path, tmp_path / "saved", threshold=0.5)
    whole = quiet(COCOFile, str(tmp_path / "saved" / f"{name}_coco.json"))
    assert whole.dataset["info"]["score_threshold"] == 0.5
    assert whole.imgs[103] == {"id": 103, "file_name": "3.jpg", "height": SIZE[0], "width": SIZE[1]}
    results = json.loads((tmp_path / "saved" / f"{name}.json").read_text())
    wanted = [row for row in results if row.get("score", 1) >= 0.5]
    assert 0 < len(wanted) <= len(results)
    shown = [
        {key: row[key] for key in row if key not in ("id", "area", "iscrowd")} for row in whole.dataset["annotations"]
    ]
    assert shown == wanted
    quiet(whole.loadRes, str(tmp_path / "saved" / f"{name}.json"))
    if name != "cap":
        assert {row["id"]: row["name"] for row in whole.dataset["categories"]}[7] == "c"
    if name == "ins":
        assert whole.annToMask(whole.dataset["annotations"][0]).shape == SIZE
    info = json.loads((tmp_path / "saved" / "info.json").read_text())
    assert set(info["score_threshold"].values()) == {0.0, 0.5}
    assert info["weights"] == "w"


def test_label_maps_have_a_palette_and_hold_class_numbers(tmp_path):
    measured(tmp_path, tmp_path / "saved")
    file, wanted = tmp_path / "saved" / "seg" / "2.png", Network(TASKS).answer("seg", 2).labels
    with Image.open(file) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), wanted)
    assert np.array_equal(read_label_map(file), wanted)
    red_green_blue = cv2.imread(str(file))[..., ::-1]
    assert red_green_blue[0, 0].tolist() == list(TASKS["seg"].legend()[CLASSES.names[wanted[0, 0]]])


def table(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_csv_has_a_row_per_class_box_or_sentence(tmp_path):
    measured(tmp_path, tmp_path / "saved")
    rows = table(tmp_path / "saved" / "cls.csv")
    assert len(rows) == COUNT * 5
    assert rows[0].keys() == {"file_name", "class", "class_index", "score"}
    best = Network(TASKS).answer("cls", 0).probs.argmax()
    assert (rows[0]["file_name"], rows[0]["class"]) == ("0.jpg", CLASSES.names[best])
    rows = table(tmp_path / "saved" / "det.csv")
    assert {"x1", "y1", "x2", "y2", "category_id", "score"} < rows[0].keys()
    assert min(float(row["score"]) for row in rows) >= 0.5
    assert table(tmp_path / "saved" / "cap.csv")[3]["caption"] == Network(TASKS).answer("cap", 3).text


def test_the_order_of_classes_survives_the_rounding_of_their_scores():
    probs = np.array([0, 1e-7, 2e-7, 3e-7, 0.4, 0.6], np.float32)
    rows = list(csv_rows(TASKS["cls"].to_json(ClassProbs(probs))))
    assert [row["score"] for row in rows] == [0.6, 0.4, 0, 0, 0]
    found = TASKS["cls"].from_results(rows, SIZE).probs
    assert np.argsort(-found, kind="stable").tolist()[:5] == [5, 4, 3, 2, 1]


def test_images_of_a_tree_keep_their_folders_and_equal_names_stay_apart():
    names = ImageNames(["a/x/1.jpg", "a/y/1.jpg", "a/x/2.bmp", "a/x/2.jpg"])
    assert list(names.file.values()) == ["x/1.jpg", "y/1.jpg", "x/2.bmp", "x/2.jpg"]
    assert list(names.png.values()) == ["x/1.png", "y/1.png", "x/2.bmp.png", "x/2.jpg.png"]
    assert ImageNames(["a/b/1.jpg"]).file == {"a/b/1.jpg": "1.jpg"}


def test_image_ids_are_the_numbers_that_all_files_are_called():
    assert image_ids([Path("000000000139.jpg"), Path("7.jpg")]) == [139, 7]
    assert image_ids([Path("000000000139.jpg"), Path("x7.jpg")]) == [1, 2]
    assert image_ids([Path("a/7.jpg"), Path("b/07.jpg")]) == [1, 2]


def test_readers_of_coco_files_give_the_files_ids_and_joined_those_of_the_tasks_reader(tmp_path):
    for name, chosen in (("one", {40: "a.png", 41: "b.png"}), ("two", {7: "b.png"})):
        for file in chosen.values():
            cv2.imwrite(str(tmp_path / file), np.zeros((8, 8, 3), np.uint8))
        content = {
            "images": [{"id": number, "file_name": file, "height": 8, "width": 8} for number, file in chosen.items()],
            "annotations": [],
            "categories": [{"id": i, "name": n} for i, n in zip(CLASSES.ids, CLASSES.names, strict=True)],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    readers = {name: functools.partial(COCO, images=".", annotations=f"{name}.json") for name in ("one", "two")}
    alone = readers["one"](tmp_path, {"one": CLASSES})
    assert [alone.image_id(index, "one") for index in range(2)] == [40, 41]
    both = Joined(tmp_path, {"one": CLASSES, "two": CLASSES}, readers=readers, images="all")
    found = {Path(both.path(i)).name: [both.image_id(i, task) for task in ("one", "two")] for i in range(len(both))}
    assert found == {"a.png": [40, None], "b.png": [41, 7]}


def store(place, name, content):
    place.mkdir(exist_ok=True)
    (place / name).write_text(content if isinstance(content, str) else json.dumps(content))


GOOD = {"image_id": 100, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize("task, content, message", [
    ("det", [GOOD | {"image_id": 7}], "1 of its 1 images are not in the data set .made up., the first is 7"),
    ("det", [GOOD | {"category_id": 4}], "category_id 4 is no class; allowed are"),
    ("det", [GOOD | {"bbox": [1, 2, -3, 4]}], "bbox is .x, y, width, height."),
    ("det", [GOOD | {"score": float("nan")}], "score a number, all finite"),
    ("det", [{"image_id": 100, "category_id": 3, "bbox": [1, 2, 3, 4]}], "lacks 'score'"),
    ("det", {"images": []}, "needs a list of rows, each with 'image_id'"),
    ("det", {"images": [], "annotations": []}, "this is a COCO data set, its results are "),
    ("det", '[{"image_id": 1', "is no JSON file"),
    ("ins", [GOOD | {"segmentation": {"size": [1, 1], "counts": "1"}}], "the image has .24, 40."),
    ("cap", [{"image_id": 100, "caption": "a"}], r"1\.jpg.*needs one row with a text 'caption', got \[\]"),
    ("cls", "file_name,class_index,score\n0.jpg,6,1\n", "different classes from 0 to 5"),
])  # fmt: skip
def test_wrong_files_are_named_with_what_is_wrong(tmp_path, task, content, message):
    store(tmp_path / "saved", f"{task}.{'csv' if task == 'cls' else 'json'}", content)
    with pytest.raises((EvaluationError, ValueError), match=message) as caught:
        again(tmp_path, tmp_path / "saved", [task])
    assert f"{task}." in str(caught.value)


def test_a_label_map_of_another_size_or_with_other_classes_is_refused(tmp_path):
    (tmp_path / "saved" / "seg").mkdir(parents=True)
    for shape, value, message in (((8, 8), 0, "label map is .8, 8."), (SIZE, 6, "holds class 6, there are 6")):
        cv2.imwrite(str(tmp_path / "saved" / "seg" / "0.png"), np.full(shape, value, np.uint8))
        with pytest.raises(EvaluationError, match=message):
            again(tmp_path, tmp_path / "saved", ["seg"])


def test_a_task_without_a_file_is_said_with_what_is_there(tmp_path):
    store(tmp_path / "saved", "det.json", [])
    assert stored_tasks(tmp_path / "saved") == (None, None)
    with pytest.raises(ValueError, match=r"ins\.json not found .* has det\.json.; --tasks leaves tasks out"):
        StoredPredictions(tmp_path / "saved", {name: TASKS[name] for name in ("det", "ins")})
    with pytest.raises(ValueError, match="no such file or folder"):
        StoredPredictions(tmp_path / "svaed", TASKS)


def test_a_folder_of_images_gets_result_files_that_say_their_threshold(tmp_path):
    (tmp_path / "in").mkdir()
    for number in (5, 12):
        cv2.imwrite(str(tmp_path / "in" / f"{number:04d}.png"), np.full((*SIZE, 3), number % 7, np.uint8))
    paths = sorted((tmp_path / "in").iterdir())
    pipeline = Network(TASKS)
    pipeline.batch_size = 2
    assert predict_files(paths, pipeline, tmp_path / "out", threshold=0.6) == 0
    saved = tmp_path / "out" / "predictions"
    rows = json.loads((saved / "det.json").read_text())
    assert {row["image_id"] for row in rows} == {5, 12}
    assert min(row["score"] for row in rows) >= 0.6
    assert set(json.loads((saved / "info.json").read_text())["score_threshold"].values()) == {0.6}
    document = json.loads((tmp_path / "out" / "0005.json").read_text())
    assert document["threshold"] == 0.6
    scores = [row["score"] for row in rows if row["image_id"] == 5]
    assert [box["score"] for box in document["det"]["boxes"]] == pytest.approx(scores, abs=1e-5)
    with Image.open(tmp_path / "out" / "0005_seg.png") as image:
        assert image.mode == "P"
    assert {row["file_name"] for row in table(saved / "cls.csv")} == {"0005.png", "0012.png"}
