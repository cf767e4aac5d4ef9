"""Machine code of compiled functions in files of the cache, which never stop a run.

Numba's own cache raises an exception for whatever is wrong with a file or a disk, and executes what anyone
has written there.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from dials_mpi.core import cache


class KernelCache(FunctionCache):
    """Of one function: a file for each of its signatures, named after all that decides its content.

    folder: for everything that decides the code of all functions, such as the processor.
    """

    def __init__(self, function: Callable, folder: Path) -> None:
        # Not FunctionCache's, which looks for a folder that can be written, and fails without one.
        self._py_func, self._folder = function, folder
        self._cache_path = str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The code for a signature; None where it is to be compiled."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        stored = cache.read(path)
        if stored is None:
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(stored))
        except Exception:  # whole, and still not what this numba reads
            cache.damaged(path)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature, where it can be."""
        if not data.library.has_dynamic_globals:  # addresses of this process
            cache.write(self._path(sig, data.codegen), dumps(data._reduce()))

    def flush(self) -> None:
        """As of numba, before a function is compiled again: that replaces the files."""

    def _path(self, sig: Any, codegen: Any) -> Path:
        code = self._py_func.__code__
        key = (code.co_firstlineno, _source(code.co_filename), *self._index_key(sig, codegen))
        name = f"{self._py_func.__module__}.{self._py_func.__qualname__}"
        return self._folder / f"{name}-{sha256(f'{name} {key}'.encode()).hexdigest()[:16]}.nbc"


@lru_cache
def _source(file: str) -> bytes:
    return sha256(Path(file).read_bytes()).digest()
