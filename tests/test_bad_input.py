"""Bad input to the whole programs: one sentence on stderr, exit code 2, no traceback, nothing written.

Command lines, configuration files and options, walltimes, outputs, changed settings and directories with odd
names; at the end under mpirun. How: see bad_input.py. Broken files of a run: test_bad_files.py.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable
from pathlib import Path

import bad_input
import numpy as np
import pytest
from bad_input import (
    NOISE,
    ODD,
    RESUME,
    WORDS,
    attribute,
    cut,
    dataset,
    one_sentence,
    refused,
    replaced,
    table,
    tree,
    with_files,
)
from conftest import SMALL, train

from dials_mpi import settings
from dials_mpi.config import load
from dials_mpi.storage.runfile import RunFile

worker, originals, tmp_path = bad_input.worker, bad_input.originals, bad_input.tmp_path


# Command lines -------------------------------------------------------------------------------------------


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    # overrides
    "no value": (["seed"], ["'seed'", "key=value"]),
    "unknown key": (["checkpoint_evry=3"], ["did you mean checkpoint_every?"]),
    "unknown section": (["checkpoint.every=3"], ["unknown key checkpoint.every"]),
    "another domain's": (["traffic.grid=[2,2]"], ["traffic is read only with domain=traffic"]),
    "segment_every, text": (["segment_every=often"], ["segment_every is 'often'", "whole number"]),
    "segment_every, part": (["segment_every=64.5"], ["segment_every is 64.5", "whole number"]),
    "segment_every, negative": (["segment_every=-128"], ["segment_every is -128", "from 0 to"]),
    "segment_every, below an update": (["segment_every=100"], ["segment_every is 100", "at least 128"]),
    "segment_every, no divisor": (["segment_every=192"], ["evaluate_every is 128", "segment_every=192"]),
    "segment_every, too many": (
        [
            "segment_every=128",
            *(f"{key}=128_000_000_000" for key in ("total_steps", "evaluate_every")),
            "retrain_every=128_000_000_000",
        ],
        ["segment_every is 128", "100000 segments", "at least 1280000"],
    ),
    "checkpoint_every, negative": (["checkpoint_every=-1"], ["checkpoint_every is -1", "from 0 to"]),
    "checkpoint_every, exponent": (["checkpoint_every=1e2"], ["checkpoint_every is '1e2'", "write 100"]),
    "checkpoint_every, truth": (["checkpoint_every=no"], ["checkpoint_every=no", "false in YAML 1.1"]),
    "checkpoint_minutes, clock": (["checkpoint_minutes='0:30'"], ["checkpoint_minutes", "a number from 0"]),
    "checkpoint_minutes, endless": (["checkpoint_minutes=.inf"], ["checkpoint_minutes is inf"]),
    "checkpoint_minutes, none": (["checkpoint_minutes="], ["checkpoint_minutes is empty"]),
    "checkpoints never": (
        ["checkpoint_every=0", "checkpoint_minutes=0"],
        ["checkpoint_every and checkpoint_minutes are both 0", "set one"],
    ),
    "checkpoint_keep, none": (["checkpoint_keep=0"], ["checkpoint_keep is 0", "from 1 to"]),
    "checkpoint_keep, list": (["checkpoint_keep=[2]"], ["checkpoint_keep is [2]", "whole number"]),
    "silence, negative": (["silence=-0.1"], ["silence is -0.1", "from 0 to"]),
    "silence, not a number": (["silence=.nan"], ["silence is nan"]),
    "silence, never": (["silence=never"], ["silence is 'never'", "a number"]),
    "silence, huge": (["silence=1" + "0" * 300], ["silence is 1000", "from 0 to"]),
    "seed, octal": (["seed=010"], ["seed=010", "octal 8", "write 10 (or 8)"]),
    "no whole evaluations": (["total_steps=300"], ["total_steps is 300", "use 256 or 384"]),
    "a memory that is not filled": (["envs_per_region=12"], ["ppo.memory_size is 128", "use 96 or 192"]),
    "one bad among good": (["seed=1", "ppo.clip=2", "seed=2"], ["ppo.clip=2", "from 0 to 1"]),
    "bad twice, the last counts": (["seed=1", "seed=one"], ["seed is 'one'"]),
    "a line break": (["seed=1\nmode=dials"], ["seed=1\\nmode=dials"]),
    "no UTF-8": (["mode=\udcff"], ["mode="]),
    "NUL": (["mode=\0"], ["U+0000"]),
    "escape sequence": (["mode='\x1b[31m'"], ["U+001B"]),
    "very long key": (["x" * 100_000 + "=1"], ["unknown key", "x"]),
    "very long value": (["seed=" + "9" * 100_000], ["seed"]),
    "very deep value": (["seed=" + "[" * 9999], ["deep"]),
    "an option as setting": (["output=x"], ["unknown key output"]),
    # options
    "unknown option": (["--outputs=x", "--frob"], ["--frob", "--help"]),
    "unknown option on two lines": (["--frob\nnicate"], ["--help"]),
    "unknown option, no UTF-8": (["--\udcff\x1b[31m"], ["--help"]),
    "ambiguous option": (["--re", "--l\nx"], ["--help"]),
    "a value for a switch": (["--resume=yes"], ["--resume", "--help"]),
    "a value for a switch, odd": ([f"--resume={ODD}"], ["--resume", "--help"]),
    "no configuration": (["--config"], ["--config", "--help"]),
    "no directory": (["--output"], ["--output", "--help"]),
    "no walltime": (["--walltime"], ["--walltime", "--help"]),
    "walltime that looks like an option": (["--walltime", "-1:00:00"], ["--walltime", "--help"]),
    # configuration files
    "missing": (["--config", "none.yaml"], ["none.yaml", "No such file", "give the path"]),
    "missing, odd name": (["--config", ODD], ["cannot be read"]),
    "name too long": (["--config", "x" * 300], ["too long"]),
    "NUL in the name": (["--config", "good.yaml\0"], ["cannot be read"]),
    "no name": (["--config", ""], ["cannot be read"]),
    "a directory": (["--config", "."], ["directory", "give the path"]),
    "below a file": (["--config", "good.yaml/x"], ["good.yaml/x", "cannot be read"]),
    "a link to itself": (["--config", "loop.yaml"], ["loop.yaml", "cannot be read"]),
    "an endless device": (["--config", "/dev/zero"], ["/dev/zero", "larger than"]),
    "Latin-1": (["--config", "latin1.yaml"], ["latin1.yaml: byte 17", "UTF-8"]),
    "UTF-16": (["--config", "utf16.yaml"], ["utf16.yaml: byte 0", "UTF-8"]),
    "large": (["--config", "large.yaml"], ["large.yaml", "larger than"]),
    "binary": (["--config", "binary.yaml"], ["binary.yaml"]),
    "a run file": (["--config", "run.yaml"], ["run.yaml"]),
    "list": (["--config", "list.yaml"], ["list.yaml", "top level"]),
    "open bracket": (["--config", "open.yaml"], ["open.yaml, line 2"]),
    "misspelt": (["--config", "misspelt.yaml"], ["misspelt.yaml", "did you mean checkpoint_every?"]),
    "twice": (["--config", "twice.yaml"], ["twice.yaml, line 2", "twice"]),
    "alias bomb": (["--config", "bomb.yaml"], ["bomb.yaml, line 1", "aliases"]),
    "tag": (["--config", "tagged.yaml"], ["tagged.yaml, line 1", "tags"]),
    "two documents": (["--config", "two.yaml"], ["two.yaml, line 2"]),
    "deep": (["--config", "deep.yaml"], ["deep.yaml", "deep"]),
    "of another domain": (["--config", "traffic.yaml"], ["traffic.yaml", "domain=traffic"]),
    "a section that there is not": (["--config", "section.yaml"], ["section.yaml", "unknown key checkpoint"]),
    "a combination": (["--config", "odd.yaml"], ["odd.yaml with its overrides", "use 16 or 32"]),
    "two files, the last counts": (["--config", "good.yaml", "--config", "none.yaml"], ["none.yaml"]),
}


@table(COMMANDS)
def test_a_bad_command_line_starts_no_run(worker, tmp_path, name):
    arguments, mentions = COMMANDS[name]
    refused(worker, with_files(tmp_path), "train", [*SMALL, "--output", "out", *arguments], mentions)


@table(COMMANDS)
def test_a_bad_command_line_is_not_printed(worker, tmp_path, name):
    """--print-config is a separate code path."""
    arguments, mentions = COMMANDS[name]
    refused(worker, with_files(tmp_path), "train", ["--print-config", *SMALL, *arguments], mentions)


WALLTIMES = [
    *("", " ", "3:50:00 h", "3:50:00\n3", "\0", ODD, "9" * 9999),
    *("0", "50", "3:50", "1:30", "0:00:00", "0-0:00:00", "-1:00:00", "--1:00:00", "1:60:00", "1:00:60"),
    *("1:0:0", "1::00", ":10:00", "1:00:", "1:00:00:00", "1-2-3:00:00", "1-:00:00", "-", "1.5:00:00"),
    *("1:00:00.5", "1h", "1e3:00:00", "0x1:00:00", "99999:00:00", "99999-0:00:00", "inf", "nan", "none"),
    *("UNLIMITED", "1_0:00:00", "٣:50:00", "\uff11:00:00", "3;50;00"),
]


@pytest.mark.parametrize("text", WALLTIMES)
def test_a_bad_walltime_starts_no_run(worker, tmp_path, text):
    arguments = [*SMALL, "--output", "out", f"--walltime={text}"]
    refused(worker, tmp_path, "train", arguments, ["--walltime is ", "3:50:00"])


OUTPUTS = {
    "a file": ["a file", "--output"],
    "a file/below": ["a file/below", "--output"],
    "a file/far/below": ["--output"],
    "loop.yaml": ["loop.yaml", "--output"],
    "loop.yaml/below": ["--output"],
    "x" * 300: ["too long", "--output"],
    "new/" + "x" * 300: ["too long", "--output"],
    "new/" * 3000: ["too long", "--output"],
    "nul\0": ["--output"],
    "new/nul\0": ["--output"],
    "/proc/here": ["/proc/here", "--output"],
    f"a file/{ODD}": ["--output"],
    f"new/{ODD}/" + "x" * 300: ["--output"],
}


@pytest.mark.parametrize("resumed", [[], ["--resume"]])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_cannot_be_a_directory(worker, tmp_path, output, resumed):
    arguments = [*SMALL, *resumed, "--output", output]
    longest = 500 + len(output)
    refused(worker, with_files(tmp_path), "train", arguments, OUTPUTS[output], longest)


# Existing runs ------------------------------------------------------------------------------------------


def test_an_existing_run_requires_resume(worker, originals, tmp_path):
    originals.copy(tmp_path)
    mentions = ["there is a run in run already", "--resume", "--output"]
    refused(worker, tmp_path, "train", [*WORDS, "--output", "run"], mentions)
    refused(worker, tmp_path, "train", ["--output", "run"], mentions)


def test_checkpoints_without_a_run_file_are_not_a_run(worker, originals, tmp_path):
    (originals.copy(tmp_path) / "run.h5").unlink()
    for resumed in ([], ["--resume"]):
        arguments = [*WORDS, *resumed, "--output", "run"]
        refused(worker, tmp_path, "train", arguments, ["no run.h5 in run", "put it back"])


def test_a_run_file_that_is_a_directory(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    (run / "run.h5").unlink()
    (run / "run.h5").mkdir()
    for resumed in ([], ["--resume"]):
        refused(worker, tmp_path, "train", [*WORDS, *resumed, "--output", "run"], ["run"])
    for path in run.glob("checkpoint-*"):
        path.unlink()
    refused(worker, tmp_path, "train", [*WORDS, "--output", "run"], ["run.h5"])


def test_a_run_that_another_process_runs(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    with open(run / ".lock", "w+") as lock:
        for holder in ("process 7 on a machine\n", "two\nlines\x1b[31m\0", ""):
            lock.seek(0)
            lock.truncate()
            lock.write(holder)
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            refused(worker, tmp_path, "train", RESUME, ["another run is active in run", "--output"])


def test_a_session_too_short_for_a_segment(worker, originals, tmp_path):
    """The times of the last session are known: the job would be submitted repeatedly without progress."""
    originals.copy(tmp_path)
    arguments = [*RESUME, "total_steps=512", "--walltime", "0:00:01"]
    refused(worker, tmp_path, "train", arguments, ["the next segment takes", "more time"])


CHANGES: dict[str, list[str]] = {
    "domain": ["domain=traffic"],
    "mode": ["mode=global"],
    "seed": ["seed=1"],
    "total_steps": ["total_steps=256"],
    "retrain_every": ["retrain_every=256"],
    "evaluate_every": ["evaluate_every=384", "retrain_every=384"],
    "segment_every": ["segment_every=128"],
    "schedule": ["schedule=overlapped"],
    "evaluation_episodes": ["evaluation_episodes=4"],
    "evaluation_seed": ["evaluation_seed=7"],
    "dataset_size": ["dataset_size=120"],
    "datasets_from": ["datasets_from=runs/kept"],
    "policies_from": ["policies_from=runs/kept"],
    "predictors_from": ["predictors_from=runs/kept"],
    "match_by": ["match_by=size", "policies_from=runs/kept"],
    "envs_per_region": ["envs_per_region=8"],
    "warehouse.grid": ["warehouse.grid=[1,4]"],
    "warehouse.block": ["warehouse.block=[1,2]"],
    "warehouse.ring": ["warehouse.ring=false"],
    "warehouse.ring_policy": ["warehouse.ring_policy=oldest"],
    "warehouse.item_probability": ["warehouse.item_probability=0.03"],
    "warehouse.horizon": ["warehouse.horizon=25"],
    "policy.architecture": ["policy.architecture=fnn"],
    "policy.hidden": ["policy.hidden=[16,16]"],
    "policy.sequence_length": ["policy.sequence_length=4"],
    "policy.arguments": ["policy.architecture=torch_modules:Plain", "policy.arguments={width: 3}"],
    "policy.share": ["policy.share=all"],
    "ppo.rollout_steps": ["ppo.rollout_steps=4"],
    "ppo.memory_size": ["ppo.memory_size=64", "ppo.rollout_steps=4", "policy.sequence_length=4"],
    "ppo.minibatch_size": ["ppo.minibatch_size=64"],
    "ppo.epochs": ["ppo.epochs=2"],
    "ppo.learning_rate": ["ppo.learning_rate=1e-3"],
    "ppo.clip": ["ppo.clip=0.2"],
    "ppo.anneal": ["ppo.anneal=false"],
    "ppo.discount": ["ppo.discount=0.9"],
    "ppo.gae_lambda": ["ppo.gae_lambda=0.9"],
    "ppo.entropy_coefficient": ["ppo.entropy_coefficient=0.02"],
    "ppo.value_coefficient": ["ppo.value_coefficient=0.5"],
    "ppo.clip_value_loss": ["ppo.clip_value_loss=false"],
    "ppo.normalise_advantages": ["ppo.normalise_advantages=false"],
    "ppo.max_gradient_norm": ["ppo.max_gradient_norm=0.5"],
    "ppo.time_limit": ["ppo.time_limit=terminal"],
    "ppo.adam_epsilon": ["ppo.adam_epsilon=1e-7"],
    "influence.architecture": ["influence.architecture=fnn"],
    "influence.hidden": ["influence.hidden=[8,4]"],
    "influence.learning_rate": ["influence.learning_rate=1e-3"],
    "influence.batch_size": ["influence.batch_size=16"],
    "influence.epochs": ["influence.epochs=2"],
    "influence.held_out": ["influence.held_out=0.3"],
    "influence.adam_epsilon": ["influence.adam_epsilon=1e-7"],
    "influence.arguments": ["influence.architecture=torch_modules:Plain", "influence.arguments={width: 3}"],
    "influence.heads": ["influence.heads=autoregressive"],
    "influence.patience": ["influence.patience=1"],
    "influence.start": ["influence.start=first"],
    "influence.refit_epochs": ["influence.refit_epochs=1"],
    "learner": ["learner=own_learner:Linear"],
    "learner_arguments": ["learner=own_learner:Linear", "learner_arguments={rate: 0.1}"],
    "learning.device": ["policy.architecture=torch:gru", "learning.device=cuda"],
}


@table(CHANGES)
def test_a_run_does_not_continue_with_another_setting(worker, originals, tmp_path, name):
    originals.copy(tmp_path, finished=name < "o")  # whether the run is finished makes no difference
    words = [word for word in WORDS if name != "domain" or not word.startswith("warehouse.")]
    if name == "domain":
        words.append("dataset_size=600")
    arguments = [*words, *CHANGES[name], "--resume", "--output", "run"]
    line = refused(worker, tmp_path, "train", arguments, ["run/run.h5", f"{name} was ", " and is "])
    assert len(re.findall(" was ", line)) == min(5, len(CHANGES[name]) + (name == "domain") * 9)


def test_the_table_of_changes_is_complete():
    """A setting that affects results must not change when a run continues."""
    assert set(CHANGES) == set(load(None, WORDS).decisive())


ALLOWED = [
    "total_steps=512",
    "checkpoint_every=2",
    "checkpoint_minutes=5",
    "checkpoint_keep=1",
    "checkpoint_writers=2",
    "silence=0",
    "global_ranks=2",
    "collect_chunk=8",
    "datasets=none",
    "sinks=[csv]",
]


def test_the_table_of_allowed_changes_is_complete():
    free = set(settings.flat(load(None, WORDS))) - set(load(None, WORDS).decisive())
    assert free | {"total_steps"} == {word.partition("=")[0] for word in ALLOWED}


@pytest.mark.parametrize("word", ALLOWED)
def test_a_run_continues_with_an_allowed_change(worker, originals, tmp_path, word):
    originals.copy(tmp_path)
    said = worker.main("train", [*RESUME, word], tmp_path)
    assert (said.code, said.stderr) == (0, ""), said
    assert "going on from 384 steps (checkpoint-384.h5)" in said.stdout
    assert load(None, [*WORDS, word]).to_yaml() == RunFile.open(tmp_path / "run").configuration()


# The evaluation and the report ---------------------------------------------------------------------------

EVALUATIONS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["neither a run nor a configuration"]),
    "no run": (["nowhere"], ["no run.h5 in nowhere"]),
    "no run, odd": ([ODD], ["no run.h5"]),
    "no run, too long": (["x" * 300], ["no run.h5"]),
    "NUL": (["nul\0"], ["no run.h5"]),
    "a file": (["good.yaml"], ["no run.h5 in good.yaml"]),
    "the run file itself": (["run/run.h5"], ["no run.h5 in run/run.h5"]),
    "a setting for a run": (["run", "seed=1"], ["seed was 0 and is 1"]),
    "two runs": (["run", f"{ODD}"], ["is given beside the run run"]),
    "a run and a configuration": (["run", "--config", "good.yaml"], ["run is given beside --config"]),
    "an odd run and a configuration": ([ODD, "--config", "good.yaml"], ["beside --config"]),
    "no such configuration": (["--config", "none.yaml"], ["none.yaml"]),
    "a broken configuration": (["--config", "bomb.yaml", "--policy", "random"], ["aliases"]),
    "a broken setting": (["checkpoint_keep=0", "--policy", "random"], ["checkpoint_keep is 0"]),
    "no policy": (["--config", "good.yaml"], ["--policy is not given"]),
    "trained without a run": (["--config", "good.yaml", "--policy", "trained"], ["directory of a run"]),
    "unknown policy": (["run", "--policy", "clever"], ["--policy is clever", "closest"]),
    "odd policy": (["run", "--policy", ODD], ["closest"]),
    "policy of another domain": (["run", "--policy", "max-pressure"], ["max-pressure", "closest"]),
    "no episodes": (["run", "--episodes", "0"], ["--episodes is 0"]),
    "negative episodes": (["run", "--episodes", "-3"], ["--episodes"]),
    "episodes of text": (["run", "--episodes", "many"], ["--episodes", "many"]),
    "odd episodes": (["run", "--episodes", ODD], ["--episodes"]),
    "half an episode": (["run", "--episodes", "1.5"], ["--episodes"]),
    "more episodes than ever": (["run", "--episodes", "1" + "0" * 30], ["--episodes"]),
    "endless episodes": (["run", "--episodes", "9" * 9999], ["--help"]),
    "no such checkpoint": (["run", "--checkpoint", "512"], ["no 512 checkpoint in run", "best, newest"]),
    "checkpoint by file": (["run", "--checkpoint", "run/checkpoint-384.h5"], ["best, newest"]),
    "checkpoint elsewhere": (["run", "--checkpoint", "../run/checkpoint-384"], ["best, newest"]),
    "checkpoint of text": (["run", "--checkpoint", "latest"], ["no latest checkpoint", "best, newest"]),
    "checkpoint -1": (["run", "--checkpoint", "-1"], ["no -1 checkpoint"]),
    "checkpoint of zeros": (["run", "--checkpoint", "0384"], ["no 0384 checkpoint"]),
    "odd checkpoint": (["run", "--checkpoint", ODD], ["best, newest"]),
    "checkpoint NUL": (["run", "--checkpoint", "3\x0084"], ["best, newest"]),
    "checkpoint for no run": (
        ["--config", "good.yaml", "--policy", "random", "--checkpoint", "best", "warehouse.grid=[2,2]"],
        ["--checkpoint"],
    ),
    "checkpoint for no training": (["run", "--policy", "random", "--checkpoint", "best"], ["--checkpoint"]),
    "figures below a file": (["run", "--episodes", "1", "--json", "good.yaml/x"], ["good.yaml/x", "--json"]),
    "figures nowhere": (["run", "--episodes", "1", "--json", "nowhere/x"], ["nowhere/x", "--json"]),
    "figures nowhere, odd": (["run", "--episodes", "1", "--json", f"nowhere/{ODD}"], ["--json"]),
    "figures into a directory": (["run", "--episodes", "1", "--json", "."], ["--json"]),
    "figures onto a full disk": (["run", "--episodes", "1", "--json", "/dev/full"], ["--json", "space"]),
    "figures NUL": (["run", "--episodes", "1", "--json", "nul\0"], ["--json"]),
    "unknown option": (["run", "--output", "x"], ["--output", "--help"]),
}


@table(EVALUATIONS)
def test_a_bad_evaluation(worker, originals, tmp_path, name):
    originals.copy(with_files(tmp_path), finished=True)
    arguments, mentions = EVALUATIONS[name]
    refused(worker, tmp_path, "evaluate", arguments, mentions)


def test_a_killed_run_without_checkpoints_has_nothing_to_evaluate(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    for path in run.glob("checkpoint-*"):
        path.unlink()
    for words in ([], ["--checkpoint", "newest"], ["--checkpoint", "best"]):
        refused(worker, tmp_path, "evaluate", ["run", *words], ["checkpoint in run"])


REPORTS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["DIR", "--help"]),
    "nowhere to": (["run"], ["--out", "--html", "--marl-eval"]),
    "no run": (["nowhere", "--out", "figures"], ["no run.h5 in nowhere"]),
    "no run, odd": ([ODD, "--out", "figures"], ["no run.h5"]),
    "no run, too long": (["x" * 300, "--out", "figures"], ["no run.h5"]),
    "NUL": (["nul\0", "--out", "figures"], ["no run.h5"]),
    "a run twice": (["run", "run/.", "--out", "figures"], ["the same configuration"]),
    "a run under two names": (["run", ODD, "--out", "figures"], ["the same configuration"]),
    "onto a file": (["run", "--out", "good.yaml"], ["good.yaml", "cannot be written"]),
    "below a file": (["run", "--out", "good.yaml/x"], ["good.yaml/x", "cannot be written"]),
    "below a file, odd": (["run", "--out", f"good.yaml/{ODD}"], ["cannot be written"]),
    "a name too long": (["run", "--out", "x" * 300], ["cannot be written"]),
    "figures NUL": (["run", "--out", "nul\0"], ["cannot be written"]),
    "unknown option": (["run", "--out", "figures", "--\udcff\x1b[31m"], ["--help"]),
}


@table(REPORTS)
def test_a_bad_report(worker, originals, tmp_path, name):
    originals.copy(with_files(tmp_path), finished=True)
    if name == "a run under two names":
        originals.copy(tmp_path, finished=True, name=ODD)
    arguments, mentions = REPORTS[name]
    refused(worker, tmp_path, "report", arguments, mentions)


EMPTY: dict[str, tuple[str, list[str], str]] = {
    "output": ("train", [*SMALL, "--output", ""], "--output"),
    "output, resumed": ("train", [*SMALL, "--resume", "--output", ""], "--output"),
    "walltime": ("train", [*SMALL, "--output", "out", "--walltime", ""], "--walltime"),
    "configuration": ("train", [*SMALL, "--output", "out", "--config", ""], "cannot be read"),
    "override": ("train", [*SMALL, "--output", "out", ""], "key=value"),
    "checkpoint": ("evaluate", ["run", "--episodes", "1", "--checkpoint", ""], "--checkpoint"),
    "policy": ("evaluate", ["run", "--episodes", "1", "--policy", ""], "--policy"),
    "episodes": ("evaluate", ["run", "--episodes", ""], "--episodes"),
    "figures": ("evaluate", ["run", "--episodes", "1", "--json", ""], "--json"),
    "no run": ("evaluate", [""], "no run.h5"),
    "folder": ("report", ["run", "--out", ""], "--out"),
    "no run to report": ("report", ["", "--out", "figures"], "no run.h5"),
}


@table(EMPTY)
def test_an_empty_argument_is_refused(worker, originals, tmp_path, name):
    """As from a variable that a job script has not set: no other directory is used."""
    originals.copy(tmp_path, finished=True)
    program, arguments, mention = EMPTY[name]
    refused(worker, tmp_path, program, arguments, [mention])


# Odd directories -----------------------------------------------------------------------------------------

ODD_RUNS: dict[str, tuple[str, list[str], str, Callable[[Path], object]]] = {
    "a run that is there": ("train", [], "", cut(0.5)),
    "another seed": ("train", ["--resume", "seed=1"], "", cut(0.5)),
    "damaged": ("train", ["--resume"], "run.h5", cut(0.5)),
    "newer": ("train", ["--resume"], "run.h5", attribute("format_version", 9)),
    "its configuration": ("train", ["--resume"], "run.h5", dataset("config/0", "a: [")),
    "no run file": ("train", ["--resume"], "run.h5", Path.unlink),
    "too few rows": ("train", ["--resume"], "run.h5", dataset("training")),
    "no good checkpoint": ("train", ["--resume"], "checkpoint-*", cut(0.5)),
    "a newer checkpoint": ("train", ["--resume"], "checkpoint-384.h5", attribute("format_version", 9)),
    "evaluate: damaged": ("evaluate", [], "run.h5", cut(0.5)),
    "evaluate: newer": ("evaluate", [], "run.h5", attribute("format_version", 9)),
    "evaluate: its configuration": ("evaluate", [], "run.h5", dataset("config/0", "a: [")),
    "evaluate: no policies": ("evaluate", [], "run.h5", dataset("policy")),
    "evaluate: others": ("evaluate", [], "run.h5", dataset("policy/parameters", np.zeros((4, 3), "f4"))),
    "evaluate: no checkpoint": ("evaluate", ["--checkpoint", "7"], "", cut(0.5)),
    "evaluate: a bad checkpoint": ("evaluate", ["--checkpoint", "256"], "checkpoint-256.h5", cut(0.5)),
    "evaluate: two": ("evaluate", [ODD], "", cut(0.5)),
    "report: damaged": ("report", ["--out", "figures"], "run.h5", cut(0.5)),
    "report: nothing yet": ("report", ["--out", "figures"], "run.h5", dataset("evaluation")),
    "report: no times": ("report", ["--out", "figures"], "run.h5", dataset("evaluation/wall_time")),
}
"""A program, its arguments, and the damaged files of the run."""


@table(ODD_RUNS)
def test_an_odd_directory_is_shown_on_one_line(worker, originals, tmp_path, name):
    program, words, files, change = ODD_RUNS[name]
    run = originals.copy(tmp_path, finished=program != "train", name=ODD)
    for path in run.glob(files) if files else ():
        change(path)
    arguments = [*WORDS, *words, "--output", ODD] if program == "train" else [ODD, *words]
    refused(worker, tmp_path, program, arguments)


def test_a_run_in_an_odd_directory_continues_and_finishes(worker, originals, tmp_path):
    """The name is valid: a run must not fail when it prints the name at its end."""
    run = originals.copy(tmp_path, name=ODD)
    cut(0.5)(run / "checkpoint-384.h5")
    for _ in range(2):
        said = worker.main("train", [*WORDS, "--resume", "--output", ODD], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said
    assert RunFile.open(run).attributes()["finished"]
    for program, words in (("evaluate", ["--episodes", "1"]), ("report", ["--out", "figures"])):
        said = worker.main(program, [ODD, *words], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said


# With ranks ----------------------------------------------------------------------------------------------

RANKED: dict[str, tuple[Callable[[Path], None] | None, list[str], list[str]]] = {
    "a broken override": (None, [*WORDS, "checkpoint_keep=0"], ["checkpoint_keep is 0"]),
    "a broken walltime": (None, [*WORDS, "--walltime", "1h"], ["--walltime is '1h'"]),
    "too many ranks": (None, [*WORDS, "warehouse.grid=[1,1]"], ["3 ranks", "at most 2"]),
    "another setting": (lambda run: None, [*WORDS, "ppo.clip=0.2"], ["ppo.clip was 0.1 and is 0.2"]),
    "a broken run file": (lambda run: cut(0.5)(run / "run.h5"), [*WORDS], ["run.h5", "damaged"]),
    "no good checkpoint": (
        lambda run: [replaced(NOISE)(path) for path in run.glob("checkpoint-*")],
        [*WORDS],
        ["none of the checkpoints"],
    ),
}


@table(RANKED)
def test_only_root_prints_and_all_ranks_end(originals, tmp_path, name):
    change, words, mentions = RANKED[name]
    if change:
        change(originals.copy(tmp_path))
    before = tree(tmp_path)
    result = train(*words, "--resume", "--output", "run", ranks=3, cwd=tmp_path)
    assert (result.code, result.stdout) == (2, "")
    one_sentence(result.stderr, mentions)
    assert tree(tmp_path) == before and not result.left_over


def test_ranks_continue_from_the_older_checkpoint(originals, tmp_path):
    cut(0.7)(originals.copy(tmp_path) / "checkpoint-384.h5")
    result = train(*RESUME, ranks=2, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    assert "checkpoint-384.h5 is not a checkpoint, or a damaged one" in result.stdout
    assert "going on from 256 steps (checkpoint-256.h5)" in result.stdout
    assert (RunFile.open(tmp_path / "run").read("policy/parameters") == originals.parameters).all()
