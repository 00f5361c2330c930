"""configs/allinone_baseline.yml is the organisers' recipe: its sizes add up to theirs, and their mistakes are on."""

import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from demo_data import DemoRequest, make_dataset
from ppmtl import build
from ppmtl.studies.cost import count_parameters

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
MINI = Path(os.environ.get("PPMTL_TRAFFIC_MINI", ROOT.parent / "shared" / "data" / "traffic_mini"))
UNUSED_BRANCH = 2 * (768 * 768 * 4 + 768) + 2 * 768  # fpn1: two transposed convolutions and a norm


@pytest.fixture(scope="module")
def settings():
    return build.load(str(CONFIGS / "allinone_baseline.yml"), ["tasks.det.classes.names=null"]).settings


def test_every_part_has_the_organisers_number_of_parameters(settings):
    paddle.seed(0)
    counted = count_parameters(build.build_model(settings, build.build_tasks(settings)))
    total = {part: sum(layers.values()) for part, layers in counted.items()}
    assert total["backbone"] + UNUSED_BRANCH == 92_812_800
    assert total["heads.cls"] == 370_756
    assert total["heads.det"] == 19_273_815
    assert counted["heads.seg"] == {"norm": 1_536, "convs": 3_542_016, "classifier": 4_883, "aux": 1_776_659}


def test_their_mistakes_are_on(settings):
    crop = next(made for made in (make() for make in settings.sources["seg"].transforms) if hasattr(made, "size"))
    assert crop.size == (1280, 720)  # portrait crops of landscape images
    assert settings.model.heads["seg"].part.keywords["shared_aux"] is True
    assert settings.model.own_normalisation() == {"seg": ((0.5,) * 3, (0.5,) * 3)}
    det = build.build_tasks(settings)["det"]
    assert (det.input_size, det.letterbox, det.nms_iou, det.max_detections) == ((608, 608), False, None, 50)
    assert settings.optimizer.decay_1d
    assert settings.optimizer.clip_norm == 0.1


def test_the_schedule_is_theirs_on_eight_cards(settings):
    assert {name: 8 * source.batch_size for name, source in settings.sources.items()} == {
        "seg": 16,
        "cls": 128,
        "det": 16,
    }
    assert settings.train.epochs * settings.train.steps_per_epoch == 52_440


def one_step(settings):
    """{source: size of its images}, after a batch of each has gone through the model and back."""
    tasks = build.build_tasks(settings)
    model, found = build.build_model(settings, tasks), {}
    for source in build.build_sources(settings, tasks).values():
        (batch,) = next(source.loader(0, 1, 0)).values()
        found[source.name] = list(batch.images.shape[1:3])
        terms = model(batch.images, targets=batch.targets)
        loss = sum(value for of_task in terms.values() for value in of_task.values())
        assert np.isfinite(float(loss))
        loss.backward()
    return found


def test_the_demo_config_trains_three_tasks_on_drawn_streets(tmp_path):
    few = dict.fromkeys(("seg_images", "det_images", "cls_images"), (4, 1, 1))
    small = {"size": (64, 112), "det_size": (64, 64), "cls_size": (32, 48)}
    make_dataset(tmp_path, DemoRequest(**small, **few, sign_classes=2, vehicle_classes=2))
    changed = [f"data_root={tmp_path}", "tasks.cls.classes.count=2", "tasks.det.classes.count=2"]
    settings = build.load(str(CONFIGS / "baseline_demo.yml"), changed).settings
    assert one_step(settings) == {"seg": [128, 192], "cls": [96, 128], "det": [320, 320]}
    assert settings.sources["det"].every == 1


@pytest.mark.skipif(not MINI.is_dir(), reason="the traffic_mini data set: set PPMTL_TRAFFIC_MINI to its folder")
def test_the_mini_config_takes_the_same_photographs_as_the_other_system():
    runs = [
        build.load(str(CONFIGS / f"{name}.yml"), [f"data_root={MINI}"]) for name in ("baseline_mini", "allinone_custom")
    ]
    (ours, theirs) = [
        {name: (source.dataset.func, source.dataset.keywords) for name, source in run.settings.sources.items()}
        | {f"{name} val": of_set.part.keywords for name, of_set in run.settings.eval.datasets.items()}
        for run in runs
    ]
    assert ours == theirs
    assert one_step(runs[0].settings) == {"seg": [192, 256], "cls": [128, 128], "det": [288, 480]}
