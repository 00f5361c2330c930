"""Demo data: the same bytes for a seed, exact labels, the challenge's tree, and no directory harmed."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo_data import (
    DemoRequest,
    make_dataset,
    render_signs,
    render_street,
    render_vehicle,
    sign_names,
    vehicle_classes,
)
from demo_data import dataset as dataset_module
from demo_data.captions import describe
from demo_data.draw import Canvas
from demo_data.objects import OBJECT_CLASSES, SeenObject, seen_objects
from demo_data.request import MARKER, UNFINISHED
from demo_data.signs import SIGN_NAMES, sign_face
from demo_data.weather import draw_conditions
from ppmtl.data.readers.coco_captions import COCOCaptions
from ppmtl.data.readers.coco_instances import COCOInstances
from ppmtl.ops.masks import Rle, draw_mask, unpacked
from ppmtl.structures import ClassList

ROOT = Path(__file__).resolve().parents[2]
TINY = DemoRequest(
    size=(64, 112),
    det_size=(96, 96),
    cls_size=(32, 48),
    seg_images=(24, 6, 3),
    det_images=(24, 6, 3),
    cls_images=(12, 6, 3),
    sign_classes=3,
    vehicle_classes=4,
)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "data"
    make_dataset(out, TINY)
    return out


def test_two_workers_write_the_same_bytes_as_one(made, tmp_path):
    make_dataset(tmp_path / "data", TINY, workers=2)
    first, second = digests(made), digests(tmp_path / "data")
    assert len(first) > 120
    assert first == second


def test_another_seed_draws_other_pictures():
    assert (render_street(rng(1), (64, 112))[0] != render_street(rng(2), (64, 112))[0]).any()


def test_the_tree_and_the_lists_are_the_challenges(made):
    train, test = made / "track1_train_data", made / "track1_test_data"
    for split, count in (("train", 24), ("val", 6)):
        pictures = sorted(path.stem for path in (train / "seg/images" / split).glob("*.jpg"))
        assert pictures == sorted(path.stem for path in (train / "seg/label" / split).glob("*.png"))
        assert len(pictures) == count
        lines = [line.split() for line in (train / f"cls/{split}.txt").read_text().splitlines()]
        assert {name for name, _ in lines} == {path.name for path in (train / "cls" / split).iterdir()}
        assert {int(label) for _, label in lines} == set(range(TINY.vehicle_classes))
        coco = json.loads((train / f"dec/{split}.json").read_text())
        assert {image["file_name"] for image in coco["images"]} == {p.name for p in (train / "dec" / split).iterdir()}
        assert [category["id"] for category in coco["categories"]] == [1, 2, 3]
        assert {row["category_id"] for row in coco["annotations"]} == {1, 2, 3}
    listed = (test / "dec/test.txt").read_text().split()
    truth = json.loads((test / "ground_truth/dec.json").read_text())
    # A submission's image_id is the 1-based line number in test.txt
    assert {image["id"]: image["file_name"] for image in truth["images"]} == dict(enumerate(listed, 1))
    assert json.loads((test / "dec/val.json").read_text())["annotations"] == []
    assert len((test / "ground_truth/cls.txt").read_text().splitlines()) == 3
    assert len(list((test / "ground_truth/seg").glob("*.png"))) == len(list((test / "seg/images/test").glob("*.jpg")))
    assert len((train / "cls/classes.txt").read_text().splitlines()) == TINY.vehicle_classes
    assert len((train / "seg/classes.txt").read_text().splitlines()) == 19


def test_label_maps_hold_only_ids_and_255_and_all_classes_occur(made):
    seen = np.zeros(256, np.int64)
    paths = list((made / "track1_train_data/seg/label/train").glob("*.png"))
    for path in paths:
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert label.shape == TINY.size
        seen += np.bincount(label.ravel(), minlength=256)
    assert (seen[:19] > 20 * len(paths) / 24).all(), seen[:19]
    assert seen[19:255].sum() == 0
    assert 0 < seen[255] < 0.1 * seen.sum()


def test_rare_classes_are_in_at_least_a_quarter_of_the_street_scenes():
    present = np.zeros(19)
    for index in range(60):
        _, label, *_ = render_street(rng(7, index), (64, 112))
        present += np.bincount(label.ravel(), minlength=256)[:19] >= 6
    assert (present / 60 >= 0.25).all(), present / 60


def test_the_borders_of_the_label_map_lie_on_edges_of_the_picture():
    on, beside = [], []
    for index in range(12):
        image, label, *_ = render_street(rng(3, index), (96, 160))
        strength = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(axis=2)
        border = cv2.morphologyEx(label, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        on.append(strength[border].mean())
        beside.extend(strength[np.roll(border, shift, axis=(0, 1))].mean() for shift in ((3, 3), (-3, 3)))
    assert np.mean(on) > 1.3 * np.mean(beside)


def test_boxes_lie_inside_their_picture_and_some_pictures_have_none():
    count = empty = 0
    for index in range(30):
        image, boxes, labels = render_signs(rng(5, index), (128, 128), 45)
        assert boxes.dtype == np.float32
        assert labels.dtype == np.int64
        assert len(boxes) == len(labels) <= 6
        assert image.shape == (128, 128, 3)
        empty += not len(boxes)
        count += len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= 128).all()
        assert (boxes[:, 2:] - boxes[:, :2] > 2).all()
        assert (labels < 45).all()
    assert count > 40
    assert empty > 0


def test_a_box_is_tight_around_the_pixels_that_the_sign_changed(monkeypatch):
    """Records what each sign sprite changed on the canvas and compares with the boxes that come out."""
    changed: list[np.ndarray] = []
    plain = Canvas.sprite

    def recording(self, rgba, quad, label=None):
        before = self.image.copy()
        plain(self, rgba, quad, label)
        rows, columns = np.nonzero((self.image != before).any(axis=2))
        # Doubled pixels to final ones; a pixel covers [i, i + 1)
        changed.append(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2)

    monkeypatch.setattr(Canvas, "sprite", recording)
    boxes = np.concatenate([render_signs(rng(11, index), (320, 320), 20)[1] for index in range(8)])
    assert len(boxes) >= 8
    np.testing.assert_allclose(boxes, np.array(changed), atol=1.5)


def test_every_sign_has_its_own_face():
    faces = [
        cv2.resize(sign_face(name).sprite, (40, 40), interpolation=cv2.INTER_AREA).astype(float) for name in SIGN_NAMES
    ]
    closest = min(np.abs(a - b).mean() for i, a in enumerate(faces) for b in faces[:i])
    assert len(faces) == 45
    assert closest > 1.5


def test_fewer_signs_are_spread_over_the_families():
    names = sign_names(10)
    assert len(names) == 10
    assert list(names) == sorted(names, key=SIGN_NAMES.index)
    assert {"pl", "il", "w", "pn", "pg", "ip", "p1"} <= {name[:n] for name in names for n in (1, 2)}
    assert sign_names(45) == SIGN_NAMES


@pytest.mark.parametrize("count", [1, 9, 20, 100, 196])
def test_no_two_vehicle_classes_have_the_same_shape(count):
    names = [vehicle.name for vehicle in vehicle_classes(count)]
    assert len(set(names)) == count


def test_a_vehicle_picture_has_the_size_asked_for_and_depends_on_the_class():
    pictures = [render_vehicle(rng(1), index, 20, (60, 90)) for index in range(20)]
    assert all(picture.shape == (60, 90, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 20


def test_the_same_request_again_is_a_no_op_and_another_one_is_refused(made):
    before = digests(made)
    assert make_dataset(made, TINY).already_there
    other = DemoRequest(**{**TINY.__dict__, "seed": 1})
    with pytest.raises(ValueError, match=r"seed: 0 there, 1 asked.*--overwrite"):
        make_dataset(made, other)
    assert digests(made) == before


def test_overwrite_replaces_demo_data_but_keeps_the_users_files(tmp_path):
    small = DemoRequest(**{**TINY.__dict__, **dict.fromkeys(("seg_images", "det_images", "cls_images"), (2, 1, 1))})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty \(notes.txt\)"):
        make_dataset(tmp_path, small)
    make_dataset(tmp_path, small, overwrite=True)
    make_dataset(tmp_path, DemoRequest(**{**small.__dict__, "seed": 5}), overwrite=True)
    assert json.loads((tmp_path / MARKER).read_text())["request"]["seed"] == 5
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_real_challenge_data_is_never_deleted(tmp_path):
    picture = tmp_path / "track1_train_data/cls/train/00001.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"real")
    with pytest.raises(ValueError, match="did not make and never deletes"):
        make_dataset(tmp_path, TINY, overwrite=True)
    assert picture.read_bytes() == b"real"


def test_an_interrupted_run_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    small = DemoRequest(**{**TINY.__dict__, **dict.fromkeys(("seg_images", "det_images", "cls_images"), (2, 1, 1))})

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "data", small, progress=interrupt)
    assert not (tmp_path / "data" / MARKER).exists()
    assert (tmp_path / "data" / UNFINISHED).exists()
    assert not make_dataset(tmp_path / "data", small).already_there
    assert not (tmp_path / "data" / UNFINISHED).exists()
    monkeypatch.setattr(dataset_module, "_draw", None)  # a no-op draws nothing
    assert make_dataset(tmp_path / "data", small).already_there


def test_all_wrong_values_are_named_in_one_message():
    with pytest.raises(ValueError, match=r"seed.*det_size.*cls_images.*sign_classes must be in 1..45, got 46.*196"):
        DemoRequest(seed=-1, det_size=(8, 8), cls_images=(1, 0, 1), sign_classes=46, vehicle_classes=0)


def test_the_tool_runs_from_anywhere_and_answers_bad_values_with_exit_code_2(tmp_path):
    tool = [sys.executable, str(ROOT / "tools/make_demo_data.py"), "--out", "d", "--workers", "1"]
    sizes = ["--size", "32", "48", "--det_size", "64", "64", "--cls_size", "32", "32"]
    few = ["--train", "2", "--val", "1", "--test", "1", "--sign_classes", "2", "--vehicle_classes", "2"]
    bad = subprocess.run([*tool, "--sign_classes", "99"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "sign_classes must be in 1..45, got 99" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not (tmp_path / "d").exists()
    good = subprocess.run([*tool, *sizes, *few], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert "seg: 2 train, 1 val, 1 test images" in good.stdout
    assert (tmp_path / "d/preview.png").stat().st_size > 1000


def pixels_of(thing: SeenObject, size: tuple[int, int]) -> np.ndarray:
    shape = thing.segmentation
    if isinstance(shape, dict):
        return draw_mask(Rle(size, unpacked(shape["counts"])), size) > 0
    return draw_mask(tuple(np.array(ring).reshape(-1, 2) for ring in shape), size) > 0


def test_the_masks_of_a_scene_cover_its_classes_and_never_each_other():
    size, ids = (128, 224), [11, 12, 18, 17, 13, 14, 15, 16, 6, 7]  # of the label map: person, rider, bicycle, ...
    with_holes, apart = 0, []
    for index in range(10):
        scene = render_street(rng(4, index), size)
        count, overlap = np.zeros(size, int), []
        for thing in scene.objects:
            mask = pixels_of(thing, size)
            with_holes += isinstance(thing.segmentation, dict)
            count += mask
            x, y, wide, tall = thing.box
            rows, columns = np.nonzero(mask)
            hull = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            apart.append(np.abs(np.array(hull) - [x, y, x + wide, y + tall]))
            overlap.append((np.isin(scene.label_map, ids) & mask).sum() / mask.sum())
        assert (count > 1).sum() < 0.02 * max((count > 0).sum(), 1)  # outlines are simplified by a quarter of a pixel
        assert np.mean(overlap) > 0.93
        labelled = np.isin(scene.label_map, ids)
        assert (labelled & (count > 0)).sum() > 0.85 * labelled.sum()  # the rest is too little of an object to be one
    assert np.mean(apart) < 0.5  # a thin mast may miss the pixels' centres
    assert with_holes


def test_a_thing_behind_another_one_keeps_only_what_is_seen_and_a_hole_stays_one():
    canvas = Canvas((40, 40), rng(0))
    canvas.begin(13, (200, 30, 30))
    canvas.poly([(4, 4), (36, 4), (36, 36), (4, 36)], (200, 30, 30), 13)
    canvas.begin(11, (30, 30, 200))
    canvas.poly([(10, 10), (20, 10), (20, 20), (10, 20)], (30, 30, 200), 11)
    canvas.current = 0
    canvas.poly([(30, 0), (40, 0), (40, 40), (30, 40)], (90, 90, 90), 5)  # a post: scenery
    car, person = seen_objects(canvas)
    assert [OBJECT_CLASSES[thing.index] for thing in (car, person)] == ["car", "person"]
    assert isinstance(car.segmentation, dict)
    assert car.area == pytest.approx(26 * 32 - 100, rel=0.06)
    assert (pixels_of(car, (40, 40)) & pixels_of(person, (40, 40))).sum() == 0
    assert pixels_of(person, (40, 40)).sum() == pytest.approx(100, abs=21)
    assert car.box[2] == pytest.approx(26, abs=1)


def test_the_outline_of_a_thin_line_has_three_points_or_more():
    canvas = Canvas((40, 40), rng(0))
    canvas.begin(13, (0, 0, 0))
    canvas.line([(4, 20), (36, 20.3)], (0, 0, 0), 1, 13)
    (ring,) = seen_objects(canvas)[0].segmentation
    assert len(ring) >= 6


def test_the_files_of_objects_and_sentences_are_read_as_they_were_drawn(made):
    root = made / "track1_train_data/seg"
    classes = ClassList(OBJECT_CLASSES, tuple(range(1, len(OBJECT_CLASSES) + 1)))
    images = {"images": "images/train"}
    objects = COCOInstances(root, {"ins": classes}, **images, annotations="instances_train.json")
    sentences = COCOCaptions(root, {"cap": classes}, **images, annotations="captions_train.json")
    assert len(objects) == len(sentences) == 24
    labels = [objects[index].labels["ins"] for index in range(24)]
    assert sum(len(label.boxes) for label in labels) > 60
    assert all(mask is not None for label in labels for mask in label.masks)
    texts = [sentences[index].labels["cap"].texts for index in range(24)]
    assert all(len(set(of_image)) == 5 for of_image in texts)
    assert (made / "track1_test_data/ground_truth/instances_test.json").is_file()


def test_sentences_say_number_kind_colour_place_and_weather():
    car = SeenObject(3, (200, 40, 40), [10.0, 50.0, 40.0, 30.0], 900.0, [])
    people = [SeenObject(0, (0, 0, 0), [x, 50.0, 10.0, 30.0], 250.0, []) for x in (170.0, 180.0)]
    night = replace(draw_conditions(rng(0)), light="night", falling="rain", haze=0.003)
    street = np.zeros((100, 200), np.uint8)
    texts = [text for seed in range(12) for text in describe(rng(seed), [car, *people], street, night)]
    together = " ".join(texts)
    for word in ("two people", "two pedestrians", "red car", "on the left", "on the right", "night", "rain", "dark"):
        assert word in together, word
    assert len(set(texts)) > 20
    assert "two cars" not in together
    assert describe(rng(3), [car], street, night) == describe(rng(3), [car], street, night)
    assert "car" not in " ".join(describe(rng(1), [], street, night)).replace("No cars", "")
