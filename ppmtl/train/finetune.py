"""Starting from a checkpoint of other classes or other tasks: the entire backbone, of the heads what fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from ppmtl.structures import ClassList
from ppmtl.tasks.base import Task
from ppmtl.train import checkpoint
from ppmtl.train.log import LOGGER, announce
from ppmtl.weights.pretrained import load_pretrained
from ppmtl.weights.whole import holds_heads, own_names


def start_from(model: nn.Layer, path: Path, tasks: Mapping[str, Task[Any]]) -> None:
    """Fills a new run's model from what ``weights=`` means: a checkpoint, another project's model, or a backbone alone.

    Args:
        model: a MultiTaskModel with its initial weights.
        path: of a checkpoint folder or a weights file.
        tasks: of this run.

    Raises:
        ValueError: if the backbone does not fit exactly, or the file is damaged.
    """
    arrays = own_names(checkpoint.read_tensors(path), model)
    if not holds_heads(arrays) and model.backbone.weight_names is not None:
        report = load_pretrained(model.backbone, str(path))
        LOGGER.info("weights: a backbone alone, the heads start afresh: %s", report.text())
        return
    LOGGER.info("weights: %s", path)
    classes = {name: task.classes for name, task in tasks.items()}
    load_initial(model, arrays, str(path), classes=classes, stored_classes=checkpoint.read_state(path).get("classes"))


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
    fitting = {name: array for name, array in arrays.items() if not name.startswith("heads.")}
    for task, head in model.head_of.items():
        prefix = f"heads.{head}."
        mine = {name: value for name, value in own.items() if name.startswith(prefix)}
        fresh = [n for n, value in mine.items() if n not in arrays or list(arrays[n].shape) != list(value.shape)]
        # The fresh ones are given their own values, so that one strict function loads and checks everything
        fitting |= {name: value.numpy() if name in fresh else arrays[name] for name, value in mine.items()}
        old = tuple(map(str, stored_classes[task]["names"])) if stored_classes and task in stored_classes else None
        new = classes[task].names
        if len(fresh) == len(mine):
            warnings.append(f"head '{task}' is not in the file, or fits nowhere: all its tensors start afresh")
        elif fresh:
            before = "an unknown number of" if old is None else len(old)
            counts = "" if before == len(new) else f"answered {before} classes, now {len(new)}: "
            shapes = [
                f"{n.removeprefix(prefix)} {f'{list(arrays[n].shape)} -> ' if n in arrays else ''}{list(mine[n].shape)}"
                for n in fresh
            ]
            warnings.append(
                f"head '{task}' {counts}{len(fresh)} of its {len(mine)} tensors start afresh: {_some(shapes)}"
            )
        unused = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix) and name not in own]
        if unused:
            warnings.append(f"head '{task}': {len(unused)} tensors of the file are not used: {_some(unused)}")
        renamed = list(_renamed(old, new)) if old is not None and len(fresh) < len(mine) else []
        if renamed:
            warnings.append(
                f"head '{task}' was trained for other classes at {len(renamed)} of {len(new)} places ({_some(renamed)}): "
                "its weights answer the old ones until they have learned. If the classes only stand in another order, give "
                f"tasks.{task}.classes.names in the file's order"
            )
    checkpoint.load_weights(model, fitting, where)
    heads_of_file = dict.fromkeys(name.split(".")[1] for name in arrays if name.startswith("heads."))
    if left_out := [head for head in heads_of_file if head not in model.heads]:
        warnings.append(f"the heads {', '.join(left_out)} are not of this run and left out")
    for text in warnings:
        announce("weights %s: %s", where, text)


def _renamed(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Where as many classes have other names; the "0", "1", ... of a config that gives only a count say nothing."""
    counted = tuple(str(index) for index in range(len(new)))
    if len(old) == len(new) and counted not in (tuple(old), tuple(new)):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            if before != after:
                yield f"{index}: {before!r} is now {after!r}"


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:8]) + (f"; and {len(names) - 8} more" if len(names) > 8 else "")
