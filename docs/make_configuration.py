"""Writes docs/configuration.md from the dataclasses: python docs/make_configuration.py"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from dials_mpi.config import Config, load
from dials_mpi.domains import DOMAINS
from dials_mpi.core.text import shown

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

<!-- Made from the dataclasses by docs/make_configuration.py: change those, and run it. -->

A run is configured by a YAML file (`--config FILE`) and by overrides `key=value` behind it, with dots for
sections: `ppo.clip=0.2`. What neither says has its default: the paper's setting for the warehouse with 100
agents. `--print-config` shows every key with its value, and is itself a valid file. Mistakes are refused
before anything runs, in one sentence that names the place and the nearest known key.

Lengths are in steps per agent, not summed over agents. Tables, sections and appendices are the paper's.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## A run\n", *_table(Config(), "")]
    for name in ("policy", "ppo", "influence"):
        section = getattr(Config(), name)
        parts += [f"\n## {name}\n", f"{type(section).__doc__}\n", *_table(section, f"{name}.")]
    for name in DOMAINS:
        section = load(None, [f"domain={name}", *_whole_episodes(name)]).domain_section
        parts += [f"\n## {name}\n", f"Read with `domain: {name}` only.\n", *_table(section, f"{name}.")]
    return "\n".join(parts) + "\n"


def _whole_episodes(name: str) -> list[str]:
    """The default number of samples suits the default domain's horizon."""
    return [f"dataset_size={100 * DOMAINS[name][1]().horizon}"]


def _table(section: Any, prefix: str) -> Iterator[str]:
    yield "| key | default | values | meaning |"
    yield "|---|---|---|---|"
    for entry in fields(section):
        value = getattr(section, entry.name)
        if not is_dataclass(value):
            about = entry.metadata["about"].replace("|", "\\|")
            yield f"| `{prefix}{entry.name}` | `{_text(value)}` | {_values(entry.metadata)} | {about} |"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str) else shown(value)


def _values(metadata: Any) -> str:
    choices, low, high = (metadata[name] for name in ("choices", "low", "high"))
    if choices is not None:
        return ", ".join(f"`{_text(choice)}`" for choice in choices)
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {low:,}"
    return f"{low:,} to {high:,}" if low is not None else f"to {high:,}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
