"""BLEU-1 to 4 and CIDEr-D of sentences that are lists of words, equal to pycocoevalcap 1.2 (which needs Java to be used)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Words = Sequence[str]
_LONGEST = 4  # n-grams of 1 to 4 words, in both measures
_SIGMA = 6.0  # of CIDEr-D's penalty on the difference in length
# pycocoevalcap's guards against division by zero; they decide what a sentence without any hit scores
_TINY, _SMALL = 1e-15, 1e-9


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[float, float, float, float]:
    """BLEU-1 to 4 of a data set, 0..1: counts and lengths are summed over all images before anything is divided.

    Args:
        candidates: one sentence per image.
        references: the true sentences of each image, at least one.

    Source: Papineni et al. 2002; the reference length is the one closest to the candidate's, of two the shorter.
    """
    hits, guesses = np.zeros(_LONGEST), np.zeros(_LONGEST)
    length = reference_length = 0
    for candidate, of_image in zip(candidates, references, strict=True):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in of_image:
            most |= _ngrams(reference)
        for ngram, count in (_ngrams(candidate) & most).items():
            hits[len(ngram) - 1] += count
        guesses += np.maximum(0, len(candidate) - np.arange(_LONGEST))
        length += len(candidate)
        reference_length += min((abs(len(r) - len(candidate)), len(r)) for r in of_image)[1]
    precision = np.cumprod((hits + _TINY) / (guesses + _SMALL)) ** (1 / np.arange(1, _LONGEST + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    one, two, three, four = (precision * brevity).tolist()
    return one, two, three, four


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of every image, 0..10; the data set's is their mean.

    Words that describe few images weigh more (tf-idf over the references of all images), so a data set of one image scores 0.

    Args:
        candidates: one sentence per image.
        references: the true sentences of each image, at least one.

    Source: Vedantam et al. 2015, sec. 5 (CIDEr-D), with n = 1 to 4 and sigma = 6.
    """
    counts = [[_ngrams(reference) for reference in of_image] for of_image in references]
    images_with = Counter(ngram for of_image in counts for ngram in set().union(*of_image))
    scores = []
    for candidate, of_image in zip(candidates, counts, strict=True):
        found = _Weighted(_ngrams(candidate), images_with, len(references))
        every = [found.likeness(_Weighted(reference, images_with, len(references))) for reference in of_image]
        scores.append(10 * float(np.mean(every)))
    return scores


class _Weighted:
    """The tf-idf vectors of a sentence, one per length of n-gram."""

    def __init__(self, counts: Counter[tuple[str, ...]], images_with: Counter[tuple[str, ...]], images: int) -> None:
        self.weights = {
            ngram: count * (math.log(images) - math.log(max(1, images_with[ngram]))) for ngram, count in counts.items()
        }
        self.norms = np.zeros(_LONGEST)
        for ngram, weight in self.weights.items():
            self.norms[len(ngram) - 1] += weight**2
        self.norms = np.sqrt(self.norms)
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)  # pairs, as there

    def likeness(self, reference: _Weighted) -> float:
        """The mean over n of the cosines, what occurs too often clipped, times the penalty on the length."""
        dots = np.zeros(_LONGEST)
        for ngram, weight in self.weights.items():
            other = reference.weights.get(ngram, 0.0)
            dots[len(ngram) - 1] += min(weight, other) * other
        norms = self.norms * reference.norms
        cosines = np.divide(dots, norms, out=np.zeros(_LONGEST), where=norms > 0)
        return float(cosines.mean()) * math.exp(-((self.length - reference.length) ** 2) / (2 * _SIGMA**2))


def _ngrams(words: Words) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for n in range(1, _LONGEST + 1) for i in range(len(words) - n + 1))
