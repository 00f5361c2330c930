"""Images in one folder per class -> a list of images and the names of the classes.

    DATA/{train,val,test}/<class>/**/*.jpg      or, without splits, DATA/<class>/**/*.jpg

Classes are numbered by name; those of all splits together, so that a number means the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

from ppmtl.convert._output import Output
from ppmtl.convert._reading import images_below

_SPLITS = ("train", "val", "valid", "test")


def convert(data: Path, out: Output) -> None:
    """Adds every image with the name of its folder."""
    splits = {name: data / name for name in _SPLITS if (data / name).is_dir()} or {"all": data}
    for split, folder in splits.items():
        classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        for path in out.progress(classes, split):
            images = images_below(path)
            out.skip(f"files in {folder.name}/{path.name} that are no images", _files(path) - len(images))
            for image in images:
                out.add("cls", split, folder, image, path.name)


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
