"""The semantic head: its loss against the reference's numbers, its size, what 255 does, both scales and all strides."""

import numpy as np
import paddle
import pytest
from golden_weights import parameter_count
from yolor_golden import assert_equals, golden, hv

from ppmtl.models.heads.semantic import Semantic, semantic_losses
from ppmtl.structures import FeatureSpec

GOLDEN = golden("semantic_loss")
SPECS = {"p3": FeatureSpec(256, 8), "p4": FeatureSpec(512, 16), "p5": FeatureSpec(1024, 32)}
SMALL = {"p3": FeatureSpec(4, 8), "p4": FeatureSpec(6, 16), "p5": FeatureSpec(8, 32)}


def features(size=(64, 96), batch=2) -> dict[str, paddle.Tensor]:
    paddle.seed(1)
    return {n: paddle.randn([batch, s.channels, size[0] // s.stride, size[1] // s.stride]) for n, s in SMALL.items()}


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_both_terms_and_their_gradient_equal_the_reference(case):
    logits = hv("loss.sem", (2, 7, 16, 24), -4, 4) * (10 if case["name"] == "large_logits" else 1)
    truth = (hv("loss.semgt", (2, 7, 16, 24), 0, 1) < 0.2).astype(np.float32)
    truth[:, 6] = 0
    assert truth.sum() == GOLDEN["gt_positives"]
    if case["name"] == "empty_target":
        truth[:] = 0
    logits = paddle.to_tensor(logits.astype(np.float32), stop_gradient=False)
    head = Semantic(SPECS, 7)  # for its default weights
    focal, dice = semantic_losses(logits, paddle.to_tensor(truth), paddle.ones([2, 1, 16, 24]))
    assert float(focal) == pytest.approx(case["focal_mean"], rel=1e-5)
    assert float(head.focal_weight * focal) == pytest.approx(case["focal_part"], rel=1e-5)
    assert float(head.dice_weight * dice) == pytest.approx(case["dice_part"], rel=1e-5)
    (head.focal_weight * focal + head.dice_weight * dice).backward()
    expected = case["grad_of_sum_of_parts"]
    assert np.linalg.norm(logits.grad.numpy().astype(np.float64)) == pytest.approx(expected["norm"], rel=1e-4)
    assert_equals(logits.grad, expected, rtol=1e-4, atol=1e-8)


def test_the_single_scale_head_has_the_papers_44461_parameters_and_the_multi_scale_arm_about_its_778_8_thousand():
    assert parameter_count(Semantic(SPECS, 173).classifier) == 44_461
    assert parameter_count(Semantic(SPECS, 173, implicit=False)) == 44_461
    assert parameter_count(Semantic(SPECS, 173)) == 44_461 + 256 + 173
    multi = parameter_count(Semantic(SPECS, 173, scale="multi", implicit=False))
    assert multi == 777_773
    assert multi == pytest.approx(778_800, rel=0.002)


def test_cells_without_a_label_neither_cost_nor_pull():
    logits = paddle.to_tensor(hv("a", (2, 3, 4, 6), -2, 2), stop_gradient=False)
    truth, known = np.zeros((2, 3, 4, 6), np.float32), np.ones((2, 1, 4, 6), np.float32)
    truth[:, 1], known[0, :, :2] = 1, 0
    changed = truth.copy()
    changed[0, :, :2] = 1 - changed[0, :, :2]
    both = [semantic_losses(logits, paddle.to_tensor(t), paddle.to_tensor(known)) for t in (truth, changed)]
    assert [float(term) for term in both[0]] == [float(term) for term in both[1]]
    sum(both[0]).backward()
    assert (logits.grad.numpy()[0, :, :2] == 0).all()
    assert (logits.grad.numpy()[0, :, 2:] != 0).all()


@pytest.mark.parametrize("scale", ["single", "multi"])
def test_a_batch_without_any_label_costs_exactly_nothing_and_gives_zero_gradients(scale):
    head = Semantic(SMALL, 5, scale=scale, channels=8)
    terms = head(features(), (64, 96), {"label_map": paddle.full([2, 64, 96], 255, "int64")})
    assert [float(term) for term in terms.values()] == [0.0, 0.0]
    sum(terms.values()).backward()
    trained = [p for p in head.parameters() if not p.stop_gradient]
    assert all(p.grad is not None and (p.grad.numpy() == 0).all() for p in trained)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_the_output_has_its_stride_and_the_loss_sees_the_middle_pixel_of_every_cell(stride):
    head = Semantic(SMALL, 5, out_stride=stride)
    head.eval()
    assert head(features(), (64, 96))["probs"].shape == [2, 5, 64 // stride, 96 // stride]
    labels = np.full((2, 64, 96), 255)
    labels[:, stride // 2 :: stride, stride // 2 :: stride] = 3
    everywhere = {"label_map": paddle.full([2, 64, 96], 3, "int64")}
    found = head(features(), (64, 96), {"label_map": paddle.to_tensor(labels)})
    for name, term in head(features(), (64, 96), everywhere).items():
        assert float(term) == float(found[name])
        assert float(term) > 0


def test_training_finds_the_classes():
    paddle.seed(0)
    head = Semantic(SMALL, 3)
    labels = np.zeros((2, 64, 96), np.int64)
    labels[:, :32], labels[:, :, 48:] = 1, 2
    inputs = features()
    inputs["p3"] = paddle.to_tensor(np.eye(4, dtype=np.float32)[labels[:, 4::8, 4::8]].transpose(0, 3, 1, 2))
    optimizer = paddle.optimizer.AdamW(0.05, parameters=head.parameters())
    for _ in range(60):
        sum(head(inputs, (64, 96), {"label_map": paddle.to_tensor(labels)}).values()).backward()
        optimizer.step()
        optimizer.clear_grad()
    head.eval()
    found = head(inputs, (64, 96))["probs"].numpy().argmax(1)
    assert (found == labels[:, 2::4, 2::4]).mean() > 0.95


def test_features_that_do_not_fit_the_scale_are_refused():
    with pytest.raises(
        ValueError, match=r"scale: single reads one feature, by default of stride 8; got strides \[8, 16\]"
    ):
        Semantic(SMALL, 3, reads=("p3", "p4"))
    with pytest.raises(ValueError, match=r"scale: multi reads several, finest first.* got strides \[8\]"):
        Semantic(SMALL, 3, scale="multi", reads=("p3",))


def test_every_class_begins_with_the_same_share_of_the_probability():
    head = Semantic(SMALL, 20, implicit=False)
    head.eval()
    blank = {name: value * 0 for name, value in features().items()}
    np.testing.assert_allclose(paddle.nn.functional.sigmoid(head.implicit(blank["p3"])).numpy(), 1 / 20, rtol=1e-5)
    np.testing.assert_allclose(head(blank, (64, 96))["probs"].numpy(), 1 / 20, rtol=1e-5)
    assert (Semantic(SMALL, 1).classifier.bias.numpy() == 0).all()
