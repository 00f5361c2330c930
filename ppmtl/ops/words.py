"""Sentences as words and as numbers of a vocabulary, and back. One normalisation for vocabulary, training and scoring."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")  # a vocabulary of our own begins with them; BERT's has [CLS] and [SEP]

# As the COCO scorer's tokeniser (Stanford's PTB) does it, as far as captions need it: inner hyphens join ("t-shirt"), a final
# "'s" is a word of its own, everything else that is neither letter nor digit separates words and is left out.
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|(?<=\w)'s\b")


def words(text: str) -> list[str]:
    """The words of a sentence: lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def numbered(text: str, index: Mapping[str, int]) -> list[int]:
    """The numbers of the pieces of a sentence, without begin and end.

    A word that is no piece itself is cut from the left into the longest ones, which are written "##ing" inside a word
    (WordPiece). A word that cannot be cut so is "[UNK]"; with a vocabulary of whole words that is every unknown one.

    Args:
        text: any sentence.
        index: {piece: number}; must have "[UNK]".

    Source: Devlin et al. 2019; BERT's published vocabularies are read as they are.
    """
    return [number for word in words(text) for number in _pieces(word, index)]


def _pieces(word: str, index: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in index), None)
        if end is None:
            return [index["[UNK]"]]
        found.append(index[mark + word[start:end]])
        start = end
    return found


def sentence(pieces: Sequence[str]) -> str:
    """The text of pieces: "##" and "'s" go to the word before; special pieces other than "[UNK]" are left out."""
    text = ""
    for piece in pieces:
        if piece.startswith("[") and piece.endswith("]") and piece != "[UNK]":
            continue
        joined = piece.startswith(("##", "'s"))
        text += piece.removeprefix("##") if joined else f" {piece}"
    return text.strip()
