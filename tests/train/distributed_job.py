"""What the tests of ``test_distributed.py`` run in several processes: python distributed_job.py NPROCS CHECK FOLDER.

NPROCS 1 = as one of the processes that Paddle's launcher started.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppmtl.cli import run


def main(argv):
    from ppmtl.train.launch import launch

    nprocs, check, folder = argv
    launch(globals()[check], (folder,), int(nprocs))
    return 0


class Squares:
    """Labelled noise, as a data set."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        from ppmtl.data.labels import ClassIndex
        from ppmtl.structures import Sample

        image = np.random.default_rng(index).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        return Sample(f"{index}.png", image, {"cls": ClassIndex(index % 3)})


def source(batch_size, processes, data=None):
    from ppmtl.data.source import Source, SourceView
    from ppmtl.data.transforms import HorizontalFlip, RandomErasing
    from ppmtl.structures import ClassList
    from ppmtl.tasks.classification import Classification

    tasks = {"cls": Classification("cls", ClassList(("a", "b", "c")))}
    views = {"s": SourceView((HorizontalFlip(), RandomErasing(p=1.0)), tasks)}
    return Source(
        "s", data or Squares(), views, batch_size=batch_size, seed=3, rank=processes.rank, world_size=processes.count
    )


def network(seed, normalised=False):
    import paddle
    from paddle import nn

    paddle.seed(seed)
    norm = [nn.BatchNorm2D(8)] if normalised else []
    return nn.Sequential(nn.Conv2D(3, 8, 3), *norm, nn.GELU(), nn.Conv2D(8, 8, 3, stride=2), nn.GELU(), nn.Flatten(),
                         nn.Linear(288, 3))  # fmt: skip


def loss(model, batch):
    import paddle
    from paddle.nn import functional as F

    images = paddle.to_tensor(batch.images).astype("float32").transpose([0, 3, 1, 2]) / 255
    return F.cross_entropy(model(images), paddle.to_tensor(batch.targets["cls"]["class_index"]))


def digest(model):
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def agreement(folder):
    """Everything that should come out equal, in one start of the processes; rank 0 writes what all found."""
    from ppmtl.train import distributed

    distributed.start("cpu")
    processes = distributed.processes()
    found = {
        "all_gather": processes.all_gather(f"of {processes.rank}"),
        "gradients": gradients(processes),
        "training": training(processes),
        "missing": missing_gradients(processes),
        "gaps": [labels_with_gaps(processes, step) for step in range(15)],
        "buffers": buffers(processes),
        "omp": os.environ.get("OMP_NUM_THREADS"),
    }
    found = processes.all_gather(found)
    if processes.rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))


def gradients(processes):
    """Returns how far the averaged gradient, and this process's own, are from that of the joined batch."""
    from ppmtl.predict.processes import Processes
    from ppmtl.train import distributed

    model, alone = network(seed=1), network(seed=1)
    shared = distributed.wrap(model)
    with distributed.no_sync(shared):
        loss(shared, source(2, processes).batches(5)["s"]).backward()
    own = joined(model)
    distributed.average_gradients(model.parameters())
    loss(alone, source(2 * processes.count, Processes()).batches(5)["s"]).backward()
    wanted = joined(alone)
    return {"averaged": distance(joined(model), wanted), "own": distance(own, wanted), "largest": float(wanted.max())}


def joined(model):
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in model.parameters()])


def distance(left, right):
    return float(np.abs(left - right).max())


class Gaps(Squares):
    """The same, but most images lack a label; so do all of some batches, on one process or on both."""

    def __getitem__(self, index):
        from dataclasses import replace

        sample = super().__getitem__(index)
        return sample if index in (1, 2, 6, 9) else replace(sample, labels={})


def labels_with_gaps(processes, step):
    """Returns how far the averaged gradient and loss are from those of the joined batches, and the counts of labels."""
    import paddle

    from ppmtl.models.heads._labelled import labelled_mean
    from ppmtl.predict.processes import Processes
    from ppmtl.train import distributed
    from ppmtl.train.losses import StepBatch, StepLosses

    def backward(model, batch_size, sharded):
        """Two micro-batches of a step, as the training loop runs them."""
        stream = source(batch_size, sharded, data=Gaps())
        batches = [StepBatch("s", stream, 2 * step + i, stream.batches(2 * step + i)["s"]) for i in range(2)]
        losses = StepLosses({}, batches)
        for of in batches:
            with distributed.no_sync(model):
                images = paddle.to_tensor(of.batch.images).astype("float32").transpose([0, 3, 1, 2]) / 255
                labels = paddle.to_tensor(of.batch.targets["cls"]["class_index"])
                each = paddle.nn.functional.cross_entropy(model(images), paddle.clip(labels, min=0), reduction="none")
                weighted = losses.add(of, {"cls": {"loss_ce": labelled_mean(each, labels >= 0)}})
                (weighted["cls"] * losses.factor(of, "cls") / 2).backward()
        losses.to_host(step)
        own = sum(of.batch.labelled["cls"] for of in batches)
        return (
            own,
            losses.labelled["cls"],
            distributed.average_numbers({"cls": losses.of_tasks.get("cls", 0.0) / 2})["cls"],
        )

    model, alone = network(seed=1), network(seed=1)
    shared = distributed.wrap(model)
    own, counted, loss_ = backward(shared, 1, processes)
    has_gradient = all(parameter.grad is not None for parameter in model.parameters())
    distributed.average_gradients(model.parameters())
    _, _, wanted = backward(alone, processes.count, Processes())
    return {
        "own": own,
        "counted": counted,
        "has_gradient": has_gradient,
        "loss": abs(loss_ - wanted),
        "largest": float(np.abs(joined(alone)).max()),
        "gradient": distance(joined(model), joined(alone)),
    }


def training(processes):
    """Returns the weights' digests before and after three steps of a model that starts differently on every rank."""
    import paddle

    from ppmtl.train import distributed

    model = network(seed=processes.rank)
    own = digest(model)
    shared = distributed.wrap(model)
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    start = digest(model)
    stream = source(2, processes)
    for step in range(3):
        for _ in range(2):  # two backwards, as for two tasks
            with distributed.no_sync(shared):
                loss(shared, stream.batches(step)["s"]).backward()
        calls = count_all_reduces(lambda: distributed.average_gradients(model.parameters()))
        optimizer.step()
        optimizer.clear_grad()
    return {"own": own, "start": start, "end": digest(model), "calls": calls}


def count_all_reduces(work):
    """Returns the sizes of the all-reduces that ``work`` makes."""
    import paddle.distributed as dist

    sizes, original = [], dist.all_reduce

    def counted(tensor, *arguments, **options):
        sizes.append(tensor.size)
        return original(tensor, *arguments, **options)

    dist.all_reduce = counted
    try:
        work()
    finally:
        dist.all_reduce = original
    return sizes


def missing_gradients(processes):
    """Returns the gradients of three parameters, of which all, only rank 1, and none had one."""
    import paddle

    from ppmtl.train import distributed

    first, second, third = (paddle.create_parameter([2], "float32") for _ in range(3))
    loss_ = (first * 2.0).sum()
    if processes.rank == 1:
        loss_ = loss_ + (second * 6.0).sum()
    loss_.backward()
    distributed.average_gradients([first, second, third])
    return [None if p.grad is None else p.grad.tolist() for p in (first, second, third)]


def buffers(processes):
    """Returns running means before and after averaging, those of a moving average too, and the all-reduces made."""
    import paddle

    from ppmtl.train import distributed

    model = network(seed=1, normalised=True)
    frozen = paddle.nn.BatchNorm2D(1)
    frozen.eval()
    model.add_sublayer("frozen", frozen)
    loss(model[:-1], source(2, processes).batches(0)["s"])
    frozen._mean.set_value(paddle.to_tensor([float(processes.rank)]))
    average = {name: value * 2 for name, value in model.state_dict().items()}
    before = model[1]._mean.tolist(), average["1._variance"].tolist()
    calls = count_all_reduces(lambda: distributed.average_buffers(model, average))
    after = model[1]._mean.tolist(), average["1._variance"].tolist()
    return {"before": before, "after": after, "calls": calls, "frozen": frozen._mean.tolist()}


def bad_image(folder):
    train_until(folder, at=(1, 2), event=lambda: _raise(ValueError("7.png: cannot be decoded")))


def killed(folder):
    train_until(folder, at=(1, 2), event=lambda: os.kill(os.getpid(), signal.SIGKILL))


def waits_elsewhere(folder):
    """Rank 1 fails while rank 0 does something that takes for ever and is no communication."""
    import time

    train_until(folder, at=(1, 2), event=lambda: _raise(ValueError("7.png: cannot be decoded")),
                meanwhile=lambda: time.sleep(600))  # fmt: skip


def _raise(error):
    raise error


def train_until(folder, at, event, meanwhile=None):
    from ppmtl.train import distributed

    distributed.start("cpu")
    processes = distributed.processes()
    model = network(seed=1)
    shared, stream = distributed.wrap(model), source(2, processes)
    for step in range(4):
        if (processes.rank, step) == at:
            event()
        if meanwhile and step == at[1]:
            meanwhile()
        with distributed.no_sync(shared):
            loss(shared, stream.batches(step)["s"]).backward()
        distributed.average_gradients(model.parameters())
    Path(folder, f"finished_{processes.rank}").touch()


if __name__ == "__main__":
    run(main)
