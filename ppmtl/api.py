"""The Python API: ``ppmtl.load``, ``ppmtl.train`` and what they return. docs/api.md shows it at work.

``import ppmtl`` imports this file, and with it Paddle, only when one of its names is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from ppmtl import cli  # noqa: F401  (before Paddle: it sets what Paddle reads when it is imported, as for the tools)
from ppmtl.bundle.settings import SETTINGS_FILE
from ppmtl.config import nearest, suggestion
from ppmtl.data.images import read_image
from ppmtl.predict.pipeline import Backend, Pipeline, SharedSize
from ppmtl.predict.result import Result
from ppmtl.tasks.base import Task
from ppmtl.train import checkpoint
from ppmtl.train.checkpoint_folder import STATE
from ppmtl.weights.location import DEMO, demo_checkpoint

ImageLike = np.ndarray | str | os.PathLike[str]


class Model:
    """A trained model that predicts images; :func:`load` makes it.

    Attributes:
        folder: of the checkpoint or bundle.
        tasks: {name: task}.
        threshold: of scores, as ``infer.draw_threshold`` of the config says; :meth:`predict` takes another one.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Mapping[str, Task[Any]],
        backend: Backend,
        *,
        threshold: float,
        shared_size: SharedSize = None,
    ) -> None:
        self.folder, self.tasks, self.threshold = folder, dict(tasks), threshold
        self._backend, self._shared_size = backend, shared_size

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """{task: names of its classes in the order of the labels}; tasks whose answers are not about classes have none."""
        return {name: task.classes.names for name, task in self.tasks.items() if task.names_classes}

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self,
        images: ImageLike,
        *,
        tasks: Sequence[str] | None = None,
        tta: bool = False,
        score_threshold: float | None = None,
    ) -> Result: ...

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        tasks: Sequence[str] | None = None,
        tta: bool = False,
        score_threshold: float | None = None,
    ) -> list[Result]: ...

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        tasks: Sequence[str] | None = None,
        tta: bool = False,
        score_threshold: float | None = None,
    ) -> Result | list[Result]:
        """What is found on an image, or on each image of a list; every task sees it at the size it is evaluated at.

        Args:
            images: (H, W, 3) uint8 RGB array (OpenCV reads BGR: ``image[..., ::-1]``), path of an image file, or a list of
                either.
            tasks: only these; None = all.
            tta: test-time augmentation with each task's views (``tasks.<name>.tta`` of the config).
            score_threshold: objects of lower scores are left out of the result, 0 to 1; 0 keeps what evaluation counts.
                None = the config's ``infer.draw_threshold``.

        Returns:
            A result for an image, a list of results for a list.

        Raises:
            ValueError: if a task is unknown, the threshold is none, a file cannot be read, or an array is no such image.
        """
        names = [tasks] if isinstance(tasks, str) else list(self.tasks if tasks is None else tasks)
        unknown = [f"tasks: got {name!r}{suggestion(name, self.tasks)}" for name in names if name not in self.tasks]
        if unknown or not names:
            raise ValueError("; ".join(unknown) or f"tasks: names no task; the model has {', '.join(self.tasks)}")
        threshold = self.threshold if score_threshold is None else score_threshold
        if not 0 <= threshold <= 1:
            raise ValueError(f"score_threshold: expected a number from 0 to 1, got {score_threshold!r}")
        chosen = {name: task for name, task in self.tasks.items() if name in names}
        pipeline = Pipeline(chosen, self._backend, augment=tta, shared_size=self._shared_size)

        def one(image: Any, where: str) -> Result:
            pixels, path = _pixels(image, where)
            (found,) = pipeline.predict([pixels], [path or where])
            return Result(pixels, path, found, chosen, threshold)

        if isinstance(images, list | tuple):
            return [one(image, f"images[{number}]") for number, image in enumerate(images)]
        return one(images, "images")

    def __repr__(self) -> str:
        tasks = ", ".join(f"{name} ({task.task_type})" for name, task in self.tasks.items())
        return f"<ppmtl.Model of {self.folder}: {tasks}>"


def _pixels(image: Any, where: str) -> tuple[np.ndarray, str]:
    """The (H, W, 3) uint8 RGB array of an image or of an image file, and the file's path, "" without one."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image)), os.fspath(image)
    array = np.asarray(image) if hasattr(image, "__array__") or hasattr(image, "__array_interface__") else None
    if array is None:
        raise ValueError(f"{where}: expected an array, a path or a list of either, got {type(image).__name__}")
    if array.ndim != 3 or array.shape[2] != 3 or not array.size or array.dtype != np.uint8:
        raise ValueError(
            f"{where}: expected an image of shape (H, W, 3), uint8, RGB; got shape {array.shape}, {array.dtype}. Grey: "
            "np.stack([image] * 3, -1); with transparency: image[..., :3]; channels first: image.transpose(1, 2, 0); "
            "0 to 1: (image * 255).astype(np.uint8); several images: list(images)"
        )
    return array, ""


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Model:
    """The trained model in a folder.

    Args:
        path: of a run (its ``best_model`` is meant), of a checkpoint (``best_model``, ``step_0001000``), or of an exported
            bundle; "demo" = the weights that come with the project.
        device: "cpu", "gpu", "gpu:1"; "auto" = a GPU where Paddle has one (a bundle: the CPU).

    Raises:
        ValueError: if the folder is none of these (what it holds instead is listed), or is damaged; a checkpoint's config
            that names code outside the project is refused.
    """
    folder = demo_checkpoint() if os.fspath(path) == DEMO else _model_folder(Path(path).expanduser())
    return _from_bundle(folder, device) if (folder / SETTINGS_FILE).is_file() else _from_checkpoint(folder, device)


def _from_checkpoint(folder: Path, device: str) -> Model:
    """The model of a checkpoint, built from the config and the classes that it carries."""
    from ppmtl import build

    run = build.load_stored(str(folder), [f"weights={json.dumps(str(folder))}", f"device={device}"])
    tasks, backend = build.open_trained(run.settings, {})
    return Model(folder, tasks, backend, threshold=run.settings.infer.draw_threshold)


def _from_bundle(folder: Path, device: str) -> Model:
    from ppmtl.bundle.engines.backend import open_backend
    from ppmtl.bundle.reading import read_bundle

    bundle = read_bundle(folder)
    backend = open_backend(bundle, device="cpu" if device == "auto" else device)
    infer, size = bundle.settings.infer, bundle.settings.input.size  # exported for one size: it takes no other
    return Model(folder, bundle.tasks, backend, threshold=infer.draw_threshold, shared_size=size)


def _model_folder(path: Path) -> Path:
    """The bundle or checkpoint that a path means; ValueError saying what is there instead."""
    if path.name in (STATE, SETTINGS_FILE, "model.safetensors"):
        path = path.parent
    for folder in (checkpoint.locate(path), checkpoint.locate(path / "best_model")):
        if _is_model(folder):
            return folder
    asked = "give the folder of a run, of a checkpoint or of an exported bundle"
    if path.is_file():
        raise ValueError(f"{path} is a file; {asked}. Weights alone do not say which tasks and heads they are of")
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        guess = nearest(path.name, siblings)
        hint = f"; did you mean {str(path.with_name(guess))!r}?" if guess else f" (seen from {Path.cwd()}); {asked}"
        raise ValueError(f"{path}: no such folder{hint}")
    if steps := checkpoint.newest_first(path):
        raise ValueError(
            f"{path}: this run has no best_model, since it was not evaluated; load a checkpoint: {str(steps[0])!r}"
        )
    inside = sorted(p.name for p in path.iterdir() if _is_model(p) or _is_model(p / "best_model"))
    raise ValueError(
        f"{path}: holds neither a checkpoint ({STATE}) nor a bundle ({SETTINGS_FILE}) nor best_model; "
        + (f"these lie inside it: {', '.join(inside)}" if inside else asked)
    )


def _is_model(folder: Path) -> bool:
    return (folder / SETTINGS_FILE).is_file() or (folder / STATE).is_file()


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind; ``ppmtl.load(result.save_dir)`` loads its best model.

    Attributes:
        save_dir: checkpoints, log.jsonl, train.log, config.yml.
        best_model: the best checkpoint; None where nothing was evaluated.
        step: optimizer steps done when the best one was saved; None with ``best_model``.
        metrics: {"score" or "task.metric": value} of the best model on the validation sets; None = not defined.
        stopped: why the run ended before its schedule, e.g. "SIGINT"; "" if it did not.
    """

    save_dir: Path
    best_model: Path | None
    step: int | None
    metrics: dict[str, float | None]
    stopped: str


def train(
    config: str | os.PathLike[str],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    tasks: Sequence[str] | None = None,
    evaluate: bool = True,
    resume: str | None = None,
    overwrite: bool = False,
    fast_dev_run: bool = False,
) -> TrainResult:
    """Trains as ``tools/train.py`` does, in this process; Ctrl-C (a notebook's stop button) saves and ends the run.

    Args:
        config: YAML file; a name that is no file is looked for among the configs that the package brings.
        overrides: {"train.epochs": 3}, or ["train.epochs=3"] as after ``-o``.
        tasks: only these; None = all of the config.
        evaluate: on the validation sets during training, and keep the best model.
        resume: a checkpoint folder to continue from, "auto" = the newest intact one in save_dir.
        overwrite: throw away the run that save_dir holds; without it, or ``resume``, a used save_dir is refused.
        fast_dev_run: two steps of everything in a folder of its own, to see whether config and data are in order.

    Raises:
        ConfigError: with all problems of the config at once, and missing data.
        DataError: if the data is not what the config says.
        FloatingPointError: if a loss is not finite.
    """
    from ppmtl import build
    from ppmtl.start import TrainOptions, prepare_training, start_training
    from ppmtl.train.distributed import guard

    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
    run = build.load(os.fspath(config), list(overrides), tasks)
    run, evaluate = prepare_training(
        run, evaluate=evaluate, resume=resume, overwrite=overwrite, fast_dev_run=fast_dev_run
    )
    with guard():
        options = TrainOptions(evaluate=evaluate, resume=resume, fast_dev_run=fast_dev_run, overwrite=overwrite)
        stopped = start_training(run, options)
    save_dir = Path(run.settings.save_dir)
    best = save_dir / "best_model"
    if not evaluate or not _is_model(best):
        return TrainResult(save_dir, None, None, {}, stopped)
    progress = checkpoint.read_state(best)["progress"]
    measured = next(entry for entry in progress["history"] if entry["step"] == progress["best_step"])
    metrics = {key: value for key, value in measured.items() if key != "step"}
    return TrainResult(save_dir, best, progress["best_step"], metrics, stopped)
