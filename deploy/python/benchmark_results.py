"""Figures of deploy/python/benchmark.py: rows, ratios, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from engine_process import Case, EngineSpec


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one engine and case."""

    wall: list[float]
    cpu: list[float]

    @property
    def medians(self) -> np.ndarray:
        """Returns (wall, CPU) seconds."""
        return np.median([self.wall, self.cpu], axis=1)


Timings = dict[tuple[str, Case], Timing | str]
"""{(engine's label, case): times, or why there are none}"""


@dataclass
class EngineNote:
    """What is to be said of one engine: why it has no figures, how far its arrays are from the first engine's, memory."""

    problem: str
    differences: dict[str, float] = field(default_factory=dict)
    wrong: bool = False
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Row:
    """One case in one engine; milliseconds. ``wall_ms`` holds every round."""

    case: str
    engine: str
    problem: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms: float | None = None
    images_per_s: float | None = None
    wall_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Median time relative to another, and the goal it is held to."""

    what: str
    wall: float
    cpu: float
    at_most: float


@dataclass(frozen=True)
class Results:
    """All that was measured; ``engines`` by label."""

    setting: str
    engines: dict[str, EngineNote]
    rows: list[Row]
    ratios: list[Ratio]


def cases_of(tasks: Sequence[str]) -> list[Case]:
    """Returns what is measured: trunk, each head, each task alone, then the first two, three, ... tasks in one pass."""
    names = tuple(tasks)
    return [
        Case("trunk"),
        *(Case("head", (name,)) for name in names),
        *(Case("pass", (name,)) for name in names),
        *(Case("pass", names[:count]) for count in range(2, len(names) + 1)),
    ]


def rows(timings: Timings, batch: int) -> list[Row]:
    """Returns one row per engine and case, engines of one case together."""
    found = []
    for (label, case), timing in timings.items():
        if isinstance(timing, str):
            found.append(Row(case.name, label, timing))
            continue
        p50, p99 = np.percentile(timing.wall, [50, 99]) * 1e3
        cpu = float(timing.medians[1]) * 1e3
        wall = [seconds * 1e3 for seconds in timing.wall]
        found.append(Row(case.name, label, "", float(p50), float(p99), cpu, batch * 1e3 / float(p50), wall))
    return found


def ratios(timings: Timings, specs: Sequence[EngineSpec]) -> list[Ratio]:
    """Returns the ratios that the goals are about, as far as both sides were measured."""
    known = {key: timing.medians for key, timing in timings.items() if not isinstance(timing, str)}
    every, trunk = Case("pass", specs[0].tasks), Case("trunk")
    found = []
    for case in (trunk, every):
        for spec in specs:
            others = [
                (known[s.label, case], s.label)
                for s in specs
                if s.engine != "paddle" and s.bf16 == spec.bf16 and (s.label, case) in known
            ]
            if spec.engine == "paddle" and (spec.label, case) in known and others:
                best, label = min(others, key=lambda item: float(item[0][0]))
                found.append(_ratio(f"{case.name}: {spec.label} / {label}", known[spec.label, case], best, 1.1))
    apart = [trunk, *(Case("head", (name,)) for name in every.tasks)]
    singles = [Case("pass", (name,)) for name in every.tasks]
    for spec in specs if len(every.tasks) > 1 else ():
        for parts, words, goal in ((apart, "(trunk + heads)", 1.1), (singles, "(one pass per task)", 0.5)):
            if all((spec.label, case) in known for case in (every, *parts)):
                total = np.sum([known[spec.label, case] for case in parts], axis=0)
                found.append(_ratio(f"{spec.label}: {every.name} / {words}", known[spec.label, every], total, goal))
    return found


def _ratio(what: str, over: np.ndarray, under: np.ndarray, goal: float) -> Ratio:
    wall, cpu = (over / under).tolist()
    return Ratio(what, wall, cpu, goal)


def markdown(results: Results) -> str:
    """Returns the tables: engines, times, ratios."""
    lines = [
        results.setting,
        "",
        "| engine | peak memory, MiB | largest difference from the first, relative | |",
        "|---|---|---|---|",
    ]
    for label, note in results.engines.items():
        apart = ", ".join(f"{name} {value:.0e}" for name, value in note.differences.items())
        peak = "" if note.peak_memory_mib is None else f"{note.peak_memory_mib:.0f}"
        lines.append(f"| {label} | {peak} | {apart} | {note.problem} |")
    lines += ["", "| what | engine | p50, ms | p99, ms | CPU, ms | images/s |", "|---|---|---|---|---|---|"]
    whole = {label: note.problem for label, note in results.engines.items() if note.problem}
    for row in results.rows:
        if row.p50_ms is None:
            if row.problem != whole.get(row.engine):
                lines.append(f"| {row.case} | {row.engine} | {row.problem} | | | |")
            continue
        times = [_figure(value) for value in (row.p50_ms, row.p99_ms, row.cpu_ms, row.images_per_s)]
        lines.append(f"| {row.case} | {row.engine} | {' | '.join(times)} |")
    lines += ["", "| ratio of medians | wall | CPU | goal: at most |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.wall:.2f} | {r.cpu:.2f} | {r.at_most:g} |" for r in results.ratios]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}"
