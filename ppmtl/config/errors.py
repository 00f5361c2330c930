"""How config problems are worded and collected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

# What other toolkits and habit call our keys
_SHORT = {"lr": "learning_rate", "bs": "batch_size", "wd": "weight_decay", "iters": "steps_per_epoch"}


class ConfigError(ValueError):
    """All problems of a config in one error: sentences that say where, what was got, what is allowed.

    ``file`` is the config they were found in; empty for a mistake on the command line.
    """

    def __init__(self, problems: Sequence[str], file: str = "") -> None:
        super().__init__(list(problems), file)  # the same arguments, so that the error survives pickling
        self.problems = list(problems)
        self.file = file

    def __str__(self) -> str:
        if len(self.problems) == 1 and not self.file:
            return self.problems[0]
        count = f"{len(self.problems)} problem{'' if len(self.problems) == 1 else 's'}"
        head = f"{count} in {self.file}:" if self.file else f"{count}:"
        return "\n  - ".join([head, *self.problems])


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like ``name`` (difflib's ratio at least 0.6, or three letters or more of it), or None."""
    known, given = {plain(candidate): candidate for candidate in names}, plain(name)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    close += [candidate for candidate in known if len(given) >= 3 and given in candidate]
    return known[close[0]] if close else None


def plain(name: str) -> str:
    """A name without case, ``-`` and ``_``: RandomCrop and random_crop are the same."""
    return name.lower().replace("-", "").replace("_", "")


def suggestion(name: str, names: Iterable[str], others: Sequence[str] = ()) -> str:
    """Text "; did you mean 'x'? allowed: x, y, z" for a name that is none of ``names``; ``others`` may be meant too."""
    known = list(names)
    guess = nearest(name, known)
    guesses = " or ".join(f"'{meant}'" for meant in [*([guess] if guess else []), *others])
    hint = f"; did you mean {guesses}?" if guesses else ";"
    return f"{hint} allowed: {', '.join(known) or 'none'}"


def in_other_places(word: str, paths: Iterable[str], *, exactly: bool = False) -> list[str]:
    """Three at most of the dotted ``paths`` whose last part is ``word``, or else the one most like it."""
    word = _SHORT.get(word, word)
    last = {path: path.rpartition(".")[2] for path in paths if path}
    meant = word if exactly or plain(word) in map(plain, last.values()) else nearest(word, last.values()) or ""
    same = [path for path in last if plain(last[path]) == plain(meant)]
    return sorted(same, key=lambda path: path.count("."))[:3]


def show(value: Any) -> str:
    """A value as a YAML user knows it, with its kind where that could be mistaken: ``'0.1' (text)``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    kinds = {str: "text", int: "whole number", float: "number", list: "list", dict: "mapping"}
    return f"{text} ({kinds.get(type(value), type(value).__name__)})"


def join(path: str, key: str | int) -> str:
    """The dotted path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else str(key)
