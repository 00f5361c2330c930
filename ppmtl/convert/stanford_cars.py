"""Stanford Cars: MATLAB annotations -> lists of images and the names of the classes, numbered from 0.

    DATA/devkit/cars_meta.mat, DATA/devkit/cars_train_annos.mat      DATA/cars_train/*.jpg
    DATA/cars_test_annos_withlabels.mat (or in devkit)               DATA/cars_test/*.jpg

The devkit's own cars_test_annos.mat has no classes; without the file withlabels there is no test list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppmtl.convert._output import Output
from ppmtl.convert._reading import first_there, number, take


def convert(data: Path, out: Output) -> None:
    """Adds every image of the annotation files with the name of its class."""
    names = _variable(first_there(data, "devkit/cars_meta.mat", "cars_meta.mat"), "class_names")
    out.classes("cls", names)
    files = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, name in files.items():
        if split == "test" and not any((data / folder / name).is_file() for folder in (".", "devkit")):
            continue
        file = first_there(data, f"devkit/{name}", name)
        folder = first_there(data, f"cars_{split}")
        for index, entry in enumerate(out.progress(_variable(file, "annotations"), split), start=1):
            with out.checking(f"{file}: annotations({index})"):
                image, class_number = folder / take(entry, "fname", str), number(entry, "class")
                if class_number not in range(1, len(names) + 1):
                    raise ValueError(
                        f"class must be 1..{len(names)} (the names of cars_meta.mat), got {class_number:g}"
                    )
                if out.there(image):
                    out.add("cls", split, folder, image, names[int(class_number) - 1])


def _variable(file: Path, name: str) -> list[Any]:
    """The elements of a cell or struct array; ValueError naming the file if it has none of that name."""
    from scipy.io import loadmat  # only this format needs it
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file, simplify_cells=True)
    except (MatReadError, NotImplementedError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{file}: is no MATLAB file of version 4 to 7 ({error}); download it again") from error
    if name not in content:
        raise ValueError(f"{file}: has no variable '{name}'; is it the file of the devkit?")
    found = content[name]
    return [found] if isinstance(found, (dict, str)) else list(found)
