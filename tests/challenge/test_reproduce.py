"""The paper's tables: rows, copies of tasks, cells that were not run."""

import dataclasses
import json

import numpy as np
from samples import make_sample

from ppmtl.challenge import reproduce
from ppmtl.predict.evaluate import EvalSet
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification

CLASSES = ClassList(("a", "b"))
DATA = {"cls": EvalSet([make_sample(np.full((32, 32, 3), i, np.uint8), class_index=i % 2) for i in range(4)], ("cls",))}


def backend(images, tasks):
    return {t: {"probs": np.tile(np.array([[0.9, 0.1]], np.float32), (len(images), 1))} for t in tasks}


def test_rows_are_measured_and_leave_the_task_alone():
    task = Classification("cls", CLASSES, input_size=(32, 32))
    before = task.tta
    cells = [reproduce.run_row(row, {"cls": task}, DATA, backend) for row in reproduce.TABLES["5"]]
    assert [cell.ours for cell in cells] == [0.5] * 4
    assert [cell.views for cell in cells] == [1, 2, 3, 6]
    assert task.tta is before


def test_rows_without_data_say_so_and_print_no_number():
    cells = [
        reproduce.run_row(row, {"cls": Classification("cls", CLASSES)}, DATA, backend) for row in reproduce.TABLES["4"]
    ]
    text = reproduce.to_markdown("4", cells, "nothing")
    assert all(cell.ours is None for cell in cells)
    assert text.count("not run: the config has no segmentation task") == len(cells)
    assert "+0." not in text


def test_the_papers_sizes_come_out_exactly_for_the_papers_config():
    from ppmtl.tasks.detection import Detection

    task = Detection("det", CLASSES, input_size=(2048, 2048))
    task.tta = reproduce.TABLES["6"][-1].tta
    assert [v.size[0] for v in task.views((9, 9), augment=True)] == [2048, 2048, 1568, 1568, 2240, 2240]


def test_an_attribute_changed_by_a_row_is_one_that_the_task_has():
    from ppmtl.tasks.detection import Detection
    from ppmtl.tasks.segmentation import Segmentation

    kinds = {t.task_type: t("t", CLASSES) for t in (Classification, Detection, Segmentation)}
    rows = [row for table in reproduce.TABLES.values() for row in table]
    assert len(rows) == 19
    for row in rows:
        assert all(hasattr(kinds[row.task_type], name) for name in row.settings)


def test_tables_are_written_as_text_and_numbers(tmp_path):
    rows = [reproduce.run_row(row, {}, {}, backend) for row in reproduce.TABLES["2"]]
    rows[1] = dataclasses.replace(rows[1], ours=0.75, seconds=0.5, reason="")
    reproduce.write({"2": rows}, "weights w", tmp_path)
    assert (
        "| classification, Top-1 | 0.9578 | 0.7500 | -0.2078 |  | 1 | 0.500 |"
        in (tmp_path / "reproduce.md").read_text()
    )
    written = json.loads((tmp_path / "reproduce.json").read_text())
    assert written["tables"][0]["rows"][1] == {
        "label": "classification, Top-1", "task": "classification", "paper": 0.95784, "ours": 0.75,
        "seconds_per_picture": 0.5, "views": 1, "reason": "",
    }  # fmt: skip
