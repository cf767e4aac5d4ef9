"""Find where a session starts: at the beginning, or at the newest good checkpoint. Only root does this."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.config import Config, from_yaml, load, load_changed
from dials_mpi.config.comparison import differences
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.shell import option
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Domain
from dials_mpi.results.checkpoints import require_same_run
from dials_mpi.run import state
from dials_mpi.run.datasets import remove_unfinished
from dials_mpi.run.session import SessionStart
from dials_mpi.storage import checkpoint as checkpoints
from dials_mpi.storage.checkpoint import Checkpoint
from dials_mpi.storage.checksum import InUse, require_closed
from dials_mpi.storage.files import free_name, lock_directory, remove_temporary_files
from dials_mpi.storage.hdf5 import NewerFormat
from dials_mpi.storage.runfile import CHANGED, RunFile


def wanted(file: str | None, overrides: Sequence[str], output: str | None, resume: bool) -> Config:
    """The configuration that a command asks for: of the file, or to continue a run, of its last session.

    BadInput: it cannot be read, or a setting is refused.
    """
    other_system = any(word.startswith("domain=") for word in overrides)
    if resume and output and file is None and not other_system and RunFile(output).exists():
        return load_changed(_asked_last(RunFile.open(output, unchecked=True)), overrides)
    return load(file, overrides)


def find(config: Config, domain: Domain, directory: str, resume: bool) -> SessionStart:
    """Where the run in a directory starts. This process locks the directory until it ends.

    BadInput: there is a run and ``resume`` is false; or another process runs there, or has the run file open
    for writing; or the run's configuration, run file or checkpoints do not fit; or it has lost its
    checkpoints.
    """
    run, where = RunFile(directory), printable(directory)
    if run.exists() and not resume:
        raise BadInput(
            f"there is a run in {where} already: continue it with {option('resume')}, or choose another "
            f"directory with {option('output')}"
        )
    before = None
    if run.exists():
        run = RunFile.open(directory, unchecked=True)
        require_closed(run.path)
        before = _configuration_before(run, config)
    if before is None and checkpoints.present(run.directory):
        raise BadInput(
            f"there are checkpoints and no {run.path.name} in {where}: put it back, or choose another "
            f"directory with {option('output')}"
        )
    warning = _lock(run.directory)
    notes = ((warning,) if warning else ()) + ((_kept(run),) if run.changed else ())
    begun = SessionStart(config, directory, continued=before is not None, changed=run.changed, notes=notes)
    if before is None:
        return begun
    finished = run.finished() and config.total_steps == before.total_steps
    if finished and not run.changed:
        return begun._replace(finished=True)
    newest, damaged = _newest(run.directory, config, domain)
    if finished and (newest is None or segments(config)[newest.progress.segments :]):
        return begun._replace(finished=True)  # only training could rebuild its end
    if newest is None and _is_past_checkpoints(run, before):  # never begin again over results
        raise BadInput(
            f"{where} holds results and no checkpoint to continue from: put its newest one back, or choose "
            f"another directory with {option('output')}"
        )
    begun = begun._replace(
        damaged=tuple(damaged), notes=(*begun.notes, *damaged.values(), _from_where(newest))
    )
    if newest is None:
        return begun
    _require_rows(run, newest)
    progress = newest.progress
    if from_yaml(newest.configuration).global_ranks != config.global_ranks:
        progress = replace(progress, seconds={})  # the times of another split of the work
    return begun._replace(progress=progress, checkpoint=newest.path)


def begin(start: SessionStart, program: Mapping[str, Any], ranks: int) -> None:
    """Record in the run file that a session begins; program: the versions of all that computes in it.

    The file's own attributes keep those of the first session.

    BadInput: the disk is full or fails.
    """
    run, config, progress = RunFile(start.directory), start.config, start.progress
    identity = {"domain": config.domain, "mode": config.mode, "seed": config.seed}
    digest = config.digest()
    attributes = {**identity, "config_digest": digest, "finished": False}
    session = {**program, "env_steps": progress.env_steps, "config_digest": digest, "ranks": ranks}
    session |= start.weights.described
    try:
        remove_temporary_files(run.directory)
        remove_unfinished(run.directory)
        checkpoints.remove_parts_without_checkpoint(run.directory)
        for path in start.damaged:
            checkpoints.set_aside(path)
        if start.changed:
            session["rebuilt_from"] = run.rebuild(progress.lengths).name
        if start.continued:
            run.continue_run(config.to_yaml(), attributes, session, progress.lengths)
            # A session that was killed after its last checkpoint has not removed the old ones.
            checkpoints.prune(run.directory, config.checkpoint_keep, run.mean_return)
        elif run.exists():
            raise BadInput(f"a run in {printable(start.directory)} has begun in this moment: start again")
        else:
            run.create(config.to_yaml(), {**program, **attributes}, session)
    except (OSError, Unwritable) as error:
        raise BadInput(str(error)) from error


def _configuration_before(run: RunFile, config: Config) -> Config:
    """The configuration of the run's last session. BadInput: ``config`` differs where it must not."""
    before = configuration_of(run)
    _require_same(before, config, str(run.path))
    return before


def configuration_of(run: RunFile) -> Config:
    """The configuration with which a run continues.

    total_steps is that of the last session that trained anything, so that a larger one can be taken back.
    BadInput: the file or a configuration cannot be read.
    """
    sessions, trained = run.sessions(), run.trained()
    newest = config = _asked_last(run)
    for text, begun in reversed(sessions):
        config = from_yaml(text, _source(run))
        if trained > begun:
            break
        trained = begun
    return replace(newest, total_steps=config.total_steps)


def _asked_last(run: RunFile) -> Config:
    return from_yaml(run.sessions()[-1][0], _source(run))


def _source(run: RunFile) -> str:
    return f"the configuration in {printable(str(run.path))}"


def _is_past_checkpoints(run: RunFile, before: Config) -> bool:
    """Whether the run must have written checkpoints, or is an archived copy without them."""
    segments_done = run.lengths().get("training/env_steps", 0)
    return run.finished() or run.archived() or segments_done > before.checkpoint_every > 0


def _require_same(before: Config, config: Config, where: str) -> None:
    """BadInput: see ``differences``."""
    changed = differences(before, config)
    if changed:
        raise BadInput(
            f"the run in {printable(where)} has other settings: {changed}: give the same ones, or "
            f"choose another directory with {option('output')}"
        )


def _lock(directory: Path) -> str | None:
    missing = [folder for folder in (directory, *directory.parents) if not os.path.lexists(folder)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return lock_directory(directory)
    except (OSError, ValueError, RecursionError) as error:
        for folder in missing:
            with suppress(OSError, ValueError):
                folder.rmdir()
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"the run directory {printable(str(directory))} cannot be written ({reason}): "
            f"choose another one with {option('output')}"
        ) from error


def _newest(directory: Path, config: Config, domain: Domain) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest good checkpoint, and the newer ones that are damaged, each with a sentence on why."""
    damaged: dict[Path, str] = {}
    for path in checkpoints.present(directory):
        try:
            checkpoint = Checkpoint(path)
            require_same_run(checkpoint, config)
            state.verify(checkpoint, state.entries(config, domain), domain)
            return checkpoint, damaged
        except (NewerFormat, InUse):  # it is good, but not for this program, or not now
            raise
        except BadInput as error:
            damaged[path] = str(error)
    if damaged:
        first = next(iter(damaged.values()))
        raise BadInput(
            f"none of the checkpoints in {printable(str(directory))} can be used ({first}): put back a good "
            f"one, or choose another directory with {option('output')}"
        )
    return None, damaged


def _require_rows(run: RunFile, checkpoint: Checkpoint) -> None:
    """BadInput: the run file has fewer rows than when the checkpoint was written."""
    there = run.lengths()
    missing = [name for name, rows in checkpoint.progress.lengths.items() if there.get(name, 0) < rows]
    if missing:
        raise BadInput(
            f"{printable(str(run.path))} has fewer rows of {missing[0]} than {checkpoint.path.name} "
            "needs: put back the run file that belongs to it, or choose another directory with "
            f"{option('output')}"
        )
    for name, rows in checkpoint.progress.lengths.items() if run.changed else ():
        if not _is_plausible(name, run.read(name)[:rows], checkpoint.progress.env_steps):
            raise BadInput(
                f"{printable(str(run.path))} was changed by another program, and its {name} cannot be what "
                f"the run wrote: put it back as it was, or choose another directory with {option('output')}"
            )


def _is_plausible(name: str, rows: np.ndarray, env_steps: int) -> bool:
    """Whether rows of a series may be those of a run that came to so many steps."""
    if name.endswith("/env_steps"):
        ascending = np.diff(rows, prepend=0, append=env_steps) >= 0 if rows.ndim == 1 else False
        return rows.dtype.kind == "i" and bool(np.all(ascending))
    return rows.dtype.kind in "fi"


def _kept(run: RunFile) -> str:
    return (
        f"{printable(str(run.path))} was changed by another program since the run wrote it: what the run "
        f"needs of it goes into a new one, the changed one is kept as {free_name(run.path, CHANGED).name}"
    )


def _from_where(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "the run had not come to its first checkpoint: it starts at the beginning"
    return f"going on from {checkpoint.progress.env_steps:,} steps ({checkpoint.path.name})"
