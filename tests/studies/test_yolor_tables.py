"""The tables of the YOLOR paper: cells are trained once and read back, and the answers are those of the numbers."""

import argparse
import json
from pathlib import Path

import pytest

from ppmtl import build
from ppmtl.config import ConfigError
from ppmtl.studies import yolor_tables
from ppmtl.studies.yolor_tables import TABLES, Measured, answers

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DEMO, MINI = str(CONFIGS / "yolor_demo.yml"), str(CONFIGS / "yolor_mini.yml")
ALL, STRONG = "instances+segmentation+captions", "instances+segmentation+captions+strong"


def arguments(*tables: str) -> argparse.Namespace:
    return argparse.Namespace(config=DEMO, overrides=[], device=None, nprocs=1, limit=None, steps=7, table=tables)


@pytest.fixture
def trained(monkeypatch):
    """Instead of training: the folder, tasks and overrides of every cell; it measures what its name says."""
    seen = {}

    def train_run(given, folder, tasks, seed, steps, pace):
        assert (seed, steps, pace) == (42, given.steps, [])
        seen[folder.name] = (tasks, [item for group in given.overrides for item in group])
        folder.mkdir(parents=True, exist_ok=True)
        return 12.0

    def evaluate_run(_given, folder, tasks):
        sentences = 0.1 if "strong" in folder.name else 0.2
        keys = {
            "instances": ("box_ap50_95", "mask_ap50_95"),
            "semantic": ("miou", "fwiou"),
            "captions": ("bleu4", "cider_d"),
        }
        return {task: dict.fromkeys(keys[task], sentences) for task in tasks}

    monkeypatch.setattr(yolor_tables, "train_run", train_run)
    monkeypatch.setattr(yolor_tables, "evaluate_run", evaluate_run)
    return seen


def rows(text: str, table: str) -> list[list[str]]:
    lines = text.split(f"### {table}\n")[1].split("###")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def test_cells_have_their_tasks_and_changes_and_stand_beside_the_papers_numbers(trained, tmp_path):
    text = yolor_tables.run(build.load(DEMO), arguments("augmentation", "semantic_head"), tmp_path)
    assert set(trained) == {
        ALL,
        STRONG,
        "instances+segmentation+scale_multi+out_stride_1",
        "instances+segmentation+scale_single+out_stride_1",
        "instances+segmentation+scale_single+out_stride_4",
    }
    assert trained[ALL] == (["instances", "semantic", "captions"], [])
    assert trained["instances+segmentation+scale_multi+out_stride_1"] == (
        ["instances", "semantic"],
        ["model.heads.semantic.scale=multi", "model.heads.semantic.out_stride=1"],
    )
    heads, strong, weak = rows(text, "augmentation")[0], *rows(text, "augmentation")[2:]
    column = heads.index("BLEU-4 paper")
    assert [row[column : column + 2] for row in (strong, weak)] == [["0.0700", "0.1000"], ["0.1620", "0.2000"]]
    assert "CIDEr-D paper" not in heads
    assert weak[-1] == "12"


@pytest.mark.usefixtures("trained")
def test_what_is_there_is_read_back_and_what_was_never_asked_for_is_not_run(tmp_path):
    yolor_tables.run(build.load(DEMO), arguments("augmentation"), tmp_path)
    (tmp_path / STRONG / "cell.json").unlink()
    text = yolor_tables.run(build.load(DEMO), arguments("pairing"), tmp_path)
    pairing = rows(text, "pairing")
    assert [row[0] for row in pairing[2:]] == ["captions", "boxes + captions", "semantics + captions", "all"]
    assert not any("not run" in row for row in pairing)
    assert "not run" in rows(text, "augmentation")[2]
    assert "not run" not in rows(text, "augmentation")[3]  # the model of the other table's last row
    assert all("not run" in row for row in rows(text, "semantic_head")[2:])
    assert "for captions? Not run." in text
    longer = arguments("semantic_head")
    longer.steps = 8  # the others were trained for 7
    assert all("not run" in row for row in rows(yolor_tables.run(build.load(DEMO), longer, tmp_path), "pairing")[2:])


def test_the_answers_are_those_of_the_numbers_whatever_the_paper_says():
    def measured(bleu: float, cider: float) -> Measured:
        return Measured({"bleu4": bleu, "cider_d": cider}, 1.0)

    found = {ALL: measured(0.2, 0.3), STRONG: measured(0.3, 0.3)}
    text = answers(found)
    assert "BLEU-4: no, 0.2000 (captions weak) against 0.3000 (captions strong)" in text
    assert "CIDEr-D: no difference, 0.3000" in text
    assert "Do boxes + captions beat semantics + captions? Not run." in text
    found |= {"instances+captions": measured(0.4, 0.1), "segmentation+captions": measured(0.1, 0.2)}
    assert "BLEU-4: yes, 0.4000 (boxes + captions) against 0.1000 (semantics + captions)" in answers(found)
    assert "CIDEr-D: no, 0.1000" in answers(found)


@pytest.mark.parametrize(("config", "views", "size"), [
    (DEMO, ["sources.street.views.weak"], [192, 320]),
    (MINI, ["sources.coco.views.weak", "sources.flickr"], [160, 160]),
])  # fmt: skip
def test_strong_captions_see_all_transforms_of_the_boxes_at_their_own_size(config, views, size):
    run = build.load(config)
    strong = next(cell for cell in TABLES["augmentation"] if cell.strong)
    names = {"instances": "instances", "segmentation": "semantic", "captions": "captions"}
    overrides = yolor_tables._changes(run, names, strong)
    changed = build.load(config, overrides)  # is a config that can be checked
    assert changed.settings.tasks["captions"].part.keywords["allow"] == ("mirror", "mix")
    values = dict(override.split("=", 1) for override in overrides)
    assert list(values) == ["tasks.captions.allow", *(f"{view}.transforms" for view in views)]
    for view in views:
        steps = json.loads(values[f"{view}.transforms"])
        assert [step["type"] for step in steps][:3] == ["mosaic", "letterbox", "copy_paste"]
        assert all(step.get("size", size) == size for step in steps)


def test_a_config_without_sentences_is_refused(tmp_path):
    run = build.load(DEMO, tasks=["instances", "semantic"])
    with pytest.raises(
        ConfigError, match="needs tasks of type instances, segmentation, captions; there is no captions"
    ):
        yolor_tables.run(run, arguments("pairing"), tmp_path)
