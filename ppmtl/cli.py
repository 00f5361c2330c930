"""What all command-line tools share: the flags that Paddle's users know, and errors without tracebacks."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppmtl.config import ConfigError, ConfigTree, check, load_config

if TYPE_CHECKING:
    from ppmtl.inference import Backend
    from ppmtl.run import Settings
    from ppmtl.tasks.base import Task


# Paddle's own remarks on import and on correct use; they would stand between our lines and mean nothing to a user.
os.environ.setdefault("GLOG_minloglevel", "2")  # its C++ side; must be set before paddle is imported
for _remark in (
    "No ccache found",
    "When training, we now always track global mean and variance",
    r"\s*Non compatible API",
):
    warnings.filterwarnings("ignore", message=_remark)


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
    result.add_argument("--tasks", type=lambda s: [t for t in s.split(",") if t], metavar="seg,det",
                        help="use only these tasks; the data of the others need not be there")  # fmt: skip
    result.add_argument("--seed", type=int, help="same as -o seed=...")
    result.add_argument("--device", help="cpu, gpu, gpu:1, ... (default: auto)")
    return result


def boolean(text: str) -> bool:
    """Returns the truth of a flag's value; ``--use_vdl False`` must be False, which ``type=bool`` gets wrong."""
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def add_switch(to: argparse.ArgumentParser, flag: str, description: str) -> None:
    """Adds a switch that is also accepted as ``--flag True|False``, as Paddle's guides write it."""
    to.add_argument(flag, type=boolean, nargs="?", const=True, default=False, metavar="BOOL", help=description)


def load_settings(arguments: argparse.Namespace) -> tuple[Settings, ConfigTree]:
    """Returns the checked settings (with --tasks applied) and the config tree that they came from.

    Raises:
        ConfigError: with all problems of the config at once.
    """
    from ppmtl import build
    from ppmtl.run import Settings

    overrides = [item for group in arguments.overrides for item in group]
    overrides += [
        f"{key}={getattr(arguments, key)}" for key in ("seed", "device") if getattr(arguments, key) is not None
    ]
    tree = load_config(arguments.config, overrides)
    settings = check(Settings, tree)
    build.check_agreement(settings)
    return build.select_tasks(settings, arguments.tasks), tree


def add_tta_flags(to: argparse.ArgumentParser) -> None:
    """Adds --tta/--no-tta, --scales and --flip."""
    to.add_argument("--tta", action=argparse.BooleanOptionalAction, default=False,
                    help="test-time augmentation with each task's views (tasks.<name>.tta in the config)")  # fmt: skip
    to.add_argument("--scales", nargs="+", type=float, metavar="S", help="with --tta: these scales for every task")
    to.add_argument("--flip", action=argparse.BooleanOptionalAction, help="with --tta: with or without mirrored views")


def tta_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the TTA settings given on the command line: a subset of {"scales", "sizes", "flip"}.

    Raises:
        ConfigError: if --scales or --flip come without --tta.
    """
    given: dict[str, Any] = {}
    if arguments.scales is not None:
        given |= {"scales": tuple(arguments.scales), "sizes": ()}  # scales given by hand replace sizes of the config
        if min(arguments.scales) <= 0:
            raise ConfigError([f"--scales: must be above 0, got {arguments.scales}"])
    if arguments.flip is not None:
        given["flip"] = arguments.flip
    if given and not arguments.tta:
        raise ConfigError(["--scales and --flip change test-time augmentation: add --tta"])
    return given


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
    import dataclasses

    from ppmtl import build
    from ppmtl.engine import checkpoint, distributed
    from ppmtl.engine.backend import PaddleBackend

    assert settings.weights is not None
    arrays = checkpoint.read_tensors(settings.weights)
    classes = build.build_classes(settings, checkpoint.read_state(settings.weights).get("classes"))
    distributed.start(settings.device)
    tasks = build.build_tasks(settings, classes)
    for task in tasks.values():
        task.tta = dataclasses.replace(task.tta, **tta)
    model = build.build_model(settings, classes)
    checkpoint.load_weights(model, arrays, settings.weights)
    return tasks, PaddleBackend(model)


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Runs a tool and exits: 2 for a mistake in the command or config, 1 for anything else that a user or a file caused.

    A traceback is shown only for errors that are ours, or for all when PPMTL_TRACEBACK=1.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("PPMTL_TRACEBACK") == "1":
            raise
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
