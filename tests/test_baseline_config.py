"""configs/allinone_baseline.yml is the organisers' recipe: its sizes add up to theirs, and their mistakes are on."""

from pathlib import Path

import paddle
import pytest

from ppmtl import build
from ppmtl.studies.cost import count_parameters

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
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
    assert {name: 8 * source.batch_size for name, source in settings.sources.items()} == {"seg": 16, "cls": 128, "det": 16}
    assert settings.train.epochs * settings.train.steps_per_epoch == 52_440
