"""Greedy and beam search over sequences; numpy, so that the training graph and every engine find the same sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

SEQUENCE_ARRAYS = ("log_probs", "tokens")  # the names in what best_sequences returns
S = TypeVar("S")  # what a decoder keeps of the tokens so far; only handed on here


def beam_search(
    log_probs: np.ndarray,
    state: S,
    step: Callable[[np.ndarray, np.ndarray, S], tuple[np.ndarray, S]],
    *,
    beam_size: int,
    end: int,
    pad: int,
    length: int,
    unknown: int = -1,
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable sequences found, best first; with one beam this is greedy search.

    A sequence scores the sum of its log probabilities, without regard to its length. One that has ended keeps its score and
    its place among the best.

    Args:
        log_probs: (B, V) of the first token.
        state: the decoder's, one row per image.
        step: (tokens (R,) int64, rows (R,) int64, state) -> (log_probs (R, V) of the next token, state). Row r continues
            row ``rows[r]`` of the state before with ``tokens[r]``; rows of one image follow each other.
        beam_size: sequences kept per image, at most V.
        end: the token that ends a sequence.
        pad: what follows it.
        length: tokens at most.
        unknown: the token that is never chosen, because it says nothing; -1 = every token may be.

    Returns:
        (B, beam_size, length) int64, and their scores (B, beam_size) float64.
    """
    batch, words = log_probs.shape
    found = np.full((batch, beam_size, length), pad, np.int64)
    scores, chosen = _best(_allowed(log_probs, unknown), beam_size)
    found[:, :, 0], before = chosen, np.zeros_like(chosen)
    ended, beams = chosen == end, 1
    image = np.arange(batch)[:, None]
    for place in range(1, length):
        if ended.all():
            break
        rows = (image * beams + before).reshape(-1)
        following, state = step(found[:, :, place - 1].reshape(-1), rows, state)
        beams = beam_size
        continued = scores[:, :, None] + _allowed(following, unknown).reshape(batch, beam_size, words)
        continued[ended] = -np.inf
        continued[..., pad] = np.where(ended, scores, continued[..., pad])
        scores, chosen = _best(continued.reshape(batch, -1), beam_size)
        before, token = chosen // words, chosen % words
        found, ended = found[image, before], ended[image, before]
        found[:, :, place] = token
        ended |= token == end
    return found, scores


def best_sequences(
    log_probs: np.ndarray, state: S, step: Callable[[np.ndarray, np.ndarray, S], tuple[np.ndarray, S]], **search: int
) -> dict[str, np.ndarray]:
    """The best sequence of every image, as the raw arrays of a head that answers in steps.

    Args:
        log_probs, state, step: as for :func:`beam_search`.
        search: its other keywords.

    Returns:
        "tokens" (B, length) float32, whole numbers with padding after the end; "log_probs" (B,) float32, the mean over the
        sequence's tokens, its end included.
    """
    found, scores = beam_search(log_probs, state, step, **search)
    best = found[:, 0]
    is_end = best == search["end"]
    lengths = np.where(is_end.any(axis=1), is_end.argmax(axis=1) + 1, best.shape[1])
    return {"tokens": best.astype(np.float32), "log_probs": (scores[:, 0] / lengths).astype(np.float32)}


def _allowed(log_probs: np.ndarray, unknown: int) -> np.ndarray:
    """(R, V) float64 of the same, without hope for the unknown token."""
    log_probs = log_probs.astype(np.float64)
    if unknown >= 0:
        log_probs[:, unknown] = -np.inf
    return log_probs


def _best(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest of every row, largest first, and where they stand; of equal ones the earlier."""
    if count == 1:
        places = values.argmax(axis=1)[:, None]
    else:
        places = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(-np.take_along_axis(values, places, axis=1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
    return np.take_along_axis(values, places, axis=1), places
