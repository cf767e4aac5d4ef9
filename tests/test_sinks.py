"""Sinks: what they write, that it is written once, that a failing one is switched off, that results stay."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, content, launch, train

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput, StopAtOnce
from dials_mpi.run.sinks import SegmentEnd, Session, Sink, Sinks
from dials_mpi.run.sinks.console import ConsoleSink
from dials_mpi.run.sinks.csv import CsvSink
from dials_mpi.run.sinks.registry import find

ROOT = Path(__file__).parents[1]
FOUR_SEGMENTS = (*SMALL, "total_steps=512")
SINKS = "sinks=[csv,tensorboard]"

STOPPER = """
from dials_mpi.run.sinks import Sink

class Stopper(Sink):
    def on_segment_end(self, run):
        if run.env_steps == 384:
            run.stop()
"""

PROBE = """
import json
from dials_mpi.run.sinks import Sink

class Probe(Sink):
    def session(self, session):
        self.file = session.directory / "probe.json"
        self.found = []

    def on_segment_end(self, run):
        returns = run.evaluation.returns.tolist()
        policies, writeable = run.policies.tolist(), run.policies.flags.writeable
        self.found.append([run.index, run.env_steps, run.wall_time, returns, policies, writeable])

    def close(self):
        self.file.write_text(json.dumps(self.found))
"""

FAILING = """
from dials_mpi.run.sinks import Sink

class Failing(Sink):
    def training(self, *arguments):
        print("training was called")
        raise RuntimeError("the service\\nis gone")
"""


def path_with(*folders: Path) -> dict[str, str]:
    """An environment in which the modules in some folders are found before all others."""
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])}


def module(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment with a module."""
    (folder / f"{name}.py").write_text(text)
    return path_with(folder)


def results(directory: Path) -> dict[str, str | bytes]:
    """All that must not depend on sinks, of all files of a run."""
    free = ("timing", "memory", "placement", "config", "unrecorded", "evaluation/wall_time", "seconds")
    return {
        f"{file.name}/{name}": repr(value.tolist()) if value.dtype == object else value.tobytes()
        for file in directory.glob("*.h5")
        for name, value in ((name, np.asarray(value)) for name, value in content(file).items())
        if not name.startswith(free)
    }


def table(directory: Path, name: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(directory / "csv" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """What an unbroken run and a resumed one have in common."""
    return [{key: value for key, value in row.items() if key != "wall_time"} for row in rows]


def events(directory: Path):
    """What TensorBoard's own reader finds."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(directory / "tensorboard"), {"scalars": 0, "histograms": 0})
    return found.Reload()


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of all scalars that are no times."""
    found = events(directory)
    tags = [tag for tag in found.Tags()["scalars"] if not tag.startswith("timing/")]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


def evaluation(value: float = 1.0) -> Evaluation:
    """Of two episodes and three agents in two regions."""
    return Evaluation(np.full((2, 3), value), {"delay": np.array([1.0, np.nan])}, np.array([0.5, 0.25]))


def session(directory: Path, **more: object) -> Session:
    """Of three agents, two of them in region 0."""
    return Session(directory, load(None), region_of=[0, 0, 1], **more)


@pytest.fixture
def recorded(trained):
    """A finished run with both files."""
    pytest.importorskip("tensorboard")
    return trained(*SMALL, SINKS, ranks=3)


# What is written -----------------------------------------------------------------------------------------


def test_results_do_not_depend_on_sinks(trained, recorded):
    assert results(recorded) == results(trained(*SMALL, ranks=3))
    assert (recorded / "csv").is_dir() and (recorded / "tensorboard").is_dir()


def test_csv_files_hold_what_the_run_file_holds(recorded):
    run = content(recorded / "run.h5")
    rows = table(recorded, "evaluation")
    assert [(int(row["env_steps"]), int(row["agent"])) for row in rows] == [
        (steps, agent) for steps in (0, 128, 256) for agent in range(4)
    ]
    returns = run["evaluation/returns"]
    assert [float(row["return"]) for row in rows] == returns.mean(axis=1).ravel().tolist()
    errors = returns.std(axis=1, ddof=1) / math.sqrt(3)
    assert [float(row["return_standard_error"]) for row in rows] == errors.ravel().tolist()
    assert [float(row["cross_entropy"]) for row in rows] == run["evaluation/cross_entropy"].ravel().tolist()
    training = table(recorded, "training")
    for name in ("policy_loss", "entropy", "clip_fraction"):
        assert [float(row[name]) for row in training] == run[f"training/{name}"].ravel().tolist()
    influence = table(recorded, "influence")
    for name in ("before", "after", "constant"):
        column = f"cross_entropy_{name}"
        assert [float(row[column]) for row in influence] == run[f"influence/{column}"].ravel().tolist()
    timing = table(recorded, "timing")
    assert [int(row["rank"]) for row in timing] == [0, 1, 2] * 3
    assert [float(row["train_wall_seconds"]) for row in timing] == run["timing/train"][
        ..., 0
    ].ravel().tolist()
    assert [int(row["peak_rss_bytes"]) for row in timing[-3:]] == run["memory/peak_rss"].tolist()


def test_tensorboard_reads_scalars_and_histograms(recorded):
    run, found = content(recorded / "run.h5"), scalars(recorded)
    steps = [step for step, _ in found["evaluation/return"]]
    assert steps == run["evaluation/env_steps"].tolist() == [0, 128, 256]
    for tag, name in (("evaluation/return", "evaluation/returns"), ("training/entropy", "training/entropy")):
        means = run[name].reshape(len(run[name]), -1).mean(axis=1)
        np.testing.assert_allclose([value for _, value in found[tag]], means, rtol=1e-6)
    speeds = events(recorded).Scalars("timing/agent_steps_per_second")
    assert [event.step for event in speeds] == [128, 256] and all(event.value > 0 for event in speeds)
    last = events(recorded).Histograms("training/entropy_distribution")[-1].histogram_value
    entropies = run["training/entropy"][-1]
    assert (last.num, last.min, last.max) == (4, entropies.min(), entropies.max())
    assert sum(last.bucket) == 4 and last.bucket_limit[0] == entropies.min()
    assert last.sum == pytest.approx(entropies.sum())


def test_tensorboard_reads_hyperparameters_and_the_configuration(recorded):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = events(recorded)
    plugin = found.summary_metadata["_hparams_/session_start_info"].plugin_data
    values = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert plugin.plugin_name == "hparams"
    assert values["ppo.clip"].number_value == 0.1 and values["domain"].string_value == "warehouse"
    assert values["influence.hidden"].string_value == "[8, 8]" and values["ppo.anneal"].bool_value is True
    (text,) = found.Tensors("configuration")
    (yaml,) = text.tensor_proto.string_val
    assert found.summary_metadata["configuration"].plugin_data.plugin_name == "text"
    assert b"    influence:\n" in yaml and b"      epochs: 3\n" in yaml


# Written once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_nothing_is_written_twice_on_resume(trained, tmp_path, schedule):
    """Stopped at 384 steps, resumed from 256: the fit at 256, or the evaluation there, comes again."""
    pytest.importorskip("tensorboard")
    settings = (*FOUR_SEGMENTS, f"schedule={schedule}", "ppo.anneal=false", "checkpoint_keep=9")
    environment, output = module(tmp_path, "stopper", STOPPER), tmp_path / "out"
    first = train(
        *settings, "sinks=[csv,tensorboard,stopper:Stopper]", "--output", str(output), environment=environment
    )
    assert (first.code, first.stderr) == (75, "")
    (output / "checkpoint-384.h5").unlink()
    at_256 = [row for row in table(output, "influence") if row["env_steps"] == "256"]
    assert len(at_256) == 4
    with open(output / "csv" / "training.csv", "a") as file:
        file.write("384,1.0,")  # as a process leaves it that is killed while it writes
    second = train(*settings, SINKS, "--output", str(output), "--resume")
    assert (second.code, second.stderr) == (0, "")
    whole = trained(*settings, SINKS)
    for name in ("evaluation", "training", "influence"):
        assert without_times(table(output, name)) == without_times(table(whole, name)), name
    keys = [(row["env_steps"], row["rank"]) for row in table(output, "timing")]
    assert keys == [(row["env_steps"], row["rank"]) for row in table(whole, "timing")]
    assert len(list((output / "tensorboard").iterdir())) == 2
    assert scalars(output) == scalars(whole)
    for tag in events(whole).Tags()["histograms"] + ["timing/train_seconds"]:
        kind = "Scalars" if tag.startswith("timing/") else "Histograms"
        steps = [[event.step for event in getattr(events(run), kind)(tag)] for run in (output, whole)]
        assert steps[0] == steps[1], tag


def test_a_run_that_starts_again_drops_all_rows(tmp_path):
    """Without a checkpoint: what is in the files was recorded by a session that left nothing else."""
    for value in (1.0, 2.0):
        sink = CsvSink()
        sink.session(session(tmp_path, continued=value > 1))
        sink.evaluation(0, 0.5, evaluation(value))
        sink.flush()
    assert [row["return"] for row in table(tmp_path, "evaluation")] == ["2.0"] * 3


def test_csv_rows_that_were_written_in_part_are_replaced(tmp_path):
    """Rows at the checkpoint's own steps, of which a killed process has written the first."""
    for rows in (1, 3):
        sink = CsvSink()
        sink.session(session(tmp_path, env_steps=128, continued=True))
        sink.fit(128, 1.0, ["before"], np.ones((rows, 1)))
        sink.flush()
    assert [row["region"] for row in table(tmp_path, "influence")] == ["0", "1", "2"]


def test_csv_rows_name_the_region_and_the_statistics(tmp_path):
    sink = CsvSink()
    sink.session(session(tmp_path))
    sink.evaluation(0, 0.1239, evaluation())
    assert not (tmp_path / "csv" / "evaluation.csv").exists()  # whole segments only
    sink.flush()
    assert (tmp_path / "csv" / "evaluation.csv").read_text() == (
        "env_steps,wall_time,agent,region,return,return_standard_error,cross_entropy,delay\n"
        "0,0.124,0,0,1.0,0.0,0.5,1.0\n0,0.124,1,0,1.0,0.0,0.5,1.0\n0,0.124,2,1,1.0,0.0,0.25,1.0\n"
    )


def test_csv_files_of_other_columns_are_left_alone(tmp_path):
    sink = CsvSink()
    sink.session(session(tmp_path))
    sink.training(128, 1.0, ["entropy"], np.ones((3, 1)))
    sink.flush()
    before = (tmp_path / "csv" / "training.csv").read_bytes()
    later = CsvSink()
    later.session(session(tmp_path, env_steps=128, continued=True))
    with pytest.raises(ValueError, match="has other columns"):
        later.training(256, 2.0, ["entropy", "approx_kl"], np.ones((3, 2)))
    later.flush()
    assert (tmp_path / "csv" / "training.csv").read_bytes() == before


# Failures ------------------------------------------------------------------------------------------------


def test_a_sink_that_fails_warns_once_and_is_off(tmp_path):
    environment = module(tmp_path, "failing", FAILING)
    result = train(
        *SMALL, "sinks=[failing:Failing,csv]", "--output", str(tmp_path / "out"), environment=environment
    )
    assert result.code == 0
    assert result.stderr == (
        "dials_mpi: rank 0: the sink failing:Failing failed in training (RuntimeError: the service is gone): "
        "the run continues without it\n"
    )
    assert result.stdout.count("training was called") == 1
    assert "the sink failing:Failing failed" in (tmp_path / "out" / "log.txt").read_text()
    assert len(table(tmp_path / "out", "training")) == 8


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "csv").write_text("a file")
    result = train(*SMALL, "sinks=[csv]", "--output", str(tmp_path / "out"))
    assert result.code == 0
    assert result.stderr.count("\n") == 1 and "the sink csv failed in session (FileExists" in result.stderr


class Broken(Sink):
    """Raises what it is told to."""

    def __init__(self, error: BaseException, cause: BaseException | None = None) -> None:
        self.error, self.cause, self.calls = error, cause, 0

    def flush(self) -> None:
        """Fail."""
        self.calls += 1
        raise self.error from self.cause


def test_a_signal_passes_through_a_sink(capsys):
    sinks = [Broken(StopAtOnce("SIGTERM")), Broken(RuntimeError("closed"), StopAtOnce("SIGTERM"))]
    for sink in sinks:
        with pytest.raises(StopAtOnce, match="SIGTERM"):
            Sinks(None, [sink]).flush()
    assert capsys.readouterr().err == ""


def test_an_error_of_the_run_file_ends_the_run():
    with pytest.raises(OSError, match="full"):
        Sinks(Broken(OSError("full"))).flush()


def test_other_ranks_have_no_run_file():
    sinks = Sinks()
    sinks.flush()
    with pytest.raises(LookupError, match="only root"):
        _ = sinks.run_file


class Changing(Sink):
    """Tries to change what it is given."""

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Set the returns to zero."""
        evaluation.returns[:] = 0


def test_a_sink_cannot_change_what_the_run_uses(capsys):
    result, sinks = evaluation(), Sinks(None, [Changing()])
    sinks.evaluation(0, 0.0, result)
    assert (result.returns == 1).all() and "read-only" in capsys.readouterr().err


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        ("[cvs]", ["sinks has 'cvs'", "csv, tensorboard", "module:Class"]),
        ("[csv,csv]", ["sinks has 'csv' twice"]),
        ("csv", ["sinks is 'csv'", "must be a list"]),
        ("[nowhere:Sink]", ["a sink is 'nowhere:Sink'", "No module named", "PYTHONPATH"]),
        ("[json:Nothing]", ["a sink is 'json:Nothing'", "json has no class Nothing"]),
        ("[json:JSONDecoder]", ["a sink is 'json:JSONDecoder'", "not derived from dials_mpi.run.sinks.Sink"]),
        ("[tensorboard]", ["sinks has 'tensorboard'", "pip install 'dials_mpi[tensorboard]'"]),
    ],
)
def test_what_cannot_be_a_sink_is_refused_at_the_start(tmp_path, sinks, words):
    (tmp_path / "modules").mkdir()
    environment = module(tmp_path / "modules", "tensorboard", "raise ImportError('not here')")
    output = tmp_path / "out"
    result = train(*SMALL, f"sinks={sinks}", "--output", str(output), ranks=2, environment=environment)
    assert (result.code, result.stdout, len(result.ours())) == (2, "", 1)
    assert all(word in result.ours()[0] for word in words), result.ours()
    assert not output.exists()


def test_no_sinks_need_no_package():
    assert find([]) == [] and find(["csv"]) == [CsvSink]
    with pytest.raises(BadInput, match="twice"):
        find(["csv", "csv"])


# Callbacks -----------------------------------------------------------------------------------------------


def test_a_callback_sees_the_run_at_the_end_of_each_segment(tmp_path):
    environment, output = module(tmp_path, "probe", PROBE), tmp_path / "out"
    result = train(*SMALL, "sinks=[probe:Probe]", "--output", str(output), ranks=3, environment=environment)
    assert (result.code, result.stderr) == (0, "")
    run, found = content(output / "run.h5"), json.loads((output / "probe.json").read_text())
    assert [row[:2] for row in found] == [[0, 128], [1, 256]]
    assert 0 < found[0][2] < found[1][2]
    assert [row[3] for row in found] == run["evaluation/returns"][1:].tolist()
    assert found[0][4] == content(output / "checkpoint-128.h5")["policy/parameters"].tolist()
    assert found[1][4] == run["policy/parameters"].tolist()
    assert not any(row[5] for row in found)


def test_a_callback_from_python_stops_all_ranks(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import sys\nfrom functools import partial\nfrom dials_mpi import train\n{STOPPER}\n"
        "train.train = partial(train.train, callbacks=[Stopper()])\n"
        "train.main(sys.argv[1:])\n"
    )
    output = str(tmp_path / "out")
    result = launch(str(driver), *FOUR_SEGMENTS, "--output", output, ranks=3, preloaded=True)
    assert result.code == 75 and result.ours() == []
    assert "stopped at 384 of 512 steps, with a checkpoint" in result.stdout


def test_a_segment_end_is_not_stopped_unless_requested():
    end = SegmentEnd(0, 128, 1.0, evaluation(), np.zeros((3, 2)))
    Sinks(None, [Sink()]).on_segment_end(end)
    assert not end.stop_requested and not end.policies.flags.writeable
    end.stop()
    assert end.stop_requested


def test_root_gathers_all_policies_only_for_a_callback():
    watching = type("Watching", (Sink,), {"on_segment_end": lambda *_: None})
    assert not Sinks(None, [Sink(), Sink()]).needs_policies
    assert Sinks(None, [Sink(), watching()]).needs_policies


# Where they run ------------------------------------------------------------------------------------------


def test_workers_import_no_sink(tmp_path):
    pytest.importorskip("tensorboard")
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\n"
        "from dials_mpi import train\n"
        "from dials_mpi.run.system import System\n"
        "end = System.__exit__\n"
        "def remember(self, *reason):\n"
        "    open(f'modules{self.comm.rank}', 'w').write(' '.join(sys.modules))\n"
        "    end(self, *reason)\n"
        "System.__exit__ = remember\n"
        "train.main(sys.argv[1:])\n"
    )
    result = launch(str(driver), *SMALL, SINKS, "--output", "out", ranks=2, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    root, worker = (set((tmp_path / f"modules{rank}").read_text().split()) for rank in (0, 1))
    assert {"tensorboard", "dials_mpi.run.sinks.csv"} <= root
    own = {name for name in worker if name.startswith("dials_mpi.run.sinks")}
    assert own == {"dials_mpi.run.sinks", "dials_mpi.run.sinks.base"}
    assert not {"tensorboard", "rich", "h5py"} & worker
    assert not {"torch", "tensorflow"} & root


# Examples ------------------------------------------------------------------------------------------------

FAKE_WANDB = """
import json
class _Run:
    def __init__(self, **how):
        self.file = open(how["dir"] + "/wandb.jsonl", "w")
        self.log({"mode": how["mode"], "clip": how["config"]["ppo.clip"]})
    def define_metric(self, *names, **how): pass
    def log(self, values): self.file.write(json.dumps(values) + chr(10))
    def finish(self): self.file.close()
def init(**how): return _Run(**how)
"""
FAKE_MLFLOW = """
import json
lines = []
def set_tracking_uri(uri):
    global file
    file = uri.removeprefix("sqlite:///") + ".jsonl"
def set_experiment(name): pass
def start_run(**how): pass
def log_params(values): lines.append({"clip": values["ppo.clip"]})
def log_metrics(values, step): lines.append({"env_steps": step, **values})
def end_run(): open(file, "w").write(chr(10).join(map(json.dumps, lines)))
"""


def test_the_examples_log_a_run(tmp_path):
    """Against stand-ins for the two packages, which record what they are given."""
    module(tmp_path, "wandb", FAKE_WANDB)
    module(tmp_path, "mlflow", FAKE_MLFLOW)
    sinks = "sinks=[wandb_offline:WandbSink,mlflow_local:MlflowSink]"
    environment = path_with(tmp_path, ROOT / "examples" / "sinks")
    output = tmp_path / "out"
    result = train(*SMALL, sinks, "--output", str(output), environment=environment)
    assert (result.code, result.stderr) == (0, "")
    run = content(output / "run.h5")
    for name in ("wandb.jsonl", "mlflow.db.jsonl"):
        first, *lines = map(json.loads, (output / name).read_text().splitlines())
        assert first["clip"] == 0.1
        returns = {
            line["env_steps"]: line["evaluation/return"] for line in lines if "evaluation/return" in line
        }
        means = run["evaluation/returns"].mean(axis=(1, 2)).tolist()
        assert returns == dict(zip([0, 128, 256], means, strict=True))
        entropies = [line["training/entropy"] for line in lines if "training/entropy" in line]
        assert entropies == pytest.approx(run["training/entropy"].mean(axis=1).tolist())


@pytest.mark.parametrize(("after", "warned"), [(0.3, False), (0.51, False), (0.6, True)])
def test_predictors_worse_than_class_frequencies_are_noted(after, warned):
    shown = []
    console = ConsoleSink()
    console.phase = lambda _, text: shown.append(text)
    console.fit(0, 1.0, ("before", "after", "constant"), np.array([[0.7, after, 0.5], [0.7, after, 0.5]]))
    assert f"after {after:.3f}, constant 0.500" in shown[0]
    assert ("worse than class frequencies" in shown[0]) == warned
