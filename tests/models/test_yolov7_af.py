"""The anchor-free heads: forward, decoding, loss and gradients against the reference's numbers; partly missing labels."""

import math

import numpy as np
import paddle
import pytest
from golden_weights import parameter_count
from test_yolov7_af_backbone import BODY
from yolor_golden import assert_equals, fill, golden, hv

from ppmtl.bundle.graphs import inference_copy
from ppmtl.models.backbones import yolov7_af
from ppmtl.models.heads import _yolov7_af_loss as losses
from ppmtl.models.heads._yolov7_af_parts import BINS
from ppmtl.models.heads.semantic import Semantic
from ppmtl.models.heads.yolov7_af import YOLOv7AF
from ppmtl.models.heads.yolov7_af_boxes import YOLOv7AFBoxes
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import FeatureSpec

NAMES, SIZES, IMAGE = ("p3", "p4", "p5"), ((8, 12), (4, 6), (2, 3)), (64, 96)
DETECT, DETECT_LOSS, MASK_LOSS = golden("af_detect"), golden("detect_loss"), golden("mask_loss")


def specs(*channels: int) -> dict[str, FeatureSpec]:
    return {name: FeatureSpec(c, s) for name, c, s in zip(NAMES, channels, (8, 16, 32), strict=True)}


def branch_names(ours: str, theirs: str) -> dict[str, str]:
    parts = ("conv1", "conv2", "output")
    return {f"{ours}.{level}.{part}": f"{theirs}.{level}.{i}" for level in range(3) for i, part in enumerate(parts)}


def reference_names(theirs: str) -> dict[str, str]:
    return {**branch_names("detection.boxes", f"{theirs}.cv2"), **branch_names("detection.classes", f"{theirs}.cv3")}


def reference_boxes(raw: dict[str, paddle.Tensor]) -> np.ndarray:
    """(B, 4 + C, A) cx, cy, w, h and scores: the layout of the reference's output."""
    boxes, scores = raw["boxes"].numpy(), raw["scores"].numpy()
    centred = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2], scores], axis=2)
    return centred.transpose(0, 2, 1)


def detect_head(**changes) -> YOLOv7AFBoxes:
    paddle.seed(0)
    return YOLOv7AFBoxes(specs(16, 32, 64), 5, implicit=False, **changes)


def test_maps_and_decoded_boxes_equal_the_reference():
    head = detect_head()
    fill(head, reference_names("head"))
    head.eval()
    inputs = [hv(f"detect.in.{i}", (1, c, *SIZES[i]), -1, 1) for i, c in enumerate((16, 32, 64))]
    features = {name: paddle.to_tensor(value) for name, value in zip(NAMES, inputs, strict=True)}
    boxes, classes = head._detection_maps(list(features.values()))
    for level, expected in enumerate(DETECT["forward"]["raw_p3_p4_p5"]):
        assert_equals(paddle.concat([boxes[level], classes[level]], axis=1), expected, atol=1e-4, rtol=1e-4)
    assert_equals(reference_boxes(head(features, IMAGE)), DETECT["forward"]["decoded"], atol=1e-4, rtol=1e-5)


def test_decoding_alone_equals_the_reference():
    head = detect_head()
    raw = [paddle.to_tensor(hv(f"detect.raw.{i}", (1, 69, *size), -4, 4)) for i, size in enumerate(SIZES)]
    found = head._decoded([level[:, :64] for level in raw], [level[:, 64:] for level in raw])
    assert_equals(reference_boxes(found), DETECT["decode_only"]["decoded"], atol=1e-4, rtol=1e-6)


def test_biases_begin_at_the_prior_of_five_objects_in_an_image():
    for classes, key in ((5, "nc5"), (80, "nc80")):
        head, expected = YOLOv7AFBoxes(specs(256, 512, 1024), classes), DETECT["bias_init"][key]
        found = [branch.output.bias.numpy() for branch in head.detection["classes"]]
        for bias, value in zip(found, expected["cls_stride_8_16_32"], strict=True):
            np.testing.assert_allclose(bias, value, atol=1e-6)
        assert all((branch.output.bias.numpy() == expected["box"]).all() for branch in head.detection["boxes"])
        assert head.detection["boxes"][0].conv1.conv.weight.shape[0] == expected["box_hidden"]
        assert head.detection["classes"][0].conv1.conv.weight.shape[0] == expected["cls_hidden"]


def test_prototypes_coefficients_and_boxes_of_the_panoptic_model_equal_the_reference():
    body = golden("yolov7_af_body")["panoptic_head_eval"]
    net = yolov7_af.YOLOv7AF(width_multiplier=1 / 8)
    head = YOLOv7AF(net.out_specs, 80, implicit=False, prototypes=8, prototype_channels=256)
    fill(net, BODY, gain=2.8)
    prototypes = {f"prototypes.conv{i}": f"model.105.proto.cv{i}" for i in (1, 2, 3)}
    fill(
        head, {**reference_names("model.105"), **prototypes, **branch_names("coefficients", "model.105.cv4")}, gain=2.8
    )
    net.eval()
    head.eval()
    raw = head(net(paddle.to_tensor(hv("body.in", (1, 3, 128, 128), 0, 1))), (128, 128))
    assert_equals(raw["prototypes"], body["proto"], atol=1e-3 * body["proto"]["std"])
    coefficients = raw["coefficients"].transpose([0, 2, 1])
    assert_equals(coefficients, body["coefficients"], atol=1e-3 * body["coefficients"]["std"])
    together = np.concatenate([reference_boxes(raw), coefficients.numpy()], axis=1)
    assert_equals(together, body["decoded_with_coefficients"], atol=1e-3 * body["decoded_with_coefficients"]["std"])


def test_full_size_counts_are_the_references():
    expected = golden("yolov7_af_body")["params_full_size_width_1"]
    head = YOLOv7AF(specs(256, 512, 1024), 80, implicit=False)
    # The reference keeps the numbers 0 to 15 of the distribution as a frozen convolution; here they are no parameters
    assert parameter_count(head.detection) + BINS == expected["detect_total"] == 7_119_040
    assert parameter_count(head.detection["boxes"]) == expected["detect_box_cv2"]
    assert parameter_count(head.detection["classes"]) == expected["detect_cls_cv3"]
    assert parameter_count(head.prototypes) == expected["proto"] == 1_188_928
    assert parameter_count(head.coefficients) == expected["coefficients_cv4"] == 1_149_792
    assert parameter_count(head.implicit) == 0
    with_implicit = YOLOv7AF(specs(256, 512, 1024), 80)
    assert parameter_count(with_implicit.implicit) == 3 * (64 + 64) + 3 * (256 + 80) + 3 * (64 + 32)
    assert parameter_count(with_implicit) == parameter_count(head) + 1_680


def test_what_is_exported_has_no_implicit_vectors_left_and_the_same_outputs():
    paddle.seed(3)
    body = yolov7_af.YOLOv7AF(width_multiplier=0.05)
    model = MultiTaskModel(body, {"inst": YOLOv7AF(body.out_specs, 5), "seg": Semantic(body.out_specs, 4)})
    for name, parameter in model.named_parameters():
        if "implicit" in name:
            parameter.set_value(parameter + 0.5 * paddle.randn(parameter.shape))
    model.train()
    images = paddle.randint(0, 256, [2, 64, 96, 3]).astype("uint8")
    model(images)  # statistics that are not 0 and 1
    model.eval()
    exported = inference_copy(model)
    left = [name for name, _ in exported.named_parameters() if "implicit" in name]
    assert left == []
    found, expected = exported(images), model(images)
    for task, arrays in expected.items():
        for name, value in arrays.items():
            np.testing.assert_allclose(found[task][name].numpy(), value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


def loss_maps(stop_gradient: bool = False) -> list[paddle.Tensor]:
    """The raw maps of the golden loss, one per level: 64 box channels, 3 class channels."""
    slope = np.concatenate([np.tile(0.4 * np.arange(16), 4), np.ones(3)]).reshape(1, -1, 1, 1)
    maps = [(hv(f"loss.raw.{i}", (2, 67, *size), -2, 2).astype(np.float64) - slope) for i, size in enumerate(SIZES)]
    return [paddle.to_tensor(level.astype(np.float32), stop_gradient=stop_gradient) for level in maps]


def detection_terms(maps, targets, **changes):
    head = YOLOv7AFBoxes(specs(16, 32, 64), 3, **changes)
    boxes, classes = [level[:, :64] for level in maps], [level[:, 64:] for level in maps]
    return head._detection_loss(boxes, classes, targets, IMAGE)


def rows(values) -> paddle.Tensor:
    return paddle.to_tensor(np.array(values, np.float32).reshape(-1, 6))


TARGETS = {"boxes": rows(DETECT_LOSS["targets_img_cls_cxcywh"])}


def test_terms_matches_and_gradients_equal_the_reference():
    maps = loss_maps()
    terms, _, matches = detection_terms(maps, TARGETS)
    order = dict(zip(DETECT_LOSS["order_of_parts"], DETECT_LOSS["parts_with_gain"], strict=True))
    for name, value in order.items():
        assert float(terms[f"loss_{name}"]) == pytest.approx(value, rel=1e-5), name
    assert np.stack([matches.image, matches.cell], 1).tolist() == DETECT_LOSS["positives_image_anchor"]
    np.testing.assert_allclose(matches.score, DETECT_LOSS["target_score_of_positives"], rtol=1e-5)
    assert matches.divisor == pytest.approx(DETECT_LOSS["target_scores_sum"], rel=1e-6)
    (sum(terms.values()) * 2).backward()  # the reference's total is times the batch
    assert float(sum(terms.values()) * 2) == pytest.approx(DETECT_LOSS["total"], rel=1e-5)
    gradients = [level.grad.numpy() for level in maps]
    for name, part in (("box", slice(0, 64)), ("cls", slice(64, 67))):
        norms = [np.linalg.norm(gradient[:, part].astype(np.float64)) for gradient in gradients]
        np.testing.assert_allclose(norms, DETECT_LOSS["grad_total"][name], rtol=1e-4)
    for gradient, expected in zip(gradients, DETECT_LOSS["grad_total_samples"], strict=True):
        assert_equals(gradient, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("term", ["box", "dfl"])
def test_the_gradient_of_each_box_term_equals_the_reference(term):
    maps = loss_maps()
    detection_terms(maps, TARGETS, box_weight=1.0, distribution_weight=1.0)[0][f"loss_{term}"].backward()
    expected = DETECT_LOSS[f"grad_{term}_term_without_gain"]
    np.testing.assert_allclose([np.linalg.norm(m.grad.numpy()[:, :64]) for m in maps], expected["box"], rtol=1e-4)
    np.testing.assert_allclose([np.linalg.norm(m.grad.numpy()[:, 64:]) for m in maps], expected["cls"])


def test_a_side_longer_than_the_distribution_reaches_is_asked_for_its_last_bins():
    bins = np.zeros((1, 4, BINS), np.float32)
    bins[0, :, 15] = math.log(16)  # shares of 1/31, and 16/31 for the last
    sides = paddle.to_tensor([[20.0, 15.0, 2.25, -1.0]])
    short, long = math.log(31), math.log(31 / 16)
    expected = np.mean([0.01 * short + 0.99 * long] * 2 + [short] * 2)
    assert float(losses._distribution_loss(paddle.to_tensor(bins), sides)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("targets", [[-1] * 6, DETECT_LOSS["edge"]["box_without_anchor_centre"]["targets"][0]])
def test_without_any_match_only_the_class_term_is_paid_and_every_map_has_a_gradient(targets):
    maps = loss_maps()
    terms, _, _ = detection_terms(maps, {"boxes": rows([targets])})
    expected = DETECT_LOSS["edge"]["no_boxes_parts"]
    np.testing.assert_allclose([float(terms[f"loss_{n}"]) for n in ("box", "cls", "dfl")], expected, rtol=1e-5)
    sum(terms.values()).backward()
    for level in maps:
        assert (level.grad.numpy()[:, :64] == 0).all()
        assert (level.grad.numpy()[:, 64:] != 0).all()


def index_masks() -> np.ndarray:
    """(6, 16, 24) the golden masks in the order of the target rows."""
    maps = np.array([[[int(c) for c in line] for line in image] for image in MASK_LOSS["gt_index_maps"]["rows"]])
    return np.stack([maps[image] == k for image, k in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2))])


def mask_case(masks=None, has_mask=None, **targets):
    proto = paddle.to_tensor(hv("loss.proto", (2, 4, 16, 24), -1.5, 1.5), stop_gradient=False)
    coefficients = paddle.to_tensor(hv("loss.coef", (2, 4, 126), -2, 2), stop_gradient=False)
    _, objects, matches = detection_terms(loss_maps(), TARGETS | targets)
    masks = paddle.to_tensor((index_masks() if masks is None else masks).astype(np.uint8))
    has_mask = paddle.to_tensor(np.ones(6, np.float32) if has_mask is None else np.array(has_mask, np.float32))
    return losses.mask_loss(coefficients, proto, objects, matches, masks, has_mask), coefficients, proto


def test_the_mask_term_and_its_gradients_equal_the_reference():
    term, coefficients, proto = mask_case()
    assert float(term) * 2.5 == pytest.approx(MASK_LOSS["mask_term_with_gain"], rel=1e-5)
    (term * 2.5).backward()
    assert np.linalg.norm(proto.grad.numpy()) == pytest.approx(MASK_LOSS["grad_norm"]["proto"], rel=1e-4)
    assert np.linalg.norm(coefficients.grad.numpy()) == pytest.approx(MASK_LOSS["grad_norm"]["coef"], rel=1e-4)
    assert_equals(proto.grad, MASK_LOSS["grad_proto"], atol=1e-7, rtol=1e-4)
    assert_equals(coefficients.grad, MASK_LOSS["grad_coef"], atol=1e-7, rtol=1e-4)


def test_the_mask_term_of_one_image_with_given_pairs_equals_the_reference():
    case = MASK_LOSS["single_image"]
    proto = paddle.to_tensor(hv("mask.proto", (4, 8, 10), -1.5, 1.5)[None], stop_gradient=False)
    chosen = paddle.to_tensor(
        hv("mask.coef", (3, 4), -2, 2).T[None], stop_gradient=False
    )  # cell i answers for object i
    boxes = np.array(case["boxes_mask_px"], np.float32) / np.array([10, 8, 10, 8], np.float32)
    np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), case["area"], rtol=1e-6)
    index = np.arange(3)
    objects = losses.Objects(index * 0, index * 0, boxes, np.ones(1, np.float32), index)
    matches = losses.Matches(index * 0, index, index, np.ones(3, np.float32), 3.0)
    masks = paddle.to_tensor((hv("mask.gt", (3, 8, 10), 0, 1) < 0.5).astype(np.uint8))
    term = losses.mask_loss(chosen, proto, objects, matches, masks, paddle.ones([3]))
    assert float(term) == pytest.approx(case["loss"], rel=1e-5)
    term.backward()
    assert_equals(proto.grad[0], case["grad_proto"], atol=1e-7, rtol=1e-4)
    assert_equals(chosen.grad[0].T, case["grad_coef"], atol=1e-7, rtol=1e-4)


def test_masks_put_together_from_the_raw_arrays_equal_the_reference():
    case, size = MASK_LOSS["assembly"], (16, 24)
    proto, coefficients = hv("asm14.proto", (4, *size), -1.5, 1.5), hv("asm14.coef", (3, 4), -2, 2)
    probability = 1 / (1 + np.exp(-np.einsum("nk,khw->nhw", coefficients, proto)))
    assert_equals(probability, case["prob"], atol=1e-5)
    inside = losses._inside(np.array(case["boxes_px"], np.float32) / 4, *size)
    for mask, runs in zip((probability * inside) > 0.5, case["low_16x24"], strict=True):
        expected = np.repeat(np.arange(len(runs)) % 2, runs)
        assert mask.ravel().astype(int).tolist() == expected.tolist()


def test_objects_without_a_mask_do_not_enter_the_mask_term():
    wrong = index_masks()
    wrong[2] = ~wrong[2]
    hidden = [1, 1, 0, 1, 1, 1]
    assert float(mask_case(has_mask=hidden)[0]) == float(mask_case(wrong, hidden)[0])
    assert float(mask_case()[0]) != float(mask_case(wrong)[0])
    term, coefficients, proto = mask_case(has_mask=[0] * 6)
    term.backward()
    assert float(term) == 0.0
    assert (coefficients.grad.numpy() == 0).all()
    assert (proto.grad.numpy() == 0).all()


def test_an_unsupervised_image_is_neither_object_nor_background():
    alone = [row for row in DETECT_LOSS["targets_img_cls_cxcywh"] if row[0] == 0]
    maps, mask = loss_maps(), paddle.to_tensor([1.0, 0.0])
    terms, _, _ = detection_terms(maps, {"boxes": rows(alone), "supervised": mask})
    single = [level[:1] for level in loss_maps(stop_gradient=True)]
    expected, _, _ = detection_terms(single, {"boxes": rows(alone)})
    for name, term in terms.items():
        assert float(term) == pytest.approx(float(expected[name]), rel=1e-6), name
    sum(terms.values()).backward()
    assert all((level.grad.numpy()[1] == 0).all() for level in maps)


def test_a_batch_that_nobody_supervised_costs_exactly_nothing_and_gives_zero_gradients():
    paddle.seed(0)
    head = YOLOv7AF(specs(16, 32, 64), 3)
    features = {n: paddle.randn([2, c, *size]) for n, c, size in zip(NAMES, (16, 32, 64), SIZES, strict=True)}
    targets = {"boxes": rows([[-1] * 6]), "supervised": paddle.zeros([2]),
               "masks": paddle.zeros([1, 16, 24], "uint8"), "has_mask": paddle.zeros([1])}  # fmt: skip
    terms = head(features, IMAGE, targets)
    assert [float(term) for term in terms.values()] == [0.0] * 4
    sum(terms.values()).backward()
    trained = [p for p in head.parameters() if not p.stop_gradient]
    assert len(trained) > 50
    assert all((p.grad.numpy() == 0).all() for p in trained)


def test_a_few_steps_on_one_batch_make_every_term_smaller():
    paddle.seed(0)
    head = YOLOv7AF(specs(16, 32, 64), 3, prototypes=8)
    features = {n: paddle.randn([2, c, *size]) for n, c, size in zip(NAMES, (16, 32, 64), SIZES, strict=True)}
    targets = TARGETS | {"masks": paddle.to_tensor(index_masks().astype(np.uint8)), "has_mask": paddle.ones([6])}
    optimizer = paddle.optimizer.AdamW(3e-3, parameters=head.parameters())
    history = []
    for _ in range(40):
        terms = head(features, IMAGE, targets)
        history.append({name: float(term) for name, term in terms.items()})
        sum(terms.values()).backward()
        optimizer.step()
        optimizer.clear_grad()
    assert all(math.isfinite(value) for step in history for value in step.values())
    assert all(history[-1][name] < 0.7 * history[0][name] for name in history[0]), (history[0], history[-1])


@pytest.mark.parametrize("row", [[2, 0, 0.5, 0.5, 0.1, 0.1], [0, 3, 0.5, 0.5, 0.1, 0.1], [0, -1, 0.5, 0.5, 0.1, 0.1]])
def test_a_row_that_names_no_image_or_class_is_refused(row):
    with pytest.raises(ValueError, match=r"yolov7_af: target row .* images are 0\.\.1 and classes 0\.\.2"):
        detection_terms(loss_maps(), {"boxes": rows([row])})


def test_features_in_the_wrong_order_and_missing_strides_are_refused():
    with pytest.raises(ValueError, match=r"finest first.*got strides \[16, 8, 32\]"):
        YOLOv7AFBoxes(specs(4, 4, 4), 2, reads=("p4", "p3", "p5"))
    with pytest.raises(ValueError, match=r"YOLOv7AF reads .*got strides \[8, 16\]: name the features with reads"):
        YOLOv7AF({name: spec for name, spec in specs(4, 4, 4).items() if name != "p5"}, 2)
    assert YOLOv7AF(specs(4, 4, 4), 2, reads=("p3", "p4")).strides == [8, 16]
