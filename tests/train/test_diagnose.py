"""diagnosis.csv, its drawing and the warning, from gradients whose norms and angles are known."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from ppmtl.train.balance.pcgrad import Pcgrad
from ppmtl.train.balance.tbgc import Tbgc
from ppmtl.train.diagnose import Diagnosis, stage_of
from ppmtl.train.log import LOGGER

NAMES = ("backbone.stages.0.0.norm.bias", "backbone.downsample_layers.1.0.weight", "backbone.norm1.weight")
TASKS = ("seg", "cls", "det")


def gradients(seg, cls, det):
    """{task: one (2,) gradient per name}; None stays None."""
    given = dict(zip(TASKS, (seg, cls, det), strict=True))
    return {t: [None if g is None else paddle.to_tensor(np.array(g, "float32")) for g in v] for t, v in given.items()}


def plain(cls_norm=2.0):
    """Norms over the entire backbone: seg 5, cls ``cls_norm``, det 1."""
    return gradients([[3, 0], [0, 4], None], [[-cls_norm, 0], None, None], [None, [0, 0], [0, 1]])


def read(folder: Path) -> dict[tuple[str, ...], float]:
    with (folder / "diagnosis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "stage", "task_a", "task_b", "quantity", "value"]
    return {tuple(row.values())[:-1]: float(row["value"] or math.nan) for row in rows}


@pytest.fixture
def warnings():
    """Returns the list that the logger's messages are written to."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    LOGGER.addHandler(handler)
    yield messages
    LOGGER.removeHandler(handler)


def test_a_parameter_belongs_to_the_stage_that_its_name_says():
    names = {
        "stage 2": [
            "stages.2.0.norm.bias",
            "stages.2.11.pwconv1.weight",
            "downsample_layers.2.0.weight",
            "norm2.weight",
        ],
        "stage 4": ["layer4.0.conv2.weight"],
        "stage 11": ["blocks.11.attn.qkv.weight"],
        "other": ["conv2d.weight", "pos_embed"],
    }
    assert {stage: {stage_of(f"backbone.{name}") for name in of} for stage, of in names.items()} == {
        s: {s} for s in names
    }


def test_norms_and_cosines_are_written_per_stage_and_for_the_entire_backbone(tmp_path):
    with Diagnosis(tmp_path, NAMES) as diagnosis:
        diagnosis.record(10, plain())
    values = read(tmp_path)
    assert len(values) == 3 * (3 + 3)  # two stages and all of it, three norms and three pairs
    assert {key[1] for key in values} == {"backbone", "stage 0", "stage 1"}
    assert [values["10", "backbone", t, "", "norm"] for t in TASKS] == pytest.approx([5, 2, 1])
    assert [values["10", "stage 0", t, "", "norm"] for t in TASKS] == pytest.approx([3, 2, 0])
    assert [values["10", "stage 1", t, "", "norm"] for t in TASKS] == pytest.approx([4, 0, 1])
    assert values["10", "backbone", "seg", "cls", "cosine"] == pytest.approx(-6 / (5 * 2))
    assert values["10", "stage 0", "seg", "cls", "cosine"] == pytest.approx(-1)
    assert values["10", "stage 1", "seg", "det", "cosine"] == 0
    assert math.isnan(values["10", "stage 1", "seg", "cls", "cosine"])  # cls reaches nothing of stage 1


def test_a_step_whose_gradients_overflowed_is_left_out(tmp_path):
    with Diagnosis(tmp_path, NAMES) as diagnosis:
        diagnosis.record(1, plain())
        diagnosis.record(2, plain(cls_norm=math.inf))
    assert {key[0] for key in read(tmp_path)} == {"1"}


def test_stages_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"backbone.blocks.{i}.weight" for i in (10, 2, 0)] + ["backbone.cls_token"]
    with Diagnosis(tmp_path, names) as diagnosis:
        diagnosis.record(1, gradients(*[[[1, 0]] * 4] * 3))
    stages = list(dict.fromkeys(key[1] for key in read(tmp_path)))
    assert stages == ["backbone", "stage 0", "stage 2", "stage 10", "other"]


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path):
    with Diagnosis(tmp_path, NAMES) as diagnosis:
        for step in (5, 10, 15):
            diagnosis.record(step, plain(cls_norm=2))
    with (tmp_path / "diagnosis.csv").open("a") as file:
        file.write("20,backbone,se")  # killed while writing
    with Diagnosis(tmp_path, NAMES, start_step=12) as diagnosis:
        diagnosis.record(15, plain(cls_norm=7))
    values = read(tmp_path)
    norms = {step: values[str(step), "backbone", "cls", "", "norm"] for step in (5, 10, 15)}
    assert norms == {5: 2, 10: 2, 15: 7}
    assert len(values) == 3 * 18
    assert len(diagnosis.rows) == 3 * 18  # and the drawing shows the entire run
    assert math.isnan(values["5", "stage 1", "seg", "cls", "cosine"])


def test_a_fresh_run_starts_a_fresh_file_which_is_on_disk_before_the_run_ends(tmp_path):
    for _ in range(2):
        diagnosis = Diagnosis(tmp_path, NAMES)
        diagnosis.record(5, plain())
    assert len(read(tmp_path)) == 18
    assert [path.name for path in tmp_path.iterdir()] == ["diagnosis.csv"]
    with Diagnosis(tmp_path / "new", NAMES, start_step=50):  # resumed from a run without --diagnose
        assert (tmp_path / "new" / "diagnosis.csv").read_text().startswith("step,stage")
    assert not (tmp_path / "new" / "diagnosis.png").exists()


@pytest.mark.parametrize("rounds", [1, 40])
def test_the_drawing_is_made_of_few_and_of_many_diagnoses(tmp_path, rounds):
    with Diagnosis(tmp_path, NAMES) as diagnosis:
        for step in range(rounds):
            diagnosis.record(step, plain(cls_norm=1 + step % 3))
    drawing = cv2.imread(str(tmp_path / "diagnosis.png"))
    assert drawing.shape[0] > 500
    assert drawing.std() > 10


def test_the_same_numbers_go_to_visualdl(tmp_path):
    class Visual:
        seen: dict[str, float] = {}  # noqa: RUF012

        def scalars(self, values, step, prefix):
            self.seen |= {f"{step} {prefix}/{name}": value for name, value in values.items()}

    Diagnosis(tmp_path, NAMES, visual=Visual()).record(10, plain())
    assert Visual.seen["10 diagnosis/backbone/norm_seg"] == pytest.approx(5)
    assert Visual.seen["10 diagnosis/stage 0/cosine_seg_cls"] == pytest.approx(-1)
    assert "10 diagnosis/stage 1/cosine_seg_cls" not in Visual.seen  # there is no NaN to draw


# starving


def test_a_starving_task_is_named_once_with_its_remedies(tmp_path, warnings):
    diagnosis = Diagnosis(tmp_path, NAMES)
    for step, cls_norm in enumerate([0.1, 0.2]):
        diagnosis.record(step, plain(cls_norm))
    assert warnings == []
    for step in (2, 3, 4):
        diagnosis.record(step, plain(0.1))
    assert len(warnings) == 1
    assert "task 'cls' starves" in warnings[0]
    assert "at most 4.0 % of the norm of the largest (now 'seg')" in warnings[0]
    assert "train.loss_weights.cls" in warnings[0]
    assert "train.balance.type=tbgc" in warnings[0]


def test_one_good_diagnosis_in_between_is_no_starving(tmp_path, warnings):
    diagnosis = Diagnosis(tmp_path, NAMES)
    for step, cls_norm in enumerate([0.1, 0.1, 2.0] * 4):
        diagnosis.record(step, plain(cls_norm))
    assert warnings == []


def test_a_task_that_reaches_nothing_starves_and_all_zero_is_silent(tmp_path, warnings):
    diagnosis, silent = Diagnosis(tmp_path, NAMES), Diagnosis(tmp_path / "zero", NAMES)
    for step in range(3):
        diagnosis.record(step, gradients([[1, 0]] * 3, [None] * 3, [[0, 1]] * 3))
        silent.record(step, gradients(*[[[0, 0]] * 3] * 3))
    assert len(warnings) == 1
    assert "at most 0.0 %" in warnings[0]


def test_starving_is_counted_across_a_resume(tmp_path, warnings):
    for step in (5, 10):
        Diagnosis(tmp_path, NAMES, start_step=step - 5).record(step, plain(0.1))
    assert warnings == []
    Diagnosis(tmp_path, NAMES, start_step=10).record(15, plain(0.1))
    assert len(warnings) == 1


@pytest.mark.parametrize("method, count", [(Tbgc, 0), (Pcgrad, 1)])
def test_no_task_starves_where_the_method_gives_all_the_same_norm(tmp_path, warnings, method, count):
    diagnosis = Diagnosis(tmp_path, NAMES, balance=method(TASKS))
    for step in range(3):
        diagnosis.record(step, plain(0.1))
    assert len(warnings) == count
