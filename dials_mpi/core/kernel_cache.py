"""Machine code of compiled functions in files of the cache; no problem with such a file ends a run.

Numba's own cache raises exceptions for damaged files and full disks, and executes files that any user can
have written.
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
from dials_mpi.core.first_start import compiling


class KernelCache(FunctionCache):
    """The cache of one function: a file for each signature; its name has a digest of what affects the code.

    folder: of ``jit.code_folder``, whose name has a digest of what affects the code of all functions.
    """

    def __init__(self, function: Callable, folder: Path) -> None:
        # FunctionCache.__init__ is not called: it fails if it finds no writable folder.
        self._py_func, self._folder = function, folder
        self._cache_path = str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The code for a signature; None: it must be compiled."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        stored = cache.read(path)
        if stored is not None:
            try:
                return CompileResult._rebuild(target_context, *pickle.loads(stored))
            except Exception:  # the checksum is right, but this numba cannot read it
                cache.warn_damaged(path)
        compiling.begin()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store the code for a signature, if possible; it was compiled since ``load_overload``."""
        compiling.pause()
        if not data.library.has_dynamic_globals:  # these are addresses of this process
            cache.write(self._path(sig, data.codegen), dumps(data._reduce()))

    def flush(self) -> None:
        """Called by numba before it compiles a function again; does nothing: saving replaces the files."""

    def _path(self, sig: Any, codegen: Any) -> Path:
        code = self._py_func.__code__
        key = (code.co_firstlineno, _source(code.co_filename), *self._index_key(sig, codegen))
        name = f"{self._py_func.__module__}.{self._py_func.__qualname__}"
        return self._folder / f"{name}-{sha256(f'{name} {key}'.encode()).hexdigest()[:16]}.nbc"


@lru_cache
def _source(file: str) -> bytes:
    return sha256(Path(file).read_bytes()).digest()
