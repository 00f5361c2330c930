"""What training on CPU computes by numba: the parts of a ConvNeXt block that are no GEMM (depthwise convolution, LayerNorm,
GELU, layer scale), AdamW's step and the moving average.

Everything is float32, contiguous and channels last, and comes as addresses (``Tensor.data_ptr()``): Paddle gives numpy no
view that can be written to. The loops use an explicit vector of LANES floats, since LLVM does not vectorise loops over so
many pointers by itself; a last group of fewer channels is loaded and stored masked.

A kernel's last two arguments are a range of units of its work (groups of channels, or parts of the rows), which :func:`run`
spreads over threads. What one unit computes, and the order in which parts are summed, do not depend on the number of
threads, so no bit of the result does.

All that is compiled lies in this file: numba compares only a file's own date with its cache.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any, get_type_hints

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LOGGER = logging.getLogger("ppmtl")
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # LLVM splits what is wider than the registers
BYTES = 4 * LANES
PARTS = 8  # of the rows; each sums columns by itself

_F32, _I32 = ir.FloatType(), ir.IntType(32)
_VECTOR, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_Generator = tuple[Any, Callable[..., Any]]  # what an intrinsic returns: its signature, and what emits its LLVM


class _Vector(types.Type):
    """LANES floats."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector{LANES}")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _floats(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_F32, float(np.float32(value)))] * LANES)


def _integers(*values: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [ir.Constant(_I32, value) for value in values * (LANES // len(values))])


def _call(builder: Any, name: str, result: Any, *arguments: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, scalar, ir.Constant(_I32, 0)), empty, _integers(0))


def _first(builder: Any, count: Any) -> Any:
    """The mask of the first ``count`` lanes."""
    return builder.icmp_signed("<", _integers(*range(LANES)), _splat(builder, builder.trunc(count, _I32), _INTEGERS))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fma.v{LANES}f32", _VECTOR, a, b, c)


@intrinsic
def _load(_typing: Any, _address: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _VECTOR.as_pointer()), align=4)

    return _vector(types.intp), emit


@intrinsic
def _store(_typing: Any, _address: Any, _value: Any) -> _Generator:
    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, _vector), emit


@intrinsic
def _load_first(_typing: Any, _address: Any, _count: Any) -> _Generator:
    """The rest is 0."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _VECTOR.as_pointer())
        mask, align = _first(builder, args[1]), ir.Constant(_I32, 4)
        return _call(builder, f"llvm.masked.load.v{LANES}f32.p0", _VECTOR, pointer, align, mask, _floats(0))

    return _vector(types.intp, types.intp), emit


@intrinsic
def _store_first(_typing: Any, _address: Any, _value: Any, _count: Any) -> _Generator:
    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _VECTOR.as_pointer())
        mask, align = _first(builder, args[2]), ir.Constant(_I32, 4)
        _call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), args[1], pointer, align, mask)
        return context.get_dummy_value()

    return types.void(types.intp, _vector, types.intp), emit


@intrinsic
def _keep_first(_typing: Any, _value: Any, _count: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(_first(builder, args[1]), args[0], _floats(0))

    return _vector(_vector, types.intp), emit


@intrinsic
def _all(_typing: Any, _scalar: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], _VECTOR)

    return _vector(types.float32), emit


@intrinsic
def _fma(_typing: Any, _a: Any, _b: Any, _c: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _multiply_add(builder, *args)

    return _vector(_vector, _vector, _vector), emit


def _binary(name: str) -> Any:
    @intrinsic
    def operation(_typing: Any, _a: Any, _b: Any) -> _Generator:
        def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return _vector(_vector, _vector), emit

    return operation


_add, _subtract, _multiply, _divide = _binary("fadd"), _binary("fsub"), _binary("fmul"), _binary("fdiv")


@intrinsic
def _root(_typing: Any, _value: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _call(builder, f"llvm.sqrt.v{LANES}f32", _VECTOR, args[0])

    return _vector(_vector), emit


@intrinsic
def _sum(_typing: Any, _value: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        start = ir.Constant(_F32, 0.0)
        return _call(builder, f"llvm.vector.reduce.fadd.v{LANES}f32", _F32, start, args[0], fastmath=("reassoc",))

    return types.float32(_vector), emit


@intrinsic
def _gelu(_typing: Any, _x: Any) -> _Generator:
    """(gelu(x), its derivative) with the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        x = args[0]
        density = _exp_negative(builder, builder.fmul(_floats(-0.5), builder.fmul(x, x)))
        size = _call(builder, f"llvm.fabs.v{LANES}f32", _VECTOR, x)
        t = builder.fdiv(_floats(1), _multiply_add(builder, size, _floats(0.3275911 * 0.5**0.5), _floats(1)))
        p = _floats(1.061405429)
        for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            p = _multiply_add(builder, p, t, _floats(c))
        tail = builder.fmul(builder.fmul(_floats(0.5), builder.fmul(p, t)), density)  # 1 - Phi(|x|)
        phi = builder.select(builder.fcmp_ordered(">", x, _floats(0)), builder.fsub(_floats(1), tail), tail)
        slope = _multiply_add(builder, builder.fmul(x, _floats((2 * np.pi) ** -0.5)), density, phi)
        return cgutils.pack_array(builder, [builder.fmul(x, phi), slope])

    return types.UniTuple(_vector, 2)(_vector), emit


def _exp_negative(builder: Any, x: Any) -> Any:
    """exp(x) of x <= 0 to about 1 ulp, not below exp(-87); NaN stays NaN. Polynomial: Cephes, expf."""
    x = builder.select(builder.fcmp_ordered("<", x, _floats(-87)), _floats(-87), x)
    shift = _floats(12582912)  # 1.5 * 2**23: adding it rounds to an integer, which then stands in the low bits
    shifted = _multiply_add(builder, x, _floats(np.log2(np.e)), shift)
    whole = builder.fsub(shifted, shift)
    r = _multiply_add(builder, whole, _floats(-0.693359375), x)
    r = _multiply_add(builder, whole, _floats(2.12194440e-4), r)
    p = _floats(1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = _multiply_add(builder, p, r, _floats(c))
    e = _multiply_add(builder, p, builder.fmul(r, r), builder.fadd(r, _floats(1)))
    exponent = builder.add(builder.sub(builder.bitcast(shifted, _INTEGERS), _integers(0x4B400000)), _integers(127))
    return builder.fmul(e, builder.bitcast(builder.shl(exponent, _integers(23)), _VECTOR))


def _kernel(function: Callable[..., None]) -> Any:
    """Compiles at the first call, and keeps the result beside this file or, where that is read-only, in the user's cache."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # numba found no folder that it may write to; ``prepare`` says so
        dispatcher.enable_caching()
    _kernels.append(dispatcher)
    return dispatcher


_kernels: list[Any] = []
_inline = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@intrinsic
def _pointer(_typing: Any, _address: Any) -> _Generator:
    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.intp), emit


@_inline
def _floats_at(address: int, count: int) -> Any:
    return numba.carray(_pointer(address), (count,), np.float32)


@_inline
def _numbers_at(address: int, count: int) -> Any:
    return numba.carray(_pointer(address), (count,), np.int64)


@_inline
def _get(address: int, lanes: int) -> Any:
    return _load(address) if lanes == LANES else _load_first(address, lanes)


@_inline
def _put(address: int, value: Any, lanes: int) -> None:
    if lanes == LANES:
        _store(address, value)
    else:
        _store_first(address, value, lanes)


@_inline
def _accumulate(address: int, value: Any, lanes: int) -> None:
    _put(address, _add(_get(address, lanes), value), lanes)


@_inline
def _part(part: int, rows: int) -> Any:
    return range(part * rows // PARTS, (part + 1) * rows // PARTS)


# --- depthwise convolution; units: groups of LANES channels ---


@_inline
def _fill(padded: int, image: int, height: int, width: int, size: int, channels: int, lanes: int) -> None:
    """Copies one channel group of an image (height, width, channels) between the borders of ``padded``."""
    pad = size // 2
    wide = width + 2 * pad
    for y in range(height):
        target, source = padded + ((y + pad) * wide + pad) * BYTES, image + y * width * channels * 4
        for x in range(width):
            _store(target + x * BYTES, _get(source + x * channels * 4, lanes))


@_inline
def _taps(weight: Any, taps: Any, channel: int, lanes: int, area: int, flipped: bool) -> None:
    """(channels, area) -> (area, LANES) of one group."""
    taps[:] = 0
    for tap in range(area):
        for lane in range(lanes):
            taps[tap * LANES + lane] = weight[(channel + lane) * area + (area - 1 - tap if flipped else tap)]


@_inline
def _places(height: int, width: int, size: int) -> Any:
    """Where the window of each pixel starts in the padded image, in bytes; 7 more of the last, so that 8 can be taken."""
    places = np.empty(height * width + 7, np.int64)
    for y in range(height):
        for x in range(width):
            places[y * width + x] = (y * (width + size - 1) + x) * BYTES
    places[height * width :] = places[height * width - 1]
    return places


@_inline
def _slide(places: Any, padded: int, taps: int, start: int, start_step: int, out: int, step: int, wide: int, size: int,
           lanes: int) -> None:  # fmt: skip
    """out[pixel] = start[pixel] + window . taps, eight pixels at a time: the latency of an FMA is about eight of them."""
    last = len(places) - 8
    for i in range(0, last + 1, 8):
        i1, i2, i3, i4 = min(i + 1, last), min(i + 2, last), min(i + 3, last), min(i + 4, last)
        i5, i6, i7 = min(i + 5, last), min(i + 6, last), min(i + 7, last)
        p0, p1, p2, p3 = padded + places[i], padded + places[i1], padded + places[i2], padded + places[i3]
        p4, p5, p6, p7 = padded + places[i4], padded + places[i5], padded + places[i6], padded + places[i7]
        a0, a1 = _get(start + i * start_step, lanes), _get(start + i1 * start_step, lanes)
        a2, a3 = _get(start + i2 * start_step, lanes), _get(start + i3 * start_step, lanes)
        a4, a5 = _get(start + i4 * start_step, lanes), _get(start + i5 * start_step, lanes)
        a6, a7 = _get(start + i6 * start_step, lanes), _get(start + i7 * start_step, lanes)
        tap, offset = taps, 0
        for _y in range(size):
            for _x in range(size):
                w = _load(tap)
                a0, a1 = _fma(_load(p0 + offset), w, a0), _fma(_load(p1 + offset), w, a1)
                a2, a3 = _fma(_load(p2 + offset), w, a2), _fma(_load(p3 + offset), w, a3)
                a4, a5 = _fma(_load(p4 + offset), w, a4), _fma(_load(p5 + offset), w, a5)
                a6, a7 = _fma(_load(p6 + offset), w, a6), _fma(_load(p7 + offset), w, a7)
                tap += BYTES
                offset += BYTES
            offset += (wide - size) * BYTES
        _put(out + i * step, a0, lanes)
        _put(out + i1 * step, a1, lanes)
        _put(out + i2 * step, a2, lanes)
        _put(out + i3 * step, a3, lanes)
        _put(out + i4 * step, a4, lanes)
        _put(out + i5 * step, a5, lanes)
        _put(out + i6 * step, a6, lanes)
        _put(out + i7 * step, a7, lanes)


@_inline
def _forward_group(padded: Any, taps: Any, places: Any, x: int, weight: int, bias: int, out: int, images: int,
                   height: int, width: int, channels: int, size: int, channel: int) -> None:  # fmt: skip
    lanes = min(LANES, channels - channel)
    x, out, step = x + 4 * channel, out + 4 * channel, 4 * channels
    _taps(_floats_at(weight, channels * size * size), taps, channel, lanes, size * size, False)
    for image in range(images):
        shift = image * height * width * step
        _fill(padded.ctypes.data, x + shift, height, width, size, channels, lanes)
        _slide(places, padded.ctypes.data, taps.ctypes.data, bias + 4 * channel, 0, out + shift, step,
               width + size - 1, size, lanes)  # fmt: skip


@_kernel
def depthwise_forward(x: int, weight: int, bias: int, out: int, images: int, height: int, width: int, channels: int,
                      size: int, first: int, last: int) -> None:  # fmt: skip
    """out = convolution of x (images, height, width, channels) with weight (channels, 1, size, size), same padding."""
    padded = np.zeros((height + size - 1) * (width + size - 1) * LANES, np.float32)
    taps, places = np.empty(size * size * LANES, np.float32), _places(height, width, size)
    for group in range(first, last):
        # Arrays whose addresses are used are arguments of the call: numba frees an array after its last use
        _forward_group(padded, taps, places, x, weight, bias, out, images, height, width, channels, size,
                       group * LANES)  # fmt: skip


@_inline
def _correlate(padded: int, slopes: int, sums: int, height: int, width: int, size: int) -> None:
    """sums[tap] += slopes . padded shifted by the tap, nine taps at a time; sums[area] += slopes (the bias)."""
    wide, pad, area = width + size - 1, size // 2, size * size
    for tap in range(0, area, 9):
        k0, k1, k2, k3 = tap, min(tap + 1, area - 1), min(tap + 2, area - 1), min(tap + 3, area - 1)
        k4, k5, k6 = min(tap + 4, area - 1), min(tap + 5, area - 1), min(tap + 6, area - 1)
        k7, k8 = min(tap + 7, area - 1), min(tap + 8, area - 1)
        s0, s1, s2 = _load(sums + k0 * BYTES), _load(sums + k1 * BYTES), _load(sums + k2 * BYTES)
        s3, s4, s5 = _load(sums + k3 * BYTES), _load(sums + k4 * BYTES), _load(sums + k5 * BYTES)
        s6, s7, s8 = _load(sums + k6 * BYTES), _load(sums + k7 * BYTES), _load(sums + k8 * BYTES)
        total = _load(sums + area * BYTES)
        o0, o1, o2 = _offset(k0, wide, size), _offset(k1, wide, size), _offset(k2, wide, size)
        o3, o4, o5 = _offset(k3, wide, size), _offset(k4, wide, size), _offset(k5, wide, size)
        o6, o7, o8 = _offset(k6, wide, size), _offset(k7, wide, size), _offset(k8, wide, size)
        for y in range(height):
            p, q = padded + y * wide * BYTES, slopes + ((y + pad) * wide + pad) * BYTES
            for x in range(width):
                d, i = _load(q + x * BYTES), p + x * BYTES
                s0, s1, s2 = _fma(_load(i + o0), d, s0), _fma(_load(i + o1), d, s1), _fma(_load(i + o2), d, s2)
                s3, s4, s5 = _fma(_load(i + o3), d, s3), _fma(_load(i + o4), d, s4), _fma(_load(i + o5), d, s5)
                s6, s7, s8 = _fma(_load(i + o6), d, s6), _fma(_load(i + o7), d, s7), _fma(_load(i + o8), d, s8)
                total = _add(total, d)
        _store(sums + k0 * BYTES, s0)
        _store(sums + k1 * BYTES, s1)
        _store(sums + k2 * BYTES, s2)
        _store(sums + k3 * BYTES, s3)
        _store(sums + k4 * BYTES, s4)
        _store(sums + k5 * BYTES, s5)
        _store(sums + k6 * BYTES, s6)
        _store(sums + k7 * BYTES, s7)
        _store(sums + k8 * BYTES, s8)
        if tap == 0:
            _store(sums + area * BYTES, total)


@_inline
def _offset(tap: int, wide: int, size: int) -> Any:
    return (tap // size * wide + tap % size) * BYTES


@_inline
def _backward_group(padded: Any, slopes: Any, taps: Any, sums: Any, places: Any, x: int, weight: int, dout: int,
                    dy: int, dx: int, dweight: int, dbias: int, images: int, height: int, width: int, channels: int,
                    size: int, channel: int) -> None:  # fmt: skip
    lanes, area, step = min(LANES, channels - channel), size * size, 4 * channels
    _taps(_floats_at(weight, channels * area), taps, channel, lanes, area, True)
    sums[:] = 0
    for image in range(images):
        shift = image * height * width * step + 4 * channel
        _fill(padded.ctypes.data, x + shift, height, width, size, channels, lanes)
        _fill(slopes.ctypes.data, dout + shift, height, width, size, channels, lanes)
        _correlate(padded.ctypes.data, slopes.ctypes.data, sums.ctypes.data, height, width, size)
        if dx != 0:
            _slide(places, slopes.ctypes.data, taps.ctypes.data, dy + shift, step, dx + shift, step,
                   width + size - 1, size, lanes)  # fmt: skip
    all_weights, all_biases = _floats_at(dweight, channels * area), _floats_at(dbias, channels)
    for lane in range(lanes):
        for tap in range(area):
            all_weights[(channel + lane) * area + tap] = sums[tap * LANES + lane]
        all_biases[channel + lane] = sums[area * LANES + lane]


@_kernel
def depthwise_backward(x: int, weight: int, dout: int, dy: int, dx: int, dweight: int, dbias: int, images: int,
                       height: int, width: int, channels: int, size: int, first: int, last: int) -> None:  # fmt: skip
    """Gradients by weight and bias, and dx = dy + gradient by x, dy being the residual's; dx = 0: not wanted."""
    padded = np.zeros((height + size - 1) * (width + size - 1) * LANES, np.float32)
    slopes = np.zeros_like(padded)
    taps, sums = np.empty(size * size * LANES, np.float32), np.empty((size * size + 1) * LANES, np.float32)
    places = _places(height, width, size)
    for group in range(first, last):
        _backward_group(padded, slopes, taps, sums, places, x, weight, dout, dy, dx, dweight, dbias, images, height,
                        width, channels, size, group * LANES)  # fmt: skip


# --- everything else goes over rows of channels; units: PARTS of the rows ---


@_kernel
def norm_forward(x: int, weight: int, bias: int, y: int, stats: int, rows: int, channels: int, epsilon: float,
                 first: int, last: int) -> None:  # fmt: skip
    """y = LayerNorm of x (rows, channels); stats (rows, 2) = mean and 1 / deviation."""
    found, zero = _floats_at(stats, 2 * rows), _all(np.float32(0))
    for part in range(first, last):
        for row in _part(part, rows):
            p, q = x + row * channels * 4, y + row * channels * 4
            total = zero
            for c in range(0, channels, LANES):
                total = _add(total, _get(p + 4 * c, min(LANES, channels - c)))
            mean = np.float32(_sum(total) / channels)
            centre, total = _all(mean), zero
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                d = _keep_first(_subtract(_get(p + 4 * c, lanes), centre), lanes)
                total = _fma(d, d, total)
            scale = np.float32(1 / np.sqrt(_sum(total) / channels + epsilon))
            factor = _all(scale)
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                d = _multiply(_subtract(_get(p + 4 * c, lanes), centre), factor)
                _put(q + 4 * c, _fma(d, _get(weight + 4 * c, lanes), _get(bias + 4 * c, lanes)), lanes)
            found[2 * row], found[2 * row + 1] = mean, scale


@_kernel
def norm_backward(x: int, dy: int, weight: int, stats: int, dx: int, sums: int, rows: int, channels: int, first: int,
                  last: int) -> None:  # fmt: skip
    """dx, and sums (PARTS, 2, channels): each part's gradients by weight and bias."""
    found, zero = _floats_at(stats, 2 * rows), _all(np.float32(0))
    for part in range(first, last):
        dweight = sums + part * 2 * channels * 4
        dbias = dweight + channels * 4
        _floats_at(dweight, 2 * channels)[:] = 0
        for row in _part(part, rows):
            p, q, o = x + row * channels * 4, dy + row * channels * 4, dx + row * channels * 4
            centre, factor = _all(found[2 * row]), _all(found[2 * row + 1])
            plain, along = zero, zero
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                normed, slope = _multiply(_subtract(_get(p + 4 * c, lanes), centre), factor), _get(q + 4 * c, lanes)
                _accumulate(dweight + 4 * c, _multiply(slope, normed), lanes)
                _accumulate(dbias + 4 * c, slope, lanes)
                slope = _multiply(slope, _get(weight + 4 * c, lanes))
                plain, along = _add(plain, slope), _fma(slope, normed, along)
            a, b = _all(np.float32(-_sum(plain) / channels)), _all(np.float32(-_sum(along) / channels))
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                normed = _multiply(_subtract(_get(p + 4 * c, lanes), centre), factor)
                slope = _fma(_get(q + 4 * c, lanes), _get(weight + 4 * c, lanes), a)
                _put(o + 4 * c, _multiply(factor, _fma(normed, b, slope)), lanes)


@_kernel
def gelu_forward(h: int, bias: int, g: int, rows: int, channels: int, first: int, last: int) -> None:
    """g = gelu(h + bias)."""
    for part in range(first, last):
        for row in _part(part, rows):
            p, q = h + row * channels * 4, g + row * channels * 4
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                _put(q + 4 * c, _gelu(_add(_get(p + 4 * c, lanes), _get(bias + 4 * c, lanes)))[0], lanes)


@_kernel
def gelu_backward(h: int, bias: int, g: int, slopes: int, sums: int, rows: int, channels: int, first: int,
                  last: int) -> None:  # fmt: skip
    """g = gelu(h + bias) again; slopes, by g, become those by h, in place; sums (PARTS, channels) of them."""
    for part in range(first, last):
        dbias = sums + part * channels * 4
        _floats_at(dbias, channels)[:] = 0
        for row in _part(part, rows):
            shift = row * channels * 4
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                value, slope = _gelu(_add(_get(h + shift + 4 * c, lanes), _get(bias + 4 * c, lanes)))
                slope = _multiply(slope, _get(slopes + shift + 4 * c, lanes))
                _put(g + shift + 4 * c, value, lanes)
                _put(slopes + shift + 4 * c, slope, lanes)
                _accumulate(dbias + 4 * c, slope, lanes)


@_kernel
def residual_forward(x: int, o: int, bias: int, gamma: int, keep: int, y: int, images: int, pixels: int, channels: int,
                     first: int, last: int) -> None:  # fmt: skip
    """y = x + keep[image] * gamma * (o + bias); keep is drop-path's factor."""
    kept = _floats_at(keep, images)
    for part in range(first, last):
        for row in _part(part, images * pixels):
            shift, k = row * channels * 4, _all(kept[row // pixels])
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                branch = _add(_get(o + shift + 4 * c, lanes), _get(bias + 4 * c, lanes))
                scale = _multiply(_get(gamma + 4 * c, lanes), k)
                _put(y + shift + 4 * c, _fma(branch, scale, _get(x + shift + 4 * c, lanes)), lanes)


@_kernel
def residual_backward(dy: int, o: int, bias: int, gamma: int, keep: int, do: int, sums: int, images: int, pixels: int,
                      channels: int, first: int, last: int) -> None:  # fmt: skip
    """do, and sums (PARTS, 2, channels): each part's gradients by gamma and bias."""
    kept = _floats_at(keep, images)
    for part in range(first, last):
        dgamma = sums + part * 2 * channels * 4
        dbias = dgamma + channels * 4
        _floats_at(dgamma, 2 * channels)[:] = 0
        for row in _part(part, images * pixels):
            shift, k = row * channels * 4, _all(kept[row // pixels])
            for c in range(0, channels, LANES):
                lanes = min(LANES, channels - c)
                slope = _multiply(_get(dy + shift + 4 * c, lanes), k)
                branch = _add(_get(o + shift + 4 * c, lanes), _get(bias + 4 * c, lanes))
                _accumulate(dgamma + 4 * c, _multiply(slope, branch), lanes)
                slope = _multiply(slope, _get(gamma + 4 * c, lanes))
                _accumulate(dbias + 4 * c, slope, lanes)
                _put(do + shift + 4 * c, slope, lanes)


@_kernel
def add_parts(sums: int, total: int, count: int) -> None:
    """total (count,) = the sum of the PARTS rows of sums, in their order."""
    parts, out = _floats_at(sums, PARTS * count), _floats_at(total, count)
    for i in range(count):
        s = np.float32(0)
        for part in range(PARTS):
            s += parts[part * count + i]
        out[i] = s


# --- all parameters in one call; units: parameters ---


@_kernel
def adamw(table: int, rates: int, beta1: float, beta2: float, epsilon: float, count: int, first: int,
          last: int) -> None:  # fmt: skip
    """One step of AdamW, as Paddle's operator computes it.

    ``table`` (count, 7) int64: addresses of a parameter, its gradient, both moments and the powers of both betas, and its
    size; ``rates`` (count, 2) float32: learning rate, and by what the parameter shrinks first.
    """
    rows, numbers, one = _numbers_at(table, 7 * count), _floats_at(rates, 2 * count), np.float32(1)
    keep1, keep2 = np.float32(beta1), np.float32(beta2)
    for i in range(first, last):
        parameter, gradient, moment1, moment2 = rows[7 * i], rows[7 * i + 1], rows[7 * i + 2], rows[7 * i + 3]
        power1, power2 = _floats_at(rows[7 * i + 4], 1), _floats_at(rows[7 * i + 5], 1)
        root = np.sqrt(one - power2[0])
        rate, shrink = _all(numbers[2 * i] * root / (one - power1[0])), _all(one - numbers[2 * i + 1])
        floor = _all(np.float32(epsilon) * root)
        a, b, c, d = _all(keep1), _all(one - keep1), _all(keep2), _all(one - keep2)
        for k in range(0, rows[7 * i + 6], LANES):
            lanes, at = min(LANES, rows[7 * i + 6] - k), 4 * k
            g = _get(gradient + at, lanes)
            m = _add(_multiply(a, _get(moment1 + at, lanes)), _multiply(b, g))
            v = _add(_multiply(c, _get(moment2 + at, lanes)), _multiply(d, _multiply(g, g)))
            step = _multiply(rate, _divide(m, _add(_root(v), floor)))
            _put(moment1 + at, m, lanes)
            _put(moment2 + at, v, lanes)
            _put(parameter + at, _subtract(_multiply(_get(parameter + at, lanes), shrink), step), lanes)
        power1[0] *= keep1
        power2[0] *= keep2


@_kernel
def move_averages(table: int, share: float, count: int, first: int, last: int) -> None:
    """average += share * (value - average); ``table`` (count, 3) int64: addresses of average and value, and their size."""
    rows, part = _numbers_at(table, 3 * count), _all(np.float32(share))
    for i in range(first, last):
        average, value = rows[3 * i], rows[3 * i + 1]
        for k in range(0, rows[3 * i + 2], LANES):
            lanes, at = min(LANES, rows[3 * i + 2] - k), 4 * k
            before = _get(average + at, lanes)
            _put(average + at, _add(before, _multiply(_subtract(_get(value + at, lanes), before), part)), lanes)


# --- how they are called ---


@cache
def prepare() -> None:
    """Compiles all kernels or takes them from numba's cache; logs a line where they had to be compiled."""
    started = time.perf_counter()
    for kernel in _kernels:
        kinds = get_type_hints(kernel.py_func)
        del kinds["return"]
        kernel.compile(tuple(types.float64 if kind is float else types.int64 for kind in kinds.values()))
    if all(kernel.stats.cache_hits for kernel in _kernels):
        return
    folder = _kernels[0].stats.cache_path
    kept = f"kept in {folder}" if folder else "and not kept: no cache folder is writable (set NUMBA_CACHE_DIR to one)"
    LOGGER.info("compiled the CPU kernels in %.0f s, %s", time.perf_counter() - started, kept)


def run(kernel: Any, units: int, *arguments: float) -> None:
    """Calls a kernel for ``units`` units on as many threads as Paddle uses (OMP_NUM_THREADS, 1 unless set)."""
    threads = min(int(os.environ.get("OMP_NUM_THREADS", "1")), units)
    if threads == 1:
        kernel(*arguments, 0, units)
        return
    bounds = [units * i // threads for i in range(threads + 1)]
    others = [_pool(threads, os.getpid()).submit(kernel, *arguments, *bounds[i : i + 2]) for i in range(1, threads)]
    kernel(*arguments, *bounds[:2])
    for other in others:
        other.result()


@cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1)  # one per process: threads do not survive a fork
