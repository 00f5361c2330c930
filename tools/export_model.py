"""Exports trained weights as a bundle: one graph of the trunk, one per head, infer_cfg.yml with everything else.

    python tools/export_model.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model
    python tools/export_model.py -c ... -o weights=... --format onnx --tasks seg,det --input_shape 448 448

The bundle is written to <output_dir>/<config name>/ and needs nothing else of the project's data or checkpoints. It is
compared with the training graph on pictures of the validation sets (rendered ones where those are missing): raw
arrays number for number and each task's metric, written to export_report.json and .md. Beyond the tolerances the command
ends with code 1, and what was there before stays; the refused bundle is kept beside it as <config name>.failed.

Formats: paddle = .pdmodel, which Paddle 2.6 to 3.3 run; paddle-json = .json of Paddle 3; onnx (needs requirements-deploy.txt).
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError, nearest

if TYPE_CHECKING:
    from ppmtl.bundle.settings import BundleSettings
    from ppmtl.bundle.verify import Pictures
    from ppmtl.bundle.writing import Content
    from ppmtl.config import ConfigTree
    from ppmtl.config.settings import Settings
    from ppmtl.structures import ClassList, Size


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = cli.parser(__doc__ or "", weights=True)
    parser.add_argument("--format", default="paddle", choices=["paddle", "paddle-json", "onnx"], dest="graph_format",
                        help="of the graphs (default: paddle)")  # fmt: skip
    parser.add_argument("--input_shape", nargs="+", type=int, metavar="N",
                        help="fix the input: HEIGHT WIDTH, or BATCH 3 HEIGHT WIDTH as Paddle's tools write it; -1 = any. "
                             "Default: any batch, any size")  # fmt: skip
    parser.add_argument("--output_dir", default="output_inference", metavar="DIR", help="default: output_inference")
    parser.add_argument("--pointwise", default="linear", choices=["linear", "conv"],
                        help="conv: ConvNeXt's linears as 1x1 convolutions, which bfloat16 on CPU needs to be fast; see "
                             "--check_bf16 (default: linear)")  # fmt: skip
    parser.add_argument("--verify_images", type=int, default=8, metavar="N",
                        help="compare on the first N pictures of each validation set (default: 8)")  # fmt: skip
    cli.add_switch(
        parser, "--check_bf16", "also measure the bundle in bfloat16 on this CPU; judged by each task's metric"
    )
    parser.add_argument("--tolerance", nargs="+", default=[], metavar="NAME=VALUE",
                        help="largest difference that passes: probs, scores (1e-4), boxes (0.05 px), metric (0.002), "
                             "bf16_metric (0.005)")  # fmt: skip
    return parser


def read_input_shape(values: Sequence[int] | None) -> tuple["Size | None", int | None]:
    """Returns (size, batch) of --input_shape, None where it is free.

    Raises:
        ConfigError: if it is none of the two forms.
    """
    if values is None:
        return None, None
    wrong = f"--input_shape: got {' '.join(map(str, values))}; write HEIGHT WIDTH, or BATCH 3 HEIGHT WIDTH, -1 = any"
    if len(values) not in (2, 4) or (len(values) == 4 and values[1] != 3) or any(v < 1 and v != -1 for v in values):
        raise ConfigError([wrong])
    height, width = values[-2:]
    if (height == -1) != (width == -1):
        raise ConfigError([f"{wrong}; fix both sides or none"])
    batch = values[0] if len(values) == 4 and values[0] != -1 else None
    return None if height == -1 else (height, width), batch


def read_tolerances(given: Sequence[str]) -> dict[str, float]:
    """Returns the tolerances with those of --tolerance replaced.

    Raises:
        ConfigError: for a name that is no tolerance, or a value that is no number of at least 0.
    """
    from ppmtl.bundle.verify import TOLERANCES

    found, problems = dict(TOLERANCES), []
    for item in given:
        name, _, value = item.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in found or not number >= 0:
            guess = nearest(name, found)
            hint = f"; did you mean '{guess}'?" if guess and guess != name else ""
            allowed = ", ".join(f"{key}=NUMBER" for key in found)
            problems.append(f"--tolerance: got {item!r}; allowed, from 0 up: {allowed}{hint}")
        found[name] = number
    if problems:
        raise ConfigError(problems)
    return found


def read_content(
    settings: "Settings", tree: "ConfigTree", classes: Mapping[str, "ClassList"], config: str
) -> "Content":
    """Returns what the bundle holds besides the network."""
    from ppmtl import build
    from ppmtl.bundle.settings import SourceRecord
    from ppmtl.bundle.writing import Content
    from ppmtl.files import sha256
    from ppmtl.train import checkpoint

    weights = Path(cli.require_weights(settings))
    file = weights / "model.safetensors" if weights.is_dir() else weights
    step = checkpoint.read_state(weights).get("progress", {}).get("step")
    source = SourceRecord(config, str(weights), sha256(file), step)
    nodes = {name: tree.data["tasks"][name] for name in settings.tasks}
    # A run saves its resolved config as config.yml; the run's folder then says more than the file
    name = Path(settings.save_dir).name if Path(config).stem == "config" else Path(config).stem
    return Content(name, nodes, classes, settings.infer, source, build.environment()["git"])


def choose_pictures(settings: "Settings", classes: Mapping[str, "ClassList"], count: int) -> dict[str, "Pictures"]:
    """Returns {task: what it is compared on}: its validation set where the data are there, else random images."""
    import dataclasses

    from ppmtl import build
    from ppmtl.bundle.verify import labelled_pictures, random_pictures

    found = {}
    for name in settings.tasks:
        # Without the class files: the checkpoint has the classes
        alone = dataclasses.replace(build.select_tasks(settings, [name]), classes={})
        if not alone.eval.datasets or build.missing_paths(alone, training=False, evaluation=True):
            found[name] = random_pictures(count)
            print(f"{name}: no validation data under {settings.data_root}; the numbers are compared on random images")
        else:
            dataset = build.build_val_datasets(alone, classes)[name]
            found[name] = labelled_pictures(dataset, f"validation set under {settings.data_root}", count)
    return found


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    arguments = build_parser().parse_args(argv)
    settings, tree = cli.load_settings(arguments)
    size, batch = read_input_shape(arguments.input_shape)
    tolerances = read_tolerances(arguments.tolerance)
    if arguments.verify_images < 1:
        raise ConfigError([f"--verify_images: must be at least 1, got {arguments.verify_images}"])
    require_classes(settings)
    if arguments.check_bf16:
        require_bf16(arguments.graph_format)

    from ppmtl.bundle import export_report as report
    from ppmtl.bundle.verify import check_bundle
    from ppmtl.bundle.writing import write_bundle
    from ppmtl.files import replace_folder

    tasks, model = cli.load_model(settings)
    classes = {name: task.classes for name, task in tasks.items()}
    content = read_content(settings, tree, classes, arguments.config)
    pictures = choose_pictures(settings, classes, arguments.verify_images)
    unjudged = [name for name, chosen in pictures.items() if not chosen.labelled]
    if arguments.check_bf16 and unjudged:
        raise ConfigError(
            [
                f"--check_bf16: bfloat16 is judged by metrics, and the validation data of {', '.join(unjudged)} are not "
                f"under data_root = {settings.data_root}; point -o data_root= at them, or leave the flag out"
            ]
        )
    folder = Path(arguments.output_dir) / content.name
    fresh = folder.with_name(f".{folder.name}.new")
    try:
        written = write_bundle(fresh, model, content, graph_format=arguments.graph_format, size=size, batch=batch,
                               pointwise=arguments.pointwise)  # fmt: skip
        runs = check_bundle(fresh, model, pictures, batch=batch or settings.eval.batch_size, tolerances=tolerances,
                            bf16=arguments.check_bf16)  # fmt: skip
        print(report.write(fresh, written, runs, {"tolerances": tolerances, "command": sys.argv}))
        found = report.problems(runs)
        place = folder.with_name(f"{folder.name}.failed") if found else folder
        replace_folder(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return finish(found, place, folder, written)


def finish(found: Sequence[str], place: Path, folder: Path, written: "BundleSettings") -> int:
    """Returns the exit code after saying where the bundle is."""
    if not found:
        megabytes = sum(record.bytes for record in written.files) / 1e6
        print(f"wrote {folder}: {len(written.files)} files, {megabytes:.1f} MB")
        return 0
    kept = f"; {folder} is as it was before" if folder.exists() else ""
    print(
        f"beyond tolerance, not exported{kept}. Look at {place}, or allow more with --tolerance:\n  "
        + "\n  ".join(found),
        file=sys.stderr,
    )
    return 1


def require_classes(settings: "Settings") -> None:
    """Raises ConfigError if the weights come without the class list of a task: its numbers would have no meaning."""
    from ppmtl.train import checkpoint

    weights = cli.require_weights(settings)
    stored = checkpoint.read_state(weights).get("classes", {})
    missing = [name for name in settings.tasks if name not in stored]
    if missing:
        raise ConfigError(
            [
                f"weights: {weights} has no class list for {', '.join(missing)} in its state.json; export a checkpoint "
                "folder that tools/train.py wrote, or leave the task out with --tasks"
            ]
        )


def require_bf16(graph_format: str) -> None:
    """Raises ConfigError if bfloat16 cannot be measured here."""
    from ppmtl.bundle.engines.backend import has_bf16

    if graph_format == "onnx":
        raise ConfigError(["--check_bf16: ONNX Runtime computes in float32 here; use --format paddle, or leave it out"])
    if not has_bf16():
        raise ConfigError(
            ["--check_bf16: this CPU does not multiply bfloat16 itself; leave it out, or export on one that does"]
        )


if __name__ == "__main__":
    cli.run(main)
