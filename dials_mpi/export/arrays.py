"""All policies of a run as plain arrays in one ``.npz`` file, which needs only numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.learning.policy import Policy
from dials_mpi.learning.tables import layers

DESCRIPTION = "description"


def write(policies: Sequence[Policy], description: Mapping[str, Any], file: Path) -> None:
    """Write the description, JSON, as ``description``, and each parameter as ``<agent>/<name>``, float32.

    The names are those of ``Network.table``. OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {DESCRIPTION: np.array(json.dumps(description))}
    for agent, policy in enumerate(policies):
        for name, part in layers(policy.network.table, policy.network.vector).items():
            arrays[f"{agent}/{name}"] = part
    with file.open("wb") as opened:  # numpy would add .npz to a name
        np.savez(opened, **arrays)
