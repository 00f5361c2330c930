"""BLEU and CIDEr-D equal pycocoevalcap's golden values."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppmtl.ops.caption_scores import bleu, cider_d

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/yolor/caption_metrics.json").read_text())
PARTS = {"all_12": slice(0, 12), "first_4_only": slice(0, 4), "group_7_alone_identical_caption": slice(7, 8)}


def part(name):
    groups = GOLDEN["groups"][PARTS[name]]
    return [c.split() for c, _ in groups], [[r.split() for r in references] for _, references in groups]


@pytest.mark.parametrize("name", PARTS)
def test_a_data_set_scores_as_with_pycocoevalcap(name):
    candidates, references = part(name)
    wanted = GOLDEN[name]["corpus"]
    assert bleu(candidates, references) == pytest.approx([wanted[f"bleu{n}"] for n in (1, 2, 3, 4)], abs=1e-6)
    scores = cider_d(candidates, references)
    assert float(np.mean(scores)) == pytest.approx(wanted["cider_d"], abs=1e-6)
    assert scores == pytest.approx(GOLDEN[name]["per_caption"]["cider_d"], abs=1e-6)


def test_single_captions_score_as_with_pycocoevalcap():
    wanted = GOLDEN["all_12"]["per_caption"]
    for index, (candidate, references) in enumerate(zip(*part("all_12"), strict=True)):
        expected = [wanted[f"bleu{n}"][index] for n in (1, 2, 3, 4)]
        assert bleu([candidate], [references]) == pytest.approx(expected, abs=1e-6)


def test_an_empty_candidate_scores_nothing_and_costs_the_others_nothing():
    assert bleu([[]], [[["a", "dog"]]])[3] < 1e-6
    assert cider_d([[], ["a", "cat"]], [[["a", "dog"]], [["a", "cat"]]])[0] == 0
