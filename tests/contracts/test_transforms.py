"""Every transform: keyword settings, no chance but the sample's own generator, labels that stay consistent."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from samples import boxes_of, make_sample, map_of

from ppmtl.data import transforms
from ppmtl.data.canvas import augment
from ppmtl.data.labels import Captions, ClassIndex, Instances
from ppmtl.ops.masks import Rle
from ppmtl.structures import Sample

TRANSFORMS = sorted(
    name
    for name, c in inspect.getmembers(transforms, inspect.isclass)
    if c.__module__ == transforms.__name__ and not name.startswith("_")
)


def build(name: str):  # type: ignore[no-untyped-def]
    c = getattr(transforms, name)
    required = [p for p in inspect.signature(c).parameters.values() if p.default is p.empty]
    assert [p.name for p in required] in ([], ["size"]), f"{name}: only 'size' may lack a default"
    return c(**{p.name: (24, 32) for p in required})


def sample() -> Sample:
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 5, 25, 20], [30, 10, 50, 40], [0, 0, 10, 8]], np.float32)
    masks = [None, Rle.of(np.ones((30, 20)), (48, 64), (10, 30)), (np.array([[0.0, 0], [10, 0], [0, 8]]),)]
    image, labels = rng.integers(0, 256, (48, 64, 3), np.uint8), rng.integers(0, 5, (48, 64), np.uint8)
    found = make_sample(image, labels, class_index=2)
    det = Instances(boxes, np.arange(3), masks=tuple(masks))
    return replace(found, labels={**found.labels, "det": det, "cap": Captions(("a b", "c d"))})


def transformed(name: str, seed: int, given: Sample | None = None) -> Sample:
    given = sample() if given is None else given
    return augment(given, [build(name)], np.random.default_rng(seed), lambda _: given)


def test_the_listing_found_the_transforms() -> None:
    assert len(TRANSFORMS) >= 12
    assert {
        "RandomScale",
        "RandomRotate",
        "PadCrop",
        "RandomBoxCrop",
        "CropAroundBox",
        "RandomErasing",
        "Mosaic",
    } <= set(TRANSFORMS)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_settings_are_annotated_keywords(name: str) -> None:
    parameters = inspect.signature(getattr(transforms, name)).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty for p in parameters)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("seed", range(5))
def test_the_same_generator_gives_the_same_sample_and_global_chance_is_not_used(name: str, seed: int) -> None:
    np.random.seed(0)
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    first, second = (transformed(name, seed) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(boxes_of(first).boxes, boxes_of(second).boxes)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("seed", range(10))
def test_labels_stay_consistent(name: str, seed: int) -> None:
    out = transformed(name, seed)
    label_map, label = map_of(out), boxes_of(out)
    assert isinstance(label, Instances)
    assert len(label.masks) == len(label.boxes)
    for region, (x1, y1, x2, y2) in zip(label.regions(out.size), label.boxes, strict=True):
        y, x = np.nonzero(region)  # every pixel of a mask touches its box
        assert ((x + 1 > x1) & (x < x2) & (y + 1 > y1) & (y < y2)).all()
    assert label_map.shape == out.size
    assert set(np.unique(label_map)) <= {0, 1, 2, 3, 4, 255}
    assert len(label.boxes) == len(label.classes)
    assert (label.boxes[:, 2:] > label.boxes[:, :2]).all()
    assert (label.boxes >= 0).all()
    assert (label.boxes <= np.array(out.size[::-1] * 2)).all()
    assert out.labels["cls"] == ClassIndex(2)  # the other images are of this class too
    assert isinstance(out.labels["cap"], Captions)
    assert out.image.flags.c_contiguous


@pytest.mark.parametrize("name", TRANSFORMS)
def test_images_with_and_without_labels_are_taken(name: str) -> None:
    bare = transformed(name, 0, Sample("a", sample().image))
    assert bare.labels == {}
    one_pixel = transformed(name, 0, Sample("a", sample().image[:1, :1]))
    assert min(one_pixel.size) >= 1
