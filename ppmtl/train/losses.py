"""The batches of one optimizer step and their loss terms: weighted on the device, brought to the host in one transfer."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

import paddle

from ppmtl.config.settings import TrainSettings
from ppmtl.data.source import Batch, Source
from ppmtl.train import distributed


@dataclass(frozen=True)
class StepBatch:
    """One batch of a step.

    Attributes:
        where: "source", or "source.view" where the source has several.
        source: the stream that it came from, and ...
        number: ... its place there.
        batch: images and targets.
    """

    where: str
    source: Source
    number: int
    batch: Batch


Stream = Generator[dict[str, Batch], None, None]


def open_stream(source: Source, first_step: int, schedule: TrainSettings) -> Stream:
    """The source's batches from optimizer step ``first_step`` to the end of the schedule."""
    first, end = (source.number_of(step) * schedule.accumulate for step in (first_step, schedule.total_steps))
    return source.loader(first, end - first, schedule.num_workers)


def take_batches(
    step: int, streams: Mapping[str, Stream], sources: Mapping[str, Source], accumulate: int
) -> list[StepBatch]:
    """This process's batches of a step, in the order in which they run: of every source whose turn it is."""
    batches = []
    for name, stream in streams.items():
        source = sources[name]
        first = source.number_of(step) * accumulate
        for number in range(first, first + accumulate) if step % source.every == 0 else ():
            for view, batch in next(stream).items():
                batches.append(StepBatch(f"{name}.{view}" if view else name, source, number, batch))
    return batches


class StepLosses:
    """Collects the terms of every batch of a step.

    A loss is a mean over the labelled images of its batch. A batch counts by how many these are among all of its view in
    the step, those of other micro-batches and processes included, so that the step's loss is the mean over its labelled
    images wherever they are. Where no label is missing, every batch counts exactly 1.

    Args:
        weights: {task: factor}; tasks not named count 1.
        batches: those of this process, in the order in which they run. Every process has to call this constructor.
        several: tasks that several views supervise; the names of their numbers end in "@source" or "@source.view".

    Attributes:
        of_tasks: {task: its weighted loss, summed over the batches of the step} of every task that has a label on any
            process; filled by :meth:`to_host`.
        numbers: per batch {"<task>.<term>" or, for the weighted sum of the terms, "loss_<task>": (value, share of the
            batch's images that are labelled)}, for the log; likewise.
        images: of this process.
        labelled: {task: (labelled images, images)} over all processes.
    """

    def __init__(
        self, weights: Mapping[str, float], batches: Sequence[StepBatch], several: Collection[str] = ()
    ) -> None:
        self._weights, self._several = weights, several
        self._seen: list[tuple[StepBatch, dict[tuple[str, str], paddle.Tensor]]] = []
        self._micro_batches = Counter(of.where for of in batches)
        own: dict[tuple[str, str], float] = defaultdict(float)  # by task and view
        for of in batches:
            for task, count in of.batch.labelled.items():
                own[task, of.where] += count
        self._labelled = distributed.average_numbers(own)  # per process
        self.of_tasks: dict[str, float] = defaultdict(float)
        self.numbers: list[dict[str, tuple[float, float]]] = []
        self.images = sum(len(of.batch.images) for of in batches)
        self.labelled = self._count(batches)

    def _count(self, batches: Sequence[StepBatch]) -> dict[str, tuple[int, int]]:
        images: Counter[str] = Counter()
        labelled: dict[str, float] = defaultdict(float)
        for of in batches:
            images.update(dict.fromkeys(of.batch.labelled, len(of.batch.images)))
        for (task, _), count in self._labelled.items():
            labelled[task] += count
        processes = paddle.distributed.get_world_size()
        return {task: (round(labelled[task] * processes), count * processes) for task, count in images.items()}

    def factor(self, of: StepBatch, task: str) -> float:
        """What the batch's loss of this task counts; 1 where all batches of its view have as many labelled images."""
        labelled = self._labelled[task, of.where]
        return of.batch.labelled[task] * self._micro_batches[of.where] / labelled if labelled else 0.0

    def add(self, of: StepBatch, terms: Mapping[str, Mapping[str, paddle.Tensor]]) -> dict[str, paddle.Tensor]:
        """Takes one batch's terms and returns {task: its loss}, the weighted sum of its terms (0-D).

        Args:
            of: the batch.
            terms: {task: {term: 0-D float32}}, as the model returns them.
        """
        weighted: dict[str, paddle.Tensor] = {}
        seen: dict[tuple[str, str], paddle.Tensor] = {}
        for task, of_task in terms.items():
            weighted[task] = paddle.add_n([value * self._weights.get(task, 1.0) for value in of_task.values()])
            seen |= {(task, term): value.detach() for term, value in of_task.items()}
            seen[task, ""] = weighted[task].detach()
        self._seen.append((of, seen))
        return weighted

    def to_host(self, step: int) -> None:
        """Fills ``of_tasks`` and ``numbers``.

        Raises:
            FloatingPointError: naming task, term, files and the 0-based ``step`` (+ 1) of a term that is not finite.
        """
        flat = [value.reshape([]) for _, seen in self._seen for value in seen.values()]
        values = iter(paddle.stack(flat).astype("float32").numpy().tolist())
        for of, seen in self._seen:
            numbers = {}
            for (task, term), value in zip(seen, values, strict=False):  # the iterator goes on with the next batch
                where = f"@{of.where}" if task in self._several else ""
                share = of.batch.labelled[task] / len(of.batch.images)
                numbers[(f"{task}.{term}" if term else f"loss_{task}") + where] = value, share
                if term and not math.isfinite(value):
                    raise FloatingPointError(
                        f"task '{task}', term '{term}' is {value} at step {step + 1}; the batch was "
                        f"{', '.join(of.source.files(of.number))}. Lower optimizer.learning_rate or set "
                        "optimizer.clip_norm, and look at these files; the last checkpoint is untouched"
                    )
                if not term and self.labelled[task][0]:
                    self.of_tasks[task] += value * self.factor(of, task)
            self.numbers.append(numbers)
