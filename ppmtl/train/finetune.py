"""Starting from a checkpoint of other classes or other tasks: the entire backbone, of the heads what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from paddle import nn

from ppmtl.structures import ClassList
from ppmtl.train import checkpoint
from ppmtl.train.log import announce

_HEADS = "heads."


def load_initial(
    model: nn.Layer,
    arrays: Mapping[str, np.ndarray],
    where: str,
    *,
    stored_classes: Mapping[str, Mapping[str, Sequence[Any]]] | None,
    classes: Mapping[str, ClassList],
) -> None:
    """Puts the weights that a new run starts from into the model, and logs a warning about everything that does not fit.

    The backbone must match completely. A head's tensors that the file lacks or has in another shape keep their initial
    values: with another number of classes that is the classifier, with a new task the entire head. No rows are copied
    from one class list to another, even where names coincide. Resuming goes through ``checkpoint.load_weights``, which
    allows none of this.

    Args:
        model: a MultiTaskModel with its initial weights.
        arrays: of a checkpoint or of converted weights.
        where: they come from, for messages.
        stored_classes: {task: {"names": ...}} of the checkpoint's state.json; None = unknown.
        classes: of this run.

    Raises:
        ValueError: if the backbone's tensors are not exactly the model's, or there are tensors of neither kind.
    """
    own, warnings = model.state_dict(), []
    fitting = {name: array for name, array in arrays.items() if not name.startswith(_HEADS)}
    for task, head in model.head_of.items():
        prefix = f"{_HEADS}{head}."
        mine = {name: value for name, value in own.items() if name.startswith(prefix)}
        loaded = {
            n: arrays[n] for n, value in mine.items() if n in arrays and list(arrays[n].shape) == list(value.shape)
        }
        # The rest is given its own values, so that one strict function loads and checks everything
        fitting |= {name: value.numpy() for name, value in mine.items()} | loaded
        fresh = [
            f"{n.removeprefix(prefix)} {f'{list(arrays[n].shape)} -> ' if n in arrays else ''}{list(value.shape)}"
            for n, value in mine.items()
            if n not in loaded
        ]
        stored = (stored_classes or {}).get(task)
        old = None if stored is None else tuple(map(str, stored["names"]))
        warnings += _tensor_warnings(task, len(loaded), fresh, old, classes[task].names)
        unused = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix) and name not in own]
        if unused:
            warnings.append(f"head '{task}': {len(unused)} tensors of the file are not used: {_some(unused)}")
        if loaded and old is not None:
            warnings += _class_warnings(task, old, classes[task].names)
    checkpoint.load_weights(model, fitting, where)
    heads_of_file = dict.fromkeys(name.split(".")[1] for name in arrays if name.startswith(_HEADS))
    left_out = [head for head in heads_of_file if head not in model.heads]
    if left_out:
        warnings.append(f"the heads {', '.join(left_out)} are not of this run and left out")
    for text in warnings:
        announce("weights %s: %s", where, text)


def _tensor_warnings(
    task: str, loaded: int, fresh: Sequence[str], old: Sequence[str] | None, new: Sequence[str]
) -> list[str]:
    """What to say of a head whose ``fresh`` tensors keep their initial values."""
    if not loaded:
        return [f"head '{task}' is not in the file, or fits nowhere: all its tensors start afresh"]
    if not fresh:
        return []
    before = "an unknown number of" if old is None else len(old)
    classes = "" if before == len(new) else f"answered {before} classes, now {len(new)}: "
    return [f"head '{task}' {classes}{len(fresh)} of its {loaded + len(fresh)} tensors start afresh: {_some(fresh)}"]


def _class_warnings(task: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """What to say of a head that was trained for as many classes of other names."""
    only_counted = [str(index) for index in range(len(new))]  # the "0", "1", ... of a config that gives only a count
    if len(old) != len(new) or only_counted in (list(old), list(new)):
        return []
    pairs = enumerate(zip(old, new, strict=True))
    renamed = [f"{index}: {before!r} is now {after!r}" for index, (before, after) in pairs if before != after]
    if not renamed:
        return []
    return [
        f"head '{task}' was trained for other classes at {len(renamed)} of {len(new)} places ({_some(renamed)}): its "
        "weights answer the old ones until they have learned. If the classes only stand in another order, give "
        f"tasks.{task}.classes.names in the file's order"
    ]


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:8]) + (f"; and {len(names) - 8} more" if len(names) > 8 else "")
