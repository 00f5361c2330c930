"""DINO: numbers of PaddleDetection, who sees whom, who is matched with what, any input size, resume, export."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import paddle
import pytest
from golden_weights import assert_equals_summary, parameter_count, seeded

from ppmtl.models.heads._deformable_attention import DeformableAttention, Grid
from ppmtl.models.heads._dino_denoising import denoising_queries
from ppmtl.models.heads._dino_padding import of_unpadded
from ppmtl.models.heads._dino_truth import MatchingCosts, Truth, match
from ppmtl.models.heads.dino import DINO
from ppmtl.structures import FeatureSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dino.json").read_text())
SHAPES = GOLDEN["features"]
CLASSES, SIZE = GOLDEN["classes"], (136, 200)
SPECS = {name: FeatureSpec(shape[0], 8 * 2**i) for i, (name, shape) in enumerate(SHAPES.items())}
SMALL = {"dim": 32, "queries": 12, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16, "denoising": 6}
TARGETS = {"boxes": paddle.to_tensor(GOLDEN["targets"]), "supervised": paddle.ones([3])}


def golden_weight(name: str, shape: list[int]) -> np.ndarray:
    value = seeded(name, shape).astype(np.float32)
    if len(shape) == 1:
        return (1 if "norm" in name and name.endswith("weight") else 0) + np.float32(0.1) * value
    if name.endswith("_embed.weight"):
        return value
    return value / np.sqrt(shape[0] if len(shape) == 2 else np.prod(shape[1:])).astype(np.float32)


def golden_head() -> DINO:
    head = DINO(SPECS, CLASSES, **GOLDEN["settings"])
    missing, unknown = head.set_state_dict(
        {name: paddle.to_tensor(golden_weight(name, value.shape)) for name, value in head.state_dict().items()}
    )
    assert not missing
    assert not unknown
    return head


def small_head(**changes) -> DINO:
    paddle.seed(0)
    return DINO(SPECS, CLASSES, **(SMALL | changes))


def features(batch: int = 3) -> dict[str, paddle.Tensor]:
    return {n: paddle.to_tensor(seeded(n, [batch, *shape]).astype(np.float32)) for n, shape in SHAPES.items()}


class Draws:
    """The random numbers of the golden file, instead of a generator's."""

    def __init__(self) -> None:
        random = np.random.RandomState(0)
        self.numbers = {2: random.rand(3, 18), 3: random.rand(3, 18, 4)}
        self.integer = {2: random.randint(0, CLASSES, (3, 18)), 3: random.randint(0, 2, (3, 18, 4))}

    def random(self, shape):
        return self.numbers[len(shape)]

    def integers(self, low, high, shape):
        assert (low, high) == (0, CLASSES if len(shape) == 2 else 2)
        return self.integer[len(shape)]


def truth(rows=GOLDEN["targets"], batch: int = 3) -> Truth:
    return Truth.of(paddle.to_tensor(np.array(rows, np.float32).reshape(-1, 6)), batch, CLASSES)


def test_boxes_and_scores_equal_paddledetection():
    head = golden_head()
    head.eval()
    said = head._say(list(features().values()))
    assert_equals_summary(paddle.nn.functional.sigmoid(said.boxes[-1]).numpy(), GOLDEN["boxes"], rtol=1e-5)
    assert_equals_summary(paddle.nn.functional.sigmoid(said.boxes[0]).numpy(), GOLDEN["proposals"], rtol=1e-5)
    assert_equals_summary(said.classes[-1].numpy(), GOLDEN["logits"], rtol=1e-5)
    raw = head(features(), SIZE)
    share = paddle.nn.functional.sigmoid(said.boxes[-1]).numpy()
    corners = np.concatenate([share[..., :2] - share[..., 2:] / 2, share[..., :2] + share[..., 2:] / 2], axis=-1)
    np.testing.assert_allclose(raw["boxes"].numpy(), corners * [200, 136, 200, 136], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(raw["scores"].numpy(), 1 / (1 + np.exp(-said.classes[-1].numpy())), rtol=1e-5)


def test_loss_terms_matching_and_gradients_equal_paddledetection():
    head = golden_head()
    with mock.patch("ppmtl.models.heads.dino.np.random.default_rng", return_value=Draws()):
        terms = head(features(), SIZE, TARGETS)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(GOLDEN["losses"], rel=1e-5)
    sum(terms.values()).backward()
    sums = {n: np.abs(head.state_dict()[n].grad.numpy()).sum() for n in GOLDEN["gradient_abs_sums"]}
    assert sums == pytest.approx(GOLDEN["gradient_abs_sums"], rel=1e-4)


def test_the_matching_of_what_the_head_says_equals_paddledetections():
    head = golden_head()
    head.eval()
    said = head._say(list(features().values()))
    boxes = paddle.nn.functional.sigmoid(said.boxes[-1]).numpy()
    pairs = match(boxes, said.classes[-1].numpy(), truth(), MatchingCosts(2, 5, 2))
    wanted = [query for image in GOLDEN["matched_queries"] for query in image]
    assert pairs.query.tolist() == wanted
    assert pairs.image.tolist() == [0, 0, 0, 2]
    assert pairs.box.tolist() == [0, 1, 2, 3]


def test_parameter_count_at_full_size_equals_paddledetections():
    full = GOLDEN["full_size"]
    specs = {f"p{i}": FeatureSpec(full["channels"], 2**i) for i in (3, 4, 5, 6)}
    assert parameter_count(DINO(specs, full["classes"])) == full["parameters"]


def test_each_box_gets_the_query_that_lies_on_it():
    rows = [[0, 2, 0.2, 0.3, 0.1, 0.1], [0, 2, 0.7, 0.3, 0.1, 0.1], [1, 0, 0.5, 0.5, 0.9, 0.4]]
    boxes = np.full((2, 5, 4), 0.05, np.float32)
    boxes[0, 4], boxes[0, 1], boxes[1, 3] = rows[0][2:], rows[1][2:], rows[2][2:]
    pairs = match(boxes, np.zeros((2, 5, CLASSES), np.float32), truth(rows, 2), MatchingCosts(2, 5, 2))
    assert sorted(zip(pairs.image, pairs.query, pairs.box, strict=True)) == [(0, 1, 1), (0, 4, 0), (1, 3, 2)]


def test_among_equal_boxes_the_one_with_the_right_class_is_matched_and_no_query_twice():
    rows = [[0, 1, 0.5, 0.5, 0.2, 0.2], [0, 4, 0.5, 0.5, 0.2, 0.2], [0, 1, 0.5, 0.5, 0.2, 0.2]]
    logits = np.full((1, 4, CLASSES), -3, np.float32)
    logits[0, 2, 4], logits[0, 0, 1], logits[0, 3, 1] = 3, 2, 3
    boxes = np.tile(np.float32([0.5, 0.5, 0.2, 0.2]), (1, 4, 1))
    pairs = match(boxes, logits, truth(rows, 1), MatchingCosts(2, 5, 2))
    assert dict(zip(pairs.box.tolist(), pairs.query.tolist(), strict=True))[1] == 2
    assert sorted(pairs.query) == [0, 2, 3]


def test_more_boxes_than_queries_leave_some_without_one():
    rows = [[0, 0, x, 0.5, 0.1, 0.1] for x in (0.1, 0.5, 0.9)]
    boxes = np.float32([[[0.52, 0.5, 0.1, 0.1], [0.11, 0.5, 0.1, 0.1]]])
    pairs = match(boxes, np.zeros((1, 2, CLASSES), np.float32), truth(rows, 1), MatchingCosts(2, 5, 2))
    assert dict(zip(pairs.query.tolist(), pairs.box.tolist(), strict=True)) == {0: 1, 1: 0}


def noised(count: int = 10, box_noise: float = 1.0, **changes):
    settings = {"label_noise": 0.5, "rng": np.random.default_rng(3)} | changes
    return denoising_queries(truth(), CLASSES, 4, count, box_noise=box_noise, **settings)


def test_boxes_to_repair_stay_within_half_a_side_and_boxes_to_reject_leave_it():
    made = noised(count=1500)
    share = 1 / (1 + np.exp(-made.boxes[0].reshape(500, 2, 3, 4)))  # groups, to repair or to reject, slots
    boxes = truth().boxes[:3]
    low, high = share[..., :2] - share[..., 2:] / 2, share[..., :2] + share[..., 2:] / 2
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    away = np.abs(np.concatenate([low, high], axis=-1) - corners) / np.tile(boxes[:, 2:] / 2, 2)
    assert away[:, 0].max() < 1.001
    assert away[:, 0, 0].max() > 0.9
    turned = (share[:, 1, 0, 2:] < 1e-4).any(axis=1)  # inside out: it has no sides any more
    assert 0.05 < turned.mean() < 0.6
    assert away[~turned, 1, 0].min() > 0.999
    assert away[~turned, 1, 0].max() < 2.001


def test_labels_are_redrawn_as_often_as_asked_and_empty_slots_stay_empty():
    made = noised(count=1500, label_noise=0.4)
    labels = made.labels.reshape(3, -1, 3)
    assert (labels[1] == CLASSES).all()
    assert (labels[2, :, 1:] == CLASSES).all()
    changed = (labels[0] != truth().label[:3]).mean()
    assert changed == pytest.approx(0.2 * (1 - 1 / CLASSES), abs=0.03)


def test_a_group_sees_itself_and_the_own_queries_which_see_no_group():
    made = noised()
    assert made.groups == 3
    sees = made.hidden == 0
    group = np.array([i // 6 for i in range(18)])
    np.testing.assert_array_equal(sees[:18, :18], group[:, None] == group)
    assert sees[:, 18:].all()
    assert not sees[18:, :18].any()


def test_what_one_group_gets_changes_nothing_that_the_others_or_the_own_queries_say():
    head = golden_head()
    head.train()
    first = noised(rng=np.random.default_rng(0))
    other = noised(rng=np.random.default_rng(0))
    other.boxes[:, :6] += 1.0
    said = []
    for made in (first, other):
        with mock.patch("ppmtl.models.heads.dino.denoising_queries", return_value=_for_queries(made, 50)):
            said.append(head._say(list(features().values()), truth()))
    for one, two in zip(said[0].boxes[1:] + said[0].classes[1:], said[1].boxes[1:] + said[1].classes[1:], strict=True):
        np.testing.assert_array_equal(one[:, 6:].numpy(), two[:, 6:].numpy())
        assert np.abs(one[:, :6].numpy() - two[:, :6].numpy()).max() > 1e-3


def _for_queries(made, queries: int):
    """The same noise beside as many queries."""
    full = denoising_queries(truth(), CLASSES, queries, 10, label_noise=0, box_noise=0, rng=np.random.default_rng(0))
    return type(made)(made.labels, made.boxes, full.hidden, made.groups, made.pairs)


def test_noise_is_a_function_of_paddles_seed_and_not_of_numpys():
    head = small_head()

    def terms(seed: int, numpy_seed: int) -> list[float]:
        paddle.seed(seed)
        np.random.seed(numpy_seed)
        return [float(term) for term in head(features(), SIZE, TARGETS).values()]

    assert terms(5, 1) == terms(5, 2)
    assert terms(5, 1) != terms(6, 1)


def test_a_batch_without_boxes_trains_scores_alone_and_gives_every_parameter_a_gradient():
    head = small_head()
    none = {"boxes": paddle.full([1, 6], -1.0), "supervised": paddle.ones([3])}
    terms = head(features(), SIZE, none)
    assert [name for name, term in terms.items() if float(term) != 0] == ["loss_class", "loss_class_aux"]
    sum(terms.values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_without_denoising_there_is_no_term_and_no_embedding_for_it():
    head = small_head(denoising=0)
    assert not any("denoising" in name for name in head.state_dict())
    assert not any(name.endswith("_dn") for name in head(features(), SIZE, TARGETS))


def test_recompute_changes_neither_terms_nor_gradients():
    found = []
    for recompute in (False, True):
        head = small_head(recompute=recompute)
        paddle.seed(1)
        terms = head(features(), SIZE, TARGETS)
        sum(terms.values()).backward()
        found.append([p.grad.numpy() for p in head.parameters()])
    for plain, again in zip(*found, strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-5, atol=1e-6 * np.abs(plain).max())


def test_layers_that_answer_in_float16_change_the_terms_by_rounding_alone():
    def terms(low: bool) -> dict[str, float]:
        head = small_head()
        for layer in [head.enc_bbox_head, *head.dec_bbox_head, *head.dec_score_head] if low else ():
            layer.register_forward_post_hook(lambda _layer, _given, answer: answer.astype("float16"))
        paddle.seed(1)
        found = head(features(), SIZE, TARGETS)
        sum(found.values()).backward()
        assert all(term.dtype == paddle.float32 for term in found.values())
        assert all(np.isfinite(p.grad.numpy()).all() for p in head.parameters())
        return {name: float(term) for name, term in found.items()}

    assert terms(low=True) == pytest.approx(terms(low=False), rel=0.02)


def test_a_level_that_no_feature_gives_is_made_of_the_last():
    head = small_head(reads=("p3", "p4"))
    assert [proj[0].weight.shape for proj in head.input_proj] == [
        [32, 12, 1, 1], [32, 16, 1, 1], [32, 16, 3, 3], [32, 32, 3, 3],
    ]  # fmt: skip
    assert head(features(), SIZE, TARGETS)["loss_class"] > 0


def test_an_image_with_fewer_cells_than_queries_gets_one_box_per_cell():
    head = small_head(queries=100)
    tiny = {name: paddle.rand([1, spec.channels, *([64 // spec.stride] * 2)]) for name, spec in SPECS.items()}
    head.eval()
    assert head(tiny, (64, 64))["boxes"].shape == [1, 64 + 16 + 4 + 1, 4]
    head.train()
    targets = {"boxes": paddle.to_tensor([[0, 1, 0.5, 0.5, 0.3, 0.3]]), "supervised": paddle.ones([1])}
    sum(head(tiny, (64, 64), targets).values()).backward()


def test_deformable_attention_reads_between_cells_and_zero_outside():
    paddle.seed(0)
    attention = DeformableAttention(32, 1, 1, 1)
    for layer in (attention.value_proj, attention.output_proj):
        layer.weight.set_value(paddle.eye(32))
    one = paddle.rand([1, 32, 3, 4])
    grid, value = Grid.of([one]), one.flatten(2).transpose([0, 2, 1])
    map_of = one[0].numpy()

    def at(x: float, y: float) -> np.ndarray:
        attention.sampling_offsets.bias.set_value(paddle.zeros([2]))
        centre = paddle.to_tensor([[[x / 4, y / 3]]], "float32")
        return attention(paddle.zeros([1, 1, 32]), value, grid, centre)[0, 0].numpy()

    np.testing.assert_allclose(at(2.5, 1.5), map_of[:, 1, 2], rtol=1e-5)
    quarter = 0.75 * map_of[:, 1, 2] + 0.25 * map_of[:, 1, 3]
    np.testing.assert_allclose(at(2.75, 1.5), quarter, rtol=1e-5)
    np.testing.assert_allclose(at(0.25, 0.0), 0.5 * 0.75 * map_of[:, 0, 0], rtol=1e-5)
    assert not at(5.1, 1.5).any()


def test_training_moves_a_box_onto_the_target():
    head = small_head(denoising=4)
    inputs = features(1)
    target = [0.55, 0.6, 0.3, 0.24]
    targets = {"boxes": paddle.to_tensor([[0, 2, *target]]), "supervised": paddle.ones([1])}
    optimizer = paddle.optimizer.AdamW(3e-3, parameters=head.parameters())
    for step in range(60):
        paddle.seed(step)
        sum(head(inputs, SIZE, targets).values()).backward()
        optimizer.step()
        optimizer.clear_grad()
    head.eval()
    raw = head(inputs, SIZE)
    scores = raw["scores"].numpy()[0]
    best = int(scores.max(axis=1).argmax())
    x1, y1, x2, y2 = raw["boxes"].numpy()[0, best] / [200, 136, 200, 136]
    assert scores[best].argmax() == 2
    np.testing.assert_allclose([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], target, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reads": ("p3", "p5")}, r"twice the stride .* got strides \[8, 32\]"),
        ({"levels": 3}, r"reads 1 to 3 features .* got strides \[8, 16, 32, 64\]"),
        ({"reads": ("p3", "q4")}, "DINO: reads 'q4'"),
        ({"dim": 48}, "dim must be a multiple of 32 and of num_heads 8, got 48"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_head(**changes)


@pytest.mark.parametrize("row", [[3, 1, 0.5, 0.5, 0.2, 0.2], [0, CLASSES, 0.5, 0.5, 0.2, 0.2]])
def test_targets_of_another_batch_or_class_list_are_refused(row):
    with pytest.raises(ValueError, match=r"images are 0\.\.2 and classes 0\.\.6"):
        small_head()(features(), SIZE, {"boxes": paddle.to_tensor([row]), "supervised": paddle.ones([3])})


def test_levels_whose_anchors_do_not_fit_into_the_image_propose_nothing_and_break_nothing():
    head = small_head(levels=6, queries=1000)  # 0.05 * 2^5 of the image; every cell is asked
    targets = TARGETS | {"supervised": paddle.to_tensor([1.0, 0.0, 1.0])}
    assert all(np.isfinite(float(term)) for term in head(features(), SIZE, targets).values())
    head.eval()
    assert np.isfinite(head(features(), SIZE)["boxes"].numpy()).all()


def padded(maps: dict[str, paddle.Tensor], garbage: float) -> dict[str, paddle.Tensor]:
    """Features of (136, 200) px as those of (192, 256) px with ``garbage`` at right and bottom."""
    found = {}
    for index, (name, value) in enumerate(maps.items()):
        height, width = 192 // (8 * 2**index), 256 // (8 * 2**index)
        rest = [0, width - value.shape[3], 0, height - value.shape[2]]
        found[name] = paddle.nn.functional.pad(value, rest, value=garbage)
    return found


PART = np.array([[136 / 192, 200 / 256]] * 3)


def test_padding_is_neither_proposed_nor_looked_at():
    head = golden_head()
    head.eval()
    head.queries = 40
    # The norm of the input projections sees the padding, in PaddleDetection too
    for layer in head.input_proj:
        layer.norm = paddle.nn.Identity()
    plain = head._say(list(features().values()))
    said = [head._say(list(padded(features(), g).values()), part=PART) for g in (0.0, 3.0)]
    np.testing.assert_allclose(said[0].boxes[0].numpy(), plain.boxes[0].numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(said[0].classes[0].numpy(), plain.classes[0].numpy(), rtol=1e-4, atol=1e-4)
    for first, second in zip(said[0].boxes, said[1].boxes, strict=True):
        np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=1e-4, atol=1e-4)


def test_boxes_of_padded_images_are_learnt_as_shares_of_what_is_real():
    rows = np.array([[1, 3, 0.25, 0.5, 0.1, 0.2], [-1] * 6], np.float32)
    found = of_unpadded(rows, np.array([[1.0, 1.0], [0.5, 0.25]])).numpy()
    np.testing.assert_allclose(found[0], [1, 3, 1.0, 1.0, 0.4, 0.4])
    assert found[1, 0] == -1


def test_a_batch_of_padded_images_trains_and_without_padding_nothing_changes():
    head = small_head(denoising=0)
    plain = head(features(), SIZE, TARGETS)
    full = head(features(), SIZE, TARGETS | {"valid": paddle.to_tensor([SIZE] * 3)})
    for name, value in plain.items():
        np.testing.assert_allclose(float(full[name]), float(value), rtol=1e-4)
    sizes = paddle.to_tensor([[136, 200], [100, 200], [136, 90]])
    for supervised in ([1.0, 1.0, 1.0], [1.0, 0.0, 1.0]):
        targets = TARGETS | {"valid": sizes, "supervised": paddle.to_tensor(supervised)}
        terms = head(features(), SIZE, targets)
        paddle.add_n(list(terms.values())).backward()
        assert all(np.isfinite(float(value)) for value in terms.values())
    assert all(np.isfinite(p.grad.numpy()).all() for p in head.parameters() if p.grad is not None)
