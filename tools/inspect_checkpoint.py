"""Shows what is in a checkpoint and whether it is whole, without building a model and without Paddle.

    python tools/inspect_checkpoint.py output/allinone_demo                    every checkpoint of a run
    python tools/inspect_checkpoint.py output/allinone_demo/best_model
    python tools/inspect_checkpoint.py output/allinone_demo/latest --filter 'optimizer.*heads.det' --stats
    python tools/inspect_checkpoint.py convnext_large.pth --tensors
    python tools/inspect_checkpoint.py output/a/latest --compare output/b/latest

Read are checkpoint folders of this project, .safetensors, .pdparams, .pdopt and .pth. Nothing in them is executed.
Exit code: 0 = whole (and, with --compare, equal), 1 = damaged or unreadable, 3 = whole, but the two differ.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.files import sha256
from ppmtl.predict.report import without_nan
from ppmtl.train import checkpoint, storage
from ppmtl.weights.files import StoredTensor, open_weights
from ppmtl.weights.table import compare, parts, statistics

DIFFERENT = 3
MIB = 2**20


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="FILE_OR_FOLDER", type=Path)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument(
        "--stats", action="store_true", help="list them with minimum, maximum, mean, NaN and infinities"
    )
    parser.add_argument("--filter", metavar="PATTERN", type=regular_expression, default=None,
                        help="list the tensors whose 'file: name' this regular expression matches somewhere")  # fmt: skip
    parser.add_argument("--compare", metavar="OTHER", type=Path, help="say which tensors differ, and by how much")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args(argv)
    path = storage.stand_in(arguments.path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a checkpoint folder, a run's folder or a file of weights")
    if path.is_dir() and not (path / storage.STATE).is_file() and checkpoints(path):
        document = describe_run(path)
    else:
        document = describe(path, arguments)
    if arguments.compare:
        other = storage.stand_in(arguments.compare)
        if (other / storage.STATE).is_file() and (wrong := storage.problems(other)):
            raise ValueError(f"--compare: {other} is damaged: {'; '.join(wrong)}")
        document["comparison"] = describe_difference(path, other, arguments.filter)
    try:
        print(json.dumps(without_nan(document), indent=1) if arguments.json else "\n".join(text(document)), flush=True)
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if document["damaged"]:
        return 1
    return 0 if all(entry["same"] for entry in document.get("comparison", {}).values()) else DIFFERENT


def regular_expression(words: str) -> re.Pattern[str]:
    """Returns the regular expression given with --filter."""
    try:
        return re.compile(words)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{words!r} is no regular expression ({error})") from error


def checkpoints(run: Path) -> list[Path]:
    """Returns the checkpoint folders of a run, those that a killed save left hidden too."""
    known = re.compile(r"step_\d+|best_model|\..+\.(new|old|gone)")
    folders = [p for p in run.iterdir() if storage.is_ours(p)]
    return sorted(p for p in folders if (p / storage.STATE).is_file() or known.fullmatch(p.name))


def describe_run(run: Path) -> dict[str, Any]:
    """Returns {"path", "damaged", "checkpoints": {name: ...}, "latest", "resume": what -r auto would take}."""
    found: dict[str, dict[str, Any]] = {}
    for folder in checkpoints(run):
        manifest, progress = manifest_of(folder)
        found[folder.name] = {
            "step": progress.get("step"),
            "saved_at": manifest.get("saved_at"),
            "bytes": sum(p.stat().st_size for p in folder.iterdir()),
            "problems": storage.problems(folder),
        }
        hidden = re.fullmatch(r"\.(.+)\.(new|old)", folder.name)
        if hidden and not found[folder.name]["problems"] and not (run / hidden[1]).exists():
            found[folder.name]["recovered_as"] = hidden[1]
    named = {name: entry.get("recovered_as", name) for name, entry in found.items() if not entry["problems"]}
    steps = [run / name for name, final in named.items() if re.fullmatch(r"step_\d+", final)]
    link = run / "latest"
    return {
        "path": str(run),
        "damaged": any(entry["problems"] for name, entry in found.items() if not name.startswith(".")),
        "checkpoints": found,
        "latest": link.readlink().name if link.is_symlink() else None,
        "resume": named[max(steps, key=checkpoint.age).name] if steps else None,
    }


def describe(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what is known of a checkpoint folder or of one file: manifest, files, parts and, if asked for, tensors."""
    is_folder = path.is_dir()
    problems = storage.problems(path) if is_folder else []
    manifest, _ = manifest_of(path if is_folder else path.parent)
    recorded = manifest.get("digests", {})
    files: dict[str, Any] = {}
    for file in weight_files(path):
        entry: dict[str, Any] = {"bytes": file.stat().st_size, "sha256": sha256(file), "problems": []}
        files[file.name] = entry
        if file.name in recorded and recorded[file.name] != entry["sha256"]:
            entry["problems"].append(f"its SHA-256 is not the one recorded in {storage.STATE}")
        entry["digest_recorded"] = file.name in recorded
        try:
            entry |= describe_tensors(file, arguments)
        except ValueError as error:
            entry["problems"].append(str(error))
    return {
        "path": str(path),
        "damaged": bool(problems) or any(entry["problems"] for entry in files.values()),
        "problems": problems,
        "manifest": manifest if is_folder else {},
        "files": files,
    }


def describe_tensors(file: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns totals per part and, if asked for, one entry per tensor."""
    with open_weights(file) as opened:
        result: dict[str, Any] = {
            "metadata": dict(opened.metadata),
            "tensors": len(opened.tensors),
            "numbers": sum(part.numbers for part in parts(opened.tensors).values()),
            "parts": {name: asdict(part) for name, part in parts(opened.tensors).items()},
        }
        if arguments.tensors or arguments.stats or arguments.filter:
            result["table"] = {
                name: {"shape": list(tensor.shape), "dtype": tensor.dtype, "bytes": tensor.nbytes}
                | (asdict(statistics(tensor)) if arguments.stats else {})
                for name, tensor in chosen(file, opened.tensors, arguments.filter).items()
            }
    return result


def describe_difference(first: Path, second: Path, pattern: re.Pattern[str] | None) -> dict[str, Any]:
    """Returns {"file against file": how they differ}; a single file is compared with a folder's model.safetensors.

    Raises:
        ValueError: if the two have nothing to compare.
    """
    ours = {p.name: p for p in weight_files(first)} if first.is_dir() else {}
    theirs = {p.name: p for p in weight_files(second)} if second.is_dir() else {}
    model = "model.safetensors"
    if ours and theirs:
        pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    else:
        pairs = [(ours.get(model, first), theirs.get(model, second))]
    result: dict[str, Any] = {}
    for a, b in pairs:
        if not a.is_file() or not b.is_file():
            raise ValueError(f"--compare: {b if a.is_file() else a} is no file of weights and no checkpoint folder")
        with open_weights(a) as opened, open_weights(b) as other:
            found = compare(chosen(a, opened.tensors, pattern), chosen(b, other.tensors, pattern))
        result[f"{a} against {b}"] = {"same": found.same, **asdict(found)}
    for name in sorted(ours.keys() ^ theirs.keys() if ours and theirs else ()):
        result[name] = {"same": False, "only_in": str(first if name in ours else second)}
    return result


def chosen(file: Path, tensors: Mapping[str, StoredTensor], pattern: re.Pattern[str] | None) -> dict[str, StoredTensor]:
    """Returns the tensors that --filter lets through."""
    return {n: t for n, t in tensors.items() if pattern is None or pattern.search(f"{file.name}: {n}")}


def weight_files(path: Path) -> list[Path]:
    """Returns the files of a folder that hold tensors, or the file itself."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pdparams", ".pdopt", ".pth"))
    if not found and not (path / storage.STATE).is_file():
        raise ValueError(f"{path}: no checkpoint, and no folder of checkpoints; give one, or a file of weights")
    return found


def manifest_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (manifest, its progress), as far as they can be read; whether they are whole is said elsewhere."""
    manifest: Any = None
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((folder / storage.STATE).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        return {}, {}
    progress = manifest.get("progress")
    return manifest, progress if isinstance(progress, dict) else {}


def text(document: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines to print."""
    yield document["path"]
    if "checkpoints" in document:
        yield from run_text(document)
    else:
        yield from (f"  DAMAGED: {problem}" for problem in document["problems"])
        if "comparison" not in document:
            yield from manifest_text(document["manifest"])
        for name, entry in document["files"].items():
            if "comparison" not in document or entry["problems"]:
                yield from file_text(name, entry)
    for pair, found in document.get("comparison", {}).items():
        yield from difference_text(pair, found)


def run_text(document: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line per checkpoint of a run."""
    rows = [("", "step", "saved", "MiB", "")]
    for name, entry in document["checkpoints"].items():
        left = " (left by a killed save; cleared away by the next one)" if name.startswith(".") else ""
        if "recovered_as" in entry:
            left = f" (left by a killed save; read and restored as {entry['recovered_as']})"
        state = "DAMAGED: " + "; ".join(entry["problems"]) if entry["problems"] else "OK"
        size = f"{entry['bytes'] / MIB:.1f}"
        rows.append((name, str(entry["step"] or "?"), str(entry["saved_at"] or "?"), size, state + left))
    yield from table(rows)
    yield f"  latest -> {document['latest']}" if document["latest"] else "  no link 'latest'"
    yield f"  -r auto would resume from {document['resume'] or 'nothing: no whole step checkpoint'}"


def manifest_text(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yields what state.json says, as far as it is of the kind that this project writes."""
    progress, config = mapping(manifest, "progress"), mapping(manifest, "config")
    if progress:
        best, metric = progress.get("best"), mapping(config, "train").get("best_metric", "score")
        score = (
            f"best {metric} {best:.4f} at step {progress.get('best_step')}"
            if isinstance(best, float)
            else "not evaluated"
        )
        yield f"  step {progress.get('step')}, {score}, saved {manifest.get('saved_at', 'at an unknown time')}"
    history = progress.get("history")
    for entry in [e for e in (history if isinstance(history, list) else []) if isinstance(e, dict)][-3:]:
        numbers = ", ".join(f"{k} {v:.4f}" for k, v in entry.items() if isinstance(v, float) and v == v)
        yield f"    evaluated at step {entry.get('step')}: {numbers}"
    for task, classes in mapping(manifest, "classes").items():
        names = [str(name) for name in classes.get("names", [])] if isinstance(classes, dict) else []
        yield f"  classes of {task}: {len(names)} ({shorten(', '.join(names))})"
    model = mapping(config, "model")
    if model:
        yield f"  backbone: {part_text(mapping(model, 'backbone'))}"
    for task, head in mapping(model, "heads").items():
        yield f"  head {task}: {part_text(head if isinstance(head, dict) else {})}"
    for title in ("optimizer", "train"):
        if scalars := part_text(mapping(config, title)):
            yield f"  {title}: {scalars}"
    written = dict(mapping(manifest, "environment"))
    command = written.pop("command", None)
    if versions := part_text(written):
        yield f"  written by: {versions}"
    if command is not None:
        yield f"  command: {command}"


def file_text(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is known of one file; with --filter only what it matches."""
    if entry.get("table") == {} and not entry["problems"]:
        return
    state = "OK" if entry["digest_recorded"] else "no digest recorded"
    state = "DAMAGED: " + "; ".join(entry["problems"]) if entry["problems"] else state
    counts = f", {entry['tensors']} tensors, {entry['numbers']:,} numbers" if "tensors" in entry else ""
    yield f"{name}: {entry['bytes'] / MIB:.1f} MiB{counts}, sha256 {entry['sha256'][:16]}..., {state}"
    shown = [(part, f"{p['tensors']:,}", f"{p['numbers']:,}", f"{p['nbytes'] / MIB:.2f}")
             for part, p in entry.get("parts", {}).items() if "table" not in entry]  # fmt: skip
    hidden = len(shown) - 30  # Paddle's generated names are a part each
    yield from table([("part", "tensors", "numbers", "MiB"), *shown[:30]] if shown else [])
    if hidden > 0:
        yield f"  ... and {hidden} more"
    yield from (f"  {key}: {shorten(value)}" for key, value in list(entry.get("metadata", {}).items())[:20])
    rows: list[tuple[str, ...]] = []
    for tensor, facts in entry.get("table", {}).items():
        numbers = tuple(f"{facts[k]:.4g}" for k in ("minimum", "maximum", "mean")) if "mean" in facts else ()
        row = (tensor, "x".join(map(str, facts["shape"])) or "scalar", facts["dtype"], f"{facts['bytes']:,}", *numbers)
        rows.append((*row, str(facts["non_finite"])) if numbers else row)
    titles = ("tensor", "shape", "dtype", "bytes", "min", "max", "mean", "non-finite")
    yield from table([titles[: len(rows[0])], *rows] if rows else [])


def difference_text(pair: str, found: Mapping[str, Any]) -> Iterator[str]:
    """Yields how two files differ; the 20 largest differences of each kind."""
    if "only_in" in found:
        yield f"{pair}: only in {found['only_in']}"
        return
    yield f"{pair}: {found['equal']} tensors are equal" + (", nothing differs" if found["same"] else "")
    groups = [
        (title.replace("_", " "), found[title]) for title in ("missing", "unexpected", "other_shape", "other_type")
    ]
    differing = [f"{name}: at most {largest:.4g} apart" for name, largest in found["differing"].items()]
    for title, lines in [*groups, ("differing", differing)]:
        if lines:
            yield f"  {len(lines)} {title}:"
            yield from (f"    {line}" for line in lines[:20])
            yield from ["    ..."] if len(lines) > 20 else []


def shorten(words: str, length: int = 100) -> str:
    """Returns at most ``length`` characters."""
    return words if len(words) <= length else words[: length - 3] + "..."


def part_text(node: Mapping[str, Any]) -> str:
    """Returns "type key=value ..." of a config node; nested nodes by their type alone."""
    words = [str(node["type"])] if "type" in node else []
    for key, value in node.items():
        if isinstance(value, dict) and "type" in value:
            words.append(f"{key}={value['type']}")
        elif key != "type" and value is not None and not isinstance(value, dict):
            words.append(f"{key}={value}")
    return " ".join(words)


def mapping(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns node[key] if it is a mapping, else an empty one."""
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the rows with their columns aligned: the first to the left, the others to the right, the last as it is."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        cells[-1] = row[-1] if rows[0][-1] == "" else cells[-1]
        yield ("  " + "  ".join(cells)).rstrip()


if __name__ == "__main__":
    cli.run(main)
