"""What a folder of data holds: which of its files one of our readers can train on, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.label_maps import read_label_map
from ppmtl.data.listing import read_json, read_text
from ppmtl.structures import IGNORE_LABEL
from ppmtl.studies.file_tree import Tree, nearness, says_split

_NO_CLASSES = {"images", "image", "imgs", "img", "jpegimages", "labels", "label", "masks", "mask", "annotations", "gt"}
_MANY_SENTENCES = 10_000  # from so many on, words that occur less than five times are left out, as is usual
_MOST_LABELS = 65  # different values in one file; more is a grey image and no label map


@dataclass
class Found:
    """One data set with its splits.

    Attributes:
        kind: "label_png", "image_list", "coco", "coco_instances" or "coco_captions": the reader; "folders": images in one
            folder per class.
        splits: {"train" and, where there is one, "val": the reader's keys, paths below the root}.
        classes: the keys of tasks.X.classes.
        images: {split: image files}.
        counts: (C,) samples of each class in "train": images, boxes or pixels. Of captions one number, the sentences.
        sides: (N, 2) width and height of every box in "train", as share of its image's.
        notes: what a person should know.
    """

    kind: str
    splits: dict[str, dict[str, str]]
    classes: dict[str, Any]
    images: dict[str, list[Path]]
    counts: np.ndarray
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    notes: list[str] = field(default_factory=list)


def find(root: Path) -> list[Found]:
    """The data sets below a folder that can be trained on; of several annotations of the same images the one named plainest.

    Raises:
        ValueError: if there is none (saying what is looked for), or a file of one cannot be read.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    tree = Tree(root)
    found = [*_coco(tree), *_label_maps(tree), *_lists(tree)]
    found += _class_folders(tree, {folder for data in found for folder in _folders(data, tree)})
    if not found:
        count = sum(map(len, tree.images.values()))
        raise ValueError(
            f"{root}: found {count} images in {len(tree.images)} folders, and nothing that says what they show. Looked for: "
            "COCO json files beside their images; a folder of label PNGs and one of images with the same names; text files "
            "with lines 'image id'; a folder with one folder of images per class (docs/data.md)"
        )
    return found


def _folders(data: Found, tree: Tree) -> set[Path]:
    """The folders whose images a data set uses, label maps included."""
    used = {file.parent for files in data.images.values() for file in files}
    return used | {tree.root / keys["labels"] for keys in data.splits.values() if "labels" in keys}


def _plainest(found: Mapping[Path, list[tuple[str, Found]]]) -> Iterator[Found]:
    """Of several descriptions of the same training images the first, with a note about the others."""
    for (_, first), *others in found.values():
        first.notes += [f"{name} is about the same images and is not used" for name, _ in others]
        yield first


def _coco(tree: Tree) -> Iterator[Found]:
    contents = {file: read_json(file) for file in tree.jsons}
    kinds = {file: kind for file, content in contents.items() if (kind := _coco_kind(content))}
    sentences: dict[Path, list[tuple[str, Found]]] = {}
    objects: dict[Path, list[tuple[str, Found]]] = {}
    for group in tree.by_split(list(kinds)):
        splits, files = {}, {}
        for split, file in group.items():
            names = [str(entry.get("file_name")) for entry in contents[file]["images"]]
            if folder := tree.holder(names, file):
                splits[split] = {"images": tree.name(folder), "annotations": tree.name(file)}
                files[split] = [folder / name for name in names]
        if "train" not in splits:
            continue
        train, name, kind = contents[group["train"]], tree.name(group["train"]), kinds[group["train"]]
        if kind == "coco_captions":
            count = len(train["annotations"])
            classes: dict[str, Any] = {"captions": [name], "min_count": 5 if count >= _MANY_SENTENCES else 1}
            data = Found(kind, splits, classes, files, np.array([count]))
        else:
            classes = {"count": len(train["categories"]), "names": name}
            data = Found(kind, splits, classes, files, *_boxes(train))
        same_kind = sentences if kind == "coco_captions" else objects
        same_kind.setdefault(files["train"][0].parent, []).append((name, data))
    yield from _plainest(objects)
    yield from _plainest(sentences)


def _coco_kind(content: Any) -> str:
    """The reader for the content of a json file, "" if it is none of COCO's."""
    if not isinstance(content, dict):
        return ""
    lists = [content.get(key) for key in ("images", "annotations", "categories")]
    images, annotations, categories = [part if isinstance(part, list) else [] for part in lists]
    if not images or not all(isinstance(entry, dict) for entry in [*images, *annotations]):
        return ""
    if any("caption" in a for a in annotations):
        return "coco_captions"
    if not categories or not any("bbox" in a for a in annotations):
        return ""
    return "coco_instances" if 2 * sum(map(_has_mask, annotations)) > len(annotations) else "coco"


def _has_mask(annotation: Mapping[str, Any]) -> bool:
    """Whether there are run lengths or a polygon of more than four corners; converters write boxes as polygons of four."""
    mask = annotation.get("segmentation")
    return isinstance(mask, dict) or (isinstance(mask, list) and any(isinstance(p, list) and len(p) > 8 for p in mask))


def _boxes(content: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes per category (C,), and every box's share of its image's width and height (N, 2)."""
    size = {entry.get("id"): (entry.get("width") or 1, entry.get("height") or 1) for entry in content["images"]}
    index = {category.get("id"): place for place, category in enumerate(content["categories"])}
    kept = [
        a
        for a in content["annotations"]
        if a.get("image_id") in size and a.get("category_id") in index and not a.get("iscrowd")
        if len(a.get("bbox", ())) == 4 and min(a["bbox"][2:]) > 0
    ]
    sides = np.array([a["bbox"][2:] for a in kept], float).reshape(-1, 2)
    shares = sides / np.array([size[a["image_id"]] for a in kept], float).reshape(-1, 2)
    return np.bincount([index[a["category_id"]] for a in kept], minlength=len(index)), shares


def _label_maps(tree: Tree) -> Iterator[Found]:
    pairs: dict[Path, tuple[Path, str]] = {}  # label folder: image folder, what a label's name has after the image's
    stems = {folder: {file.stem for file in files} for folder, files in tree.images.items()}
    maps = [
        folder for folder, files in tree.images.items() if all(map(_is_label_map, files[:: max(1, len(files) // 5)]))
    ]
    for folder in maps:
        if pair := _images_of(folder, stems, [other for other in stems if other not in maps]):
            pairs[folder] = pair
    found: dict[Path, list[tuple[str, Found]]] = {}
    for group in tree.by_split(list(pairs)):
        splits, images, counts, notes = {}, {}, np.zeros(256, np.int64), []
        for split, folder in group.items():
            source, ending = pairs[folder]
            suffix = {"label_suffix": ending} if ending else {}
            splits[split] = {"images": tree.name(source), "labels": tree.name(folder), **suffix}
            images[split] = [file for file in tree.images[source] if file.stem + ending in stems[folder]]
            if missing := len(tree.images[source]) - len(images[split]):
                splits[split]["missing_labels"] = "skip"
                notes.append(f"{missing} images in {tree.name(source)} have no label map and are left out")
        for file in tree.images[group["train"]]:
            counts += np.bincount(read_label_map(file).ravel(), minlength=256)
        labelled = np.flatnonzero(counts[:IGNORE_LABEL])
        least = int(labelled[-1]) + 1 if len(labelled) else 1
        named = tree.class_file(group["train"] / "any", least)
        classes = {"count": len(named[1]), "names": named[0]} if named else {"count": least}
        data = Found("label_png", splits, classes, images, counts[: classes["count"]], notes=notes)
        if len(labelled) < 2:
            held = np.flatnonzero(counts).tolist()
            data.notes.append(f"label maps hold {held}, and {IGNORE_LABEL} means 'not labelled': number classes from 0")
        found.setdefault(images["train"][0].parent, []).append((tree.name(group["train"]), data))
    yield from _plainest(found)


def _is_label_map(file: Path) -> bool:
    try:
        return len(np.unique(read_label_map(file))) <= _MOST_LABELS
    except ValueError:  # no PNG, colour, or damaged
        return False


def _images_of(labels: Path, stems: Mapping[Path, set[str]], folders: Sequence[Path]) -> tuple[Path, str] | None:
    """The nearest of ``folders`` with an image for every label map in ``labels``, and the ending that labels add to its name.

    Of equally near ones that with the fewest images without a label.
    """
    first = min(stems[labels])
    for cut in (len(first), *(place for place in range(len(first) - 1, 0, -1) if first[place] in "_-.")):
        ending = first[cut:]
        bare = {stem[: len(stem) - len(ending)] for stem in stems[labels] if stem.endswith(ending)}
        fitting = [folder for folder in folders if stems[folder] >= bare]
        if len(bare) == len(stems[labels]) and fitting:
            return max(fitting, key=lambda folder: (nearness(folder, labels), -len(stems[folder]))), ending
    return None


def _lists(tree: Tree) -> Iterator[Found]:
    entries: dict[Path, dict[Path, int]] = {}  # list file: {image: class}
    folders: dict[Path, Path] = {}
    for file in tree.texts:
        lines = [line.rsplit(maxsplit=1) for line in read_text(file).splitlines() if line.strip()]
        is_list = bool(lines) and all(len(line) == 2 and line[1].isdecimal() for line in lines)
        if is_list and (folder := tree.holder([name for name, _ in lines], file)):
            entries[file] = {folder / name: int(number) for name, number in lines}
            folders[file] = folder
    found: dict[Path, list[tuple[str, Found]]] = {}
    for group in tree.by_split(list(entries)):
        splits = {s: {"images": tree.name(folders[file]), "list_file": tree.name(file)} for s, file in group.items()}
        images = {split: list(entries[file]) for split, file in group.items()}
        least = 1 + max(number for file in group.values() for number in entries[file].values())
        named = tree.class_file(group["train"], least)
        count = len(named[1]) if named else least
        counts = np.bincount(list(entries[group["train"]].values()), minlength=count)
        data = Found("image_list", splits, {"count": count, **({"names": named[0]} if named else {})}, images, counts)
        found.setdefault(folders[group["train"]], []).append((tree.name(group["train"]), data))
    yield from _plainest(found)


def _class_folders(tree: Tree, taken: set[Path]) -> Iterator[Found]:
    children: dict[Path, dict[str, list[Path]]] = {}
    for folder, files in tree.images.items():
        if folder not in taken and folder != tree.root:
            children.setdefault(folder.parent, {})[folder.name] = files
    parents = [folder for folder, named in children.items() if folder not in tree.images and _are_classes(list(named))]
    for group in tree.by_split(parents):
        names = sorted(children[group["train"]])
        images = {s: [file for name in names for file in children[folder].get(name, ())] for s, folder in group.items()}
        notes = []
        if "val" not in images:
            notes.append("no folder of validation images: every tenth image of each class is held out")
            images["val"] = [file for name in names for file in children[group["train"]][name][9::10]]
            images["train"] = sorted(set(images["train"]) - set(images["val"]))
        images = {split: files for split, files in images.items() if files}
        splits = {split: {"images": tree.name(group.get(split, group["train"]))} for split in images}
        counts = np.bincount([names.index(file.parent.name) for file in images["train"]], minlength=len(names))
        yield Found("folders", splits, {"names": names}, images, counts, notes=notes)


def _are_classes(names: Sequence[str]) -> bool:
    """Whether folders of these names may be classes; one may be called "train", but not all like splits."""
    is_known = any(name.lower() in _NO_CLASSES for name in names)
    return len(names) > 1 and not is_known and not all(map(says_split, names))
