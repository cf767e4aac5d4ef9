"""Dumps: the arrays that led to an error, written to a file for inspection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dials_mpi.storage.hdf5 import rewriting


def dump(directory: str, name: str, reason: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays to ``directory/dump-name.h5``, from any rank; returns the path."""
    path = Path(directory) / f"dump-{name}.h5"
    with rewriting(path, begin_empty=True) as file:
        file.attrs["reason"] = reason
        for key, array in arrays.items():
            file[key] = array
    return path
