"""The benchmark of engines: turns, wrong answers, engines that are missing, refuse or die; ratios."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import benchmark
import engine_process
import numpy as np
import pytest
from benchmark import cases_of, ratios_of
from engine_process import Case, EngineError, EngineProcess, EngineSpec
from small_model import tool, write_model

from ppmtl.bundle import reading
from ppmtl.config import ConfigError

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "python"
SPEC = EngineSpec("paddle-fp32", "paddle", False, "", (), ("seg", "det"), (1, 64, 96), 1)
BACKBONE, EVERY = Case("backbone"), Case("pass", ("seg", "det"))


class FakeProcess:
    """An engine without a process. It answers ``value``, or dies in the case that ``dies_in`` names."""

    def __init__(self, label: str, log: list, value: float = 1.0, *, dies_in: str = "", **low: bool) -> None:
        self.spec = replace(SPEC, label=label, **low)
        self.log, self.value, self.dies_in = log, value, dies_in

    def ask(self, case):
        if case is None:
            return {"seg.probs": np.full((2, 3), self.value)}
        self.log.append((case.name, self.spec.label))
        if case.name == self.dies_in:
            raise EngineError("died of SIGSEGV (no message)")
        return 1.0, 0.5, 99.0


def test_engines_take_turns_case_by_case_and_warm_up_is_not_counted():
    log = []
    timings, _ = benchmark.measure(
        [FakeProcess("a", log), FakeProcess("b", log)], [BACKBONE, EVERY], rounds=2, warm_up=1
    )
    assert log == [(case, engine) for _ in range(3) for case in ("backbone", "seg + det") for engine in "ab"]
    assert timings["a", BACKBONE] == [(1.0, 0.5, 99.0)] * 2


def test_an_engine_that_fails_in_one_case_is_not_asked_it_again_and_the_others_go_on():
    log = []
    fine, ill = FakeProcess("fine", log), FakeProcess("ill", log, dies_in="backbone")
    timings, problems = benchmark.measure([ill, fine], [BACKBONE, EVERY], rounds=3, warm_up=0)
    assert log.count(("backbone", "ill")) == 1
    assert problems["ill", BACKBONE] == "died of SIGSEGV (no message)"
    assert len(timings["fine", BACKBONE]) == len(timings["ill", EVERY]) == 3


@pytest.mark.parametrize("value", [1.01, np.nan])
@pytest.mark.parametrize("low", ["bf16", "int8"])
def test_float32_that_gives_other_numbers_is_wrong_and_fewer_bits_are_only_reported(value, low):
    processes = [
        FakeProcess("first", []),
        FakeProcess("other", [], value),
        FakeProcess("low", [], value, **{low: True}),
    ]
    notes = benchmark.compare(processes)
    assert [note["wrong"] for note in notes.values()] == [False, True, False]
    assert notes["low"]["differences"]["seg.probs"] > 0.009


def test_ratios_are_those_that_the_goals_name():
    seconds = {"paddle-fp32": 2.0, "openvino": 1.6, "eager": 5.0, "paddle-bf16": 0.9, "openvino-bf16": 1.0}
    engines = {"openvino": "openvino", "eager": "eager", "openvino-bf16": "openvino"}
    specs = [replace(SPEC, label=n, engine=engines.get(n, "paddle"), bf16="bf16" in n) for n in seconds]
    costs = {"backbone": 1.0, "head": 0.1, "pass": 1.1}  # of each part; a pass with two tasks costs one head more
    timings = {}
    for spec in specs:
        for case in cases_of(spec.tasks):
            cost = seconds[spec.label] * (costs[case.part] + 0.1 * (len(case.tasks) == 2))
            timings[spec.label, case] = [(cost, cost / 2, 99.0)] * 3
    del timings["eager", BACKBONE]
    found = {ratio["what"]: (round(ratio["wall"], 3), ratio["at_most"]) for ratio in ratios_of(timings, specs)}
    assert found["backbone: paddle-fp32 / openvino"] == found["seg + det: paddle-fp32 / openvino"] == (1.25, 1.1)
    assert found["backbone: paddle-bf16 / openvino-bf16"] == (0.9, 1.1)
    assert found["paddle-fp32: seg + det / (backbone + heads)"] == (1.0, 1.1)
    assert found["paddle-fp32: seg + det / (one pass per task)"] == (round(1.2 / 2.2, 3), 0.5)
    assert "eager: seg + det / (backbone + heads)" not in found


def test_a_process_that_dies_says_of_what_and_is_not_asked_again(tmp_path):
    with EngineProcess(replace(SPEC, folder=str(tmp_path))) as process:
        process._process.kill()
        for _ in range(2):
            with pytest.raises(EngineError, match="died of SIGKILL"):
                process.ask(BACKBONE)


def test_a_process_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_process, "_PATIENCE", 0.5)
    with EngineProcess(replace(SPEC, folder=str(tmp_path))) as process:
        process._process.join(0.1)
        subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(process._process.pid)], check=True)
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(EngineError, match="no answer within"):
                process.ask(BACKBONE)
        assert time.monotonic() - started < 60


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(process, JSON) of the command on a small model that was exported as .pdmodel and .onnx."""
    pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
    pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
    folder = tmp_path_factory.mktemp("benchmark")
    write_model(folder)
    flags = ("-c", "tiny.yml", "-o", "weights=random", "data_root=none")
    export = (*flags, "--tasks", "seg,cls", "--verify_images", "1", "--output_dir")
    tool("export_model", *export, "paddle", cwd=folder)
    tool("export_model", *export, "onnx", "--format", "onnx", "--input_shape", "64", "96", cwd=folder)
    command = [
        *(SCRIPTS / "benchmark.py", "--model_dir", "paddle/tiny", "--onnx_dir", "onnx/tiny", *flags),
        *("--engines", "paddle-fp32", "onnxruntime", "onnxruntime-bf16", "eager", "onnxruntime=nowhere"),
        *("--rounds", "2", "--warm_up", "1", "--json", "out.json"),
    ]
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, json.loads((folder / "out.json").read_text())


def test_engines_agree_with_the_training_graph_and_every_case_is_timed_in_each(done):
    _, results = done
    for label in ("onnxruntime", "eager"):
        assert max(results["engines"][label]["differences"].values()) < 1e-4
        assert results["engines"][label]["peak_memory_mib"] > 50
    timed = {(row["case"], row["engine"]) for row in results["rows"] if len(row["wall_ms"]) == 2 and row["cpu_ms"] > 0}
    cases = ("backbone", "head seg", "head cls", "seg", "cls", "seg + cls")
    assert timed == {(case, label) for case in cases for label in ("paddle-fp32", "onnxruntime", "eager")}


def test_an_engine_that_cannot_do_it_is_a_row_that_says_why(done):
    text, results = done
    assert "ONNX Runtime runs .onnx graphs in float32" in results["engines"]["onnxruntime-bf16"]["problem"]
    assert "| onnxruntime=nowhere |  |  | nowhere: no such folder" in text
    assert "| backbone: paddle-fp32 / onnxruntime |" in text


def test_an_engine_that_is_not_installed_is_a_row_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(
        reading, "read_bundle", lambda *_: SimpleNamespace(settings=SimpleNamespace(graph_format="onnx"), folder="")
    )
    with pytest.raises(ValueError, match="pip install openvino"):
        engine_process._open(replace(SPEC, engine="openvino", folder=str(tmp_path)))


@pytest.mark.parametrize(
    "size, engines, words",
    [
        ((64, 96), ["openvin"], "did you mean 'openvino'"),
        ((64, 96), ["eager", "eager"], "each once"),
        ("first", ["eager"], "--size HEIGHT WIDTH is needed"),
    ],
)
def test_mistakes_in_the_command_are_explained(size, engines, words, monkeypatch):
    monkeypatch.setattr(reading, "read_bundle", lambda *_: SimpleNamespace(tasks=("seg",), shared_size=size))
    with pytest.raises(ConfigError, match=words):
        benchmark.main(["--model_dir", "some", "--engines", *engines])
