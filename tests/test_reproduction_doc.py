"""docs/reproduction.md and configs/allinone_traffic.yml say the same numbers, and the page leaves none out."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppmtl.config import check, load_config
from ppmtl.config.settings import Settings

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "allinone_traffic.yml"
ROW = re.compile(r"\| *`([a-z0-9_.]+)` *\| *`([^`]+)` *\|")
# Keys that choose files, housekeeping or presentation, and nothing that the paper could have said
NOT_THE_PAPERS = re.compile(
    r"data_root|save_dir|device|weights|eval\.|infer\.|tasks\.\w+\.classes\.names|sources\.\w+\.(tasks|dataset\.)"
    r"|train\.(log_every|eval_every|save_every|keep_last|best_metric|num_workers)|.*\.type$"
)


def rows_of(page: str) -> list[tuple[str, Any]]:
    """Returns (config key, value) of every table row that names a key."""
    return [(match[1], yaml.safe_load(match[2])) for match in map(ROW.search, page.splitlines()) if match]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def step(node: Any, key: str) -> Any:
    """Returns what ``key`` names in one layer of checked settings, constructors' defaults included."""
    if isinstance(node, dict):
        return node[key]
    if isinstance(node, tuple):  # transforms, by their type
        (found,) = [part for part in node if snake(part.func.__name__) == key]
        return found
    if isinstance(node, functools.partial):
        return node.keywords[key] if key in node.keywords else inspect.signature(node.func).parameters[key].default
    if not hasattr(node, key):  # tasks and heads: settings of their place beside those of the part
        return step(node.part, key)
    return getattr(node, key)


def plain(value: Any) -> Any:
    """Returns the value with lists for tuples and plain floats for whole numbers."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value


def leaves(node: Any, path: str = "") -> list[str]:
    """Returns the key of every value in a YAML tree; transforms are named by type."""
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    if isinstance(node, list) and node and all(isinstance(entry, dict) for entry in node):
        return [leaf for entry in node for leaf in leaves(entry, f"{path}.{entry['type']}")]
    return [path]


@functools.cache
def settings() -> Settings:
    return check(Settings, load_config(CONFIG))


def differences(rows: list[tuple[str, Any]]) -> list[str]:
    return [
        f"{key}: the page says {value}, the config {actual}"
        for key, value in rows
        if plain(actual := functools.reduce(step, key.split("."), settings())) != plain(_float(value))
    ]


def _float(value: Any) -> Any:
    # YAML reads 1.0e-4 as a number but 1e-4 as a string; the page may write either
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


ROWS = rows_of((ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8"))


def test_the_page_has_all_its_rows():
    assert len(ROWS) == 103
    assert len({key for key, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("key", "value"), ROWS, ids=[key for key, _ in ROWS])
def test_page_and_config_agree(key, value):
    assert differences([(key, value)]) == []


def test_every_number_of_the_config_is_on_the_page():
    named = {key for key, _ in ROWS}
    keys = leaves(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))
    assert len(keys) > 100
    silent = [
        key for key in keys if not NOT_THE_PAPERS.match(key) and not any(f"{key}.".startswith(f"{n}.") for n in named)
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("optimizer.learning_rate", 2e-4),
        ("sources.seg.transforms.pad_crop.size", [1024, 512]),
        ("model.heads.det.anchor_threshold", 3.0),  # a constructor's default
        ("model.heads.det.neck.depth_multiplier", 0.33),
        ("model.backbone.output_norm", False),
        ("tasks.det.tta.sizes", [[2048, 2048]]),
    ],
)
def test_a_wrong_number_would_be_found(key, wrong):
    assert differences([(key, wrong)])
