"""Typed settings: from YAML text and overrides to frozen dataclasses, with one-sentence errors."""

from dials_mpi.settings.fields import build, digest, dump, flat, section, section_chosen_by, setting, unsaid

__all__ = ["build", "digest", "dump", "flat", "section", "section_chosen_by", "setting", "unsaid"]
