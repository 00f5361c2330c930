"""A sentence about the image: a transformer decoder that looks at one feature map, without an encoder of its own.

Source: reference/yolor_mtl.md section 1.7. With the defaults and 30,522 word pieces it has CATR's 33,371,962 parameters;
logits, loss and both searches equal golden yolor/caption_decoder.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Interval
from paddle import nn

from ppmtl.models.base import Side, StepwiseHead, of_strides
from ppmtl.models.heads._caption_decoder import Decoder, Encoder, SinePositions, WordEmbedding
from ppmtl.ops.beam_search import best_sequences
from ppmtl.structures import FeatureSpec

PAD = 0
Count = Annotated[int, Ge(1)]


class Captions(StepwiseHead):
    """Predicts the next word from those before it and the cells of a feature map.

    Args:
        reads: the feature; None = the backbone's only one of stride 8.
        width: of the decoder [channels]. A feature of another width is brought to it by a 1x1 convolution.
        heads: of every attention [heads].
        layers: of the decoder [layers].
        feed_forward: width inside a layer [channels].
        hidden: width of the two layers before the words' scores [channels].
        encoder_layers: [layers] of self-attention among the cells before the decoder looks at them. The paper has none;
            CATR has 6.
        dropout: [probability] after embeddings, attentions and inside feed-forward layers; the weights of attention keep
            theirs.
        max_length: [tokens] of a sentence at most, begin and end included.
        beam_size: [sentences] followed at a time in evaluation; 1 = greedy.
        bos, eos: the tokens that begin and end a sentence [token numbers]; the task knows them. Padding is 0.
        unknown: the token of words that are not in the vocabulary [token number], which is never said; the task knows it.
            -1 = every token may be said.

    Raises:
        ValueError: if ``width`` is no multiple of 4 and of ``heads``, or a token or the beam is larger than the vocabulary.
    """

    task_type = "captions"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: str | None = None,
        width: Count = 256,
        heads: Count = 8,
        layers: Count = 6,
        feed_forward: Count = 2048,
        hidden: Count = 512,
        encoder_layers: Annotated[int, Ge(0)] = 0,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1,
        max_length: Annotated[int, Ge(3)] = 128,
        beam_size: Count = 1,
        bos: Count = 2,
        eos: Count = 3,
        unknown: Annotated[int, Ge(-1)] = -1,
    ) -> None:
        super().__init__()
        if width % 4 or width % heads:
            raise ValueError(f"Captions: width must be a multiple of 4 and of heads, got {width} and {heads} heads")
        if max(bos, eos, unknown, beam_size - 1) >= num_classes:
            raise ValueError(
                f"Captions: bos, eos, unknown and beam_size must fit the vocabulary of {num_classes} tokens, got {bos}, {eos}, "
                f"{unknown} and {beam_size}"
            )
        self.reads = self.choose(in_specs, None if reads is None else (reads,), default=of_strides(in_specs, (8,)))
        if not self.reads:
            raise ValueError(f"Captions: the backbone has no feature of stride 8 ({', '.join(in_specs)}); set reads")
        channels = in_specs[self.reads[0]].channels
        self.bos, self.max_length = bos, max_length
        self.search = {"beam_size": beam_size, "end": eos, "pad": PAD, "length": max_length - 1, "unknown": unknown}
        self.project = nn.Identity() if channels == width else nn.Conv2D(channels, width, 1)
        self.image_positions = SinePositions(width)
        self.encoder = Encoder(encoder_layers, width, heads, feed_forward, dropout)
        self.embedding = WordEmbedding(num_classes, max_length, width, dropout)
        self.decoder = Decoder(layers, width, heads, feed_forward, dropout)
        self.words = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],  # noqa: ARG002
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The loss term when there are targets ({"tokens": (B, K, L) int64}), else the best sentence of every image.

        Returns:
            "tokens" (B, max_length - 1) float32, whole numbers without the begin, the end and padding after it, and
            "log_probs" (B,) float32, the mean over the sentence's tokens, its end included.
        """
        if targets is not None:
            return {"loss_words": self._loss(features, targets["tokens"])}
        if not features[self.reads[0]].shape[0]:  # studies/cost.py counts with empty batches
            return {"tokens": paddle.zeros([0, self.max_length - 1]), "log_probs": paddle.zeros([0])}
        log_probs, state, memory = self.begin(features)

        def step(tokens: np.ndarray, rows: np.ndarray, state: paddle.Tensor) -> tuple[np.ndarray, paddle.Tensor]:
            following, state = self.step(paddle.to_tensor(tokens), paddle.to_tensor(rows), state, memory)
            return following.numpy(), state

        found = best_sequences(log_probs.numpy(), state, step, **self.search)
        return {name: paddle.to_tensor(array) for name, array in found.items()}

    def begin(self, features: Mapping[str, paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """(B, V) log probabilities of the first word, the keys and values of the begin, and those of the images."""
        memory = paddle.stack(self._memory(features))
        tokens = paddle.full([memory.shape[2], 1], self.bos, "int64")
        x, kept = self.decoder(*self.embedding(tokens, 0), None, memory)
        return self._log_probs(x), paddle.stack(kept), memory

    def step(
        self, tokens: paddle.Tensor, rows: paddle.Tensor, state: paddle.Tensor, memory: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(R, V) log probabilities of the word after ``tokens``, and the new state; see :class:`StepwiseHead`."""
        state = paddle.index_select(state, rows, axis=2)
        x, kept = self.decoder(*self.embedding(tokens.unsqueeze(1), state.shape[4]), state, memory)
        return self._log_probs(x), paddle.stack(kept)

    def _memory(self, features: Mapping[str, paddle.Tensor]) -> list[paddle.Tensor]:
        """Keys and values of the cells for every layer, (2, B, heads, S, width / heads) each."""
        x = self.project(features[self.reads[0]])
        position = self.image_positions(x.shape[2], x.shape[3])
        cells = self.encoder(x.flatten(2).transpose([0, 2, 1]), position)
        return [layer.image_attention.kept(cells + position, cells) for layer in self.decoder.layers]

    def _log_probs(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.log_softmax(self.words(x[:, 0]).astype("float32"), axis=1)

    def _loss(self, features: Mapping[str, paddle.Tensor], tokens: paddle.Tensor) -> paddle.Tensor:
        """The mean cross entropy of all words but padding, 0-D; only their scores are computed."""
        tokens = tokens.flatten(0, 1)
        self._check(tokens)
        x, _ = self.decoder(*self.embedding(tokens[:, :-1], 0), None, self._memory(features))
        following = tokens[:, 1:].flatten()
        counted = np.flatnonzero(following.numpy() != PAD)
        places = paddle.to_tensor(
            counted if len(counted) else np.zeros(1, np.int64)
        )  # one word that counts 0, for a graph
        scores = self.words(paddle.gather(x.flatten(0, 1), places)).astype("float32")
        return F.cross_entropy(scores, paddle.gather(following, places)) * float(len(counted) > 0)

    def _check(self, tokens: paddle.Tensor) -> None:
        begins = np.unique(tokens[:, 0].numpy())
        if tokens.shape[1] > self.max_length + 1 or not set(begins.tolist()) <= {PAD, self.bos}:
            raise ValueError(
                f"Captions: the head takes sentences of at most {self.max_length} tokens that begin with token {self.bos}; "
                f"got {tokens.shape[1]} tokens and beginnings {begins.tolist()}: set the head's max_length to the task's, and "
                "leave bos and eos to it"
            )
