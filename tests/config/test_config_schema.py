"""The JSON Schema for editors: it takes what loading takes, and refuses what loading refuses key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from ppmtl.config.complete import complete
from ppmtl.config.schema import json_schema
from ppmtl.config.settings import Settings
from ppmtl.config.tree import load_config
from ppmtl.config.yaml_file import parse

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yml"))
SCHEMA = json_schema(Settings)


def problems(data: Any) -> list[str]:
    return [error.json_path for error in Draft7Validator(SCHEMA).iter_errors(data)]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_of_the_project_are_valid_as_written_and_in_full(path: Path) -> None:
    mistakes: list[str] = []
    assert problems(parse(path.read_text(), str, mistakes)[0]) == []
    assert problems(complete(Settings, load_config(path)).data) == []
    assert mistakes == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 3},
        {"train": {"epoch": 3}},
        {"train": {"epochs": 0}},
        {"train": {"epochs": "3"}},
        {"train": {"amp": {"level": "O3"}}},
        {"infer": {"size": [1, 2, 3]}},
        {"model": {"heads": {"seg": {"type": "upernt"}}}},
        {"model": {"heads": {"seg": {"type": "upernet", "loss_gain": 1}}}},
        {"model": {"heads": {"seg": {"no_head_has_this": 1}}}},
        {"model": {"heads": {"det": {"type": "yolov5", "neck": {"type": "yolocsppan", "channels": [1, 2]}}}}},
        {"sources": {"seg": {"transforms": [{"type": "resize", "p": 0.5}]}}},
        {"sources": {"seg": {"dataset": {"type": "joined", "readers": {"det": {"type": "coco", "image": "x"}}}}}},
        {"tasks": {"det": {"type": "detection", "classes": {"cout": 3}}}},
    ],
    ids=str,
)
def test_a_wrong_key_or_value_is_refused(wrong: dict[str, Any]) -> None:
    assert problems(wrong) != []


@pytest.mark.parametrize(
    "right",
    [
        {"_base_": "allinone_traffic.yml"},
        {"_base_": ["a.yml", "b.yml"], "model": {"heads": {"det": None, "seg": {"channels": 40}}}},
        {"model": {"backbone": {"type": "my_package.module.Net", "anything": 1}}},
        {"sources": {"seg": {"transforms": [{"type": "HorizontalFlip", "p": 0.5}]}}},
        {"train": {"balance": None, "log_every": 5, "ema_decay": 0.5}},
        {"model": {"heads": {"x": {"type": "cbam_fc", "answers": "cls"}}}},
    ],
    ids=str,
)
def test_what_loading_takes_is_valid(right: dict[str, Any]) -> None:
    assert problems(right) == []


def test_a_key_shows_its_meaning_and_default_in_the_editor() -> None:
    epochs = SCHEMA["properties"]["train"]["properties"]["epochs"]
    assert epochs["description"].endswith("\ndefault: 100")
    assert (epochs["type"], epochs["minimum"]) == ("integer", 1)
