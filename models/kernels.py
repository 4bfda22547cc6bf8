"""Compiled layers of networks, for one core.

A convolution without padding over positions of `c` channels, stored position by position, is a
product of matrices with overlapping rows: row p of the left one begins at ``x[p * stride * c]`` and
has ``kernel * c`` elements. So one kernel, `product`, serves linear layers and convolutions:

    y[p, o] = max(lowest, max over a pool of rows p of (b[o] + sum_r x[p * step + r] W[r, o]))

Every sum is of fused multiplications and additions in the order of r, begun with b. Vectors run
over the outputs o, never over r, so the bits of y depend neither on the other rows nor on the
processor.
"""

import math
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# A block is ROWS rows by 2 vectors of outputs. On AVX2 6 by 2 sums, 2 vectors of weights and 1 of x
# fill the 16 registers. AVX-512 has 32, twice as long; 8 by 2 sums do best there (12 by 2 less).
ROWS, LANES = (8, 16) if llvm.get_host_cpu_features().get("avx512f") else (6, 8)
WIDTH = 2 * LANES
MOST_POOLED = 6
# Blocks that go through CHUNK elements of their rows together before the next CHUNK, so that the
# weights (at most 32 kB) and the rows stay in the cache: 64 patterns of a linear layer.
BLOCKS, CHUNK = 64 // ROWS + 1, 256
# Rows of weights that are asked for ahead of use: with 4.8 MB of them, which do not stay in the
# nearest caches, 0.15 ms for one pattern instead of 0.3 and 1.05 ms for 64 instead of 1.3.
AHEAD, READ = 32, (0, 3, 1)  # the arguments of llvm.prefetch for data that is read and kept

# Typed here: called from Python these functions are not what they are when compiled.
_intrinsic: Callable[[Any], Any] = extending.intrinsic
_function: Any = cgutils.get_or_insert_function
_vector = ir.VectorType(ir.FloatType(), LANES)
_int = ir.IntType(np.dtype(np.intp).itemsize * 8)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _pointers(builder: Any, array: Any, index: Any) -> list[Any]:
    """Return where the two vectors that begin at `index` are."""
    at = (builder.gep(array, [builder.add(index, _int(half))]) for half in (0, LANES))
    return [builder.bitcast(pointer, _vector.as_pointer()) for pointer in at]


def _read(builder: Any, array: Any, index: Any) -> list[Any]:
    return [builder.load(pointer, align=4) for pointer in _pointers(builder, array, index)]


def _write(builder: Any, vectors: list[Any], array: Any, index: Any) -> None:
    for vector, pointer in zip(vectors, _pointers(builder, array, index), strict=True):
        builder.store(vector, pointer, align=4)


def _splat(builder: Any, value: Any) -> Any:
    vector = builder.insert_element(ir.Constant(_vector, ir.Undefined), value, cgutils.int32_t(0))
    order = ir.Constant(ir.VectorType(cgutils.int32_t, LANES), [0] * LANES)
    return builder.shuffle_vector(vector, vector, order)


@_intrinsic
def _block(typing: Any, x: Any, start: Any, step: Any, last: Any, depth: Any, w: Any, first: Any,
           sums: Any, before: Any, stride: Any, after: Any) -> Any:  # fmt: skip
    """Add x W to ROWS rows of WIDTH elements of `sums`, for `depth` elements of x and rows of W.

    The rows of x begin at `start` and every `step` from there; one that would begin after `last` is
    the one at `last` again. W begins at `first`. What is added to is at `before`, and every
    `stride` from there; what comes out is at `after`, row by row.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, step, last, depth, _, first, _, before, stride, after = args
        arrays = ((x, args[0]), (w, args[5]), (sums, args[7]))
        of_x, of_w, of_sums = (_data(context, builder, *a) for a in arrays)
        kind = ir.FunctionType(_vector, [_vector] * 3)
        fma = _function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte] + [cgutils.int32_t] * 3)
        prefetch = _function(builder.module, kind, "llvm.prefetch.p0")
        rows, found = [], []
        for i in range(ROWS):
            begin = builder.add(start, builder.mul(step, _int(i)))
            inside = builder.icmp_signed("<", begin, last)
            rows.append(builder.gep(of_x, [builder.select(inside, begin, last)]))
            halves = _read(builder, of_sums, builder.add(before, builder.mul(stride, _int(i))))
            found.append([cgutils.alloca_once_value(builder, half) for half in halves])
        with cgutils.for_range(builder, depth) as loop:
            at = builder.add(first, builder.mul(loop.index, _int(WIDTH)))
            for line in range(AHEAD * WIDTH, (AHEAD + 1) * WIDTH, 16):  # of 64 bytes
                there = builder.gep(of_w, [builder.add(at, _int(line))])
                builder.call(prefetch, [builder.bitcast(there, byte), *map(cgutils.int32_t, READ)])
            weights = _read(builder, of_w, at)
            for row, halves in zip(rows, found, strict=True):
                value = _splat(builder, builder.load(builder.gep(row, [loop.index])))
                for half, weight in zip(halves, weights, strict=True):
                    builder.store(builder.call(fma, [value, weight, builder.load(half)]), half)
        for i, halves in enumerate(found):
            done = [builder.load(half) for half in halves]
            _write(builder, done, of_sums, builder.add(after, _int(i * WIDTH)))
        return context.get_dummy_value()

    n = types.intp
    return types.void(x, n, n, n, n, w, n, sums, n, n, n), code


@_intrinsic
def _pool(typing: Any, sums: Any, row: Any, pool: Any, lowest: Any, out: Any, to: Any) -> Any:
    """Set WIDTH elements of `out` from `to` on to the largest of `pool` rows of `sums`.

    The first of them is `row`. The largest is at least `lowest`; a NaN stays one.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of_sums, of_out = (_data(context, builder, *a) for a in ((sums, args[0]), (out, args[4])))
        best = [cgutils.alloca_once_value(builder, _splat(builder, args[3])) for _ in range(2)]
        with cgutils.for_range(builder, args[2]) as loop:
            at = builder.mul(builder.add(args[1], loop.index), _int(WIDTH))
            for value, slot in zip(_read(builder, of_sums, at), best, strict=True):
                now = builder.load(slot)
                # The first is false for a NaN on either side; the second keeps one that is there.
                larger = builder.fcmp_ordered(">=", now, value)
                keep = builder.or_(larger, builder.fcmp_unordered("uno", now, now))
                builder.store(builder.select(keep, now, value), slot)
        _write(builder, [builder.load(slot) for slot in best], of_out, args[5])
        return context.get_dummy_value()

    return types.void(sums, types.intp, types.intp, types.float32, out, types.intp), code


@extending.register_jitable
def aligned(size: int) -> Float32:
    """Return room for `size` numbers that begins at a multiple of 64 bytes, a vector of AVX-512.

    The CNN takes 10 % less time.
    """
    room = np.empty(size + 16, np.float32)
    start = int(-room.ctypes.data % 64 // 4)
    return room[start : start + size]


def pack(w: NDArray[Any], b: NDArray[Any]) -> tuple[Float32, Float32]:
    """Return weights (depth, outputs) and biases (outputs,) as `product` reads them, flat.

    Panels of WIDTH outputs, the last one filled up with zeros; each row by row.
    """
    depth, outputs = w.shape
    filled = -(-outputs // WIDTH) * WIDTH
    packed, bias = aligned(depth * filled), aligned(filled)
    padded = np.zeros((depth, filled))
    padded[:, :outputs], bias[:outputs], bias[outputs:] = w, b, 0
    packed.reshape(-1, depth, WIDTH)[:] = padded.reshape(depth, -1, WIDTH).transpose(1, 0, 2)
    return packed, bias


@njit(nogil=True, cache=True)
def product(x: Float32, n: int, item: int, rows: int, step: int, w: Float32, b: Float32,
            outputs: int, pool: int, lowest: float, y: Float32) -> None:  # fmt: skip
    """Set `y` (n, rows // pool, outputs) to the formula above for n items of `x`, all flat.

    Parameters
    ----------
    x
        Item i begins at ``i * item``, its row p ``p * step`` later; rows are as long as `w` says.
    w, b
        As `pack` gives them.
    pool
        At most MOST_POOLED rows; rows that do not fill a pool are left out.
    lowest
        0 for a rectifier, else -inf.
    """
    depth, floor = w.size // b.size, np.float32(lowest)
    pooled, together, size = rows // pool, ROWS // pool, ROWS * WIDTH
    sums = aligned(b.size * (1 + BLOCKS * ROWS))
    sums[: b.size] = b  # where the sums begin
    for i in range(n):
        last = i * item + (rows - 1) * step
        for start in range(0, pooled, BLOCKS * together):
            blocks = min(BLOCKS, (pooled - start + together - 1) // together)
            for chunk in range(0, depth, CHUNK):
                deep = min(CHUNK, depth - chunk)
                for panel in range(b.size // WIDTH):
                    of_w = (panel * depth + chunk) * WIDTH
                    for block in range(blocks):
                        row = i * item + (start + block * together) * pool * step
                        at = b.size + (panel * BLOCKS + block) * size
                        before, stride = (at, WIDTH) if chunk else (panel * WIDTH, 0)
                        _block(x, row + chunk, step, last + chunk, deep, w, of_w,
                               sums, before, stride, at)  # fmt: skip
            for panel in range(b.size // WIDTH):
                column = panel * WIDTH
                for block in range(blocks):
                    first = start + block * together
                    for g in range(min(together, pooled - first)):
                        at = b.size // WIDTH + (panel * BLOCKS + block) * ROWS + g * pool
                        to = (i * pooled + first + g) * outputs + column
                        if column + WIDTH <= outputs:
                            _pool(sums, at, pool, floor, y, to)
                        else:
                            _pool(sums, at, pool, floor, sums, at * WIDTH)
                            for o in range(outputs - column):
                                y[to + o] = sums[at * WIDTH + o]


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _moments(x: Float32) -> tuple[float, float]:
    """Return mean and variance of `x` in double precision; vectors run along x."""
    total = 0.0
    for i in range(x.size):
        total += x[i]
    mean = total / x.size
    total = 0.0
    for i in range(x.size):
        total += (x[i] - mean) ** 2
    return mean, total / x.size


@njit(nogil=True, cache=True)
def layer_norm(
    x: Float32, n: int, weight: Float32, bias: Float32, eps: float, lowest: float, y: Float32
) -> None:
    """Set `y` to the `n` vectors in `x`, normalised, weighted and at least `lowest`; all flat."""
    size, floor = weight.size, np.float32(lowest)
    for first in range(0, n * size, size):
        source, target = x[first : first + size], y[first : first + size]
        mean, variance = _moments(source)
        scale = 1 / math.sqrt(variance + eps)
        for i in range(size):
            value = np.float32((source[i] - mean) * scale) * weight[i] + bias[i]
            target[i] = floor if value < floor else value  # NaN stays


@njit(nogil=True, cache=True)
def channels_first(x: Float32, n: int, length: int, channels: int, y: Float32) -> None:
    """Set `y` (n, channels, length) to `x` (n, length, channels), both flat."""
    for i in range(n):
        for p in range(length):
            for c in range(channels):
                y[(i * channels + c) * length + p] = x[(i * length + p) * channels + c]


@njit(nogil=True, cache=True)
def softmax(logits: Float32, temperature: float, p: Float32) -> None:
    """Set `p` (n, classes) to the softmax of `logits` / `temperature` in double precision.

    `logits` are (n, classes), or (n, 1) for two classes: the second's, the first has 0.
    """
    z = np.zeros(p.shape[1])
    first = p.shape[1] - logits.shape[1]
    for i in range(len(p)):
        for k in range(first, z.size):
            z[k] = logits[i, k - first] / temperature
        largest, total = z.max(), 0.0
        for k in range(z.size):
            total += math.exp(z[k] - largest)
        for k in range(z.size):
            p[i, k] = math.exp(z[k] - largest) / total
