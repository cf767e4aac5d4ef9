"""Functions of compiled code that are written as LLVM instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from dials_mpi.core.jit import has_fused_multiply_add


def instructions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's ``intrinsic``: compiled code calls the function without its first argument, the context.

    Numba's own types do not say so.
    """
    return intrinsic(function)


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """The instruction for a b + c, of numbers or vectors.

    With a single rounding, on all processors that have it: the compiler never joins a product and a sum
    itself. On the others it would be a call of the C library per number, and they round twice.
    """
    if not has_fused_multiply_add():
        return builder.fadd(builder.fmul(a, b), c)
    name = "llvm.fma." + (f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else "")
    name += "f64" if isinstance(getattr(a.type, "element", a.type), ir.DoubleType) else "f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, (a, b, c))


@instructions
def fused(context: Any, a: Any, b: Any, c: Any) -> Any:
    """``multiply_add`` of three numbers of the same type."""

    def generate(context, builder, signature, arguments):
        return multiply_add(builder, *arguments)

    return a(a, a, a), generate
