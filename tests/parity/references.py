"""What the comparisons share: reference packages, random numbers that both sides get, differences, rows of the table."""

import functools
import importlib
import importlib.util
import sys
import types
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ppmtl import tables

parity = pytest.mark.parity  # (component, reference package, ...): what a row says when the test cannot run
DOUBLE = "both in float64, so only rounding is left"


class Row(NamedTuple):
    """One compared quantity: the largest difference and what it may be, or None and why nothing was compared."""

    component: str
    quantity: str
    reference: str
    difference: float | None
    tolerance: float
    reason: str

    @property
    def verdict(self):
        """NaN is a difference; a missing comparison never passes."""
        if self.difference is None:
            return "not run"
        return "equal" if self.difference <= self.tolerance else "DIFFERENT"


def summary(rows):
    """The table, and how often each verdict came."""
    heads = ["component", "compared", "reference", "largest difference", "tolerance", "verdict", "why this tolerance"]
    cells = []
    for row in rows:
        numbers = ["-", "-"] if row.difference is None else [f"{row.difference:.2g}", f"{row.tolerance:.2g}"]
        cells.append([row.component, row.quantity or "-", row.reference, *numbers, row.verdict, row.reason])
    count = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("equal", "DIFFERENT", "not run")}
    versions = ", ".join(release(name) for name in ("paddlepaddle", "numpy", "opencv-python-headless"))
    counted = ", ".join(f"{number} {verdict}" for verdict, number in count.items())
    return f"{tables.markdown(heads, cells)}\n\n{counted}; on {versions}"


def need(module):
    """An imported reference module; skips the test, saying why, if it or something that it imports is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module.split('.')[0]} cannot be imported: {type(error).__name__}: {error}")


def release(package):
    """ "name version" of an installed distribution, or its name alone."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@functools.cache
def patch_timm():
    """Makes timm importable without torchvision; returns what was replaced, "" if nothing.

    torchvision has no build for CPU-only PyTorch on every registry. timm needs it for its data pipeline and for one
    frozen batch norm, neither of which is compared.
    """
    spec = importlib.util.find_spec("timm")
    if importlib.util.find_spec("torchvision") or spec is None:
        return ""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
    folder = Path(spec.origin).parent / "data"
    constants = importlib.util.spec_from_file_location("timm_data_constants", folder / "constants.py")
    numbers = importlib.util.module_from_spec(constants)
    constants.loader.exec_module(numbers)
    data = types.ModuleType("timm.data")
    data.__path__ = [str(folder)]
    data.__dict__.update({key: value for key, value in vars(numbers).items() if key.isupper()})
    sys.modules["timm.data"] = data
    return "; torchvision (unused here) replaced by empty modules"


def seeded(key, shape, dtype=np.float32):
    """Standard normal float32 numbers that depend on the name alone, so both sides can be given the same."""
    return np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).randn(*shape).astype(np.float32).astype(dtype)


def relative(ours, theirs):
    """Largest difference as a share of the largest magnitude of its array; inf when shapes or names differ, NaN for NaN.

    An array a million times smaller than the largest one counts as zero: what is left of a gradient that cancels (a bias
    before a batch norm) is rounding on both sides, and is measured against that millionth.
    """
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return np.inf
        ours, theirs = ours.values(), [theirs[name] for name in ours]
    worst, theirs = [], list(theirs)
    smallest = 1e-6 * max((np.abs(reference).max() for reference in theirs), default=0.0)
    for mine, reference in zip(ours, theirs, strict=True):
        if mine.shape != reference.shape:
            return np.inf
        scale = max(np.abs(reference).max(), smallest) or 1.0
        worst.append(np.abs(mine.astype(np.float64) - reference).max() / scale)
    return float(np.max(worst))  # of nothing: an error; NaN wins


def levels(mine, theirs):
    """Largest difference, e.g. in grey levels; inf when the sizes differ."""
    if mine.shape != theirs.shape:
        return np.inf
    return float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max())
