"""A transformer decoder for sentences, pre-norm, that can keep its keys and values; and the optional encoder before it.

Source: the decoder of CATR, reference/yolor_mtl.md section 1.7; equal to golden yolor/caption_decoder.json.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.base.layer_helper import LayerHelper

from ppmtl.models.base import Side

_TEMPERATURE, _TINY = 10000.0, 1e-6
_FAR = -1e9  # added to a score, it leaves no weight


class Attention(nn.Layer):
    """Attention of several heads. Its keys and values are made apart, so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def kept(self, keys: paddle.Tensor, values: paddle.Tensor) -> paddle.Tensor:
        """(2, R, heads, S, width / heads) of two (R, S, width)."""
        return paddle.stack([self._split(self.key(keys)), self._split(self.value(values))])

    def forward(
        self, queries: paddle.Tensor, kept: paddle.Tensor, blocked: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        """(R, L, width) what each of (R, L, width) finds; ``blocked`` (L, S) is added to the scores."""
        # The operator @: paddle.matmul of Paddle 3.2.2 takes only the new graph format's variables
        scores = (self._split(self.query(queries)) * self.scale) @ kept[0].transpose([0, 1, 3, 2])
        if blocked is not None:
            scores = scores + blocked
        found = F.softmax(scores, axis=-1) @ kept[1]
        return self.output(found.transpose([0, 2, 1, 3]).flatten(2))

    def _split(self, x: paddle.Tensor) -> paddle.Tensor:
        return x.reshape([0, 0, self.heads, x.shape[2] // self.heads]).transpose([0, 2, 1, 3])


class _FeedForward(nn.Layer):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class DecoderLayer(nn.Layer):
    """Self-attention, attention to the image, feed-forward, each on the normalised input and added to it."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention, self.image_attention = Attention(width, heads), Attention(width, heads)
        self.feed_forward = _FeedForward(width, hidden, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: paddle.Tensor, position: paddle.Tensor, state: paddle.Tensor | None, memory: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(R, L, width) and the keys and values of all tokens so far.

        Args:
            x: (R, L, width).
            position: (L, width), added to queries and keys, not to values.
            state: keys and values of the tokens before, for L = 1; None at the beginning, where later tokens are hidden.
            memory: those of the images, (2, B, heads, S, width / heads); rows R / B of an image follow each other.
        """
        y = self.norm1(x)
        kept = self.self_attention.kept(y + position, y)
        blocked = None
        if state is None:
            place = paddle.arange(x.shape[1], dtype="int64")
            blocked = (place.unsqueeze(0) > place.unsqueeze(1)).astype(x.dtype) * _FAR
        else:
            kept = paddle.concat([state, kept], axis=3)
        x = x + self.dropout(self.self_attention(y + position, kept, blocked))
        # The rows of one image are queries of one product: its keys and values need no copies
        y = (self.norm2(x) + position).reshape([memory.shape[1], -1, x.shape[2]])
        x = x + self.dropout(self.image_attention(y, memory)).reshape([-1, *x.shape[1:]])
        return x + self.dropout(self.feed_forward(self.norm3(x))), kept


class Decoder(nn.Layer):
    """Layers and a norm after the last."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.LayerList([DecoderLayer(width, heads, hidden, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: paddle.Tensor,
        position: paddle.Tensor,
        states: Sequence[paddle.Tensor] | paddle.Tensor | None,
        memory: Sequence[paddle.Tensor] | paddle.Tensor,
    ) -> tuple[paddle.Tensor, list[paddle.Tensor]]:
        """(R, L, width) and every layer's keys and values; ``states`` and ``memory`` hold one entry per layer."""
        kept = []
        for i, layer in enumerate(self.layers):
            x, entry = layer(x, position, None if states is None else states[i], memory[i])
            kept.append(entry)
        return self.norm(x), kept


class _EncoderLayer(nn.Layer):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(width, heads), _FeedForward(width, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor, position: paddle.Tensor) -> paddle.Tensor:
        y = self.norm1(x)
        x = x + self.dropout(self.attention(y + position, self.attention.kept(y + position, y)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Encoder(nn.Layer):
    """Self-attention among the cells of the image; without layers the identity."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.LayerList([_EncoderLayer(width, heads, hidden, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width) if layers else nn.Identity()

    def forward(self, x: paddle.Tensor, position: paddle.Tensor) -> paddle.Tensor:
        """(B, S, width) of the same; ``position`` is (S, width)."""
        for layer in self.layers:
            x = layer(x, position)
        return self.norm(x)


class WordEmbedding(nn.Layer):
    """Word plus position, normalised. The same positions are added again in every layer of the decoder, as in CATR."""

    def __init__(self, words: int, length: int, width: int, dropout: float) -> None:
        super().__init__()
        small = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, 0.02))
        self.words = nn.Embedding(words, width, weight_attr=small)
        self.positions = nn.Embedding(length, width, weight_attr=small)
        self.norm = nn.LayerNorm(width, epsilon=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: paddle.Tensor, start: Side) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(R, L, width) of (R, L) int64 tokens from place ``start`` on, and the positions (L, width)."""
        position = self.positions(paddle.arange(tokens.shape[1], dtype="int64") + start)
        return self.dropout(self.norm(self.words(tokens) + position)), position


class SinePositions(nn.Layer):
    """Sines and cosines of the row, then of the column, of every cell; both run from 0 to 2 pi over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        exponent = 2 * (np.arange(half) // 2) / half
        frequency = (2 * np.pi / _TEMPERATURE**exponent).astype(np.float32)
        self.register_buffer("frequency", paddle.to_tensor(frequency), persistable=False)

    def forward(self, height: Side, width: Side) -> paddle.Tensor:
        """(height * width, channels) float32, row by row."""
        rows, columns = self._axis(height).unsqueeze(1), self._axis(width).unsqueeze(0)
        grid = paddle.concat([rows + columns * 0, columns + rows * 0], axis=2)
        return grid.flatten(0, 1)

    def _axis(self, length: Side) -> paddle.Tensor:
        place = paddle.arange(length, dtype="int64").astype("float32") + 1
        share = place / (place[-1:] + _TINY)  # the last place is the length, as a tensor also in an exported graph
        angle = share.unsqueeze(1) * self.frequency
        return paddle.stack([_wave("sin", angle[:, 0::2]), _wave("cos", angle[:, 1::2])], axis=2).flatten(1)


def _wave(name: str, x: paddle.Tensor) -> paddle.Tensor:
    """sin or cos, also in the old graph format: Paddle 3.2.2 binds both names to the new format's operators."""
    if paddle.in_dynamic_mode() or paddle.framework.in_pir_mode():
        return getattr(paddle, name)(x)
    helper = LayerHelper(name)
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=name, inputs={"X": [x]}, outputs={"Out": [out]})
    return out
