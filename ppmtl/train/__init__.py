"""Training; and the function ``ppmtl.train(config, overrides)``, which is ``ppmtl.api.train``.

Python binds ``ppmtl.train`` to this package as soon as one of its files is imported, whatever stood there before. So that
``ppmtl.train(...)`` means the same at any time, the package itself can be called.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Trains; see ``ppmtl.api.train`` for the arguments."""
        return import_module("ppmtl.api").train(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
