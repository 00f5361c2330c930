"""What the tools that take a config share: -c, -o, --tasks, and what they build from them. More flags: ``flags.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ppmtl.config import ConfigError, ConfigTree, check, load_config
from ppmtl.flags import add_slice_flags, add_switch, add_tta_flags, boolean, names, run, slicing, tta_overrides

if TYPE_CHECKING:
    from ppmtl.config.settings import Settings
    from ppmtl.models.multitask import MultiTaskModel
    from ppmtl.predict.pipeline import Backend
    from ppmtl.tasks.base import Task

__all__ = [
    "add_nprocs",
    "add_slice_flags",
    "add_switch",
    "add_tta_flags",
    "boolean",
    "exported_tasks",
    "launch",
    "load_exported",
    "load_model",
    "load_settings",
    "load_trained",
    "parser",
    "require_data",
    "require_weights",
    "run",
    "slicing",
    "tta_overrides",
]


def parser(description: str, *, weights: bool = False) -> argparse.ArgumentParser:
    """Returns a parser with -c, -o, --tasks, --seed and --device.

    Args:
        description: for --help.
        weights: mention in --help that the tool needs ``-o weights=``.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "-c", "--config", required=True, metavar="YML", help="config file, e.g. configs/allinone_demo.yml"
    )
    example = "weights=output/allinone_demo/best_model" if weights else "train.epochs=10 optimizer.learning_rate=2e-4"
    result.add_argument("-o", "--opt", "--opts", dest="overrides", nargs="+", action="append", default=[], metavar="KEY=VALUE",
                        help=f"override config values; may be repeated, the last one wins. Example: -o {example}")  # fmt: skip
    result.add_argument("--tasks", type=names, metavar="seg,det",
                        help="use only these tasks; the data of the others need not be there")  # fmt: skip
    result.add_argument("--seed", type=int, help="same as -o seed=...")
    result.add_argument("--device", help="cpu, gpu, gpu:1, ... (default: auto)")
    return result


def add_nprocs(to: argparse.ArgumentParser, what: str) -> None:
    """Adds --nprocs; ``what`` is said in --help."""
    to.add_argument("--nprocs", type=int, default=1, metavar="N",
                    help=f"{what} with N processes on this machine's CPU (default: 1); Paddle's CPU kernels keep hardly "
                    "more than one core busy. Several GPUs or machines: python -m paddle.distributed.launch")  # fmt: skip


def launch(function: Callable[[argparse.Namespace], object], arguments: argparse.Namespace) -> None:
    """Runs ``function(arguments)`` here, or in --nprocs processes on this machine's CPU.

    Raises:
        ConfigError: --nprocs is below 1, or comes with a GPU.
        JobError: one of several processes failed.
    """
    if arguments.nprocs < 1:
        raise ConfigError([f"--nprocs: must be at least 1, got {arguments.nprocs}"])
    if arguments.nprocs > 1:
        if (arguments.device or "cpu") not in ("cpu", "auto"):
            raise ConfigError(
                ["--nprocs is for CPU; several GPUs: python -m paddle.distributed.launch --gpus 0,1 tools/..."]
            )
        arguments.device = "cpu"
    from ppmtl.train.launch import launch as launch_processes

    launch_processes(function, (arguments,), arguments.nprocs)


def load_settings(arguments: argparse.Namespace) -> tuple[Settings, ConfigTree]:
    """Returns the checked settings (with --tasks applied) and the config tree that they came from.

    Raises:
        ConfigError: with all problems of the config at once.
    """
    from ppmtl import build
    from ppmtl.config.settings import Settings

    overrides = [item for group in arguments.overrides for item in group]
    overrides += [
        f"{key}={getattr(arguments, key)}" for key in ("seed", "device") if getattr(arguments, key) is not None
    ]
    tree = load_config(arguments.config, overrides)
    settings = check(Settings, tree)
    build.check_agreement(settings)
    return build.select_tasks(settings, arguments.tasks), tree


def require_weights(settings: Settings) -> str:
    """Returns the weights' path; raises ConfigError if the config names none."""
    if settings.weights is None:
        raise ConfigError([f"weights: nothing to load; add -o weights={settings.save_dir}/best_model"])
    return settings.weights


def require_data(settings: Settings, *, training: bool, evaluation: bool) -> None:
    """Raises ConfigError, saying how the data tree must look, if a path of it is missing."""
    from ppmtl import build

    missing = build.missing_paths(settings, training=training, evaluation=evaluation)
    if missing:
        raise ConfigError([build.missing_data_message(settings, missing)])


def load_trained(settings: Settings, tta: Mapping[str, Any]) -> tuple[dict[str, Task], Backend]:
    """Returns the tasks and a backend with ``settings.weights`` loaded; classes come from the checkpoint if it has them.

    Args:
        settings: with ``weights`` set.
        tta: replaces these fields of every task's test-time augmentation.
    """
    from ppmtl.models.backend import PaddleBackend

    tasks, model = load_model(settings)
    for task in tasks.values():
        task.change_tta(tta)
    return tasks, PaddleBackend(model)


def load_model(settings: Settings) -> tuple[dict[str, Task], MultiTaskModel]:
    """Returns the tasks and the network with ``settings.weights``; classes come from the checkpoint if it has them."""
    from ppmtl import build
    from ppmtl.train import checkpoint, distributed

    assert settings.weights is not None
    arrays = checkpoint.read_tensors(settings.weights)
    classes = build.build_classes(settings, checkpoint.read_state(settings.weights).get("classes"))
    distributed.start(settings.device)
    model = build.build_model(settings, classes)
    checkpoint.load_weights(model, arrays, settings.weights)
    return build.build_tasks(settings, classes), model


def exported_tasks(folder: str) -> list[str]:
    """Returns the names of the tasks of an exported bundle."""
    from ppmtl.bundle.reading import read_bundle

    return list(read_bundle(folder).tasks)


def load_exported(folder: str, settings: Settings, tta: Mapping[str, Any]) -> tuple[dict[str, Task], Backend]:
    """Returns the settings' tasks as an exported bundle knows them, and a backend that runs it.

    Args:
        folder: what tools/export_model.py wrote.
        settings: for the names of the tasks and the device.
        tta: replaces these fields of every task's test-time augmentation.
    """
    from ppmtl.bundle.engines.backend import open_backend
    from ppmtl.bundle.reading import read_bundle
    from ppmtl.train import distributed

    bundle = read_bundle(folder, list(settings.tasks))
    distributed.start(settings.device)
    for task in bundle.tasks.values():
        task.change_tta(tta)
    device = "cpu" if settings.device == "auto" else settings.device
    return bundle.tasks, open_backend(bundle, device=device)
