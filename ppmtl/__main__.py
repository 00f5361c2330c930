"""The ``ppmtl`` command: ``ppmtl train -c ...`` does what ``python tools/train.py -c ...`` does in the source tree.

The tools stay where they are in the source tree; setup.py puts them into the installed package, and this file calls them.
"""

from __future__ import annotations

import sys
from importlib import import_module

from ppmtl import __version__, cli
from ppmtl.config import suggestion


def main() -> None:
    """Runs the tool that the first argument names, and exits with its code."""
    files = {path.stem: f"tools/{path.name}" for path in cli.folder_of("tools").glob("[!_]*.py")}
    called = {command: file for command, file in files.items() if file not in cli.COMMANDS.values()} | cli.COMMANDS
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name == "--version":
        print(f"ppmtl {__version__}")
    elif name in ("-h", "--help"):
        listed = "\n".join(f"  {command}" for command in sorted(called))
        print(f"usage: ppmtl COMMAND ...\n\n{listed}\n\nWhat a command does and takes: ppmtl COMMAND --help")
    elif file := (files | called).get(name):
        room, *folders, script = file.removesuffix(".py").split("/")
        folder = cli.folder_of(room)
        before = [*sys.path, str(folder.parent), str(folder.joinpath(*folders))]  # tools import what lies beside them
        sys.path[:] = before
        tool = import_module(".".join([folder.name, *folders, script]))
        sys.path[:] = before  # tools put the source tree first, which is site-packages here
        sys.argv = [f"ppmtl {name}", *arguments]
        cli.run(tool.main)
    else:
        sys.exit(f"ppmtl: {name!r} is no command{suggestion(name, sorted(called))}; --help and --version are there too")


if __name__ == "__main__":
    main()
