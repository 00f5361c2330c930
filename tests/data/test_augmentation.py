"""Augmentation: what each transform draws, and that image, label map and boxes move together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from samples import boxes_of, make_sample, map_of

from ppmtl.data import transforms as T
from ppmtl.data._autoaugment import IMAGENET, Step
from ppmtl.data._autoaugment import apply as apply_step
from ppmtl.data.canvas import Canvas, Transform, augment
from ppmtl.data.labels import ClassIndex
from ppmtl.ops import affine
from ppmtl.structures import Label, Sample

NO_BOXES = np.zeros((0, 4), np.float32)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def boxed(height: int, width: int, boxes: list[list[float]]) -> Sample:
    """A black image with its boxes painted white; the label map has class 1 there."""
    label_map = np.zeros((height, width), np.uint8)
    for x1, y1, x2, y2 in np.array(boxes, int).reshape(-1, 4):
        label_map[y1:y2, x1:x2] = 1
    array = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.repeat(label_map[:, :, None] * np.uint8(255), 3, 2)
    return make_sample(image, label_map, array)


def run(sample: Sample, *transforms: Transform, seed: int = 0) -> Sample:
    return augment(sample, transforms, np.random.default_rng(seed))


def labels_of(sample: Sample) -> list[int]:
    return boxes_of(sample).classes.tolist()


SEG = [T.RandomScale(min=0.5, max=2.0), T.RandomRotate(degrees=15), T.PadCrop(size=(32, 40)), T.HorizontalFlip()]


# ---- the canvas -----------------------------------------------------------------------------------------------------


def test_no_transforms_change_nothing_and_copy_nothing() -> None:
    sample = boxed(20, 30, [[1, 2, 11, 12]])
    assert run(sample) is sample


@pytest.mark.parametrize("seed", range(8))
def test_a_geometric_chain_moves_the_pixels_once(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    calls, original = [], affine.warp
    monkeypatch.setattr(affine, "warp", lambda *a: calls.append(a[3]) or original(*a))
    run(boxed(48, 64, [[5, 5, 20, 20]]), *SEG, T.ColorJitter(p=1.0), T.RandomBlur(p=1.0), seed=seed)
    assert calls == ["linear", "nearest"]


@pytest.mark.parametrize("seed", range(20))
def test_image_label_map_and_boxes_move_together(seed: int) -> None:
    out = run(boxed(60, 90, [[30, 20, 70, 45]]), T.RandomScale(min=0.6, max=1.6), T.PadCrop(size=(150, 150)),
              T.HorizontalFlip(), seed=seed)  # fmt: skip
    inside = map_of(out) == 1
    ys, xs = np.nonzero(inside)
    np.testing.assert_allclose(boxes_of(out).boxes[0], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.01)
    known = map_of(out) != 255
    assert ((out.image[..., 0] > 127) == inside)[known].mean() > 0.99


@pytest.mark.parametrize("seed", range(10))
def test_labels_are_never_invented(seed: int) -> None:
    sample = boxed(48, 64, [[5, 5, 40, 30]])
    sample = make_sample(sample.image, np.where(map_of(sample) == 1, 18, 3).astype(np.uint8))
    out = run(sample, *SEG, seed=seed)
    assert set(np.unique(map_of(out))) <= {3, 18, 255}
    assert map_of(out).dtype == np.uint8


def test_the_outside_is_grey_and_not_labelled() -> None:
    out = run(boxed(20, 30, []), T.PadCrop(size=(40, 50)))
    np.testing.assert_array_equal(
        map_of(out) == 255, np.pad(np.zeros((20, 30), bool), ((0, 20), (0, 20)), constant_values=True)
    )
    assert (out.image[map_of(out) == 255] == 127).all()


def test_what_a_crop_hid_does_not_come_back() -> None:
    sample = boxed(100, 100, [[0, 0, 100, 100]])
    out = run(sample, T.PadCrop(size=(40, 40)), T.PadCrop(size=(60, 60)))
    assert (out.image[40:] == 127).all()
    turned = run(sample, T.PadCrop(size=(40, 40)), T.RandomRotate(degrees=15))
    assert (turned.image[0, 0] == 127).all()


def test_boxes_are_clipped_and_slivers_dropped() -> None:
    sample = boxed(100, 100, [[30, 30, 60, 60], [39, 0, 49, 10], [70, 70, 90, 90]])
    crowd = {"ignored": np.array([[0, 0, 80, 80]], np.float32), "ignored_classes": np.array([1])}
    sample = replace(sample, labels={"det": replace(boxes_of(sample), **crowd)})
    canvas = Canvas(sample)
    canvas.move(affine.identity(), (40, 40))
    out = canvas.sample
    np.testing.assert_array_equal(boxes_of(out).boxes, NO_BOXES)  # 1/9 and 1/10 visible, and one outside
    np.testing.assert_array_equal(boxes_of(out).ignored, [[0, 0, 40, 40]])
    canvas = Canvas(sample)
    canvas.move(affine.identity(), (45, 45))
    out = canvas.sample
    np.testing.assert_array_equal(boxes_of(out).boxes, [[30, 30, 45, 45], [39, 0, 45, 10]])
    assert labels_of(out) == [0, 1]


def test_the_readers_arrays_are_not_written_into() -> None:
    sample = boxed(48, 64, [[5, 5, 20, 20]])
    before = sample.image.copy()
    run(sample, T.ColorJitter(p=1.0), T.RandomBlur(p=1.0), T.SaturationJitter(p=1.0), T.RandomErasing(p=1.0))
    np.testing.assert_array_equal(sample.image, before)


def test_identity_numbers_travel_along() -> None:
    out = run(make_sample(smooth(), class_index=3, path="b.jpg"), T.Resize(size=(10, 10)))
    assert (out.path, out.labels) == ("b.jpg", {"cls": ClassIndex(3)})


def test_a_label_of_an_unknown_kind_moves_with_the_image() -> None:
    @dataclass(frozen=True)
    class Point(Label):
        xy: tuple[float, float]

        def moved(self, a: np.ndarray, size: tuple[int, int], min_visible: float) -> Point:  # noqa: ARG002
            return Point(tuple((a[:, :2] @ self.xy + a[:, 2]).tolist()))

    sample = Sample("a", smooth(20, 40), {"corner": Point((10.0, 5.0)), **boxed(20, 40, [[10, 5, 30, 15]]).labels})
    out = run(sample, T.Resize(size=(40, 20)), T.HorizontalFlip(p=1.0))
    assert out.labels["corner"] == Point((15.0, 10.0))
    assert boxes_of(out).boxes.tolist() == [[5, 10, 15, 30]]


def test_dropping_boxes_reaches_every_label_that_has_some() -> None:
    sample = boxed(20, 40, [[0, 0, 5, 5], [10, 5, 30, 15]])
    sample = replace(sample, labels={"a": sample.labels["det"], "seg": sample.labels["seg"], "b": sample.labels["det"]})
    canvas = Canvas(sample)
    assert len(canvas.boxes) == 4
    canvas.keep_boxes(np.array([True, False, False, True]))
    assert [canvas.sample.labels[name].objects().tolist() for name in "ab"] == [[[0, 0, 5, 5]], [[10, 5, 30, 15]]]


def test_a_transform_can_ask_for_another_sample_and_replace_the_present_one() -> None:
    def side_by_side(canvas: Canvas, rng: np.random.Generator) -> None:
        right = canvas.another(rng)
        canvas.sample = make_sample(
            np.hstack([canvas.image, right.image]), np.hstack([map_of(canvas.sample), map_of(right)])
        )

    left, right = boxed(10, 20, [[0, 0, 5, 5]]), boxed(10, 20, [[15, 0, 20, 5]])
    out = augment(left, [side_by_side], np.random.default_rng(0), lambda _rng: right)
    assert out.size == (10, 40)
    assert map_of(out)[0].tolist() == [1] * 5 + [0] * 30 + [1] * 5
    with pytest.raises(ValueError, match=r"a\.jpg: a transform asks for another sample"):
        run(left, side_by_side)


# ---- geometry -------------------------------------------------------------------------------------------------------


def test_random_scale_draws_the_steps_it_is_given() -> None:
    sizes = {run(Sample("a", smooth()), T.RandomScale(min=0.5, max=1.0, step=0.25), seed=s).size for s in range(40)}
    assert sizes == {(24, 32), (36, 48), (48, 64)}
    free = [run(Sample("a", smooth()), T.RandomScale(min=0.5, max=2.0), seed=s).size[1] / 64 for s in range(60)]
    assert 0.49 <= min(free) < 0.7 < 1.7 < max(free) <= 2.01


def test_random_rotate_keeps_every_corner_in_an_expanded_window() -> None:
    sample = make_sample(np.full((100, 200, 3), 255, np.uint8), np.zeros((100, 200), np.uint8))
    out = run(sample, T.RandomRotate(degrees=30), seed=3)
    assert out.size[0] > 100
    assert out.size[1] > 170
    assert (map_of(out) == 0).sum() == pytest.approx(100 * 200, rel=0.01)
    assert map_of(out)[0, 0] == 255


def test_pad_crop_reaches_every_offset_and_pads_only_right_and_bottom() -> None:
    image = np.arange(6, dtype=np.uint8).repeat(3).reshape(1, 6, 3)
    firsts = {int(run(Sample("a", image), T.PadCrop(size=(2, 4)), seed=s).image[0, 0, 0]) for s in range(40)}
    assert firsts == {0, 1, 2}


def test_flip_mirrors_boxes_at_the_width() -> None:
    out = run(boxed(20, 30, [[2, 3, 12, 8]]), T.HorizontalFlip(p=1.0))
    np.testing.assert_array_equal(boxes_of(out).boxes, [[18, 3, 28, 8]])
    assert (map_of(out)[3:8, 18:28] == 1).all()
    assert run(boxed(20, 30, []), T.HorizontalFlip(p=0.0)).size == (20, 30)


def test_resize_stretches_with_its_interpolation() -> None:
    out = run(Sample("a", smooth()), T.Resize(size=(30, 100), interpolation="cubic"))
    np.testing.assert_array_equal(out.image, cv2.resize(smooth(), (100, 30), interpolation=cv2.INTER_CUBIC))


class WindowRecorder(Canvas):
    """A canvas that remembers the size of every window."""

    def move(self, a: np.ndarray, size: tuple[int, int]) -> None:
        self.windows = [*getattr(self, "windows", []), size]
        super().move(a, size)


def test_random_resized_crop_covers_its_area_and_shape_range() -> None:
    shares, shapes = [], []
    for seed in range(60):
        canvas = WindowRecorder(Sample("a", smooth(200, 200)))
        T.RandomResizedCrop(size=(32, 48), area=(0.3, 0.7), aspect=(0.8, 1.25))(canvas, np.random.default_rng(seed))
        (height, width), last = canvas.windows
        shares.append(height * width / 40000)
        shapes.append(width / height)
        assert last == canvas.sample.size == (32, 48)
    assert 0.29 <= min(shares) < 0.4 < 0.6 < max(shares) <= 0.71
    assert 0.79 <= min(shapes) < 0.9 < 1.1 < max(shapes) <= 1.27


# ---- crops for detection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_box_crop_has_an_object_and_sides_in_range(seed: int) -> None:
    canvas = Canvas(boxed(1000, 1000, [[500, 500, 520, 530], [960, 10, 990, 40]]))
    T.RandomBoxCrop()(canvas, np.random.default_rng(seed))
    height, width = canvas.size
    assert 300 <= height <= 600
    assert 300 <= width <= 600
    assert 0.5 <= height / width <= 2
    assert len(boxes_of(canvas.sample).boxes) >= 1


def test_random_box_crop_finds_a_sign_in_the_corner() -> None:
    for seed in range(20):
        out = run(boxed(400, 400, [[394, 394, 400, 400]]), T.RandomBoxCrop(tries=1), seed=seed)
        assert labels_of(out) == [0]


def test_random_box_crop_also_crops_images_without_boxes() -> None:
    out = run(boxed(100, 100, []), T.RandomBoxCrop())
    assert max(out.size) <= 60
    assert boxes_of(out).boxes.shape == (0, 4)


def test_random_box_crop_keeps_centred_visible_boxes_only() -> None:
    crop = T.RandomBoxCrop(min_visible=0.15, min_box_side=2.0)
    boxes = np.array(
        [[10, 10, 30, 30], [-12, 0, 10, 10], [-8, 0, 10, 10], [-500, -500, 520, 520], [20, 20, 21.5, 40]], np.float32
    )
    np.testing.assert_array_equal(crop._kept(boxes, (0, 0), (50, 50)), [True, False, True, False, False])


@pytest.mark.parametrize("seed", range(20))
def test_random_box_crop_forgets_boxes_whose_centre_is_outside(seed: int) -> None:
    # Boxes of 40 % of the image all over it: every window cuts some of them well above the visibility limit.
    grid = [[x, y, x + 160, y + 160] for x in range(0, 241, 60) for y in range(0, 241, 60)]
    out = run(boxed(400, 400, grid), T.RandomBoxCrop(), seed=seed)
    assert len(boxes_of(out).boxes) > 0
    sides = boxes_of(out).boxes[:, 2:] - boxes_of(out).boxes[:, :2]
    touches = np.stack([boxes_of(out).boxes[:, :2] <= 0, boxes_of(out).boxes[:, 2:] >= np.array(out.size[::-1])]).any(0)
    assert (sides[touches] >= 79).all()  # a centre inside leaves at least half of the side, or the window's


@pytest.mark.parametrize("seed", range(40))
def test_crop_around_box_shows_whole_signs_at_about_their_size(seed: int) -> None:
    sample = boxed(480, 816, [[100, 100, 130, 130], [780, 440, 800, 470]])
    out = run(sample, T.CropAroundBox(size=(208, 208), p_background=0.0, scale=(1.0, 1.0)), seed=seed)
    assert out.size == (208, 208)
    assert len(boxes_of(out).boxes) == 1
    assert set(boxes_of(out).boxes[0, 2:] - boxes_of(out).boxes[0, :2]) <= {20, 30}


def test_crop_around_box_magnifies_within_its_range() -> None:
    crop, sides = T.CropAroundBox(size=(208, 208), p_background=0.0, scale=(0.5, 2.0)), []
    for seed in range(40):
        out = run(boxed(480, 816, [[400, 200, 440, 240]]), crop, seed=seed)
        sides.append(float(np.ptp(boxes_of(out).boxes[0, ::2])))
    assert 19 <= min(sides) < 30 < 60 < max(sides) <= 81


@pytest.mark.parametrize(
    ("asked", "progress", "share"),
    [(0.25, 0.0, 0.25), (0.25, 1.0, 0.25), ((0.1, 0.9), 0.0, 0.1), ((0.1, 0.9), 0.5, 0.5), ((0.1, 0.9), 1.0, 0.9)],
)
def test_crop_around_box_gives_background_as_often_as_asked(asked: float, progress: float, share: float) -> None:
    crop, sample = T.CropAroundBox(size=(50, 50), p_background=asked), boxed(1000, 1000, [[500, 500, 520, 520]])
    empty = [
        not labels_of(augment(sample, [crop], np.random.default_rng((7, s)), progress=progress)) for s in range(300)
    ]
    assert abs(np.mean(empty) - share) < 0.08


def test_crop_around_box_redraws_half_visible_signs() -> None:
    sample = boxed(200, 400, [[100, 80, 130, 110], [150, 80, 180, 110]])
    crop = T.CropAroundBox(size=(60, 60), p_background=0.0, scale=(1.0, 1.0), tries=50)
    for seed in range(40):
        out = run(sample, crop, seed=seed)
        painted = float((map_of(out) == 1).sum())
        boxes_area = float(np.prod(boxes_of(out).boxes[:, 2:] - boxes_of(out).boxes[:, :2], axis=1).sum())
        assert painted - boxes_area <= 0.1 * 900 + 1


def test_crop_around_box_handles_images_smaller_than_the_window() -> None:
    out = run(boxed(30, 40, [[5, 5, 20, 20]]), T.CropAroundBox(size=(64, 64), p_background=0.0, scale=(1.0, 1.0)))
    np.testing.assert_array_equal(boxes_of(out).boxes, [[5, 5, 20, 20]])


# ---- colour ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_saturation_is_pillows_color_enhancer(factor: float) -> None:
    out = run(Sample("a", smooth()), T.SaturationJitter(p=1.0, min=factor, max=factor)).image
    expected = np.asarray(ImageEnhance.Color(Image.fromarray(smooth())).enhance(factor))
    assert np.abs(out.astype(int) - expected).max() <= 2  # Pillow truncates twice


@pytest.mark.parametrize(
    "name, enhancer", [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast)]
)
def test_brightness_and_contrast_are_pillows(name: str, enhancer: type) -> None:
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    for seed in range(5):
        out = run(Sample("a", smooth()), T.ColorJitter(**{**off, name: 0.4}, p=1.0), seed=seed).image
        rng = np.random.default_rng(seed)
        draws = {int(number): (rng.random(), rng.uniform(-1, 1)) for number in rng.permutation(4)}
        factor = 1 + 0.4 * draws[["brightness", "contrast"].index(name)][1]
        expected = np.asarray(enhancer(Image.fromarray(smooth())).enhance(factor))
        assert np.abs(out.astype(int) - expected).max() <= 2


def test_hue_turns_colours_and_leaves_grey_alone() -> None:
    jitter = T.ColorJitter(brightness=0, contrast=0, saturation=0, hue=18, p=1.0)
    grey = np.repeat(smooth()[..., :1], 3, 2)
    assert np.abs(run(Sample("a", grey), jitter, seed=1).image.astype(int) - grey).max() <= 1
    colour = np.full((4, 4, 3), (200, 60, 60), np.uint8)
    turned = run(Sample("a", colour), jitter, seed=1).image
    hues = [cv2.cvtColor(x, cv2.COLOR_RGB2HSV)[0, 0, 0] * 2 for x in (colour, turned)]
    assert 1 <= abs((int(hues[1]) - int(hues[0]) + 180) % 360 - 180) <= 22


def test_colour_jitter_leaves_labels_and_some_images_alone() -> None:
    sample = boxed(48, 64, [[5, 5, 20, 20]])
    assert run(sample, T.ColorJitter(p=0.0)).image is sample.image
    out = run(sample, T.ColorJitter(p=1.0), seed=1)
    np.testing.assert_array_equal(map_of(out), map_of(sample))
    assert out.image.dtype == np.uint8


@pytest.mark.parametrize(
    "transform", [T.RandomBlur(), T.RandomErasing(p=1 / 3), T.SaturationJitter(p=1 / 3), T.HorizontalFlip(p=1 / 3)]
)
def test_probabilities_are_not_inverted(transform: Transform) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    changed = [not np.array_equal(run(Sample("a", image), transform, seed=s).image, image) for s in range(300)]
    assert 0.25 < np.mean(changed) < 0.42


def test_random_erasing_is_standard_normal_after_normalisation() -> None:
    image = np.full((200, 200, 3), 10, np.uint8)
    out = run(Sample("a", image), T.RandomErasing(p=1.0, area=(0.3, 0.3), aspect=(1, 1))).image
    assert out.dtype == np.float32
    erased = (out != 10).all(axis=2)
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    side = round(math.sqrt(0.3 * 200 * 200))
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1, int(erased.sum())) == (side, side, side * side)
    normalised = (out[erased] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.05)
    assert out.min() < 0


def test_random_erasing_never_covers_a_whole_side() -> None:
    image = np.full((8, 100, 3), 10, np.uint8)
    out = [
        run(Sample("a", image), T.RandomErasing(p=1.0, area=(0.9, 1.0), aspect=(1, 1)), seed=s).image for s in range(5)
    ]
    assert all(np.array_equal(x, image) for x in out)


@pytest.mark.parametrize(
    "build",
    [
        lambda: T.RandomScale(min=2.0, max=1.0),
        lambda: T.RandomBoxCrop(min_side=0.6, max_side=0.3),
        lambda: T.CropAroundBox(size=(4, 4), scale=(2.0, 1.0)),
        lambda: T.RandomErasing(area=(0.5, 0.1)),
        lambda: T.RandomResizedCrop(size=(4, 4), area=(0.5, 0.1)),
        lambda: T.SaturationJitter(min=2.0, max=1.0),
    ],
)
def test_ranges_the_wrong_way_round_are_refused(build) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="the first must not be the larger one"):
        build()


@pytest.mark.parametrize(
    ("size", "found"),
    [((60, 120), {(30, 60), (40, 80)}), ((120, 60), {(60, 30), (80, 40)}), ((40, 200), {(20, 100)})],
    ids=["wide", "high", "very wide: the long side's limit"],
)
def test_the_short_side_becomes_one_of_those_given_and_the_long_one_stays_below_its_limit(size, found):
    transform = T.RandomShortSide(sides=(30, 40), max_long=100)
    sizes = {run(make_sample(np.zeros((*size, 3), np.uint8)), transform, seed=seed).size for seed in range(12)}
    assert sizes == found


def test_a_size_crop_draws_both_sides_in_pixels_and_leaves_short_ones():
    transform, image = T.RandomSizeCrop(min=20, max=40), np.zeros((30, 90, 3), np.uint8)
    sizes = np.array([run(make_sample(image), transform, seed=seed).size for seed in range(200)])
    assert [sizes.min(axis=0).tolist(), sizes.max(axis=0).tolist()] == [[20, 20], [30, 40]]
    assert run(make_sample(image[:15]), transform).size[0] == 15


def test_one_of_runs_one_list_of_transforms_each_as_often():
    kinds = [(partial(T.Resize, size=(4, 4)), partial(T.Resize, size=(8, 8))), (partial(T.Resize, size=(5, 5)),)]
    transform, image = T.OneOf(options=tuple(kinds)), np.zeros((30, 90, 3), np.uint8)
    sizes = [run(make_sample(image), transform, seed=seed).size for seed in range(200)]
    assert set(sizes) == {(8, 8), (5, 5)}
    assert 70 < sizes.count((5, 5)) < 130
    with pytest.raises(ValueError, match="options is empty"):
        T.OneOf(options=())


# ---- AutoAugment ----------------------------------------------------------------------------------------------------


def test_the_policy_is_the_published_one_in_number_and_levels() -> None:
    assert len(IMAGENET) == 25
    assert len(set(IMAGENET)) == 20
    steps = [step for pair in IMAGENET for step in pair]
    assert {step.operation for step in steps} == {
        "posterize", "rotate", "solarize", "autocontrast", "equalize", "invert", "color", "contrast", "sharpness", "shear_x"
    }  # fmt: skip
    assert all(0 <= step.level <= 9 and 0 <= step.probability <= 1 for step in steps)


@pytest.mark.parametrize(
    "operation, level, sign, expected",
    [
        ("posterize", 9, 1, lambda image: ImageOps.posterize(image, 4)),
        ("solarize", 0, 1, lambda image: image),
        ("solarize", 9, 1, ImageOps.invert),
        ("equalize", 3, -1, ImageOps.equalize),
        ("color", 9, -1, lambda image: ImageEnhance.Color(image).enhance(0.1)),
        ("contrast", 5, 1, lambda image: ImageEnhance.Contrast(image).enhance(1.5)),
        ("sharpness", 9, 1, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
    ],
)
def test_a_colour_operation_is_pillows_at_its_level(operation, level, sign, expected) -> None:  # type: ignore[no-untyped-def]
    canvas = Canvas(make_sample(smooth()))
    apply_step(Step(operation, 1.0, level), canvas, sign)
    np.testing.assert_array_equal(canvas.image, np.asarray(expected(Image.fromarray(smooth()))))


def test_boxes_turn_and_shear_with_the_image() -> None:
    for step in (Step("rotate", 1.0, 9), Step("shear_x", 1.0, 9)):
        canvas = Canvas(boxed(64, 64, [[20, 20, 44, 44]]))
        apply_step(step, canvas, 1)
        rows, columns = np.nonzero(canvas.image[:, :, 0] > 200)
        x1, y1, x2, y2 = boxes_of(canvas.sample).boxes[0]
        np.testing.assert_allclose([x1, y1, x2, y2], [columns.min(), rows.min(), columns.max(), rows.max()], atol=2)


def test_auto_augment_leaves_half_of_the_images_alone_and_changes_the_others() -> None:
    sample = make_sample(smooth())
    changed = [
        not np.array_equal(run(sample, T.AutoAugment(p=0.5), seed=seed).image, sample.image) for seed in range(60)
    ]
    assert 10 < sum(changed) < 35
    assert run(sample, T.AutoAugment(p=0.0)) is sample
