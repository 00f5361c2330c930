"""Our transforms against the suites' where the paper's recipe comes from: the same draw must give the same image.

Both sides' random numbers are scripted. Each op is compared alone: where two follow each other the suites interpolate twice
and we once. Grey levels are of 255.
"""

import contextlib
import math
import random
from unittest import mock

import cv2
import numpy as np
import pytest
from references import Row, levels, need, parity, patch_timm, release
from samples import boxes_of, make_sample, map_of

from ppmtl.data import transforms
from ppmtl.data.canvas import augment
from ppmtl.ops import affine
from ppmtl.structures import Sample

LEVEL = "a grey level: uint8 here, float32 or truncated steps there"
EXACT = "the same pixels are copied"


class Script:
    """A random generator whose answers were written down: each method gives its own list, in order."""

    def __init__(self, draws):
        self._draws = {name: list(values) for name, values in draws.items()}

    def __getattr__(self, name):
        return lambda *_, **__: self._draws[name].pop(0)


@contextlib.contextmanager
def scripted(module, draws):
    """Replaces functions of ``numpy.random`` or ``random`` by written-down answers."""
    script = Script(draws)
    with contextlib.ExitStack() as stack:
        for name in draws:
            stack.enter_context(mock.patch.object(module, name, getattr(script, name)))
        yield


def scene(height=96, width=150):
    """An RGB image with edges and gradients, of levels 30 to 220 so that colour changes need not clip."""
    coarse = np.random.RandomState(3).randint(30, 221, (height // 6, width // 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(30, 220).astype(np.uint8)


def labels(height=96, width=150):
    """A label map whose value is the column, so that a shift can be read in pixels."""
    return np.tile(np.arange(width, dtype=np.uint8), (height, 1))


def ours(transform, draws, image=None, **values):
    """The sample after one of our transforms with scripted draws."""
    sample = make_sample(scene() if image is None else image, **(values or {"label_map": labels()}))
    return augment(sample, [transform], Script(draws))


def paddleseg(name, draws, shuffle=(), **values):
    """PaddleSeg's dictionary after one of its transforms; images are float32 there, as its loader makes them."""
    transform = getattr(need("paddleseg.transforms"), name)(**values)
    data = {"img": scene().astype(np.float32), "label": labels(), "gt_fields": ["label"], "trans_info": []}
    order = (lambda ops: ops.__setitem__(slice(None), [ops[i] for i in shuffle])) if shuffle else (lambda _: None)
    with scripted(np.random, draws), mock.patch.object(random, "shuffle", order):
        return transform(data)


def row(component, quantity, difference, tolerance, reason, reference=""):
    return Row(component, quantity, reference or release("paddleseg"), float(difference), float(tolerance), reason)


@parity("random_scale", "paddleseg")
@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 2.0])
def test_random_scale(factor, compare):
    theirs = paddleseg("ResizeStepScaling", {}, min_scale_factor=factor, max_scale_factor=factor)
    mine = ours(transforms.RandomScale(min=factor, max=factor), {"uniform": [factor]})
    title, shift = f"x {factor:g}", levels(map_of(mine), theirs["label"])
    half = "half an output pixel: cv2.INTER_NEAREST is shifted, ours keeps the half-pixel convention"
    compare(
        row("random_scale", f"{title}: picture, levels", levels(mine.image, theirs["img"]), 1, LEVEL),
        row("random_scale", f"{title}: label map, shift in source px", shift, math.ceil(0.5 / factor), half),
    )


@parity("random_rotate", "paddleseg")
@pytest.mark.parametrize("angle", [-15.0, 6.5])
def test_random_rotate(angle, compare):
    theirs = paddleseg("RandomRotation", {"uniform": [angle]})["img"]
    mine = ours(transforms.RandomRotate(degrees=15), {"uniform": [angle]}).image
    there, here = (np.array(image.shape[1::-1]) for image in (theirs, mine))  # (width, height)
    # (dx, dy), how far PaddleSeg's rotated image lies from ours. Its width and height here are even
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    shift = (there - here) / 2 + 0.5 - np.array([[cos, sin], [-sin, cos]]) @ [0.5, 0.5]
    image = scene()
    height, width = image.shape[:2]
    turn = affine.rotation(angle, (width / 2, height / 2))
    move = affine.compose(turn, affine.translation(*((here - (width, height)) / 2 + shift)))
    aligned = affine.warp(image, move, theirs.shape[:2], "linear", 127)
    centre = "the centre is a pixel's corner here and its middle there; the canvas as above"
    growth, title = np.abs(here - there).max(), f"{angle:g} deg"
    compare(
        row("random_rotate", f"{title}: canvas, px", growth, 1, "rounded up here, cut off there"),
        row("random_rotate", f"{title}: position, px", np.hypot(*shift), 1, centre),
        row("random_rotate", f"{title}: picture at the same position, levels", levels(aligned, theirs), 1, LEVEL),
    )


@parity("pad_crop", "paddleseg")
@pytest.mark.parametrize("title, size, draws", [("inside", (64, 100), [17, 31]), ("padded", (120, 200), [0, 0])])
def test_pad_crop(title, size, draws, compare):
    theirs = paddleseg("RandomPaddingCrop", {"randint": draws}, crop_size=size[::-1])
    mine = ours(transforms.PadCrop(size=size), {"integers": draws})
    padding = "padding is 127 here and 127.5 there; the rest is exact"
    compare(
        row("pad_crop", f"{title}: picture, levels", levels(mine.image, theirs["img"]), 0.5, padding),
        row("pad_crop", f"{title}: label map", levels(map_of(mine), theirs["label"]), 0, EXACT),
    )


@parity("horizontal_flip", "paddleseg")
def test_horizontal_flip(compare):
    with mock.patch.object(random, "random", return_value=0.1):
        theirs = paddleseg("RandomHorizontalFlip", {}, prob=0.5)
    mine = ours(transforms.HorizontalFlip(p=0.5), {"random": [0.1]})
    compare(
        row("horizontal_flip", "picture, levels", levels(mine.image, theirs["img"]), 0, EXACT),
        row("horizontal_flip", "label map", levels(map_of(mine), theirs["label"]), 0, EXACT),
    )


@parity("color_jitter", "paddleseg")
def test_color_jitter(compare):
    # The op's place in PaddleSeg's list (brightness, contrast, saturation, sharpness, hue) and in ours is the same
    rows = []
    for number, name in enumerate(("brightness", "contrast", "saturation")):
        worst = max(levels(*coloured([number], [at])) for at in (-1.0, -0.4, 0.3, 1.0))
        rows.append(row("color_jitter", f"{name} .6 to 1.4: picture, levels", worst, 1, LEVEL))
    every = levels(*coloured([2, 0, 1], [0.5, -0.5, -0.8]))
    reason = "three roundings there, one here; no pixel clips in this picture"
    compare(*rows, row("color_jitter", "all three in turn: picture, levels", every, 3, reason))


def coloured(order, at):
    """Our image and PaddleSeg's after the chosen changes; ``at`` in -1..1 is the place in the range."""
    others, unused = ([i for i in range(count) if i not in order] for count in (5, 4))
    draws = [number for place in at for number in (0.0, 1 + 0.4 * place)]  # does it happen? by how much?
    ranges = {f"{name}_range": 0.4 for name in ("brightness", "contrast", "saturation")}
    theirs = paddleseg("RandomDistort", {"uniform": [*draws, *[1.0] * len(others)]}, [*order, *others], **ranges)
    script = {
        "permutation": [[*order, *unused]],
        "random": [*[0.0] * len(order), *[1.0] * len(unused)],
        "uniform": [*at, *[0.0] * len(unused)],
    }
    return ours(transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4), script).image, theirs["img"]


@parity("random_blur", "paddleseg")
def test_random_blur(compare):
    worst = 0.0
    for kernel in (3, 5, 7, 9):
        theirs = paddleseg("RandomBlur", {"randint": [0, kernel]}, prob=0.3)["img"]
        mine = ours(transforms.RandomBlur(), {"random": [0.0], "integers": [kernel]}).image
        worst = max(worst, levels(mine, theirs))
    # PaddleSeg draws 3..9 and makes even numbers odd
    rng, image = np.random.default_rng(0), np.zeros((1, 1, 3), np.uint8)
    with mock.patch.object(cv2, "GaussianBlur", return_value=image) as blur:
        for _ in range(20_000):
            augment(Sample("parity", image), [transforms.RandomBlur(p=1.0)], rng)
    seen = [call.args[1][0] for call in blur.call_args_list]
    odds = max(abs(seen.count(kernel) / len(seen) - share / 7) for kernel, share in ((3, 1), (5, 2), (7, 2), (9, 2)))
    compare(
        row("random_blur", "kernels 3, 5, 7, 9: picture, levels", worst, 0, "the same OpenCV call"),
        row("random_blur", "probability of each kernel", odds, 0.02, "20,000 draws of ours, odds there known"),
    )


@parity("resize", "paddleseg")
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_resize(interpolation, compare):
    theirs = paddleseg("Resize", {}, target_size=(112, 88), interp=interpolation.upper())["img"]
    mine = ours(transforms.Resize(size=(88, 112), interpolation=interpolation), {}).image
    compare(row("resize", f"{interpolation}, stretched: picture, levels", levels(mine, theirs), 1, LEVEL))


@parity("random_erasing", "timm", "torch")
def test_random_erasing(compare):
    torch, _, module = need("torch"), patch_timm(), need("timm.data.random_erasing")
    area, aspect, top, left = 0.1, math.log(1.7), 20, 33
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    size, image = 96 * 150 * area, scene()
    sides = round(math.sqrt(size * 1.7)), round(math.sqrt(size / 1.7))
    block = np.random.RandomState(5).randn(*sides, 3).astype(np.float32)
    x = torch.from_numpy(((image / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1).copy())
    pixels = torch.from_numpy(block.transpose(2, 0, 1).copy())
    draws = {"random": [0.0], "uniform": [area, aspect], "randint": [top, left]}
    with scripted(random, draws), mock.patch.object(module, "_get_pixels", return_value=pixels):
        module.RandomErasing(probability=1, mode="pixel", device="cpu")(x)
    draws = {"random": [0.0], "uniform": [area, aspect], "integers": [top, left], "standard_normal": [block]}
    mine = (ours(transforms.RandomErasing(p=1.0), draws).image / 255 - mean) / std
    difference, reason = levels(mine.transpose(2, 0, 1), x.numpy()), "float32; ours goes through 0..255 and back"
    reference = f"{release('timm')}, {release('torch')}"
    compare(row("random_erasing", "network input, standard deviations", difference, 1e-5, reason, reference))


@parity("random_box_crop", "paddledet")
@pytest.mark.parametrize(
    "title, sides, corner", [("whole-pixel sides", [0.5, 0.45], [20, 30]), ("odd sides", [0.338, 0.4177], [33, 44])]
)
def test_random_box_crop(title, sides, corner, compare):
    module, reference = need("ppdet.data.transform.operators"), release("paddledet")
    image = scene(200, 300)
    boxes = np.array(  # inside; inside; centre in, corner out; corner in, centre out; outside
        [[50, 40, 70, 60], [90, 60, 130, 80], [20, 50, 74, 80], [150, 90, 230, 160], [5, 5, 15, 15]], np.float32
    )
    sample = {"image": image.copy(), "gt_bbox": boxes.copy(), "gt_class": np.arange(5)[:, None]}
    # its first draw, a scale, is not used without aspect_ratio
    with scripted(np.random, {"uniform": [0.3, *sides], "randint": corner, "shuffle": [None]}):
        theirs = module.RandomCrop(None, [0.0], [0.3, 0.6], allow_no_crop=False).random_crop(sample)
    transform = transforms.RandomBoxCrop(min_visible=0.0, min_box_side=0.0)
    mine = ours(transform, {"uniform": sides, "integers": corner}, image, boxes=boxes)
    shapes = np.array([mine.image.shape[:2], theirs["image"].shape[:2]])
    (h, w), side = shapes.min(axis=0), np.abs(shapes[0] - shapes[1]).max()
    same = boxes_of(mine).classes.tolist() == theirs["gt_class"].ravel().tolist()
    off = levels(boxes_of(mine).boxes, theirs["gt_bbox"]) if same else np.inf
    images, kept = levels(mine.image[:h, :w], theirs["image"][:h, :w]), f"{len(boxes_of(mine).boxes)} boxes kept"
    compare(
        row("random_box_crop", f"{title}: window, px", side, 1, "rounded here, cut off there", reference),
        row("random_box_crop", f"{title}: picture, levels", images, 0, EXACT, reference),
        row("random_box_crop", f"{title}: {kept}, px", off, side, "boxes are clipped to the window", reference),
    )
