"""Reading the usual weight files of a ViT: whoever wrote them, the network is the same."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from foreign_weights import TorchZip, write_safetensors

from ppmtl.models.backbones.vit import ViT
from ppmtl.weights.pretrained import load_pretrained

SMALL = {
    "dim": 12,
    "depth": 4,
    "num_heads": 2,
    "window": 3,
    "tokens": (1, 3),
    "global_blocks": (1, 3),
    "drop_path_rate": 0.0,
}


def fill(net: ViT, seed: int = 0) -> ViT:
    random = np.random.RandomState(seed)
    for value in net.parameters():
        value.set_value(random.normal(0, 0.3, value.shape).astype(np.float32))
    return net


def foreign(net: ViT, *, torch: bool, classes: bool = True) -> dict[str, np.ndarray]:
    """The state of a plain ViT, as classifiers are published: no relative positions, no maps, a class token."""
    state = {n: v.numpy() for n, v in net.state_dict().items() if "rel_pos" not in n and not n.startswith("fpn")}
    if torch:
        linear = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")
        state = {n: a.T if n.endswith(linear) and a.ndim == 2 else a for n, a in state.items()}
    token = np.full((1, 1, 12), 7, np.float32)
    state |= {"cls_token": token, "pos_embed": np.concatenate([token, state["pos_embed"]], axis=1)}
    return state | (
        {"head.weight": np.ones((5, 12), np.float32), "head.bias": np.ones(5, np.float32)} if classes else {}
    )


def timm(path, net):
    write_safetensors(path, foreign(net, torch=True))


def mae(path, net):
    decoder = {"decoder_blocks.0.norm1.weight": np.ones(8, np.float32), "mask_token": np.ones((1, 1, 8), np.float32)}
    decoder |= {"decoder_norm.weight": np.ones(8, np.float32), "decoder_pos_embed": np.ones((1, 17, 8), np.float32)}
    TorchZip().write(path, {"model": foreign(net, torch=True, classes=False) | decoder})


def dino(path, net):
    TorchZip().write(path, foreign(net, torch=True, classes=False))


def dino_pair(path, net):
    state = foreign(net, torch=True, classes=False)
    student = {f"module.backbone.{n}": a + 1 for n, a in state.items()}
    TorchZip().write(path, {"student": student, "teacher": {f"backbone.{n}": a for n, a in state.items()}})


def paddleclas(path, net):
    paddle.save(foreign(net, torch=False), str(path))


def sam(path, net):
    state = foreign(net, torch=True, classes=False)
    del state["cls_token"]
    write_safetensors(path, state | {"pos_embed": net.pos_embed.numpy().reshape(1, 4, 4, 12)})


NAMINGS = {  # who wrote it: (how, prefix and layout that are recognised)
    "timm": (timm, "", "torch"),
    "timm, positions as a grid": (sam, "", "torch"),
    "facebook MAE": (mae, "model.", "torch"),
    "facebook DINO": (dino, "", "torch"),
    "facebook DINO, student and teacher": (dino_pair, "teacher.backbone.", "torch"),
    "PaddleClas": (paddleclas, "", "paddle"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_of_the_usual_files_gives_the_same_network(tmp_path, naming):
    write, *understood = NAMINGS[naming]
    source, target = (fill(ViT(**SMALL, position_grid=4), seed) for seed in (0, 1))
    before = {name: value.numpy() for name, value in target.state_dict().items()}
    write(tmp_path / "w", source)
    report = load_pretrained(target, str(tmp_path / "w"))
    assert [report.prefix, report.layout] == understood
    assert all("rel_pos" in name or name.startswith("fpn2") for name in report.fresh)
    wanted = {name: value.numpy() for name, value in source.state_dict().items()}
    for name, value in target.state_dict().items():
        expected = before if name in report.fresh else wanted
        np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)


def test_a_file_of_the_baseline_fills_everything_and_its_unused_branch_is_dropped(tmp_path):
    source, target = (fill(ViT(**SMALL), seed) for seed in (0, 1))
    state = {f"backbone.{name}": value.numpy() for name, value in source.state_dict().items()}
    state["backbone.fpn1.0.weight"] = np.ones((12, 12, 2, 2), np.float32)
    paddle.save({"model": state}, str(tmp_path / "w.pdmodel"))
    report = load_pretrained(target, str(tmp_path / "w.pdmodel"))
    assert (report.fresh, report.dropped) == ([], ["model.backbone.fpn1.0.weight"])
    for name, value in target.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[f"backbone.{name}"])


def test_absolute_positions_of_another_grid_are_refused_and_without_use_dropped(tmp_path):
    timm(tmp_path / "w", fill(ViT(**SMALL, position_grid=4)))
    with pytest.raises(ValueError, match=r"pos_embed: file \[1, 17, 12\], model \[1, 9, 12\]"):
        load_pretrained(ViT(**SMALL, position_grid=3), str(tmp_path / "w"))
    assert "pos_embed" in load_pretrained(ViT(**SMALL), str(tmp_path / "w")).dropped
