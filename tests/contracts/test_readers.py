"""Every reader under ``ppmtl/data/readers``: one public class per file, and the interface that sources rely on."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from listing import class_of, modules

from ppmtl.data.reader import Reader

PACKAGE = "ppmtl.data.readers"
MODULES = modules(PACKAGE)


def test_the_listing_found_the_readers() -> None:
    assert len(MODULES) >= 3
    assert {"coco", "image_list", "label_png"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_reader_takes_root_and_tasks_and_keyword_settings(name: str) -> None:
    parameters = list(inspect.signature(class_of(PACKAGE, name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["root", "tasks"]
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty for p in parameters[2:])


@pytest.mark.parametrize(
    "name", sorted(set(MODULES) - {"joined"})
)  # joined asks its readers (tests/data/test_joined.py)
def test_a_reader_says_before_it_is_built_which_paths_it_needs(name: str) -> None:
    reader = class_of(PACKAGE, name)
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
    reader = class_of(PACKAGE, name)
    assert issubclass(reader, Reader)
    assert not inspect.isabstract(reader)
