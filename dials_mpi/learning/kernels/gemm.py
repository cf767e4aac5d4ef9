"""Products of small matrices at nearly the rate of large ones.

A minibatch of four sequences multiplies matrices of four rows, where calling a BLAS and packing its operands
costs as much as the product. The innermost blocks are therefore written in explicit vectors: 4 rows by 64
columns of the result stay in registers during the sum. Everything around them is plain loops.

Shapes: M samples, K inputs, N outputs; weights [N, K] as torch has them. All arrays are float32 [rows,
columns] and contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from dials_mpi.core.jit import compiled, features
from dials_mpi.learning.kernels.instructions import instructions, multiply_add

LANES = 16
ROWS = 4
WIDEST = 4 if "avx512f" in features() else 1
"""Vectors side by side in a block. Sixteen sums of 16 lanes fill half of the registers of AVX-512;
elsewhere a vector of 16 lanes takes several registers, and only one vector fits."""
COLUMNS = WIDEST * LANES
ITEM = 4  # bytes of a float32
MANY = 256
"""Number of samples from which transposing a layer's weights takes less time than it saves."""
CHUNK = 128
"""Samples that a sum over all samples takes at a time, so that they stay in the cache."""

_FLOAT, _INT, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


class _Block:
    """Builds the instructions of one block of ``rows`` by ``width`` vectors."""

    def __init__(self, builder: ir.IRBuilder, rows: int, width: int) -> None:
        self.builder = builder
        self.sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(width)] for _ in range(rows)]
        for row in self.sums:
            for place in row:
                builder.store(_ZERO, place)

    def at(self, base: ir.Value, index: ir.Value | int, stride: ir.Value | int) -> ir.Value:
        """The address ``base + index * stride``."""
        index, stride = (_constant(part) if isinstance(part, int) else part for part in (index, stride))
        return self.builder.add(base, self.builder.mul(index, stride))

    def load(self, address: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """Sixteen floats; where the mask is 0, nothing is read and the float is 0."""
        pointer = self.builder.inttoptr(address, _VECTOR.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=ITEM)
        arguments = (pointer.type, _INT, mask.type, _VECTOR)
        function = self._intrinsic("load", ir.FunctionType(_VECTOR, arguments))
        return self.builder.call(function, (pointer, ir.Constant(_INT, ITEM), mask, _ZERO))

    def store(self, value: ir.Value, address: ir.Value, mask: ir.Value | None = None) -> None:
        """Sixteen floats; where the mask is 0, nothing is written."""
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=ITEM)
            return
        arguments = (_VECTOR, pointer.type, _INT, mask.type)
        function = self._intrinsic("store", ir.FunctionType(ir.VoidType(), arguments))
        self.builder.call(function, (value, pointer, ir.Constant(_INT, ITEM), mask))

    def prefetch(self, address: ir.Value) -> None:
        """Load the cache line at an address, which need not be valid, into the nearest cache."""
        pointer = self.builder.inttoptr(address, _FLOAT.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), (pointer.type, _INT, _INT, _INT))
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, (pointer, *(ir.Constant(_INT, number) for number in (0, 3, 1))))

    def broadcast(self, address: ir.Value) -> ir.Value:
        """One float in all lanes."""
        number = self.builder.load(self.builder.inttoptr(address, _FLOAT.as_pointer()), align=ITEM)
        return self._spread(number, _VECTOR)

    def first(self, count: ir.Value) -> ir.Value:
        """A mask of the first ``count`` lanes."""
        kind = ir.VectorType(_INT, LANES)
        lanes = ir.Constant(kind, list(range(LANES)))
        limit = self._spread(self.builder.trunc(count, _INT), kind)
        return self.builder.icmp_signed("<", lanes, limit)

    def add(self, row: int, column: int, left: ir.Value, right: ir.Value) -> None:
        """Add a product to one of the sums."""
        place, builder = self.sums[row][column], self.builder
        builder.store(multiply_add(builder, left, right, builder.load(place)), place)

    def totals(self) -> list[ir.Value]:
        """The sum over the lanes of each of the 4 x 4 vectors: four vectors of four, row by row; or of one.

        Each sum has the same order, however many there are: of halves, of quarters and so on.
        """
        vectors, rows = [self.builder.load(place) for row in self.sums for place in row], len(self.sums)
        group = LANES
        while group > 1:  # one vector gets the sums of the halves of two vectors' groups
            half = group // 2
            low = [start + k for start in range(0, LANES, group) for k in range(half)]
            low += [LANES + place for place in low]
            high = [place + half for place in low]
            pairs = zip(vectors[::2], vectors[1::2] or vectors, strict=True)
            vectors = [
                self.builder.fadd(self._shuffle(a, b, low), self._shuffle(a, b, high)) for a, b in pairs
            ]
            group = half
        return [self._shuffle(vectors[0], vectors[0], range(m * rows, (m + 1) * rows)) for m in range(rows)]

    def _shuffle(self, a: ir.Value, b: ir.Value, places: Any) -> ir.Value:
        places = list(places)
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(places)), places))

    def _spread(self, number: ir.Value, kind: ir.VectorType) -> ir.Value:
        nothing = ir.Constant(kind, ir.Undefined)
        vector = self.builder.insert_element(nothing, number, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(
            vector, nothing, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
        )

    def _intrinsic(self, what: str, kind: ir.FunctionType) -> ir.Function:
        name = f"llvm.masked.{what}.v{LANES}f32.p0"
        return cgutils.get_or_insert_function(self.builder.module, kind, name)


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_INDEX, number)


def _outer_block(rows: int, width: int) -> Any:
    """out[rows, 16 width] (+)= sum over k of a[k, rows] outer b[k, columns], the last vector may be shorter.

    a_row, a_k, b_k, out_row: strides in bytes; last: columns in the last vector, 1 to 16.
    """

    @instructions
    def block(context, a, a_row, a_k, b, b_k, terms, out, out_row, last, add):
        def generate(context, builder, signature, arguments):
            a, a_row, a_k, b, b_k, terms, out, out_row, last, add = arguments
            block = _Block(builder, rows, width)
            masks = [None] * (width - 1) + [block.first(last)]
            outs = [
                [block.at(block.at(out, m, out_row), v, LANES * ITEM) for v in range(width)]
                for m in range(rows)
            ]
            with builder.if_then(builder.icmp_signed("!=", add, _constant(0))):
                for m in range(rows):
                    for v in range(width):
                        builder.store(block.load(outs[m][v], masks[v]), block.sums[m][v])
            with cgutils.for_range(builder, terms) as loop:
                right, left = block.at(b, loop.index, b_k), block.at(a, loop.index, a_k)
                vectors = [block.load(block.at(right, v, LANES * ITEM), masks[v]) for v in range(width)]
                for m in range(rows):
                    number = block.broadcast(block.at(left, m, a_row))
                    for v in range(width):
                        block.add(m, v, number, vectors[v])
            for m in range(rows):
                for v in range(width):
                    block.store(builder.load(block.sums[m][v]), outs[m][v], masks[v])
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), generate

    return block


def _inner_block(rows: int) -> Any:
    """out[rows, rows] = a[rows, terms] @ b[rows, terms].T + bias[rows]; strides in bytes. rows: 4 or 1."""

    @instructions
    def block(context, a, a_row, b, b_row, terms, bias, out, out_row):
        def generate(context, builder, signature, arguments):
            a, a_row, b, b_row, terms, bias, out, out_row = arguments
            block = _Block(builder, rows, rows)

            def step(offset: ir.Value, mask: ir.Value | None) -> None:
                rights = [block.load(builder.add(block.at(b, n, b_row), offset), mask) for n in range(rows)]
                for n in range(rows):
                    block.prefetch(builder.add(block.at(b, n + rows, b_row), offset))
                for m in range(rows):
                    left = block.load(builder.add(block.at(a, m, a_row), offset), mask)
                    for n in range(rows):
                        block.add(m, n, left, rights[n])

            whole = builder.sdiv(terms, _constant(LANES))
            with cgutils.for_range(builder, whole) as loop:
                step(builder.mul(loop.index, _constant(LANES * ITEM)), None)
            rest = builder.srem(terms, _constant(LANES))
            with builder.if_then(builder.icmp_signed("!=", rest, _constant(0))):
                step(builder.mul(whole, _constant(LANES * ITEM)), block.first(rest))
            pointer = builder.inttoptr(bias, ir.VectorType(_FLOAT, rows).as_pointer())
            biases = builder.load(pointer, align=ITEM)
            for m, total in enumerate(block.totals()):
                block.store(builder.fadd(total, biases), block.at(out, m, out_row))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), generate

    return block


_four_1, _four_2, _four_3, _four_4 = (_outer_block(ROWS, width) for width in range(1, 5))
_one_1, _one_2, _one_3, _one_4 = (_outer_block(1, width) for width in range(1, 5))
_four_inner, _one_inner = _inner_block(ROWS), _inner_block(1)


@compiled
def _outer(a, a_row, a_k, b, b_k, terms, out, rows, columns, add):
    """out[rows, columns] (+)= sum over k of a[k, rows] outer b[k, columns], block by block."""
    out_row = columns * ITEM
    for column in range(0, columns, COLUMNS):
        count = min(columns - column, COLUMNS)
        width = (count + LANES - 1) // LANES
        last = count - (width - 1) * LANES
        b_here, out_here = b + column * ITEM, out + column * ITEM
        row = 0
        while row + ROWS <= rows:
            left, to = a + row * a_row, out_here + row * out_row
            if width == 4:
                _four_4(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            elif width == 3:
                _four_3(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            elif width == 2:
                _four_2(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            else:
                _four_1(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            row += ROWS
        while row < rows:
            left, to = a + row * a_row, out_here + row * out_row
            if width == 4:
                _one_4(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            elif width == 3:
                _one_3(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            elif width == 2:
                _one_2(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            else:
                _one_1(left, a_row, a_k, b_here, b_k, terms, to, out_row, last, add)
            row += 1


@compiled
def linear(x, weight, bias, out):
    """A layer: out[M, N] = x[M, K] @ weight[N, K].T + bias[N]."""
    samples, terms = x.shape
    outputs = weight.shape[0]
    if samples >= MANY:
        linear_transposed(x, np.ascontiguousarray(weight.T), bias, out)
        return
    x_at, w_at, bias_at, out_at = x.ctypes.data, weight.ctypes.data, bias.ctypes.data, out.ctypes.data
    stride, out_row = terms * ITEM, outputs * ITEM
    if samples < ROWS or outputs < ROWS:
        for m in range(samples):
            for n in range(outputs):
                to, b = out_at + m * out_row + n * ITEM, bias_at + n * ITEM
                _one_inner(x_at + m * stride, stride, w_at + n * stride, stride, terms, b, to, out_row)
        return
    # Four rows of the weights are used for all samples while they are in the cache.
    for n in range(0, outputs, ROWS):
        n = min(n, outputs - ROWS)  # the last block may overlap the one before it
        for m in range(0, samples, ROWS):
            m = min(m, samples - ROWS)
            to, b = out_at + m * out_row + n * ITEM, bias_at + n * ITEM
            _four_inner(x_at + m * stride, stride, w_at + n * stride, stride, terms, b, to, out_row)


@compiled
def linear_transposed(x, transposed, bias, out):
    """``linear`` with the weights as [K, N]: faster, where transposing them pays."""
    samples, terms = x.shape
    outputs = transposed.shape[1]
    out[:] = bias
    a, b, to = x.ctypes.data, transposed.ctypes.data, out.ctypes.data
    _outer(a, terms * ITEM, ITEM, b, outputs * ITEM, terms, to, samples, outputs, 1)


@compiled
def through_weights(d_out, weight, d_x, add):
    """A layer's gradient in its input: d_x[M, K] (+)= d_out[M, N] @ weight[N, K]; add: 0 or 1."""
    samples, outputs = d_out.shape
    inputs = weight.shape[1]
    a, b, out = d_out.ctypes.data, weight.ctypes.data, d_x.ctypes.data
    _outer(a, outputs * ITEM, ITEM, b, inputs * ITEM, outputs, out, samples, inputs, add)


@compiled
def of_weights(d_out, x, d_weight, d_bias):
    """A layer's gradient in its parameters: d_weight[N, K] = d_out[M, N].T @ x[M, K], d_bias[N] its sum."""
    of_some_weights(d_out, x, 0, d_weight)
    of_biases(d_out, d_bias)


@compiled
def of_some_weights(d_out, x, row, d_weight):
    """The gradient in the weights of the outputs from ``row`` on, as many as d_weight [n, K] has rows."""
    samples, outputs = d_out.shape
    some, inputs = d_weight.shape
    a, b, out = d_out.ctypes.data + row * ITEM, x.ctypes.data, d_weight.ctypes.data
    for first in range(0, samples, CHUNK):
        rows = min(CHUNK, samples - first)
        here, there = a + first * outputs * ITEM, b + first * inputs * ITEM
        _outer(here, ITEM, outputs * ITEM, there, inputs * ITEM, rows, out, some, inputs, first)


@compiled
def of_biases(d_out, d_bias):
    """A layer's gradient in its biases: the sum of d_out [M, N] over the samples."""
    samples, outputs = d_out.shape
    d_bias[:] = 0
    for m in range(samples):
        for n in range(outputs):
            d_bias[n] += d_out[m, n]
