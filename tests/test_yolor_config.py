"""configs/yolor_coco.yml: the full-size model adds up to what the paper's family is known by, part by part."""

from pathlib import Path

import paddle
import pytest

from ppmtl import build
from ppmtl.studies.cost import count_parameters
from ppmtl.studies.model_info import counted_tasks

CONFIG = str(Path(__file__).resolve().parents[1] / "configs" / "yolor_coco.yml")
IMPLICIT = {"instances": 1_680, "semantic": 429}


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict[str, int]]:
    settings = build.load(CONFIG).settings
    paddle.seed(0)
    return count_parameters(build.build_model(settings, counted_tasks(settings)))


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


def test_a_vocabulary_that_is_only_counted_has_its_special_tokens_where_the_head_looks_for_them():
    settings = build.load(CONFIG).settings
    targets = counted_tasks(settings)["captions"].example_targets(1, (64, 64))["tokens"]
    words = settings.model.heads["captions"].part.keywords
    assert (targets[0, 0, 0], targets[0, 0, -1]) == (words["bos"], words["eos"]) == (101, 102)
