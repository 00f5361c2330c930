"""Every reader under ``ppmtl/data/readers``: one public class per file, and the interface that sources rely on."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import ppmtl.data.readers
from ppmtl.data.reader import Reader

MODULES = sorted(m.name for m in pkgutil.iter_modules(ppmtl.data.readers.__path__) if not m.name.startswith("_"))


def reader_of(module_name: str) -> type:
    module = importlib.import_module(f"ppmtl.data.readers.{module_name}")
    classes = [
        c
        for name, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(classes) == 1, f"{module_name}: one public class per file, got {classes}"
    return classes[0]


def test_the_listing_found_the_readers() -> None:
    assert len(MODULES) >= 3
    assert {"coco", "image_list", "label_png"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_reader_takes_root_and_tasks_and_keyword_settings(name: str) -> None:
    parameters = list(inspect.signature(reader_of(name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["root", "tasks"]
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty for p in parameters[2:])


@pytest.mark.parametrize(
    "name", sorted(set(MODULES) - {"joined"})
)  # joined asks its readers (tests/data/test_joined.py)
def test_a_reader_says_before_it_is_built_which_paths_it_needs(name: str) -> None:
    reader = reader_of(name)
    wanted = {
        p: "x"
        for p, v in inspect.signature(reader).parameters.items()
        if v.kind is v.KEYWORD_ONLY and v.default is v.empty
    }
    paths = reader.required_paths("root", ["seg"], **wanted, unknown_setting=1)  # type: ignore[attr-defined]
    assert paths
    assert all(path == Path("root/x") for path in paths)


@pytest.mark.parametrize("name", MODULES)
def test_a_reader_has_everything_that_sources_and_evaluations_use(name: str) -> None:
    reader = reader_of(name)
    assert issubclass(reader, Reader)
    assert not inspect.isabstract(reader)
