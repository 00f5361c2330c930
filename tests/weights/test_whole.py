"""Checkpoints of the challenge's baseline load under our names, the backbone and every head."""

from __future__ import annotations

import re

import numpy as np
import paddle
import pytest

from ppmtl.models.backbones.vit import ViT
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.pooled_fc import PooledFC
from ppmtl.models.heads.setr_pup import SETRPUP
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.train import checkpoint
from ppmtl.weights.whole import own_names

TOKENS = ("tokens0", "tokens1")


def build(seed: int, *, shared: bool = True) -> MultiTaskModel:
    backbone = ViT(dim=12, depth=2, num_heads=2, window=3, global_blocks=(1,), tokens=(0, 1), drop_path_rate=0.0)
    seg = SETRPUP(backbone.out_specs, 3, reads=TOKENS, channels=4, shared_aux=shared)
    model = MultiTaskModel(backbone, {"seg": seg, "cars": PooledFC(backbone.out_specs, 5, reads="p5")})
    random = np.random.RandomState(seed)
    for value in model.state_dict().values():
        value.set_value(random.normal(0, 0.3, value.shape).astype(np.float32))
    return model


def their_name(name: str) -> str:
    for ours, theirs in (
        (r"^heads\.cars\.", "heads.fgvc."),
        (r"^heads\.seg\.norm\.", "heads.segmentation.head.cls_head_norm."),
        (r"^heads\.seg\.convs\.(\d)\.", lambda found: f"heads.segmentation.head.cls_head.{2 * int(found[1])}."),
        (r"^heads\.seg\.classifier\.", "heads.segmentation.head.cls_head.7."),
        (r"^heads\.seg\.aux\.(\d)\.norm\.", r"heads.segmentation.head.aux_head_norms.\1."),
        (r"^heads\.seg\.aux\.(\d)\.conv\.", r"heads.segmentation.head.aux_heads.\1.0."),
        (r"^heads\.seg\.aux\.(\d)\.classifier\.", r"heads.segmentation.head.aux_heads.\1.2."),
        (r"\.(\d)\.conv\.", r".\1._conv."),
        (r"\.(\d)\.bn\.", r".\1._batch_norm."),
    ):
        name = re.sub(ours, theirs, name)
    return name


@pytest.mark.parametrize("shared", [True, False])
def test_a_checkpoint_of_the_baseline_fills_the_model(tmp_path, shared):
    source, target = build(0, shared=shared), build(1, shared=shared)
    state = {their_name(name): value.numpy() for name, value in source.state_dict().items()}
    if shared:  # one module, under four names
        copies = {n: a for n, a in state.items() if ".aux_head" in n}
        state |= {re.sub(r"(aux_head\w*)\.0", r"\1.1", n): a for n, a in copies.items()}
    state |= {"backbone.fpn1.0.weight": np.ones((12, 12, 2, 2), np.float32)}
    state |= {"heads.trafficsign.transformer.level_embed.weight": np.ones((4, 8), np.float32)}
    assert "heads.segmentation.head.cls_head.6._batch_norm._mean" in state
    paddle.save({"model": state, "iteration": 52440, "optimizer": {"x": np.ones(3)}}, str(tmp_path / "final.pdmodel"))
    arrays = own_names(checkpoint.read_tensors(tmp_path / "final.pdmodel"), target)
    checkpoint.load_weights(target, arrays, "final.pdmodel")  # which allows nothing missing and nothing left over
    for name, value in target.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), source.state_dict()[name].numpy(), err_msg=name)


def test_names_that_no_head_recognises_stay():
    arrays = {name: value.numpy() for name, value in build(0).state_dict().items()}
    assert own_names(arrays, build(1)) == arrays
    other = build(2)
    other.heads["seg"] = CBAMFC(other.backbone.out_specs, 5, reads="p5", channels=4)
    assert own_names({"model.x": np.ones(2)}, other).keys() == {"model.x"}
