"""Every head under ``ppmtl/models/heads``: one public class per file, the raw arrays of its task, losses, export."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import paddle
import pytest
from listing import class_of, modules
from paddle.pir_utils import OldIrGuard
from paddle.static import InputSpec

from ppmtl.config import resolve_part
from ppmtl.config.parts import part_names
from ppmtl.models.base import Head, StepwiseHead
from ppmtl.structures import ClassList, FeatureSpec, Sample
from ppmtl.tasks.base import Task
from ppmtl.tasks.views import View

PACKAGE = "ppmtl.models.heads"
MODULES = modules(PACKAGE)
CHANNELS, STRIDES, CLASSES = (4, 6, 8, 10), (4, 8, 16, 32), ClassList(tuple("abcde"))
NAMES = ("c2", "c3", "c4", "c5")
SPECS = {name: FeatureSpec(c, s) for name, c, s in zip(NAMES, CHANNELS, STRIDES, strict=True)}
VOCABULARY = ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", *"abcde"))
# Settings that keep the default widths of the paper out of a test
SMALL = {
    "upernet": {"channels": 8},
    "cbam_fc": {"channels": 16},
    "captions": {"width": 16, "heads": 2, "layers": 2, "feed_forward": 16, "hidden": 16, "max_length": 12},
    "dino": {"dim": 32, "feedforward": 16, "queries": 20, "encoder_layers": 2, "decoder_layers": 2, "denoising": 6},
    "setr_pup": {"reads": ("c3", "c4"), "channels": 8},
    "yolov7_af": {"prototypes": 4},
}


def classes_of(kind: type[Head]) -> ClassList:
    return VOCABULARY if kind.task_type == "captions" else CLASSES


def build(name: str) -> Head:
    paddle.seed(0)
    kind = class_of(PACKAGE, name)
    head = kind(SPECS, len(classes_of(kind)), **SMALL.get(name, {}))
    assert isinstance(head, Head)
    return head


def task_of(head: Head) -> Task[Any]:
    """A task that the head can answer; its class says what the targets and the raw arrays are."""
    classes = {kind.task_type: kind for kind in (resolve_part("ppmtl.tasks", n) for n in part_names("ppmtl.tasks"))}
    task = classes[head.task_type]("asked", classes_of(type(head)))
    assert isinstance(task, Task)
    return task


def features(size: tuple[int, int], batch: int = 2) -> dict[str, paddle.Tensor]:
    random = np.random.RandomState(0)
    shapes = {n: (batch, spec.channels, size[0] // spec.stride, size[1] // spec.stride) for n, spec in SPECS.items()}
    return {name: paddle.to_tensor(random.randn(*shape).astype(np.float32)) for name, shape in shapes.items()}


def targets(head: Head, size: tuple[int, int], batch: int = 2) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(array) for name, array in task_of(head).example_targets(batch, size).items()}


def test_the_listing_found_the_heads() -> None:
    assert len(MODULES) >= 10
    assert {"captions", "cbam_fc", "dino", "pooled_fc", "semantic", "setr_pup", "upernet", "yolov5"} <= set(MODULES)
    assert {"yolov7_af", "yolov7_af_boxes"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_head_takes_specs_and_class_count_and_annotated_keyword_settings(name: str) -> None:
    parameters = list(inspect.signature(class_of(PACKAGE, name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["in_specs", "num_classes"]
    assert len(parameters) > 2
    for p in parameters[2:]:
        assert p.kind is p.KEYWORD_ONLY, p
        assert p.annotation is not p.empty, p
        assert p.default is not p.empty, p
    forward = list(inspect.signature(class_of(PACKAGE, name).forward).parameters)
    assert forward == ["self", "features", "image_size", "targets"]


@pytest.mark.parametrize("name", MODULES)
def test_a_head_looks_at_the_features_that_it_says_it_reads_and_at_no_others(name: str) -> None:
    head = build(name)
    head.eval()
    assert head.reads
    assert set(head.reads) <= set(SPECS)
    head({feature: value for feature, value in features((64, 64)).items() if feature in head.reads}, (64, 64))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (90, 45)])
def test_raw_arrays_have_the_shapes_of_the_contract(name: str, training: bool, size: tuple[int, int]) -> None:
    head = build(name)
    head.train() if training else head.eval()
    raw = head(features(size), size)
    expected = task_of(head).raw_shapes(2, size)
    assert sorted(raw) == sorted(expected)
    for key, shape in expected.items():
        assert raw[key].dtype == paddle.float32
        assert [None if want is None else have for have, want in zip(raw[key].shape, shape, strict=True)] == list(shape)
        assert np.isfinite(raw[key].numpy()).all()
    assert all(raw[key].numpy().min() >= 0 and raw[key].numpy().max() <= 1 for key in ("probs", "scores") if key in raw)
    task = task_of(head)
    found = task.decode({key: value.numpy() for key, value in raw.items()}, 1, View(size).meta(size, "x"), single=True)
    json.dumps(task.to_json(found))


@pytest.mark.parametrize("name", MODULES)
def test_loss_terms_are_named_finite_positive_float32_scalars(name: str) -> None:
    head = build(name)
    terms = head(features((64, 96)), (64, 96), targets(head, (64, 96)))
    assert terms
    for key, term in terms.items():
        assert key.startswith("loss_")
        assert list(term.shape) == []
        assert term.dtype == paddle.float32
        assert 0 < float(term) < 1e4


def differentiate(head: Head, inputs: dict[str, paddle.Tensor], samples: list[Sample]) -> dict[str, np.ndarray]:
    """The loss terms of the samples, and the gradients of their sum by every parameter and feature."""
    head.clear_gradients()
    inputs = {name: value.detach() for name, value in inputs.items()}
    for level in inputs.values():
        level.stop_gradient = False
    arrays = task_of(head).collate(samples)
    terms = head(inputs, (64, 96), {name: paddle.to_tensor(array) for name, array in arrays.items()})
    sum(terms.values()).backward()
    parameters = {name: p for name, p in head.named_parameters() if not p.stop_gradient}
    found = {key: term.numpy() for key, term in terms.items()}
    given = {name: inputs[name] for name in head.reads} | parameters
    assert [name for name, value in given.items() if value.grad is None] == []
    return found | {name: value.grad.numpy() for name, value in given.items()}


@pytest.mark.parametrize("name", MODULES)
def test_the_loss_of_a_batch_with_missing_labels_is_that_of_the_labelled_images_alone(name: str) -> None:
    head = build(name)
    head.eval()  # batch statistics and dropout see every image, labelled or not
    task, inputs = task_of(head), features((64, 96), batch=4)
    image = np.zeros((64, 96, 3), np.uint8)
    labelled, missing = Sample("a", image, {"asked": task.example((64, 96))}), Sample("b", image)
    mixed = differentiate(head, inputs, [missing, labelled, missing, labelled])
    alone = differentiate(head, {key: value[1::2] for key, value in inputs.items()}, [labelled] * 2)
    for key, wanted in alone.items():
        found = mixed[key]
        if key in head.reads:
            assert not found[::2].any(), key
            found = found[1::2]
        # 1e-8: the bias of an attention's keys has no effect, its gradient is rounding alone
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max() + 1e-8, err_msg=key)
    assert max(np.abs(mixed[key]).max() for key in head.reads) > 0


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_without_any_label_costs_nothing_and_gives_every_parameter_a_gradient_of_zeros(name: str) -> None:
    head = build(name)
    head.train()
    found = differentiate(head, features((64, 96)), [Sample("b", np.zeros((64, 96, 3), np.uint8))] * 2)
    assert len(found) > 5
    assert [key for key, value in found.items() if not (value == 0).all()] == []  # NaN is not 0


@pytest.mark.parametrize("name", MODULES)
def test_every_trained_parameter_and_every_used_feature_gets_a_gradient(name: str) -> None:
    head, inputs = build(name), features((64, 96))
    head.train()
    for level in inputs.values():
        level.stop_gradient = False
    sum(head(inputs, (64, 96), targets(head, (64, 96))).values()).backward()
    parameters = {key: p for key, p in head.named_parameters() if not p.stop_gradient}
    assert len(parameters) >= 4
    assert [key for key, p in parameters.items() if p.grad is None or not np.isfinite(p.grad.numpy()).all()] == []
    assert all(inputs[feature].grad is not None for feature in head.reads)


@pytest.mark.parametrize("name", MODULES)
def test_evaluation_repeats_and_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    head = build(name)
    head.eval()
    both = features((64, 64))
    first, again = head(both, (64, 64)), head(both, (64, 64))
    alone = head({feature: level[1:] for feature, level in both.items()}, (64, 64))
    for key in first:
        np.testing.assert_array_equal(first[key].numpy(), again[key].numpy())
        np.testing.assert_allclose(first[key].numpy()[1:], alone[key].numpy(), rtol=1e-4, atol=1e-5)


class Exportable(paddle.nn.Layer):
    """A head with its image size taken from the graph, as the whole model does it."""

    def __init__(self, head: paddle.nn.Layer) -> None:
        super().__init__()
        self.head = head

    def forward(self, image, s4, s8, s16, s32):
        size = paddle.shape(image)
        raw = self.head({"c2": s4, "c3": s8, "c4": s16, "c5": s32}, (size[2], size[3]))
        used = image.sum() + s4.sum() + s8.sum() + s16.sum() + s32.sum()  # the exporter refuses inputs without a use
        return [used, *[raw[key] for key in sorted(raw)]]


@pytest.mark.parametrize("name", [n for n in MODULES if not issubclass(class_of(PACKAGE, n), StepwiseHead)])
def test_the_exported_graph_equals_eager_at_sizes_it_was_not_traced_with(name: str, tmp_path) -> None:
    head = build(name)
    head.eval()
    specs = [InputSpec([None, c, None, None], "float32") for c in (3, *CHANNELS)]
    wrapped = Exportable(head)
    wrapped.eval()
    paddle.jit.save(wrapped, str(tmp_path / "net"), input_spec=specs)
    loaded = paddle.jit.load(str(tmp_path / "net"))
    for size, batch in (((64, 96), 1), ((90, 45), 2)):
        inputs = features(size, batch)
        outputs = loaded(paddle.zeros([batch, 3, *size]), *inputs.values())[1:]
        raw = head(inputs, size)
        for key, output in zip(sorted(raw), outputs, strict=True):
            np.testing.assert_allclose(output.numpy(), raw[key].numpy(), rtol=1e-4, atol=1e-5)


class Beginning(paddle.nn.Layer):
    def __init__(self, head: StepwiseHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, feature):
        return self.head.begin({self.head.reads[0]: feature})


class Step(Beginning):
    def forward(self, tokens, rows, state, memory):
        return self.head.step(tokens, rows, state, memory)


def load_graph(path: str, *, old_format: bool) -> Callable[..., list[paddle.Tensor]]:
    """The graph as a function; paddle.jit.load takes the new format only, Paddle Inference both."""
    if not old_format:
        return paddle.jit.load(path)
    config = paddle.inference.Config(f"{path}.pdmodel", f"{path}.pdiparams")
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    return lambda *inputs: predictor.run(list(inputs))


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("name", [n for n in MODULES if issubclass(class_of(PACKAGE, n), StepwiseHead)])
def test_both_exported_graphs_of_a_stepwise_head_equal_eager_at_any_size(name: str, old_format: bool, tmp_path) -> None:
    head = build(name)
    head.eval()
    assert isinstance(head, StepwiseHead)
    assert len(head.reads) == 1
    of_two, of_one = ({key: value for key, value in features(size, batch).items() if key in head.reads}
                      for size, batch in (((64, 96), 2), ((32, 64), 1)))  # fmt: skip
    _, state, memory = head.begin(of_two)
    free = [[None, *value.shape[1:]] for value in of_two.values()]
    free[0][2:] = [None, None]
    rest = [[n if i in (0, 1, 3, 5) else None for i, n in enumerate(value.shape)] for value in (state, memory)]
    whole = [InputSpec([None], "int64"), InputSpec([None], "int64"), *(InputSpec(shape, "float32") for shape in rest)]
    layers = {"begin": Beginning(head), "step": Step(head)}
    with OldIrGuard() if old_format else nullcontext():
        for file, specs in (("begin", [InputSpec(free[0], "float32")]), ("step", whole)):
            layers[file].eval()
            paddle.jit.save(layers[file], str(tmp_path / file), input_spec=specs)
    begin, step = (load_graph(str(tmp_path / file), old_format=old_format) for file in ("begin", "step"))
    for inputs in (of_two, of_one):
        eager, exported = head.begin(inputs), begin(*inputs.values())
        rows = paddle.to_tensor(np.repeat(np.arange(len(eager[0])), 3))  # three sequences of every image
        for _ in range(3):
            for wanted, found in zip(eager, exported, strict=True):
                np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
            tokens = paddle.to_tensor(np.arange(len(rows)) % 5 + 4)
            eager = [*head.step(tokens, rows, eager[1], eager[2]), eager[2]]
            exported = [*step(tokens, rows, *exported[1:]), exported[2]]
            rows = paddle.arange(len(rows)).flip(0).reshape([-1, 3]).flip(0).flatten()  # another order within an image


@pytest.mark.parametrize("name", MODULES)
def test_a_head_says_how_many_anchors_would_learn_an_object_or_that_it_has_none(name: str) -> None:
    sides = np.array([[30, 40], [1e5, 1e5]], np.float32)
    counts = class_of(PACKAGE, name).answered(sides, **SMALL.get(name, {}))  # type: ignore[attr-defined]
    assert counts is None or (counts.shape == (2,) and counts[0] > 0 and counts[1] == 0)
