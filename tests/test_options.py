"""Options in messages: as a user of a command gives them, or as one of Python does."""

from __future__ import annotations

import pytest
from conftest import SMALL
from test_projection import made

import dials_mpi
from dials_mpi.core.errors import BadInput
from dials_mpi.core.shell import option, running_command
from dials_mpi.train import main as train_main


@pytest.mark.quick
def test_an_option_is_named_as_it_is_given():
    assert (option("resume"), option("output")) == ("resume=True", "the argument output")
    with running_command("train"):
        assert (option("resume"), option("output")) == ("--resume", "--output")
    assert option("resume") == "resume=True"


def test_a_run_that_is_there_already_is_refused_in_the_users_words(tmp_path, in_process):
    made(tmp_path / "run")
    with pytest.raises(BadInput) as refusal:
        dials_mpi.train(dials_mpi.load_config(None, list(SMALL)), output=tmp_path / "run")
    assert "continue it with resume=True, or choose another directory with the argument output" in str(
        refusal.value
    )
    assert "--" not in str(refusal.value)
    said = in_process(train_main)(*SMALL, "--output", tmp_path / "run")
    assert said.code == 2
    assert "continue it with --resume, or choose another directory with --output" in said.stderr
