"""Mosaic, mixup and copy-paste: every pixel and every label comes from one of the images, or is unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import make_sample, map_of

from ppmtl.data import transforms as T
from ppmtl.data.canvas import IMAGE_FILL, augment
from ppmtl.data.labels import Boxes, Instances
from ppmtl.data.reader import Reader
from ppmtl.data.source import Source, SourceView
from ppmtl.ops.masks import draw_mask
from ppmtl.structures import ClassList, Label, Sample, Size
from ppmtl.tasks.captions import Captions
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.segmentation import Segmentation

SIZE = (64, 96)


def flat(number: int, size: Size = (48, 80), **labels: Label) -> Sample:
    """An image of one grey with a bright square: the map says ``number`` and 9, the square is an object."""
    image, levels = np.full((*size, 3), 10 * number, np.uint8), np.full(size, number, np.uint8)
    image[10:30, 20:50], levels[10:30, 20:50] = 200 + number, 9
    ring = (np.array([[20, 10], [50, 10], [50, 30], [20, 30]], np.float64),)
    objects = Instances(np.array([[20, 10, 50, 30]], np.float32), np.array([number]), masks=(ring,))
    sample = make_sample(image, levels, path=f"{number}.jpg")
    return replace(sample, labels={**sample.labels, "ins": objects, **labels})


def others(*samples: Sample) -> Callable[[np.random.Generator], Sample]:
    turn = iter(samples * 20)
    return lambda _: next(turn)


def run(transform: Any, seed: int = 0, first: Sample | None = None, progress: float = 0.0, *rest: Sample) -> Sample:
    given = first or flat(1)
    return augment(given, [transform], np.random.default_rng(seed), others(*(rest or map(flat, (2, 3, 4)))), progress)


def instances(sample: Sample) -> Instances:
    label = sample.labels["ins"]
    assert isinstance(label, Instances)
    return label


@pytest.mark.parametrize("seed", range(8))
def test_a_mosaic_shows_four_images_and_map_masks_and_pixels_agree_but_for_outlines(seed: int) -> None:
    out = run(T.Mosaic(size=SIZE), seed)
    assert out.size == SIZE
    levels, grey = map_of(out), out.image[..., 0]
    assert set(np.unique(levels)) - {9, 255} == {1, 2, 3, 4}
    flat_parts = levels < 9
    assert (np.abs(grey[flat_parts].astype(int) - 10 * levels[flat_parts]) > 2).mean() < 0.06  # blurred outlines
    assert (grey[levels == 255] == IMAGE_FILL).all()
    drawn = np.zeros(SIZE, bool)
    for mask in instances(out).masks:
        assert mask is not None
        drawn |= draw_mask(mask, SIZE) != 0
    # objects of which too little is seen are dropped from the list, not from the map
    assert ((levels == 9) < drawn).sum() <= 0.05 * drawn.sum()
    assert (grey[drawn] > 150).mean() > 0.9


def test_a_mosaic_knows_the_levels_of_images_that_have_a_map_also_if_the_first_has_none() -> None:
    bare = replace(flat(1), labels={"ins": flat(1).labels["ins"]})
    out = run(T.Mosaic(size=SIZE), 0, bare)
    assert set(np.unique(map_of(out))) == {2, 3, 4, 9, 255}


def test_a_mosaic_takes_images_whose_objects_are_known_as_long_as_it_finds_some() -> None:
    unknown = replace(flat(5), labels={})
    out = run(T.Mosaic(size=SIZE), 0, None, 0.0, unknown, flat(2), unknown, unknown, flat(3), flat(4))
    assert "ins" in out.labels
    assert 5 not in map_of(out)
    # where it finds none, nothing is said about objects: what is not listed would count as background
    assert "ins" not in run(T.Mosaic(size=SIZE), 0, None, 0.0, unknown).labels


def test_mixing_ends_at_its_share_of_the_run() -> None:
    for transform in (T.Mosaic(size=SIZE, until=0.8), T.MixUp(p=1, until=0.8), T.CopyPaste(p=1, share=1, until=0.8)):
        assert run(transform, progress=0.79).image.tobytes() != flat(1).image.tobytes()
        assert run(transform, progress=0.8).image.tobytes() == flat(1).image.tobytes()


def test_mixup_is_the_weighted_mean_with_the_objects_of_both() -> None:
    out = run(T.MixUp(p=1, concentration=1e6), 0, flat(1), 0.0, flat(4))
    assert np.abs(out.image[0, 0].astype(int) - 25).max() <= 1
    assert np.abs(out.image[20, 30].astype(int) - 202).max() <= 1
    assert instances(out).classes.tolist() == [1, 4]
    assert set(np.unique(map_of(out))) == {9, 255}


def test_pasted_objects_come_with_pixels_mask_and_levels_and_cover_what_is_below() -> None:
    upper = flat(4)
    out = run(T.CopyPaste(p=1, share=1), 0, flat(1, (96, 80)), 0.0, upper)  # letterboxed: 24 pixels lower
    assert (out.image[34:54, 20:50] == 204).all()
    assert (out.image[:10] == 10).all()
    label = instances(out)
    assert label.classes.tolist() == [1, 4]
    assert label.boxes.tolist() == [[20, 10, 50, 30], [20, 34, 50, 54]]
    same = run(T.CopyPaste(p=1, share=1), 0, flat(1), 0.0, upper)
    assert instances(same).classes.tolist() == [4]  # at the same place the lower one is covered altogether


def test_objects_that_are_not_drawn_are_not_pasted_either() -> None:
    upper = flat(4)
    objects, ring = instances(upper), np.array([[0, 40.0], [9, 40], [9, 48], [0, 48]])
    boxes = np.concatenate([objects.boxes, np.array([[0, 40, 9, 48]], np.float32)])
    two = Instances(boxes, np.array([4, 5]), masks=(*objects.masks, (ring,)))
    found = set()
    for seed in range(12):
        out = run(T.CopyPaste(p=1, share=0.5), seed, flat(1), 0.0, replace(upper, labels={**upper.labels, "ins": two}))
        classes = frozenset(instances(out).classes.tolist())
        assert (5 in classes) == bool((out.image[40:, :9] == 40).all())
        assert (4 in classes) == bool((out.image[10:30, 20:50] == 204).all())
        found.add(classes)
    assert found == {frozenset({1}), frozenset({4}), frozenset({1, 5}), frozenset({4, 5})}


def test_objects_without_masks_cannot_be_pasted() -> None:
    boxed = flat(2, det=Boxes(np.array([[0, 0, 4, 4]], np.float32), np.array([0])))
    with pytest.raises(ValueError, match=r"2\.jpg: copy_paste needs masks, the label of task 'det' is of kind Boxes"):
        run(T.CopyPaste(p=1, share=1), 0, flat(1), 0.0, boxed)


def test_letterbox_is_what_a_letterboxed_evaluation_shows() -> None:
    out = run(T.Letterbox(size=(64, 64)), 0, flat(1, (40, 80)))
    assert out.size == (64, 64)
    assert (map_of(out)[:16] == 255).all()
    assert (map_of(out)[16:48] != 255).all()
    assert instances(out).boxes.tolist() == [[16, 24, 40, 40]]


class Four(Reader):
    def __init__(self) -> None:
        super().__init__("", {})

    def __len__(self) -> int:
        return 4

    def path(self, index: int) -> str:
        return f"{index}.jpg"

    def describe(self) -> str:
        return "four"

    @staticmethod
    def required_paths(root: Any, tasks: Any, **settings: Any) -> list[Path]:  # noqa: ARG004
        return []

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:  # noqa: ARG002
        return {}

    def __getitem__(self, index: int) -> Sample:
        return flat(index + 1)


def source(transforms: tuple[Any, ...], tasks: dict[str, Any], **settings: Any) -> Source:
    return Source("s", Four(), {"strong": SourceView(transforms, tasks)}, batch_size=2, seed=0, **settings)


LEVELS = Segmentation("seg", ClassList(tuple("abcdefghij")))


def test_the_source_knows_the_place_in_the_run_from_the_step_alone() -> None:
    views = (T.Mosaic(size=SIZE, until=0.5), T.Letterbox(size=SIZE))
    whole = source(views, {"seg": LEVELS}, total_batches=8)
    kinds = [len(np.unique(whole.batches(step)["strong"].targets["seg"]["label_map"])) for step in range(8)]
    assert min(kinds[:4]) > 4 >= max(kinds[4:])
    again = source(views, {"seg": LEVELS}, total_batches=8).batches(3)["strong"].images
    np.testing.assert_array_equal(again, whole.batches(3)["strong"].images)


def test_repeated_batches_look_alike_to_the_end() -> None:
    views = (T.Mosaic(size=SIZE, until=0.5), T.Letterbox(size=SIZE))
    overfit = source(views, {"seg": LEVELS}, total_batches=8, repeat=2)
    np.testing.assert_array_equal(overfit.batches(7)["strong"].images, overfit.batches(1)["strong"].images)


def test_views_whose_transforms_make_labels_untrue_are_refused_before_the_first_step() -> None:
    words = ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a"))
    mix = (T.Mosaic(size=SIZE), T.Letterbox(size=SIZE))
    with pytest.raises(ValueError, match=r"source 's', view 'strong': Mosaic shows what the sentences do not speak of"):
        source(mix, {"cap": Captions("cap", words)})
    with pytest.raises(ValueError, match=r"HorizontalFlip turns left into right, so the captions become untrue"):
        source((T.HorizontalFlip(),), {"cap": Captions("cap", words)})
    with pytest.raises(ValueError, match=r"nobody knows the ClassIndex of task 'cls'"):
        source((T.CopyPaste(),), {"cls": Classification("cls", words)})
    source(mix, {"seg": LEVELS, "cap": Captions("cap", words, allow=("mix",))})
