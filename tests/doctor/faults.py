"""Faults of every kind that a data set can have, each put into a copy by one function that returns the file it spoiled."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

# What makes another reader of the training source of detection, which reads the same folder and file
INSTANCES = ("sources.det.dataset.type=coco_instances", "sources.det.dataset.images=det/train",
             "sources.det.dataset.annotations=det/annotations/train.json")  # fmt: skip
# A caption task over the images of detection, with a file per split and the training file's words as vocabulary
CAPTIONS = (
    "tasks.cap={type: captions, classes: {captions: [cap_train.json]}}",
    "model.heads.cap={type: captions}",
    "sources.cap={batch_size: 2, dataset: {type: coco_captions, images: det/train, annotations: cap_train.json}}",
    "eval.datasets.cap={type: coco_captions, images: det/val, annotations: cap_val.json}",
)  # fmt: skip
# Segmentation and detection over the images of detection, of which not all have label maps
JOINED = "sources.det={tasks: [seg, det], dataset: {type: joined, images: IMAGES, readers: {seg: {type: label_png, \
images: det/train, labels: det/maps, missing_labels: skip}, det: {type: coco, images: det/train, annotations: \
det/annotations/train.json}}}}"
TRAIN_LIST, TRAIN_JSON = "cls/train_body.txt", "det/annotations/train.json"


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, what puts it in and returns what the finding must name, and the overrides that go with it."""

    kind: str
    put: Callable[[Path], str]
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.put.__name__}"


FAULTS: list[Fault] = []


def fault(kind: str, *overrides: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    def note(put: Callable[[Path], str]) -> Callable[[Path], str]:
        FAULTS.append(Fault(kind, put, overrides))
        return put

    return note


def image(root: Path, task: str = "cls", split: str = "train", number: int = 0) -> Path:
    folder = root / ("seg/images" if task == "seg" else task) / split
    return sorted(path for path in folder.iterdir() if path.suffix == ".jpg")[number]


def label_of(path: Path) -> Path:
    return Path(str(path).replace("seg/images", "seg/labels")).with_suffix(".png")


def relative(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def rewrite(root: Path, path: Path, array: np.ndarray, form: str, mode: str | None = None, **options: Any) -> str:
    out = io.BytesIO()
    made = Image.fromarray(array)
    (made.convert(mode) if mode else made).save(out, form, **options)
    path.write_bytes(out.getvalue())
    return relative(root, path)


def change_json(root: Path, change: Callable[[dict[str, Any]], str], file: str = TRAIN_JSON) -> str:
    content = json.loads((root / file).read_text())
    named = change(content)
    (root / file).write_text(json.dumps(content))
    return named


def change_lines(root: Path, change: Callable[[list[str]], str]) -> str:
    lines = (root / TRAIN_LIST).read_text().splitlines()
    named = change(lines)
    (root / TRAIN_LIST).write_text("\n".join(lines))
    return named


# ---- files ----------------------------------------------------------------------------------------------------------


@fault("missing_path")
def json_removed(root: Path) -> str:
    (root / TRAIN_JSON.replace("train", "val")).unlink()
    return "det/annotations/val.json"


@fault("empty_file")
def image_emptied(root: Path) -> str:
    image(root).write_bytes(b"")
    return relative(root, image(root))


@fault("truncated_image")
def jpeg_cut(root: Path) -> str:
    path = image(root)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return relative(root, path)


@fault("broken_image")
def text_in_place_of_an_image(root: Path) -> str:
    image(root, "det").write_text("<html>404 not found</html>")
    return relative(root, image(root, "det"))


@fault("broken_image")
def png_with_a_flipped_bit(root: Path) -> str:
    path = image(root, "seg")
    rewrite(root, path, pixels(path), "PNG")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return relative(root, path)


@fault("unreadable_file")
def folder_in_place_of_an_image(root: Path) -> str:
    path = image(root, "seg")
    path.unlink()
    path.mkdir()
    return relative(root, path)


@fault("wrong_extension")
def png_called_jpg(root: Path) -> str:
    return rewrite(root, image(root), pixels(image(root)), "PNG")


@fault("exif_rotated")
def exif_upside_down(root: Path) -> str:
    exif = Image.Exif()
    exif[274] = 3
    return rewrite(root, image(root), pixels(image(root)), "JPEG", exif=exif)


@fault("grey_image")
def grey_jpeg(root: Path) -> str:
    return rewrite(root, image(root), pixels(image(root)), "JPEG", "L")


@fault("alpha_image")
def png_with_alpha(root: Path) -> str:
    return rewrite(root, image(root), pixels(image(root)), "PNG", "RGBA")


@fault("deep_image")
def png_with_16_bits(root: Path) -> str:
    path = image(root)
    path.write_bytes(cv2.imencode(".png", pixels(path).astype(np.uint16) * 256)[1].tobytes())
    return relative(root, path)


@fault("cmyk_image")
def cmyk_jpeg(root: Path) -> str:
    return rewrite(root, image(root), pixels(image(root)), "JPEG", "CMYK")


@fault("unlisted_image")
def image_that_no_list_names(root: Path) -> str:
    path = image(root).with_name("unlisted.jpg")
    rewrite(root, path, pixels(image(root))[::-1], "JPEG")
    return relative(root, path)


# ---- label maps -----------------------------------------------------------------------------------------------------


@fault("missing_label")
def label_removed(root: Path) -> str:
    label_of(image(root, "seg")).unlink()
    return relative(root, image(root, "seg"))


@fault("image_left_out", "sources.seg.dataset.missing_labels=skip")
def label_of_an_image_that_may_lack_it_removed(root: Path) -> str:
    return label_removed(root)


def _maps_of_some(root: Path) -> str:
    """Label maps for the first half of detection's images; returns the first image that has none."""
    names = [entry["file_name"] for entry in json.loads((root / TRAIN_JSON).read_text())["images"]]
    (root / "det/maps").mkdir()
    for name in names[: len(names) // 2]:
        size = pixels(root / "det/train" / name).shape[:2]
        path = (root / "det/maps" / name).with_suffix(".png")
        rewrite(root, path, np.zeros(size, np.uint8), "PNG")
    return f"det/train/{names[len(names) // 2]}"


@fault("no_label", JOINED.replace("IMAGES", "all"))
def joined_images_of_which_only_some_have_maps(root: Path) -> str:
    return _maps_of_some(root)


@fault("image_left_out", JOINED.replace("IMAGES", "common"))
def joined_images_that_all_have_maps(root: Path) -> str:
    return _maps_of_some(root)


@fault("label_without_image")
def image_of_a_label_removed(root: Path) -> str:
    path = image(root, "seg")
    path.unlink()
    return relative(root, label_of(path))


@fault("two_of_one_name")
def image_with_two_suffixes(root: Path) -> str:
    path = image(root, "seg").with_suffix(".png")
    rewrite(root, path, pixels(image(root, "seg")), "PNG")
    return relative(root, path)


@fault("size_mismatch")
def label_of_another_size(root: Path) -> str:
    path = label_of(image(root, "seg"))
    return rewrite(root, path, np.asarray(Image.open(path))[:-3], "PNG")


@fault("label_format")
def label_saved_as_jpeg(root: Path) -> str:
    path = label_of(image(root, "seg"))
    return rewrite(root, path, np.asarray(Image.open(path)), "JPEG")


@fault("broken_label")
def label_cut(root: Path) -> str:
    path = label_of(image(root, "seg"))
    path.write_bytes(path.read_bytes()[:-30])
    return relative(root, path)


@fault("empty_file")
def label_emptied(root: Path) -> str:
    label_of(image(root, "seg")).write_bytes(b"")
    return relative(root, label_of(image(root, "seg")))


@fault("label_colour")
def label_in_colours(root: Path) -> str:
    path = label_of(image(root, "seg"))
    return rewrite(root, path, np.asarray(Image.open(path)), "PNG", "RGB")


@fault("label_value")
def label_99_in_validation(root: Path) -> str:
    path = label_of(image(root, "seg", "val"))
    labels = np.array(Image.open(path))
    labels[5, 7] = 99
    return rewrite(root, path, labels, "PNG")


@fault("label_value")
def label_of_16_bits(root: Path) -> str:
    path = label_of(image(root, "seg"))
    return rewrite(root, path, np.asarray(Image.open(path)).astype(np.uint16) + 300, "PNG")


@fault("nothing_labelled")
def label_all_255(root: Path) -> str:
    path = label_of(image(root, "seg"))
    rewrite(root, path, np.full_like(np.asarray(Image.open(path)), 255), "PNG")
    return relative(root, image(root, "seg"))


# ---- lists ----------------------------------------------------------------------------------------------------------


@fault("unreadable_list")
def folder_in_place_of_a_list(root: Path) -> str:
    (root / TRAIN_LIST).unlink()
    (root / TRAIN_LIST).mkdir()
    return TRAIN_LIST


@fault("not_utf8")
def list_in_gbk(root: Path) -> str:
    (root / TRAIN_LIST).write_bytes("车.jpg 0".encode("gbk"))
    return TRAIN_LIST


@fault("bad_line")
def line_without_a_class(root: Path) -> str:
    def change(lines: list[str]) -> str:
        lines[1] = lines[1].split()[0]
        return f"{TRAIN_LIST}: line 2"

    return change_lines(root, change)


@fault("unknown_class")
def line_with_class_777(root: Path) -> str:
    def change(lines: list[str]) -> str:
        lines[1] = f"{lines[1].split()[0]} 777"
        return f"{TRAIN_LIST}: line 2"

    return change_lines(root, change)


@fault("listed_twice")
def line_repeated(root: Path) -> str:
    def change(lines: list[str]) -> str:
        lines.append(lines[0])
        return f"{TRAIN_LIST}: line {len(lines)}"

    return change_lines(root, change)


@fault("missing_image")
def listed_image_removed(root: Path) -> str:
    path = image(root)
    path.unlink()
    return relative(root, path)


@fault("no_images")
def list_emptied(root: Path) -> str:
    (root / TRAIN_LIST).write_text("\n\n")
    return TRAIN_LIST


# ---- COCO -----------------------------------------------------------------------------------------------------------


@fault("broken_json")
def json_cut(root: Path) -> str:
    path = root / TRAIN_JSON.replace("train", "val")
    path.write_text(path.read_text()[:-40])
    return "det/annotations/val.json"


@fault("not_coco")
def json_without_annotations(root: Path) -> str:
    return change_json(root, lambda content: content.pop("annotations") and TRAIN_JSON)


@fault("bad_image_entry")
def entry_without_width(root: Path) -> str:
    return change_json(root, lambda content: content["images"][0].pop("width") and f"{TRAIN_JSON}: images[0]")


@fault("image_id_twice")
def two_images_of_one_id(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        content["images"][1]["id"] = content["images"][0]["id"]
        return f"{TRAIN_JSON}: images[1]"

    return change_json(root, change)


@fault("listed_twice")
def image_entry_repeated(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        content["images"].append({**content["images"][0], "id": 99999})
        return f"{TRAIN_JSON}: images"

    return change_json(root, change)


@fault("missing_image")
def image_of_an_entry_removed(root: Path) -> str:
    path = image(root, "det")
    path.unlink()
    return relative(root, path)


@fault("size_mismatch")
def entry_of_another_size(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        content["images"][0]["width"] += 64
        return f"det/train/{content['images'][0]['file_name']}"

    return change_json(root, change)


def _annotation(root: Path, **values: Any) -> str:
    """Changes the first annotation; a value that is a function is given the old one."""

    def change(content: dict[str, Any]) -> str:
        first = content["annotations"][0]
        first.update({key: value(first.get(key)) if callable(value) else value for key, value in values.items()})
        return f"{TRAIN_JSON}: annotations[0]"

    return change_json(root, change)


@fault("bad_annotation")
def annotation_that_is_a_list(root: Path) -> str:
    return change_json(root, lambda c: c["annotations"].insert(0, []) or f"{TRAIN_JSON}: annotations[0]")


@fault("dangling_image_id")
def annotation_of_no_image(root: Path) -> str:
    return _annotation(root, image_id=99999)


@fault("unknown_class")
def annotation_of_class_77(root: Path) -> str:
    return _annotation(root, category_id=77)


@fault("bad_box")
def box_with_nan(root: Path) -> str:
    return _annotation(root, bbox=[1, 2, float("nan"), 4])


@fault("box_outside")
def box_outside_its_image(root: Path) -> str:
    return _annotation(root, bbox=[5000, 2, 20, 20])


@fault("box_beyond_image")
def box_as_x1y1x2y2(root: Path) -> str:
    return _annotation(root, bbox=[20, 20, 5000, 30])


@fault("degenerate_box")
def box_without_width(root: Path) -> str:
    return _annotation(root, bbox=[10, 10, 0, 12])


@fault("bad_polygon")
def polygon_of_two_points(root: Path) -> str:
    return _annotation(root, segmentation=[[1, 2, 3, 4]])


@fault("bad_polygon", *INSTANCES)
def mask_of_two_points(root: Path) -> str:
    return polygon_of_two_points(root)


@fault("bad_run_lengths", *INSTANCES)
def run_lengths_that_do_not_fill_their_image(root: Path) -> str:
    size = pixels(image(root, "det")).shape[:2]
    return _annotation(root, segmentation={"size": list(size), "counts": [size[0] * size[1] - 1]})


@fault("mask_outside_box", *INSTANCES)
def mask_beside_its_box(root: Path) -> str:
    return _annotation(root, bbox=[30, 30, 20, 20], segmentation=[[2, 2, 20, 2, 20, 20]])


@fault("mask_outside_box", *INSTANCES)
def run_lengths_above_their_box(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        first = content["annotations"][0]
        of_image = next(entry for entry in content["images"] if entry["id"] == first["image_id"])
        height, width = of_image["height"], of_image["width"]
        counts = [40 * height, 20, (width - 40) * height - 20]
        first |= {"bbox": [30, 30, 20, 20], "segmentation": {"size": [height, width], "counts": counts}}
        return f"{TRAIN_JSON}: annotations[0]"

    return change_json(root, change)


@fault("polygon_outside", *INSTANCES)
def mask_beyond_its_image(root: Path) -> str:
    return polygon_beyond_its_image(root)


@fault("polygon_outside")
def polygon_beyond_its_image(root: Path) -> str:
    return _annotation(root, segmentation=[[1, 1, 5000, 1, 5000, 9]])


@fault("crowd")
def crowd_region(root: Path) -> str:
    return _annotation(root, iscrowd=1)


@fault("duplicate_box")
def box_repeated(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        content["annotations"].append({**content["annotations"][0], "id": 99999})
        return f"{TRAIN_JSON}: annotations[{len(content['annotations']) - 1}]"

    return change_json(root, change)


@fault("annotation_id_twice")
def two_annotations_of_one_id(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        content["annotations"][1]["id"] = content["annotations"][0]["id"]
        return f"{TRAIN_JSON}: annotations[1]"

    return change_json(root, change)


@fault("class_names")
def names_of_the_validation_file_shifted_by_one(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        names = [category["name"] for category in content["categories"]]
        for category, name in zip(content["categories"], names[1:] + names[:1], strict=True):
            category["name"] = name
        return "det/annotations/val.json: categories[0]"

    return change_json(root, change, "det/annotations/val.json")


@fault("no_categories")
def validation_file_without_categories(root: Path) -> str:
    return change_json(root, lambda c: c.pop("categories") and "det/annotations/val.json", "det/annotations/val.json")


@fault("category_gaps")
def category_of_another_number(root: Path) -> str:
    change = {"id": 900, "name": "unused"}
    return change_json(root, lambda c: c["categories"].append(change) or TRAIN_JSON)


# ---- captions -------------------------------------------------------------------------------------------------------


def _captions(root: Path, *, train: str = "a road", val: str = "a road") -> None:
    """Caption files over the images of detection, "a road" for all but the first."""
    for split, first in (("train", train), ("val", val)):
        images = json.loads((root / TRAIN_JSON.replace("train", split)).read_text())["images"]
        texts = [first, *["a road"] * (len(images) - 1)]
        annotations = [{"image_id": entry["id"], "caption": text} for entry, text in zip(images, texts, strict=True)]
        (root / f"cap_{split}.json").write_text(json.dumps({"images": images, "annotations": annotations}))


@fault("bad_caption", *CAPTIONS)
def caption_of_dots(root: Path) -> str:
    _captions(root, train=" ...")
    return "cap_train.json: annotations[0]"


@fault("unknown_word", *CAPTIONS)
def caption_with_a_word_that_training_has_not(root: Path) -> str:
    _captions(root, val="a zebra on the road")
    return "cap_val.json"


@fault("dangling_image_id", *CAPTIONS)
def caption_of_no_image(root: Path) -> str:
    _captions(root)
    return change_json(
        root, lambda c: c["annotations"][0].update(image_id=99999) or "cap_val.json: annotations[0]", "cap_val.json"
    )


@fault("no_label", *CAPTIONS)
def image_without_a_caption(root: Path) -> str:
    _captions(root)

    def change(content: dict[str, Any]) -> str:
        content["annotations"].pop(0)
        return f"det/train/{content['images'][0]['file_name']}"

    return change_json(root, change, "cap_train.json")


@fault("task_without_labels", *CAPTIONS)
def validation_without_a_caption(root: Path) -> str:
    _captions(root)
    return change_json(root, lambda c: c["annotations"].clear() or "eval.datasets.cap", "cap_val.json")


# ---- a whole data set ------------------------------------------------------------------------------------------------


@fault("no_objects")
def annotations_of_an_image_removed(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        first = content["images"][0]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first["id"]]
        return f"det/train/{first['file_name']}"

    return change_json(root, change)


@fault("class_without_samples")
def class_added_to_the_list(root: Path) -> str:
    with (root / "cls/classes_body.txt").open("a") as file:
        file.write("\nhovercraft\n")
    return "sources.cls"


@fault("class_only_in_validation")
def class_removed_from_training(root: Path) -> str:
    def change(content: dict[str, Any]) -> str:
        kept = [a for a in content["annotations"] if a["category_id"] != 1]
        content["annotations"] = kept
        return "sources.det"

    return change_json(root, change)


@fault("class_imbalance")
def class_of_one_pixel(root: Path) -> str:
    for number in range(len(list((root / "seg/images/train").iterdir()))):
        path = label_of(image(root, "seg", "train", number))
        labels = np.array(Image.open(path))
        labels[labels == 1] = 0
        labels[0, :1] = 1
        rewrite(root, path, labels, "PNG")
    return "sources.seg"


@fault("tiny_objects", "tasks.det.long_side=16")
def shown_too_small(root: Path) -> str:  # noqa: ARG001
    return "eval.datasets.det"


@fault("anchor_misfit", "model.heads.det.anchors=[[[900,900]],[[950,950]],[[999,999]]]")
def anchors_too_large(root: Path) -> str:  # noqa: ARG001
    return "sources.det"


@fault("images_never_seen", "train.epochs=1", "train.steps_per_epoch=1")
def run_of_one_step(root: Path) -> str:  # noqa: ARG001
    return "sources.seg"


@fault("metric_name", "train.best_metric=det.ap5O")
def metric_misspelt(root: Path) -> str:  # noqa: ARG001
    return "train.best_metric"


# ---- several images --------------------------------------------------------------------------------------------------


def _add_to_list(root: Path, source: Path, name: str, other_class: bool) -> str:
    def change(lines: list[str]) -> str:
        old = next(line for line in lines if line.startswith(source.name + " "))
        number = int(old.split()[-1])
        lines.append(f"{name} {(number + other_class) % 2 if other_class else number}")
        return f"cls/train/{name}"

    return change_lines(root, change)


@fault("duplicate_image")
def image_copied(root: Path) -> str:
    shutil.copy(image(root), image(root).with_name("zz_copy.jpg"))
    return _add_to_list(root, image(root), "zz_copy.jpg", other_class=False)


@fault("conflicting_labels")
def image_copied_with_another_class(root: Path) -> str:
    shutil.copy(image(root), image(root).with_name("zz_copy.jpg"))
    return _add_to_list(root, image(root), "zz_copy.jpg", other_class=True)


@fault("near_duplicate")
def image_recompressed(root: Path) -> str:
    path = image(root)
    rewrite(root, path.with_name("zz_again.jpg"), (pixels(path) * 0.97).astype(np.uint8), "JPEG", quality=70)
    return _add_to_list(root, path, "zz_again.jpg", other_class=False)


@fault("leakage")
def training_image_in_validation(root: Path) -> str:
    target = image(root, "cls", "val")
    shutil.copy(image(root, "cls", "train"), target)
    return relative(root, target)


@fault("leakage")
def training_image_in_the_validation_of_another_task(root: Path) -> str:
    shutil.copy(image(root, "cls", "train"), image(root, "seg", "val"))
    rewrite(root, label_of(image(root, "seg", "val")),
            np.zeros(pixels(image(root, "seg", "val")).shape[:2], np.uint8), "PNG")  # fmt: skip
    return relative(root, image(root, "seg", "val"))


@fault("near_leakage")
def training_image_recompressed_in_validation(root: Path) -> str:
    return rewrite(root, image(root, "cls", "val"), pixels(image(root)), "JPEG", quality=60)


@fault("shared_images")
def image_of_two_tasks(root: Path) -> str:
    target = image(root, "seg")
    shutil.copy(image(root), target)
    rewrite(root, label_of(target), np.zeros(pixels(target).shape[:2], np.uint8), "PNG")
    return ".jpg"
