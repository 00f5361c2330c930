"""Trained weights -> a checked bundle: what tools/export_model.py does."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ppmtl import build
from ppmtl.build import Run, Tasks
from ppmtl.bundle import verify
from ppmtl.bundle.engines.backend import EngineOptions
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.report import write_report
from ppmtl.bundle.settings import SINGLE_FILE, BundleSettings, SourceRecord
from ppmtl.bundle.writing import Content, write_bundle
from ppmtl.config import ConfigError, suggestion, target_of
from ppmtl.files import flush, remove_folder, replace_folder, sha256
from ppmtl.structures import Size
from ppmtl.train import checkpoint
from ppmtl.train.environment import git_revision

# Of 8 bit: images per task that say how large numbers get, and what a primary metric may lose. On the demo's validation sets
# of 120 and 300 images one hundredth is one to three images' worth, about what another seed changes.
CALIBRATION, MAX_DROP = 32, 0.01


def export(run: Run, options: Namespace) -> int:
    """Writes the bundle to <output_dir>/<name>, if it passes the comparison with the training graph.

    Args:
        run: what is exported.
        options: the flags of tools/export_model.py.

    Returns:
        The exit code: 1 if it does not pass; it is then kept as <name>.failed, and what was there before stays.

    Raises:
        ValueError: if the options, the model or a converter refuse what is asked; nothing is left behind.
    """
    size, batch = read_input_shape(options.input_shape)
    tolerances = read_tolerances(options.tolerance, run)
    check_feasible(run, options)
    tasks, model = build.load_model(run.settings)
    images = choose_images(run, tasks, options)
    content = read_content(run, tasks, options.config)
    folder = Path(options.output_dir) / content.name
    staging = folder.with_name(f".{folder.name}.new")
    try:
        written = write_bundle(staging, model, content, graph_format=options.graph_format, size=size, batch=batch,
                               pointwise=options.pointwise, single_file=options.single_file)  # fmt: skip
        together = batch or run.settings.eval.batch_size
        runs = verify.check_bundle(
            staging, model, images, batch=together, tolerances=tolerances, bf16=options.check_bf16
        )
        if options.int8 and not verify.problems(runs):
            written, found = turn_into_eight_bits(staging, images, options, batch=together)
            runs |= found
        if options.single_file == "final":
            runs |= verify.finish_boxes(staging, images)
        extra = {"tolerances": verify.METRIC_TOLERANCES | tolerances, "command": sys.argv}
        print(write_report(staging, written, runs, extra))
        problems = verify.problems(runs)
        place = folder.with_name(f"{folder.name}.failed") if problems else folder
        for path in staging.iterdir():
            flush(path)
        replace_folder(staging, place)
    finally:
        remove_folder(staging)
    if not problems:
        beside = f", and everything in {SINGLE_FILE}" if (folder / SINGLE_FILE).is_file() else ""
        total = sum(file.bytes for file in written.files) / 1e6
        print(f"wrote {folder}: {len(written.files)} files, {total:.1f} MB{beside}")
        return 0
    kept = f"; {folder} is as it was before" if folder.exists() else ""
    more = "--max_drop" if options.int8 else "--tolerance"
    head = f"beyond tolerance, not exported{kept}. Look at {place}, or allow more with {more}:"
    print("\n  ".join([head, *problems]), file=sys.stderr)
    return 1


def turn_into_eight_bits(
    folder: Path, images: Mapping[str, verify.Images], options: Namespace, *, batch: int
) -> tuple[BundleSettings, verify.Runs]:
    """Replaces the bundle in ``folder`` by one in 8 bit; (its settings, how its metrics differ from the other's)."""
    from ppmtl.bundle.quantise import quantise  # needs onnxruntime

    before = folder.with_name(f"{folder.name}.float")
    replace_folder(folder, before)
    try:
        views = partial(
            verify.calibration_views, read_bundle(before), images, options.calibration_images or CALIBRATION
        )
        written = quantise(read_bundle(before), folder, views)
        judged = {name: replace(of, count=len(of.reader or ())) for name, of in images.items()}
        if options.guard_images:
            judged = {name: replace(of, count=min(of.count, options.guard_images)) for name, of in judged.items()}
        limit = MAX_DROP if options.max_drop is None else options.max_drop
        return written, verify.check_eight_bits(before, folder, judged, batch=batch, max_drop=limit)
    finally:
        remove_folder(before)


def read_input_shape(values: Sequence[int] | None) -> tuple[Size | None, int | None]:
    """(size, batch) of --input_shape, None where it is free; raises ConfigError if it is none of the two forms."""
    if values is None:
        return None, None
    shape = [-1, 3, *values] if len(values) == 2 else list(values)
    fits = len(shape) == 4 and shape[1] == 3 and all(value >= 1 or value == -1 for value in shape)
    if not fits or (shape[2] == -1) != (shape[3] == -1):
        got = " ".join(map(str, values))
        form = "write HEIGHT WIDTH, or BATCH 3 HEIGHT WIDTH; -1 = any batch, or any size if both sides are -1"
        raise ConfigError([f"--input_shape: got {got}; {form}"])
    batch, _, height, width = shape
    return None if height == -1 else (height, width), None if batch == -1 else batch


def read_tolerances(given: Sequence[str], run: Run) -> dict[str, float]:
    """{name: value} of --tolerance; raises ConfigError for a name that the run's tasks do not have, or a wrong value."""
    by_task = [target_of(task.part).tolerances for task in run.settings.tasks.values()]
    allowed = [*dict.fromkeys(name for tolerances in by_task for name in tolerances), *verify.METRIC_TOLERANCES]
    found, problems = {}, []
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if name not in allowed:
            problems.append(f"--tolerance: got {item!r}{suggestion(name, allowed)}")
        elif not found[name] >= 0:
            problems.append(f"--tolerance: got {item!r}; write {name}=NUMBER, from 0 up")
    if problems:
        raise ConfigError(problems)
    return found


def check_feasible(run: Run, options: Namespace) -> None:
    """Raises ValueError for what would otherwise fail after minutes."""
    weights = build.require_weights(run.settings)
    stored = checkpoint.read_state(weights).get("classes", {})
    missing = [name for name in run.settings.tasks if name not in stored]
    if missing:  # its numbers would have no meaning
        problem = (
            f"weights: {weights} has no class list for {', '.join(missing)} in its state.json; export a checkpoint folder "
            "that tools/train.py wrote, or leave the task out with --tasks"
        )
        raise ConfigError([problem])
    if options.check_bf16 and options.graph_format == "onnx":
        raise ConfigError(["--check_bf16: ONNX Runtime computes in float32 here; use --format paddle, or leave it out"])
    EngineOptions(bf16=options.check_bf16)  # says if this CPU cannot
    onnx_only = {"--int8": options.int8, "--single_file": options.single_file}
    problems = [f"{flag}: is made of ONNX graphs; add --format onnx" for flag, value in onnx_only.items() if value]
    if problems and options.graph_format != "onnx":
        raise ConfigError(problems)
    of_int8 = {name: getattr(options, name) for name in ("calibration_images", "guard_images", "max_drop")}
    problems = [f"--{name}: changes the export in 8 bit; add --int8" for name, v in of_int8.items() if v is not None]
    if problems and not options.int8:
        raise ConfigError(problems)
    if options.int8:
        from ppmtl.bundle.quantise import require_quantiser

        require_quantiser()


def choose_images(run: Run, tasks: Tasks, options: Namespace) -> dict[str, verify.Images]:
    """{task: its validation set where the data are there, else random images}; fewer bits are not judged without labels."""
    found, root = {}, run.settings.data_root
    for name in tasks:
        # Asked without its class file: the checkpoint has the classes
        alone = replace(build.select_tasks(run, [name]).settings, tasks={})
        if not alone.eval.datasets or build.missing_paths(alone, training=False, evaluation=True):
            print(f"{name}: no validation data under {root}; the numbers are compared on random images")
            found[name] = verify.Images("random images, since the validation data are not there", options.verify_images)
        else:
            (validation,) = build.build_eval_sets(alone, tasks).values()
            count = min(options.verify_images, len(validation.reader))
            found[name] = verify.Images(f"validation set under {root}", count, validation.reader)
    unjudged = [name for name, images in found.items() if images.reader is None]
    if unjudged and (options.check_bf16 or options.int8):
        flag, what = ("--check_bf16", "bfloat16") if options.check_bf16 else ("--int8", "8 bit")
        problem = (
            f"{flag}: {what} is judged by metrics, and the validation data of {', '.join(unjudged)} are not under "
            f"data_root = {root}; point -o data_root= at them, or leave the flag out"
        )
        raise ConfigError([problem])
    return found


def read_content(run: Run, tasks: Tasks, config: str) -> Content:
    """What the bundle holds besides the network; ``config`` is the file's name."""
    settings = run.settings
    weights = Path(build.require_weights(settings))
    file = weights / "model.safetensors" if weights.is_dir() else weights
    step = checkpoint.read_state(weights).get("progress", {}).get("step")
    source = SourceRecord(config, str(weights), sha256(file), step)
    # A run saves its resolved config as config.yml; the run's folder then says more than the file
    name = Path(settings.save_dir).name if Path(config).stem in ("config", "state") else Path(config).stem
    nodes = {task: run.tree.data["tasks"][task] for task in tasks}  # the tree also has tasks that were removed by null
    classes = {task: tasks[task].classes for task in tasks}
    return Content(name, nodes, classes, settings.infer, source, git_revision())
