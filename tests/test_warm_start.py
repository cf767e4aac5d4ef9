"""Runs that start with the weights of another one."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, train
from unequal_domain import AGENTS, REGIONS

from dials_mpi import settings
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.archive import archive
from dials_mpi.config import from_yaml as load_text
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import create
from dials_mpi.domains.base import Agent, Region
from dials_mpi.results.run import Run
from dials_mpi.run.session import SessionStart
from dials_mpi.run.warm_start import with_weights
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.train import main

OTHER = (*SMALL, "total_steps=128", "seed=7")
"""The run whose weights are taken; it has another seed."""


@pytest.fixture(scope="module", autouse=True)
def domains_and_learners_of_the_tests():
    """Runs that are started find them, too."""
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{here}:{here.parent}")
        yield


def started(tmp_path, *words, ranks=None, name="out"):
    """The directory of a new run, which must end well."""
    done = train(*SMALL, *words, "--output", str(tmp_path / name), ranks=ranks)
    assert (done.code, done.stderr) == (0, "")
    return tmp_path / name


def weights(*words):
    """What a run with these settings starts with, and the notes on it."""
    config = load(None, [*SMALL, *words])
    start = with_weights(SessionStart(config, "out"), create(config.domain, config.domain_section))
    return start.weights, start.notes


def same(one, other, *omitted):
    """Whether the contents of two runs are equal, apart from times and memory."""
    kept = [name for name in one if name.split("/")[0] not in ("config", "timing", "memory", "placement")]
    omitted = (*omitted, "events/rank")  # a coordinate, as long as there are ranks
    kept = [name for name in kept if not name.endswith("wall_time") and name not in omitted]
    assert kept
    for name in kept:
        np.testing.assert_array_equal(one[name], other[name], name)


@pytest.mark.quick
def test_the_first_evaluation_is_of_the_other_run_s_networks(trained, tmp_path):
    other = Run.open(trained(*OTHER))
    both = f"policies_from={trained(*OTHER)}", f"predictors_from={trained(*OTHER)}"
    found = content(started(tmp_path, *both) / "run.h5")
    config = load(None, [*SMALL, *both])
    expected = evaluate(config, other.domain, other.actors, other.predictors, 3, segment=0)
    np.testing.assert_array_equal(found["evaluation/returns"][0], expected.returns)
    np.testing.assert_array_equal(found["evaluation/cross_entropy"][0], expected.cross_entropy)
    without = content(trained(*SMALL) / "run.h5")
    assert not np.array_equal(found["evaluation/returns"][0], without["evaluation/returns"][0])
    assert (found["evaluation/env_steps"] == [0, 128, 256]).all()
    assert "several" not in next(tmp_path.rglob("log.txt")).read_text(), "the numbers are no versions"


def test_any_number_of_ranks_gives_the_same_results(trained, tmp_path):
    both = f"policies_from={trained(*OTHER)}", f"predictors_from={trained(*OTHER)}"
    alone, three = (
        content(started(tmp_path, *both, ranks=ranks, name=name) / "run.h5")
        for ranks, name in ((None, "alone"), (3, "three"))
    )
    same(alone, three, "events/simulator_failures")


def test_a_resumed_run_does_not_read_the_other_one(trained, tmp_path):
    gone = shutil.copytree(trained(*OTHER), tmp_path / "gone")
    words = (*SMALL, "ppo.anneal=false", "--policies-from", str(gone))
    how = ("--output", str(tmp_path / "out"))
    assert train(*words, "--output", str(tmp_path / "whole")).code == 0
    assert train(*words, "total_steps=128", *how).code == 0
    shutil.rmtree(gone)
    done = train(*words, *how, "--resume", ranks=2)
    assert (done.code, done.stderr) == (0, "")
    same(*(content(tmp_path / name / "run.h5") for name in ("whole", "out")), "events/simulator_failures")
    with h5py.File(tmp_path / "out" / "run.h5") as file:
        begun, continued = (dict(file[f"config/{k}"].attrs) for k in range(2))
    other = Run.open(trained(*OTHER)).config
    assert begun["policies_from_env_steps"] == 128
    assert begun["policies_from_digest"] == other.digest() and not any("from" in name for name in continued)
    assert begun["policies_from_numbers"].tolist() == [0, 1, 2, 3]
    page = (Path(__file__).parents[1] / "docs" / "run-file.md").read_text()
    added = [name for name in begun if "_from_" in name]
    assert len(added) == 3 and all(f"`{name}`" in page for name in added)
    (tmp_path / "defaults.yaml").write_text(
        "domain: warehouse\n"
    )  # else the run's own configuration is taken
    refused = train("--config", str(tmp_path / "defaults.yaml"), *SMALL, "ppo.anneal=false", *how, "--resume")
    assert refused.code == 2 and "policies_from was" in refused.stderr


def test_in_mode_untrained_the_predictors_of_another_run_stay_as_they_are(trained, tmp_path):
    run = started(tmp_path, "mode=untrained", f"predictors_from={trained(*OTHER)}", ranks=2)
    found, other = content(run / "run.h5"), content(trained(*OTHER) / "run.h5")
    np.testing.assert_array_equal(found["predictor/parameters"], other["predictor/parameters"])
    assert not np.array_equal(found["policy/parameters"], other["policy/parameters"])


def test_in_mode_global_policies_start_with_others(trained, tmp_path):
    run = started(tmp_path, "mode=global", f"policies_from={trained(*OTHER)}")
    other = Run.open(trained(*OTHER))
    expected = evaluate(load(None, [*SMALL, "mode=global"]), other.domain, other.actors, [], 3, segment=0)
    np.testing.assert_array_equal(content(run / "run.h5")["evaluation/returns"][0], expected.returns)


def test_an_archived_copy_and_a_checkpoint_serve_as_well(trained, tmp_path):
    run = trained(*OTHER)
    (copy,) = archive([run], tmp_path, with_policies=True)
    half = shutil.copytree(run, tmp_path / "half")
    with rewriting(half / "run.h5") as file:  # as before its end
        file.attrs["finished"] = False
        del file["policy"]
    expected = content(run / "run.h5")["policy/parameters"]
    for place in (run, copy.parent, half):
        found, notes = weights(f"policies_from={place}")
        np.testing.assert_array_equal(found["policy/parameters"], expected)
        begin = f"the policies start with those of {place} after 128 steps"
        assert notes == (f"{begin}: each agent with that of its own number",)


# Which agent takes whose -----------------------------------------------------------------------------------


def test_in_a_larger_system_agents_take_turns_with_those_of_the_smaller_one(trained, tmp_path):
    place = trained(*OTHER)
    both = f"policies_from={place}", f"predictors_from={place}"
    with pytest.raises(BadInput, match="has 4 agents, and this system has 6: set match_by=size"):
        weights(*both, "warehouse.grid=[2,3]")
    found, notes = weights(*both, "warehouse.grid=[2,3]", "match_by=size")
    other = content(place / "run.h5")
    for name in ("policy/parameters", "predictor/parameters"):
        np.testing.assert_array_equal(found[name], other[name][[0, 1, 2, 3, 0, 1]])
    assert "agents 0 to 5 with those of agents 0, 1, 2, 3, 0, 1" in notes[0]
    assert "regions 0 to 5 with those of regions 0, 1, 2, 3, 0, 1" in notes[1]
    run = started(tmp_path, *both, "warehouse.grid=[2,3]", "match_by=size", "total_steps=128", ranks=3)
    assert notes[0] in (run / "log.txt").read_text()
    with h5py.File(run / "run.h5") as file:
        assert file["config/0"].attrs["policies_from_numbers"].tolist() == [0, 1, 2, 3, 0, 1]


UNEQUAL = ("domain=unequal_domain:Unequal", "policy.hidden=[16,8]", "influence.hidden=[8,8]")


@pytest.fixture(scope="module")
def unequal(trained):
    """The directory of a run whose agents and regions differ in every size."""
    settings = [word for word in OTHER if not word.startswith("warehouse")]
    return trained(*settings, *UNEQUAL)


def unequal_weights(place, agents, match, regions=REGIONS):
    """What a system of such agents and regions starts with."""
    words = f"policies_from={place}", f"predictors_from={place}", f"match_by={match}", "dataset_size=100"
    config = load(None, [*UNEQUAL, *words])
    domain = SimpleNamespace(agents=agents, regions=regions)
    return with_weights(SessionStart(config, "out"), domain).weights


def test_agents_of_different_sizes_take_weights_of_their_own_size(unequal):
    other = content(unequal / "run.h5")
    for name, array in unequal_weights(unequal, AGENTS, "number").items():
        np.testing.assert_array_equal(array, other[name])
    order, regions = [2, 2, 0, 3, 1, 0], [1, 2, 2]
    found = unequal_weights(unequal, [AGENTS[i] for i in order], "size", [REGIONS[k] for k in regions])
    np.testing.assert_array_equal(found["policy/parameters"], other["policy/parameters"][order])
    taken, width = found["predictor/parameters"], found["predictor/parameters"].shape[1]
    assert width < other["predictor/parameters"].shape[1]  # the largest region is not there
    np.testing.assert_array_equal(taken, other["predictor/parameters"][regions, :width])


def test_an_agent_without_a_match_is_named(unequal, trained):
    with pytest.raises(BadInput, match=r"domain=warehouse, and here it is 'unequal_domain:Unequal'"):
        unequal_weights(trained(*OTHER), AGENTS, "number")
    swapped = [AGENTS[i] for i in (0, 1, 3, 2)]
    with pytest.raises(
        BadInput, match=r"other agents \(agent 2: 2 inputs, 4 actions, .*: 4 inputs, 2 actions"
    ):
        unequal_weights(unequal, swapped, "number")
    with pytest.raises(BadInput, match=r"no agent with a network of the size of agent 1 \(9 inputs, 2 act"):
        unequal_weights(unequal, [AGENTS[0], Agent(9, 2)], "size")
    with pytest.raises(BadInput, match=r"of region 0 \(5 inputs, sources of \[4, 3\] classes"):
        unequal_weights(unequal, AGENTS, "size", [Region((2, 0), 5, (4, 3), "float32")])


def test_agents_that_share_a_policy_start_with_that_of_the_first(trained, tmp_path):
    place = trained(*OTHER)
    found, notes = weights(f"policies_from={place}", "policy.share=all")
    first = content(place / "run.h5")["policy/parameters"][0]
    assert (found["policy/parameters"] == first).all() and "of agents 0, 0, 0, 0" in notes[0]
    run = content(started(tmp_path, f"policies_from={place}", "policy.share=all", ranks=3) / "run.h5")
    assert (run["policy/parameters"] == run["policy/parameters"][0]).all()
    alone = started(tmp_path, f"policies_from={place}", "policy.share=all", name="alone")
    same(run, content(alone / "run.h5"), "events/simulator_failures")


def test_a_learner_of_the_user_s_own_starts_with_another_s_parameters(trained):
    own = "learner=own_learner:Linear"
    place = trained(*OTHER, own)
    found, _ = weights(own, f"policies_from={place}")
    np.testing.assert_array_equal(found["policy/parameters"], content(place / "run.h5")["policy/parameters"])
    with pytest.raises(BadInput, match="learner='own_learner:Linear', and here it is ppo: set learner"):
        weights(f"policies_from={place}")


# Refusals --------------------------------------------------------------------------------------------------

DIFFERENT = {
    "hidden": (["policy.hidden=[8,8]"], r"policy.hidden=\[16, 8\], and here it is \[8, 8\]: set policy.hid"),
    "architecture": (["policy.architecture=fnn"], "policy.architecture=gru, and here it is fnn: set pol"),
    "heads": (["influence.heads=autoregressive"], "influence.heads=independent, and here it is autoreg"),
    "regions": (["warehouse.block=[1,2]"], "has 4 regions, and this system has 2"),
    "larger regions": (["warehouse.block=[1,2]", "match_by=size"], "the size of region 0 .74 inputs"),
    "no run": (["policies_from=none"], "policies_from: there is no run.h5 in none"),
    "nothing to match": (
        ["policies_from=''", "predictors_from=''", "match_by=size"],
        "and neither policies_from",
    ),
    "no predictors here": (["mode=global"], "predictors_from is given, and mode=global has no predictors"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_does_not_fit_is_refused(trained, case):
    words, reason = DIFFERENT[case]
    both = [f"{key}_from={trained(*OTHER)}" for key in ("policies", "predictors")]
    with pytest.raises(BadInput, match=reason):
        weights(*both, *words)


def test_other_runs_that_cannot_serve_are_refused(trained, tmp_path):
    (copy,) = archive([trained(*OTHER)], tmp_path)
    changed = shutil.copytree(trained(*OTHER), tmp_path / "changed")
    with h5py.File(changed / "run.h5", "r+") as file:
        file.attrs["comment"] = "mine"
    together = trained(*OTHER, "mode=global")
    for word, reason in (
        (f"policies_from={copy.parent}", "it is a copy without networks"),
        (f"policies_from={changed}", "policies_from: another program has changed the run in"),
        (
            f"predictors_from={together}",
            "predictors_from: .* is a run with mode=global, which has no predictors",
        ),
    ):
        with pytest.raises(BadInput, match=reason):
            weights(word)


def test_a_refusal_is_one_sentence_before_the_ranks_begin(trained, tmp_path):
    words = "policy.hidden=[8,8]", "--policies-from", str(trained(*OTHER)), "--output", str(tmp_path / "out")
    done = train(*SMALL, *words, ranks=3)
    assert done.code == 2 and len(done.ours()) == 1 and "policy.hidden=[16, 8]" in done.stderr
    assert not (tmp_path / "out" / "run.h5").exists()


# The digest ------------------------------------------------------------------------------------------------


def test_the_digest_covers_the_settings_where_they_are_set():
    plain = load(None, SMALL)
    values = plain.decisive()
    for key in ("policies_from", "predictors_from", "match_by"):
        del values[key]
    old = {key: value for key, value in values.items() if key not in settings.newer_defaults(plain)}
    assert plain.digest() == settings.digest(old)  # as before there were such settings
    words = (
        ("policies_from=a",),
        ("policies_from=b",),
        ("predictors_from=a",),
        ("policies_from=a", "match_by=size"),
    )
    assert len({plain.digest(), *(load(None, [*SMALL, *more]).digest() for more in words)}) == 5


def test_any_name_of_a_directory_can_be_given(in_process):
    said = in_process(main)("--policies-from", "odd: [x, 010] # é", "--print-config")
    assert said.code == 0 and load_text(said.stdout).policies_from == "odd: [x, 010] # é"
