"""All policies of a run as plain arrays in one ``.npz`` file, which needs only numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION = "description"


def write(policies: Sequence[Mapping[str, np.ndarray]], description: Mapping[str, Any], file: Path) -> None:
    """Write the description, JSON, as ``description``, and each parameter as ``<agent>/<name>``, float32.

    policies: the parameters of each agent, as ``Run.layers`` has them. OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {DESCRIPTION: np.array(json.dumps(description))}
    for agent, parameters in enumerate(policies):
        for name, part in parameters.items():
            arrays[f"{agent}/{name}"] = part
    with file.open("wb") as opened:  # numpy would add .npz to a name
        np.savez(opened, **arrays)
