"""Measures an exported bundle in several engines side by side: Paddle Inference, ONNX Runtime, OpenVINO, the training graph.

    python deploy/python/benchmark.py --model_dir output_inference/allinone_demo
    python deploy/python/benchmark.py --model_dir fp32/NAME --bf16_dir conv/NAME --onnx_dir onnx/NAME --size 448 448 \\
        -c configs/NAME.yml -o weights=output/NAME/best_model --rounds 20 --json benchmark.json
    python deploy/python/benchmark.py --model_dir any_size/NAME --engines paddle-fp32 paddle-fp32=fixed_size/NAME
    python deploy/python/benchmark.py --model_dir onnx/NAME --engines onnxruntime onnxruntime=int8/NAME

Every engine is a process; they take turns, one run each, so that whatever else the machine does hits all of them. First all
answer the same image and are compared: the exit code is 1 if one that computes in float32 gives other numbers. An engine that
is not installed, cannot run a graph or crashes is a row that says so. Compare CPU time on a busy machine.

Best exports: --bf16_dir with --pointwise conv; --onnx_dir with --format onnx --input_shape HEIGHT WIDTH.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from engine_process import Case, EngineError, EngineProcess, EngineSpec

from ppmtl import cli, tables
from ppmtl.config import ConfigError, suggestion

ENGINES = {  # name: (engine, bfloat16, flag that names its bundle)
    "paddle-fp32": ("paddle", False, "model_dir"),
    "paddle-bf16": ("paddle", True, "bf16_dir"),
    "onnxruntime": ("onnxruntime", False, "onnx_dir"),
    "onnxruntime-bf16": ("onnxruntime", True, "onnx_dir"),
    "openvino": ("openvino", False, "onnx_dir"),
    "openvino-bf16": ("openvino", True, "onnx_dir"),
    "eager": ("eager", False, "config"),
}
_SAME = 1e-3  # float32 engines may differ by so much, relative to an array's largest value; measured: 1e-6 to 1e-5
FIGURES = ("p50_ms", "p99_ms", "cpu_ms", "images_per_s")
Key = tuple[str, Case]  # the engine's label and what it did
Table = list[dict[str, Any]]


def measure(
    processes: Sequence[EngineProcess], cases: Sequence[Case], rounds: int, warm_up: int
) -> tuple[dict[Key, list[Any]], dict[Key, str]]:
    """({key: (wall s, CPU s, peak MiB) of each round}, {key: why there are none}), one run each in turn: A B C A B C."""
    timings: dict[Key, list[Any]] = {(process.spec.label, case): [] for case in cases for process in processes}
    problems: dict[Key, str] = {}
    for number, case, process in itertools.product(range(-warm_up, rounds), cases, processes):
        key = process.spec.label, case
        if key in timings:  # what an engine refuses once, it is not asked again
            try:
                answer = process.ask(case)
                timings[key] += [answer] if number >= 0 else []
            except EngineError as error:
                problems[key] = str(error)
                del timings[key]
    return timings, problems


def compare(processes: Sequence[EngineProcess]) -> dict[str, dict[str, Any]]:
    """{label: how far its arrays are from those of the first engine that answers, or why it has none}."""
    notes: dict[str, dict[str, Any]] = {}
    first: dict[str, np.ndarray] = {}
    for process in processes:
        found, wrong, problem = {}, False, ""
        try:
            outputs = process.ask(None)
            found = {name: _difference(outputs[name], values) for name, values in first.items()}
            first = first or outputs
            wrong = not (process.spec.bf16 or process.spec.int8) and max(found.values(), default=0.0) > _SAME
            problem = "WRONG RESULT" if wrong else ""
        except EngineError as error:
            problem = str(error)
        note = {"problem": problem, "differences": found, "wrong": wrong, "peak_memory_mib": None}
        notes[process.spec.label] = note
    return notes


def _difference(values: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference relative to the largest value; infinite for NaN or another shape."""
    if values.shape != wanted.shape:
        return np.inf
    gap = np.abs(values.astype(np.float64) - wanted).max(initial=0.0)
    return float(np.nan_to_num(gap / max(np.abs(wanted).max(initial=0.0), 1e-30), nan=np.inf))


def cases_of(names: tuple[str, ...]) -> list[Case]:
    """What is measured: backbone, each head, each task alone, then the first two, three, ... tasks in one pass."""
    alone = [(name,) for name in names]
    passes = [*alone, *(names[:count] for count in range(2, len(names) + 1))]
    return [Case("backbone"), *(Case("head", tasks) for tasks in alone), *(Case("pass", tasks) for tasks in passes)]


def rows_of(timings: Mapping[Key, list[Any]], problems: Mapping[Key, str], batch: int) -> Table:
    """One row per engine and case; "wall_ms" holds every round."""
    nothing = dict.fromkeys(FIGURES) | {"wall_ms": []}
    rows: Table = [{"case": case.name, "engine": e, "problem": why, **nothing} for (e, case), why in problems.items()]
    for (label, case), timing in timings.items():
        wall, cpu = 1e3 * np.array([seconds for *seconds, _ in timing]).T
        p50, p99 = np.percentile(wall, [50, 99]).tolist()
        figures = zip(FIGURES, (p50, p99, float(np.median(cpu)), batch * 1e3 / p50), strict=True)
        rows.append({"case": case.name, "engine": label, "problem": "", **dict(figures), "wall_ms": wall.tolist()})
    return rows


def ratios_of(timings: Mapping[Key, list[Any]], specs: Sequence[EngineSpec]) -> Table:
    """The ratios of medians that the goals are about, as far as both sides were measured."""
    known = {key: np.median([seconds for *seconds, _ in timing], axis=0) for key, timing in timings.items()}
    names, wanted = specs[0].tasks, []
    backbone, every = Case("backbone"), Case("pass", names)
    for case, spec in itertools.product((backbone, every), specs):
        others = [(s.label, case) for s in specs if s.engine != "paddle" and s.bf16 == spec.bf16]
        fastest = min((key for key in others if key in known), key=lambda key: float(known[key][0]), default=None)
        if spec.engine == "paddle" and fastest:
            wanted.append((f"{case.name}: {spec.label} / {fastest[0]}", (spec.label, case), [fastest], 1.1))
    for label in [spec.label for spec in specs] if len(names) > 1 else ():
        apart = [(label, backbone), *((label, Case("head", (name,))) for name in names)]
        singles = [(label, Case("pass", (name,))) for name in names]
        wanted.append((f"{label}: {every.name} / (backbone + heads)", (label, every), apart, 1.1))
        wanted.append((f"{label}: {every.name} / (one pass per task)", (label, every), singles, 0.5))
    found = []
    for what, over, under, goal in wanted:
        if {over, *under} <= known.keys():
            wall, cpu = (known[over] / sum(known[key] for key in under)).tolist()
            found.append({"what": what, "wall": wall, "cpu": cpu, "at_most": goal})
    return found


def markdown(notes: Mapping[str, dict[str, Any]], rows: Table, ratios: Table) -> str:
    """The tables: engines, times, ratios."""
    engines, times = [], []
    for label, note in notes.items():
        peak = f"{note['peak_memory_mib']:.0f}" if note["peak_memory_mib"] else ""
        gaps = ", ".join(f"{name} {value:.0e}" for name, value in note["differences"].items())
        engines.append([label, peak, gaps, note["problem"]])
    for row in rows:
        if not row["problem"]:
            figures = [row[key] for key in FIGURES]
            times.append([row["case"], row["engine"], *(f"{v:.4g}" if v < 1000 else f"{v:.0f}" for v in figures)])
        elif row["problem"] != notes[row["engine"]]["problem"]:
            times.append([row["case"], row["engine"], row["problem"], "", "", ""])
    lines = [[r["what"], f"{r['wall']:.2f}", f"{r['cpu']:.2f}", f"{r['at_most']:g}"] for r in ratios]
    return "\n\n".join([
        tables.markdown(["engine", "peak memory, MiB", "largest difference from the first, relative", ""], engines),
        tables.markdown(["what", "engine", "p50, ms", "p99, ms", "CPU, ms", "images/s"], times),
        tables.markdown(["ratio of medians", "wall", "CPU", "goal: at most"], lines),
    ])  # fmt: skip


def read_specs(arguments: argparse.Namespace) -> list[EngineSpec]:
    """The engines to load.

    Raises:
        ConfigError: for an engine that does not exist or is named twice, a folder that is no bundle, or no size.
    """
    from ppmtl.bundle.reading import read_bundle

    bundle = read_bundle(arguments.model_dir, arguments.tasks)
    size = arguments.size or bundle.shared_size
    if size == "first":
        raise ConfigError([f"--size HEIGHT WIDTH is needed: {arguments.model_dir} names no input size of its own"])
    overrides = tuple(item for group in arguments.overrides for item in group)
    common = overrides, tuple(bundle.tasks), (arguments.batch_size, *size), arguments.cpu_threads
    specs = []
    for label in arguments.engines:
        name, _, own = label.partition("=")
        if name not in ENGINES:
            raise ConfigError([f"--engines: got '{label}', not NAME or NAME=BUNDLE{suggestion(name, ENGINES)}"])
        if arguments.engines.count(label) > 1:
            raise ConfigError([f"--engines: '{label}' is named twice; name each once"])
        engine, bf16, flag = ENGINES[name]
        folder = own or getattr(arguments, flag) or ("" if flag == "config" else arguments.model_dir)
        specs.append(EngineSpec(label, engine, bf16, folder, *common, int8=_in_8_bit(Path(folder))))
    return specs


def _in_8_bit(folder: Path) -> bool:
    """Whether the bundle says so; what is none, its engine will refuse."""
    from ppmtl.bundle.reading import read_settings

    try:
        return read_settings(folder).precision == "int8"
    except ConfigError:
        return False


def main(argv: Sequence[str]) -> int:
    """Prints the tables; the exit code is 1 if a float32 engine gives other numbers than the first engine."""
    arguments = _parser().parse_args(argv)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read by the processes started later
        os.environ[name] = str(arguments.cpu_threads)
    specs = read_specs(arguments)
    with ExitStack() as stack:
        processes = [stack.enter_context(EngineProcess(spec)) for spec in specs]
        notes = compare(processes)
        timings, problems = measure(processes, cases_of(specs[0].tasks), arguments.rounds, arguments.warm_up)
    for (label, _), timing in timings.items():
        notes[label]["peak_memory_mib"] = timing[-1][2]  # of the last case, so the highest
    rows, ratios = rows_of(timings, problems, arguments.batch_size), ratios_of(timings, specs)
    known = ("paddlepaddle", "onnxruntime", "openvino", "numpy")
    versions = sorted({f"{found.name} {found.version}" for found in distributions() if found.name in known})
    batch, height, width = specs[0].shape
    setting = (
        f"Batch {batch} of {height}x{width} (H x W), {arguments.cpu_threads} thread(s) per engine, {arguments.rounds} rounds "
        f"after {arguments.warm_up} to warm up; {', '.join(versions)}, Python {platform.python_version()}, {platform.machine()}"
    )
    print(f"{setting}\n\n{markdown(notes, rows, ratios)}")
    if arguments.json:
        results = {"setting": setting, "engines": notes, "rows": rows, "ratios": ratios}
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(note["wrong"] for note in notes.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, cli.positive
    add("--model_dir", required=True, metavar="BUNDLE", help="what tools/export_model.py wrote")
    add("--bf16_dir", metavar="BUNDLE", help="for paddle-bf16 (default: --model_dir)")
    add("--onnx_dir", metavar="BUNDLE", help="for ONNX Runtime and OpenVINO (default: --model_dir)")
    add("--engines", nargs="+", default=list(ENGINES), metavar="NAME[=BUNDLE]",
        help=f"of: {', '.join(ENGINES)} (default: all). =BUNDLE: run that one, to compare exports")  # fmt: skip
    add("-c", "--config", metavar="YML", help="for eager: the training graph's config")
    add("-o", dest="overrides", nargs="+", action="append", default=[], metavar="KEY=VALUE",
        help="for eager: overrides of the config; weights=... is needed")  # fmt: skip
    add("--tasks", type=cli.names, metavar="seg,det", help="only these heads (default: all)")
    add("--size", nargs=2, type=positive, metavar=("H", "W"), help="default: the bundle's")
    add("--batch_size", type=positive, default=1, metavar="N", help="images per run (default: 1)")
    add("--cpu_threads", type=positive, default=1, metavar="N", help="of every engine (default: 1)")
    add("--rounds", type=positive, default=10, metavar="N", help="timed ones (default: 10)")
    add("--warm_up", type=positive, default=2, metavar="N", help="rounds before them (default: 2)")
    add("--json", type=Path, metavar="FILE", help="write all rounds' figures here")
    return parser


if __name__ == "__main__":
    cli.run(main)
