"""The YOLOR configs: at full size the model adds up to what the paper's family is known by; the small ones fit their data."""

import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from demo_data import DemoRequest, make_dataset
from demo_data.objects import OBJECT_CLASSES
from ppmtl import build
from ppmtl.studies.cost import count_parameters

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
CONFIG = str(CONFIGS / "yolor_coco.yml")
COCO_MINI = Path(os.environ.get("PPMTL_COCO_MINI", ROOT.parent / "shared" / "data" / "coco_mini"))
IMPLICIT = {"instances": 1_680, "semantic": 429}


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict[str, int]]:
    counted = [f"tasks.{task}.classes.names=null" for task in ("instances", "captions")]  # no files are needed
    settings = build.load(CONFIG, counted).settings
    paddle.seed(0)
    return count_parameters(build.build_model(settings, build.build_tasks(settings)))


def test_every_part_has_the_known_number_of_parameters(parameters):
    assert sum(parameters["backbone"].values()) == 36_470_688
    # With the 16 fixed numbers of its distributions, which the reference counts, detection has 7,119,040
    assert parameters["heads.instances"] == {
        "detection": 7_119_040 - 16,
        "prototypes": 1_188_928,
        "coefficients": 1_149_792,
        "implicit": IMPLICIT["instances"],
    }
    assert parameters["heads.semantic"] == {"classifier": 44_461, "implicit": IMPLICIT["semantic"]}
    assert sum(parameters["heads.captions"].values()) == 33_371_962


def test_the_sum_is_between_79_and_80_million(parameters):
    total = sum(sum(parts.values()) for parts in parameters.values())
    assert total == 79_344_855 + sum(IMPLICIT.values()) == 79_346_964
    assert 79e6 < total < 80e6


def one_step(settings, tasks):
    """{(source, view): size of its images}, after one batch of each has gone through the model."""
    sources = build.build_sources(settings, tasks)
    model = build.build_model(settings, tasks)
    found = {}
    for source in sources.values():
        for view, batch in next(source.loader(0, 1, 0)).items():
            found[source.name, view] = list(batch.images.shape[1:3])
            terms = model(batch.images, targets=batch.targets)
            assert all(np.isfinite(float(value)) for of_task in terms.values() for value in of_task.values())
            assert set(terms) == set(batch.targets)
    return found


def test_the_demo_config_learns_three_tasks_in_two_views_of_the_drawn_streets(tmp_path):
    few = dict.fromkeys(("seg_images", "det_images", "cls_images"), (4, 1, 1))
    small = {"size": (64, 112), "det_size": (64, 64), "cls_size": (32, 48)}
    make_dataset(tmp_path, DemoRequest(**small, **few, sign_classes=2, vehicle_classes=2))
    settings = build.load(
        str(CONFIGS / "yolor_demo.yml"), [f"data_root={tmp_path}", "tasks.captions.classes.min_count=1"]
    ).settings
    tasks = build.build_tasks(settings)
    assert tasks["instances"].classes.names == OBJECT_CLASSES
    assert one_step(settings, tasks) == {("street", "strong"): [192, 320], ("street", "weak"): [192, 320]}
    assert build.build_eval_sets(settings, tasks)["val"].tasks == ("instances", "semantic", "captions")


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the coco_mini data set: set PPMTL_COCO_MINI to its folder")
def test_the_config_of_real_photographs_names_the_groups_of_its_data_and_uses_all_labels():
    settings = build.load(str(CONFIGS / "yolor_mini.yml"), [f"data_root={COCO_MINI}"]).settings
    groups = {}
    for entry in json.loads((COCO_MINI / "annotations/semantic_classes.json").read_text())["classes"]:
        groups.setdefault(entry["supercategory"], []).append(entry["index"])
    assert list(settings.tasks["semantic"].classes.names) == sorted(groups)
    written = settings.sources["semantic"].dataset.keywords["values"]
    assert {name: sorted(numbers) for name, numbers in written.items()} == groups
    tasks = build.build_tasks(settings)
    assert len(tasks["captions"].classes) == 2371
    shapes = one_step(settings, tasks)
    assert set(shapes) == {("coco", "strong"), ("coco", "weak"), ("semantic", ""), ("flickr", "")}
    described = build.build_sources(settings, tasks)["coco"].reader.describe()
    assert "1442 images with labels for instances (1207), semantic (108), captions (1286)" in described
