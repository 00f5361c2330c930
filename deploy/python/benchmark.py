"""Measures an exported bundle in several engines side by side: Paddle Inference, ONNX Runtime, OpenVINO, the training graph.

    python deploy/python/benchmark.py --model_dir output_inference/allinone_demo
    python deploy/python/benchmark.py --model_dir fp32/NAME --bf16_dir conv/NAME --onnx_dir onnx/NAME --size 448 448 \\
        -c configs/NAME.yml -o weights=output/NAME/best_model --rounds 20 --json benchmark.json
    python deploy/python/benchmark.py --model_dir any_size/NAME --engines paddle-fp32 paddle-fp32=fixed_size/NAME

Every engine lives in a process of its own, with the same number of threads; they take turns, one run each, so that whatever
else the machine does hits all of them. Measured are the trunk, each head on features that are there already, each task by
itself, and several tasks in one pass. Before anything is timed, all engines answer the same picture and are compared: the
command ends with code 1 if one that computes in float32 gives other numbers. An engine that is not installed, cannot run a
graph or crashes is a row that says so. Wall time is what a user waits; CPU time is what to compare on a busy machine.

Best exports: --bf16_dir with --pointwise conv; --onnx_dir with --format onnx --input_shape HEIGHT WIDTH.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from benchmark_results import EngineNote, Results, Timing, Timings, cases_of, markdown, ratios, rows
from engine_process import Case, EngineError, EngineProcess, EngineSpec, fix_threads

from ppmtl import flags
from ppmtl.config import ConfigError, nearest

ENGINES = {  # name: (engine, bfloat16, flag that names its bundle)
    "paddle-fp32": ("paddle", False, "model_dir"),
    "paddle-bf16": ("paddle", True, "bf16_dir"),
    "onnxruntime": ("onnxruntime", False, "onnx_dir"),
    "onnxruntime-bf16": ("onnxruntime", True, "onnx_dir"),
    "openvino": ("openvino", False, "onnx_dir"),
    "openvino-bf16": ("openvino", True, "onnx_dir"),
    "eager": ("eager", False, "config"),
}
_DISTRIBUTIONS = ("paddlepaddle", "onnxruntime", "openvino", "numpy")
_SAME = 1e-3  # float32 engines may differ by so much, relative to an array's largest value; measured: 1e-6 to 1e-5


def measure(processes: Sequence[EngineProcess], cases: Sequence[Case], rounds: int, warm_up: int) -> Timings:
    """Returns {(label, case): times of each round, or why there are none}. One run each in turn: A B C A B C.

    Args:
        processes: loaded engines; what one refuses once, it is not asked again.
        cases: what is run.
        rounds: timed ones.
        warm_up: rounds before them.
    """
    timings: Timings = {}
    for number in range(-warm_up, rounds):
        for case in cases:
            for process in processes:
                timing = timings.setdefault((process.spec.label, case), Timing([], []))
                if isinstance(timing, str):
                    continue
                try:
                    wall, cpu = process.run(case)
                except EngineError as error:
                    timings[process.spec.label, case] = str(error)
                    continue
                if number >= 0:
                    timing.wall.append(wall)
                    timing.cpu.append(cpu)
    return timings


def differences(outputs: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns {array: largest difference relative to its largest value}; infinite for NaN or another shape."""
    found = {}
    for name, values in wanted.items():
        if outputs[name].shape != values.shape:
            found[name] = np.inf
            continue
        gap = np.abs(outputs[name].astype(np.float64) - values).max(initial=0.0)
        found[name] = float(np.nan_to_num(gap / max(np.abs(values).max(initial=0.0), 1e-30), nan=np.inf))
    return found


def compare(processes: Sequence[EngineProcess]) -> dict[str, EngineNote]:
    """Returns {label: how far its arrays are from those of the first engine that answers, or why it has none}."""
    notes: dict[str, EngineNote] = {}
    first: dict[str, np.ndarray] = {}
    for process in processes:
        try:
            outputs = process.outputs()
        except EngineError as error:
            notes[process.spec.label] = EngineNote(str(error))
            continue
        found = differences(outputs, first)
        first = first or outputs
        wrong = not process.spec.bf16 and max(found.values(), default=0.0) > _SAME
        notes[process.spec.label] = EngineNote("WRONG RESULT" if wrong else "", found, wrong)
    return notes


def read_specs(arguments: argparse.Namespace) -> list[EngineSpec]:
    """Returns the engines to load.

    Raises:
        ConfigError: for an engine that does not exist or is named twice, a folder that is no bundle, or no size.
    """
    from ppmtl.bundle.reading import read_bundle

    bundle = read_bundle(arguments.model_dir, arguments.tasks)
    size = arguments.size or bundle.shared_size
    if size == "first":
        raise ConfigError([f"--size HEIGHT WIDTH is needed: {arguments.model_dir} names no input size of its own"])
    overrides = tuple(item for group in arguments.overrides for item in group)
    specs = []
    for label in arguments.engines:
        name, _, own = label.partition("=")
        if name not in ENGINES or arguments.engines.count(label) > 1:
            guess = nearest(name, ENGINES)
            hint = f"; did you mean '{guess}'?" if guess and guess != name else ""
            raise ConfigError([f"--engines: got '{label}'; NAME or NAME=BUNDLE, each once: {', '.join(ENGINES)}{hint}"])
        engine, bf16, flag = ENGINES[name]
        folder = own or getattr(arguments, flag) or ("" if flag == "config" else arguments.model_dir)
        shape = arguments.batch_size, *size
        specs.append(
            EngineSpec(label, engine, bf16, folder, overrides, tuple(bundle.tasks), shape, arguments.cpu_threads)
        )
    return specs


def benchmark(specs: Sequence[EngineSpec], rounds: int, warm_up: int) -> Results:
    """Returns what was measured; the engines' processes are gone then."""
    cases = cases_of(specs[0].tasks)
    with ExitStack() as stack:
        processes = [stack.enter_context(EngineProcess(spec)) for spec in specs]
        engines = compare(processes)
        timings = measure(processes, cases, rounds, warm_up)
        for process in processes:
            note = engines[process.spec.label]
            try:
                note.peak_memory_mib = process.peak_memory_mib()
            except EngineError as error:  # it has died
                note.problem = str(error)
    found = rows(timings, specs[0].shape[0]), ratios(timings, specs)
    return Results(_setting(specs[0], rounds, warm_up), engines, *found)


def _setting(spec: EngineSpec, rounds: int, warm_up: int) -> str:
    versions = []
    for name in _DISTRIBUTIONS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"Batch {spec.shape[0]} of {spec.shape[1]}x{spec.shape[2]} (H x W), {spec.threads} thread(s) per engine, {rounds} "
        f"rounds in turn after {warm_up} to warm up; {', '.join(versions)}, Python {platform.python_version()}, "
        f"{platform.machine()}"
    )


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 if a float32 engine gives other numbers than the first engine."""
    arguments = _parser().parse_args(argv)
    fix_threads(arguments.cpu_threads)
    results = benchmark(read_specs(arguments), arguments.rounds, arguments.warm_up)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
    return int(any(engine.wrong for engine in results.engines.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, metavar="BUNDLE", help="what tools/export_model.py wrote")
    parser.add_argument("--bf16_dir", metavar="BUNDLE", help="for paddle-bf16 (default: --model_dir)")
    parser.add_argument(
        "--onnx_dir",
        metavar="BUNDLE",
        help="for ONNX Runtime and OpenVINO (default: --model_dir)",
    )
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), metavar="NAME[=BUNDLE]",
                        help=f"of: {', '.join(ENGINES)} (default: all). =BUNDLE: run that one, to compare exports")  # fmt: skip
    parser.add_argument("-c", "--config", metavar="YML", help="for eager: the training graph's config")
    parser.add_argument("-o", dest="overrides", nargs="+", action="append", default=[], metavar="KEY=VALUE",
                        help="for eager: overrides of the config; weights=... is needed")  # fmt: skip
    parser.add_argument("--tasks", type=flags.names, metavar="seg,det", help="only these heads (default: all)")
    parser.add_argument("--size", nargs=2, type=flags.positive, metavar=("H", "W"), help="default: the bundle's")
    parser.add_argument(
        "--batch_size", type=flags.positive, default=1, metavar="N", help="pictures per run (default: 1)"
    )
    parser.add_argument(
        "--cpu_threads", type=flags.positive, default=1, metavar="N", help="of every engine (default: 1)"
    )
    parser.add_argument("--rounds", type=flags.positive, default=10, metavar="N", help="timed ones (default: 10)")
    parser.add_argument(
        "--warm_up", type=flags.positive, default=2, metavar="N", help="rounds before them (default: 2)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds' figures here")
    return parser


if __name__ == "__main__":
    flags.run(main)
