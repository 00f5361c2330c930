"""Explains configs: what a run's values are and where they come from, which keys and parts there are; starts a new one.

    python tools/config.py show -c configs/allinone_demo.yml -o train.epochs=3     every value with its origin, as YAML
    python tools/config.py diff configs/allinone_demo.yml output/run/config.yml    exit code 1 if they differ
    python tools/config.py keys train                                              type, default, unit and meaning
    python tools/config.py parts heads                                             what type: may name; metrics too
    python tools/config.py schema > config.schema.json                             completion and checks in an editor
    python tools/config.py new --data my_images --out my.yml                       a starting config for a folder of data

Where an editor takes a schema by comment, put this on a config's first line: # yaml-language-server: $schema=config.schema.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError, suggestion
from ppmtl.config.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs/config_keys.md"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("show", parents=[cli.parser("")], add_help=False, help="the resolved config with origins")
    add.set_defaults(call=show)
    add = commands.add_parser("diff", help="the values that two configs do not have in common, defaults included")
    add.add_argument("configs", nargs=2, metavar="YML")
    add.set_defaults(call=diff)
    add = commands.add_parser("keys", help="all keys of a config")
    add.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="e.g. train, tasks.det.tta, model.heads")
    add.add_argument("--write", action="store_true", help=f"write the reference page, docs/{PAGE.name}")
    add.set_defaults(call=keys)
    add = commands.add_parser("parts", help="what type: may name, and the metrics")
    add.add_argument("kind", nargs="?", metavar="KIND", help="e.g. heads, transforms, metrics (default: all)")
    add.set_defaults(call=parts)
    commands.add_parser("schema", help="JSON Schema of configs").set_defaults(call=schema)
    add = commands.add_parser("new", help="writes a starting config for a folder of data")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="COCO json (boxes, masks, captions) + images, "
                     "images + label PNGs, lists + images, a folder of images per class; below it, any of them")  # fmt: skip
    add.add_argument("--out", type=Path, default=Path("my_config.yml"), metavar="YML", help="default: my_config.yml")
    add.set_defaults(call=new)
    arguments = parser.parse_args(argv)
    return int(arguments.call(arguments))


def show(arguments: argparse.Namespace) -> int:
    """Prints the resolved config."""
    from ppmtl.config.explain import explained

    print(explained(Settings, cli.load(arguments).tree), end="")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Prints what differs; 1 if anything does."""
    from ppmtl import build
    from ppmtl.config.explain import differences

    lines = differences(Settings, *(build.load(path).tree for path in arguments.configs))
    print("\n".join(lines) or "no difference")
    return int(bool(lines))


def keys(arguments: argparse.Namespace) -> int:
    """Prints the keys below a prefix, or writes the page of all."""
    from ppmtl.studies.config_reference import describe_keys, page

    if arguments.write:
        PAGE.write_text(page(), encoding="utf-8")
        print(f"wrote {PAGE}")
    else:
        print(describe_keys(arguments.prefix))
    return 0


def parts(arguments: argparse.Namespace) -> int:
    """Prints the parts of one kind, or of all."""
    from ppmtl.studies.config_reference import all_parts

    found = all_parts()
    if arguments.kind and arguments.kind not in found:
        raise ConfigError([f"KIND: got {arguments.kind!r}{suggestion(arguments.kind, found)}"])
    for kind in [arguments.kind] if arguments.kind else found:
        width = max(map(len, found[kind]))
        print(f"{kind}:", *(f"  {name:<{width}}  {text}" for name, text in found[kind].items()), sep="\n")
    return 0


def schema(_: argparse.Namespace) -> int:
    """Prints the JSON Schema."""
    from ppmtl.config.schema import json_schema

    print(json.dumps(json_schema(Settings), indent=1))
    return 0


def new(arguments: argparse.Namespace) -> int:
    """Writes a config for a folder of data and says what was found."""
    from ppmtl.studies.new_config import write_config

    print(write_config(arguments.data, arguments.out))
    return 0


if __name__ == "__main__":
    cli.run(main)
