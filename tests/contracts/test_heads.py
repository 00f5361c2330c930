"""Every head under ``ppmtl/models/heads``: one public class per file, the raw arrays of its task, losses, export."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

import ppmtl.models.heads
from ppmtl.structures import FeatureSpec

MODULES = sorted(m.name for m in pkgutil.iter_modules(ppmtl.models.heads.__path__) if not m.name.startswith("_"))
CHANNELS, STRIDES, CLASSES = (4, 6, 8, 10), (4, 8, 16, 32), 5
SPECS = tuple(FeatureSpec(c, s) for c, s in zip(CHANNELS, STRIDES, strict=True))
# Settings that keep the default widths of the paper out of a test
SMALL = {"upernet": {"channels": 8}, "cbam_fc": {"channels": 16}}


def class_of(module_name: str) -> type:
    module = importlib.import_module(f"ppmtl.models.heads.{module_name}")
    classes = [
        c
        for name, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(classes) == 1, f"{module_name}: one public class per file, got {classes}"
    return classes[0]


def build(name: str) -> paddle.nn.Layer:
    paddle.seed(0)
    return class_of(name)(SPECS, CLASSES, **SMALL.get(name, {}))


def features(size: tuple[int, int], batch: int = 2) -> list[paddle.Tensor]:
    random = np.random.RandomState(0)
    shapes = [(batch, spec.channels, size[0] // spec.stride, size[1] // spec.stride) for spec in SPECS]
    return [paddle.to_tensor(random.randn(*shape).astype(np.float32)) for shape in shapes]


def targets(task_type: str, size: tuple[int, int], batch: int = 2) -> dict[str, paddle.Tensor]:
    """Returns what ``Task.collate`` makes for two pictures."""
    random = np.random.RandomState(1)
    if task_type == "segmentation":
        label_map = random.randint(0, CLASSES, (batch, *size))
        label_map[:, :5] = 255
        return {"label_map": paddle.to_tensor(label_map)}
    if task_type == "classification":
        return {"class_index": paddle.to_tensor(random.randint(0, CLASSES, batch))}
    rows = [[0, 1, 0.5, 0.5, 0.3, 0.3], [1, 4, 0.3, 0.6, 0.1, 0.2], [-1, 0, 0, 0, 0, 0]]
    return {"boxes": paddle.to_tensor(np.array(rows, np.float32))}


def expected_shapes(task_type: str, size: tuple[int, int], batch: int) -> dict[str, list[int | None]]:
    """Returns the raw contract; None = any."""
    return {
        "segmentation": {"probs": [batch, CLASSES, *size]},
        "classification": {"probs": [batch, CLASSES]},
        "detection": {"boxes": [batch, None, 4], "scores": [batch, None, CLASSES]},
    }[task_type]


def test_the_listing_found_the_heads() -> None:
    assert len(MODULES) == 3
    assert MODULES == ["cbam_fc", "upernet", "yolov5"]
    assert sorted(class_of(name).task_type for name in MODULES) == ["classification", "detection", "segmentation"]


@pytest.mark.parametrize("name", MODULES)
def test_a_head_takes_specs_and_class_count_and_annotated_keyword_settings(name: str) -> None:
    parameters = list(inspect.signature(class_of(name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["in_specs", "num_classes"]
    assert len(parameters) > 2
    for p in parameters[2:]:
        assert p.kind is p.KEYWORD_ONLY, p
        assert p.annotation is not p.empty, p
        assert p.default is not p.empty, p
    forward = list(inspect.signature(class_of(name).forward).parameters)
    assert forward == ["self", "features", "image_size", "targets"]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (90, 45)])
def test_raw_arrays_have_the_shapes_of_the_contract(name: str, training: bool, size: tuple[int, int]) -> None:
    head = build(name)
    head.train() if training else head.eval()
    raw = head(features(size), size)
    expected = expected_shapes(head.task_type, size, 2)
    assert sorted(raw) == sorted(expected)
    for key, shape in expected.items():
        assert raw[key].dtype == paddle.float32
        assert [None if want is None else have for have, want in zip(raw[key].shape, shape, strict=True)] == shape
        assert np.isfinite(raw[key].numpy()).all()
    if "probs" in raw:
        np.testing.assert_allclose(raw["probs"].numpy().sum(axis=1), 1, atol=1e-5)
    else:
        assert raw["boxes"].shape[1] == raw["scores"].shape[1] > 0
        assert ((raw["scores"].numpy() >= 0) & (raw["scores"].numpy() <= 1)).all()


@pytest.mark.parametrize("name", MODULES)
def test_loss_terms_are_named_finite_positive_float32_scalars(name: str) -> None:
    head = build(name)
    terms = head(features((64, 96)), (64, 96), targets(head.task_type, (64, 96)))
    assert terms
    for key, term in terms.items():
        assert key.startswith("loss_")
        assert list(term.shape) == []
        assert term.dtype == paddle.float32
        assert 0 < float(term) < 1e4


@pytest.mark.parametrize("name", MODULES)
def test_every_trained_parameter_and_every_used_feature_gets_a_gradient(name: str) -> None:
    head, inputs = build(name), features((64, 96))
    head.train()
    for level in inputs:
        level.stop_gradient = False
    sum(head(inputs, (64, 96), targets(head.task_type, (64, 96))).values()).backward()
    parameters = {key: p for key, p in head.named_parameters() if not p.stop_gradient}
    assert len(parameters) > 5
    assert [key for key, p in parameters.items() if p.grad is None or not np.isfinite(p.grad.numpy()).all()] == []
    assert inputs[-1].grad is not None  # so that the whole backbone is trained


@pytest.mark.parametrize("name", MODULES)
def test_evaluation_repeats_and_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    head = build(name)
    head.eval()
    both = features((64, 64))
    first, again = head(both, (64, 64)), head(both, (64, 64))
    alone = head([level[1:] for level in both], (64, 64))
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
        raw = self.head([s4, s8, s16, s32], (size[2], size[3]))
        used = image.sum() + s4.sum() + s8.sum() + s16.sum() + s32.sum()  # the exporter refuses inputs without a use
        return [used, *[raw[key] for key in sorted(raw)]]


@pytest.mark.parametrize("name", MODULES)
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
        outputs = loaded(paddle.zeros([batch, 3, *size]), *inputs)[1:]
        raw = head(inputs, size)
        for key, output in zip(sorted(raw), outputs, strict=True):
            np.testing.assert_allclose(output.numpy(), raw[key].numpy(), rtol=1e-4, atol=1e-5)
