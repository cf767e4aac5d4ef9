"""Machine code of compiled functions in files of the cache; no problem with such a file ends a run.

Numba's own cache raises exceptions for damaged files and full disks, and executes files that any user can
have written.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from llvmlite.binding import parse_bitcode
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
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
        """The code for a signature; None: it must be compiled.

        Numba's own cache also loads the compiler's rules (``refresh``), 22 MB; here the compiler does it.
        """
        rtsys.initialize(target_context)
        path = self._path(sig, target_context.codegen())
        stored = cache.read(path)
        if stored is not None:
            try:
                library, *rest = _Unpickler(BytesIO(stored)).load()
                found = CompileResult._rebuild(target_context, library, *rest)
                _keep_as_bytes(found.library, library)
                return found
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


class _Unpickler(pickle.Unpickler):
    """Reads code without importing the modules of numba whose functions it calls: they are part of it."""

    def find_class(self, module: str, name: str) -> Any:
        """As ``pickle.Unpickler``."""
        found = super().find_class(module, name)
        return partial(_environment, found) if name == "_rebuild_env" else found


def _environment(rebuild: Callable, module: str, constants: Any, name: str) -> Any:
    """The environment of a function; compiled code needs no names of the module."""
    return rebuild("numba" if module.startswith("numba.") else module, constants, name)


def _keep_as_bytes(library: Any, stored: Any) -> None:
    """Free the parsed intermediate code of a loaded library, half a megabyte on average in every rank.

    It is parsed again if a function is compiled that calls the library.
    """
    _, kind, code = stored
    if kind != "object" or not hasattr(library, "_shared_module"):
        return
    for_linking = library._get_module_for_linking

    def parse() -> Any:
        if library._shared_module is None:
            library._shared_module = parse_bitcode(code[1])
        return for_linking()

    library._shared_module, library._get_module_for_linking = None, parse


@lru_cache
def _source(file: str) -> bytes:
    return sha256(Path(file).read_bytes()).digest()
