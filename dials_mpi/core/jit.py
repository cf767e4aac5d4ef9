"""How this package's inner loops become machine code: numba, once per machine and version.

The code is kept in a folder of the cache that is named after everything that decides it: all files with
compiled functions (one may call those of another), numba and what it builds on, the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from sysconfig import get_config_var
from typing import Any

from dials_mpi.core.cache import folder

PACKAGE = Path(__file__).resolve().parents[1]

VECTORS = ("avx512f", "avx2", "avx", "sve", "neon")
"""Vector instructions, the widest first."""

OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")
"""Of numba's configuration, what changes the machine code; the processor's part is in its target."""


def processor() -> str:
    """The kind of processor that machine code is made for here: LLVM's name of it, and its widest vectors.

    On another kind sums may be taken in another order, and rounded differently.
    """
    import numba
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    features = get_host_cpu_features()
    widest = (name for name in VECTORS if features.get(name))
    return " ".join([numba.config.CPU_NAME or get_host_cpu_name(), *widest][:2])


def store() -> Path | None:
    """The folder for machine code, which need not exist; None where there is no place for one."""
    return folder(f"kernels-{_digest()}")


@cache
def _digest() -> str:
    import llvmlite
    import numba
    import numpy
    from numba.core.registry import cpu_target

    sources = (path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))
    digest = sha256(b"".join(source for source in sources if b"\n@compiled" in source))
    versions = [library.__version__ for library in (numba, llvmlite, numpy)]
    options = [getattr(numba.config, name, None) for name in OPTIONS]
    target = cpu_target.target_context.codegen().magic_tuple()
    digest.update(repr((versions, get_config_var("SOABI"), options, target)).encode())
    return digest.hexdigest()[:16]


def compiled(function: Callable) -> Callable:
    """The function as machine code, which other compiled functions may call.

    Sums may be taken in another order; NaN and infinity stay what they are.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


def compiled_exactly(function: Callable) -> Callable:
    """The function as machine code that does what Python would have done, to the bit.

    Numba is loaded with its first call, as reading a configuration loads the domains.
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

    numba.config.DISABLE_JIT = 0  # NUMBA_DISABLE_JIT=1: the kernels do not exist as plain Python
    dispatcher = numba.njit(**options)(function)
    place = store()
    if place:
        dispatcher._cache = KernelCache(function, place)
    return dispatcher
