"""Inner products and sums of tasks' gradients, without ever joining the parameters into one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import paddle

from ppmtl.train.balance._base import Gradients


@paddle.no_grad()
def inner_products(gradients: Mapping[str, Gradients]) -> np.ndarray:
    """Returns (P, T, T) float64: for each of P parameters the inner products of the T tasks' gradients.

    Summed over any set of parameters this is the Gram matrix of the joined vectors: norms are the roots of its diagonal,
    and every projection that PCGrad makes can be computed from it. A gradient that is None counts as zero. Reads each
    gradient T times, copies none (float32 ones), and fetches all numbers from the device at once.
    """
    tasks, count = list(gradients), len(next(iter(gradients.values())))
    places: list[tuple[int, int, int]] = []
    values: list[paddle.Tensor] = []
    for index in range(count):
        flat = [None if g is None else g.flatten().astype("float32") for g in (gradients[t][index] for t in tasks)]
        for a, first in enumerate(flat):
            for b, second in enumerate(flat[: a + 1]):
                if first is not None and second is not None:
                    places.append((index, a, b))
                    values.append(paddle.dot(first, second))
    products = np.zeros((count, len(tasks), len(tasks)))
    if values:
        for (index, a, b), value in zip(places, paddle.stack(values).numpy().tolist(), strict=True):
            products[index, a, b] = products[index, b, a] = value
    return products


@paddle.no_grad()
def weighted_sum(gradients: Mapping[str, Gradients], factors: Sequence[float]) -> Gradients:
    """Returns sum over tasks of factor * gradient, parameter by parameter; None where no task has a gradient.

    A factor of exactly 1 multiplies nothing, so that all ones give the same bits as adding up.
    """
    total: Gradients = []
    for of_parameter in zip(*gradients.values(), strict=True):
        parts = [
            g if factor == 1 else g * factor for g, factor in zip(of_parameter, factors, strict=True) if g is not None
        ]
        result = parts[0] if parts else None
        for part in parts[1:]:
            result = result + part
        total.append(result)
    return total
