"""The domains, by name: networked systems of local regions, without learning and without MPI.

The two domains of the paper are built in; others are found as entry points or as ``module:Class``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import import_class, is_place, located, registered
from dials_mpi.core.text import shown
from dials_mpi.domains.base import ChecksLocal, Domain
from dials_mpi.domains.decisions import require_whole_decisions

PLACES = {
    "warehouse": "dials_mpi.domains.warehouse:Warehouse",
    "traffic": "dials_mpi.domains.traffic:Traffic",
    "city": "dials_mpi.domains.city:City",
}
"""The built-in domains."""


class _BuiltIn(dict[str, Any]):
    """Imports a domain when it is used first: a run has one, and all take a tenth of a second to import."""

    def __getitem__(self, name: str) -> tuple[type[Any], type[Any]]:
        if isinstance(super().__getitem__(name), str):
            domain: type[Any] = import_class("domain", name, PLACES[name])
            self[name] = domain, domain.Config
        pair: tuple[type[Any], type[Any]] = super().__getitem__(name)
        return pair


DOMAINS = _BuiltIn(PLACES)
"""name -> (domain, the dataclass of its section in the configuration)"""

GROUP = "dials_mpi.domains"
"""The group of entry points under which installed packages register domains."""


def find(name: str) -> tuple[type[Any], type[Any]]:
    """A domain's class and the dataclass of its section; name: built-in, an entry point, or ``module:Class``.

    BadInput: there is no such domain, it cannot be imported, or it does not fulfil the contract.
    """
    if name in DOMAINS:
        return DOMAINS[name]
    target = located(name, GROUP)
    if not is_place(target):
        known = ", ".join([*DOMAINS, *registered(GROUP)])
        raise BadInput(
            f"domain is {shown(name)}: choose {known}, or name a class of your own as module:Class"
        )
    domain: type[Any] = import_class("domain", name, target)
    _require_contract(name, domain)
    return domain, domain.Config


def section(name: str) -> tuple[str, type[Any]]:
    """The key of a domain's section in the configuration, and its dataclass. BadInput: as ``find``."""
    domain, config = find(name)
    return (name if name in DOMAINS else domain.name), config


def create(name: str, config: Any) -> Domain:
    """The domain ``name``, built from its section of the configuration.

    BadInput: as ``find``, or its horizon is not a whole number of decisions.
    """
    domain: Domain = find(name)[0](config)
    require_whole_decisions(domain.name, domain)
    return domain


def require_local(domain: Domain) -> None:
    """BadInput: something that the domain's local simulators need is missing, or differs."""
    domain.versions()
    if isinstance(domain, ChecksLocal):
        domain.require_local()


MEMBERS = (
    *("name", "Config", "hand_coded", "statistics", "side_by_side"),
    *("versions", "global_simulator", "local_simulator", "controller"),
)
"""The members of a domain's class; its instances also have ``horizon``, ``agents`` and ``regions``, and may
have ``decision_every`` (decisions.py)."""


def _require_contract(name: str, domain: type[Any]) -> None:
    """BadInput: the class is not a domain, or its section does not consist of settings."""
    missing = [member for member in MEMBERS if not hasattr(domain, member)]
    if missing:
        raise BadInput(
            f"domain is {shown(name)}, but {domain.__qualname__} has no {missing[0]}, which "
            "every domain needs (dials_mpi/domains/base.py)"
        )
    config = domain.Config
    if not (isinstance(domain.name, str) and domain.name.isidentifier()):
        raise BadInput(
            f"domain is {shown(name)}, but the name of {domain.__qualname__} is {shown(domain.name)}: make "
            "it an identifier, which is the key of its section"
        )
    parameters: Any = getattr(config, "__dataclass_params__", None)
    frozen = parameters is not None and parameters.frozen
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
