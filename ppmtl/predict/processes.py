"""The processes of one job, as work that is dealt out among them sees them. Without Paddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class JobError(ValueError):
    """One of several processes failed; the message names it."""


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

    def name(self, rank: int | None = None) -> str:
        """Returns how messages call a process; without ``rank`` this one."""
        return f"rank {self.rank if rank is None else rank} of {self.count}"
