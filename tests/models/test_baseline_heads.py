"""The small heads of the challenge's baseline: SETR-PUP and pooled FC. Their layers are compared in tests/parity."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppmtl.models.heads.pooled_fc import PooledFC
from ppmtl.models.heads.setr_pup import SETRPUP
from ppmtl.models.heads.upernet import pixel_cross_entropy
from ppmtl.structures import FeatureSpec

TOKENS = ("tokens5", "tokens7", "tokens9", "tokens11")


def specs(channels: int) -> dict[str, FeatureSpec]:
    return dict.fromkeys(TOKENS, FeatureSpec(channels, 16)) | {"p5": FeatureSpec(channels, 32)}


def features(channels: int = 6, batch: int = 2) -> dict[str, paddle.Tensor]:
    paddle.seed(1)
    sizes = dict.fromkeys(TOKENS, (4, 5)) | {"p5": (2, 2)}
    return {name: paddle.randn([batch, channels, *size]) for name, size in sizes.items()}


def setr(**settings) -> SETRPUP:
    paddle.seed(0)
    return SETRPUP(specs(6), 3, **{"reads": TOKENS, "channels": 8, **settings})


def parameter_count(layer: paddle.nn.Layer) -> int:
    return sum(p.size for p in layer.parameters() if not p.stop_gradient)


def test_full_size_parameter_counts():
    auxiliary = 2 * 768 + (768 * 9 * 256 + 256) + 2 * 256 + (256 * 19 + 19)
    main = 2 * 768 + (768 * 9 * 256 + 256) + 3 * (256 * 9 * 256 + 256) + 4 * 2 * 256 + (256 * 19 + 19)
    for shared, count in ((True, 1), (False, 4)):
        head = SETRPUP(specs(768), 19, reads=TOKENS, shared_aux=shared)
        assert parameter_count(head) == main + count * auxiliary
    assert parameter_count(PooledFC(specs(768), 196)) == 768 * 384 + 384 + 384 * 196 + 196 == 370_756


@pytest.mark.parametrize("align", [True, False])
def test_the_auxiliary_term_adds_up_four_classifiers_and_all_resize_alike(align):
    head, given = setr(align_corners=align), features()
    labels = paddle.to_tensor(np.random.RandomState(0).randint(0, 3, (2, 64, 80)))
    labels[:, :9] = 255
    terms = head(given, (64, 80), {"label_map": labels})

    def loss(logits):
        large = F.interpolate(logits, size=[64, 80], mode="bilinear", align_corners=align)
        return float(pixel_cross_entropy(large, labels))

    aux = [loss(head.aux[i](given[name])) for i, name in enumerate(TOKENS)]
    assert float(terms["loss_ce"]) == pytest.approx(loss(head.logits(given["tokens11"])), rel=1e-5)
    assert float(terms["loss_aux"]) == pytest.approx(0.4 * sum(aux), rel=1e-5)
    assert len(set(aux)) == 4
    assert list(setr(aux_weight=0.0)(given, (64, 80), {"label_map": labels})) == ["loss_ce"]


def test_a_shared_auxiliary_classifier_learns_from_every_feature():
    head, given = setr(shared_aux=True), features()
    assert len(head.aux) == 1
    alike = {**given, **dict.fromkeys(TOKENS, given["tokens11"])}
    head.eval()  # fixed statistics: a feature's answer hangs on nothing else
    assert [
        float((x - head.aux[0](given["tokens11"])).abs().max()) for x in head.aux_logits(list(alike.values())[:4])
    ] == [0] * 4
    with pytest.raises(ValueError, match="as many channels each"):
        SETRPUP({"c4": FeatureSpec(4, 16), "c5": FeatureSpec(6, 32)}, 3, reads=("c4", "c5"), shared_aux=True)


def test_pooled_fc_is_two_linear_layers_on_the_mean_and_smooths_over_the_other_classes():
    head = PooledFC(specs(6), 7, reads="p5", label_smoothing=0.1)
    given, targets = features(), np.array([2, 6])
    logits = head.fc2(head.fc1(given["p5"].mean([2, 3])))  # linear twice: no activation between
    probs = head(given, (64, 64))["probs"].numpy()
    np.testing.assert_allclose(probs, F.softmax(logits).numpy(), atol=1e-6)
    wanted = np.full((2, 7), 0.1 / 6)
    wanted[[0, 1], targets] = 0.9
    loss = head(given, (64, 64), {"class_index": paddle.to_tensor(targets)})["loss_ce"]
    assert float(loss) == pytest.approx(-(wanted * np.log(probs)).sum(axis=1).mean(), rel=1e-5)
