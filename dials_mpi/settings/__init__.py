"""Typed settings: YAML text and overrides become frozen dataclasses; errors are one sentence each."""

from dials_mpi.settings.fields import (
    build,
    checked_setting,
    digest,
    dump,
    flat,
    newer_defaults,
    section,
    section_chosen_by,
    setting,
    without_effect,
)

__all__ = [
    "build",
    "checked_setting",
    "digest",
    "dump",
    "flat",
    "newer_defaults",
    "section",
    "section_chosen_by",
    "setting",
    "without_effect",
]
