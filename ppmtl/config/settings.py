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


def to_steps(duration: str | int, steps_per_epoch: int) -> int:
    """A duration ("5 epochs", "0.5 epochs", "200 steps", or a whole number of steps) in optimizer steps.

    Raises:
        ValueError: if it reads as none of these.
    """
    if isinstance(duration, int):
        return duration
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(epoch|step)s?\s*", duration)
    if match is None:
        raise ValueError(f"a duration is a number of steps, '200 steps' or '5 epochs'; got {duration!r}")
    return round(float(match[1]) * (steps_per_epoch if match[2] == "epoch" else 1))


@dataclass(frozen=True)
class ClassSettings:
    """The classes of one task."""

    # How many [classes]; may be left out when names are given, and is checked against them
    count: Positive | None = None
    # A list, or a file under data_root: one name (or "id name") per line, or a COCO json whose categories are taken;
    # null: the classes are called "0", "1", ...
    names: str | tuple[str, ...] | None = None
    # The classes' numbers in your files [ids], one per name of a list; (): 0, 1, ... or the file's
    ids: tuple[int, ...] = ()
    # Instead of names: COCO caption files under data_root, whose words are the vocabulary of a caption task. Read when a
    # training starts; from then on the vocabulary is in the checkpoints
    captions: tuple[str, ...] = ()
    min_count: Positive = 1  # words with fewer [occurrences] are left out

    def __post_init__(self) -> None:
        if self.count is None and self.names is None and not self.captions:
            raise ValueError(
                "give count, or names (a list, a text file or a COCO json), or both; for a vocabulary names or captions"
            )
        if self.captions and self.names is not None:
            raise ValueError("names are a finished vocabulary and captions build one: give one of the two")
        if self.ids and not isinstance(self.names, tuple):
            raise ValueError("ids number the names of a list; give names as a list too")


@dataclass(frozen=True)
class TaskSettings:
    """One task: its type with that type's own keys, and its classes."""

    part: partial[Any]
    classes: ClassSettings


@dataclass(frozen=True)
class HeadSettings:
    """One head: its type with that type's own keys."""

    part: partial[Any]
    answers: str | None = None  # the task that it answers; null: that of its own name
    # Of RGB [0 to 1], how its task's images are normalised; null: as the model's. The backbone then runs for it apart
    mean: Triple | None = None
    std: Triple | None = None  # of RGB [0 to 1], likewise


@dataclass(frozen=True)
class ModelSettings:
    """The network: one backbone, one head per task."""

    backbone: Backbone  # runs once per image, however many heads there are
    # {name: what answers a task from the backbone's features}
    heads: dict[str, Annotated[HeadSettings, Part("ppmtl.models.heads")]]
    mean: Triple = (0.485, 0.456, 0.406)  # of RGB [0 to 1], subtracted from the image; both live in the model
    std: Triple = (0.229, 0.224, 0.225)  # of RGB [0 to 1], what the rest is divided by

    def answers(self) -> dict[str, str]:
        """{head: the task that it answers}."""
        return {name: head.answers or name for name, head in self.heads.items()}

    def own_normalisation(self) -> dict[str, tuple[Triple, Triple]]:
        """{head: (mean, std)} of the heads that state either."""
        return {
            name: (head.mean or self.mean, head.std or self.std)
            for name, head in self.heads.items()
            if head.mean or head.std
        }


@dataclass(frozen=True)
class ViewSettings:
    """One way in which a source shows its samples."""

    transforms: tuple[Transform, ...]  # in order, geometry first (it is moved once, at the end), colour after it
    tasks: tuple[str, ...]  # which tasks the result supervises


@dataclass(frozen=True)
class SourceSettings:
    """One endless stream of training batches, with one view (``transforms``, ``tasks``) or several (``views``)."""

    dataset: Reader  # the labelled images on disk
    batch_size: Positive  # [images] per process
    transforms: tuple[Transform, ...] = ()  # of the only view; in order, geometry first, colour after it
    tasks: tuple[str, ...] = ()  # that the only view supervises; (): the task of the source's own name
    views: dict[str, ViewSettings] = field(default_factory=dict)  # a drawn sample is read once and goes through each
    # "shuffle" sees every image once per pass; "class_balanced" draws a class, then one of its images
    sampler: Literal["shuffle", "class_balanced", "sequential"] = "shuffle"
    pad: bool = False  # the images of a batch, right and bottom, to the largest height and width among them
    # optimizer [steps] from one batch to the next; 2: in every second only, from the first on. No gradient is scaled up
    every: Positive = 1

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
    """{"source" or "source.view": (source, view)}, in the order in which a step runs them."""
    return {
        f"{name}.{view}" if view else name: (source, of_view)
        for name, source in sources.items()
        for view, of_view in source.all_views(name).items()
    }


@dataclass(frozen=True)
class EvalSetSettings:
    """One labelled data set: its type with that type's own keys."""

    part: partial[Any]
    tasks: tuple[str, ...] = ()  # (): the task of the set's own name


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up and cosine decay (the paper's; reference/model.md section 8)."""

    learning_rate: Annotated[float, Gt(0)] = 1e-4  # the peak [per step]
    weight_decay: Annotated[float, Ge(0)] = 1e-4  # decoupled: [share] that a weight loses per step, times the rate
    betas: tuple[float, float] = (0.9, 0.999)  # [share] of the old moments that a step keeps: first, second
    epsilon: Annotated[float, Gt(0)] = 1e-8  # added to the root of the second moment, in units of a [gradient]
    warmup_steps: Annotated[int, Ge(0)] = 200  # [steps], linear from 0
    min_learning_rate: Annotated[float, Ge(0)] = 1e-8  # the cosine's floor [per step]
    clip_norm: Annotated[float, Gt(0)] | None = 1.0  # of the whole gradient [norm]; null: no clipping
    # Of each task's own gradient [norm], before the tasks are added up; costs one copy of the gradients per task
    task_clip_norm: Annotated[float, Gt(0)] | None = None
    decay_1d: bool = False  # weight decay on one-dimensional parameters too
    no_decay: tuple[str, ...] = ()  # parts of the model without weight decay, by name: "backbone.norm0"
    # {part of the model: [factor] on its learning rate}: {"heads.seg": 10, "backbone": .1}; the longest fitting name counts;
    # "*" stands for one word of a name: {"backbone.blocks.*.norm1": 1}
    multipliers: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    # Learning rate [factor] per backbone block, from the last down to the stem; .8 to .95 is usual in fine-tuning
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    # Multiply the learning rate by the number of processes or its root. Never unasked: the paper states its own batch
    scale_lr: Literal["none", "linear", "sqrt"] = "none"


@dataclass(frozen=True)
class AmpSettings:
    """Mixed precision on GPU. Refused on CPU, where Paddle accepts the switches and computes in float32 all the same."""

    # "O1" casts operation by operation; "O2" keeps the weights themselves low, with float32 copies in the optimizer
    level: Literal["O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] = "bfloat16"  # float16 gets one loss scaler; bfloat16 needs none
    initial_scale: Annotated[float, Gt(0)] = 65536.0  # of that scaler [factor] on the loss


@dataclass(frozen=True)
class EarlyStopSettings:
    """Ends the run when the metric has not become better for a while."""

    patience: Positive = 5  # [evaluations] without a better value
    min_delta: Annotated[float, Ge(0)] = 0.0  # how much better counts as better, in units of [the metric]
    metric: str | None = None  # "score" or "task.metric"; null: train.best_metric


@dataclass(frozen=True)
class TrainSettings:
    """The schedule. Durations: "5 epochs", "200 steps" or a number of steps; null switches the thing off."""

    epochs: Positive = 100  # [epochs] of steps_per_epoch; an epoch is a unit of time, not a pass over the data
    steps_per_epoch: Positive = 388  # optimizer [steps]; every step takes ``accumulate`` batches from every source
    # {task: [factor] on its loss}; not named: 1
    loss_weights: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    balance: Balance | None = None  # weighs the tasks against each other on top of that; null: equally, as in the paper
    accumulate: Positive = 1  # [batches] (of batch_size) per optimizer step and source; the gradient is their mean
    amp: AmpSettings | None = None  # mixed precision; null: float32
    # Parts of the model that stay as they are, by name ("backbone.stages.0"): no gradient, decay or batch statistics
    freeze: tuple[str, ...] = ()
    early_stop: EarlyStopSettings | None = None
    log_every: str | int = "20 steps"  # a duration [steps or epochs], between two lines of the log
    eval_every: str | int | None = "5 epochs"  # a duration [steps or epochs], with --eval; null: never
    save_every: str | int | None = "1 epoch"  # a duration [steps or epochs], between checkpoints; null: none is written
    keep_last: Positive = 3  # step [checkpoints] on disk; ``latest`` and ``best_model`` stay anyway
    best_metric: str = "score"  # the mean of the tasks' primary metrics, or "task.metric" ("det.ap50"); more is better
    # Moving average of the weights, which is what is then evaluated and saved as the model: [share] of the old value that a
    # step keeps; null: off, as in the paper
    ema_decay: Annotated[float, Interval(gt=0, lt=1)] | None = None
    # An image or label that cannot be read: "skip" takes another sample in its place and counts it in every log line
    unreadable: Literal["error", "skip"] = "error"
    num_workers: Annotated[int, Ge(0)] = 2  # data [processes] per source; the sample stream does not depend on it

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
    """Validation on labelled data sets. Tasks of one set that show an image alike share one run of the backbone."""

    # {name: labelled data set}; each is read once for all of its tasks
    datasets: dict[str, Annotated[EvalSetSettings, Part("ppmtl.data.readers")]] = field(default_factory=dict)
    batch_size: Positive = 1  # [images] whose inputs run together
    # {task: {metric: [value, tolerance]}}, in units of [the metric]: what the full evaluation without --tta should measure;
    # tools/eval.py says whether it did
    expected: dict[str, dict[str, tuple[float, Annotated[float, Ge(0)]]]] = field(default_factory=dict)
    # An evaluation during training that fails: "skip" logs it and trains on. A due checkpoint is written before it
    on_error: Literal["stop", "skip"] = "stop"

    def tasks(self) -> dict[str, tuple[str, ...]]:
        """{data set: the tasks that it measures}."""
        return {name: dataset.tasks or (name,) for name, dataset in self.datasets.items()}


@dataclass(frozen=True)
class InferSettings:
    """How ``tools/infer.py`` shows an image and what it draws."""

    # (height, width) [px] shown to all heads with --per_task_size False, so that the backbone runs once; null: the first
    # task's own size
    size: tuple[Positive, Positive] | None = None
    draw_threshold: Annotated[float, Interval(ge=0, le=1)] = 0.5  # no boxes with lower [score] are drawn


@dataclass(frozen=True)
class Settings:
    """A whole run."""

    data_root: str  # every relative data path starts here
    save_dir: str  # checkpoints, logs, the resolved config
    tasks: dict[str, Annotated[TaskSettings, Part("ppmtl.tasks")]]  # {name: what is asked of an image}
    model: ModelSettings
    sources: dict[str, SourceSettings]  # {name: training data}; a step takes a batch from each, in this order
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    infer: InferSettings = field(default_factory=InferSettings)
    seed: Annotated[int, Ge(0)] = 42  # of sampling, augmentation, initialisation, dropout [no unit]
    device: str = "auto"  # takes the GPU where Paddle was built for one and finds it
    # What to start from (training) or to use (evaluation, inference): the folder of a run (its best_model is taken) or of a
    # checkpoint, a .safetensors, .pdparams or .pth file, or "demo" for the weights that come with the project
    weights: str | None = None
