"""All policies of a run as plain arrays: one ``.npz``, which numpy alone reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.learning.policy import Policy

DESCRIPTION = "description"


def write(policies: Sequence[Policy], description: Mapping[str, Any], file: Path) -> None:
    """Write every layer as ``<agent>/<name>``, float32, by the names of ``Network.table``, and the
    description, JSON, as ``description``. OSError: the folder or the disk does not take it."""
    arrays = {DESCRIPTION: np.array(json.dumps(description))}
    for agent, policy in enumerate(policies):
        for (name, _), part in zip(policy.network.table, policy.network.parameters, strict=True):
            arrays[f"{agent}/{name}"] = part
    with file.open("wb") as opened:  # numpy would add .npz to a name
        np.savez(opened, **arrays)
