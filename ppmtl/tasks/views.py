"""How an image is shown to the network: sizes, mirroring, letterboxing, tiles; and the affine of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt, Interval

from ppmtl.ops import affine
from ppmtl.ops.affine import Interpolation
from ppmtl.ops.tiles import Window
from ppmtl.structures import ImageMeta, Size

Share = Annotated[float, Interval(ge=0, lt=1)]
Pixels = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class View:
    """One way to show an image to the network.

    Attributes:
        size: (height, width) of the network input.
        flip: mirrored left to right.
        interpolation: how the image is resampled.
        window: (x1, y1, x2, y2) whole pixels of the image: only this part of it is shown; None = all of it.
        letterbox: keep the aspect and pad both sides equally, instead of stretching.
    """

    size: Size
    flip: bool = False
    interpolation: Interpolation = "linear"
    window: Window | None = None
    letterbox: bool = False

    def to_input(self, original: Size) -> np.ndarray:
        """(2, 3) float64: pixel coordinates of an image of size ``original`` -> those of the network input."""
        x1, y1, x2, y2 = self.window or (0, 0, original[1], original[0])
        part = (y2 - y1, x2 - x1)
        fit = affine.letterbox(part, self.size) if self.letterbox else affine.stretch(part, self.size)
        a = affine.compose(affine.translation(-x1, -y1), fit)
        return affine.compose(a, affine.horizontal_flip(self.size[1])) if self.flip else a

    def meta(self, original: Size, path: str) -> ImageMeta:
        """How the network input of this view maps back to its image, which came from ``path``."""
        return ImageMeta(path, original, self.size, affine.invert(self.to_input(original)))


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Several views of one image instead of one.

    Attributes:
        scales: [factor] on the plain input size, e.g. (1.0, 1.2, 1.6).
        sizes: explicit (height, width) [px] of the views; replaces ``scales`` when given.
        flip: add the mirrored image of every view.
        snap: view sides are rounded to the nearest multiple of this [px] (1 = leave them).
    """

    __test__ = False  # pytest would collect a class named Test*

    scales: tuple[Annotated[float, Gt(0)], ...] = (1.0,)
    sizes: tuple[tuple[Pixels, Pixels], ...] = ()
    flip: bool = True
    snap: Pixels = 1

    def sizes_for(self, plain: Size) -> list[Size]:
        """(height, width) of every view, for an image whose one plain view would have size ``plain``."""
        sizes = self.sizes or [
            # int(x + .5): reference/model.md section 7, PaddleSeg's rounding of scaled sizes
            (int(plain[0] * s + 0.5), int(plain[1] * s + 0.5))
            for s in self.scales
        ]
        snap = self.snap
        return [(max(snap, round(h / snap) * snap), max(snap, round(w / snap) * snap)) for h, w in sizes]


@dataclass(frozen=True)
class Slicing:
    """Show large images in overlapping tiles too, to the tasks that can put tiles together.

    Attributes:
        size: (height, width) [px] of a tile in the image; None = the task's own input size, so that a tile is
            shown pixel by pixel. Best is the size of the images that the model was trained on.
        overlap: (vertical, horizontal) [share] of a tile that the next one shows again. A box that is not well smaller
            than the overlap may be cut in every tile; it is left to the view of the full image.
    """

    size: tuple[Pixels, Pixels] | None = None
    overlap: tuple[Share, Share] = (0.25, 0.25)
