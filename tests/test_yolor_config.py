"""configs/yolor_coco.yml: the full-size model adds up to what the paper's family is known by, part by part."""

from pathlib import Path

import paddle
import pytest

from ppmtl import build
from ppmtl.studies.cost import count_parameters

CONFIG = str(Path(__file__).resolve().parents[1] / "configs" / "yolor_coco.yml")
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
