"""Exponentials, the logarithm, the sigmoid and the hyperbolic tangent: the same bits on every processor.

The C library's functions differ between its versions. One number at a time, they would take longer than the
matrix products; the compiler can vectorise loops over these.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, inf, sqrt
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.instructions import fused, instructions, multiply_add

_F, _D = np.float32, np.float64
_LOG2_E = _F(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = _F(-0.693359375), _F(2.12194440054690583e-4)  # -ln 2, the first part with few bits
_LEAST, _MOST = _F(-87.0), _F(87.0)
_ONE, _TWO, _HALF = _F(1), _F(2), _F(0.5)

_LOG2_E_D, _ONE_D, _HALF_D = _D(1.4426950408889634), _D(1), _D(0.5)
_LN2_HIGH_D, _LN2_LOW_D = _D(float.fromhex("-0x1.62e42fefp-1")), _D(float.fromhex("-0x1.473de6af278edp-34"))
_LEAST_D, _MOST_D, _INFINITE = _D(-708.0), _D(709.0), _D(inf)
_SQRT_2 = _D(sqrt(2))


def _polynomial(*coefficients: float) -> Callable[..., Any]:
    """A compiled function of one number: the polynomial, the coefficient of the highest power first."""

    @instructions
    def value(context, x):
        def generate(context, builder, signature, arguments):
            kind = arguments[0].type
            total, *others = (ir.Constant(kind, float(number)) for number in coefficients)
            for number in others:
                total = multiply_add(builder, total, arguments[0], number)
            return total

        return x(x), generate

    return value


_exp_series = _polynomial(*(float(_F(1 / factorial(n))) for n in range(7, -1, -1)))
_exp_series_double = _polynomial(*(1 / factorial(n) for n in range(13, -1, -1)))
_log_series = _polynomial(*(2 / n for n in range(21, 0, -2)))
"""ln((1 + s) / (1 - s)) / s, a polynomial of s^2."""


@instructions
def _power_of_two(context: Any, exponent: Any) -> Any:
    """2^exponent by its bits: float32 for an int32 in -126..127, float64 for an int64 in -1022..1023."""
    kind, bias, fraction = (types.float32, 127, 23) if exponent.bitwidth == 32 else (types.float64, 1023, 52)

    def generate(context, builder, signature, arguments):
        whole = arguments[0].type
        bits = builder.shl(builder.add(arguments[0], ir.Constant(whole, bias)), ir.Constant(whole, fraction))
        return builder.bitcast(bits, context.get_value_type(kind))

    return kind(exponent), generate


@instructions
def _bits(context: Any, number: Any) -> Any:
    """The bits of a float64 as an int64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@compiled
def exp(x):
    """e^x of a float32, to about one unit in the last place; x is clipped to -87..87."""
    x = min(max(x, _LEAST), _MOST)
    whole = np.floor(fused(x, _LOG2_E, _HALF))
    r = fused(whole, _LN2_LOW, fused(whole, _LN2_HIGH, x))
    return _exp_series(r) * _power_of_two(np.int32(whole))


@compiled
def exp_double(x):
    """e^x of a float64, to about one unit in the last place; 0 below -708, infinity above 709."""
    inside = min(max(x, _LEAST_D), _MOST_D)
    whole = np.floor(fused(inside, _LOG2_E_D, _HALF_D))
    r = fused(whole, _LN2_LOW_D, fused(whole, _LN2_HIGH_D, inside))
    result = _exp_series_double(r) * _power_of_two(np.int64(np.int32(whole)))
    if x > _MOST_D:
        return _INFINITE
    return _D(0) if x < _LEAST_D else result


@compiled
def log(x):
    """The natural logarithm of a positive, normal float64, to three units in the last place."""
    exponent = (_bits(x) >> 52) - 1023
    rest = x * _power_of_two(-exponent)  # 1 to 2
    if rest > _SQRT_2:
        exponent, rest = exponent + 1, rest * _HALF_D
    s = (rest - _ONE_D) / (rest + _ONE_D)
    whole = _D(exponent)
    result = fused(-whole, _LN2_HIGH_D, fused(-whole, _LN2_LOW_D, s * _log_series(s * s)))
    return result if x < _INFINITE else x


@compiled
def sigmoid(x):
    """1 / (1 + e^-x) of a float32."""
    return _ONE / (_ONE + exp(-x))


@compiled
def tanh(x):
    """The hyperbolic tangent of a float32, to about one unit in the last place of 1."""
    return _ONE - _TWO / (_ONE + exp(_TWO * x))
