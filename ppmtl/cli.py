"""Flags and error handling of the command-line tools; deployment uses them too, so nothing of training is imported on top."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppmtl.config import ConfigError, nearest
from ppmtl.config.errors import in_other_places

if TYPE_CHECKING:
    from ppmtl.build import Run
    from ppmtl.tasks.views import Slicing


def _speed_up_matrix_products(processor: Path) -> None:
    """Has Paddle's matrix library (MKL of 2019) use AVX2 on AMD's processors, where it takes its slowest path by itself.

    Measured on an AMD EPYC of 2024: 105 instead of 40 GFLOP/s, a training step in 0.7 of the time. Last bits differ.
    """
    if processor.is_file() and {"AuthenticAMD", "avx2"} <= set(processor.read_text(encoding="utf-8").split()):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")  # the library reads it at its first product


_speed_up_matrix_products(Path("/proc/cpuinfo"))
# Paddle's own remarks on import and on correct use; they would stand between our lines and mean nothing to a user.
os.environ.setdefault("GLOG_minloglevel", "2")  # its C++ side; must be set before paddle is imported
# Likewise OpenCV and its FFmpeg on every damaged video: we say it once.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
for _remark in (
    "No ccache found",
    "When training, we now always track global mean and variance",
    r"\s*Non compatible API",
):
    warnings.filterwarnings("ignore", message=_remark)


class Parser(argparse.ArgumentParser):
    """A parser that says which flag, or which config key, an unknown flag may have meant."""

    def format_help(self) -> str:
        """As its parent's, with commands as they were called."""
        return as_called(super().format_help())

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As its parent's, but unknown arguments are an error here: no tool passes any on."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return known, unknown

    def _meant(self, unknown: Sequence[str]) -> str:
        flags = [
            flag.lstrip("-") for action in self._actions for flag in action.option_strings if flag.startswith("--")
        ]
        keys, hints = _key_paths() if "opt" in flags else [], []
        for word in (word.lstrip("-").partition("=")[0] for word in unknown if word.startswith("--")):
            meant = in_other_places(word, keys, exactly=True)
            if (guess := nearest(word, flags)) and not meant:
                hints.append(f"; did you mean --{guess}?")
            elif meant := meant or in_other_places(word, keys):
                hints.append(f"; --{word} is no flag, values of the config are set with -o {meant[0]}=...")
        return "".join(hints)


def _key_paths() -> list[str]:
    from ppmtl.config.keys import keys_of
    from ppmtl.config.settings import Settings

    return [key.path for key in keys_of(Settings, into_parts=False)]


COMMANDS = {  # of the ppmtl command; any other file of tools/ is one by its name
    "demo_data": "tools/make_demo_data.py",
    "export": "tools/export_model.py",
    "infer_bundle": "deploy/python/infer.py",
    "serve": "deploy/serving/serve.py",
}


def folder_of(name: str) -> Path:
    """Where "tools" or "deploy" is: beside ppmtl/, in the source tree as it is called there, installed as ppmtl_<name>."""
    beside = Path(__file__).resolve().parents[1]
    installed = beside / f"ppmtl_{name}"
    return installed if installed.is_dir() else beside / name


def as_called(text: str) -> str:
    """The text with "ppmtl train" for "python tools/train.py" where the ppmtl command was given, so that advice works."""
    if not sys.argv[0].startswith("ppmtl "):
        return text
    names = {file: command for command, file in COMMANDS.items()}
    return re.sub(
        r"(?:python )?((?:tools|deploy/\w+)/(\w+)\.py)", lambda found: f"ppmtl {names.get(found[1], found[2])}", text
    )


def command_line() -> str:
    """The command that was given, to be given again."""
    return " ".join(sys.argv) if sys.argv[0].startswith("ppmtl ") else f"python {' '.join(sys.argv)}"


def parser(description: str, *, weights: bool = False) -> Parser:
    """A parser with -c, -o, --tasks, --seed and --device, for tools that take a config.

    Args:
        description: for --help.
        weights: the tool needs ``-o weights=``, and goes without -c where those are a checkpoint, which has its config inside.
    """
    result = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    alone = "; without it the one inside the checkpoint of -o weights=" if weights else ""
    result.add_argument("-c", "--config", required=not weights, metavar="YML",
                        help=f"config file, e.g. configs/allinone_demo.yml{alone}")  # fmt: skip
    example = "weights=output/allinone_demo" if weights else "train.epochs=10 optimizer.learning_rate=2e-4"
    result.add_argument("-o", "--opt", "--opts", dest="overrides", nargs="+", action="append", default=[], metavar="KEY=VALUE",
                        help=f"override config values; may be repeated, the last one wins. Example: -o {example}")  # fmt: skip
    result.add_argument("--tasks", type=names, metavar="seg,det",
                        help="use only these tasks; the data of the others need not be there")  # fmt: skip
    result.add_argument("--seed", type=int, help="same as -o seed=...")
    result.add_argument("--device", help="cpu, gpu, gpu:1, ... (default: auto)")
    return result


def load(arguments: argparse.Namespace, *first: str) -> Run:
    """The run that the arguments of :func:`parser` describe.

    Args:
        arguments: parsed; without ``config`` this becomes the name of the file whose config is taken.
        first: overrides "a.b=value" that those of the command line win over.

    Raises:
        ConfigError: with all problems of the config at once.
        ValueError: if there is no config, and ``weights=`` leads to no checkpoint.
    """
    from ppmtl import build

    overrides = [*first, *(item for group in arguments.overrides for item in group)]
    overrides += [
        f"{key}={getattr(arguments, key)}" for key in ("seed", "device") if getattr(arguments, key) is not None
    ]
    if arguments.config is not None:
        return build.load(arguments.config, overrides, arguments.tasks)
    weights = [text.partition("=")[2] for text in overrides if text.startswith("weights=")]
    if not weights:
        like = [key for key in (text.partition("=")[0] for text in overrides) if nearest(key, ["weights"])]
        typed = f"; '{like[0]}' is no key, did you mean 'weights'?" if like else ""
        raise ConfigError([f"give a config (-c YML), or -o weights=CHECKPOINT, whose own config is then used{typed}"])
    run = build.load_stored(weights[-1], overrides, arguments.tasks)
    arguments.config = run.tree.file
    print(f"config: {run.tree.file} (-c takes another)", file=sys.stderr)
    return run


def add_nprocs(to: argparse.ArgumentParser, what: str) -> None:
    """Adds --nprocs; ``what`` is said in --help."""
    to.add_argument("--nprocs", type=positive, default=1, metavar="N",
                    help=f"{what} with N processes on this machine's CPU (default: 1); Paddle's CPU kernels keep hardly "
                    "more than one core busy. Several GPUs or machines: python -m paddle.distributed.launch")  # fmt: skip


def launch(function: Callable[..., object], nprocs: int, run: Run, *arguments: Any) -> None:
    """Calls ``function(run, *arguments)`` here, or in ``nprocs`` processes on this machine's CPU.

    Raises:
        ConfigError: several processes on a GPU.
        JobError: one of several processes failed.
    """
    if nprocs > 1:
        if run.settings.device not in ("cpu", "auto"):
            raise ConfigError(
                ["--nprocs is for CPU; several GPUs: python -m paddle.distributed.launch --gpus 0,1 tools/..."]
            )
        run = run.changed({"device": "cpu"}, "--nprocs")
    from ppmtl.train.launch import launch as launch_processes

    launch_processes(function, (run, *arguments), nprocs)


def boolean(text: str) -> bool:
    """Parses a boolean flag; ``--use_vdl False`` must be False, which ``type=bool`` gets wrong."""
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def names(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name for name in text.split(",") if name]


def positive(text: str) -> int:
    """Parses a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def score(text: str) -> float:
    """Parses a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def count(text: str) -> int:
    """Parses a whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 up, got {text!r}")
    return int(text)


def add_limit(to: argparse.ArgumentParser, description: str) -> None:
    """Adds --limit N, a whole number above 0."""
    to.add_argument("--limit", type=positive, metavar="N", help=description)


def add_switch(to: argparse.ArgumentParser, flag: str, description: str, *, default: bool = False) -> None:
    """Adds a switch that is also accepted as ``--flag True|False``, as Paddle's guides write it."""
    to.add_argument(flag, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=description)


def add_tta_flags(to: argparse.ArgumentParser) -> None:
    """Adds --tta/--no-tta, --scales and --flip."""
    to.add_argument("--tta", action=argparse.BooleanOptionalAction, default=False,
                    help="test-time augmentation with each task's views (tasks.<name>.tta in the config)")  # fmt: skip
    to.add_argument("--scales", nargs="+", type=float, metavar="S", help="with --tta: these scales for every task")
    to.add_argument("--flip", action=argparse.BooleanOptionalAction, help="with --tta: with or without mirrored views")


def tta_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The TTA settings given on the command line: a subset of {"scales", "sizes", "flip"}.

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


def add_input_flags(to: argparse.ArgumentParser) -> None:
    """Adds what to predict: --infer_img, --infer_dir, --infer_list, --video_file, --camera_id, and the family's other names."""
    source = to.add_mutually_exclusive_group()
    source.add_argument("--infer_img", "--image_file", metavar="FILE", help="one image")
    source.add_argument("--infer_dir", "--image_dir", metavar="DIR", help="all images of a folder")
    source.add_argument("--video_file", metavar="FILE", help="a video; written as .mp4 of the same size and frame rate")
    source.add_argument("--camera_id", type=count, metavar="N",
                        help="camera N of this machine, from 0, until Ctrl-C or --limit frames")  # fmt: skip
    to.add_argument("--infer_list", metavar="FILE", help="the images that a text file lists, one path a line, from the folder "
                    "of the list or, with --infer_dir, from there")  # fmt: skip
    add_switch(to, "--recursive", "with --infer_dir: the images of sub-folders too")


def require_input(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with a message unless one of ``add_input_flags`` is given, and an image if it is one."""
    given = (arguments.infer_img, arguments.infer_dir, arguments.infer_list, arguments.video_file, arguments.camera_id)
    if all(value is None for value in given):
        parser.error("give --infer_img FILE, --infer_dir DIR, --infer_list FILE, --video_file FILE or --camera_id N")
    if arguments.infer_img is not None and not (image := Path(arguments.infer_img)).is_file():
        if image.is_dir():
            parser.error(f"--infer_img: {image} is a folder: --infer_dir")
        folder = image.parent
        close = nearest(image.name, [file.name for file in folder.iterdir()] if folder.is_dir() else [])
        parser.error(f"--infer_img: {image} does not exist" + (f"; did you mean {folder / close}?" if close else ""))


def add_per_task_size(to: argparse.ArgumentParser) -> None:
    """Adds --per_task_size, on by default."""
    add_switch(to, "--per_task_size", "show an image to every task at the size that it is evaluated at (default). False: one "
               "size for all (infer.size, else the first task's), so that the backbone runs once; tasks that are "
               "evaluated at other sizes find less", default=True)  # fmt: skip


def add_slice_flags(to: argparse.ArgumentParser) -> None:
    """Adds --slice_infer, --slice_size and --overlap_ratio."""
    add_switch(to, "--slice_infer", "also show large images in overlapping tiles, for small objects (detection)")
    to.add_argument("--slice_size", nargs="+", type=int, metavar="N",
                    help="with --slice_infer: HEIGHT WIDTH of a tile, or one number for both, in pixels of the image "
                    "(default: the task's input size). Best is the size of the images trained on")  # fmt: skip
    to.add_argument("--overlap_ratio", nargs="+", type=float, metavar="R",
                    help="with --slice_infer: share of a tile that the next one shows again, VERTICAL HORIZONTAL or one "
                    "number for both (default: 0.25)")  # fmt: skip


def slicing(arguments: argparse.Namespace) -> Slicing | None:
    """How large images are cut into tiles, or None without --slice_infer.

    Raises:
        ConfigError: if a number makes no sense, or comes without --slice_infer.
    """
    from ppmtl.tasks.views import Slicing

    size, overlap, problems = arguments.slice_size, arguments.overlap_ratio, []
    if (size or overlap) and not arguments.slice_infer:
        problems.append("--slice_size and --overlap_ratio change the tiles of large images: add --slice_infer")
    if size and (len(size) > 2 or min(size) < 1):
        problems.append(f"--slice_size: one or two whole numbers above 0, got {size}")
    if overlap and (len(overlap) > 2 or not all(0 <= share < 1 for share in overlap)):
        problems.append(f"--overlap_ratio: one or two numbers from 0 to below 1, got {overlap}")
    if problems:
        raise ConfigError(problems)
    if not arguments.slice_infer:
        return None
    given = {"size": size, "overlap": overlap}
    return Slicing(**{name: (pair[0], pair[-1]) for name, pair in given.items() if pair})


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
        print(f"{Path(sys.argv[0]).name}: {as_called(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
