"""Archived copies: without or with networks, the same reports, and no run can continue from them."""

import shutil

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, launch, train
from made_run import RETURNS, make_run

from dials_mpi import report
from dials_mpi.archive import archive, main
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import create
from dials_mpi.run.resume import find
from dials_mpi.storage import dimensions
from dials_mpi.storage.runfile import RunFile


def described(item):
    """A dataset's attributes, with the names of its dimensions in place of references to them."""
    plain = {key: item.attrs[key] for key in item.attrs if key not in dimensions.ATTRIBUTES}
    return repr(plain), [[scale.name for scale in axis.values()] for axis in item.dims]


def structure(file):
    """Every dataset's attributes, type and whether it grows; and the attributes of the file."""
    with h5py.File(file) as opened:
        found = {"/": dict(opened.attrs, hosts=None)}
        opened.visititems(
            lambda name, item: (
                found.update({name: (described(item), item.dtype, item.maxshape)})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.quick
def test_a_copy_is_the_run_without_its_networks(trained, tmp_path):
    run = trained(*SMALL)
    (copy,) = archive([run], tmp_path)
    assert copy == tmp_path / "out" / "run.h5"
    before, after = (structure(file) for file in (run / "run.h5", copy))
    assert after["/"].pop("archived") and after["/"] == before["/"]
    left_out = {name for name in before if name.startswith(("policy/", "predictor/"))}
    assert len(left_out) == 10 and after == {n: v for n, v in before.items() if n not in left_out}
    kept, whole = ({k: np.asarray(v) for k, v in content(f).items()} for f in (copy, run / "run.h5"))
    assert all(np.array_equal(kept[k], whole[k], equal_nan=kept[k].dtype.kind == "f") for k in kept)
    RunFile.open(tmp_path / "out")  # its checksum holds


def test_with_policies_nothing_is_missing_from_a_copy(trained, tmp_path):
    run = trained(*SMALL)
    (copy,) = archive([run], tmp_path, with_policies=True)
    before, after = (structure(file) for file in (run / "run.h5", copy))
    assert after["/"].pop("archived") and after == before
    kept, whole = content(copy), content(run / "run.h5")
    assert kept.keys() == whole.keys() and kept["policy/parameters"].any()
    assert all(repr(np.asarray(kept[n]).tolist()) == repr(np.asarray(whole[n]).tolist()) for n in whole)
    (again,) = archive([copy.parent], tmp_path / "again", with_policies=True)
    assert str(content(again)) == str(kept)


def test_commands_use_the_networks_of_a_copy(trained, tmp_path):
    run = trained(*SMALL)
    archive([run], tmp_path, with_policies=True)
    copy = str(tmp_path / run.name)
    ours, theirs = (launch("-m", "dials_mpi.evaluate", name, "--episodes", "4") for name in (copy, str(run)))
    assert (ours.code, ours.stderr) == (0, "") and ours.stdout == theirs.stdout
    for command in (["export", copy, "--all", "--out", "a.npz"], ["watch", copy, "--out", "a.png"]):
        done = launch("-m", f"dials_mpi.{command[0]}", *command[1:], cwd=tmp_path)
        assert (done.code, done.stderr) == (0, ""), command
    lost = launch("-m", "dials_mpi.evaluate", copy, "--checkpoint", "newest")
    assert lost.code == 2 and "has no checkpoints: leave out --checkpoint" in lost.stderr


def test_policies_that_are_not_there_are_not_promised(trained, tmp_path):
    half, whole = make_run(tmp_path, "half", finished=False), trained(*SMALL)
    with pytest.raises(BadInput, match="the run is not finished: finish it with resume=True, or omit"):
        archive([whole, half], tmp_path / "kept", with_policies=True)
    assert not (tmp_path / "kept").exists()
    (copy,) = archive([whole], tmp_path / "kept")
    with pytest.raises(BadInput, match="a copy without them: give the run itself, or omit"):
        archive([copy.parent], tmp_path / "more", with_policies=True)


def test_a_copy_with_policies_is_not_replaced_by_one_without(trained, tmp_path):
    archive([trained(*SMALL)], tmp_path)
    (copy,) = archive([trained(*SMALL)], tmp_path, with_policies=True)  # more than before
    before = copy.read_bytes()
    with pytest.raises(BadInput, match=r"an archived copy with policies in .* or keep them with"):
        archive([trained(*SMALL)], tmp_path)
    assert copy.read_bytes() == before


def test_a_copy_of_the_paper_s_networks_is_a_fraction(trained, tmp_path):
    run = trained(*SMALL, "policy.hidden=[256,128]", "total_steps=128", "influence.epochs=1")
    (copy,) = archive([run], tmp_path)
    assert 20 * copy.stat().st_size < (run / "run.h5").stat().st_size


def test_the_report_of_a_copy_has_the_same_bytes(trained, tmp_path):
    run = trained(*SMALL)
    archive([run], tmp_path)
    for directory, out in ((run, "a"), (tmp_path / "out", "b")):
        report.report([str(directory)], str(tmp_path / out))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir()) and "curves.csv" in files
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_a_newer_copy_takes_the_place_of_an_older_one(tmp_path):
    """Of a run that has gone on since."""
    run, out = make_run(tmp_path, returns=RETURNS[:1], finished=False), tmp_path / "kept"
    for returns in (RETURNS[:1], RETURNS):
        shutil.rmtree(run)
        make_run(tmp_path, returns=returns, finished=len(returns) == 2)
        (copy,) = archive([run], out)
        assert len(RunFile.open(copy.parent).read("evaluation/returns")) == len(returns)
    assert RunFile.open(copy.parent).finished()
    (again,) = archive([copy.parent], tmp_path / "again")  # a copy of a copy
    assert str(content(again)) == str(content(copy))


def test_what_is_there_is_not_lost(tmp_path):
    run, other = make_run(tmp_path), make_run(tmp_path / "other", settings=["seed=1"])
    before = RunFile(run).path.read_bytes()
    with pytest.raises(BadInput, match="there is a run in"):  # in its own place
        archive([run], tmp_path)
    archive([run], tmp_path / "kept")
    with pytest.raises(BadInput, match="an archived copy of another run"):
        archive([other], tmp_path / "kept")
    with pytest.raises(BadInput, match="have the same name"):
        archive([run, other], tmp_path / "new")
    assert RunFile(run).path.read_bytes() == before and not (tmp_path / "new").exists()


def test_a_run_that_was_begun_anew_does_not_replace_the_copy_of_what_it_was(tmp_path):
    run = make_run(tmp_path)
    file = RunFile(run)
    file.append({"training/env_steps": 1280})
    file.commit()
    (copy,) = archive([run], tmp_path / "kept")
    before = copy.read_bytes()
    shutil.rmtree(run)
    make_run(tmp_path, returns=RETURNS[:1], finished=False)
    with pytest.raises(BadInput, match="an archived copy after 1,280 steps, more than 0"):
        archive([run], tmp_path / "kept")
    assert copy.read_bytes() == before


def test_with_a_copy_no_run_goes_on(tmp_path):
    settings = ["total_steps=2560", "evaluate_every=1280", "warehouse.grid=[1,2]"]
    for name, finished, words in (("half", False, []), ("whole", True, ["total_steps=5120"])):
        (copy,) = archive([make_run(tmp_path, name, finished=finished)], tmp_path / "kept")
        before = copy.read_bytes()
        config = load(None, [*settings, *words])
        with pytest.raises(BadInput, match="results and no checkpoint to continue from"):
            find(config, create(config.domain, config.domain_section), str(copy.parent), resume=True)
        assert copy.read_bytes() == before


def test_a_finished_run_without_its_checkpoints_keeps_its_results(trained, tmp_path):
    """To be made longer it would have to begin anew, and its rows would be gone."""
    shutil.copytree(trained(*SMALL), tmp_path / "run")
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        checkpoint.unlink()
    before = (tmp_path / "run" / "run.h5").read_bytes()
    how = (*SMALL, "--output", "run", "--resume")
    longer = train(*how, "total_steps=512", ranks=3, cwd=tmp_path)
    assert longer.code == 2 and len(longer.ours()) == 1 and "no checkpoint to continue from" in longer.stderr
    assert (tmp_path / "run" / "run.h5").read_bytes() == before
    assert train(*how, cwd=tmp_path).code == 0  # and as it is there is nothing to do


def test_what_needs_networks_says_that_there_are_none(trained, tmp_path):
    archive([trained(*SMALL)], tmp_path)
    done = launch("-m", "dials_mpi.evaluate", str(tmp_path / "out"))
    assert done.code == 2 and "has no policy/parameters: it is a copy without networks" in done.stderr
    scripted = launch("-m", "dials_mpi.evaluate", str(tmp_path / "out"), "--policy", "oldest")
    assert scripted.code == 0
    (copy,) = archive([make_run(tmp_path, "half", finished=False)], tmp_path / "kept")
    done = launch("-m", "dials_mpi.evaluate", str(copy.parent))
    assert done.code == 2 and "which has no checkpoints: give the run itself" in done.stderr


def test_as_a_user_starts_it(trained, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([str(trained(*SMALL)), "--out", str(tmp_path / "kept")])
    assert capsys.readouterr().out.startswith(f"{tmp_path}/kept/out/run.h5: ")
    (tmp_path / "file").touch()
    for words, reason in (
        ([str(tmp_path)], "there is no run.h5"),
        ([str(trained(*SMALL)), "--out", str(tmp_path / "file")], "Not a directory"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["--out", str(tmp_path / "new"), *words])
        assert reason in capsys.readouterr().err


def test_a_disk_that_is_full_leaves_the_older_copy(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    (copy,) = archive([run], tmp_path / "kept")
    before = copy.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dials_mpi.storage.files.os.fsync", full)
    with pytest.raises(BadInput, match=r"No space left on device\): choose another --out"):
        archive([run], tmp_path / "kept")
    assert copy.read_bytes() == before and [p.name for p in copy.parent.iterdir()] == ["run.h5"]
