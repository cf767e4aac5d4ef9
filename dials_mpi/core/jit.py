"""How this package's inner loops become machine code: numba, once per machine and version.

Numba looks only at the file of a function to tell whether its stored machine code is still good, and not at
the files of what that function calls: so the store is a folder whose name is a digest of all files that
have compiled functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

VECTORS = ("avx512f", "avx2", "avx", "sve", "neon")
"""Vector instructions, the widest first."""


def processor() -> str:
    """The kind of processor that machine code is made for here: LLVM's name of it, and its widest vectors.

    On another kind sums may be taken in another order, and rounded differently.
    """
    import numba
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    features = get_host_cpu_features()
    widest = (name for name in VECTORS if features.get(name))
    return " ".join([numba.config.CPU_NAME or get_host_cpu_name(), *widest][:2])


@cache
def store() -> str:
    """The folder for machine code, empty where none can be written: it is made anew by each process then."""
    sources = (path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))
    digest = sha256(b"".join(source for source in sources if b"\n@compiled" in source)).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "dials_mpi" / f"kernels-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""


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

    numba.config.DISABLE_JIT = 0  # NUMBA_DISABLE_JIT=1: products.py does not exist as plain Python
    numba.config.CACHE_DIR = store() or numba.config.CACHE_DIR
    return numba.njit(cache=bool(store()), **options)(function)
