"""The domains, by name: networked systems of local regions. Knows neither learning nor MPI."""

from __future__ import annotations

from typing import Any

from dials_mpi.domains.base import Domain
from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.warehouse import Warehouse, WarehouseConfig

#: name -> (domain, the dataclass of its section in the configuration)
DOMAINS: dict[str, tuple[type, type]] = {
    "warehouse": (Warehouse, WarehouseConfig),
    "traffic": (Traffic, TrafficConfig),
}


def create(name: str, config: Any) -> Domain:
    """The domain ``name`` built from its own section of the configuration; ValueError for an unknown name."""
    if name not in DOMAINS:
        raise ValueError(f"no domain {name!r}; there are {', '.join(DOMAINS)}")
    return DOMAINS[name][0](config)
