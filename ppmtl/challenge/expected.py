"""What a submission must contain: the images of the test lists, their sizes, the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ppmtl.data.classes import read_categories
from ppmtl.data.headers import shown_size
from ppmtl.data.images import find_images
from ppmtl.data.listing import read_text
from ppmtl.structures import Size

TEST_FOLDER = "track1_test_data"
SEG_CLASSES, CLS_CLASSES = 19, 196  # BDD100K and Stanford Cars, as the challenge has them
SEG_SIZE = (720, 1280)  # hard-coded in the official scorer
SECTIONS = {"seg": "seg", "cls": "cls", "det": "dec"}  # a task's section -> key in the file, in the baseline's order


@dataclass(frozen=True)
class Expected:
    """The entries that a complete submission has; what is None is unknown and not checked: all lists or none.

    Attributes:
        seg_sizes: {"<image stem>.png": (height, width)}.
        det_sizes: (height, width) of each line of test.txt; line 1 is image_id 1.
        cls_names, category_ids: as in the folder (with extension) and in the annotation files.
    """

    seg_sizes: dict[str, Size] | None = None
    cls_names: tuple[str, ...] | None = None
    det_sizes: tuple[Size, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    seg_classes: int = SEG_CLASSES
    cls_classes: int = CLS_CLASSES

    @staticmethod
    def from_root(root: Path | None, *, seg_classes: int = SEG_CLASSES, cls_classes: int = CLS_CLASSES) -> Expected:
        """What the test data under ``root``/track1_test_data call for; reads image headers only. No root: unknown.

        Raises:
            ValueError: a list or image is missing or unreadable; the message names it.
        """
        if root is None:
            return Expected(seg_classes=seg_classes, cls_classes=cls_classes)
        test = root / TEST_FOLDER
        categories = test / "dec" / "val.json"
        return Expected(
            seg_sizes={f"{path.stem}.png": image_size(path) for path in test_images(test, "seg").values()},
            cls_names=tuple(str(name) for name in test_images(test, "cls")),
            det_sizes=tuple(image_size(path) for path in test_images(test, "det").values()),
            category_ids=read_categories(categories).ids if categories.exists() else None,
            seg_classes=seg_classes,
            cls_classes=cls_classes,
        )

    def unchecked(self) -> list[str]:
        """What :func:`ppmtl.challenge.checking.check` cannot say for want of a list."""
        of_lists = [
            "names and image_ids: are they in the test lists, and are all of them there?",
            "points and boxes: do they lie within their images?",
        ]
        of_categories = ["category_id: is it one of dec/val.json?"]
        return of_lists * (self.seg_sizes is None) + of_categories * (self.category_ids is None)


def test_images(test: Path, section: str) -> dict[str | int, Path]:
    """{key: file} of a test list; keys are file names, for detection the lines of test.txt from 1: the image_ids."""
    if section == "det":
        names = [line.strip() for line in read_text(test / "dec" / "test.txt").splitlines() if line.strip()]
        return {line: test / "dec" / "test" / name for line, name in enumerate(names, 1)}
    folder = test / "seg" / "images" / "test" if section == "seg" else test / "cls" / "test"
    return {path.name: path for path in find_images(folder)}


def image_size(path: Path) -> Size:
    """The (height, width) as shown, that is after the EXIF turn; ValueError names a file that is no image."""
    try:
        with Image.open(path) as image:
            return shown_size(image)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as an image ({error}); copy or download it again") from error
