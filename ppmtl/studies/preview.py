"""What the network really sees, as contact sheets: augmented batches, assigned anchors, views of test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppmtl import build
from ppmtl.config.settings import Settings
from ppmtl.data.source import Source
from ppmtl.models.base import Head
from ppmtl.ops import affine
from ppmtl.ops.drawing import class_colors
from ppmtl.predict.drawing import draw
from ppmtl.predict.evaluate import EvalSet
from ppmtl.predict.pipeline import make_view
from ppmtl.predict.report import new_figure
from ppmtl.structures import ClassList, Sample, Size
from ppmtl.tasks.base import Task

_DPI = 100
_TILE = 420  # longer side of a tile in pixels
_MAX_LEGEND = 60  # entries; objects carry their names anyway
_THRESHOLD = 0.0  # labels are certain

Tasks = Mapping[str, Task[Any]]


@dataclass(frozen=True)
class Tile:
    """One image of a sheet: (H, W, 3) uint8 RGB and what is written above it."""

    image: np.ndarray
    title: str


@dataclass(frozen=True)
class Sheet:
    """One contact sheet; ``name`` is its file's, without ending."""

    name: str
    title: str
    tiles: list[Tile]
    legend: Mapping[str, tuple[int, int, int]]
    columns: int | None = None  # None: about as wide as high


def training_sheets(
    settings: Settings, tasks: Tasks, *, step: int, batches: int, heads: Mapping[str, Head]
) -> Iterator[Sheet]:
    """The batches of every source and view from ``step`` on, exactly as one training process gets them.

    Args:
        settings: the run.
        tasks: {name: task}.
        step: 1 = the first, as log lines and error messages count.
        batches: how many of each source.
        heads: {task: its head} where assigned anchors are wanted; may be empty.
    """
    accumulate = settings.train.accumulate
    for source in build.build_sources(settings, tasks).values():
        for number in range((step - 1) * accumulate, (step - 1) * accumulate + batches):
            at, micro = number // accumulate + 1, number % accumulate
            which = f"step {at}" + (f", batch {micro + 1} of {accumulate}" if accumulate > 1 else "")
            file = f"step{at:06d}" + (f"_{micro + 1}" if accumulate > 1 else "")
            yield from _batch_sheets(source, number, which, file, heads)


def _batch_sheets(source: Source, number: int, which: str, file: str, heads: Mapping[str, Head]) -> Iterator[Sheet]:
    drawn = [source.samples(number, position) for position in range(source.batch_size)]
    for view, settings in source.views.items():
        samples = [of_views[view] for of_views in drawn]
        stem = f"{source.name}_{view}" if view else source.name
        title = f"source {source.name}, " + (f"view {view}, " if view else "") + which
        supervised = f"{title}: {', '.join(settings.tasks)}"
        tiles = [Tile(labelled(s, settings.tasks), f"{Path(s.path).name}  {s.size[0]}x{s.size[1]}") for s in samples]
        yield Sheet(f"{stem}_{file}", supervised, tiles, _legend(settings.tasks))
        for name, task in settings.tasks.items():
            if name in heads:
                yield from _anchor_sheet(samples, task, heads[name], f"{stem}_{file}_assigned_{name}", title)


def _anchor_sheet(samples: Sequence[Sample], task: Task[Any], head: Head, name: str, title: str) -> Iterator[Sheet]:
    """One row per image, one column per level of the head; nothing for a head without anchors."""
    levels = head.assigned(task.collate(samples), samples[0].size)
    if not levels:
        return
    count = sum(len(sample.labels[task.name].objects()) for sample in samples if task.name in sample.labels)
    used = len({int(row[1]) for rows in levels.values() for row in rows})
    tiles = []
    for index, sample in enumerate(samples):
        for level, rows in levels.items():
            of_image = rows[rows[:, 0] == index]
            text = f"{Path(sample.path).name}  {level}: {len(of_image)} for {len(np.unique(of_image[:, 1]))} objects"
            tiles.append(Tile(_with_anchors(sample, task, of_image), text))
    missed = f"{count - used} of {count} objects have none"
    text = f"{title}: anchors that answer for objects of {task.name}, dots in their cells; {missed}"
    yield Sheet(name, text, tiles, {}, len(levels))


def _with_anchors(sample: Sample, task: Task[Any], rows: np.ndarray) -> np.ndarray:
    """The labelled image with every anchor, and its cell's centre as a dot, in a colour of its object."""
    canvas = labelled(sample, {task.name: task})
    scale = canvas.shape[0] / sample.size[0]
    palette = class_colors(ClassList(tuple(map(str, range(8))))).tolist()
    for _, number, x1, y1, x2, y2 in rows.tolist():
        color = palette[int(number) % len(palette)]
        corners = [(round(x * scale), round(y * scale)) for x, y in ((x1, y1), (x2, y2))]
        cv2.rectangle(canvas, corners[0], corners[1], color, 1, cv2.LINE_AA)
        cv2.circle(canvas, (round((x1 + x2) / 2 * scale), round((y1 + y2) / 2 * scale)), 3, color, -1, cv2.LINE_AA)
    return canvas


def view_sheets(sets: Mapping[str, EvalSet], tasks: Tasks, count: int) -> Iterator[Sheet]:
    """The views of test-time augmentation of the first ``count`` images of every evaluation set, task by task."""
    for name, of_set in sets.items():
        for index in range(min(count, len(of_set.reader))):
            sample = of_set.reader[index]
            for task_name in of_set.tasks:
                task, tiles = tasks[task_name], []
                for view in task.views(sample.size, augment=True):
                    labels = {
                        key: label.moved(view.to_input(sample.size), view.size, 0.0)
                        for key, label in sample.labels.items()
                    }
                    seen = Sample(sample.path, make_view(sample.image, view), labels)
                    flip = ", mirrored" if view.flip else ""
                    tiles.append(Tile(labelled(seen, {task_name: task}), f"{view.size[0]}x{view.size[1]}{flip}"))
                title = f"evaluation set {name}, views of {task_name}: {Path(sample.path).name}"
                yield Sheet(f"tta_{name}_{index}_{task_name}", title, tiles, task.legend())


def labelled(sample: Sample, tasks: Tasks) -> np.ndarray:
    """The sample at the size of a tile with its labels as its tasks draw them, (h, w, 3) uint8 RGB.

    Small inputs are enlarged pixel by pixel, so that what is shown is what the network gets.
    """
    factor = _TILE / max(sample.size)
    size: Size = (max(1, round(sample.size[0] * factor)), max(1, round(sample.size[1] * factor)))
    pixels = np.clip(sample.image, 0, 255).astype(np.uint8)  # some transforms leave that range on purpose
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST_EXACT
    image = np.asarray(cv2.resize(pixels, size[::-1], interpolation=how))
    to_tile = affine.stretch(sample.size, size)
    truth = {
        name: task.truth(sample.labels[name].moved(to_tile, size, 0.0))
        for name, task in tasks.items()
        if name in sample.labels
    }
    return draw(image, truth, tasks, _THRESHOLD)


def write_sheet(sheet: Sheet, folder: Path) -> Path:
    """Writes ``folder``/<name>.png; a title above, the meaning of the colours below."""
    from matplotlib.patches import Patch  # slow to import

    columns = sheet.columns or min(6, math.ceil(math.sqrt(1.5 * len(sheet.tiles))))
    rows = math.ceil(len(sheet.tiles) / columns)
    height, width = (max(tile.image.shape[axis] for tile in sheet.tiles) / _DPI for axis in (0, 1))
    per_line = max(2, round(columns * width / 1.5))
    lines = math.ceil(min(len(sheet.legend), _MAX_LEGEND + 1) / per_line)
    figure = new_figure(columns * (width + 0.1), rows * (height + 0.25) + 0.4 + 0.2 * lines)
    figure.suptitle(sheet.title, fontsize=11)
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.set_axis_off()
    for axes, tile in zip(grid.flat, sheet.tiles, strict=False):
        axes.imshow(tile.image, interpolation="nearest")
        axes.set_title(tile.title, fontsize=8, pad=3)
    entries = [Patch(color=np.divide(rgb, 255), label=name) for name, rgb in list(sheet.legend.items())[:_MAX_LEGEND]]
    if len(sheet.legend) > _MAX_LEGEND:
        entries.append(Patch(color="none", label=f"and {len(sheet.legend) - _MAX_LEGEND} more"))
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=per_line, fontsize=8, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sheet.name}.png"
    figure.savefig(path, dpi=_DPI)
    return path


def _legend(tasks: Tasks) -> dict[str, tuple[int, int, int]]:
    """The legends of all tasks; classes of several tasks carry the task's name."""
    legends = {name: task.legend() for name, task in tasks.items() if task.legend()}
    several = len(legends) > 1
    return {f"{n}: {c}" if several else c: rgb for n, legend in legends.items() for c, rgb in legend.items()}
