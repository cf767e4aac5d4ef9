"""Writes docs/configuration.md from the dataclasses: python docs/make_configuration.py"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from dials_mpi.config import Config, load
from dials_mpi.core.text import shown
from dials_mpi.domains import DOMAINS

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

<!-- Written by docs/make_configuration.py from the dataclasses: change those, and run it again. -->

A YAML file (`--config FILE`) configures a run. The files of the repository's `configs/` are part of the
package and have short names: `--config warehouse/fast`. `python -m dials_mpi.configs` lists them, and
`python -m dials_mpi.configs warehouse/fast --out mine.yaml` copies one. A file with the given name comes
first. Overrides `key=value` can follow, with dots for sections:
`ppo.clip=0.2`. Every other key has its default: the paper's setting for the warehouse with 100 agents.
`--print-config` shows every key with its value; its output is a valid file. Mistakes are reported before
anything runs, in one sentence with the place and the most similar known key. Write numbers as `1_000_000`
(underscores between thousands) or `2.5e-4`. Values that YAML 1.1 reads as another number or as true or false
(`010`, `0x1F`, `1:30`, `off`) are refused with a suggestion.

Lengths are steps per agent, not summed over agents. Where the agents of a domain decide every few simulator
steps (its `decision_every`), a step of an agent is a decision; only `dataset_size`, `influence` and the
section of the domain count simulator steps. Tables, sections and appendices are those of the paper.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## A run\n", *_table(Config(), "")]
    for name in ("policy", "ppo", "influence"):
        section = getattr(Config(), name)
        parts += [f"\n## {name}\n", f"{type(section).__doc__}\n", *_table(section, f"{name}.")]
    for name in DOMAINS:
        section = load(None, [f"domain={name}", *_whole_episodes(name)]).domain_section
        parts += [f"\n## {name}\n", f"Only with `domain: {name}`.\n", *_table(section, f"{name}.")]
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
