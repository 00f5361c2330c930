"""DINO, the detector of the challenge's baseline: a transformer whose queries become boxes, without suppression.

Source: Zhang et al., "DINO: DETR with Improved DeNoising Anchor Boxes for End-to-End Object Detection", ICLR 2023; constants
in reference/challenge.md section 4; forward, matching and loss terms equal PaddleDetection's (docs/parity.md), and so do the
parameters' names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, NamedTuple

import numpy as np
import paddle
from annotated_types import Ge, Interval
from paddle import nn

from ppmtl.models.base import Head, Side, of_strides
from ppmtl.models.heads._deformable_attention import DeformableAttention, Grid
from ppmtl.models.heads._dino_denoising import Denoising, denoising_queries
from ppmtl.models.heads._dino_loss import DINOLossSettings, denoising_loss, matching_loss, term_names
from ppmtl.models.heads._dino_padding import extents, of_unpadded
from ppmtl.models.heads._dino_transformer import (
    GROUPS,
    MLP,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    cell_embedding,
    input_projections,
    linear,
)
from ppmtl.models.heads._dino_truth import MatchingCosts, Truth
from ppmtl.models.heads._elementwise import elementwise
from ppmtl.models.heads._labelled import labelled_part, zero_loss
from ppmtl.models.layers import sigmoid
from ppmtl.structures import FeatureSpec

STRIDES = (8, 16, 32, 64)
PRIOR = 0.01  # of every score at the start
ANCHOR_SIDE = 0.05  # of the finest level's proposals, as a share of the image; twice as much on each next one
BORDER = 0.01  # cells whose anchor comes closer than this to 0 or 1 propose nothing
NOTHING = 1e4  # logit of the sides of such a cell's box; PaddleDetection's infinity has the same sigmoid

Count = Annotated[int, Ge(1)]
Weight = Annotated[float, Ge(0)]


class _Said(NamedTuple):
    """The logits of [cx, cy, w, h] and of the classes, (B, Q, 4) and (B, Q, C): the encoder's choice, then every layer's.

    The layers' queries begin with the ``noised`` ones, if any.
    """

    boxes: list[paddle.Tensor]
    classes: list[paddle.Tensor]
    noised: Denoising | None


class DINO(Head):
    """Deformable encoder over all cells; its best cells propose boxes, which the decoder's queries refine. Any input size.

    Where images were padded to one size, padding is neither looked at nor proposed, and boxes are shares of the image without
    it. Evaluation pads nothing: images of one size run together. Evaluate with ``nms_iou: null``.

    Args:
        reads: features from fine to coarse, each of twice the stride of the one before; None = the backbone's only ones of
            stride 8, 16, 32 and 64.
        levels: number of [maps] looked at; those beyond ``reads`` are made of the last feature by convolutions of stride 2.
        dim: width [channels] of cells and queries, a multiple of 32 and of ``num_heads``.
        num_heads: number of [heads] of every attention.
        points: [places] per head, level and query.
        encoder_layers, decoder_layers: number of [layers].
        feedforward: width [channels] inside a layer's feed-forward net.
        queries: [boxes] per image; an image with fewer cells gets one per cell.
        denoising: noised true [boxes] per image that training repairs; 0 = none.
        label_noise: half of this [share] of their labels is drawn anew.
        box_noise: [factor]; 1 moves the corners of boxes to be repaired by up to half a side.
        class_weight, box_weight, giou_weight: [factor] of the loss terms, each a sum over queries divided by the batch's boxes.
        class_cost, box_cost, giou_cost: [factor] in the matching of queries and boxes.
        recompute: gather the encoder's places again in backward instead of keeping them (docs/baseline.md).

    Raises:
        ValueError: if the features or the widths do not fit together.
    """

    task_type = "detection"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        levels: Count = 4,
        dim: Count = 256,
        num_heads: Count = 8,
        points: Count = 4,
        encoder_layers: Count = 6,
        decoder_layers: Count = 6,
        feedforward: Count = 2048,
        queries: Count = 900,
        denoising: Annotated[int, Ge(0)] = 100,
        label_noise: Annotated[float, Interval(ge=0, le=1)] = 0.5,
        box_noise: Weight = 1.0,
        class_weight: Weight = 1.0,
        box_weight: Weight = 5.0,
        giou_weight: Weight = 2.0,
        class_cost: Weight = 2.0,
        box_cost: Weight = 5.0,
        giou_cost: Weight = 2.0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.reads = self.choose(in_specs, reads, default=of_strides(in_specs, STRIDES))
        _check([in_specs[name].stride for name in self.reads], levels, dim, num_heads)
        self.num_classes, self.queries = num_classes, queries
        self.denoising, self.label_noise, self.box_noise = denoising, label_noise, box_noise
        self.loss_settings = DINOLossSettings(
            class_weight, box_weight, giou_weight, MatchingCosts(class_cost, box_cost, giou_cost)
        )

        self.input_proj = input_projections([in_specs[name].channels for name in self.reads], levels, dim)
        self.level_embed = nn.Embedding(levels, dim, weight_attr=nn.initializer.Normal())

        def attention(again: bool) -> DeformableAttention:
            return DeformableAttention(dim, num_heads, levels, points, recompute=again)

        self.encoder = Encoder([EncoderLayer(dim, feedforward, attention(recompute)) for _ in range(encoder_layers)])
        self.decoder = Decoder(
            dim, [DecoderLayer(dim, feedforward, num_heads, attention(False)) for _ in range(decoder_layers)]
        )
        self.tgt_embed = nn.Embedding(queries, dim, weight_attr=nn.initializer.XavierUniform())
        self.query_pos_head = MLP(2 * dim, dim, dim, xavier=True)
        if denoising:
            self.denoising_class_embed = nn.Embedding(num_classes, dim, weight_attr=nn.initializer.Normal())

        prior = -math.log((1 - PRIOR) / PRIOR)
        self.enc_output = nn.Sequential(linear(dim, dim, xavier=True), nn.LayerNorm(dim))
        self.enc_score_head = linear(dim, num_classes, bias=prior)
        self.enc_bbox_head = MLP(dim, dim, dim, 4, silent=True)
        self.dec_score_head = nn.LayerList([linear(dim, num_classes, bias=prior) for _ in range(decoder_layers)])
        self.dec_bbox_head = nn.LayerList([MLP(dim, dim, dim, 4, silent=True) for _ in range(decoder_layers)])

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The loss terms when there are targets, else what every query says.

        Targets are "boxes" (M, 6), rows [image, class, cx, cy, w, h] normalised to the input, and "supervised" (B,): the loss
        is that of the batch of images with 1. Where images were padded at right and bottom, also "valid" (B, 2) int64, their
        (height, width) before. Noised queries take part in training mode only.

        Returns:
            "boxes" (B, Q, 4) float32 xyxy in input pixels, not clipped, and "scores" (B, Q, C) float32; or the terms that
            ``matching_loss`` and ``denoising_loss`` name.
        """
        levels = [features[name] for name in self.reads]
        if targets is not None:
            return self._loss(levels, image_size, targets)
        said = self._say(levels)
        boxes = sigmoid(said.boxes[-1].astype("float32"))
        sides = [paddle.full([1], s, "float32") if isinstance(s, int) else s.astype("float32") for s in image_size]
        size = paddle.concat([side.reshape([1]) for side in sides[::-1]])
        centre, half = boxes[:, :, :2], boxes[:, :, 2:] * 0.5
        scores = sigmoid(said.classes[-1].astype("float32"))
        return {"boxes": paddle.concat([(centre - half) * size, (centre + half) * size], axis=-1), "scores": scores}

    def _loss(
        self, levels: list[paddle.Tensor], image_size: tuple[Side, Side], targets: Mapping[str, paddle.Tensor]
    ) -> dict[str, paddle.Tensor]:
        # A method of its own: Paddle's exporter would rewrite its conditions, though an exported graph has no targets
        labelled = targets["supervised"].numpy() > 0
        if not labelled.any():
            parameters = [parameter for parameter in self.parameters() if not parameter.stop_gradient]
            names = [*term_names(), *(term_names("_dn") if self.denoising else [])]
            return dict.fromkeys(names, zero_loss([*levels, *parameters]))
        levels, rows = labelled_part(levels, targets["boxes"], labelled)
        part = None
        if "valid" in targets:  # (b, 2) share of the height and of the width that is no padding
            part = targets["valid"].numpy()[labelled] / np.array(image_size, np.float64)
            rows = of_unpadded(rows.numpy(), part)
        truth = Truth.of(rows, levels[0].shape[0], self.num_classes)
        boxes, classes, noised = self._say(levels, truth, part)
        extra = 0 if noised is None else noised.labels.shape[1]
        with paddle.amp.auto_cast(enable=False):  # sums over queries and small boxes need float32
            boxes = [sigmoid(layer.astype("float32")) for layer in boxes]
            classes = [layer.astype("float32") for layer in classes]
            own = [paddle.stack([part[0], *(layer[:, extra:] for layer in part[1:])]) for part in (boxes, classes)]
            terms = matching_loss(own[0], own[1], truth, self.loss_settings)
            if noised is not None:
                theirs = [paddle.stack([layer[:, :extra] for layer in part[1:]]) for part in (boxes, classes)]
                terms |= denoising_loss(theirs[0], theirs[1], truth, noised.pairs, noised.groups, self.loss_settings)
            elif self.denoising:
                terms |= dict.fromkeys(term_names("_dn"), zero_loss([self.denoising_class_embed.weight]))
        return terms

    def _say(self, features: list[paddle.Tensor], truth: Truth | None = None, part: np.ndarray | None = None) -> _Said:
        maps: list[paddle.Tensor] = []
        for index in range(len(self.input_proj)):
            given = features[min(index, len(features) - 1)] if index <= len(features) else maps[-1]
            maps.append(self.input_proj[index](given))
        grid = Grid.of(maps, None if part is None else extents(maps, part))
        where = cell_embedding(grid, maps[0].shape[1]) + self.level_embed(grid.level)
        memory = self.encoder(paddle.concat([one.flatten(2).transpose([0, 2, 1]) for one in maps], axis=1), where, grid)
        start, first_classes = self._proposals(memory, grid)
        count = start.shape[1] if paddle.in_dynamic_mode() else paddle.shape(start)[1]
        queries = self.tgt_embed.weight[:count].unsqueeze(0) + paddle.zeros_like(start[:, :, :1])
        look, hidden, noised = start.detach() if paddle.in_dynamic_mode() else start, None, None
        if truth is not None and self.training and self.denoising and len(truth):
            noised = self._noised(truth, count)
            queries = paddle.concat([self._embedded(noised.labels), queries], axis=1)
            look = paddle.concat([paddle.to_tensor(noised.boxes), look], axis=1)
            hidden = paddle.to_tensor(noised.hidden)
        outputs, boxes = self.decoder(queries, look, memory, grid, self.query_pos_head, self.dec_bbox_head, hidden)
        classes = [self.dec_score_head[index](outputs[index]) for index in range(len(outputs))]
        return _Said([start, *boxes], [first_classes, *classes], noised)

    def _proposals(self, memory: paddle.Tensor, grid: Grid) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Boxes (B, Q, 4) and classes (B, Q, C), as logits, of the cells with the highest score of any class."""
        # Not 2 ** level, which paddle2onnx does not know
        side = ANCHOR_SIDE * paddle.exp(grid.level.astype(grid.centres.dtype).unsqueeze(1) * math.log(2))
        if grid.inside is not None:
            side = side + paddle.zeros_like(grid.inside)
        anchors = paddle.concat([grid.centres, side, side], axis=-1)
        inside = ((anchors > BORDER) & (anchors < 1 - BORDER)).astype(anchors.dtype).min(axis=-1, keepdim=True)
        if grid.inside is not None:
            inside = inside * grid.inside
        anchors = paddle.clip(anchors, BORDER, 1 - BORDER)
        logits = elementwise("log", anchors / (1 - anchors))
        logits = paddle.where(inside > 0, logits, logits * 0 + NOTHING)
        cells = self.enc_output(memory * inside)
        classes = self.enc_score_head(cells)
        # A sort and not topk: its slice may ask for more cells than there are
        best = paddle.argsort(classes.max(axis=-1), axis=-1, descending=True)[:, : self.queries]
        batch, total = cells.shape[:2] if paddle.in_dynamic_mode() else paddle.shape(cells)[:2]
        flat = (best + paddle.arange(batch, dtype="int64").unsqueeze(1) * total).flatten()
        chosen, chosen_classes = (
            paddle.gather(x.flatten(0, 1), flat).reshape([batch, -1, x.shape[2]]) for x in (cells, classes)
        )
        of_all = logits if grid.inside is None else logits.flatten(0, 1)
        anchor = paddle.gather(of_all, best.flatten() if grid.inside is None else flat).reshape([batch, -1, 4])
        return self.enc_bbox_head(chosen) + anchor, chosen_classes

    def _noised(self, truth: Truth, count: int) -> Denoising:
        # From Paddle's generator, which training seeds with the step, so that a resumed run draws the same
        rng = np.random.default_rng(int(paddle.randint(0, 2**31 - 1, [1]).item()))
        return denoising_queries(
            truth,
            self.num_classes,
            count,
            self.denoising,
            label_noise=self.label_noise,
            box_noise=self.box_noise,
            rng=rng,
        )

    def _embedded(self, labels: np.ndarray) -> paddle.Tensor:
        """(B, D, C) of (B, D) classes; zeros for the one after the last."""
        known = self.denoising_class_embed.weight
        table = paddle.concat([known, paddle.zeros([1, known.shape[1]], known.dtype)])
        return paddle.gather(table, paddle.to_tensor(labels.reshape(-1))).reshape([*labels.shape, -1])


def _check(strides: list[int], levels: int, dim: int, num_heads: int) -> None:
    doubling = all(later == 2 * stride for stride, later in pairwise(strides))
    if not strides or not doubling or len(strides) > levels:
        raise ValueError(
            f"DINO reads 1 to {levels} features (levels: {levels}), each of twice the stride of the one before; got "
            f"strides {strides}"
        )
    if dim % GROUPS or dim % num_heads:
        raise ValueError(f"DINO: dim must be a multiple of {GROUPS} and of num_heads {num_heads}, got {dim}")
