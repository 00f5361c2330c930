"""ppmtl: one model for several vision tasks, in PaddlePaddle. ``ppmtl.load`` and ``ppmtl.train`` are its Python API.

Importing it imports nothing heavy, neither paddle nor numpy nor OpenCV: what ``__all__`` names comes when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppmtl.api import Model, TrainResult, load, train
    from ppmtl.predict.result import Result

__version__ = "0.1.0"
__all__ = ["Model", "Result", "TrainResult", "__version__", "load", "train"]

_HOMES = {"Model": "api", "Result": "predict.result", "TrainResult": "api", "load": "api"}


def __getattr__(name: str) -> Any:
    if name == "train":  # a folder of that name lies beside this file: see its __init__.py
        return import_module("ppmtl.train")
    if name not in _HOMES:
        raise AttributeError(f"module 'ppmtl' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"ppmtl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
