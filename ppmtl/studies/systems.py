"""Table 2 of the China Telecom paper on any data: two systems, trained for the same time with the same seeds."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from ppmtl import build, tables
from ppmtl.files import atomic_write
from ppmtl.studies.compare import evaluate_run, step_seconds, train_run
from ppmtl.studies.cost import count_parameters

WIDTH = "model.backbone.dim"  # what is changed until the second system has as many parameters as the first
TOLERANCE = 0.05  # of the numbers of parameters that count as equal
SPEED_STEPS, SPEED_LOG = 40, 20  # the second half of a short training says what a step costs
EQUAL = {"minutes": "equal minutes, each model as its config has it", "parameters": "equal minutes and parameters"}
PAPER = """| list A of the challenge, as the paper prints it | segmentation | classification | detection | score |
| --- | --- | --- | --- | --- |
| the paper's system, with TTA | 0.67104 | 0.95784 | 0.95615 | 0.8617 |
| the organisers' baseline | 0.5513 | 0.91683 | 0.77012 | 0.7461 |"""


@dataclass(frozen=True)
class System:
    """One of the two: a config, what is changed of it, and how many parameters that makes."""

    config: str
    overrides: tuple[str, ...]
    parameters: int

    @property
    def name(self) -> str:
        """What it is called: its file's name."""
        return Path(self.config).stem


@dataclass(frozen=True)
class Cell:
    """One system trained with one seed.

    Attributes:
        metrics: {"task metric": value} of the primary metrics, higher is better.
        steps: optimizer steps.
        seconds: that they took, evaluation not included.
        limit: evaluated on so many images of each set; None = all.
    """

    metrics: dict[str, float]
    steps: int
    seconds: float
    limit: int | None


Cells = Mapping[tuple[str, int], Cell]
"""{(system's name, seed): what was measured}; what is missing was not run."""


def compare_systems(arguments: argparse.Namespace, out: Path) -> str:
    """Trains and evaluates both systems for every seed and kind of equality; returns the tables, written after each run too.

    What ``out`` holds already is read and not repeated; an interrupted training goes on. ``arguments`` are those of
    tools/reproduce.py.

    Raises:
        ValueError: if --tasks or --seed is given, the systems answer different tasks or cannot be made of equal size, ``out``
            holds runs of other settings, or a run fails.
    """
    if arguments.tasks or arguments.seed is not None:
        raise ValueError("--against compares complete systems: give --seeds instead of --seed, and no --tasks")
    seeds = arguments.seeds or [build.load(arguments.config, _shared(arguments)).settings.seed]
    text = ""
    chosen = {equal: _systems(arguments, equal) for equal in arguments.equal}
    found: dict[str, dict[tuple[str, int], Cell]] = {equal: {} for equal in chosen}
    for dry in (True, False):  # first what is there, so that every table that is written is complete
        for equal, pair in chosen.items():
            for seed in seeds:
                for system in pair:
                    cell = _cell(arguments, system, seed, out / equal, dry=dry or arguments.print)
                    if cell is not None:
                        found[equal][system.name, seed] = cell
                    text = "\n\n".join([PAPER, *(_table(kind, chosen[kind], seeds, found[kind]) for kind in chosen)])
                    out.mkdir(parents=True, exist_ok=True)
                    with atomic_write(out / "table2.md") as path:
                        path.write_text(f"{text}\n", encoding="utf-8")
    return text


def _shared(arguments: argparse.Namespace) -> list[str]:
    return [item for group in arguments.overrides for item in group]


def _systems(arguments: argparse.Namespace, equal: str) -> tuple[System, System]:
    """The system of -c and that of --against, the latter made wider or narrower if they are to have equal parameters."""
    shared = tuple(_shared(arguments))
    first, second = (System(path, shared, _parameters(path, shared)) for path in (arguments.config, arguments.against))
    tasks = [list(build.load(system.config, system.overrides).settings.tasks) for system in (first, second)]
    if tasks[0] != tasks[1] or first.name == second.name:
        raise ValueError(
            f"--against: {first.config} answers {', '.join(tasks[0])} and {second.config} {', '.join(tasks[1])}; two files "
            "of different names with the same tasks can be compared"
        )
    return (first, second) if equal == "minutes" else (first, as_large(second, first.parameters))


def as_large(system: System, wanted: int) -> System:
    """The system with the backbone's width that comes closest to ``wanted`` parameters.

    Raises:
        ValueError: if that is further away than the tolerance.
    """
    settings = build.load(system.config, system.overrides).settings
    backbone = build.build_model(settings, build.build_tasks(settings)).backbone
    step = math.lcm(8, backbone.blocks[0].attn.num_heads)

    def wide(steps: int) -> System:
        overrides = (*system.overrides, f"{WIDTH}={steps * step}")
        return System(system.config, overrides, _parameters(system.config, overrides))

    low, high = 1, 2
    while wide(high).parameters < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle).parameters < wanted else (low, middle)
    best = min((wide(low), wide(high)), key=lambda made: abs(made.parameters - wanted))
    if abs(best.parameters - wanted) > TOLERANCE * wanted:
        raise ValueError(
            f"--equal parameters: the closest that {WIDTH} makes of {system.config} is {best.parameters:,}, not within "
            f"{TOLERANCE:.0%} of {wanted:,}; change its heads first (in a config of its own), or use --equal minutes"
        )
    return best


def _parameters(config: str, overrides: Sequence[str]) -> int:
    settings = build.load(config, overrides).settings
    counted = count_parameters(build.build_model(settings, build.build_tasks(settings)))
    return sum(sum(layers.values()) for layers in counted.values())


def _cell(arguments: argparse.Namespace, system: System, seed: int, out: Path, *, dry: bool) -> Cell | None:
    """One system with one seed, from its file or else measured; None = not there, and ``dry`` says to run nothing."""
    folder = out / f"{system.name}_seed{seed}"
    plan = {"config": system.config, "overrides": list(system.overrides), "minutes": arguments.minutes,
            "nprocs": arguments.nprocs, "limit": arguments.limit}  # fmt: skip
    done = folder / "cell.json"
    if done.is_file():
        stored = json.loads(done.read_text(encoding="utf-8"))
        if stored["plan"] != plan:
            raise ValueError(
                f"{done} was measured with {stored['plan']}, not {plan}; give another --output_dir, or delete it"
            )
        return Cell(**stored["cell"])
    if dry:
        return None
    given = argparse.Namespace(config=system.config, overrides=[list(system.overrides)], device=arguments.device,
                               nprocs=arguments.nprocs, limit=arguments.limit)  # fmt: skip
    tasks = list(build.load(system.config, system.overrides).settings.tasks)
    print(f"{out.name}: {system.name}, seed {seed} -> {folder}", flush=True)
    steps = max(1, round(60 * arguments.minutes / _step_cost(given, out / f"{system.name}_speed", tasks)))
    seconds = train_run(given, folder, tasks, seed, steps, [])
    report = evaluate_run(given, folder, tasks)
    metrics = {
        f"{task} {report[task]['primary']}": float(report[task][report[task]["primary"]] or 0.0) for task in tasks
    }
    cell = Cell(metrics, steps, seconds, arguments.limit)
    with atomic_write(done) as path:
        path.write_text(json.dumps({"plan": plan, "cell": asdict(cell)}, indent=1), encoding="utf-8")
    return cell


def _step_cost(given: argparse.Namespace, folder: Path, tasks: Sequence[str]) -> float:
    """Seconds of one optimizer step, measured once per system so that all seeds take as many steps."""
    train_run(given, folder, tasks, 0, SPEED_STEPS, [f"train.log_every={SPEED_LOG}"])
    return step_seconds(folder)[-1]


def _table(equal: str, pair: Sequence[System], seeds: Sequence[int], cells: Cells) -> str:
    """One table and who wins; numbers of several seeds as mean (least to most)."""
    names = list(dict.fromkeys(name for cell in cells.values() for name in cell.metrics))
    rows = []
    for system in pair:
        done = [cells[system.name, seed] for seed in seeds if (system.name, seed) in cells]
        row: list[object] = [system.name, f"{system.parameters / 1e6:.2f} M", f"{len(done)} of {len(seeds)}"]
        if not done:
            rows.append([*row, *["not run"] * (len(names) + 3)])
            continue
        values = [_shown([cell.metrics[name] for cell in done]) for name in names]
        minutes = mean(cell.seconds for cell in done) / 60
        rows.append([*row, str(done[0].steps), f"{minutes:.1f}", *values, _shown([_score(cell) for cell in done])])
    heads = ["system", "parameters", "seeds", "steps", "minutes", *names, "score"]
    limits = {cell.limit for cell in cells.values()} - {None}
    note = f"; the first {limits.pop()} images of each set" if limits else ""
    lines = [f"### {EQUAL[equal]}, seeds {', '.join(map(str, seeds))}{note}", tables.markdown(heads, rows)]
    return "\n\n".join([*lines, "\n".join(f"* {line}" for line in _winners(pair, seeds, cells, names))])


def _winners(pair: Sequence[System], seeds: Sequence[int], cells: Cells, names: Sequence[str]) -> list[str]:
    """One line per metric and one for the score, over the seeds that both systems have finished."""
    both = [seed for seed in seeds if all((system.name, seed) in cells for system in pair)]
    if not both:
        return ["who wins: not run"]
    lines = []
    for name in [*names, "score"]:
        of = [
            [_score(c) if name == "score" else c.metrics[name] for c in (cells[s.name, seed] for seed in both)]
            for s in pair
        ]
        first, second = mean(of[0]), mean(of[1])
        ahead = pair[0] if first >= second else pair[1]
        overlap = max(map(min, of)) <= min(map(max, of))
        spread = (
            "one seed" if len(both) == 1 else f"{len(both)} seeds, ranges {'overlap' if overlap else 'do not overlap'}"
        )
        said = "equal" if first == second else f"{ahead.name} by {abs(first - second):.4f}"
        lines.append(f"{name}: {said} ({first:.4f} against {second:.4f}; {spread})")
    return lines


def _score(cell: Cell) -> float:
    return mean(cell.metrics.values())


def _shown(values: Sequence[float]) -> str:
    spread = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"
