"""Functions of single numbers, which need care in exported graphs.

In a .json graph Paddle Inference 3.2.2 with oneDNN may write floor, sin, cos, reciprocal and others over their input, though
another operator reads it later: wrong numbers without a word. Give them an input that nothing else reads.
"""

from __future__ import annotations

from typing import Literal

import paddle
from paddle.base.layer_helper import LayerHelper


def elementwise(name: Literal["log", "sin"], x: paddle.Tensor) -> paddle.Tensor:
    """``paddle.<name>(x)``, also while a graph of the old format (.pdmodel) is exported.

    Paddle 3.2.2 binds these straight to the new format's operators, which refuse the old format's variables ("must be Value,
    but got Variable"). The operators of the same names are still there.
    """
    if paddle.in_dynamic_mode() or paddle.framework.in_pir_mode():
        return getattr(paddle, name)(x)
    helper = LayerHelper(name)
    y = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=name, inputs={"X": x}, outputs={"Out": y})
    return y
