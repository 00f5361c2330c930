"""What a run is: the typed settings of the whole config, with defaults and units.

Every field is a YAML key. Names are wires: a head names the features it reads and the task it answers; a view of a source and
an evaluation set name their tasks. Where a name is left out, it is the part's own key: head "seg" answers task "seg".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from ppmtl.config.parts import Part

Backbone = Annotated[partial[Any], Part("ppmtl.models.backbones")]
Reader = Annotated[partial[Any], Part("ppmtl.data.readers")]
Transform = Annotated[partial[Any], Part("ppmtl.data.transforms")]
Balance = Annotated[partial[Any], Part("ppmtl.train.balance")]
Positive = Annotated[int, Ge(1)]
Triple = tuple[float, float, float]

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(epochs?|steps?)\s*\Z")


def to_steps(duration: str | int, steps_per_epoch: int) -> int:
    """A duration in optimizer steps.

    Args:
        duration: "5 epochs", "0.5 epochs", "200 steps", or a whole number of steps.
        steps_per_epoch: what one epoch is.

    Raises:
        ValueError: if it reads as none of these.
    """
    if isinstance(duration, int):
        return duration
    match = _DURATION.match(duration)
    if match is None:
        raise ValueError(f"a duration is a number of steps, '200 steps' or '5 epochs'; got {duration!r}")
    number = float(match[1])
    return round(number * steps_per_epoch) if match[2].startswith("epoch") else round(number)


@dataclass(frozen=True)
class ClassSettings:
    """The classes of one task.

    Attributes:
        count: how many; may be left out when ``names`` is given, and is checked against it when both are.
        names: a list of names, or a file under ``data_root``: one name (or "id name") per line, or a COCO json whose
            categories are taken. None: the classes are called "0", "1", ...
        ids: the numbers of the classes in the user's files, one per name of a list; () = 0, 1, ... or those of the file.
    """

    count: Positive | None = None
    names: str | tuple[str, ...] | None = None
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count is None and self.names is None:
            raise ValueError("give count, or names (a list, a text file or a COCO json), or both")
        if self.ids and not isinstance(self.names, tuple):
            raise ValueError("ids number the names of a list; give names as a list too")


@dataclass(frozen=True)
class TaskSettings:
    """One task: its type with that type's own keys, and ``classes``."""

    part: partial[Any]
    classes: ClassSettings


@dataclass(frozen=True)
class HeadSettings:
    """One head: its type with that type's own keys, and ``answers``: the task that it answers; None = that of its name."""

    part: partial[Any]
    answers: str | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The network: one backbone, one head per task. ``mean`` and ``std`` are of RGB in 0..1 and live in the model."""

    backbone: Backbone
    heads: dict[str, Annotated[HeadSettings, Part("ppmtl.models.heads")]]
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    def answers(self) -> dict[str, str]:
        """{head: the task that it answers}."""
        return {name: head.answers or name for name, head in self.heads.items()}


@dataclass(frozen=True)
class ViewSettings:
    """One way in which a source shows its samples.

    Attributes:
        transforms: applied in order, geometry first (it is moved once, at the end), colour after it.
        tasks: which tasks the result supervises.
    """

    transforms: tuple[Transform, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class SourceSettings:
    """One endless stream of training batches, with one view (``transforms``, ``tasks``) or several (``views``).

    Attributes:
        dataset: the reader.
        batch_size: per process.
        transforms: of the only view.
        tasks: which tasks the only view supervises; () = the task of the source's own name.
        views: {name: view}: every drawn sample is read once and goes through each of them.
        sampler: "shuffle" sees every image once per pass; "class_balanced" draws a class, then one of its images.
    """

    dataset: Reader
    batch_size: Positive
    transforms: tuple[Transform, ...] = ()
    tasks: tuple[str, ...] = ()
    views: dict[str, ViewSettings] = field(default_factory=dict)
    sampler: Literal["shuffle", "class_balanced", "sequential"] = "shuffle"

    def __post_init__(self) -> None:
        if self.views and (self.transforms or self.tasks):
            raise ValueError("give transforms and tasks (one view), or views that have their own, not both")
        if any(not view.tasks for view in self.views.values()):
            raise ValueError("every view needs tasks, the list of tasks that it supervises")

    def all_views(self, name: str) -> dict[str, ViewSettings]:
        """{view: settings}; the only view of a source without ``views`` is called "" (``name`` is the source's)."""
        return self.views or {"": ViewSettings(self.transforms, self.tasks or (name,))}

    def all_tasks(self, name: str) -> tuple[str, ...]:
        """The tasks that any view of the source called ``name`` supervises, each once, in order."""
        return tuple(dict.fromkeys(task for view in self.all_views(name).values() for task in view.tasks))


def named_views(sources: dict[str, SourceSettings]) -> dict[str, tuple[SourceSettings, ViewSettings]]:
    """{"source" or "source.view": (source, view)} of all views of all sources, in the order in which a step runs them."""
    return {
        f"{name}.{view}" if view else name: (source, of_view)
        for name, source in sources.items()
        for view, of_view in source.all_views(name).items()
    }


@dataclass(frozen=True)
class EvalSetSettings:
    """One labelled data set: its type with that type's own keys, and ``tasks``: () = the task of the set's own name."""

    part: partial[Any]
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up and cosine decay (the paper's; reference/model.md section 8).

    Attributes:
        learning_rate: peak.
        weight_decay: decoupled; not applied to one-dimensional parameters unless ``decay_1d``.
        warmup_steps: linear from 0.
        min_learning_rate: the cosine's floor.
        clip_norm: global gradient norm; None = no clipping.
        task_clip_norm: norm of each task's own gradient, clipped before the tasks are added up; None = no clipping.
            Costs one copy of the gradients per task.
        no_decay: parts of the model by name without weight decay, e.g. "backbone.norm0".
        multipliers: {part of the model by name: factor on its learning rate}, e.g. {"heads.seg": 10, "backbone": 0.1};
            the longest name that fits a parameter counts.
        layer_decay: learning rate factor per backbone block, from its last block down to its stem; 1 = off. .8 to .95
            is usual when a pretrained backbone is fine-tuned.
        scale_lr: multiply the learning rate by the number of processes ("linear") or its root ("sqrt"). Never done
            unasked: the paper's rate is stated for its own batch.
    """

    learning_rate: Annotated[float, Gt(0)] = 1e-4
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: Annotated[float, Gt(0)] = 1e-8
    warmup_steps: Annotated[int, Ge(0)] = 200
    min_learning_rate: Annotated[float, Ge(0)] = 1e-8
    clip_norm: Annotated[float, Gt(0)] | None = 1.0
    task_clip_norm: Annotated[float, Gt(0)] | None = None
    decay_1d: bool = False
    no_decay: tuple[str, ...] = ()
    multipliers: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    scale_lr: Literal["none", "linear", "sqrt"] = "none"


@dataclass(frozen=True)
class AmpSettings:
    """Mixed precision on GPU. Refused on CPU, where Paddle accepts the switches and computes in float32 all the same.

    Attributes:
        level: "O1" casts operation by operation; "O2" keeps the weights themselves in the low precision, with float32
            master weights in the optimizer.
        dtype: bfloat16 needs no loss scaling; float16 gets one scaler over all tasks' losses.
        initial_scale: of that scaler.
    """

    level: Literal["O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] = "bfloat16"
    initial_scale: Annotated[float, Gt(0)] = 65536.0


@dataclass(frozen=True)
class EarlyStopSettings:
    """Ends the run when the metric has not become better for a while.

    Attributes:
        patience: evaluations without a better value.
        min_delta: how much better counts as better.
        metric: "score" or "task.metric"; None = train.best_metric.
    """

    patience: Positive = 5
    min_delta: Annotated[float, Ge(0)] = 0.0
    metric: str | None = None


@dataclass(frozen=True)
class TrainSettings:
    """The schedule. Durations: "5 epochs", "200 steps" or a number of steps; null switches the thing off.

    Attributes:
        epochs: of ``steps_per_epoch`` optimizer steps each; every step takes one batch from every source.
        loss_weights: {task: factor}; tasks not named count 1.
        balance: how the tasks are weighed against each other on top of that; None = equally, as in the paper.
        accumulate: batches of every source per optimizer step; the gradient is their mean. batch_size is of one of them.
        amp: mixed precision; None = float32.
        freeze: parts of the model that stay as they are, by name, e.g. "backbone.stages.0": no gradient is computed,
            no decay applied, no batch statistics updated.
        early_stop: None = run the schedule to its end.
        log_every, eval_every, save_every: durations.
        keep_last: how many step checkpoints stay on disk; ``latest`` and ``best_model`` always do.
        best_metric: "score" (mean of the tasks' primary metrics) or "task.metric", e.g. "det.ap50"; higher is better.
        ema_decay: keep an exponential moving average of the weights; it is what is then evaluated and saved as the
            model's weights. None = off, as in the paper.
        num_workers: data worker processes per source. The sample stream does not depend on it.
    """

    epochs: Positive = 100
    steps_per_epoch: Positive = 388
    loss_weights: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    balance: Balance | None = None
    accumulate: Positive = 1
    amp: AmpSettings | None = None
    freeze: tuple[str, ...] = ()
    early_stop: EarlyStopSettings | None = None
    log_every: str | int = "20 steps"
    eval_every: str | int | None = "5 epochs"
    save_every: str | int | None = "1 epoch"
    keep_last: Positive = 3
    best_metric: str = "score"
    ema_decay: Annotated[float, Interval(gt=0, lt=1)] | None = None
    num_workers: Annotated[int, Ge(0)] = 2

    def __post_init__(self) -> None:
        for duration in (self.log_every, self.eval_every, self.save_every):
            if duration is not None and to_steps(duration, self.steps_per_epoch) < 1:
                raise ValueError(f"durations must be at least one step, got {duration!r}; use null to switch one off")

    @property
    def total_steps(self) -> int:
        """The number of optimizer steps of the schedule."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class EvalSettings:
    """Validation.

    Attributes:
        datasets: {name: labelled data set}. One with several tasks is read once; tasks that show an image alike share one
            run of the backbone.
        batch_size: images whose inputs run together.
    """

    datasets: dict[str, Annotated[EvalSetSettings, Part("ppmtl.data.readers")]] = field(default_factory=dict)
    batch_size: Positive = 1

    def tasks(self) -> dict[str, tuple[str, ...]]:
        """{data set: the tasks that it measures}."""
        return {name: dataset.tasks or (name,) for name, dataset in self.datasets.items()}


@dataclass(frozen=True)
class InferSettings:
    """``tools/infer.py``: the (height, width) shown to all heads, so that the backbone runs once.

    ``size: null`` uses the first task's own view.
    """

    size: tuple[Positive, Positive] | None = None
    draw_threshold: Annotated[float, Interval(ge=0, le=1)] = 0.5


@dataclass(frozen=True)
class Settings:
    """A whole run.

    Attributes:
        data_root: every relative data path starts here.
        save_dir: checkpoints, logs, the resolved config.
        seed: of sampling, augmentation, initialisation, dropout.
        device: "auto" takes the GPU where Paddle was built for one and finds it.
        weights: checkpoint folder or file to start from (training) or to use (evaluation, inference).
    """

    data_root: str
    save_dir: str
    tasks: dict[str, Annotated[TaskSettings, Part("ppmtl.tasks")]]
    model: ModelSettings
    sources: dict[str, SourceSettings]
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    infer: InferSettings = field(default_factory=InferSettings)
    seed: Annotated[int, Ge(0)] = 42
    device: str = "auto"
    weights: str | None = None
