"""The ViT against its formulas, and its sizes."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppmtl.models.backbones.vit import ViT, _Block, _relative

FPN1 = 2 * (768 * 768 * 4 + 768) + 2 * 768  # two transposed convolutions and a norm
SMALL = {
    "dim": 12,
    "depth": 4,
    "num_heads": 2,
    "window": 3,
    "tokens": (1, 3),
    "global_blocks": (1, 3),
    "drop_path_rate": 0.0,
}


def fill(layer: paddle.nn.Layer, seed: int = 0) -> paddle.nn.Layer:
    """Random numbers in every parameter, so that nothing is hidden by a zero."""
    random = np.random.RandomState(seed)
    for value in layer.parameters():
        value.set_value(random.normal(0, 0.3, value.shape).astype(np.float32))
    layer.eval()
    return layer


def test_the_baselines_backbone_has_its_92_81_million_parameters_less_the_unused_branch():
    net = ViT()
    count = sum(p.size for p in net.parameters())
    assert (count, count + FPN1) == (88_091_136, 92_812_800)
    assert {name: (spec.channels, spec.stride) for name, spec in net.out_specs.items()} == {
        "p3": (768, 8), "tokens5": (768, 16), "tokens7": (768, 16), "tokens9": (768, 16), "tokens11": (768, 16),
        "p4": (768, 16), "p5": (768, 32), "p6": (768, 64),
    }  # fmt: skip
    assert [i for i, block in enumerate(net.blocks) if not block.window] == [2, 5, 8, 11]
    assert net.blocks[2].attn.rel_pos_h.shape == [111, 64]
    assert net.blocks[3].attn.rel_pos_h.shape == [27, 64]


@pytest.mark.parametrize("length", [2, 3, 6])
def test_relative_positions_are_the_rows_of_the_table_resized_to_all_distances(length):
    table = paddle.to_tensor(np.random.RandomState(0).randn(11, 5).astype(np.float32))  # of a grid of 6
    resized = F.interpolate(table.T.unsqueeze(0), size=[2 * length - 1], mode="linear", data_format="NCW")[0].T.numpy()
    found = _relative(table, length).numpy()
    for query in range(length):
        for key in range(length):
            row = resized[query - key + length - 1]
            np.testing.assert_allclose(found[query, :, key], row, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_relative(table, 1)[0, :, 0].numpy(), table[5].numpy(), rtol=1e-6)  # the middle
    if length == 6:
        np.testing.assert_array_equal(found[2, :, 5], table.numpy()[2 - 5 + 5])  # the right size: to the last bit


def by_hand(attention, x: np.ndarray, *, scaled: bool) -> np.ndarray:
    """Attention on one (h, w, C) grid with a loop over heads and cells."""
    h, w, channels = x.shape
    heads, dim = attention.num_heads, attention.head_dim
    weight, bias = attention.qkv.weight.numpy(), attention.qkv.bias.numpy()
    q, k, v = (x.reshape(h * w, channels) @ weight + bias).reshape(h * w, 3, heads, dim).transpose(1, 2, 0, 3)
    rows, columns = (_relative(table, n).numpy() for table, n in ((attention.rel_pos_h, h), (attention.rel_pos_w, w)))
    out = np.zeros((h * w, heads, dim), np.float32)
    for head in range(heads):
        for cell in range(h * w):
            query = q[head, cell]
            asking = query / np.sqrt(dim) if scaled else query
            logits = k[head] @ query / np.sqrt(dim)
            for other in range(h * w):
                logits[other] += asking @ rows[cell // w, :, other // w] + asking @ columns[cell % w, :, other % w]
            weights = np.exp(logits - logits.max())
            out[cell, head] = weights / weights.sum() @ v[head]
    return (out.reshape(h * w, -1) @ attention.proj.weight.numpy() + attention.proj.bias.numpy()).reshape(
        h, w, channels
    )


@pytest.mark.parametrize("scaled", [True, False])
def test_attention_is_that_of_the_formula_on_a_grid_that_its_tables_were_not_made_for(scaled):
    block = fill(_Block(12, 2, 0, 5, 0.0, scaled_positions=scaled))
    x = np.random.RandomState(1).randn(2, 4, 3, 12).astype(np.float32)
    found = block.attn(paddle.to_tensor(x), 4, 3).numpy()
    np.testing.assert_allclose(found, [by_hand(block.attn, image, scaled=scaled) for image in x], atol=1e-5)


def test_windows_are_filled_up_with_zeros_that_take_part():
    block = fill(_Block(12, 2, 3, 5, 0.0, scaled_positions=True))
    x = np.random.RandomState(1).randn(4, 5, 12).astype(np.float32)
    filled = np.zeros((6, 6, 12), np.float32)
    filled[:4, :5] = x
    expected = np.zeros_like(filled)
    for top in (0, 3):
        for left in (0, 3):
            window = np.s_[top : top + 3, left : left + 3]
            expected[window] = by_hand(block.attn, filled[window], scaled=True)
    found = block._windowed(paddle.to_tensor(x[None]), 4, 5).numpy()[0]
    np.testing.assert_allclose(found, expected[:4, :5], atol=1e-5)


def test_the_maps_are_those_of_the_normed_last_block_and_tokens_are_not_normed():
    net = fill(ViT(**SMALL))
    features = net(paddle.rand([1, 3, 96, 80]))
    last = features["tokens3"].transpose([0, 2, 3, 1])
    np.testing.assert_allclose(features["p4"].numpy(), net.norm(last).transpose([0, 3, 1, 2]).numpy(), atol=1e-6)
    p4 = features["p4"].numpy()
    assert [list(f.shape[2:]) for f in features.values()] == [[12, 10], [6, 5], [6, 5], [6, 5], [3, 2], [2, 1]]
    pooled = p4[:, :, :6, :4].reshape(1, 12, 3, 2, 2, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(features["p5"].numpy(), pooled)
    np.testing.assert_array_equal(features["p6"].numpy(), pooled[:, :, ::2, ::2])


def test_absolute_positions_of_the_tables_grid_are_added_as_they_are_and_else_resized():
    net = fill(ViT(**SMALL, position_grid=4))
    net.patch_embed["proj"].weight.set_value(paddle.zeros_like(net.patch_embed["proj"].weight))
    net.patch_embed["proj"].bias.set_value(paddle.zeros([12]))
    table = net.pos_embed.reshape([1, 4, 4, 12])
    np.testing.assert_array_equal(net._embed(paddle.rand([1, 3, 64, 64])).numpy(), table.numpy())
    wide = F.interpolate(table.transpose([0, 3, 1, 2]), size=[4, 6], mode="bicubic").transpose([0, 2, 3, 1])
    np.testing.assert_allclose(net._embed(paddle.rand([1, 3, 64, 96])).numpy(), wide.numpy(), atol=1e-6)


def test_recomputing_gives_the_same_gradients():
    found = []
    for recompute in (False, True):
        paddle.seed(3)
        net = ViT(**{**SMALL, "drop_path_rate": 0.5}, recompute=recompute)
        fill(net).train()
        paddle.seed(4)
        sum(f.square().mean() for f in net(paddle.ones([2, 3, 64, 80])).values()).backward()
        found.append({name: p.grad.numpy() for name, p in net.named_parameters()})
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"tokens": (4,)}, r"\[4\] are beyond the last, 3"),
        ({"global_blocks": (1, 9)}, r"\[9\] are beyond the last"),
        ({"num_heads": 5}, "5 heads do not divide the width 12"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViT(**{**SMALL, **wrong})


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="at least 32 px, got 16 x 64"):
        ViT(**SMALL)(paddle.rand([1, 3, 16, 64]))
