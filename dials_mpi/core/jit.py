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

VECTORS = ("avx512f", "avx2", "avx", "sve", "neon")
"""Vector instructions, the widest first."""

OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")
"""Settings of numba that change the machine code; the settings of the processor are part of its target."""


def processor() -> str:
    """The processor that machine code is compiled for here: LLVM's name, and its widest vector instructions.

    On other processors sums may be taken in another order and rounded differently.
    """
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    features = get_host_cpu_features()
    widest = (name for name in VECTORS if features.get(name))
    return " ".join([_numba_options().CPU_NAME or get_host_cpu_name(), *widest][:2])


def code_folder() -> Path | None:
    """The folder for machine code, which may not exist yet; None: there is no folder for a cache."""
    return folder(f"kernels-{_digest()}")


@cache
def _digest() -> str:
    import llvmlite
    import numba
    import numpy
    from numba.core.registry import cpu_target

    digest = sha256(b"".join(_sources()))
    versions = [library.__version__ for library in (numba, llvmlite, numpy)]
    options = [getattr(_numba_options(), name, None) for name in OPTIONS]
    target = cpu_target.target_context.codegen().magic_tuple()
    digest.update(repr((versions, get_config_var("SOABI"), options, target)).encode())
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

    Sums may be taken in another order; NaN and infinity are handled as in Python.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


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
