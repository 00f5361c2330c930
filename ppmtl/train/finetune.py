"""Starting from a checkpoint of other classes or other tasks: the trunk in full, of the heads what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import nn

from ppmtl.structures import ClassList
from ppmtl.train import checkpoint
from ppmtl.train.log import announce

_HEADS = "heads."


@dataclass(frozen=True)
class HeadReport:
    """What became of one head.

    Attributes:
        task: its name.
        loaded: tensors taken from the file.
        fresh: tensors that keep their initial values: "name [shape in the file] -> [shape here]", or without an arrow
            where the file has none.
        dropped: tensors of the file that this head does not have.
        old, new: class names of the file and of this run; ``old`` is None where the file does not say.
    """

    task: str
    loaded: int
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    old: tuple[str, ...] | None
    new: tuple[str, ...]

    @property
    def renamed(self) -> tuple[str, ...]:
        """Returns "3: 'car' is now 'bus'" of the classes at whose place the file had another one, if as many in all."""
        if self.old is None or len(self.old) != len(self.new) or _numbered(self.old) or _numbered(self.new):
            return ()
        pairs = enumerate(zip(self.old, self.new, strict=True))
        return tuple(f"{index}: {old!r} is now {new!r}" for index, (old, new) in pairs if old != new)

    def warnings(self) -> list[str]:
        """Returns what a user has to know, one sentence each; nothing when the whole head was loaded for its classes."""
        said = []
        if not self.loaded:
            said.append(f"head '{self.task}' is not in the file, or fits nowhere: all its tensors start afresh")
        elif self.fresh:
            old, new = "an unknown number of" if self.old is None else len(self.old), len(self.new)
            classes = "" if old == new else f"answered {old} classes, now {new}: "
            said.append(
                f"head '{self.task}' {classes}{len(self.fresh)} of its {self.loaded + len(self.fresh)} tensors start "
                f"afresh: {_some(self.fresh)}"
            )
        if self.dropped:
            said.append(
                f"head '{self.task}': {len(self.dropped)} tensors of the file are not used: {_some(self.dropped)}"
            )
        if self.renamed and self.loaded:
            said.append(
                f"head '{self.task}' was trained for other classes at {len(self.renamed)} of {len(self.new)} places "
                f"({_some(self.renamed)}): its weights answer the old ones until they have learned. If the classes only "
                f"stand in another order, give classes.{self.task}.names in the file's order"
            )
        return said


@dataclass(frozen=True)
class FineTuneReport:
    """What became of a checkpoint: one report per head of the model, and the tasks of the file that are left out."""

    where: str
    heads: tuple[HeadReport, ...]
    left_out: tuple[str, ...]

    def warnings(self) -> list[str]:
        """Returns what a user has to know, one sentence each; empty when everything fits."""
        said = [f"weights {self.where}: {text}" for head in self.heads for text in head.warnings()]
        if self.left_out:
            said.append(
                f"weights {self.where}: the heads of {', '.join(self.left_out)} are not of this run and left out"
            )
        return said


def load_initial(
    model: nn.Layer,
    arrays: Mapping[str, np.ndarray],
    where: str,
    *,
    stored_classes: Mapping[str, Mapping[str, Sequence[Any]]] | None,
    classes: Mapping[str, ClassList],
) -> FineTuneReport:
    """Returns what became of the weights that a new run starts from, after putting them into the model and saying it.

    The backbone must match in full. A head's tensors that the file lacks or has in another shape keep their initial
    values: with another number of classes that is the classifier, with a new task the whole head. No rows are carried
    over between class lists, even where names coincide. Resuming goes through ``checkpoint.load_weights``, which allows
    none of this.

    Args:
        model: a MultiTaskModel with its initial weights.
        arrays: of a checkpoint or of converted weights.
        where: they come from, for messages.
        stored_classes: {task: {"names": ...}} of the checkpoint's state.json; None = unknown.
        classes: of this run.

    Raises:
        ValueError: if the backbone's tensors are not exactly the model's, or there are tensors of neither kind.
    """
    own = model.state_dict()
    fitting, reports = {n: a for n, a in arrays.items() if not n.startswith(_HEADS)}, []
    for task in model.heads:
        prefix = f"{_HEADS}{task}."
        names = [name for name in own if name.startswith(prefix)]
        loaded = [n for n in names if n in arrays and list(arrays[n].shape) == list(own[n].shape)]
        # The rest is given its own values, so that one strict function loads and checks everything
        fitting |= {n: arrays[n] if n in loaded else own[n].numpy() for n in names}
        fresh = tuple(
            f"{n.removeprefix(prefix)} "
            + (f"{list(arrays[n].shape)} -> {list(own[n].shape)}" if n in arrays else f"{list(own[n].shape)}")
            for n in names
            if n not in loaded
        )
        dropped = tuple(n.removeprefix(prefix) for n in arrays if n.startswith(prefix) and n not in own)
        old = (stored_classes or {}).get(task)
        old_names = tuple(map(str, old["names"])) if old is not None else None
        reports.append(HeadReport(task, len(loaded), fresh, dropped, old_names, classes[task].names))
    checkpoint.load_weights(model, fitting, where)
    tasks_of_file = dict.fromkeys(name.split(".")[1] for name in arrays if name.startswith(_HEADS))
    report = FineTuneReport(where, tuple(reports), tuple(task for task in tasks_of_file if task not in model.heads))
    for text in report.warnings():
        announce("%s", text)
    return report


def _numbered(names: tuple[str, ...]) -> bool:
    """Returns whether the names are the "0", "1", ... of a config that gives only a count."""
    return names == tuple(map(str, range(len(names))))


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:8]) + (f"; and {len(names) - 8} more" if len(names) > 8 else "")
