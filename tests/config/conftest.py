"""A package of toy parts, made anew for every test that asks for it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture
def toyparts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a folder of parts (one class per file) and a module of parts (several classes)."""
    root = tmp_path / "code"
    write(root, "toyparts/__init__.py", "")
    write(root, "toyparts/heads/__init__.py", "")
    write(
        root,
        "toyparts/heads/upernet.py",
        """
        from __future__ import annotations
        from collections.abc import Callable, Sequence
        from typing import Annotated
        from annotated_types import Ge
        from ppmtl.config import Part

        class _Layer: ...

        class UPerNet:
            def __init__(self, in_specs: Sequence[int], *, channels: Annotated[int, Ge(1)] = 512, dropout: float = 0.1,
                         aux: Annotated[Callable[..., object], Part("toyparts.heads")] | None = None) -> None:
                self.in_specs, self.channels, self.dropout, self.aux = in_specs, channels, dropout, aux
        """,
    )
    write(root, "toyparts/heads/linear.py", "class Linear:\n    def __init__(self, in_specs, *, bias: bool): ...\n")
    write(root, "toyparts/heads/csp_pan.py", "class Block: ...\nclass CSPPAN: ...\n")
    write(root, "toyparts/heads/base.py", "class A: ...\nclass B: ...\n")
    write(root, "toyparts/heads/broken.py", "import a_module_nobody_has\nclass Broken: ...\n")
    write(root, "toyparts/heads/_private.py", "class Hidden: ...\n")
    write(
        root,
        "toyparts/ops.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import Protocol
        from collections import OrderedDict

        class Transform(Protocol): ...

        @dataclass(frozen=True)
        class RandomCrop:
            size: tuple[int, int]
            pad: bool = False

        class Flip:
            def __init__(self, *, p: float = 0.5) -> None: ...
        """,
    )
    monkeypatch.syspath_prepend(str(root))
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "toyparts"]:
        del sys.modules[name]
