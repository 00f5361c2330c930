"""What a submission must contain: the pictures of the test lists, their sizes, the classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ppmtl.data.classes import read_categories
from ppmtl.data.images import find_images
from ppmtl.data.listing import read_text
from ppmtl.structures import Size

TEST_FOLDER = "track1_test_data"
SEG_CLASSES, CLS_CLASSES = 19, 196  # BDD100K and Stanford Cars, as the challenge has them
SEG_SIZE = (720, 1280)  # hard-coded in the official scorer

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Expected:
    """The entries that a complete submission has.

    Attributes:
        seg_sizes: {"<picture stem>.png": (height, width)}.
        cls_names: the pictures to classify, with extension.
        det_sizes: (height, width) of each line of test.txt; line 1 is image_id 1.
        category_ids: the detection classes' ids in the annotation files; empty = unknown, not checked.
        seg_classes, cls_classes: how many; labels are 0 up to that.
    """

    seg_sizes: dict[str, Size]
    cls_names: tuple[str, ...]
    det_sizes: tuple[Size, ...]
    category_ids: tuple[int, ...] = ()
    seg_classes: int = SEG_CLASSES
    cls_classes: int = CLS_CLASSES

    @staticmethod
    def from_root(root: str | Path, *, seg_classes: int = SEG_CLASSES, cls_classes: int = CLS_CLASSES) -> Expected:
        """Returns what the test data under ``root``/track1_test_data call for; reads picture headers only.

        Raises:
            ValueError: a list or picture is missing or unreadable; the message names it.
        """
        test = Path(root) / TEST_FOLDER
        categories = test / "dec" / "val.json"
        names = detection_names(test / "dec" / "test.txt")
        return Expected(
            seg_sizes={
                f"{path.stem}.png": picture_size(path) for path in find_images(test / "seg" / "images" / "test")
            },
            cls_names=tuple(path.name for path in find_images(test / "cls" / "test")),
            det_sizes=tuple(picture_size(test / "dec" / "test" / name) for name in names),
            category_ids=read_categories(categories).ids if categories.exists() else (),
            seg_classes=seg_classes,
            cls_classes=cls_classes,
        )


def detection_names(list_file: Path) -> list[str]:
    """Returns the picture names of test.txt in the file's order: the first has image_id 1."""
    return [line.strip() for line in read_text(list_file).splitlines() if line.strip()]


def picture_size(path: Path) -> Size:
    """Returns (height, width) as shown, that is after the EXIF turn.

    Raises:
        ValueError: if it cannot be read as a picture, naming the path.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error}); copy or download it again") from error
    return (width, height) if turned else (height, width)


def shortened(values: Iterable[object], limit: int = 5) -> str:
    """Returns the first few values in one line, with the number of the others."""
    items = [str(value) for value in values]
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
