"""A city's exported program: without this package it gives the episodes of evaluate."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from city_common import settings
from conftest import SMALL, launch

from dials_mpi import evaluate
from dials_mpi.domains.base import Agent
from dials_mpi.domains.city.signals import Lights
from dials_mpi.export import traci_program
from dials_mpi.export.__main__ import main
from dials_mpi.learning.kernels.sampling import draw_actions
from dials_mpi.learning.policy import Policy
from dials_mpi.results.run import Run

GRU = settings()
FNN = settings(
    *("policy.architecture=fnn", "city.yellow=2", "city.all_red=1", "city.minimum_green=12"),
    *("city.observe_waiting=true", "city.decision_every=5"),
)

ALONE = """
import runpy, sys
for module in ("dials_mpi", "numba", "torch", "h5py", "mpi4py"):
    sys.modules[module] = None  # to import it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(main, *arguments):
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return leaving.value.code


def alone(file, *arguments, **how):
    """Run a program as someone does who has numpy and SUMO only; the delay and the number of vehicles."""
    result = launch("-c", ALONE, str(file), *map(str, arguments), **how)
    assert result.code == 0, result.stderr
    found = re.search(r"^delay: (\S+) s \((\d+) vehicles\)$", result.stdout, re.MULTILINE)
    return float(found[1]), int(found[2])


def trips(file):
    return sorted(str(sorted(trip.attrib.items())) for trip in ElementTree.parse(file).getroot())


@pytest.mark.parametrize(("settings", "backend"), [(GRU, "libsumo"), (FNN, "traci")], ids=["gru", "fnn"])
def test_the_program_gives_the_episodes_of_evaluate(trained, tmp_path, settings, backend):
    """Vehicle by vehicle; the second one too."""
    run, file = trained(*settings), tmp_path / "lights.py"
    assert command(main, run, "--traci", file) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lights.npz", "lights.py"]
    files, figures = tmp_path / "files", tmp_path / "one.json"
    assert command(evaluate.main, run, "--episodes", 2, "--tripinfo", files, "--json", figures) == 0
    delays = []
    for k in range(2):
        kept = tmp_path / f"{k}.xml"
        delays.append(alone(file, "--episode", k, "--tripinfo", kept, "--backend", backend)[0])
        assert trips(kept) == trips(files / "trained" / f"episode-{k}" / "tripinfo.xml")
    assert delays[0] != delays[1]
    assert np.mean(delays) == pytest.approx(json.loads(figures.read_text())["delay"], abs=1e-3)


def test_its_options(trained, tmp_path):
    """From another folder; other numbers, the most probable actions, other files, options of SUMO."""
    file, elsewhere = tmp_path / "lights.py", tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert command(main, trained(*GRU), "--traci", file, "--checkpoint", "newest") == 0
    first = alone(file, "--seed", 5, "--greedy", cwd=elsewhere)
    assert first[1] == 67
    assert alone(file, "--seed", 6, cwd=elsewhere)[0] != first[0]
    assert alone(file, "--seed", 5, "--greedy", "--scale", "0.5", cwd=elsewhere)[1] < 50
    missing = launch("-c", ALONE, str(file), "--routes", "nowhere.rou.xml", cwd=elsewhere)
    assert missing.code == 1 and missing.stderr.startswith("nowhere.rou.xml does not exist: give")
    assert list(elsewhere.iterdir()) == []


def test_it_opens_sumos_window_with_gui(trained, tmp_path, monkeypatch):
    """Which no screen is needed for here: traci gets the command."""
    commands = []
    traci = ModuleType("traci")
    traci.start = commands.append
    monkeypatch.setitem(sys.modules, "traci", traci)
    assert command(main, trained(*GRU), "--traci", tmp_path / "lights.py") == 0
    spec = importlib.util.spec_from_file_location("lights", tmp_path / "lights.py")
    lights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lights)
    chosen, further = lights.options(["--gui", "--delay", "100"])
    description, networks = lights.load()
    assert len(networks) == 4 and further == ["--delay", "100"]
    options = lights.command_of(description["control"], chosen, 1, "x.xml")
    assert lights.start([*options, *further], chosen.backend, chosen.gui) is traci
    assert commands[0][0].endswith("sumo-gui")
    assert {"--start", "--quit-on-end", "--delay"} < set(commands[0])


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_its_networks_are_ours(architecture):
    rng = np.random.default_rng(0)
    policy = Policy(SimpleNamespace(architecture=architecture, hidden=(16, 8)), Agent(11, 3))
    policy.network.initialise(rng)
    policy.network.vector *= 3
    network = traci_program.Network(policy.network.parameters)
    state = policy.network.initial_state(1)
    for observation in rng.random((50, 11), np.float32):
        outputs, state = policy.network.advance(observation[None], state)
        logits = network.logits(observation)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, outputs[0, :-1], rtol=1e-4, atol=1e-5)


@pytest.mark.quick
def test_it_draws_as_we_do():
    rng = np.random.default_rng(1)
    outputs, uniforms = rng.normal(0, 2, (500, 5)).astype(np.float32), rng.random(500, np.float32)
    uniforms[:2] = 0, 1 - 2**-24
    drawn = [traci_program.draw(row[:4], float(u)) for row, u in zip(outputs, uniforms, strict=True)]
    assert drawn == draw_actions(outputs, uniforms)[0].tolist()
    assert set(drawn) == {0, 1, 2, 3}


@pytest.mark.quick
@pytest.mark.parametrize(("yellow", "all_red", "minimum"), [(3, 0, 0), (2, 1, 9), (0, 2, 3), (0, 0, 1)])
def test_it_switches_as_we_do(yellow, all_red, minimum):
    greens = ["GGrr", "rGGr", "rrgG"]
    lights = Lights([greens], yellow, all_red, minimum)
    control = {"yellow": yellow, "all_red": all_red, "minimum_green": minimum}
    signal = traci_program.Signal(control, {"name": "x", "greens": greens, "approaches": [], "lengths": []})
    rng = np.random.default_rng(2)
    for t in range(300):
        if t % 4 == 0:
            action = rng.integers(3, size=1)
            assert signal._free() == lights.free[0] and signal.green == lights.green[0]
            lights.request(action)
            signal.request(int(action[0]))
        assert signal.second() == (lights.second() == [0])
        assert signal.state == lights.states[0]


def test_what_is_refused(trained, tmp_path, capsys):
    run, warehouse = trained(*GRU), trained(*SMALL)
    for arguments, words in (
        ((warehouse, "--traci", tmp_path / "x.py"), "no such program for the domain warehouse"),
        ((run, "--traci", tmp_path / "x.txt"), "ends with .py"),
        ((run, "--traci", tmp_path / "traci.py"), "the name of a Python module"),
        ((run, "--traci", tmp_path / "nowhere/x.py"), "choose another --traci"),
        ((run, "--traci", tmp_path / "x.py", "--out", tmp_path / "y.npz"), "--out is given beside --traci"),
        ((run, "--traci", tmp_path / "x.py", "--all"), "not allowed with"),
        ((run, "--all"), "--out is not given"),
    ):
        capsys.readouterr()
        assert command(main, *arguments) == 2
        stderr = capsys.readouterr().err
        assert words in stderr and stderr.count("\n") == 1, stderr
    assert list(tmp_path.iterdir()) == []


def test_the_run_is_as_it_was(trained):
    """What the program repeats: the keys of evaluate's random streams, and the scenario by absolute paths."""
    control = Run.open(trained(*FNN)).domain.control()
    assert control["network"].startswith("/") and (control["begin"], control["end"]) == (100, 200)
    assert (control["yellow"], control["all_red"], control["decision_every"]) == (2, 1, 5)
