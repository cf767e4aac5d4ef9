"""Compile the package's inner loops to machine code with numba, once per machine and version.

The code is stored in a folder of the cache. The folder's name has a digest of everything that affects the
code: all source files with compiled functions or intrinsics (these call each other across files), the
versions of numba, llvmlite and numpy, numba's options, and the processor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from sysconfig import get_config_var
from typing import Any

from dials_mpi.core.cache import folder

PACKAGE = Path(__file__).resolve().parents[1]

KERNELS = Path("learning", "kernels")
"""The folder whose files all affect compiled code; those with intrinsics may have no decorator below."""

_DECORATED = re.compile(rb"^\s*@compiled", re.MULTILINE)

VECTORS = {"avx512f": {"fma"}, "avx2": {"fma"}, "avx": set(), "sve": set(), "neon": set()}
"""Vector instructions, the widest first, and what a processor named after them must have as well."""

OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")
"""Settings of numba that change the machine code; the settings of the processor are part of its target."""


def processor() -> str:
    """The processor that machine code is compiled for here: LLVM's name, and its widest vector instructions.

    ``provenance.FUSED`` says on which processors results are equal.
    """
    _, name, _ = _target()
    widest = (vectors for vectors, others in VECTORS.items() if {vectors} | others <= features())
    return " ".join([name, *widest][:2])


@cache
def features() -> frozenset[str]:
    """The instructions that machine code may use here, by LLVM's names, such as avx2 and fma."""
    return frozenset(name[1:] for name in _target()[2].split(",") if name.startswith("+"))


def has_fused_multiply_add() -> bool:
    """Whether one instruction computes a b + c with a single rounding; all processors but x86's always do."""
    return "fma" in features() or not _target()[0].startswith(("x86_64", "i"))


def _target() -> tuple[str, str, str]:
    """What numba compiles for: the system, the processor's name and its instructions, as LLVM writes them."""
    from numba.core.registry import cpu_target

    return cpu_target.target_context.codegen().magic_tuple()


def code_folder() -> Path | None:
    """The folder for machine code, which may not exist yet; None: there is no folder for a cache."""
    return folder(f"kernels-{_digest()}")


@cache
def _digest() -> str:
    import llvmlite
    import numba
    import numpy

    digest = sha256(b"".join(_sources()))
    versions = [library.__version__ for library in (numba, llvmlite, numpy)]
    options = [getattr(_numba_options(), name, None) for name in OPTIONS]
    digest.update(repr((versions, get_config_var("SOABI"), options, _target())).encode())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[bytes]:
    """The files that affect compiled code: this one, those of KERNELS, and all with compiled functions."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source, name = path.read_bytes(), path.relative_to(PACKAGE)
        if name == Path("core", "jit.py") or KERNELS in name.parents or _DECORATED.search(source):
            yield source


def _numba_options() -> Any:
    """numba.config, which sets its attributes when it is imported; type checkers cannot see them."""
    import numba

    return numba.config


def compiled(function: Callable) -> Callable:
    """Decorator: compile a function; other compiled functions may call it.

    Every operation is rounded by itself and in the written order, so that all processors give the same bits:
    for sums side by side and for products added with a single rounding see ``learning.kernels``. A division
    by zero gives infinity or NaN.
    """
    return _compile(function, error_model="numpy")


def compiled_exactly(function: Callable) -> Callable:
    """Decorator: compile a function with results that are bitwise equal to Python's.

    Numba is imported at the first call, because reading a configuration imports the domains.
    """
    code: Callable | None = None

    @wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal code
        code = code or _compile(function)
        return code(*arguments)

    return call


def _compile(function: Callable, **options: Any) -> Callable:
    import numba

    from dials_mpi.core.kernel_cache import KernelCache

    _numba_options().DISABLE_JIT = 0  # overrides NUMBA_DISABLE_JIT=1: intrinsics cannot run as plain Python
    dispatcher = numba.njit(**options)(function)
    place = code_folder()
    if place:
        dispatcher._cache = KernelCache(function, place)
    return dispatcher


def compiled_into_others(function: Callable) -> Callable:
    """Decorator: a function that compiled functions call, compiled as part of each, with its options.

    Numba is imported at once: decorate only in modules that are imported when compiled code is needed.
    """
    from numba.extending import register_jitable

    return register_jitable(function)
