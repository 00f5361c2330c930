"""Targets, decoding, scores and refusals of captions."""

import numpy as np
import pytest

from ppmtl.data import labels
from ppmtl.data.transforms import HorizontalFlip, Letterbox, Mosaic
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.captions import Caption, Captions
from ppmtl.tasks.views import View

NAMES = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "dog", "cat", "runs", "'s")
VOCABULARY = ClassList(NAMES)


def sample(*texts, size=(20, 30)):
    return Sample("a.jpg", np.zeros((*size, 3), np.uint8), {"cap": labels.Captions(texts)} if texts else {})


def decoded(task, tokens, log_prob=0.0):
    raw = {"tokens": np.array([tokens], np.float32), "log_probs": np.array([log_prob], np.float32)}
    return task.decode(raw, 0, View((20, 30)).meta((20, 30), "x"), single=True)


def test_sentences_begin_and_end_and_are_padded_to_the_longest():
    targets = Captions("cap", VOCABULARY, captions_per_image=2).collate(
        [sample("A dog.", "a bird runs"), sample("cat")]
    )
    assert targets["tokens"].tolist() == [[[2, 4, 5, 3, 0], [2, 4, 1, 7, 3]], [[2, 6, 3, 0, 0], [0, 0, 0, 0, 0]]]


def test_images_without_captions_are_padding_only_also_where_nobody_has_one():
    assert Captions("cap", VOCABULARY).collate([sample(), sample()])["tokens"].tolist() == [[[0, 0]], [[0, 0]]]


def test_a_long_sentence_is_cut_and_then_has_no_end():
    tokens = Captions("cap", VOCABULARY, max_length=4).collate([sample("a dog runs a dog")])["tokens"]
    assert tokens.tolist() == [[[2, 4, 5, 7]]]


def test_a_bert_vocabulary_has_other_names_for_begin_and_end():
    vocabulary = ClassList(("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "##s"))
    task = Captions("cap", vocabulary)
    assert task.collate([sample("a dogs")])["tokens"].tolist() == [[[3, 5, 6, 7, 4]]]
    assert decoded(task, [5, 6, 7, 4, 0]).text == "a dogs"


@pytest.mark.parametrize("names", [("a", "b"), ("a", *NAMES), ("[PAD]", "[UNK]", "[BOS]", "a")])
def test_a_vocabulary_without_its_special_pieces_is_refused(names):
    with pytest.raises(
        ValueError, match=r"tasks\.cap\.classes: a vocabulary needs \[PAD\] as its first line.*captions to build"
    ):
        Captions("cap", ClassList(names))


def test_a_vocabulary_that_is_only_counted_serves_to_look_at_the_model():
    task = Captions("cap", ClassList(tuple(map(str, range(50)))))
    assert task.collate([sample("7 8")])["tokens"].tolist() == [[[2, 7, 8, 3]]]


def test_a_sentence_ends_at_its_end_and_its_score_is_the_mean_probability_of_a_token():
    found = decoded(Captions("cap", VOCABULARY), [4, 5, 8, 7, 3, 0, 6], np.log(0.25))
    assert (found.text, found.score) == ("a dog's runs", pytest.approx(0.25))


def test_of_several_views_the_surest_sentence_is_taken_and_none_is_mirrored():
    task = Captions("cap", VOCABULARY)
    merge = task.new_merge()
    for caption in (Caption("a", 0.3), Caption("b", 0.6), Caption("c", 0.5)):
        merge.add(caption)
    assert merge.result().text == "b"
    assert [view.flip for view in task.views((20, 30), augment=True)] == [False]


def test_scores_are_those_of_the_normalised_words():
    task = Captions("cap", VOCABULARY)
    meter = task.new_meter()
    meter.add(sample("A dog runs, on the 'grass'.", "x y"), Caption("a dog runs on the grass", 1))
    meter.add(sample("A cat sits."), Caption("a tree", 1))
    values = meter.result().values
    assert values["bleu1"] == pytest.approx(7 / 8 * np.exp(1 - 9 / 8))  # 7 of 8 words; 9 in the nearest references
    assert values["cider_d"] > 2
    assert np.isnan(task.new_meter().result().values["cider_d"])


def values_of(*pairs):
    meter = Captions("cap", VOCABULARY).new_meter()
    for truth, said in pairs:
        meter.add(sample(truth), Caption(said, 1))
    return meter.result().values


def test_what_ignores_the_images_is_scored_beside():
    dog, cat, bird, man = (
        "a dog runs on grass",
        "the cat sits in tree",
        "one bird flies over sea",
        "two men eat red fish",
    )
    seeing = values_of((dog, dog), (cat, dog), (bird, bird), (man, "x"))
    assert seeing["bleu4"] > seeing["bleu4_constant"] > 0.1
    assert seeing["bleu4_shuffled"] < 1e-3  # the third and fourth sentence stand at the first and second image
    assert seeing["cider_d"] > seeing["cider_d_constant"] > seeing["cider_d_shuffled"]
    # The constant is the best of those said often: not "x", but the one that is right for one image of four
    assert values_of((dog, "x"), (cat, "x"), (bird, bird), (man, "y"))["cider_d_constant"] == pytest.approx(10 / 4)


def test_transforms_that_make_sentences_untrue_are_refused_but_for_those_allowed():
    mirror, mix = HorizontalFlip(), Mosaic(size=(8, 8))
    task = Captions("cap", VOCABULARY)
    assert task.refuses(Letterbox(size=(8, 8))) == ""
    assert "HorizontalFlip turns left into right" in task.refuses(mirror)
    assert "Mosaic shows what the sentences do not speak of" in task.refuses(mix)
    assert "set tasks.cap.allow to [mix]" in task.refuses(mix)
    allowing = Captions("cap", VOCABULARY, allow=("mirror", "mix"))
    assert allowing.refuses(mirror) == allowing.refuses(mix) == ""


def test_a_long_sentence_is_drawn_in_lines_along_the_lower_edge():
    task, image = Captions("cap", VOCABULARY), np.full((120, 100, 3), 200, np.uint8)
    short, long = (task.draw(image.copy(), Caption(text, 1), 0.5) for text in ("a dog", "a dog runs " * 6))
    changed = [np.flatnonzero((drawn != 200).any(axis=(1, 2))) for drawn in (short, long)]
    assert changed[0].max() == changed[1].max() == 119
    assert changed[1].min() < changed[0].min() - 20
    assert (short.max(axis=2)[-4:, :] <= 255).all()
    assert changed[1].min() > 0
