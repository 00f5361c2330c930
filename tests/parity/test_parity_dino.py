"""DINO against PaddleDetection: queries, matching, noised queries and every loss term, with the same weights and draws."""

from unittest import mock

import numpy as np
import paddle
import pytest
from references import Row, need, parity, relative, release, seeded

from ppmtl.models.heads._dino_denoising import denoising_queries
from ppmtl.models.heads._dino_truth import MatchingCosts, Truth, match
from ppmtl.models.heads.dino import DINO
from ppmtl.structures import FeatureSpec

CLASSES, QUERIES, SIZE = 7, 50, (136, 200)  # levels of 17 x 25, 9 x 13, 5 x 7, 3 x 4 cells
SHAPES = {"p3": (12, 17, 25), "p4": (16, 9, 13), "p5": (20, 5, 7), "p6": (24, 3, 4)}
ROWS = np.array(
    [
        [0, 3, 0.50, 0.40, 0.20, 0.30], [0, 1, 0.25, 0.70, 0.10, 0.15], [0, 6, 0.80, 0.20, 0.05, 0.04],
        [2, 3, 0.55, 0.55, 0.60, 0.70],
    ],
    np.float32,
)  # fmt: skip
PATCHED = "; its calls of Paddle 2 translated"
SINGLE = "float32; another order of summation"


def random_weight(key, shape):
    """Weights that keep activations near 1 and make every offset, score and box differ."""
    value = seeded(key, shape)
    if len(shape) == 1:
        return (1 if "norm" in key and key.endswith("weight") else 0) + np.float32(0.1) * value
    if key.endswith("_embed.weight"):
        return value
    return value / np.sqrt(shape[0] if len(shape) == 2 else np.prod(shape[1:])).astype(np.float32)


class OldPaddle:
    """Paddle as PaddleDetection 2.6 knows it: numbers taken out of a tensor have one dimension."""

    def __getattr__(self, name):
        return getattr(paddle, name)

    @staticmethod
    def concat(x, axis=0):
        return paddle.concat([part.reshape([1]) if part.ndim == 0 else part for part in x], axis)


def mixing(operation):
    """A float tensor with one of whole numbers, as Paddle 2 computed it."""

    def mixed(x, y):
        if isinstance(y, paddle.Tensor) and x.is_floating_point() != y.is_floating_point():
            x, y = (x, y.astype(x.dtype)) if x.is_floating_point() else (x.astype(y.dtype), y)
        return operation(x, y)

    return mixed


@pytest.fixture(autouse=True)
def old_paddle(monkeypatch):
    for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
        monkeypatch.setattr(paddle.Tensor, name, mixing(getattr(paddle.Tensor, name)))
    for name in ("dino_transformer", "deformable_transformer", "utils", "matchers", "position_encoding"):
        monkeypatch.setattr(need(f"ppdet.modeling.transformers.{name}"), "paddle", OldPaddle())
    monkeypatch.setattr(need("ppdet.modeling.losses.detr_loss"), "paddle", OldPaddle())


def build():
    """Ours and PaddleDetection's transformer with the same weights under the same names, in training mode."""
    transformer = need("ppdet.modeling.transformers.dino_transformer")
    channels = [shape[0] for shape in SHAPES.values()]
    there = {
        "num_classes": CLASSES, "hidden_dim": 64, "num_queries": QUERIES, "backbone_feat_channels": channels,
        "num_encoder_layers": 2, "num_decoder_layers": 3, "dim_feedforward": 96, "num_denoising": 10,
    }  # fmt: skip
    theirs = transformer.DINOTransformer(**there)
    ours = DINO(
        {name: FeatureSpec(shape[0], 8 * 2**i) for i, (name, shape) in enumerate(SHAPES.items())}, CLASSES,
        dim=64, queries=QUERIES, encoder_layers=2, decoder_layers=3, feedforward=96, denoising=10,
    )  # fmt: skip
    mine = ours.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for net in (ours, theirs):
        net.set_state_dict({key: paddle.to_tensor(random_weight(key, value.shape)) for key, value in mine.items()})
        net.train()
    return ours, theirs


def features():
    return {name: paddle.to_tensor(seeded(name, (3, *shape))) for name, shape in SHAPES.items()}


def there(rows):
    """The truth as PaddleDetection takes it."""
    parts = [rows[rows[:, 0] == image] for image in range(3)]
    boxes = [paddle.to_tensor(part[:, 2:]) for part in parts]
    return {"gt_bbox": boxes, "gt_class": [paddle.to_tensor(part[:, 1:2].astype("int32")) for part in parts]}


class Draws:
    """The same random numbers for both sides: of numpy's generator, and of Paddle."""

    def __init__(self, shape):
        random = np.random.RandomState(0)
        self.redrawn, self.way = random.rand(*shape), random.rand(*shape, 4)
        self.label, self.sign = random.randint(0, CLASSES, shape), random.randint(0, 2, (*shape, 4))

    def random(self, shape):
        return self.redrawn if len(shape) == 2 else self.way

    def integers(self, low, high, shape):  # noqa: ARG002
        return self.label if len(shape) == 2 else self.sign

    def rand(self, shape):
        return paddle.to_tensor((self.redrawn.reshape(-1) if len(shape) == 1 else self.way).astype(np.float32))

    def randint_like(self, x, low, high, dtype=None):  # noqa: ARG002
        values = self.label.reshape(-1)[x.numpy()] if x.ndim == 1 else self.sign
        return paddle.to_tensor(values).astype(dtype or x.dtype)


@parity("DINO", "paddledet")
def test_what_every_layer_says_equals_paddledetection(compare):
    ours, theirs = build()
    ours.eval()
    theirs.eval()
    mine = ours._say(list(features().values()))
    boxes, logits, first_boxes, first_logits, _ = theirs(list(features().values()))
    said = [paddle.nn.functional.sigmoid(x).numpy() for x in mine.boxes], [x.numpy() for x in mine.classes]
    wanted = [first_boxes.numpy(), *boxes.numpy()], [first_logits.numpy(), *logits.numpy()]
    named = zip(("boxes", "class logits"), said, wanted, strict=True)
    compare(
        *(row(f"{name} of the encoder and 3 layers, relative", relative(*both), 1e-5, SINGLE) for name, *both in named)
    )


@parity("DINO", "paddledet")
def test_what_every_layer_says_of_padded_images_equals_paddledetection(compare):
    ours, theirs = build()
    ours.eval()
    theirs.eval()
    sizes = [SIZE, (90, 200), (136, 77)]
    mask = np.zeros((3, *SIZE), np.float32)
    for image, (height, width) in enumerate(sizes):
        mask[image, :height, :width] = 1
    mine = ours._say(list(features().values()), part=np.array(sizes) / np.array(SIZE))
    boxes, logits, first_boxes, first_logits, _ = theirs(list(features().values()), paddle.to_tensor(mask))
    said = [paddle.nn.functional.sigmoid(x).numpy() for x in mine.boxes], [x.numpy() for x in mine.classes]
    wanted = [first_boxes.numpy(), *boxes.numpy()], [first_logits.numpy(), *logits.numpy()]
    compare(
        *(
            row(f"{name} of padded images, relative", relative(*both), 1e-5, SINGLE)
            for name, *both in zip(("boxes", "class logits"), said, wanted, strict=True)
        )
    )


def row(quantity, difference, tolerance, reason):
    return Row("DINO", quantity, f"{release('paddledet')}{PATCHED}", float(difference), tolerance, reason)


@parity("DINO", "paddledet")
def test_noised_queries_equal_paddledetection(monkeypatch, compare):
    utils, truth = need("ppdet.modeling.transformers.utils"), Truth.of(paddle.to_tensor(ROWS), 3, CLASSES)
    draws, embedding = Draws((3, 18)), paddle.to_tensor(seeded("embedding", (CLASSES, 4)))
    monkeypatch.setattr(OldPaddle, "rand", draws.rand, raising=False)
    monkeypatch.setattr(OldPaddle, "randint_like", draws.randint_like, raising=False)
    classes, boxes, seen, meta = utils.get_contrastive_denoising_training_group(
        there(ROWS), CLASSES, QUERIES, embedding, 10, 0.5, 1.0
    )
    mine = denoising_queries(truth, CLASSES, QUERIES, 10, label_noise=0.5, box_noise=1.0, rng=draws)
    table = np.concatenate([embedding.numpy(), np.zeros((1, 4), np.float32)])
    indices = [mine.pairs.query[mine.pairs.image == image].tolist() for image in range(3)]
    same = mine.groups == meta["dn_num_group"] and indices == [index.tolist() for index in meta["dn_positive_idx"]]
    different = np.inf if not same else ((mine.hidden == 0) != seen.numpy()).sum()
    compare(
        row("noised boxes, relative", relative([mine.boxes], [boxes.numpy()]), 1e-5, SINGLE),
        row("noised classes", relative([table[mine.labels]], [classes.numpy()]), 0, "the same embeddings"),
        row("queries to repair, who sees whom", different, 0, "indices and booleans"),
    )


def matcher():
    module = need("ppdet.modeling.transformers.matchers")
    return module.HungarianMatcher({"class": 2, "bbox": 5, "giou": 2}, use_focal_loss=True)


@parity("DINO", "paddledet")
def test_matching_equals_paddledetection(compare):
    random, different, pairs = np.random.RandomState(0), 0, 0
    for trial in range(20):
        counts = random.randint(1, 12, 3)
        rows = np.concatenate([np.repeat(np.arange(3), counts)[:, None], random.rand(counts.sum(), 5)], axis=1)
        rows[:, 1] = random.randint(0, CLASSES, len(rows))
        rows[:, 4:] = 0.02 + 0.4 * rows[:, 4:]
        rows, boxes = rows.astype(np.float32), (0.02 + 0.9 * random.rand(3, QUERIES, 4)).astype(np.float32)
        logits, truth = seeded(f"logits {trial}", (3, QUERIES, CLASSES)), Truth.of(paddle.to_tensor(rows), 3, CLASSES)
        mine = match(boxes, logits, truth, MatchingCosts(2, 5, 2))
        wanted = matcher()(paddle.to_tensor(boxes), paddle.to_tensor(logits), *there(rows).values())
        starts = np.cumsum(counts) - counts
        for image, (query, box) in enumerate(wanted):
            own = mine.image == image
            same = mine.query[own] == query.numpy(), mine.box[own] == box.numpy() + starts[image]
            different, pairs = different + sum((~part).sum() for part in same), pairs + len(query)
    compare(row(f"matching: {pairs} pairs, 20 batches", different, 0, "indices"))


def losses(net, forward):
    """Loss terms, and gradients of their sum by name ("p3", ... for the features')."""
    net.train()
    inputs = features()
    for value in inputs.values():
        value.stop_gradient = False
    terms = forward(inputs)
    paddle.add_n([term.reshape([1]) for term in terms.values()]).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    gradients |= {name: value.grad.numpy() for name, value in inputs.items()}
    return {name: np.float64(term.item()) for name, term in terms.items()}, gradients


@parity("DINO", "paddledet")
def test_every_loss_term_and_gradient_equals_paddledetection(monkeypatch, compare):
    ours, theirs = build()
    draws = Draws((3, 18))
    monkeypatch.setattr(OldPaddle, "rand", draws.rand, raising=False)
    monkeypatch.setattr(OldPaddle, "randint_like", draws.randint_like, raising=False)
    loss = need("ppdet.modeling.losses.detr_loss").DINOLoss(
        num_classes=CLASSES, matcher=matcher(), loss_coeff={"class": 1, "bbox": 5, "giou": 2}, use_focal_loss=True
    )
    head = need("ppdet.modeling.heads.detr_head").DINOHead(loss)
    wanted, slopes = losses(
        theirs, lambda maps: head(theirs(list(maps.values()), None, there(ROWS)), None, there(ROWS))
    )
    targets = {"boxes": paddle.to_tensor(ROWS), "supervised": paddle.ones([3])}
    with mock.patch("ppmtl.models.heads.dino.np.random.default_rng", return_value=draws):
        found, mine = losses(ours, lambda maps: ours(maps, SIZE, targets))
    assert found.keys() == wanted.keys()
    rows = [
        row(f"{name}, relative", abs(found[name] - value) / abs(value), 1e-5, SINGLE) for name, value in wanted.items()
    ]
    title, cancel = f"gradients of {len(slopes)} tensors, relative", "float32; sums over cells cancel"
    compare(*rows, row(title, relative(mine, slopes), 1e-4, cancel))
