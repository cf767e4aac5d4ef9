"""The sigmoid and the hyperbolic tangent, written so that the compiler can vectorise loops over them.

Calls of the C library's functions, one number at a time, would take longer than the matrix products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.instructions import instructions

_F = np.float32
_LOG2_E = _F(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440054690583e-4)  # ln 2, the first part with few bits
_LEAST, _MOST = _F(-87.0), _F(87.0)
_T2, _T3, _T4, _T5, _T6, _T7 = (_F(1 / n) for n in (2, 6, 24, 120, 720, 5040))
_ONE, _TWO, _HALF = _F(1), _F(2), _F(0.5)


@instructions
def _power_of_two(context: Any, exponent: Any) -> Any:
    """2^exponent for an int32 in -126..127, by its bits."""

    def generate(context, builder, signature, arguments):
        kind = ir.IntType(32)
        bits = builder.shl(builder.add(arguments[0], ir.Constant(kind, 127)), ir.Constant(kind, 23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


@compiled
def exp(x):
    """e^x of a float32, to about one unit in the last place; x is clipped to -87..87."""
    x = min(max(x, _LEAST), _MOST)
    whole = np.floor(x * _LOG2_E + _HALF)
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    series = _ONE + r * (_ONE + r * (_T2 + r * (_T3 + r * (_T4 + r * (_T5 + r * (_T6 + r * _T7))))))
    return series * _power_of_two(np.int32(whole))


@compiled
def sigmoid(x):
    """1 / (1 + e^-x) of a float32."""
    return _ONE / (_ONE + exp(-x))


@compiled
def tanh(x):
    """The hyperbolic tangent of a float32, to about one unit in the last place of 1."""
    return _ONE - _TWO / (_ONE + exp(_TWO * x))
