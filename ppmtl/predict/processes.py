"""The processes of one job, as work that they share sees them. Without Paddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class JobError(ValueError):
    """One of several processes failed; the message names it."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a piece of work; as built, a single one.

    Attributes:
        rank: of this process, from 0.
        count: how many there are.
        all_gather: gives one picklable value and returns those of all processes, by rank. All have to call it.
    """

    rank: int = 0
    count: int = 1
    all_gather: Callable[[Any], list[Any]] = lambda value: [value]
