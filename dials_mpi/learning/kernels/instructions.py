"""Functions of compiled code that are written as LLVM instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic


def instructions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's ``intrinsic``: compiled code calls the function without its first argument, the context.

    Numba's own types do not say so.
    """
    return intrinsic(function)
