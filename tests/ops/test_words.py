"""Sentences become words and numbers, and come back."""

import numpy as np
import pytest

from ppmtl.ops.words import numbered, sentence, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man's T-shirt, on a table.", ["a", "man", "'s", "t-shirt", "on", "a", "table"]),
        ('Two dogs\' bowls -- "empty"!', ["two", "dogs", "bowls", "empty"]),
        ("A caf\u00e9 in M\u00fcnchen; 3 x 4_5", ["a", "caf\u00e9", "in", "m\u00fcnchen", "3", "x", "4", "5"]),
        ("the boy\u2019s bike", ["the", "boy", "'s", "bike"]),
        (" . ", []),
    ],
)
def test_words_are_lower_case_without_punctuation(text, expected):
    assert words(text) == expected


INDEX = {
    piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "a", "dog", "##s", "run", "##ning", "'s", "##n"])
}


def test_a_word_is_cut_into_the_longest_pieces_and_an_unknown_one_is_one_number():
    assert numbered("A dogs running.", INDEX) == [2, 3, 4, 5, 6]
    assert numbered("cat dogx dog's", INDEX) == [1, 1, 3, 7]


def test_pieces_come_back_as_the_sentence_without_special_tokens():
    names = list(INDEX)
    text = sentence([names[n] for n in numbered("a dog's running dogs cat", INDEX)])
    assert text == "a dog's running dogs [UNK]"
    assert sentence(["[BOS]", "a", "[PAD]", "[SEP]"]) == "a"


def test_words_of_a_sentence_survive_numbers_and_back():
    rng = np.random.default_rng(0)
    vocabulary = ["a", "t-shirt", "man", "'s", "blue", "2"]
    index = {"[UNK]": 0, **{word: number for number, word in enumerate(vocabulary, 1)}}
    for _ in range(30):
        text = " and ".join(sentence(["man", vocabulary[i]]) for i in rng.integers(0, 6, 8)).replace("and", "blue")
        assert words(sentence([["[UNK]", *vocabulary][n] for n in numbered(text, index)])) == words(text)
