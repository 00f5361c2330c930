"""The caption head against the reference's numbers: positions, logits, loss, both searches; causality, kept keys, masking."""

import math

import numpy as np
import paddle
import pytest
from golden_weights import parameter_count
from yolor_golden import assert_equals, golden, hv, weight

from ppmtl.models.heads._caption_decoder import Attention, SinePositions
from ppmtl.models.heads.captions import Captions
from ppmtl.ops.beam_search import beam_search
from ppmtl.structures import FeatureSpec

GOLDEN = golden("caption_decoder")
IMAGE = (8, 40)  # not looked at
SMALL = {"width": 16, "heads": 2, "layers": 2, "feed_forward": 32, "hidden": 24, "max_length": 6, "bos": 1, "eos": 2}


def set_linear(layer: paddle.nn.Linear, name: str) -> None:
    """Weights are drawn in PyTorch's layout (out, in)."""
    layer.weight.set_value(weight(f"{name}.weight", layer.weight.shape[::-1]).T)
    layer.bias.set_value(weight(f"{name}.bias", layer.bias.shape))


def set_norm(layer: paddle.nn.LayerNorm, name: str) -> None:
    layer.weight.set_value(weight(f"{name}.weight", layer.weight.shape))
    layer.bias.set_value(weight(f"{name}.bias", layer.bias.shape))


def set_attention(layer: Attention, name: str) -> None:
    width = layer.output.weight.shape[0]
    weights = weight(f"{name}.in_proj_weight", (3 * width, width)).reshape(3, width, width)
    biases = weight(f"{name}.in_proj_bias", (3 * width,)).reshape(3, width)
    for i, part in enumerate((layer.query, layer.key, layer.value)):
        part.weight.set_value(weights[i].T)
        part.bias.set_value(biases[i])
    set_linear(layer.output, f"{name}.out_proj")


def reference_head(**changes) -> Captions:
    head = Captions({"p3": FeatureSpec(16, 8)}, 20, **(SMALL | changes))
    for i, layer in enumerate(head.decoder.layers):
        theirs = f"cap12.decoder.layers.{i}"
        set_attention(layer.self_attention, f"{theirs}.self_attn")
        set_attention(layer.image_attention, f"{theirs}.multihead_attn")
        set_linear(layer.feed_forward.linear1, f"{theirs}.linear1")
        set_linear(layer.feed_forward.linear2, f"{theirs}.linear2")
        for number in (1, 2, 3):
            set_norm(getattr(layer, f"norm{number}"), f"{theirs}.norm{number}")
    set_norm(head.decoder.norm, "cap12.decoder.norm")
    set_norm(head.embedding.norm, "cap12.embeddings.LayerNorm")
    for table, name in ((head.embedding.words, "word"), (head.embedding.positions, "position")):
        table.weight.set_value(weight(f"cap12.embeddings.{name}_embeddings.weight", table.weight.shape))
    for i in range(3):
        set_linear(head.words[2 * i], f"cap12.mlp.layers.{i}")
    head.eval()
    return head


def image_maps(*numbers: int) -> dict[str, paddle.Tensor]:
    maps = np.concatenate([hv(f"cap.mem.{i}", (1, 16, 1, 5), -1.5, 1.5) for i in numbers])
    return {"p3": paddle.to_tensor(maps, stop_gradient=False)}


def logits_of(head: Captions, features, tokens) -> paddle.Tensor:
    inputs = head.embedding(paddle.to_tensor(np.array(tokens)), 0)
    return head.words(head.decoder(*inputs, None, head._memory(features))[0])


@pytest.mark.parametrize(("height", "width"), [(1, 5), (2, 3), (3, 4)])
def test_positions_of_the_cells_equal_the_reference(height, width):
    found = SinePositions(16)(height, width).reshape([1, height, width, 16]).transpose([0, 3, 1, 2])
    assert_equals(found, GOLDEN[f"sine_pos_{height}x{width}"], atol=1e-5)


def test_embedding_first_layer_and_logits_equal_the_reference():
    head, features = reference_head(), image_maps(0, 1)
    x, position = head.embedding(paddle.to_tensor(GOLDEN["input_tokens"]), 0)
    assert_equals(x, GOLDEN["embedding_out"], atol=1e-5)
    first, _ = head.decoder.layers[0](x, position, None, head._memory(features)[0])
    real = ~np.array(GOLDEN["input_pad_mask"], bool)  # at padding the reference hides padding; no loss looks there
    expected = np.array(GOLDEN["layer0_out"]["data"]).reshape(GOLDEN["layer0_out"]["shape"])
    np.testing.assert_allclose(first.numpy()[real], expected[real], atol=1e-4)
    logits = logits_of(head, features, GOLDEN["input_tokens"])
    assert_equals(logits, GOLDEN["logits_without_key_padding_mask"], atol=1e-4)
    expected = np.array(GOLDEN["logits"]["data"]).reshape(GOLDEN["logits"]["shape"])
    np.testing.assert_allclose(logits.numpy()[real], expected[real], atol=1e-4)


def test_logits_of_a_map_with_two_rows_equal_the_reference():
    features = {"p3": paddle.to_tensor(hv("cap.mem23", (2, 16, 2, 3), -1.5, 1.5))}
    expected, real = GOLDEN["second_map"]["logits"], ~np.array(GOLDEN["input_pad_mask"], bool)
    values = np.array(expected["data"]).reshape(expected["shape"])
    found = logits_of(reference_head(), features, GOLDEN["input_tokens"]).numpy()
    np.testing.assert_allclose(found[real], values[real], atol=1e-4)


def sentences() -> dict[str, paddle.Tensor]:
    """(2, 1, 7): the golden inputs with the last target behind them."""
    tokens = np.concatenate([GOLDEN["input_tokens"], np.array(GOLDEN["targets"])[:, -1:]], axis=1)
    assert (tokens[:, 1:] == GOLDEN["targets"]).all()
    return {"tokens": paddle.to_tensor(tokens[:, None])}


def test_the_loss_without_padding_and_its_gradients_equal_the_reference():
    head, features, expected = reference_head(), image_maps(0, 1), GOLDEN["loss"]
    loss = head(features, IMAGE, sentences())["loss_words"]
    assert float(loss) == pytest.approx(expected["ce_mean_pad_ignored"], abs=1e-5)
    loss.backward()
    assert_equals(features["p3"].grad, expected["grad_image_map"], atol=1e-5, rtol=1e-4)
    words = head.embedding.words.weight.grad.numpy()
    assert np.linalg.norm(words) == pytest.approx(expected["grad_word_embedding_norm"], rel=1e-4)
    assert np.linalg.norm(words[0]) == expected["grad_word_embedding_row0_norm"] == 0.0
    attention = head.decoder.layers[0].self_attention
    parts = [np.linalg.norm(part.weight.grad.numpy()) for part in (attention.query, attention.key, attention.value)]
    assert np.linalg.norm(parts) == pytest.approx(expected["grad_layer0_in_proj_norm"], rel=1e-4)


@pytest.mark.parametrize("image", range(3))
@pytest.mark.parametrize("beams", [1, 3])
def test_greedy_and_beam_search_find_the_references_sequences(image, beams):
    head, case = reference_head(beam_size=beams), GOLDEN["decode"]["images"][image]
    expected = case["beam3"] if beams == 3 else [{"seq": case["greedy"], "logprob": case["greedy_logprob"]}]
    log_probs, state, memory = head.begin(image_maps(image))

    def step(tokens, rows, state):
        following, state = head.step(paddle.to_tensor(tokens), paddle.to_tensor(rows), state, memory)
        return following.numpy(), state

    found, scores = beam_search(log_probs.numpy(), state, step, **head.search)
    np.testing.assert_allclose(scores[0], [beam["logprob"] for beam in expected], atol=1e-4)
    for sequence, beam in zip(found[0].tolist(), expected, strict=True):
        wanted = beam["seq"][1:]
        assert sequence == wanted + [0] * (5 - len(wanted))
    raw = head(image_maps(image), IMAGE)
    assert raw["tokens"].numpy()[0].tolist() == found[0, 0].tolist()
    assert float(raw["log_probs"]) == pytest.approx(expected[0]["logprob"] / (len(expected[0]["seq"]) - 1), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_images_searched_together_get_the_sentences_that_they_get_alone(beams):
    head = reference_head(beam_size=beams)
    together = head(image_maps(0, 1, 2), IMAGE)
    for image in range(3):
        alone = head(image_maps(image), IMAGE)
        assert together["tokens"].numpy()[image].tolist() == alone["tokens"].numpy()[0].tolist()
        assert float(together["log_probs"][image]) == pytest.approx(float(alone["log_probs"]), abs=1e-5)


def test_a_later_word_changes_no_earlier_logits_and_no_other_sentence():
    head, features, tokens = reference_head(), image_maps(0, 1), np.array(GOLDEN["input_tokens"])
    changed = tokens.copy()
    changed[0, 4] = 11
    difference = np.abs((logits_of(head, features, tokens) - logits_of(head, features, changed)).numpy()).max(axis=2)
    assert (difference[0, :4] == 0).all()
    assert (difference[1] == 0).all()
    assert difference[0, 4:].max() == pytest.approx(GOLDEN["causality"]["max_change_positions_4_5_row0"], abs=1e-3)


def test_word_by_word_with_kept_keys_gives_the_logits_of_the_sentence_at_once():
    head, features, tokens = reference_head(), image_maps(0, 1), np.array(GOLDEN["input_tokens"])
    expected = paddle.nn.functional.log_softmax(logits_of(head, features, tokens), axis=2).numpy()
    log_probs, state, memory = head.begin(features)
    np.testing.assert_allclose(log_probs.numpy(), expected[:, 0], atol=1e-5)
    for place in range(1, 6):
        log_probs, state = head.step(paddle.to_tensor(tokens[:, place]), paddle.arange(2), state, memory)
        np.testing.assert_allclose(log_probs.numpy(), expected[:, place], atol=1e-5)


def test_several_sentences_of_an_image_cost_their_mean_over_words():
    head, features = reference_head(), image_maps(0, 0)
    rows = np.array([[1, 5, 9, 14, 7, 2], [1, 17, 3, 2, 0, 0]])
    both = float(head({"p3": features["p3"][:1]}, IMAGE, {"tokens": paddle.to_tensor(rows[None])})["loss_words"])
    apart = float(head(features, IMAGE, {"tokens": paddle.to_tensor(rows[:, None])})["loss_words"])
    assert both == pytest.approx(apart, rel=1e-6)


def test_images_without_a_sentence_cost_nothing_and_nobodys_sentence_leaves_zero_gradients():
    head = reference_head()
    tokens = sentences()["tokens"].numpy()
    alone = float(head(image_maps(0), IMAGE, {"tokens": paddle.to_tensor(tokens[:1])})["loss_words"])
    tokens[1] = 0
    assert float(head(image_maps(0, 1), IMAGE, {"tokens": paddle.to_tensor(tokens)})["loss_words"]) == pytest.approx(
        alone
    )
    features = image_maps(0, 1)
    loss = head(features, IMAGE, {"tokens": paddle.to_tensor(tokens * 0)})["loss_words"]
    loss.backward()
    assert float(loss) == 0.0
    gradients = [p.grad for p in head.parameters()] + [features["p3"].grad]
    assert all(gradient is not None and (gradient.numpy() == 0).all() for gradient in gradients)


def test_the_full_size_head_has_the_33_37_million_parameters_of_catrs_decoder():
    expected = GOLDEN["params_full_size"]
    head = Captions({"p3": FeatureSpec(256, 8)}, 30522, bos=101, eos=102)
    assert parameter_count(head.embedding) == expected["embeddings"]
    assert parameter_count(head.decoder) == expected["decoder"]
    assert parameter_count(head.words) == expected["mlp"]
    assert parameter_count(head) == expected["decoder_only_total"] == 33_371_962


def test_the_ablations_encoder_has_the_parameters_of_catrs_and_is_used():
    head = Captions({"p3": FeatureSpec(256, 8)}, 8, encoder_layers=6)
    assert parameter_count(head.encoder) == GOLDEN["params_full_size"]["encoder_left_out"]
    head = Captions(
        {"p3": FeatureSpec(8, 8)}, 20, **SMALL, encoder_layers=1
    )  # another width: a 1x1 convolution before it
    head({"p3": paddle.rand([2, 8, 2, 3])}, IMAGE, sentences())["loss_words"].backward()
    parameters = dict(head.named_parameters())
    assert {name.split(".")[0] for name in parameters} == {"project", "encoder", "embedding", "decoder", "words"}
    assert all(p.grad is not None for p in parameters.values())
    assert all(p.grad.numpy().any() for name, p in parameters.items() if name.endswith("weight"))


def test_the_loss_of_a_new_head_is_about_the_logarithm_of_the_vocabulary():
    paddle.seed(0)
    head = Captions({"p3": FeatureSpec(16, 8)}, 500, width=64)
    tokens = np.random.RandomState(0).randint(4, 500, (8, 1, 20))
    tokens[:, :, 0] = 2
    loss = head({"p3": paddle.randn([8, 16, 4, 4])}, IMAGE, {"tokens": paddle.to_tensor(tokens)})["loss_words"]
    assert float(loss) == pytest.approx(math.log(500), rel=0.05)


def test_a_few_steps_teach_two_images_their_sentences():
    paddle.seed(0)
    head = Captions({"p3": FeatureSpec(16, 8)}, 20, **SMALL, dropout=0.0)
    optimizer = paddle.optimizer.AdamW(3e-3, parameters=head.parameters())
    features = {"p3": paddle.randn([2, 16, 3, 4])}
    for _ in range(150):
        head(features, IMAGE, sentences())["loss_words"].backward()
        optimizer.step()
        optimizer.clear_grad()
    head.eval()
    assert head(features, IMAGE)["tokens"].numpy().tolist() == [[5, 9, 14, 7, 2], [17, 3, 2, 0, 0]]


def test_settings_and_vocabularies_that_do_not_fit_are_refused():
    specs = {"p3": FeatureSpec(16, 8)}
    with pytest.raises(ValueError, match="multiple of 4 and of heads, got 18 and 2 heads"):
        Captions(specs, 20, width=18, heads=2)
    with pytest.raises(ValueError, match="must fit the vocabulary of 20 tokens, got 101, 102, -1 and 1"):
        Captions(specs, 20, bos=101, eos=102)
    with pytest.raises(ValueError, match=r"no feature of stride 8 \(p4\); set reads"):
        Captions({"p4": FeatureSpec(16, 16)}, 20)
    head = Captions(specs, 20, **(SMALL | {"bos": 4}))
    with pytest.raises(
        ValueError,
        match=r"begin with token 4; got 7 tokens and beginnings \[1\]: set the head's max_length to the task",
    ):
        head(image_maps(0, 1), IMAGE, sentences())
