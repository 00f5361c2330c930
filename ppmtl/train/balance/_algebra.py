"""Inner products and sums of tasks' gradients, without ever joining the parameters into one vector."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

import numpy as np
import paddle

from ppmtl.train.balance._base import Gradients


@paddle.no_grad()
def inner_products(gradients: Mapping[str, Gradients]) -> np.ndarray:
    """Inner products of the T tasks' gradients for each of P parameters: (P, T, T) float64.

    Summed over any set of parameters this is the Gram matrix of the joined vectors: norms are the roots of its diagonal,
    and every projection that PCGrad makes can be computed from it. A gradient that is None counts as zero. Copies no
    float32 gradient, and fetches all numbers from the device at once.
    """
    found: dict[tuple[int, int, int], paddle.Tensor] = {}
    of_parameters = list(zip(*gradients.values(), strict=True))
    for index, of_parameter in enumerate(of_parameters):
        flat = [None if g is None else g.flatten().astype("float32") for g in of_parameter]
        for a, first in enumerate(flat):
            for b, second in enumerate(flat[: a + 1]):
                if first is not None and second is not None:
                    found[index, a, b] = paddle.dot(first, second)
    products = np.zeros((len(of_parameters), len(gradients), len(gradients)))
    if found:
        index, a, b = np.array(list(found)).T
        products[index, a, b] = products[index, b, a] = paddle.stack(list(found.values())).numpy()
    return products


@paddle.no_grad()
def weighted_sum(gradients: Mapping[str, Gradients], factors: Sequence[float]) -> Gradients:
    """The sum over tasks of factor * gradient, parameter by parameter; None where no task has a gradient.

    A factor of 1 multiplies nothing, so that all ones give the same bits as adding up.
    """
    total: Gradients = []
    for of_parameter in zip(*gradients.values(), strict=True):
        pairs = zip(of_parameter, factors, strict=True)
        parts = [gradient if factor == 1 else gradient * factor for gradient, factor in pairs if gradient is not None]
        total.append(functools.reduce(operator.add, parts) if parts else None)
    return total
