"""Training augmentation. A config names these classes in snake case: ``type: random_scale`` is ``RandomScale``.

Each is called with the canvas and the sample's own random generator, changes the canvas and returns nothing. Geometry
comes first in a list, colour after it: geometry is then moved once and colour runs on the small crop.

Source: the recipes of reference/model.md section 8 (PaddleSeg, PaddleDetection and timm name the same operations).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
from annotated_types import Ge, Gt, Interval

from ppmtl.config.parts import Part
from ppmtl.data import _autoaugment, _colour
from ppmtl.data._mixing import blend, cover, mosaic, paste
from ppmtl.data._windows import corner_around, draw_corner, draw_ratio, require_order, whole_pixels
from ppmtl.data.canvas import Canvas
from ppmtl.data.labels import visible_shares
from ppmtl.ops import affine
from ppmtl.ops.affine import Interpolation
from ppmtl.structures import Size

Pixels = Annotated[int, Ge(1)]
Probability = Annotated[float, Interval(ge=0.0, le=1.0)]
Positive = Annotated[float, Gt(0.0)]
NotNegative = Annotated[float, Ge(0.0)]
Share = Annotated[float, Interval(gt=0.0, le=1.0)]
Degrees = Annotated[float, Interval(ge=0.0, le=180.0)]


@dataclass(kw_only=True)
class RandomScale:
    """Scales by a factor drawn from [min, max], the aspect kept.

    Attributes:
        min, max: smallest and largest [factor].
        step: only min, min + step, ... up to max are drawn [factor]; 0 = anything between.
    """

    min: Positive = 0.5
    max: Positive = 2.0
    step: NotNegative = 0.0

    def __post_init__(self) -> None:
        require_order("random_scale: min, max", self.min, self.max)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if self.step:
            steps = int((self.max - self.min) / self.step + 1e-9)
            factor = self.min + self.step * int(rng.integers(steps + 1))
        else:
            factor = float(rng.uniform(self.min, self.max))
        height, width = canvas.size
        canvas.stretch((whole_pixels(height * factor), whole_pixels(width * factor)))


@dataclass(kw_only=True)
class RandomRotate:
    """Rotates about the centre by an angle drawn from [-degrees, degrees]; the window grows to hold all corners.

    Attributes:
        degrees: largest angle to either side [degrees].
    """

    degrees: Degrees = 15.0

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        angle = float(rng.uniform(-self.degrees, self.degrees))
        (height, width), sin, cos = canvas.size, abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
        # Rounded up: all of the image stays inside, so a later pad needs no early rendering (Canvas.move).
        size = math.ceil(height * cos + width * sin - 1e-6), math.ceil(height * sin + width * cos - 1e-6)
        to_centre = affine.translation((size[1] - width) / 2, (size[0] - height) / 2)
        canvas.move(affine.compose(affine.rotation(angle, (width / 2, height / 2)), to_centre), size)


@dataclass(kw_only=True)
class PadCrop:
    """Pads right and bottom up to ``size`` (height, width), then takes a random window of exactly ``size``.

    Attributes:
        size: (height, width) [px] of the result.
    """

    size: tuple[Pixels, Pixels]

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        canvas.crop(draw_corner(canvas.size, self.size, rng), self.size)


@dataclass(kw_only=True)
class HorizontalFlip:
    """Mirrors left and right with probability ``p``.

    Attributes:
        p: [probability] of the change.
    """

    mirrors: ClassVar[bool] = True

    p: Probability = 0.5

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if rng.random() < self.p:
            canvas.move(affine.horizontal_flip(canvas.size[1]), canvas.size)


@dataclass(kw_only=True)
class Resize:
    """Stretches to ``size`` (height, width); the aspect is not kept.

    Attributes:
        size: (height, width) [px] of the result.
        interpolation: how the image is resampled; label maps always take the nearest.
    """

    size: tuple[Pixels, Pixels]
    interpolation: Interpolation = "linear"

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:  # noqa: ARG002
        canvas.interpolation = self.interpolation
        canvas.stretch(self.size)


@dataclass(kw_only=True)
class Letterbox:
    """Scales into ``size`` (height, width), aspect kept, and pads both sides equally: what a letterboxed evaluation shows.

    Attributes:
        size: (height, width) [px] of the result.
    """

    size: tuple[Pixels, Pixels]

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:  # noqa: ARG002
        canvas.move(affine.letterbox(canvas.size, self.size), self.size)


@dataclass(kw_only=True)
class Mosaic:
    """Shows the image and three others in the four corners of a ``size`` (height, width) window, with probability ``p``.

    Otherwise the image stays as it is, so follow it with ``letterbox`` of the same size.

    Attributes:
        size: (height, width) [px] of the result.
        p: [probability] of the change.
        scale: every image is fitted into the window and magnified by a [factor] between these, drawn evenly on a log
            scale; a corner shows a random part of it.
        centre: where the corners meet, as [share] of height and of width, lies between these.
        until: [share] of the run after which it ends, so that the last steps see images as they are.

    Source: Bochkovskiy et al. 2020; numbers as in YOLOv7's recipes, which scale all four alike.
    """

    mixes: ClassVar[bool] = True

    size: tuple[Pixels, Pixels]
    p: Probability = 1.0
    scale: tuple[Positive, Positive] = (0.5, 1.5)
    centre: tuple[Share, Share] = (0.25, 0.75)
    until: Probability = 0.9

    def __post_init__(self) -> None:
        require_order("mosaic: scale", *self.scale)
        require_order("mosaic: centre", *self.centre)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if canvas.progress >= self.until or rng.random() >= self.p:
            return
        y, x = (whole_pixels(side * rng.uniform(*self.centre)) for side in self.size)
        mosaic(canvas, self.size, (y, x), [draw_ratio(self.scale, rng) for _ in range(4)], rng)


@dataclass(kw_only=True)
class MixUp:
    """Blends the image with another one, letterboxed to its size, with probability ``p``; the labels of both count.

    A label map keeps only pixels at which both images show the same class.

    Attributes:
        p: [probability] of the change.
        concentration: the share of each image is drawn from Beta(concentration, concentration) [no unit]: about one half;
            the larger, the nearer.
        until: [share] of the run after which it ends.

    Source: Zhang et al. 2018; p and concentration as in YOLOv7's recipes.
    """

    mixes: ClassVar[bool] = True
    shares_classes: ClassVar[bool] = True

    p: Probability = 0.15
    concentration: Positive = 32.0
    until: Probability = 0.9

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if canvas.progress < self.until and rng.random() < self.p:
            blend(canvas, float(rng.beta(self.concentration, self.concentration)), rng)


@dataclass(kw_only=True)
class CutMix:
    """Covers a random rectangle with the same part of another image, stretched to this one's size, with probability ``p``.

    The share of the rectangle is drawn evenly; a class counts by the share of the image that shows it.

    Attributes:
        p: [probability] of the change.
        until: [share] of the run after which it ends.

    Source: Yun et al. 2019.
    """

    mixes: ClassVar[bool] = True
    shares_classes: ClassVar[bool] = True

    p: Probability = 0.5
    until: Probability = 0.9

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if canvas.progress >= self.until or rng.random() >= self.p:
            return
        height, width = canvas.size
        side = math.sqrt(rng.random())
        window = whole_pixels(height * side), whole_pixels(width * side)
        top, left = draw_corner(canvas.size, window, rng)
        cover(canvas, (top, left, top + window[0], left + window[1]), rng)


@dataclass(kw_only=True)
class CopyPaste:
    """Pastes objects of another image, letterboxed to this one's size, over it, with probability ``p``.

    Needs labels with masks. What the objects cover is cut out of this image's masks and label maps.

    Attributes:
        p: [probability] of the change.
        share: each of the other image's objects is pasted with this [probability].
        until: [share] of the run after which it ends.

    Source: Ghiasi et al. 2021, without their jitter of the pasted image.
    """

    mixes: ClassVar[bool] = True

    p: Probability = 0.3
    share: Share = 0.5
    until: Probability = 0.9

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if canvas.progress < self.until and rng.random() < self.p:
            paste(canvas, self.share, rng)


@dataclass(kw_only=True)
class RandomResizedCrop:
    """Takes a window of random area and shape and stretches it to ``size`` (height, width).

    Attributes:
        size: (height, width) [px] of the result.
        area: smallest and largest [share] of the image's area.
        aspect: smallest and largest width / height [factor] of the window, drawn evenly on a log scale.
        interpolation: how the image is resampled; label maps always take the nearest.
    """

    size: tuple[Pixels, Pixels]
    area: tuple[Share, Share] = (0.6, 1.0)
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        require_order("random_resized_crop: area", *self.area)
        require_order("random_resized_crop: aspect", *self.aspect)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        height, width = canvas.size
        window: Size = (height, width)  # when ten draws do not fit (a very long image), all of it
        for _ in range(10):
            area, aspect = height * width * rng.uniform(*self.area), draw_ratio(self.aspect, rng)
            drawn = whole_pixels(math.sqrt(area / aspect)), whole_pixels(math.sqrt(area * aspect))
            if drawn[0] <= height and drawn[1] <= width:
                window = drawn
                break
        canvas.crop(draw_corner(canvas.size, window, rng), window)
        canvas.interpolation = self.interpolation
        canvas.stretch(self.size)


@dataclass(kw_only=True)
class RandomShortSide:
    """Scales so that the short side is one of ``sides``, the aspect kept; the long side gets at most ``max_long``.

    Batches of such images have several sizes: set the source's ``pad``.

    Attributes:
        sides: lengths [px] of the short side, each as likely as the others.
        max_long: longest long side [px]; None = any.
    """

    sides: tuple[Pixels, ...] = (480, 512, 544, 576, 608)
    max_long: Pixels | None = None

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        factor = self.sides[int(rng.integers(len(self.sides)))] / min(canvas.size)
        if self.max_long is not None:
            factor = min(factor, self.max_long / max(canvas.size))
        canvas.stretch((whole_pixels(canvas.size[0] * factor), whole_pixels(canvas.size[1] * factor)))


@dataclass(kw_only=True)
class RandomSizeCrop:
    """Takes a random window whose sides are drawn from [min, max] each; a side of the image that is shorter stays entire.

    Attributes:
        min, max: shortest and longest side of the window [px].
    """

    min: Pixels = 384
    max: Pixels = 600

    def __post_init__(self) -> None:
        require_order("random_size_crop: min, max", self.min, self.max)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        height, width = (
            side if side <= self.min else int(rng.integers(self.min, min(side, self.max), endpoint=True))
            for side in canvas.size
        )
        canvas.crop(draw_corner(canvas.size, (height, width), rng), (height, width))


@dataclass(kw_only=True)
class OneOf:
    """Runs one of several lists of transforms, each as likely as the others.

    Attributes:
        options: the lists; an empty one leaves the image as it is.
    """

    options: tuple[tuple[Annotated[Callable[..., Any], Part("ppmtl.data.transforms")], ...], ...] = ((),)

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("one_of: options is empty; give lists of transforms")
        self._made = [[make() for make in option] for option in self.options]

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        for transform in self._made[int(rng.integers(len(self._made)))]:
            transform(canvas, rng)


@dataclass(kw_only=True)
class RandomBoxCrop:
    """Takes a random window whose sides are a random part of the image's, with at least one object in it.

    Height and width are drawn independently. A box stays when its centre lies in the window and enough of it is
    visible; it is clipped. Images without boxes are cropped anyhow. When ``tries`` windows hold no object (a sign in
    a corner), the last one is moved over a randomly chosen box.

    Attributes:
        min_side, max_side: smallest and largest side of the window, as part [share] of the image's side.
        aspect: smallest and largest height / width [factor] of the window in pixels.
        tries: windows drawn at most [draws] until one holds an object.
        min_visible: boxes of which a smaller [share] of the area is in the window are dropped.
        min_box_side: boxes whose clipped side is shorter are dropped [px], before any later resize.
    """

    min_side: Share = 0.3
    max_side: Share = 0.6
    aspect: tuple[Positive, Positive] = (0.5, 2.0)
    tries: Annotated[int, Ge(1)] = 50
    min_visible: Probability = 0.15
    min_box_side: NotNegative = 2.0

    def __post_init__(self) -> None:
        require_order("random_box_crop: min_side, max_side", self.min_side, self.max_side)
        require_order("random_box_crop: aspect", *self.aspect)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        boxes = canvas.boxes
        for _ in range(self.tries):
            size = self._draw_size(canvas.size, rng)
            corner = draw_corner(canvas.size, size, rng)
            kept = self._kept(boxes, corner, size)
            if kept.any() or not len(boxes):
                break
        else:
            corner = corner_around(boxes[int(rng.integers(len(boxes)))], canvas.size, size, rng)
            kept = self._kept(boxes, corner, size)
        canvas.keep_boxes(kept)
        canvas.min_visible = min(canvas.min_visible, self.min_visible)
        canvas.crop(corner, size)

    def _draw_size(self, whole: Size, rng: np.random.Generator) -> Size:
        for _ in range(50):  # the last draw is taken whatever its aspect (very long images)
            height, width = (whole_pixels(side * rng.uniform(self.min_side, self.max_side)) for side in whole)
            if self.aspect[0] <= height / width <= self.aspect[1]:
                break
        return height, width

    def _kept(self, boxes: np.ndarray, corner: tuple[int, int], size: Size) -> np.ndarray:
        (top, left), (height, width) = corner, size
        window = np.array([left, top, left + width, top + height], np.float32)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        centred = ((centres >= window[:2]) & (centres < window[2:])).all(axis=1)
        sides = np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2])
        visible = visible_shares(boxes, window.tolist()) >= self.min_visible
        kept: np.ndarray = centred & visible & (sides >= self.min_box_side).all(axis=1)
        return kept


@dataclass(kw_only=True)
class CropAroundBox:
    """Takes a window of a fixed size around a randomly chosen box: for few images with small objects.

    Entire images show a small network almost only background; windows of about a quarter of the image around the
    signs are what made detection learn from some hundred street scenes. Follow it with ``resize`` to enlarge.

    Attributes:
        size: (height, width) [px] of the result.
        p_background: [probability] of a window anywhere; images without boxes always get one. Two numbers: at the start and
            at the end of the run, changing evenly. Many of them cost accuracy while the objects are being learned and
            bring much of it afterwards, when what is wrong are boxes on background.
        scale: smallest and largest magnification [factor], drawn evenly on a log scale: the window covers size / magnification.
        partial: a window that shows between these [share] of any box is drawn again (``tries`` times); boxes of which
            less than ``partial[1]`` is visible are dropped.
        tries: windows drawn at most [draws].
    """

    size: tuple[Pixels, Pixels]
    p_background: Probability | tuple[Probability, Probability] = 0.1
    scale: tuple[Positive, Positive] = (0.8, 1.25)
    partial: tuple[Probability, Probability] = (0.1, 0.5)
    tries: Annotated[int, Ge(1)] = 20

    def __post_init__(self) -> None:
        require_order("crop_around_box: scale", *self.scale)
        require_order("crop_around_box: partial", *self.partial)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        boxes = canvas.boxes
        ends = self.p_background if isinstance(self.p_background, tuple) else (self.p_background, self.p_background)
        p_background = ends[0] + canvas.progress * (ends[1] - ends[0])
        anywhere = bool(rng.random() < p_background) or not len(boxes)
        for _ in range(self.tries):
            magnification = draw_ratio(self.scale, rng)
            window = whole_pixels(self.size[0] / magnification), whole_pixels(self.size[1] / magnification)
            if anywhere:
                corner = draw_corner(canvas.size, window, rng)
            else:
                corner = corner_around(boxes[int(rng.integers(len(boxes)))], canvas.size, window, rng)
            top, left = corner
            shares = visible_shares(boxes, (left, top, left + window[1], top + window[0]))
            if not ((shares > self.partial[0]) & (shares < self.partial[1])).any():
                break
        canvas.keep_boxes(shares >= self.partial[1])
        canvas.crop(corner, window)
        canvas.stretch(self.size)


@dataclass(kw_only=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, each with probability ``p``, in random order.

    The changes are composed into one matrix: one pass over uint8 pixels, clipped once at the end (libraries that work
    step by step clip after each).

    Attributes:
        brightness: [factor] drawn from [1 - brightness, 1 + brightness]; 0 = off.
        contrast: [factor] likewise, about the mean grey.
        saturation: [factor] likewise, about each pixel's grey.
        hue: [degrees] of the colour circle, drawn from [-hue, hue].
        p: [probability] of each change.
    """

    brightness: Probability = 0.4
    contrast: Probability = 0.4
    saturation: Probability = 0.4
    hue: Degrees = 0.0
    p: Probability = 0.5

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        image = canvas.image
        mean, matrix = np.array([*cv2.mean(image)[:3], 1.0]), np.eye(4)
        for number in rng.permutation(4):
            chosen, at = rng.random() < self.p, rng.uniform(-1.0, 1.0)
            if not chosen:
                continue
            if number == 0:
                change = _colour.brightness(1 + at * self.brightness)
            elif number == 1:
                change = _colour.contrast(1 + at * self.contrast, float(_colour.GREY @ (matrix @ mean)[:3]))
            elif number == 2:
                change = _colour.saturation(1 + at * self.saturation)
            else:
                change = _colour.hue(at * self.hue)
            matrix = change @ matrix
        if not np.array_equal(matrix, np.eye(4)):
            canvas.image = _colour.apply(matrix, image)


@dataclass(kw_only=True)
class SaturationJitter:
    """Blends the image with its grey version, with probability ``p``; factor 1 leaves it as it is.

    Attributes:
        p: [probability] of the change.
        min, max: smallest and largest [factor]: 0 = grey, 1 = as it is.

    Source: Pillow's ``ImageEnhance.Color`` with a factor from [min, max].
    """

    p: Probability = 0.5
    min: NotNegative = 0.6
    max: NotNegative = 1.4

    def __post_init__(self) -> None:
        require_order("saturation_jitter: min, max", self.min, self.max)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if rng.random() < self.p:
            canvas.image = _colour.apply(_colour.saturation(float(rng.uniform(self.min, self.max))), canvas.image)


@dataclass(kw_only=True)
class AutoAugment:
    """Runs one of the 25 pairs of operations that AutoAugment found for ImageNet, with probability ``p``.

    Turns by up to 30 degrees, shears, posterises, solarises, equalises, inverts, changes colour, contrast and sharpness.

    Attributes:
        p: [probability] of the change.

    Source: Cubuk et al., CVPR 2019, table 9; colour operations are Pillow's.
    """

    p: Probability = 0.5

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if rng.random() >= self.p:
            return
        for step in _autoaugment.IMAGENET[int(rng.integers(len(_autoaugment.IMAGENET)))]:
            chosen, sign = rng.random() < step.probability, 1 if rng.random() < 0.5 else -1
            if chosen:
                _autoaugment.apply(step, canvas, sign)


@dataclass(kw_only=True)
class RandomBlur:
    """Blurs with a Gaussian of odd kernel 3, 5, 7 or 9 (OpenCV's sigma for it), with probability ``p``.

    Attributes:
        p: [probability] of the change. 1/3 is what PaddleSeg's ``RandomBlur(prob=0.3)`` really does: it draws from
            int(1 / 0.3) = 3 numbers.
    """

    p: Probability = 1 / 3

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if rng.random() < self.p:
            kernel = int(rng.integers(3, 10)) | 1  # even numbers go up, so 3 comes half as often; as in PaddleSeg
            canvas.image = cv2.GaussianBlur(canvas.image, (kernel, kernel), 0)


@dataclass(kw_only=True)
class RandomErasing:
    """Covers a random rectangle with noise that is standard normal after normalisation, with probability ``p``.

    The model normalises, so the noise is written as (noise * std + mean) * 255, float32 and not clipped.

    Attributes:
        p: [probability] of the change.
        area: smallest and largest [share] of the image.
        aspect: smallest and largest height / width [factor], drawn evenly on a log scale.
        mean, std: the model's, of RGB [0 to 1]. Said again here, because data are read without a model.

    Source: timm's ``RandomErasing(mode="pixel", count=1)``: ten draws, none when no rectangle fits.
    """

    p: Probability = 0.5
    area: tuple[Share, Share] = (0.02, 1 / 3)
    aspect: tuple[Positive, Positive] = (0.3, 3.3)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        require_order("random_erasing: area", *self.area)
        require_order("random_erasing: aspect", *self.aspect)

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if rng.random() >= self.p:
            return
        height, width = canvas.size
        for _ in range(10):
            area, aspect = height * width * rng.uniform(*self.area), draw_ratio(self.aspect, rng)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                top, left = draw_corner(canvas.size, (h, w), rng)
                noise = rng.standard_normal((h, w, 3), np.float32)
                noise = (noise * np.array(self.std, np.float32) + np.array(self.mean, np.float32)) * 255
                image = canvas.image.astype(np.float32)
                image[top : top + h, left : left + w] = noise
                canvas.image = image
                return
