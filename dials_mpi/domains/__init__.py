"""The domains, by name: networked systems of local regions. Knows neither learning nor MPI.

Those of the paper are here; any other is found by an entry point, or by the place of its class.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import import_class
from dials_mpi.core.text import shown
from dials_mpi.domains.base import Domain
from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.warehouse import Warehouse, WarehouseConfig

#: name -> (domain, the dataclass of its section in the configuration)
DOMAINS: dict[str, tuple[type, type]] = {
    "warehouse": (Warehouse, WarehouseConfig),
    "traffic": (Traffic, TrafficConfig),
}

GROUP = "dials_mpi.domains"
"""The group of entry points by which installed packages offer domains."""


def find(name: str) -> tuple[type, type]:
    """A domain and the dataclass of its section: by its name here or as an entry point, or ``module:Class``.

    BadInput: there is no such domain, it cannot be imported, or it lacks what every domain has.
    """
    if name in DOMAINS:
        return DOMAINS[name]
    place = name if ":" in name else _entry_points().get(name, name)  # to look for these takes a while
    module, colon, qualified = place.partition(":")
    if not colon or not module or not qualified:
        known = ", ".join([*DOMAINS, *_entry_points()])
        raise BadInput(
            f"domain is {shown(name)}: choose {known}, or name a class of your own as module:Class"
        )
    domain = import_class("domain", name, place)
    _require_contract(name, domain)
    return domain, domain.Config


def section(name: str) -> tuple[str, type]:
    """The key of a domain's section in the configuration, and its dataclass. BadInput as of ``find``."""
    domain, config = find(name)
    return (name if name in DOMAINS else domain.name), config


def create(name: str, config: Any) -> Domain:
    """The domain ``name`` built from its own section of the configuration. BadInput as of ``find``."""
    return find(name)[0](config)


def _entry_points() -> dict[str, str]:
    """Where the domains of installed packages are, by name."""
    return {entry.name: entry.value for entry in entry_points(group=GROUP)}


MEMBERS = (
    *("name", "Config", "hand_coded", "statistics", "side_by_side"),
    *("versions", "global_simulator", "local_simulator", "controller"),
)
"""What a domain's class has; its instances have ``horizon`` and ``regions`` as well."""


def _require_contract(name: str, domain: type) -> None:
    """BadInput: the class is no domain, or its section is not made of settings."""
    missing = [member for member in MEMBERS if not hasattr(domain, member)]
    if missing:
        raise BadInput(
            f"domain is {shown(name)}, but {domain.__qualname__} has no {missing[0]}, which "
            "dials_mpi/domains/base.py asks of every domain"
        )
    config = domain.Config
    if not (isinstance(domain.name, str) and domain.name.isidentifier()):
        raise BadInput(
            f"domain is {shown(name)}, but the name of {domain.__qualname__} is {shown(domain.name)}: make "
            "it an identifier, which is the key of its section"
        )
    frozen = is_dataclass(config) and config.__dataclass_params__.frozen
    if not frozen or "horizon" not in {entry.name for entry in fields(config)}:
        raise BadInput(
            f"domain is {shown(name)}, but {domain.__qualname__}.Config is not a frozen dataclass with a "
            "horizon"
        )
    plain = [entry.name for entry in fields(config) if "about" not in entry.metadata]
    if plain:
        raise BadInput(
            f"domain is {shown(name)}, but {plain[0]} of {domain.__qualname__}.Config is not made by "
            "dials_mpi.settings.setting(default, about)"
        )
