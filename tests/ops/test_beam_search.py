"""Beam search on a hand-made language: greedy falls for the first word, a wider beam does not; ends, padding, batches."""

import itertools

import numpy as np
import pytest

from ppmtl.ops.beam_search import beam_search

PAD, END = 0, 1
# P(next | last) over [PAD, END, a, b]; "a" looks best first, but what follows is unsure; "b" ends at once
FIRST = np.log([[1e-9, 0.1, 0.5, 0.4]])
AFTER = np.log([[0.25] * 4, [0.25] * 4, [1e-9, 0.3, 0.4, 0.3], [1e-9, 0.98, 0.01, 0.01]])


def step(tokens, rows, state):
    """The state is every row's history, so a wrong order of rows shows."""
    histories = [(*state[row], int(token)) for row, token in zip(rows, tokens, strict=True)]
    return AFTER[tokens], histories


def search(beams, length, first=FIRST):
    return beam_search(first, [() for _ in first], step, beam_size=beams, end=END, pad=PAD, length=length)


def test_greedy_takes_the_best_next_word_every_time():
    found, scores = search(1, 4)
    assert found.tolist() == [[[2, 2, 2, 2]]]
    assert scores[0, 0] == pytest.approx(np.log(0.5 * 0.4**3))


def test_a_wider_beam_finds_the_better_sentence_and_lists_all_best_first():
    found, scores = search(3, 4)
    assert found[0, 0].tolist() == [3, END, PAD, PAD]
    assert scores[0, 0] == pytest.approx(np.log(0.4 * 0.98))
    assert (np.diff(scores[0]) <= 0).all()


def test_a_beam_as_wide_as_the_language_finds_the_best_of_all_sentences():
    def score(sentence: tuple[int, ...]) -> float:
        return FIRST[0, sentence[0]] + sum(AFTER[a, b] for a, b in itertools.pairwise(sentence))

    unended = list(itertools.product((0, 2, 3), repeat=3))
    ended = [(*start, END) for length in (0, 1, 2) for start in itertools.product((0, 2, 3), repeat=length)]
    ranked = sorted(unended + ended, key=score, reverse=True)
    found, scores = search(4, 3)
    for sequence, value, expected in zip(found[0].tolist(), scores[0], ranked[:2], strict=False):
        assert sequence == [*expected, *[PAD] * (3 - len(expected))]
        assert value == pytest.approx(score(expected))


def test_images_do_not_see_each_other_and_rows_follow_their_own_history():
    first = np.log([[1e-9, 0.1, 0.5, 0.4], [1e-9, 0.97, 0.02, 0.01], [1e-9, 0.1, 0.1, 0.8]])
    together, scores = search(2, 4, first)
    for image in range(3):
        alone, of_alone = search(2, 4, first[image : image + 1])
        assert together[image].tolist() == alone[0].tolist()
        np.testing.assert_allclose(scores[image], of_alone[0])

    seen = []

    def watched(tokens, rows, state):
        log_probs, histories = step(tokens, rows, state)
        seen.append(histories)
        return log_probs, histories

    found, _ = beam_search(first, [() for _ in first], watched, beam_size=2, end=END, pad=PAD, length=4)
    last = [tuple(sequence[:3]) for image in found.tolist() for sequence in image]
    assert {history for history in last if END not in history} <= set(seen[-1])


def test_nothing_is_asked_after_every_sentence_has_ended_or_for_one_word():
    def never(*_):
        raise AssertionError("asked for another word")

    sure = np.log([[1e-9, 1.0, 1e-9, 1e-9]])
    found, _ = beam_search(sure, None, never, beam_size=1, end=END, pad=PAD, length=5)
    assert found.tolist() == [[[END, PAD, PAD, PAD, PAD]]]
    assert beam_search(FIRST, None, never, beam_size=2, end=END, pad=PAD, length=1)[0].tolist() == [[[2], [3]]]


def test_of_equally_good_words_the_first_wins():
    equal = np.zeros((1, 6))
    assert beam_search(equal, None, None, beam_size=1, end=END, pad=5, length=1)[0].tolist() == [[[0]]]


@pytest.mark.parametrize(("beams", "best"), [(1, [2, 2, 2]), (3, [2, END, PAD])])
def test_the_unknown_word_is_never_said_neither_first_nor_later(beams, best):
    a, b = 2, 3
    without_a, scores = beam_search(FIRST, [()], step, beam_size=beams, end=END, pad=PAD, length=3, unknown=a)
    assert without_a[0, 0].tolist() == [b, END, PAD]
    assert scores[0, 0] == pytest.approx(np.log(0.4 * 0.98))  # what is left keeps its probability
    without_b, _ = beam_search(FIRST, [()], step, beam_size=beams, end=END, pad=PAD, length=3, unknown=b)
    assert b not in without_b
    assert without_b[0, 0].tolist() == best
