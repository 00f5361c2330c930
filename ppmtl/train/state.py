"""Everything that a training run carries from step to step: saved, restored, and complete, so that resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppmtl.config.settings import EarlyStopSettings
from ppmtl.predict.evaluate import Evaluation
from ppmtl.predict.report import without_nan
from ppmtl.train import checkpoint
from ppmtl.train.balance._base import BalanceMethod
from ppmtl.train.checkpoint_folder import update
from ppmtl.train.log import LOGGER, announce
from ppmtl.train.optim import load_optimizer_state, optimizer_state
from ppmtl.train.precision import ExponentialMovingAverage, Precision


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        best, best_step: of train.best_metric.
        watched_best, stale: of early stopping: the best value of its metric, and the evaluations since.
        history: one entry per evaluation.
        evaluation_due: this step is to be evaluated and was not yet; a run that is resumed here begins with that.
        stopped: why the run ended before its schedule; "" = it did not. Not saved: a resumed run goes on.
    """

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    watched_best: float = -math.inf
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluation_due: bool = False
    stopped: str = ""

    def note(self, result: Evaluation, best_metric: str, early_stop: EarlyStopSettings | None) -> bool:
        """Takes in an evaluation; returns whether it is the best so far. Higher is better, NaN never is."""
        value = result.value(best_metric)
        values = {f"{task}.{key}": v for task, m in result.metrics.items() for key, v in m.values.items()}
        self.history.append({"step": self.step, "score": result.score, **values})
        if early_stop is not None:
            watched = result.value(early_stop.metric or best_metric)
            improved = watched > self.watched_best + early_stop.min_delta
            self.watched_best, self.stale = (watched, 0) if improved else (self.watched_best, self.stale + 1)
        if not value > self.best:
            return False
        self.best, self.best_step = value, self.step
        return True

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint stores; minus infinity (nothing measured yet) becomes None."""
        return dict(without_nan({key: value for key, value in vars(self).items() if key != "stopped"}))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """What :meth:`to_json` stored; fields that an older checkpoint lacks keep their defaults."""
        known: dict[str, Any] = {key: -math.inf if value is None else value for key, value in stored.items()}
        return cls(**known)


@dataclass
class TrainingState:
    """The parts of a run that have state; ``model`` is not wrapped for several processes."""

    model: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    precision: Precision
    balance: BalanceMethod | None  # None = equal weights
    ema: ExponentialMovingAverage | None
    progress: Progress = field(default_factory=Progress)

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Puts the weights into the model that are evaluated and saved as its weights: the average, when there is one."""
        with self.precision.evaluation():
            if self.ema is None:
                yield
                return
            raw = {name: value.clone() for name, value in self.precision.weights().items()}
            self.precision.set_weights(self.ema.average)
            try:
                yield
            finally:
                self.precision.set_weights(raw)

    def bytes_needed(self) -> int:
        """About how large one checkpoint is: weights, their average, two float32 moments per trained number."""
        weights = sum(value.size * value.element_size() for value in self.model.state_dict().values())
        moments = sum(8 * p.size for p in self._named_parameters().values() if not p.stop_gradient)
        return int(weights * (2 if self.ema else 1) + moments)

    def save(self, save_dir: Path, description: Mapping[str, Any], keep_last: int) -> None:
        """Writes step_<step> and drops the oldest."""
        tensors, document = self._evaluated(description)
        tensors["optimizer"] = optimizer_state(self._named_parameters(), self.optimizer)
        if self.balance is not None and self.balance.state_dict():
            tensors["balance"] = {name: value.numpy() for name, value in self.balance.state_dict().items()}
        folder = checkpoint.step_folder(save_dir, self.progress.step)
        checkpoint.save(folder, tensors, document)
        checkpoint.mark_latest(save_dir, folder)
        checkpoint.drop_old(save_dir, keep_last)

    def save_best(self, save_dir: Path, description: Mapping[str, Any]) -> None:
        """Writes best_model."""
        checkpoint.save(save_dir / "best_model", *self._evaluated(description))

    def note_progress(self, save_dir: Path) -> None:
        """Writes into step_<step>, which was saved before the evaluation, what that measured."""
        update(checkpoint.step_folder(save_dir, self.progress.step), {"progress": self.progress.to_json()})

    def _evaluated(self, description: Mapping[str, Any]) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """The tensors that every checkpoint has, {file stem: {name: array}}, and what goes into state.json."""
        stores = {"model": self.precision.weights()}
        if self.ema is not None:
            stores = {"model": self.ema.average, "raw": stores["model"]}
        tensors = {stem: {name: value.numpy() for name, value in of.items()} for stem, of in stores.items()}
        document = {**description, "progress": self.progress.to_json(), "precision": self.precision.state(),
                    "balance": _name(self.balance)}  # fmt: skip
        return tensors, document

    def restore(self, folder: Path) -> None:
        """Continues from a checkpoint folder.

        An average that the checkpoint lacks (``ema_decay`` is new) starts from its weights, and says so.

        Raises:
            ValueError: if it is damaged, of another model, or of a run with another balancing method.
        """
        document = checkpoint.read_state(folder)
        if document.get("balance", _name(self.balance)) != _name(self.balance):
            raise ValueError(
                f"{folder}: trained with train.balance {document['balance']}, this run has {_name(self.balance)}; set the same "
                f"one to go on, or start a new run from its weights: -o weights={folder}"
            )
        averaged = (folder / "raw.safetensors").is_file()
        weights = checkpoint.read_tensors(folder, "raw" if averaged else "model")
        checkpoint.load_weights(self.model, weights, str(folder))
        self.precision.set_weights(weights)  # once more: with O2 the model has taken rounded ones
        if self.ema is not None:
            self.ema.load(checkpoint.read_tensors(folder) if averaged else weights)
            if not averaged:
                announce("train.ema_decay: %s has no average; it starts from its weights", folder)
        if self.balance is not None and self.balance.state_dict():
            self.balance.set_state_dict(checkpoint.read_tensors(folder, "balance"))
        load_optimizer_state(self._named_parameters(), self.optimizer, checkpoint.read_tensors(folder, "optimizer"))
        self.precision.load(document.get("precision", {}))
        self.progress = Progress.from_json(document["progress"])
        LOGGER.info("resumed from %s at step %d", folder, self.progress.step)

    def _named_parameters(self) -> dict[str, paddle.Tensor]:
        """{structured name: parameter} of everything that the optimizer trains."""
        return dict(self.model.named_parameters()) | balance_parameters(self.balance)


def balance_parameters(balance: BalanceMethod | None) -> dict[str, paddle.Tensor]:
    """{"balance.<name>": parameter} of what a balancing method learns."""
    return {f"balance.{name}": p for name, p in balance.named_parameters()} if balance is not None else {}


def _name(balance: BalanceMethod | None) -> str | None:
    return None if balance is None else type(balance).__name__
