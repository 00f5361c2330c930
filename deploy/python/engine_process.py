"""An inference engine in a process of its own: its own memory and thread pools, and a crash takes nothing else with it."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppmtl.system import peak_memory_mib

_PATIENCE = 900.0  # seconds for one answer; loading a ConvNeXt-L on a busy machine takes minutes


@dataclass(frozen=True)
class Case:
    """What is run once: the backbone, one head on features that are there already, or a pass: backbone and heads."""

    part: Literal["backbone", "head", "pass"]
    tasks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in tables: "backbone", "head seg", "seg + det"."""
        return " + ".join(self.tasks) if self.part == "pass" else " ".join((self.part, *self.tasks))


@dataclass(frozen=True)
class EngineSpec:
    """What a process loads: a bundle in an engine, or the training graph ("eager") of a config with overrides.

    With ``bf16`` or ``int8`` its numbers need not be those of the others.
    """

    label: str
    engine: str
    bf16: bool
    folder: str
    overrides: tuple[str, ...]
    tasks: tuple[str, ...]
    shape: tuple[int, int, int]
    threads: int
    int8: bool = False


class EngineError(Exception):
    """An engine cannot do what it was asked, in words for the table."""


class EngineProcess:
    """A process that holds one engine; used as a context, at whose end the process is gone."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec, self._dead = spec, ""  # why it does not answer any more
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
        self._process.kill()
        self._log.close()

    def ask(self, case: Case | None) -> Any:
        """Runs a case once: (wall seconds, CPU seconds of all threads, peak memory in MiB so far).

        None: {"task.array": values} of one pass. The first question also waits for loading.

        Raises:
            EngineError: if the engine refuses or has died.
        """
        if self._dead:
            raise EngineError(self._dead)
        try:
            self._pipe.send(case)
            if not self._pipe.poll(_PATIENCE):
                self._process.kill()
                self._dead = f"no answer within {_PATIENCE:.0f} s"
                raise EngineError(self._dead)
            answer, problem = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            code = self._process.exitcode or 0
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            said = Path(self._log.name).read_text(errors="replace").strip().split("\n")[-1].strip()
            self._dead = f"died of {cause} ({said[:200] or 'no message'})"
            raise EngineError(self._dead) from error
        if problem:
            raise EngineError(problem)
        return answer


def _serve(pipe: Connection, spec: EngineSpec, log: str) -> None:
    """Answers questions until the other end is closed. What libraries print goes to ``log``."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and its pipe ends us
    network, images, features = None, _image(spec.shape), None
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        try:
            network = network or _open(spec)
            if case is None:
                raw = network(images, spec.tasks)
                answer: Any = {f"{task}.{key}": a for task, arrays in raw.items() for key, a in arrays.items()}
            else:
                features = network.features(images) if case.part == "head" and features is None else features
                answer = _timed(network, case, images, features)
            pipe.send((answer, ""))
        except (ValueError, RuntimeError, NotImplementedError, OSError, ImportError) as error:
            pipe.send((None, " ".join(str(error).split())[:300] or type(error).__name__))


def _timed(network: Any, case: Case, images: np.ndarray, features: Any) -> tuple[float, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    if case.part == "backbone":
        network.features(images)
    elif case.part == "head":
        network.head(*case.tasks, features)
    else:
        network(images, case.tasks)
    return time.perf_counter() - wall, time.process_time() - cpu, peak_memory_mib()


def _open(spec: EngineSpec) -> Any:
    if spec.engine == "eager":
        eager = importlib.import_module("ppmtl.studies.eager")  # by name: deployment imports no training code
        return eager.open_model(spec.folder, spec.overrides, spec.tasks)

    from ppmtl.bundle.engines.backend import open_backend
    from ppmtl.bundle.reading import read_bundle

    bundle, engine = read_bundle(spec.folder, spec.tasks), spec.engine
    return open_backend(bundle, cpu_threads=spec.threads, bf16=spec.bf16, engine=engine)  # type: ignore[arg-type]


def _image(shape: tuple[int, int, int]) -> np.ndarray:
    """(B, H, W, 3) uint8: coloured tiles of 16 pixels with noise, the same in every process."""
    batch, height, width = shape
    random = np.random.default_rng(0)
    tiles = random.integers(32, 224, (batch, -(-height // 16), -(-width // 16), 3))
    pixels = tiles.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return (pixels + random.integers(-32, 32, pixels.shape)).astype(np.uint8)
