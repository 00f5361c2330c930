"""PCGrad: where two tasks pull the backbone in opposite directions, each gives up the part that harms the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ppmtl.train.balance._base import BalanceMethod, Gradients, inner_products, weighted_sum


class Pcgrad(BalanceMethod):
    """Projects each task's gradient off every other task's that it conflicts with (negative inner product), then adds up.

    The backbone is one vector. A task's gradient is projected off the others' original ones, in an order drawn anew for
    every step and task. Every projected gradient is a weighted sum of the original ones, so only the weights are computed,
    on the (T, T) matrix of inner products. A gradient of zero conflicts with nothing.

    Costs one copy of the backbone's gradients per task plus one for the result, and T (T + 1) / 2 inner products.

    Source: Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1.
    """

    separate = True

    def combine(self, gradients: Mapping[str, Gradients], seed: Sequence[int]) -> Gradients:
        """The sum of the projected gradients."""
        products = inner_products(gradients).sum(axis=0)
        return weighted_sum(gradients, projected_factors(products, seed).tolist())


def projected_factors(products: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """The sum of the projected gradients as factors (T,) float64 of the original ones, from their (T, T) products."""
    count = len(products)
    order = np.random.default_rng(list(seed))
    total = np.zeros(count)
    for task in range(count):
        factors = np.eye(count)[task]
        for other in order.permutation(count):
            conflict = factors @ products[:, other]
            if other != task and conflict < 0 < products[other, other]:  # 0: so small that its square underflows
                factors[other] -= conflict / products[other, other]
        total += factors
    return total
