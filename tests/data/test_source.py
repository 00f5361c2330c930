"""The sample stream: a pure function of the step, whole passes, the same with any number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppmtl.data import source as source_module
from ppmtl.data import transforms as T
from ppmtl.data.canvas import Canvas
from ppmtl.data.labels import ClassIndex
from ppmtl.data.reader import Reader
from ppmtl.data.source import Source, SourceView
from ppmtl.structures import ClassList, Label, Sample
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection


class Numbers(Reader):
    """Images that show their own number; class = number modulo 3, class 0 only for image 0."""

    def __init__(self, count: int, fail_at: int = -1, error: type[Exception] = ValueError, side: int = 8) -> None:
        super().__init__("", {})
        self.reads = 0
        self.count, self.fail_at, self.error, self.side = count, fail_at, error, side

    def __len__(self) -> int:
        return self.count

    def path(self, index: int) -> str:
        return f"{index}.jpg"

    def describe(self) -> str:
        return f"{self.count} numbers"

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return []

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:  # noqa: ARG002
        return {"cls": ClassIndex(index)}

    def class_indices(self) -> np.ndarray | None:
        return np.array([0] + [1 + i % 2 for i in range(1, self.count)])

    def __getitem__(self, index: int) -> Sample:
        if index == self.fail_at:
            raise self.error(f"/数据/{index}.jpg: the file is empty; copy it again")
        self.reads += 1
        image = np.full((self.side, self.side + index * (self.side == 9), 3), index, np.uint8)
        return Sample(self.path(index), image, self.labels(index, image))


CLS = {"cls": Classification("cls", ClassList(("a", "b", "c")))}


def stream(
    count: int = 10, name: str = "cls", transforms: Sequence[Any] = (), *, dataset: Any = None, **options: Any
) -> Source:
    settings = {"batch_size": 3, "seed": 1, **options}
    return Source(name, dataset or Numbers(count), {"": SourceView(tuple(transforms), CLS)}, **settings)


def served(source: Source, steps: range) -> list[int]:
    return [index for step in steps for index in source.indices(step)]


# ---- which samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_processes_together_serve_each_sample_once_per_pass(world_size: int) -> None:
    ranks = [stream(10, rank=rank, world_size=world_size) for rank in range(world_size)]
    steps = range(10)  # 10 steps of 3 x world_size samples are 3 x world_size whole passes
    counts = Counter(index for source in ranks for index in served(source, steps))
    assert counts == dict.fromkeys(range(10), 3 * world_size)


def test_a_pass_has_no_repetition_although_batches_straddle_passes() -> None:
    order = served(stream(10), range(20))
    passes = [order[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_processes_share_one_order() -> None:
    alone = stream(10, batch_size=6)
    pair = [stream(10, batch_size=3, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(7):
        together = [index for both in zip(*(p.indices(step) for p in pair), strict=True) for index in both]
        assert together == alone.indices(step)


def test_any_step_can_be_entered_in_any_order() -> None:
    forward = [stream().indices(step) for step in range(30)]
    source = stream()
    assert [source.indices(step) for step in reversed(range(30))] == forward[::-1]


def test_seed_and_name_change_the_order() -> None:
    orders = [served(stream(30, name, seed=seed), range(10)) for name, seed in (("cls", 1), ("cls", 2), ("seg", 1))]
    assert len({tuple(order) for order in orders}) == 3


def test_sequential_keeps_the_file_order_and_starts_again() -> None:
    assert served(stream(4, sampler="sequential"), range(2)) == [0, 1, 2, 3, 0, 1]


def test_class_balanced_draws_classes_evenly_and_every_sample() -> None:
    order = served(stream(21, sampler="class_balanced"), range(1000))
    assert abs(order.count(0) / 3000 - 1 / 3) < 0.03  # image 0 is a class of its own
    assert set(order) == set(range(21))


def test_class_balanced_needs_one_class_per_image() -> None:
    class Boxes(Numbers):
        def class_indices(self) -> None:
            return None

    with pytest.raises(ValueError, match=r"'cls': sampler 'class_balanced'.*Boxes"):
        stream(dataset=Boxes(4), sampler="class_balanced")


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        stream(0)


def test_files_name_the_images_of_a_step() -> None:
    source = stream()
    assert source.files(4) == [f"{index}.jpg" for index in source.indices(4)]


# ---- augmentation and batches ---------------------------------------------------------------------------------------


class Note:
    """Writes one random number into the image."""

    def __call__(self, canvas: Any, rng: np.random.Generator) -> None:
        canvas.image = np.full_like(canvas.image, rng.integers(256))


def test_augmentation_depends_on_the_number_of_the_sample_and_the_seed_alone() -> None:
    source = stream(transforms=[Note()])
    values = {(step, p): int(source.samples(step, p)[""].image[0, 0, 0]) for step in range(20) for p in range(3)}
    assert len(set(values.values())) > 40
    again = stream(transforms=[Note()])
    assert {key: int(again.samples(*key)[""].image[0, 0, 0]) for key in reversed(values)} == values


def test_processes_and_accumulated_batches_see_what_one_large_batch_sees() -> None:
    def pixels(source: Source, step: int) -> list[int]:
        return [int(source.samples(step, position)[""].image[0, 0, 0]) for position in range(source.batch_size)]

    one = stream(batch_size=6, transforms=[Note()])
    ranks = [stream(transforms=[Note()], rank=rank, world_size=2) for rank in (0, 1)]
    micro = stream(transforms=[Note()])
    for step in range(5):
        together = [value for both in zip(*(pixels(rank, step) for rank in ranks), strict=True) for value in both]
        assert together == pixels(one, step)
        assert pixels(micro, 2 * step) + pixels(micro, 2 * step + 1) == pixels(one, step)


def test_a_repeated_stream_starts_over_with_the_same_pixels() -> None:
    source = stream(count=100, transforms=[Note()], repeat=2)
    first, second = source.batches(0)[""].images, source.batches(1)[""].images
    assert not np.array_equal(first, second)
    assert np.array_equal(source.batches(2)[""].images, first)
    assert np.array_equal(source.batches(7)[""].images, second)


def test_a_batch_stacks_images_and_collates_targets() -> None:
    source = stream()
    batch = source.batches(2)[""]
    assert (batch.images.shape, batch.images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert batch.images[:, 0, 0, 0].tolist() == batch.targets["cls"]["class_index"].tolist() == source.indices(2)


def test_one_float_image_makes_a_float_batch() -> None:
    batches = [stream(transforms=[T.RandomErasing(p=0.5)]).batches(step)[""].images.dtype for step in range(6)]
    assert np.dtype(np.float32) in batches


def test_images_of_several_sizes_are_refused_with_the_transforms_named() -> None:
    with pytest.raises(
        ValueError, match=r"source 'cls'.*one \(height, width\).*\.jpg \(9, \d+\).*HorizontalFlip.*pad_crop"
    ):
        stream(dataset=Numbers(5, side=9), transforms=[T.HorizontalFlip()]).batches(0)


def test_a_padded_batch_is_as_large_as_its_largest_image_and_shows_the_others_top_left() -> None:
    source = stream(dataset=Numbers(5, side=9), pad=True)
    indices = source.indices(0)
    images = source.batches(0)[""].images
    assert images.shape == (3, 9, 9 + max(indices), 3)
    for image, index in zip(images, indices, strict=True):
        assert (image[:, : 9 + index] == index).all()
        assert (image[:, 9 + index :] == 127).all()


def test_detection_is_told_how_much_of_a_padded_image_is_real() -> None:
    task = Detection("det", ClassList(("a",)))
    view = {"": SourceView((), {"det": task})}
    for batch_size, sizes in ((3, True), (1, False)):
        source = Source("det", Numbers(5, side=9), view, batch_size=batch_size, seed=1, pad=True)
        targets = source.batches(0)[""].targets["det"]
        assert ("valid" in targets) is sizes
        if sizes:
            assert targets["valid"].tolist() == [[9, 9 + index] for index in source.indices(0)]


# ---- several views --------------------------------------------------------------------------------------------------


def two_views(dataset: Any = None, **options: Any) -> Source:
    views = {"strong": SourceView((Note(), Borrow()), CLS), "weak": SourceView((Note(),), CLS)}
    return Source("cls", dataset or Numbers(10), views, **{"batch_size": 3, "seed": 1, **options})


class Borrow:
    """Writes another sample's number into the second row, as mosaic or mixup would use its pixels."""

    def __call__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        image = canvas.image.copy()
        image[1] = canvas.another(rng).image[0, 0, 0]
        canvas.image = image


def test_all_views_show_the_same_samples_read_once_and_augmented_differently() -> None:
    dataset = Numbers(10)
    source = two_views(dataset)
    batches = source.batches(4)
    assert list(batches) == ["strong", "weak"]
    targets = [batch.targets["cls"]["class_index"].tolist() for batch in batches.values()]
    assert targets[0] == targets[1] == source.indices(4)
    assert not np.array_equal(batches["strong"].images[:, 0], batches["weak"].images[:, 0])
    assert dataset.reads == 3 + 3  # each sample once, and the samples that the strong view borrows


def test_a_single_named_view_does_not_change_what_another_one_draws() -> None:
    alone = Source("cls", Numbers(10), {"weak": SourceView((Note(),), CLS)}, batch_size=3, seed=1)
    for step in range(5):
        np.testing.assert_array_equal(alone.batches(step)["weak"].images, two_views().batches(step)["weak"].images)


def test_borrowed_samples_are_the_same_for_any_number_of_processes_and_workers() -> None:
    one = two_views(batch_size=6)
    ranks = [two_views(rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(4):
        joined = np.stack([rank.batches(step)["strong"].images for rank in ranks], axis=1).reshape(6, 8, 8, 3)
        np.testing.assert_array_equal(joined, one.batches(step)["strong"].images)
    assert len({int(v) for step in range(9) for v in one.batches(step)["strong"].images[:, 1, 0, 0]}) == 10
    here = [{view: b.images.numpy() for view, b in views.items()} for views in two_views().loader(2, 4, 0)]
    for views, expected in zip(two_views().loader(2, 4, 2), here, strict=True):
        for view, images in expected.items():
            np.testing.assert_array_equal(views[view].images.numpy(), images)


# ---- Paddle ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def drained(source: Source, start: int, count: int, workers: int) -> list[tuple[Any, Any]]:
    batches = [views[""] for views in source.loader(start, count, workers)]
    return [(batch.images.numpy(), batch.targets["cls"]["class_index"].numpy()) for batch in batches]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch, workers: int, shared: bool) -> None:
    monkeypatch.setattr(source_module, "_shared_memory_is_large", lambda: shared)
    transforms = [T.RandomScale(min=0.5, max=2.0), T.PadCrop(size=(12, 12)), T.ColorJitter(), T.RandomErasing()]
    expected = drained(stream(transforms=transforms), 5, 9, 0)
    assert len(expected) == 9
    for (images, targets), (images_0, targets_0) in zip(
        drained(stream(transforms=transforms), 5, 9, workers), expected, strict=True
    ):
        np.testing.assert_array_equal(images, images_0)
        np.testing.assert_array_equal(targets, targets_0)
        assert images.dtype == images_0.dtype


def test_resuming_continues_the_stream() -> None:
    whole = drained(stream(transforms=[Note()]), 0, 8, 2)
    second = drained(stream(transforms=[Note()]), 4, 4, 2)
    for (images, _), (expected, _) in zip(second, whole[4:], strict=True):
        np.testing.assert_array_equal(images, expected)


def test_tensors_have_the_types_that_the_model_takes() -> None:
    for workers in (0, 1):
        batch = next(stream().loader(0, 1, workers))[""]
        assert (str(batch.images.dtype), str(batch.targets["cls"]["class_index"].dtype)) == (
            "paddle.uint8",
            "paddle.int64",
        )


def test_leaving_early_ends_the_workers() -> None:
    batches = stream().loader(0, 100_000, 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_bad_file_surfaces_in_place_with_its_own_message(workers: int, error: type[Exception]) -> None:
    batches = stream(dataset=Numbers(30, fail_at=7, error=error), sampler="sequential").loader(0, 10, workers)
    assert len([next(batches), next(batches)]) == 2  # samples 0 to 5
    with pytest.raises((ValueError, OSError), match=r"/数据/7\.jpg: the file is empty; copy it again"):
        next(batches)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_worker_ends_the_stream_and_does_not_hang() -> None:
    with pytest.raises(RuntimeError, match=r"source 'cls': a data worker died.*num_workers=0"):
        list(stream(dataset=Numbers(30, fail_at=7, error=KeyError), sampler="sequential").loader(0, 10, 2))


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_source import stream

batches = stream(200).loader(0, 1000, 2)
next(batches)
children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
print(*[pid for pid in children if "resource_tracker" not in open(f"/proc/{{pid}}/cmdline").read()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_end_when_their_process_is_killed(tmp_path: Path) -> None:
    script, told = tmp_path / "killed.py", tmp_path / "told.txt"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent), root=str(Path(__file__).parents[2])))
    with told.open("w") as out:  # a file: workers that live on would keep a pipe open, and this test waiting
        result = subprocess.run([sys.executable, str(script)], stdout=out, stderr=out, check=False)
    assert result.returncode == -signal.SIGKILL, told.read_text()
    workers = [Path("/proc") / pid for pid in told.read_text().splitlines()[-1].split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker for worker in workers if worker.exists()]
    for worker in left:
        os.kill(int(worker.name), signal.SIGKILL)
    assert not left


def test_a_signal_to_the_group_does_not_reach_the_data_workers() -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def worker() -> None:
        source_module._start_worker(0)
        sender.send(os.getpgid(0))

    process = context.Process(target=worker)
    process.start()
    assert receiver.recv() == process.pid != os.getpgid(0)
    process.join()


# ---- samples that cannot be read ---------------------------------------------------------------------------------------


class Gaps(Numbers):
    """Numbers of which every fourth cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index % 4 == 0:
            raise ValueError(f"{index}.jpg: cut off")
        return super().__getitem__(index)


def shown(batches: dict[str, Any]) -> list[int]:
    """The numbers that the images of a batch show."""
    return [int(image.flat[0]) for image in np.asarray(batches[""].images)]


@pytest.mark.parametrize("sampler", ["shuffle", "class_balanced", "sequential"])
def test_a_sample_that_cannot_be_read_is_replaced_by_the_same_one_in_every_run(sampler: str) -> None:
    first = stream(dataset=Gaps(40), skip_unreadable=True, sampler=sampler)
    straight = [shown(first.batches(step)) for step in range(12)]
    assert all(number % 4 for batch in straight for number in batch)
    untouched = [[i for i in first.indices(step) if i % 4] for step in range(12)]
    kept = [[n for n, i in zip(straight[step], first.indices(step), strict=True) if i % 4] for step in range(12)]
    assert kept == untouched
    resumed = stream(dataset=Gaps(40), skip_unreadable=True, sampler=sampler)
    assert [shown(resumed.batches(step)) for step in range(6, 12)] == straight[6:]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_replaced_is_counted_in_the_main_process(workers: int) -> None:
    source = stream(dataset=Gaps(40), skip_unreadable=True)
    wanted = [n for step in range(8) for n in shown(stream(dataset=Gaps(40), skip_unreadable=True).batches(step))]
    assert [n for batches in source.loader(0, 8, workers) for n in shown(batches)] == wanted
    unreadable = [i for step in range(8) for i in source.indices(step) if i % 4 == 0]
    assert {f"{i}.jpg: cut off" for i in unreadable} <= set(source.replaced)
    assert len(source.replaced) >= len(unreadable) > 0


def test_without_skip_the_first_one_ends_the_run_and_with_it_a_data_set_of_nothing_else_does() -> None:
    with pytest.raises(ValueError, match="cut off"):
        stream(dataset=Gaps(1)).batches(0)
    with pytest.raises(ValueError, match=r"source 'cls': 20 samples in a row cannot be read; the last one: 0\.jpg"):
        stream(dataset=Gaps(1), skip_unreadable=True).batches(0)
