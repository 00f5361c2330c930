"""Converts a data set of another format to what the readers of this project read.

    python tools/convert_dataset.py voc VOCdevkit/VOC2012
    python tools/convert_dataset.py tt100k tt100k --frequent --out tt100k_45
    python tools/convert_dataset.py labelme my_images --label_maps --background road
    python tools/convert_dataset.py FORMAT --help                 the layout that a format expects, and its flags

Annotations are written into a new folder beside the data, images stay where they are (--copy copies them too). The folder
appears complete or not at all: what is wrong in the data is listed with its file and field, and nothing is written. Its
config.yml has the lines for a config.
"""

import argparse
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Converts, and prints the counts and the lines for a config."""
    from ppmtl.convert import formats

    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = parser.add_subparsers(
        dest="format", metavar="FORMAT", required=True, help=f"one of: {', '.join(formats())}"
    )
    modules = {name: import_module(f"ppmtl.convert.{name}") for name in formats()}
    for name, module in modules.items():
        sub = choices.add_parser(name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("data", metavar="DATA", type=Path, help="folder of the data set")
        sub.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: DATA_converted)")
        sub.add_argument("--classes", metavar="FILE", help="names of the classes to keep, one per line, in this order "
                         "(default: those of the format, or all that occur)")  # fmt: skip
        cli.add_switch(sub, "--copy", "copy the images too, so that the new folder needs no other")
        cli.add_switch(sub, "--force", "replace DIR if this tool wrote it")
        _add_flags(sub, module.convert)
    arguments = vars(parser.parse_args(argv))

    from ppmtl.convert._output import Output
    from ppmtl.data.classes import read_class_file

    data, convert = arguments["data"], modules[arguments["format"]].convert
    folder = arguments["out"] or data.resolve().with_name(f"{data.resolve().name}_converted")
    keep = read_class_file(arguments["classes"]).names if arguments["classes"] else ()
    flags = {flag.name: arguments[flag.name] for flag in _flags(convert)}
    with Output(data, folder, keep, copy=arguments["copy"], force=arguments["force"]) as out:
        convert(data, out, **flags)
        print(out.write())
    return 0


def _flags(convert: Callable[..., None]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(convert).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _add_flags(to: argparse.ArgumentParser, convert: Callable[..., None]) -> None:
    """A flag for every keyword-only parameter of a format; its annotation holds the help text."""
    hints = typing.get_type_hints(convert, include_extras=True)
    for parameter in _flags(convert):
        kind, text = typing.get_args(hints[parameter.name])
        if kind is bool:
            cli.add_switch(to, f"--{parameter.name}", text, default=parameter.default)
        else:
            to.add_argument(f"--{parameter.name}", type=kind, default=parameter.default, help=text)


if __name__ == "__main__":
    cli.run(main)
