"""Written bundles: what is in their graphs and settings, and that they compute what the training graph does."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from small_bundle import TASKS, assert_equal, count, noise, stored

import ppmtl
from ppmtl.bundle import graphs
from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.writing import write_bundle
from ppmtl.files import sha256
from ppmtl.models.backbones.vit import ViT
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.base import Backbone
from ppmtl.models.heads.pooled_fc import PooledFC
from ppmtl.models.heads.setr_pup import SETRPUP
from ppmtl.models.layers import ConvBNReLU, ConvBNSiLU, Foldable
from ppmtl.models.multitask import MultiTaskModel

STEMS = ("trunk", "head_seg", "head_cls", "head_det")


@pytest.mark.parametrize("mkldnn", [True, False])
def test_a_pdmodel_bundle_equals_the_training_graph_at_any_size(model, paddle_bundle, mkldnn):
    backend, wanted = open_backend(read_bundle(paddle_bundle), mkldnn=mkldnn, cpu_threads=1), PaddleBackend(model)
    for shape in ((64, 96), (90, 45, 2), (45, 130)):  # the last two are smaller than six pooling bins of 32 px
        assert_equal(backend(noise(*shape), TASKS), wanted(noise(*shape), TASKS))


@pytest.mark.parametrize("pointwise", ["linear", "conv"])
def test_a_json_bundle_equals_the_training_graph_with_linears_and_convolutions(model, content, tmp_path, pointwise):
    write_bundle(tmp_path / "b", model, content, graph_format="paddle-json", pointwise=pointwise)
    wanted = PaddleBackend(model)(noise(90, 45, 2), TASKS)
    for mkldnn in (True, False):
        backend = open_backend(read_bundle(tmp_path / "b"), mkldnn=mkldnn, cpu_threads=1)
        assert_equal(backend(noise(90, 45, 2), TASKS), wanted)


@pytest.mark.parametrize("graph_format", ["paddle", "paddle-json"])
def test_a_vit_and_a_head_with_its_own_normalisation_equal_the_training_graph(content, tmp_path, graph_format):
    paddle.seed(0)
    sizes = {"window": 3, "global_blocks": (1, 3), "relative_grid": 5, "position_grid": 4}
    backbone = ViT(dim=24, depth=4, num_heads=2, tokens=(1, 3), **sizes)
    specs = backbone.out_specs
    heads = {"seg": SETRPUP(specs, 3, reads=("tokens1", "tokens3"), channels=8), "cls": PooledFC(specs, 5, reads="p5")}
    model = MultiTaskModel(backbone, heads, own={"seg": ((0.5, 0.4, 0.5), (0.5, 0.6, 0.5))})
    for name, parameter in model.named_parameters():
        if "rel_pos" in name or name.endswith(("bias", "pos_embed")):  # zeros would be right whatever becomes of them
            parameter.set_value(paddle.randn(parameter.shape) * 0.5)
    model.eval()
    tasks = {name: content.tasks[name] for name in heads}
    classes = {name: content.classes[name] for name in heads}
    of_two = dataclasses.replace(content, tasks=tasks, classes=classes)
    settings = write_bundle(tmp_path / "b", model, of_two, graph_format=graph_format)
    assert (settings.trunk.images, settings.heads["cls"].pixels) == ("float32", None)
    wanted = PaddleBackend(model)
    for mkldnn in (True, False):
        backend = open_backend(read_bundle(tmp_path / "b"), mkldnn=mkldnn, cpu_threads=1)
        for shape in ((64, 96), (128, 160, 2), (90, 75)):
            assert_equal(backend(noise(*shape), tuple(heads)), wanted(noise(*shape), tuple(heads)))


def test_a_fixed_input_is_written_into_graphs_views_and_settings(model, content, tmp_path):
    write_bundle(tmp_path / "b", model, content, size=(64, 96), batch=2)
    bundle = read_bundle(tmp_path / "b")
    assert (bundle.settings.input.size, bundle.settings.input.batch) == ((64, 96), 2)
    assert bundle.settings.infer.size == (64, 96)
    assert all("image_size" not in head.inputs for head in bundle.settings.heads.values())
    for task in bundle.tasks.values():  # scales and long_side of the config would ask for sizes that the graph refuses
        assert {view.size for augment in (True, False) for view in task.views((50, 70), augment=augment)} == {(64, 96)}
    assert [len(task.views((50, 70), augment=True)) for task in bundle.tasks.values()] == [2, 2, 1]  # mirroring stays
    backend = open_backend(bundle, cpu_threads=1)
    assert_equal(backend(noise(64, 96, 3), TASKS), PaddleBackend(model)(noise(64, 96, 3), TASKS))


def test_every_parameter_of_evaluation_is_stored_once_and_nothing_else(model, paddle_bundle):
    copied = graphs.inference_copy(model)
    wanted = [p.shape for name, p in copied.named_parameters() if ".aux." not in name] + [[3], [3]]  # mean and std
    files = {stem: stored(paddle_bundle, stem)[0] for stem in STEMS}
    assert sum(count(file.values()) for file in files.values()) == count(wanted)
    names = [name for file in files.values() for name in file]
    assert len(names) == len(set(names)) == len(wanted)
    size = sum((paddle_bundle / f"{stem}.pdiparams").stat().st_size for stem in files)
    assert 4 * count(wanted) < size < 4 * count(wanted) + 100 * len(wanted)  # a header of some 30 bytes each
    assert any(".aux." in name for name, _ in copied.named_parameters())


def test_no_operator_is_left_that_only_training_needs_or_that_paddle_2_6_cannot_load(paddle_bundle):
    found = set().union(*(stored(paddle_bundle, stem)[1] for stem in STEMS))
    assert {"conv2d", "layer_norm"} <= found
    assert not {"batch_norm", "dropout", "uniform_random", "floor", "assign_value"} & found


def test_graphs_carry_no_path_of_the_machine(paddle_bundle):
    for file in paddle_bundle.iterdir():
        assert b"site-packages" not in file.read_bytes(), file
        assert str(Path(graphs.__file__).parent).encode() not in file.read_bytes(), file


def test_features_that_no_chosen_head_reads_are_not_exported(model, content, tmp_path):
    only = dataclasses.replace(content, **{f: {"cls": getattr(content, f)["cls"]} for f in ("tasks", "classes")})
    settings = write_bundle(tmp_path / "b", model, only)
    assert settings.trunk.outputs == settings.heads["cls"].inputs == ("c5",)
    dropped = count([p.shape for i in range(3) for p in getattr(model.backbone, f"norm{i}").parameters()])
    everything = count([p.shape for _, p in graphs.inference_copy(model).backbone.named_parameters()]) + 6
    assert count(stored(tmp_path / "b", "trunk")[0].values()) == everything - dropped
    assert_equal(open_backend(read_bundle(tmp_path / "b"))(noise(64, 64), ("cls",)),
                 PaddleBackend(model)(noise(64, 64), ("cls",)))  # fmt: skip


def test_the_model_itself_is_left_as_it_was(model):
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    graphs.inference_copy(model, "conv")
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(np.array_equal(after[name].numpy(), value) for name, value in before.items())


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ConvBNReLU(4, 6, 3, bias=True),
        lambda: ConvBNReLU(4, 6, 3, bias=False),
        lambda: ConvBNSiLU(4, 6, 3, stride=2),
    ],
)
def test_folding_batch_norm_changes_nothing_beyond_rounding(layer):
    paddle.seed(3)
    plain = layer()
    for tensor in (plain.bn.weight, plain.bn.bias, plain.bn._mean):
        tensor.set_value(paddle.randn([6]))
    plain.bn._variance.set_value(paddle.uniform([6], min=0.1, max=2.0))
    plain.eval()
    folded = copy.deepcopy(plain)
    assert isinstance(folded, Foldable)
    folded.fold_for_inference()
    assert sorted(folded.state_dict()) == ["conv.bias", "conv.weight"]
    x = paddle.randn([2, 4, 9, 9])
    np.testing.assert_allclose(folded(x).numpy(), plain(x).numpy(), rtol=0, atol=5e-6)


def test_folding_layer_scale_is_exact_to_rounding(model):
    x = model.normalise(paddle.to_tensor(noise(64, 64)))
    folded = graphs.inference_copy(model)
    assert [name for name, _ in folded.named_parameters() if "gamma" in name] == []
    after = folded.backbone(x)
    for name, before in model.backbone(x).items():
        assert float((before - after[name]).abs().max() / before.abs().max()) < 2e-6


class _Plain(Backbone):
    """A backbone without pointwise linears."""


def test_pointwise_convolutions_are_refused_where_there_are_none(model):
    other = copy.deepcopy(model)
    other.backbone = _Plain()
    with pytest.raises(ValueError, match="--pointwise conv: _Plain has no linears"):
        graphs.inference_copy(other, "conv")


def test_the_settings_name_every_file_with_its_digest(paddle_bundle):
    written = yaml.safe_load((paddle_bundle / "infer_cfg.yml").read_text())
    records = {record["name"]: record for record in written["files"]}
    assert len(records) == 8
    assert {path.name for path in paddle_bundle.iterdir()} == {*records, "infer_cfg.yml"}
    for name, record in records.items():
        assert record["sha256"] == sha256(paddle_bundle / name)
        assert record["bytes"] == (paddle_bundle / name).stat().st_size


def test_the_settings_carry_all_that_deployment_needs(paddle_bundle, content):
    settings = read_bundle(paddle_bundle).settings
    assert settings.heads["seg"].inputs == ("c2", "c3", "c4", "c5", "image_size")
    assert settings.heads["det"].inputs == ("c3", "c4", "c5", "image_size")
    assert settings.heads["det"].outputs == ("boxes", "scores")
    assert settings.classes == content.classes
    assert settings.infer.size == (64, 96)
    assert settings.source == content.source
    assert settings.versions["ppmtl"] == ppmtl.__version__
    assert settings.input.size is None
    tasks = read_bundle(paddle_bundle).tasks
    assert tasks["seg"].tta.scales == (1.0, 1.5)
    assert tasks["cls"].long_side == 64
    assert np.array_equal(tasks["det"].input_size, (96, 96))
