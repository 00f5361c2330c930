"""What demo data was asked for, and whether a directory may receive it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo_data.bodies import MAX_VEHICLE_CLASSES
from demo_data.signs import SIGN_NAMES
from ppmtl.structures import Size

DRAWING_VERSION = 3  # raise it with every change that moves a pixel or adds a file: old data is then not taken for new
SPLITS = ("train", "val", "test")
MARKER, UNFINISHED = "demo_data.json", "demo_data.unfinished"
_OWN = ("track1_train_data", "track1_test_data", "preview.png", MARKER)
_SMALLEST, _LARGEST = 32, 4096  # pixels; below, signs are dots; above, one picture takes seconds


@dataclass(frozen=True)
class DemoRequest:
    """One request for demo data; the same request gives the same bytes.

    Attributes:
        seed: 0 or more.
        size, det_size, cls_size: (height, width) in pixels; vehicle pictures vary around ``cls_size``.
        seg_images, det_images, cls_images: how many pictures in (train, val, test).
        sign_classes: 1..45.
        vehicle_classes: 1..196.
    """

    seed: int = 0
    size: Size = (256, 448)
    det_size: Size = (512, 512)
    cls_size: Size = (128, 192)
    seg_images: tuple[int, int, int] = (600, 120, 40)
    det_images: tuple[int, int, int] = (600, 120, 40)
    cls_images: tuple[int, int, int] = (1500, 300, 80)
    sign_classes: int = len(SIGN_NAMES)
    vehicle_classes: int = MAX_VEHICLE_CLASSES

    def __post_init__(self) -> None:
        wrong = []
        if self.seed < 0:
            wrong.append(f"seed must be 0 or more, got {self.seed}")
        for name in ("size", "det_size", "cls_size"):
            size = getattr(self, name)
            if not all(_SMALLEST <= side <= _LARGEST for side in size):
                wrong.append(f"{name} (height, width) must be in {_SMALLEST}..{_LARGEST} pixels, got {size}")
        for name in ("seg_images", "det_images", "cls_images"):
            counts = getattr(self, name)
            if len(counts) != len(SPLITS) or min(counts) < 1:
                wrong.append(f"{name} must be three counts of at least 1 (train, val, test), got {counts}")
        for name, most in (("sign_classes", len(SIGN_NAMES)), ("vehicle_classes", MAX_VEHICLE_CLASSES)):
            if not 1 <= getattr(self, name) <= most:
                wrong.append(f"{name} must be in 1..{most}, got {getattr(self, name)}")
        if wrong:
            raise ValueError("; ".join(wrong))

    def images(self, task: str) -> dict[str, int]:
        """Returns {split: number of pictures} of a task."""
        return dict(zip(SPLITS, getattr(self, f"{task}_images"), strict=True))

    def record(self) -> dict[str, Any]:
        """Returns what the marker file stores, in JSON's own types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"drawing_version": DRAWING_VERSION, **plain}


def prepare(out: Path, request: DemoRequest, *, overwrite: bool) -> bool:
    """Returns True when ``out`` holds exactly this data already; else makes room for it and returns False.

    Raises:
        ValueError: if ``out`` holds something that must not be touched; the message says what and how to go on.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a directory")
    found = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
    if MARKER in found:
        differences = _differences(out, request)
        if not differences:
            return True
        if not overwrite:
            raise ValueError(
                f"{out} holds other demo data: {'; '.join(differences)}. "
                "Add --overwrite to replace it, or choose another --out"
            )
    elif found and UNFINISHED not in found:
        real = [name for name in found if name in _OWN]
        if real:  # most likely the challenge's own archives; no flag of a demo tool may delete them
            raise ValueError(
                f"{out} holds {', '.join(real)}, which this tool did not make and never deletes. Choose another --out"
            )
        if not overwrite:
            raise ValueError(
                f"{out} is not empty ({', '.join(found[:5])}) and holds no demo data. Choose another --out, or add "
                "--overwrite to put demo data beside these files"
            )
    out.mkdir(parents=True, exist_ok=True)
    # From here until the marker is written the directory is known to be incomplete
    (out / UNFINISHED).write_text("make_demo_data is running or was interrupted; run it again to start anew\n")
    for name in reversed(_OWN):  # the marker first
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return False


def finish(out: Path, request: DemoRequest, summary: dict[str, Any]) -> None:
    """Writes the marker that says that the data is whole."""
    text = json.dumps({"made_by": "tools/make_demo_data.py", "request": request.record(), "summary": summary}, indent=1)
    (out / MARKER).write_text(text + "\n", encoding="utf-8")
    (out / UNFINISHED).unlink()


def _differences(out: Path, request: DemoRequest) -> list[str]:
    """Returns how the data in ``out`` differs from the request, in words; empty when it is the same."""
    try:
        there = json.loads((out / MARKER).read_text(encoding="utf-8"))["request"]
        asked = request.record()
        different = [f"{k}: {there.get(k)} there, {v} asked" for k, v in asked.items() if there.get(k) != v]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"its {MARKER} is not readable"]
    return different + [f"{name} is missing" for name in _OWN if not (out / name).exists()]
