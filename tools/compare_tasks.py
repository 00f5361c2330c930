"""Is one model for all tasks better than one per task? Trains both from one config at equal steps and prints the table.

    python tools/compare_tasks.py -c configs/allinone_demo.yml --steps 600
    python tools/compare_tasks.py -c configs/allinone_demo.yml --steps 600 --seeds 1 2 3 --nprocs 2

Every run takes the same number of optimizer steps with the same batches per task; the last weights are evaluated, not the best,
so that no run profits from being evaluated more often. Runs that are finished are not repeated, and an interrupted one goes on
where it was: start the command again.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError
from ppmtl.config.settings import Settings

TOOLS = Path(__file__).resolve().parent


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps of every run (default: the config's)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="S", help="one comparison per seed (default: the config's)"
    )
    parser.add_argument("--out", metavar="DIR", help="default: <save_dir>/compare_tasks")
    cli.add_nprocs(parser, "train")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate the first N pictures of each set only")
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)
    if len(settings.tasks) < 2:
        raise ConfigError([f"--tasks: a comparison needs at least two tasks, got {', '.join(settings.tasks)}"])
    cli.require_data(settings, training=True, evaluation=True)
    missing = [name for name in settings.tasks if name not in settings.eval.datasets]
    if missing:
        raise ConfigError([f"eval.datasets.{name}: missing, and needed to compare '{name}'" for name in missing])

    from ppmtl.studies.compare import Measured, comparison

    out = Path(arguments.out or Path(settings.save_dir) / "compare_tasks")
    names = tuple(settings.tasks)
    seeds = arguments.seeds or [settings.seed]
    runs: list[Measured] = []
    primaries: dict[str, str] = {}
    plan = [(seed, tasks) for seed in seeds for tasks in [*((name,) for name in names), names]]
    for number, (seed, tasks) in enumerate(plan, 1):
        folder = out / f"{'+'.join(tasks)}_seed{seed}"
        print(f"[{number}/{len(plan)}] {' + '.join(tasks)}, seed {seed} -> {folder}", flush=True)
        seconds = _train(arguments, settings, folder, tasks, seed)
        report = _evaluate(arguments, folder, tasks)
        primaries |= {task: report[task]["primary"] for task in tasks}
        metrics = {task: float(report[task][report[task]["primary"]] or 0.0) for task in tasks}
        print(f"    {seconds:.0f} s, {', '.join(f'{t} {m:.4f}' for t, m in metrics.items())}", flush=True)
        parameters, macs = _cost(settings, tasks)
        runs.append(Measured(tasks, seed, metrics, seconds, parameters, macs))
    text = comparison(runs, {name: primaries[name] for name in names})
    size = settings.infer.size
    text += f"\n\nMultiply-adds at {size[0]} x {size[1]} (infer.size)." if size else ""
    (out / "comparison.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nwritten to {out / 'comparison.md'}")
    return 0


def _train(arguments: argparse.Namespace, settings: Settings, folder: Path, tasks: tuple[str, ...], seed: int) -> float:
    """Trains one run to its end, if it is not there yet; returns its seconds of optimizer steps.

    Raises:
        ValueError: if the folder holds a run with other settings, or the training fails.
    """
    steps = arguments.steps or settings.train.total_steps
    wanted = {"config": arguments.config, "overrides": arguments.overrides, "steps": steps, "nprocs": arguments.nprocs}
    plan, console = folder / "plan.json", folder / "console.log"
    if plan.is_file() and json.loads(plan.read_text()) != wanted:
        raise ValueError(f"{folder} holds a run with other settings ({plan.name}); give another --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps(wanted))
    if not (folder / f"step_{steps:07d}").exists():
        own = [f"save_dir={folder}", "train.epochs=1", f"train.steps_per_epoch={steps}", "train.eval_every=null",
               f"train.save_every={max(1, steps // 4)}", "train.early_stop=null", f"seed={seed}"]  # fmt: skip
        resume = ["-r", "auto"] if any(folder.glob("step_*")) else []
        _run(_command("train", arguments, tasks, own) + ["--nprocs", str(arguments.nprocs), *resume], console)
    costs = re.findall(r" step: (\d+)/.* batch_cost: ([\d.]+)", (folder / "train.log").read_text(encoding="utf-8"))
    return steps * mean(map(float, dict(costs).values()))  # a step logged twice (interrupted, resumed) counts once


def _evaluate(arguments: argparse.Namespace, folder: Path, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Returns the "tasks" part of metrics.json for the last weights, measured now or before."""
    report = folder / "eval" / "metrics.json"
    if not report.is_file() or json.loads(report.read_text(encoding="utf-8"))["limit"] != arguments.limit:
        own = [f"save_dir={folder}", f"weights={folder / 'latest'}"]
        limit = ["--limit", str(arguments.limit)] if arguments.limit else []
        _run(_command("eval", arguments, tasks, own) + limit, folder / "console.log")
    return dict(json.loads(report.read_text(encoding="utf-8"))["tasks"])


def _cost(settings: Settings, tasks: tuple[str, ...]) -> tuple[int, int]:
    """Returns (trainable parameters, multiply-adds of one picture at the shared size) of a model for ``tasks``."""
    from ppmtl import build
    from ppmtl.studies.cost import count_macs, count_parameters, without_weights

    chosen = build.select_tasks(settings, tasks)
    classes = build.build_classes(chosen)
    model = without_weights(lambda: build.build_model(chosen, classes))
    size = chosen.infer.size or next(iter(build.build_tasks(chosen, classes).values())).plain_size((720, 1280))
    macs = sum(count_macs(model, size, tasks, training=False).values())
    return sum(sum(parts.values()) for parts in count_parameters(model).values()), macs


def _command(tool: str, arguments: argparse.Namespace, tasks: tuple[str, ...], own: list[str]) -> list[str]:
    overrides = [item for group in arguments.overrides for item in group] + own
    device = ["--device", arguments.device] if arguments.device else []
    return [sys.executable, str(TOOLS / f"{tool}.py"), "-c", arguments.config, "--tasks", ",".join(tasks), *device,
            "-o", *overrides]  # fmt: skip


def _run(command: list[str], console: Path) -> None:
    with console.open("ab") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        tail = "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        raise ValueError(f"{Path(command[1]).name} ended with code {code}; the end of {console}:\n{tail}")


if __name__ == "__main__":
    cli.run(main)
