"""Settings -> objects: the wires between tasks, heads, sources and evaluation sets, and one truth about a run."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ppmtl import build
from ppmtl.config import ConfigError
from ppmtl.config.settings import HeadSettings
from ppmtl.structures import ClassList
from ppmtl.tasks.captions import Captions

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "configs" / "allinone_demo.yml")


def write(tmp_path, **changes) -> str:
    (tmp_path / "x.yml").write_text(json.dumps({"_base_": DEMO, **changes}))  # JSON is YAML with quotes
    return str(tmp_path / "x.yml")


def several(tmp_path) -> str:
    """A config in which one data set supervises two tasks in two views, and measures both."""
    joined = {
        "type": "joined",
        "readers": {
            "seg": {"type": "label_png", "images": "i", "labels": "l"},
            "det": {"type": "coco", "images": "i", "annotations": "d.json"},
        },
    }
    views = {
        "strong": {"tasks": ["seg", "det"], "transforms": [{"type": "pad_crop", "size": [64, 64]}]},
        "weak": {"tasks": ["seg"], "transforms": [{"type": "resize", "size": [64, 64]}]},
    }
    return write(
        tmp_path,
        sources={"seg": None, "det": None, "street": {"dataset": joined, "batch_size": 2, "views": views}},
        eval={"datasets": {"seg": None, "det": None, "street": {**joined, "tasks": ["seg", "det"]}}},
    )


def test_choosing_tasks_leaves_nothing_of_the_others():
    settings = build.load(DEMO, tasks=["seg", "det"]).settings
    for group in (settings.tasks, settings.sources, settings.model.heads, settings.eval.datasets):
        assert set(group) == {"seg", "det"}
    assert "cls" not in settings.train.loss_weights


def test_choosing_tasks_narrows_views_and_evaluation_sets(tmp_path):
    config = several(tmp_path)
    settings = build.load(config, tasks=["det"]).settings
    assert set(settings.sources) == {"street"}
    assert {name: view.tasks for name, view in settings.sources["street"].views.items()} == {"strong": ("det",)}
    assert settings.eval.tasks() == {"street": ("det",)}
    settings = build.load(config, tasks=["cls", "seg"]).settings
    assert settings.sources["street"].all_tasks("street") == ("seg",)


def test_the_config_that_is_saved_is_the_config_that_runs(tmp_path):
    run = build.load(several(tmp_path), ["train.epochs=3"], ["det"]).changed({"train.steps_per_epoch": 7}, "--test")
    (tmp_path / "saved.yml").write_text(run.tree.dump())
    again = build.load(str(tmp_path / "saved.yml"))
    assert again.tree.data == run.tree.data
    assert again.settings.train == run.settings.train
    assert (again.settings.train.epochs, again.settings.train.steps_per_epoch) == (3, 7)
    assert set(again.settings.tasks) == {"det"}


def test_a_value_that_a_flag_sets_is_checked_and_blamed_on_the_flag():
    with pytest.raises(ConfigError, match=r"train\.epochs \(--fast\)"):
        build.load(DEMO).changed({"train.epochs": 0}, "--fast")


@pytest.mark.parametrize("tasks, message", [
    (["seg", "depth"], r"--tasks: got 'depth'.* allowed: seg, cls, det"),
    ([], r"--tasks: names no task; the config has seg, cls, det"),
])  # fmt: skip
def test_tasks_that_are_not_there_are_refused_with_the_known_ones(tasks, message):
    with pytest.raises(ConfigError, match=message):
        build.load(DEMO, tasks=tasks)


DISAGREEMENTS = {
    "model.heads.seg={type: cbam_fc}": r"model\.heads\.seg: CBAMFC answers classification, but tasks\.seg asks segment",
    "model.heads.seg.answers=sgg": r"model\.heads\.seg\.answers: 'sgg' is no task of this config; did you mean 'seg'\?",
    "model.heads.cls.answers=seg": r"model\.heads: no head answers task 'cls'.*\n.*task 'seg' has 2 entries, one is allowed",
    "model.heads.det=null": r"model\.heads: no head answers task 'det'",
    "sources.det.tasks=[sgns]": r"sources\.det\.tasks: 'sgns' is no task",
    "eval.datasets.cls.tasks=[det]": r"eval\.datasets: task 'det' has 2 entries, one is allowed",
    "train.loss_weights={clls: 2}": r"train\.loss_weights\.clls: 'clls' is no task of this config; did you mean 'cls'",
}


@pytest.mark.parametrize("override", DISAGREEMENTS)
def test_wires_that_lead_nowhere_are_named(override):
    with pytest.raises(ConfigError, match=DISAGREEMENTS[override]):
        build.load(DEMO, [override])


def test_a_head_may_be_called_otherwise_than_the_task_that_it_answers(tmp_path):
    heads = {"seg": None, "streets": {"type": "upernet", "answers": "seg", "channels": 8, "aux_channels": 8}}
    settings = build.load(write(tmp_path, model={"heads": heads})).settings
    tasks = build.build_tasks(settings, {n: {"names": ["a", "b"], "ids": [0, 1]} for n in settings.tasks})
    model = build.build_model(settings, tasks)
    assert model.head_of == {"cls": "cls", "det": "det", "seg": "streets"}
    assert any(name.startswith("heads.streets.") for name, _ in model.named_parameters())


def test_a_source_has_one_view_or_several_but_not_both():
    views = "sources.seg.views={weak: {tasks: [seg], transforms: []}}"
    with pytest.raises(ConfigError, match=r"sources\.seg.*transforms and tasks \(one view\), or views"):
        build.load(DEMO, [views])


def test_classes_come_from_the_checkpoint_else_from_the_config(tmp_path):
    settings = build.load(
        DEMO, [f"data_root={tmp_path}", "tasks.cls.classes={count: 2, names: [x, y], ids: [4, 9]}"]
    ).settings
    stored = {name: {"names": ["old"], "ids": [3]} for name in ("seg", "det")}
    tasks = build.build_tasks(settings, stored)
    assert (tasks["seg"].classes.names, tasks["det"].classes.ids) == (("old",), (3,))
    assert (tasks["cls"].classes.names, tasks["cls"].classes.ids) == (("x", "y"), (4, 9))
    with pytest.raises(ConfigError, match=r"tasks\.det\.classes: .*train\.json: cannot be read"):
        build.build_tasks(settings)


def test_a_class_count_that_disagrees_with_the_list_is_refused():
    settings = build.load(DEMO, ["tasks.seg.classes={count: 3, names: [a, b]}"]).settings
    with pytest.raises(ConfigError, match=r"tasks\.seg\.classes: count is 3, but .* has 2 classes; set count to 2"):
        build.build_tasks(settings, {name: {"names": ["x"], "ids": [0]} for name in ("cls", "det")})


def test_missing_data_are_listed_before_anything_is_built(tmp_path):
    settings = build.load(several(tmp_path), [f"data_root={tmp_path}"], ["seg"]).settings
    with pytest.raises(ConfigError, match=r"data: 2 of the paths") as caught:
        build.require_data(settings, training=True, evaluation=True)
    assert all(f"{tmp_path / name}\n" in str(caught.value) for name in ("i", "l"))


def test_only_a_config_of_the_challenges_data_is_told_to_render_them(tmp_path):
    for config, told in ((DEMO, True), (several(tmp_path), False)):
        settings = build.load(config, [f"data_root={tmp_path / 'none'}"], ["seg"]).settings
        with pytest.raises(ConfigError, match=r"Paths start from data_root, .*none, which is no folder") as caught:
            build.require_data(settings, training=True, evaluation=True)
        assert ("make_demo_data.py" in str(caught.value)) == told


def test_multipliers_name_parts_with_dots_in_quotes_and_survive_being_saved(tmp_path):
    run = build.load(write(tmp_path, optimizer={"multipliers": {"heads.seg": 10, "backbone": 0.1}}))
    (tmp_path / "saved.yml").write_text(run.tree.dump())
    assert build.load(str(tmp_path / "saved.yml")).settings.optimizer.multipliers == {
        "heads.seg": 10.0,
        "backbone": 0.1,
    }


def test_every_step_needs_a_source():
    settings = build.load(DEMO, ["sources.seg.every=2", "sources.det.every=3"]).settings
    build.require_work(settings)
    with pytest.raises(ConfigError, match=r"sources\.seg\.every: got 2.*set -o sources\.seg\.every=1"):
        build.require_work(build.load(DEMO, ["sources.seg.every=2", "sources.det.every=3"], ["seg", "det"]).settings)


class _Speaker:
    """What a caption head takes."""

    def __init__(self, specs, num_classes, *, bos: int = 2, eos: int = 3) -> None:  # noqa: ARG002
        self.ends = (bos, eos)


def _built_head(monkeypatch, **keys):
    settings = build.load(DEMO, []).settings
    vocabulary = ClassList(("[PAD]", "[UNK]", "[SEP]", "[CLS]", "a"))
    heads = {"cap": HeadSettings(partial(_Speaker, **keys))}
    settings = replace(settings, model=replace(settings.model, heads=heads))
    monkeypatch.setattr(build, "MultiTaskModel", lambda _, heads, **__: heads)
    return build.build_model(settings, {"cap": Captions("cap", vocabulary)})["cap"]


def test_a_head_learns_from_its_task_where_sentences_begin_and_end(monkeypatch):
    assert _built_head(monkeypatch).ends == (3, 2)
    assert _built_head(monkeypatch, bos=3).ends == (3, 2)
    with pytest.raises(ConfigError, match=r"model\.heads\.cap\.eos: got 3, but task 'cap' has 2 by its classes; leave"):
        _built_head(monkeypatch, eos=3)


def test_a_heads_own_mean_is_of_its_task_alone_and_the_std_not_given_is_the_models():
    settings = build.load(DEMO, ["model.heads.det.mean=[0.5, 0.5, 0.5]", "model.std=[0.2, 0.2, 0.2]"]).settings
    assert settings.model.own_normalisation() == {"det": ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))}
    assert build.load(DEMO).settings.model.own_normalisation() == {}
    model = build.build_model(settings, dict.fromkeys(settings.tasks, _Ten()))
    assert [name for name in settings.tasks if model.pixels_for(name)] == ["det"]


class _Ten:
    """A task of ten classes."""

    classes = range(10)

    def for_head(self):
        return {}
