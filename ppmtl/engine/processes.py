"""The processes of one job: who does which part, and how N of them are started on this machine. Without Paddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class Processes:
    """The processes that share a piece of work; as built, the one that works alone.

    Attributes:
        rank: of this process, from 0.
        count: how many there are.
        exchange: gives one picklable value and returns those of all processes, by rank. All have to call it.
    """

    rank: int = 0
    count: int = 1
    exchange: Callable[[Any], list[Any]] = _alone
