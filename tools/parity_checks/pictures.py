"""Our transforms against the suites' where the paper's recipe comes from: the same draw must give the same picture.

Both sides' random numbers are scripted. Each op is compared alone: where two follow each other the suites interpolate twice
and we once. Grey levels are of 255.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import cv2
import numpy as np

from parity_checks.outcome import NotRun, Outcome, need, not_run, release
from ppmtl.data import transforms
from ppmtl.data.canvas import Transform, augment
from ppmtl.ops import affine
from ppmtl.structures import Sample

LEVEL = "a grey level: uint8 here, float32 or truncated steps there"
EXACT = "the same pixels are copied"
Draws = Mapping[str, Sequence[Any]]


def checks() -> Iterator[Outcome]:
    """Yields the rows of the transforms."""
    seg, det = release("paddleseg"), release("paddledet")
    runs: tuple[tuple[Callable[[], Iterator[Outcome]], str, str], ...] = (
        (_scale, "random_scale", seg),
        (_rotate, "random_rotate", seg),
        (_pad_crop, "pad_crop", seg),
        (_flip, "horizontal_flip", seg),
        (_colour, "color_jitter", seg),
        (_blur, "random_blur", seg),
        (_resize, "resize", seg),
        (_erase, "random_erasing", release("timm")),
        (_box_crop, "random_box_crop", det),
    )
    for run, title, reference in runs:
        try:
            yield from run()
        except NotRun as reason:
            yield not_run(title, reference, str(reason))


class Script:
    """A random generator whose answers were written down: each method gives its own list, in order."""

    def __init__(self, draws: Draws) -> None:
        self._draws = {name: list(values) for name, values in draws.items()}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: self._draws[name].pop(0)


@contextlib.contextmanager
def scripted(module: Any, draws: Draws) -> Iterator[None]:
    """Replaces functions of ``numpy.random`` or ``random`` by written-down answers."""
    script = Script(draws)
    with contextlib.ExitStack() as stack:
        for name in draws:
            stack.enter_context(mock.patch.object(module, name, getattr(script, name)))
        yield


def scene(height: int = 96, width: int = 150) -> np.ndarray:
    """Returns an RGB picture with edges and gradients, of levels 30 to 220 so that colour changes need not clip."""
    rng = np.random.RandomState(3)
    coarse = rng.randint(30, 221, (height // 6, width // 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(30, 220).astype(np.uint8)


def labels(height: int = 96, width: int = 150) -> np.ndarray:
    """Returns a label map whose value is the column, so that a shift can be read in pixels."""
    return np.tile(np.arange(width, dtype=np.uint8), (height, 1))


def ours(transform: Transform, draws: Draws, image: np.ndarray, **values: Any) -> Sample:
    """Returns the sample after one of our transforms with scripted draws."""
    return augment(Sample("parity", image, **values), [transform], Script(draws))  # type: ignore[arg-type]


def paddleseg(name: str, image: np.ndarray, draws: Draws, shuffle: Sequence[int] = (), **values: Any) -> dict[str, Any]:
    """Returns PaddleSeg's dictionary after one of its transforms; pictures are float32 there, as its loader makes them."""
    module = need("paddleseg.transforms", "paddleseg")
    data = {
        "img": image.astype(np.float32),
        "label": labels(*image.shape[:2]),
        "gt_fields": ["label"],
        "trans_info": [],
    }
    order = (lambda ops: ops.__setitem__(slice(None), [ops[i] for i in shuffle])) if shuffle else (lambda _: None)
    with scripted(np.random, draws), mock.patch.object(random, "shuffle", order):
        result: dict[str, Any] = getattr(module, name)(**values)(data)
    return result


def levels(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference in grey levels; inf when the sizes differ."""
    if mine.shape != theirs.shape:
        return float("inf")
    return float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max())


def _scale() -> Iterator[Outcome]:
    for factor in (0.5, 0.75, 1.25, 2.0):
        theirs = paddleseg("ResizeStepScaling", scene(), {}, min_scale_factor=factor, max_scale_factor=factor)
        mine = ours(transforms.RandomScale(min=factor, max=factor), {"uniform": [factor]}, scene(), label_map=labels())
        title = f"x {factor:g}"
        yield _row("random_scale", f"{title}: picture, levels", levels(mine.image, theirs["img"]), 1, LEVEL)
        assert mine.label_map is not None
        shift = levels(mine.label_map, theirs["label"])
        yield _row("random_scale", f"{title}: label map, shift in source px", shift, math.ceil(0.5 / factor),
                   "half an output pixel: cv2.INTER_NEAREST is shifted, ours keeps the half-pixel convention")  # fmt: skip


def _rotate() -> Iterator[Outcome]:
    for angle in (-15.0, 6.5):
        theirs = paddleseg("RandomRotation", scene(), {"uniform": [angle]})["img"]
        mine = ours(transforms.RandomRotate(degrees=15), {"uniform": [angle]}, scene()).image
        growth = max(abs(a - b) for a, b in zip(mine.shape[:2], theirs.shape[:2], strict=True))
        yield _row("random_rotate", f"{angle:g} deg: canvas, px", growth, 1, "rounded up here, cut off there")
        shift = _rotation_shift(angle, mine.shape[:2], theirs.shape[:2])
        yield _row("random_rotate", f"{angle:g} deg: position, px", float(np.hypot(*shift)), 1,
                   "the centre is a pixel's corner here and its middle there; the canvas as above")  # fmt: skip
        aligned = _rotated(angle, shift, mine.shape[:2], theirs.shape[:2])
        yield _row("random_rotate", f"{angle:g} deg: picture at the same position, levels", levels(aligned, theirs), 1,
                   LEVEL)  # fmt: skip


def _rotation_shift(angle: float, mine: tuple[int, ...], theirs: tuple[int, ...]) -> np.ndarray:
    """Returns (dx, dy), how far PaddleSeg's rotated picture lies from ours. Its width and height here are even."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    half = np.array([0.5, 0.5])
    turned = np.array([[cos, sin], [-sin, cos]]) @ half
    return (np.array(theirs[1::-1]) - np.array(mine[1::-1])) / 2 + half - turned


def _rotated(angle: float, shift: np.ndarray, mine: tuple[int, ...], theirs: tuple[int, ...]) -> np.ndarray:
    image = scene()
    height, width = image.shape[:2]
    move = affine.compose(
        affine.rotation(angle, (width / 2, height / 2)),
        affine.translation((mine[1] - width) / 2 + shift[0], (mine[0] - height) / 2 + shift[1]),
    )
    return affine.warp(image, move, (theirs[0], theirs[1]), "linear", 127)


def _pad_crop() -> Iterator[Outcome]:
    for title, size, top, left in (("inside", (64, 100), 17, 31), ("padded", (120, 200), 0, 0)):
        draws = [top, left]
        theirs = paddleseg("RandomPaddingCrop", scene(), {"randint": draws}, crop_size=size[::-1])
        mine = ours(transforms.PadCrop(size=size), {"integers": draws}, scene(), label_map=labels())
        assert mine.label_map is not None
        yield _row("pad_crop", f"{title}: picture, levels", levels(mine.image, theirs["img"]), 0.5,
                   "padding is 127 here and 127.5 there; the rest is exact")  # fmt: skip
        yield _row("pad_crop", f"{title}: label map", levels(mine.label_map, theirs["label"]), 0, EXACT)


def _flip() -> Iterator[Outcome]:
    module = need("paddleseg.transforms", "paddleseg")
    with mock.patch.object(random, "random", return_value=0.1):
        theirs = module.RandomHorizontalFlip(0.5)({"img": scene(), "label": labels(), "gt_fields": ["label"]})
    mine = ours(transforms.HorizontalFlip(p=0.5), {"random": [0.1]}, scene(), label_map=labels())
    assert mine.label_map is not None
    yield _row("horizontal_flip", "picture, levels", levels(mine.image, theirs["img"]), 0, EXACT)
    yield _row("horizontal_flip", "label map", levels(mine.label_map, theirs["label"]), 0, EXACT)


def _colour() -> Iterator[Outcome]:
    # The op's place in PaddleSeg's list (brightness, contrast, saturation, sharpness, hue) and in ours is the same
    names = ("brightness", "contrast", "saturation")
    for number, name in enumerate(names):
        worst = 0.0
        for at in (-1.0, -0.4, 0.3, 1.0):
            worst = max(worst, levels(*_coloured([number], [at])))
        yield _row("color_jitter", f"{name} .6 to 1.4: picture, levels", worst, 1, LEVEL)
    yield _row("color_jitter", "all three in turn: picture, levels", levels(*_coloured([2, 0, 1], [0.5, -0.5, -0.8])), 3,
               "three roundings there, one here; no pixel clips in this picture")  # fmt: skip


def _coloured(order: Sequence[int], at: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns our picture and PaddleSeg's after the chosen changes; ``at`` in -1..1 is the place in the range."""
    rest = [i for i in range(5) if i not in order]
    uniform: list[float] = []
    for place in at:
        uniform += [0.0, 1 + 0.4 * place]  # does it happen? by how much?
    uniform += [1.0] * len(rest)
    theirs = paddleseg("RandomDistort", scene(), {"uniform": uniform}, shuffle=[*order, *rest], brightness_range=0.4,
                       contrast_range=0.4, saturation_range=0.4)["img"]  # fmt: skip
    unused = [i for i in range(4) if i not in order]
    mine = ours(
        transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        {
            "permutation": [[*order, *unused]],
            "random": [*[0.0] * len(order), *[1.0] * len(unused)],
            "uniform": [*at, *[0.0] * len(unused)],
        },
        scene(),
    )
    return mine.image, theirs


def _blur() -> Iterator[Outcome]:
    worst = 0.0
    for kernel in (3, 5, 7, 9):
        theirs = paddleseg("RandomBlur", scene(), {"randint": [0, kernel]}, prob=0.3)["img"]
        draws: Draws = {"random": [0.0], "integers": [kernel]}
        worst = max(worst, levels(ours(transforms.RandomBlur(), draws, scene()).image, theirs))
    yield _row("random_blur", "kernels 3, 5, 7, 9: picture, levels", worst, 0, "the same OpenCV call")
    yield _row(
        "random_blur", "probability of each kernel", _kernel_odds(), 0.02, "20,000 draws of ours, odds there known"
    )


def _kernel_odds() -> float:
    """Returns the largest difference in how often each kernel comes; PaddleSeg draws 3..9 and makes even ones odd."""
    rng, image = np.random.default_rng(0), np.zeros((1, 1, 3), np.uint8)
    transform = transforms.RandomBlur(p=1.0)
    with mock.patch.object(cv2, "GaussianBlur", return_value=image) as blur:
        for _ in range(20_000):
            augment(Sample("parity", image), [transform], rng)
    seen = [call.args[1][0] for call in blur.call_args_list]
    return max(abs(seen.count(kernel) / len(seen) - odds / 7) for kernel, odds in ((3, 1), (5, 2), (7, 2), (9, 2)))


def _resize() -> Iterator[Outcome]:
    for interpolation, name in (("cubic", "CUBIC"), ("linear", "LINEAR")):
        theirs = paddleseg("Resize", scene(), {}, target_size=(112, 88), interp=name)["img"]
        mine = ours(transforms.Resize(size=(88, 112), interpolation=interpolation), {}, scene()).image  # type: ignore[arg-type]
        yield _row("resize", f"{interpolation}, stretched: picture, levels", levels(mine, theirs), 1, LEVEL)


def _erase() -> Iterator[Outcome]:
    torch = need("torch", "torch")
    from parity_checks.backbone import import_timm  # only here: the other rows need no torch

    import_timm()
    module = need("timm.data.random_erasing", "timm")
    area, aspect, top, left = 0.1, math.log(1.7), 20, 33
    image, noise = scene(), np.random.RandomState(5)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    size = 96 * 150 * area
    h, w = round(math.sqrt(size * 1.7)), round(math.sqrt(size / 1.7))
    block = noise.randn(h, w, 3).astype(np.float32)
    x = torch.from_numpy(((image / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1).copy())
    theirs = module.RandomErasing(probability=1, mode="pixel", device="cpu")
    pixels = torch.from_numpy(block.transpose(2, 0, 1).copy())
    draws: Draws = {"random": [0.0], "uniform": [area, aspect], "randint": [top, left]}
    with scripted(random, draws), mock.patch.object(module, "_get_pixels", return_value=pixels):
        theirs(x)
    mine = ours(
        transforms.RandomErasing(p=1.0),
        {"random": [0.0], "uniform": [area, aspect], "integers": [top, left], "standard_normal": [block]},
        image,
    ).image
    normalised = (mine / 255 - mean) / std
    difference = levels(normalised.transpose(2, 0, 1), x.numpy())
    yield _row("random_erasing", "network input, standard deviations", difference, 1e-5,
               "float32; ours goes through 0..255 and back", f"{release('timm')}, {release('torch')}")  # fmt: skip


def _box_crop() -> Iterator[Outcome]:
    module = need("ppdet.data.transform.operators", "paddledet")
    reference = release("paddledet")
    image = scene(200, 300)
    boxes = np.array(  # inside; inside; centre in, corner out; corner in, centre out; outside
        [[50, 40, 70, 60], [90, 60, 130, 80], [20, 50, 74, 80], [150, 90, 230, 160], [5, 5, 15, 15]], np.float32
    )
    for title, height, width, top, left in (
        ("whole-pixel sides", 0.5, 0.45, 20, 30),
        ("odd sides", 0.338, 0.4177, 33, 44),
    ):
        sample = {"image": image.copy(), "gt_bbox": boxes.copy(), "gt_class": np.arange(5)[:, None]}
        op = module.RandomCrop(None, [0.0], [0.3, 0.6], allow_no_crop=False)
        # its first draw, a scale, is not used without aspect_ratio
        with scripted(np.random, {"uniform": [0.3, height, width], "randint": [top, left], "shuffle": [None]}):
            theirs = op.random_crop(sample)
        draws: Draws = {"uniform": [height, width], "integers": [top, left]}
        transform = transforms.RandomBoxCrop(min_visible=0.0, min_box_side=0.0)
        mine = ours(transform, draws, image, boxes=boxes, box_labels=np.arange(5))
        side = max(abs(a - b) for a, b in zip(mine.size, theirs["image"].shape[:2], strict=True))
        yield _row("random_box_crop", f"{title}: window, px", side, 1, "rounded here, cut off there", reference)
        h, w = (min(a, b) for a, b in zip(mine.size, theirs["image"].shape[:2], strict=True))
        pictures = levels(mine.image[:h, :w], theirs["image"][:h, :w])
        yield _row("random_box_crop", f"{title}: picture, levels", pictures, 0, EXACT, reference)
        assert mine.boxes is not None
        assert mine.box_labels is not None
        same = mine.box_labels.tolist() == theirs["gt_class"].ravel().tolist()
        off = levels(mine.boxes, theirs["gt_bbox"]) if same else float("inf")
        yield _row("random_box_crop", f"{title}: {len(mine.boxes)} boxes kept, px", off, side,
                   "boxes are clipped to the window", reference)  # fmt: skip


def _row(
    component: str, quantity: str, difference: float, tolerance: float, reason: str, reference: str = ""
) -> Outcome:
    return Outcome(component, quantity, reference or release("paddleseg"), float(difference), float(tolerance), reason)
