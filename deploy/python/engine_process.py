"""An inference engine in a process of its own, which runs one thing at a time and says how long it took.

Each engine has its own memory and thread pools that way, and one that crashes takes nothing else with it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 900.0  # seconds for one answer; loading a ConvNeXt-L on a busy machine takes minutes
_PEAK_MEMORY, _OUTPUTS = "peak memory", "outputs"  # questions; every other one is a Case


@dataclass(frozen=True)
class Case:
    """What is run once: the trunk, the heads on features that are there already, or the trunk and then the heads."""

    part: Literal["trunk", "head", "pass"]
    tasks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns its name in tables."""
        return {"trunk": "trunk", "head": f"head {', '.join(self.tasks)}", "pass": " + ".join(self.tasks)}[self.part]


@dataclass(frozen=True)
class EngineSpec:
    """What a process loads.

    Attributes:
        label: in tables.
        engine: one of ``ppmtl.bundle.engines.backend.EngineName``, or "eager" for the training graph.
        bf16: bfloat16 arithmetic.
        folder: the bundle, or the config for "eager".
        overrides: of the config.
        tasks: the heads that will be used.
        shape: (batch, height, width) of the input.
        threads: of the CPU.
    """

    label: str
    engine: str
    bf16: bool
    folder: str
    overrides: tuple[str, ...]
    tasks: tuple[str, ...]
    shape: tuple[int, int, int]
    threads: int


class Runner(Protocol):
    """A loaded network; ``BundleBackend`` is one."""

    def features(self, images: np.ndarray) -> Mapping[str, Any]:
        """Returns what the heads need; runs the trunk."""

    def head(self, name: str, features: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Returns one task's raw arrays."""

    def __call__(self, images: np.ndarray, tasks: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns {task: raw arrays}; the trunk runs once."""


class EngineError(Exception):
    """An engine cannot do what it was asked, in words for the table."""


class EngineProcess:
    """A process that holds one engine; used as a context, at whose end the process is gone.

    Attributes:
        spec: what it loads.
        dead: why it does not answer any more; None = it does.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec, self.dead = spec, cast("str | None", None)
        self._log = tempfile.NamedTemporaryFile(prefix="engine_", suffix=".log")  # noqa: SIM115 (closed in __exit__)
        context = multiprocessing.get_context("spawn")  # a fork would inherit thread pools and memory
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, self._log.name), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not end our waiting

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # ends its loop
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.close()

    def outputs(self) -> dict[str, np.ndarray]:
        """Returns {"task.array": values} of one pass with all tasks. The first call also waits for loading.

        Raises:
            EngineError: as do all methods, if the engine refuses or has died.
        """
        return cast("dict[str, np.ndarray]", self._ask(_OUTPUTS))

    def run(self, case: Case) -> tuple[float, float]:
        """Returns (wall, CPU) seconds of one run; CPU time is that of all threads."""
        return cast("tuple[float, float]", self._ask(case))

    def peak_memory_mib(self) -> float | None:
        """Returns the most memory that the process held so far."""
        return cast("float | None", self._ask(_PEAK_MEMORY))

    def _ask(self, question: object) -> object:
        if self.dead is not None:
            raise EngineError(self.dead)
        try:
            self._pipe.send(question)
            if not self._pipe.poll(_PATIENCE):
                self._process.kill()
                self.dead = f"no answer within {_PATIENCE:.0f} s"
                raise EngineError(self.dead)
            answer, problem = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            self.dead = f"died of {self._cause()}"
            raise EngineError(self.dead) from error
        if problem is not None:
            raise EngineError(problem)
        return cast(object, answer)

    def _cause(self) -> str:
        code = self._process.exitcode
        words = Path(self._log.name).read_text(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(words) if line.strip()), "no message")
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"{name} ({said[:200]})"


def fix_threads(count: int) -> None:
    """Sets what libraries read when they are imported; processes started later inherit it."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)


def _serve(pipe: Connection, spec: EngineSpec, log: str) -> None:
    """Answers questions until the other end is closed. What libraries print goes to ``log``."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and its pipe ends us
    answer = None
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        try:
            answer = answer or _answerer(spec)
            reply: tuple[object, str | None] = (answer(question), None)
        except (ValueError, RuntimeError, NotImplementedError, OSError, ImportError) as error:
            reply = (None, " ".join(str(error).split())[:300] or type(error).__name__)
        pipe.send(reply)


def _answerer(spec: EngineSpec) -> Callable[[object], object]:
    """Returns what answers questions, after loading the engine."""
    from timing import peak_memory_mib

    runner = _open_eager(spec) if spec.engine == "eager" else _open_bundle(spec)
    images = _picture(spec.shape)
    features: Mapping[str, Any] = {}

    def run(case: Case) -> object:
        return {
            "trunk": lambda: runner.features(images),
            "head": lambda: [runner.head(name, features) for name in case.tasks],
            "pass": lambda: runner(images, case.tasks),
        }[case.part]()

    def answer(question: object) -> object:
        nonlocal features
        if question == _PEAK_MEMORY:
            return peak_memory_mib()
        if question == _OUTPUTS:
            raw = runner(images, spec.tasks)
            return {f"{task}.{name}": values for task, arrays in raw.items() for name, values in arrays.items()}
        assert isinstance(question, Case)
        if question.part == "head" and not features:
            features = runner.features(images)
        wall, cpu = time.perf_counter(), time.process_time()
        run(question)
        return time.perf_counter() - wall, time.process_time() - cpu

    return answer


def _open_bundle(spec: EngineSpec) -> Runner:
    from ppmtl.bundle.engines.backend import EngineName, open_backend
    from ppmtl.bundle.reading import read_bundle

    engine = cast(EngineName, spec.engine)
    return open_backend(read_bundle(spec.folder, spec.tasks), cpu_threads=spec.threads, bf16=spec.bf16, engine=engine)


def _open_eager(spec: EngineSpec) -> Runner:
    """Returns the training graph. Deployment holds no training code, so it is asked of the project's tools by name."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        tool = importlib.import_module("benchmark_eager")
    except ModuleNotFoundError as error:
        raise ValueError(f"needs the training code, {error.name} is missing: run it in the whole project") from error
    return cast(Runner, tool.open_model(spec.folder, spec.overrides, spec.tasks))


def _picture(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns (B, H, W, 3) uint8: coloured tiles of 16 pixels with noise, the same in every process."""
    batch, height, width = shape
    random = np.random.default_rng(0)
    tiles = random.integers(32, 224, (batch, -(-height // 16), -(-width // 16), 3))
    pixels = tiles.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return (pixels + random.integers(-32, 32, pixels.shape)).astype(np.uint8)
