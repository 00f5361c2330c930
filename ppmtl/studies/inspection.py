"""What is in a checkpoint, a run's folder or a file of weights, as a document (for JSON) and as lines. Without Paddle."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl import tables
from ppmtl.data.findings import shorten
from ppmtl.files import sha256
from ppmtl.train.checkpoint import HIDDEN, ordinal
from ppmtl.train.checkpoint_folder import STATE, problems
from ppmtl.weights.files import WeightFile, dtype_name, read_weights
from ppmtl.weights.table import compare, parts, statistics

MIB = 2**20


def describe_run(run: Path) -> dict[str, Any]:
    """Every checkpoint of a run, those that a killed save left hidden too, and what -r auto would take; {} without any."""
    found: dict[str, Any] = {}
    resumable = []
    folders = () if (run / STATE).is_file() else run.glob("*")
    for folder in sorted(path for path in folders if path.is_dir() and not path.is_symlink()):
        hidden = HIDDEN.fullmatch(folder.name)
        if not hidden and not (folder / STATE).is_file() and not re.fullmatch(r"step_\d+|best_model", folder.name):
            continue
        name, manifest, wrong = hidden[1] if hidden else folder.name, _manifest(folder), problems(folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        found[folder.name] = {"step": _node(manifest, "progress").get("step"), "saved_at": manifest.get("saved_at"),
                              "bytes": size, "problems": wrong}  # fmt: skip
        usable = not wrong and not (hidden and (run / name).exists())
        if usable and hidden:
            found[folder.name]["restored_as"] = name
        if usable and name.startswith("step_"):
            resumable.append((ordinal(folder), name))
    link = run / "latest"
    return found and {
        "path": str(run),
        "damaged": any(entry["problems"] for name, entry in found.items() if not name.startswith(".")),
        "checkpoints": found,
        "latest": link.readlink().name if link.is_symlink() else None,
        "resume": max(resumable)[1] if resumable else None,
    }


def describe(path: Path, pattern: re.Pattern[str], *, tensors: bool, stats: bool) -> dict[str, Any]:
    """Manifest, files and parts of a checkpoint folder or of one file; with ``tensors`` each one that matches."""
    manifest, files = _manifest(path if path.is_dir() else path.parent), {}
    for name, file in _weight_files(path).items():
        entry: dict[str, Any] = {"bytes": file.stat().st_size, "sha256": sha256(file), "problems": []}
        recorded = _node(manifest, "digests").get(name)
        entry["digest_recorded"] = recorded is not None
        if recorded not in (None, entry["sha256"]):
            entry["problems"].append(f"its SHA-256 is not the one recorded in {STATE}")
        try:
            opened = read_weights(file)
            entry |= {"metadata": dict(opened.metadata), "tensors": len(opened.tensors), "parts": parts(opened.tensors)}
            if tensors:
                entry["table"] = {
                    tensor_name: {"shape": list(tensor.shape), "dtype": dtype_name(tensor), "bytes": tensor.nbytes}
                    | (statistics(tensor) if stats else {})
                    for tensor_name, tensor in _chosen(opened, pattern).items()
                }
        except ValueError as error:
            entry["problems"].append(str(error))
        files[name] = entry
    wrong = problems(path) if path.is_dir() else []
    damaged = bool(wrong) or any(entry["problems"] for entry in files.values())
    return {"path": str(path), "damaged": damaged, "problems": wrong, "files": files,
            "manifest": manifest if path.is_dir() else {}}  # fmt: skip


def differences(first: Path, second: Path, pattern: re.Pattern[str] = re.compile("")) -> dict[str, Any]:
    """{"file against file": how they differ}; a single file is compared with a folder's model.safetensors.

    Raises:
        ValueError: if ``second`` is damaged or holds nothing to compare.
    """
    if (second / STATE).is_file() and (wrong := problems(second)):
        raise ValueError(f"--compare: {second} is damaged: {'; '.join(wrong)}")
    if first.is_dir() and second.is_dir():
        ours, theirs = _weight_files(first), _weight_files(second)
    else:
        ours, theirs = ({"": path / "model.safetensors" if path.is_dir() else path} for path in (first, second))
    result: dict[str, Any] = {}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            result[name] = {"same": False, "only_in": str(first if name in ours else second)}
            continue
        a, b = read_weights(ours[name]), read_weights(theirs[name])
        result[f"{ours[name]} against {theirs[name]}"] = compare(_chosen(a, pattern), _chosen(b, pattern))
    return result


def text(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines to print; of a comparison only damage and how the two differ."""
    yield document["path"]
    compared = document.get("comparison", {})
    yield from (f"  DAMAGED: {problem}" for problem in document.get("problems", ()))
    if "checkpoints" in document:
        yield from _run_text(document)
    elif not compared:
        yield from _manifest_text(document["manifest"])
    for name, entry in document.get("files", {}).items():
        if entry["problems"] or not (compared or entry.get("table") == {}):  # {}: nothing that --filter lets through
            yield from _file_text(name, entry)
    for pair, found in compared.items():
        yield from _difference_text(pair, found)


def _run_text(document: Mapping[str, Any]) -> Iterator[str]:
    rows, states = [], [""]
    for name, entry in document["checkpoints"].items():
        rows.append((name, entry["step"] or "?", entry["saved_at"] or "?", f"{entry['bytes'] / MIB:.1f}"))
        states.append("DAMAGED: " + "; ".join(entry["problems"]) if entry["problems"] else "OK")
        if name.startswith("."):
            restored = f"read and restored as {entry['restored_as']}" if "restored_as" in entry else None
            states[-1] += f" (left by a killed save; {restored or 'removed by the next one'})"
    lines = tables.columns(("checkpoint", "step", "saved", "MiB"), rows).splitlines()
    yield from (f"  {line}  {state}" for line, state in zip(lines, states, strict=True))
    yield f"  latest -> {document['latest']}" if document["latest"] else "  no link 'latest'"
    yield f"  -r auto would resume from {document['resume'] or 'nothing: no intact step checkpoint'}"


def _manifest_text(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What state.json says, as far as it is of the kind that this project writes."""
    progress, config = _node(manifest, "progress"), _node(manifest, "config")
    best, metric = progress.get("best"), _node(config, "train").get("best_metric", "score")
    if progress:
        known = isinstance(best, float)
        score = f"best {metric} {best:.4f} at step {progress.get('best_step')}" if known else "not evaluated"
        yield f"  step {progress.get('step')}, {score}, saved {manifest.get('saved_at', 'at an unknown time')}"
    history = progress.get("history")
    for entry in history[-3:] if isinstance(history, list) else ():
        if isinstance(entry, dict):
            numbers = ", ".join(f"{k} {v:.4f}" for k, v in entry.items() if isinstance(v, float) and v == v)
            yield f"    evaluated at step {entry.get('step')}: {numbers}"
    for task in _node(manifest, "classes"):
        listed = _node(_node(manifest, "classes"), task).get("names")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        yield f"  classes of {task}: {len(names)} ({', '.join(names):.100})"
    model = _node(config, "model")
    heads = {f"head {task}": _node(_node(model, "heads"), task) for task in _node(model, "heads")}
    environment = _node(manifest, "environment")
    for title, node in {"backbone": _node(model, "backbone"), **heads, "written by": environment}.items():
        kept = {key: value.get("type") if isinstance(value, dict) else value for key, value in node.items()}
        words = [str(v) if k == "type" else f"{k}={v}" for k, v in kept.items() if v is not None]
        yield from [f"  {title}: {' '.join(words)}"] if words else []


def _file_text(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    state = "OK" if entry["digest_recorded"] else "no digest recorded"
    state = "DAMAGED: " + "; ".join(entry["problems"]) if entry["problems"] else state
    groups = entry.get("parts", {})
    numbers = sum(part["numbers"] for part in groups.values())
    counts = f", {entry['tensors']} tensors, {numbers:,} numbers" if "parts" in entry else ""
    yield f"{name}: {entry['bytes'] / MIB:.1f} MiB{counts}, sha256 {entry['sha256'][:16]}..., {state}"
    yield from (f"  {key}: {value:.100}" for key, value in list(entry.get("metadata", {}).items())[:20])
    if listed := entry.get("table"):
        heads = ["tensor", *next(iter(listed.values()))]
        rows = [[tensor, *map(_cell, facts.values())] for tensor, facts in listed.items()]
    else:
        heads = ["part", "tensors", "numbers", "MiB"]
        rows = [[part, f"{p['tensors']:,}", f"{p['numbers']:,}", f"{p['nbytes'] / MIB:.2f}"]
                for part, p in groups.items()]  # fmt: skip
        if len(rows) > 30:  # Paddle's generated names are a part each
            rows[30:] = [[f"... and {len(rows) - 30} more", "", "", ""]]
    yield from (f"  {line}" for line in tables.columns(heads, rows).splitlines() if rows)


def _cell(fact: Any) -> str:
    if isinstance(fact, list):  # a shape
        return "x".join(map(str, fact)) or "scalar"
    return f"{fact:.4g}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else fact


def _difference_text(pair: str, found: Mapping[str, Any]) -> Iterator[str]:
    """How two files differ; of each kind the first 20, the largest differences first."""
    if "only_in" in found:
        yield f"{pair}: only in {found['only_in']}"
        return
    yield f"{pair}: {found['equal']} tensors are equal" + (", nothing differs" if found["same"] else "")
    groups = {kind: found[kind] for kind in ("missing", "unexpected", "other_shape", "other_type")}
    groups["differing"] = [f"{name}: at most {largest:.4g} apart" for name, largest in found["differing"].items()]
    for kind, lines in groups.items():
        if lines:
            yield f"  {len(lines)} {kind.replace('_', ' ')}:"
            yield from (f"  {line}" for line in shorten(lines, 20).splitlines())


def _manifest(folder: Path) -> dict[str, Any]:
    """As far as it can be read; whether it is intact is said elsewhere."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        manifest = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return manifest if isinstance(manifest, dict) else {}
    return {}


def _node(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def _chosen(file: WeightFile, pattern: re.Pattern[str]) -> dict[str, np.ndarray]:
    return {n: t for n, t in file.tensors.items() if pattern.search(f"{file.path.name}: {n}")}


def _weight_files(path: Path) -> dict[str, Path]:
    """The files of a folder that hold tensors, or the file itself."""
    if path.is_file():
        return {path.name: path}
    kinds = (".safetensors", ".pdparams", ".pdopt", ".pth")
    found = {p.name: p for p in sorted(path.glob("*")) if p.suffix in kinds}
    if not found and not (path / STATE).is_file():
        raise ValueError(f"{path}: no checkpoint; give a checkpoint folder, a run's folder or a file of weights")
    return found
