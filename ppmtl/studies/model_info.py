"""What ``tools/model_info.py`` prints: the cost of a run as Markdown tables and as JSON, with times for named devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ppmtl import build, tables
from ppmtl.config.settings import Settings
from ppmtl.structures import Size
from ppmtl.studies.cost import FLOP_PER_MAC, Cost, estimate, measure_throughput, train_sizes
from ppmtl.train import distributed

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """What one device is taken to sustain in training.

    Attributes:
        origin: on whose word.
        large_only: it was found with a large net and says nothing about small ones, whose time goes into starting kernels
            and moving memory.
    """

    name: str
    tflops: float
    origin: str
    large_only: bool = False


# Share of a vendor's dense peak that ConvNeXt-L with dense heads is assumed to sustain: its depthwise 7x7 convolutions and
# normalisations are bound by memory bandwidth, so the faster the arithmetic, the smaller the share.
_FP32, _TF32, _HALF = 0.55, 0.25, 0.19
# Multiply-adds of an image's forward pass from which those shares are used: ConvNeXt-L at 384 px. The demo's net, with a
# thousandth of that, took four times as long as they say.
_LARGE = 100e9
_PEAKS = {
    "t4-fp32": (8.1, _FP32),
    "v100-fp32": (15.7, _FP32),
    "a100-fp32": (19.5, _FP32),
    "a100-tf32": (156, _TF32),
    "a100-bf16": (312, _HALF),
    "h100-sxm-tf32": (494, _TF32),
    "h100-sxm-bf16": (989, _HALF),
    "rtx3090-fp32": (35.6, _FP32),
    "rtx4090-fp32": (82.6, _FP32),
}
DEVICES = (
    *(Device(name, peak * share, f"stated, not measured: {share:.0%} of the vendor's {peak:g}", large_only=True)
      for name, (peak, share) in _PEAKS.items()),
    Device("xeon-core-fp32", 0.038, "measured: ConvNeXt-L at 224 px, one AVX-512 core, forward and backward 5.4 s",
           large_only=True),
)  # fmt: skip


def choose_devices(name: str | None, tflops: float | None) -> list[Device]:
    """The device of that name, or all known ones; and one of your own that sustains ``tflops``."""
    chosen = [device for device in DEVICES if name in (None, device.name)]
    if not chosen:
        known = ", ".join(device.name for device in DEVICES)
        raise ValueError(f"--hardware: got {name!r}; known are {known}; for any other give --device-tflops")
    if tflops is not None:
        if tflops <= 0:
            raise ValueError(f"--device-tflops: must be above 0, got {tflops}")
        chosen.append(Device("given", tflops, "--device-tflops"))
    return chosen


def study(
    settings: Settings, devices: list[Device], given: Mapping[str, Size], original: Size, *, measure: bool
) -> tuple[Cost, list[Device]]:
    """Estimates the cost of a run; with ``measure``, times this machine and adds it to ``devices``."""
    # A count is enough here: the class files may be on another machine, with the data
    counted = {n: replace(t, classes=replace(t.classes, names=None, ids=(), captions=())) if t.classes.count else t
               for n, t in settings.tasks.items()}  # fmt: skip
    tasks, sizes = build.build_tasks(replace(settings, tasks=counted)), train_sizes(settings, given)
    if measure:
        distributed.start(settings.device)
    model = build.build_model(settings, tasks)
    if measure:
        tflops = measure_throughput(model, settings, tasks, sizes) / 1e12
        devices = [*devices, Device("this machine", tflops, "measured now: each source's forward and backward pass")]
    return estimate(model, settings, tasks, sizes, original), devices


def markdown(cost: Cost, devices: Sequence[Device]) -> str:
    """The tables, to be read in a terminal or pasted into a paper's source."""
    parts = [
        "### Parameters (trainable; running statistics are not counted)",
        tables.markdown(["part", "parameters"], _parameter_rows(cost)),
        "### Training, per image (one multiply-add = 1 MAC; forward pass)",
        tables.markdown(["source", "input (H x W)", "batch", "backbone, GMAC", "heads, GMAC", "kept for backward, GiB"], [
            [s.name, _size(s.size), s.batch_size, _giga(s.backbone),
             " + ".join(f"{_giga(macs)} ({task})" for task, macs in s.heads.items()), _gib(s.activation_bytes)]
            for s in cost.sources
        ]),
        "### Evaluation, per image",
        tables.markdown(["task", "input (H x W)", "backbone, GMAC", "head, GMAC", "TTA views", "all views, GMAC"], [
            [e.task, _size(e.size), _giga(e.backbone), _giga(e.head), e.tta_views, _giga(e.tta_macs)]
            for e in cost.evaluation
        ]),
        "### Training memory per process (estimate; float32)",
        tables.markdown(["what", "GiB"], [
            [f"weights, gradients, optimizer ({cost.state_bytes_per_parameter} bytes per parameter)", _gib(cost.state_bytes)],
            ["kept for the backward pass (largest source; they run one after the other)", _gib(cost.activation_bytes)],
            ["together, without the kernels' work space", _gib(cost.state_bytes + cost.activation_bytes)],
        ]),
        f"### Time: {cost.step_flop / 1e12:.3g} TFLOP per step and process, {cost.total_steps:,} steps (forward and "
        "backward passes; without data, optimizer, communication and evaluation)",
        tables.markdown(["device", "sustained TFLOP/s", "one step", "whole schedule", "throughput is"], [
            [d.name, f"{d.tflops:.3g}", *map(_duration, _times(cost, d).values()), d.origin] for d in devices
        ]),
    ]  # fmt: skip
    if any(None in _times(cost, device).values() for device in devices):
        parts.append("unknown: what these devices sustain was found with large nets, and an image of this run needs fewer than "
                     f"{_giga(round(_LARGE))} GMAC; small nets take several times as long as such figures say. --measure times "
                     "this machine.")  # fmt: skip
    if cost.uncounted:
        parts.append(f"Not counted: the multiply-adds of {', '.join(cost.uncounted)} (no convolution or linear layer).")
    return "\n\n".join(parts)


def as_json(cost: Cost, devices: Sequence[Device]) -> dict[str, Any]:
    """The same numbers, in units of one (parameters, multiply-adds, bytes, seconds)."""
    return asdict(cost) | {
        "devices": [asdict(device) | _times(cost, device) for device in devices],
        "flop_per_mac": FLOP_PER_MAC,
    }


def _times(cost: Cost, device: Device) -> dict[str, float | None]:
    """Of a step and of all; None where the device's throughput says nothing about nets of this size."""
    smallest = min((s.backbone + sum(s.heads.values()) for s in cost.sources), default=0)
    if device.large_only and smallest < _LARGE:
        return {"step_seconds": None, "schedule_seconds": None}
    step = cost.step_flop / device.tflops / 1e12
    return {"step_seconds": step, "schedule_seconds": cost.total_steps * step}


def _parameter_rows(cost: Cost) -> list[list[str]]:
    rows = []
    for part, inner in cost.parameters.items():
        rows.append([f"**{part}**", f"**{sum(inner.values()):,}**"])
        rows += [[f"{part}.{name}", f"{count:,}"] for name, count in inner.items()]
    return [*rows, ["**together**", f"**{cost.parameter_count:,}**"]]


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}" if count >= 10 * GIB else f"{count / GIB:.2g}"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.1f}" if macs >= 1e9 else f"{macs / 1e9:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for limit, unit, length in ((2 * 86400, "d", 86400), (7200, "h", 3600), (120, "min", 60)):
        if seconds >= limit:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"
