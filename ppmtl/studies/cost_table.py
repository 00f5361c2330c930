"""The cost of a run as Markdown tables and as JSON, with times for named devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ppmtl.structures import Size
from ppmtl.studies.cost import FLOP_PER_MAC, Cost
from ppmtl.studies.measure import StepMeasurement

GIB = 2**30
# Share of a vendor's dense peak that ConvNeXt-L with dense heads is assumed to sustain: its depthwise 7x7 convolutions and
# normalisations are bound by memory bandwidth, so the faster the arithmetic, the smaller the share.
_FP32, _TF32, _HALF = 0.55, 0.25, 0.19


@dataclass(frozen=True)
class Device:
    """What one device is taken to sustain in training. ``origin`` says on whose word."""

    name: str
    tflops: float
    origin: str


def _stated(name: str, peak: float, share: float) -> Device:
    return Device(name, peak * share, f"stated, not measured: {share:.0%} of the vendor's {peak:g}")


DEVICES = (
    _stated("t4-fp32", 8.1, _FP32),
    _stated("v100-fp32", 15.7, _FP32),
    _stated("a100-fp32", 19.5, _FP32),
    _stated("a100-tf32", 156, _TF32),
    _stated("a100-bf16", 312, _HALF),
    _stated("h100-sxm-tf32", 494, _TF32),
    _stated("h100-sxm-bf16", 989, _HALF),
    _stated("rtx3090-fp32", 35.6, _FP32),
    _stated("rtx4090-fp32", 82.6, _FP32),
    Device("xeon-core-fp32", 0.038, "measured: ConvNeXt-L at 224 px, one AVX-512 core, forward and backward 5.4 s"),
)


def find_device(name: str) -> Device:
    """Returns the device of that name.

    Raises:
        ValueError: if there is none.
    """
    for device in DEVICES:
        if device.name == name:
            return device
    known = ", ".join(device.name for device in DEVICES)
    raise ValueError(f"--hardware: got {name!r}; known are {known}; for any other give --device-tflops")


def markdown(cost: Cost, devices: Sequence[Device], measured: StepMeasurement | None = None) -> str:
    """Returns the tables, to be read in a terminal or pasted into a paper's source."""
    parts = [
        "### Parameters (trainable; running statistics are not counted)",
        table(["part", "parameters"], _parameter_rows(cost)),
        "### Training, per picture (one multiply-add = 1 MAC; forward pass)",
        table(["source", "input (H x W)", "batch", "backbone, GMAC", "heads, GMAC", "kept for backward, GiB"], [
            [s.name, _size(s.size), str(s.batch_size), _giga(s.backbone),
             " + ".join(f"{_giga(macs)} ({task})" for task, macs in s.heads.items()), _gib(s.activation_bytes)]
            for s in cost.sources
        ]),
        "### Evaluation, per picture",
        table(["task", "input (H x W)", "backbone, GMAC", "head, GMAC", "TTA views", "all views, GMAC"], [
            [e.task, _size(e.size), _giga(e.backbone), _giga(e.head), str(e.tta_views), _giga(e.tta_macs)]
            for e in cost.evaluation
        ]),
        "### Training memory per process (estimate; float32)",
        table(["what", "GiB"], [
            [f"weights, gradients, optimizer ({cost.state_bytes_per_parameter} bytes per parameter)", _gib(cost.state_bytes)],
            ["kept for the backward pass (largest source; they run one after the other)", _gib(cost.activation_bytes)],
            ["together, without the kernels' work space", _gib(cost.state_bytes + cost.activation_bytes)],
        ]),
        f"### Time: {cost.step_flop / 1e12:.3g} TFLOP per step and process, {cost.total_steps:,} steps (estimate; without "
        "waiting for data, communication and evaluation)",
        table(["device", "sustained TFLOP/s", "one step", "whole schedule", "throughput is"], [
            [d.name, f"{d.tflops:.3g}", _duration(cost.step_flop / d.tflops / 1e12),
             _duration(cost.total_steps * cost.step_flop / d.tflops / 1e12), d.origin]
            for d in devices
        ]),
    ]  # fmt: skip
    if measured:
        parts += [
            "### One forward and backward pass measured on this machine, on small inputs",
            table(["source", "input (H x W)", "batch", "GFLOP", "at the mean throughput", "measured"], [
                [m.source, _size(m.size), str(m.batch_size), f"{m.flop / 1e9:.3g}",
                 _duration(m.flop / measured.flop_per_second), _duration(m.seconds)]
                for m in measured.sources
            ]),
            f"Memory for it: estimated {_gib(measured.estimated_bytes)} GiB, the peak of the process grew by "
            f"{_gib(measured.measured_bytes)} GiB.",
        ]  # fmt: skip
    if cost.uncounted:
        parts.append(f"Not counted: the multiply-adds of {', '.join(cost.uncounted)} (no convolution or linear layer).")
    return "\n\n".join(parts)


def as_json(cost: Cost, devices: Sequence[Device], measured: StepMeasurement | None = None) -> dict[str, Any]:
    """Returns the same numbers, in units of one (parameters, multiply-adds, bytes, seconds)."""
    return {
        **asdict(cost),
        "parameter_count": cost.parameter_count,
        "state_bytes": cost.state_bytes,
        "activation_bytes": cost.activation_bytes,
        "step_flop": cost.step_flop,
        "devices": [
            {
                **asdict(d),
                "step_seconds": cost.step_flop / d.tflops / 1e12,
                "schedule_seconds": cost.total_steps * cost.step_flop / d.tflops / 1e12,
            }
            for d in devices
        ],
        "measured": measured and {**asdict(measured), "flop_per_second": measured.flop_per_second},
        "flop_per_mac": FLOP_PER_MAC,
    }


def _parameter_rows(cost: Cost) -> list[list[str]]:
    rows = []
    for part, inner in cost.parameters.items():
        rows.append([f"**{part}**", f"**{sum(inner.values()):,}**"])
        rows += [[f"{part}.{name}", f"{count:,}"] for name, count in inner.items()]
    return [*rows, ["**together**", f"**{cost.parameter_count:,}**"]]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table that is also aligned when read as text; all columns but the first are numbers."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    numeric = [i > 0 and heads[i] not in ("throughput is",) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = [("-" * (w - 1) + ":") if n else "-" * w for w, n in zip(widths, numeric, strict=True)]
    return "\n".join([line(heads), line(rule), *map(line, rows)])


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}" if count >= 10 * GIB else f"{count / GIB:.2g}"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.1f}" if macs >= 1e9 else f"{macs / 1e9:.3g}"


def _duration(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:,.1f} d"
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"
