"""A source: one data set + views + sampler = an endless stream of batches that can be entered at any step.

Nothing is remembered between steps. Which samples a step takes, and every random draw of their augmentation, are a pure
function of (seed, source name, number of the sample in the run). So the number of workers changes nothing, how samples are
split over processes and accumulated batches changes nothing either, and a resumed run needs only its step number.
"""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from ppmtl.data.canvas import Canvas, Transform, augment
from ppmtl.data.reader import Excerpt, Reader
from ppmtl.data.workers import end_with_parent
from ppmtl.structures import Sample, Size
from ppmtl.system import leave_process_group
from ppmtl.tasks.base import Task

log = logging.getLogger(__name__)

Sampler = Literal["shuffle", "class_balanced", "sequential"]

# First word after (seed, source) of every generator: shuffling, class drawing and augmentation must not share draws.
_SHUFFLE, _BALANCE, _AUGMENT, _REPLACE = range(4)
_MAX_REPLACED = 20  # samples in a row that cannot be read: then the data set is not there any more
# Batches wait in shared memory, several per worker and source; containers often have 64 MiB, and a full one kills
# the worker with a bus error instead of a message.
_SHARED_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Batch:
    """One training batch of one view: numpy arrays from ``Source.batches``, Paddle tensors from ``Source.loader``.

    Attributes:
        images: (B, H, W, 3) uint8 RGB, or float32 on the same 0..255 scale.
        targets: {task: {target name: array or tensor}}.
        labelled: {task: how many of the images have a label for it}.
    """

    images: Any
    targets: Mapping[str, Mapping[str, Any]]
    labelled: Mapping[str, int]


@dataclass(frozen=True)
class SourceView:
    """One way in which a source shows its samples: transforms, and the tasks that the result supervises."""

    transforms: tuple[Transform, ...]
    tasks: Mapping[str, Task[Any]]


class Source:
    """An endless, stateless stream of batches: one data set, one sampler, one or more views of every sample.

    Args:
        name: its key in the config; part of every random seed, so sources do not share draws.
        reader: the data set.
        views: {name: view}. A single view is called "" and takes the sample's own random draws; others add their name.
        batch_size: samples per step and process.
        seed: of the run.
        sampler: "shuffle" = a new permutation per pass, each sample once per pass over all processes together;
            "class_balanced" = a class evenly, then one of its samples evenly, with replacement;
            "sequential" = file order.
        pad: pad the images of a batch at right and bottom to the largest height and width among them; else they must be
            of one size. ``Sample.valid`` says then how large an image was.
        rank: this process.
        world_size: number of processes.
        every: the loop takes a batch in every so many optimizer steps only, from the first one on.
        skip_unreadable: take another sample where one cannot be read. Which one hangs, like everything random, on the
            sample's number in the run, so a resumed run takes the same.
        repeat: start over after so many steps, augmentation included (to see whether a model can learn a few batches by
            heart); None = never.
        total_batches: of the run, for transforms that end before it does; None = endless.

    Attributes:
        replaced: why a sample could not be read, for each that was replaced since the process started.

    Raises:
        ValueError: if the data set is empty, has no ``class_indices()`` and the sampler needs them, or a view has a
            transform after which the label of one of its tasks would be untrue.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        views: Mapping[str, SourceView],
        *,
        batch_size: int,
        seed: int,
        sampler: Sampler = "shuffle",
        pad: bool = False,
        skip_unreadable: bool = False,
        rank: int = 0,
        world_size: int = 1,
        every: int = 1,
        repeat: int | None = None,
        total_batches: int | None = None,
    ) -> None:
        if len(reader) == 0:
            raise ValueError(f"source '{name}': the data set has no samples; check its paths")
        self.name, self.reader, self.views = name, reader, dict(views)
        self.batch_size, self.sampler, self.rank, self.world_size = batch_size, sampler, rank, world_size
        self.pad, self.every, self.repeat, self.total_batches = pad, every, repeat, total_batches
        self.skip_unreadable = skip_unreadable
        self.replaced: list[str] = []
        for view, settings in self.views.items():
            for task in settings.tasks.values():
                if reasons := [text for transform in settings.transforms if (text := task.refuses(transform))]:
                    raise ValueError(f"source '{name}'{f', view {view!r}' if view else ''}: {reasons[0]}")
        self._entropy = (seed, zlib.crc32(name.encode()))
        self._passes: dict[int, np.ndarray] = {}
        self._by_class: list[np.ndarray] = []
        if sampler == "class_balanced":
            class_of = reader.class_indices()
            if class_of is None:
                raise ValueError(
                    f"source '{name}': sampler 'class_balanced' needs one class per image, which {type(reader).__name__} "
                    "has not; use sampler: shuffle"
                )
            self._by_class = [np.flatnonzero(class_of == index) for index in np.unique(class_of)]

    def number_of(self, step: int) -> int:
        """The number, in this stream, of the batch taken at optimizer step ``step`` or, if none is, at the next one.

        Batches are counted, not steps, so that a source with ``every`` leaves out none of its samples. Accumulated
        batches are not regarded: multiply by their number.
        """
        return -(-step // self.every)

    def indices(self, step: int) -> list[int]:
        """The data set indices of this process's batch at ``step``, in batch order."""
        return [self._index(self._place(step, position)) for position in range(self.batch_size)]

    def files(self, step: int) -> list[str]:
        """The image files of this process's batch at ``step``, without reading them."""
        return [self.reader.path(index) for index in self.indices(step)]

    def repeated(self) -> Excerpt:
        """What is repeated, over all processes, as a data set: every image once, without transforms."""
        assert self.repeat is not None
        places = range(self.repeat * self.batch_size * self.world_size)
        return Excerpt(self.reader, sorted({self._index(place) for place in places}))

    def samples(self, step: int, position: int) -> dict[str, Sample]:
        """{view: sample ``position`` of this process's batch at ``step``}; read once, augmented for every view."""
        place = self._place(step, position)
        sample, found = self._read(self._index(place), self._rng(_REPLACE, place)), {}
        for view, settings in self.views.items():
            rng = self._rng(_AUGMENT, place, *([zlib.crc32(view.encode())] if view else []))
            found[view] = augment(sample, settings.transforms, rng, self._draw, self._progress(step))
        return found

    def batches(self, step: int) -> dict[str, Batch]:
        """{view: the batch of ``step``} as numpy arrays.

        Raises:
            ValueError: if a file is unreadable or wrong, or the transforms leave images of several sizes.
        """
        samples = [self.samples(step, position) for position in range(self.batch_size)]
        return {view: self._batch(view, [of_views[view] for of_views in samples]) for view in self.views}

    def _batch(self, view: str, samples: Sequence[Sample]) -> Batch:
        settings = self.views[view]
        if self.pad:
            heights, widths = zip(*(sample.size for sample in samples), strict=True)
            samples = [_padded(sample, (max(heights), max(widths))) for sample in samples]
        if len({sample.size for sample in samples}) > 1:
            names = ", ".join(type(transform).__name__ for transform in settings.transforms) or "(none)"
            sizes = "; ".join(f"{sample.path} {sample.size}" for sample in samples)
            raise ValueError(
                f"source '{self.name}': the images of a batch need one (height, width), got {sizes}; its transforms "
                f"are {names}: add pad_crop or resize after the last one that changes the size, set pad of the source, or "
                "batch_size to 1"
            )
        targets = {name: task.collate(samples) for name, task in settings.tasks.items()}
        for task, arrays in targets.items():
            for key, array in arrays.items():
                assert array.size, f"{task}.{key}: Paddle's DataLoader cannot carry zero-size arrays; collate must pad"
        labelled = {name: sum(name in sample.labels for sample in samples) for name in settings.tasks}
        return Batch(np.stack([sample.image for sample in samples]), targets, labelled)

    def loader(self, start_step: int, num_steps: int, num_workers: int) -> Generator[dict[str, Batch], None, None]:
        """Yields {view: batch} of ``num_steps`` steps from ``start_step`` on, as Paddle tensors.

        The stream is the same for every ``num_workers``; 0 builds batches in this process. Leaving the iterator (also
        by an exception) ends its workers.

        Raises:
            ValueError: what went wrong with a file or a label, with the message of the place where it happened.
            RuntimeError: if a worker process died or has a bug.
        """
        steps = range(start_step, start_step + num_steps)
        return _from_workers(self, steps, num_workers) if num_workers else _in_this_process(self, steps)

    def _draw(self, rng: np.random.Generator) -> Sample:
        """Another sample for a transform that needs one."""
        return self._read(int(rng.integers(len(self.reader))), rng)

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        """Sample ``index``, or one that ``rng`` draws if it cannot be read and such samples are skipped."""
        for _ in range(_MAX_REPLACED):
            try:
                return self.reader[index]
            except ValueError as error:
                if not self.skip_unreadable:
                    raise
                self.replaced.append(str(error))
            index = self._drawn_class(rng) if self._by_class else int(rng.integers(len(self.reader)))
        raise ValueError(
            f"source '{self.name}': {_MAX_REPLACED} samples in a row cannot be read; the last one: {self.replaced[-1]}"
        )

    def _progress(self, step: int) -> float:
        """How much of the run is over at ``step``, 0..1; what is repeated looks alike every time."""
        return (step if self.repeat is None else step % self.repeat) / self.total_batches if self.total_batches else 0.0

    def _place(self, step: int, position: int) -> int:
        """The number of a sample in the run's stream; the processes of a batch take turns.

        Everything random about a sample hangs on it, so two processes with batches of 4, one with 8, and one that
        accumulates two batches of 4 train on the same samples, augmented alike.
        """
        step = step if self.repeat is None else step % self.repeat
        return (step * self.batch_size + position) * self.world_size + self.rank

    def _index(self, place: int) -> int:
        if self.sampler == "class_balanced":
            return self._drawn_class(self._rng(_BALANCE, place))
        number, offset = divmod(place, len(self.reader))
        if self.sampler == "sequential":
            return offset
        if number not in self._passes:  # the last two are kept, because a batch may straddle two passes
            self._passes = {n: order for n, order in self._passes.items() if n == number - 1}
            self._passes[number] = self._rng(_SHUFFLE, number).permutation(len(self.reader))
        return int(self._passes[number][offset])

    def _drawn_class(self, rng: np.random.Generator) -> int:
        """A sample of a class, both drawn evenly."""
        members = self._by_class[int(rng.integers(len(self._by_class)))]
        return int(members[rng.integers(len(members))])

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([*self._entropy, *key])


def _padded(sample: Sample, size: Size) -> Sample:
    if sample.size == size:
        return sample
    canvas = Canvas(sample)
    canvas.crop((0, 0), size)
    return replace(canvas.sample, valid=sample.size)


@dataclass(frozen=True)
class _Steps:
    """The steps of a stream as a map-style data set of whole batches.

    Whole batches, because what a batch holds depends on its step: Paddle's batch sampler would have to carry (step,
    position) pairs, and its collate function would run without the tasks.
    """

    source: Source
    steps: range

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"views": {view: {"images", "targets", "labelled"}}}, or {"error": UTF-8 bytes}; "replaced" if samples were.

        Paddle answers an exception in a worker with "Blocking queue is killed" in the main process, perhaps steps
        before the one it belongs to; so what a user can cause travels as a value, in order.
        """
        try:
            batches = self.source.batches(self.steps[index])
        except (ValueError, OSError) as error:
            return {"error": np.frombuffer(f"{error}".encode() or b"unknown", np.uint8)}
        item: dict[str, Any] = {"views": {view: vars(batch) for view, batch in batches.items()}}
        if self.source.replaced:  # of this worker's copy of the source
            item["replaced"] = np.frombuffer(json.dumps(self.source.replaced).encode(), np.uint8)
            self.source.replaced.clear()
        return item


def _in_this_process(source: Source, steps: range) -> Generator[dict[str, Batch], None, None]:
    import paddle  # data is read by tools that run without Paddle

    for step in steps:
        batches = {}
        for view, batch in source.batches(step).items():
            targets = {t: {k: paddle.to_tensor(a) for k, a in arrays.items()} for t, arrays in batch.targets.items()}
            batches[view] = Batch(paddle.to_tensor(batch.images), targets, batch.labelled)
        yield batches


def _from_workers(source: Source, steps: range, num_workers: int) -> Generator[dict[str, Batch], None, None]:
    from paddle.io import DataLoader  # data is read by tools that run without Paddle

    loader = DataLoader(
        _Steps(source, steps),
        batch_size=None,
        num_workers=min(num_workers, max(1, len(steps))),
        use_shared_memory=_shared_memory_is_large(),
        worker_init_fn=_start_worker,
    )
    items = iter(loader)
    try:
        for _ in steps:
            try:
                item = next(items)
            except SystemError as error:  # Paddle's "Blocking queue is killed"
                raise RuntimeError(
                    f"source '{source.name}': a data worker died; its own message is printed above (none: it was killed, "
                    "often for lack of memory). Set train.num_workers=0 to see the error in place, without workers"
                ) from error
            if "error" in item:
                raise ValueError(item["error"].numpy().tobytes().decode())
            if "replaced" in item:
                source.replaced += json.loads(item["replaced"].numpy().tobytes())
            yield {view: Batch(**item["views"][view]) for view in source.views}
    finally:
        # Its reader thread refers to the iterator, so dropping it would leave the workers running until the program
        # ends; Paddle has no public way to stop it.
        items._try_shutdown_all()


def _start_worker(worker_id: int) -> None:  # noqa: ARG001
    # Ctrl-C and the launcher's SIGTERM go to whole groups of processes; a worker that dies of it takes the step with it,
    # and the run could not stop with a checkpoint
    leave_process_group()
    end_with_parent()
    cv2.setNumThreads(0)  # as many workers as wanted are running already; OpenCV's threads would fight with them


def _shared_memory_is_large() -> bool:
    try:
        enough = shutil.disk_usage("/dev/shm").free >= _SHARED_MEMORY_BYTES
    except OSError:
        return False
    if not enough:
        log.warning("/dev/shm has less than 1 GiB free: data workers use slower pipes (docker: --shm-size=2g)")
    return enough
