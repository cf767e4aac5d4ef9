"""Whether a policy's network can be exported, in each format that ``python -m dials_mpi.export`` writes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dials_mpi.check.findings import Finding, good, note
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Domain
from dials_mpi.learning.policy import Policy

ENDINGS = (".pt", ".pt2", ".onnx")


def check_exports(config: Config, domain: Domain) -> Iterator[Finding]:
    """A finding for each format, with the first agent's network. A format that fails is no violation."""
    policy = Policy(config.policy, domain.agents[0])
    policy.network.initialise(np.random.default_rng(0))
    for ending in ENDINGS:
        what = f"export as {ending}"
        try:
            size = _size(policy, ending)
        except BadInput as refusal:
            yield note(what, f"no: {refusal}")
        else:
            yield good(what, f"{size:,} bytes; the program gives the same outputs")


def _size(policy: Policy, ending: str) -> int:
    from dials_mpi.learning import torchscript  # loads torch; BadInput, if it is missing

    return len(torchscript.program(policy, {}, ending))
