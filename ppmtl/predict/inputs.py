"""Which images are to be predicted: of a folder, with its sub-folders, or of a list; what is not read is said."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ppmtl.data.images import SUFFIXES
from ppmtl.data.listing import read_text


def chosen_images(arguments: argparse.Namespace) -> list[Path]:
    """The images that the flags of ``cli.add_input_flags`` name.

    Raises:
        ValueError: if a folder or list cannot be read or names none.
    """
    if arguments.infer_img:
        return [Path(arguments.infer_img)]
    folder = Path(arguments.infer_dir) if arguments.infer_dir else None
    if arguments.infer_list:
        return read_inputs(Path(arguments.infer_list), folder)
    leave_out = Path(arguments.output_dir)
    return find_inputs(Path(arguments.infer_dir), recursive=arguments.recursive, leave_out=leave_out)


def find_inputs(folder: Path, *, recursive: bool = False, leave_out: Path | None = None) -> list[Path]:
    """The image files of a folder, sorted; the others in it, and sub-folders that are not looked into, go to stderr.

    Args:
        folder: where to look.
        recursive: in its sub-folders too, except for links.
        leave_out: a sub-folder that is not looked into: there results are written.

    Raises:
        ValueError: if it does not exist or holds no image; the message says what it holds instead.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of images")
    found: list[Path] = []
    others: list[str] = []
    closed: list[str] = []
    for place, folders, files in os.walk(folder):
        for name in files:
            path = Path(place) / name
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                others.append(str(path.relative_to(folder)))
        inner = [Path(place) / name for name in folders]
        left = [path for path in inner if not recursive or path.is_symlink() or _same(path, leave_out)]
        closed += [str(path.relative_to(folder)) for path in left]
        folders[:] = [path.name for path in inner if path not in left]
    remarks = []
    if closed:
        why = "links and the output folder are left out" if recursive else "--recursive reads them"
        remarks.append(f"{_named(closed, 'sub-folder')} ({why})")
    if others:
        remarks.append(f"{_named(others, 'file')} (read are {', '.join(SUFFIXES)})")
    if not found:
        raise ValueError(f"{folder}: holds no image{'; not read: ' if remarks else ''}{', '.join(remarks)}")
    if remarks:
        print(f"{folder}: {len(found)} images; not read: {', '.join(remarks)}", file=sys.stderr)
    return sorted(found)


def read_inputs(list_file: Path, folder: Path | None = None) -> list[Path]:
    """The images that a text file lists, one path per line; those that are missing are reported when they are read.

    Args:
        list_file: UTF-8; empty lines are passed over.
        folder: where relative paths start; None = the folder of the list.

    Raises:
        ValueError: if it cannot be read, or lists nothing.
    """
    lines = [line.strip() for line in read_text(list_file).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{list_file}: lists no image; write one path per line")
    return [(list_file.parent if folder is None else folder) / line for line in lines]


def result_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """{image: the relative path, without suffix, of what is written about it}: no two images write the same file.

    It is the image's path below the folder that all of them lie in. a.jpg and a.png of one folder keep their suffixes.
    """
    parents = {path: os.path.abspath(path.parent) for path in paths}
    top = os.path.commonpath(parents.values()) if parents else ""
    below = {path: Path(os.path.relpath(parent, top)) / path.name for path, parent in parents.items()}
    stems = Counter(path.with_suffix("") for path in below.values())
    return {path: name if stems[name.with_suffix("")] > 1 else name.with_suffix("") for path, name in below.items()}


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


def _named(names: Sequence[str], what: str) -> str:
    """ "3 files: a, b, c", with ten names at most."""
    shown = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
    return f"{len(names)} {what}{'s' * (len(names) > 1)}: {shown}"
