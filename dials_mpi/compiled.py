"""How this package's inner loops become machine code: numba, once per machine and version.

Numba looks only at the file of a function to tell whether its stored machine code is still good, and not at
the files of what that function calls: so the store is a folder whose name is a digest of all files that
have compiled functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numba


def _store() -> str:
    """The folder for machine code, empty where none can be written: it is made anew by each process then."""
    sources = (path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    digest = sha256(b"".join(source for source in sources if b"@compiled" in source)).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "dials_mpi" / f"kernels-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""


STORE = _store()
numba.config.CACHE_DIR = STORE or numba.config.CACHE_DIR


def compiled(function: Callable) -> Callable:
    """The function as machine code. Sums may be taken in another order; NaN and infinity stay as they are."""
    fast = {"reassoc", "contract", "nsz"}
    return numba.njit(cache=bool(STORE), fastmath=fast, error_model="numpy")(function)


def compiled_exactly(function: Callable) -> Callable:
    """The function as machine code that does what Python would have done, to the bit."""
    return numba.njit(cache=bool(STORE))(function)
