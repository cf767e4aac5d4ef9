"""Configurations by name, in a checkout and from a wheel in an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import SMALL, launch, train

from dials_mpi.__main__ import COMMANDS
from dials_mpi.config import load
from dials_mpi.config.presets import located, presets
from dials_mpi.core.errors import BadInput
from dials_mpi.storage import shipped
from dials_mpi.study.plan import load_study

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml"))


def test_each_file_is_a_preset_with_the_first_line_of_its_comment():
    found = {preset.name: preset for preset in presets()}
    assert list(found) == [path.with_suffix("").as_posix() for path in FILES]
    for name, preset in found.items():
        text = (ROOT / "configs" / f"{name}.yaml").read_text()
        assert preset.path.read_text() == text
        assert text.startswith(f"# {preset.first}\n") and len(preset.first) > 20, name


@pytest.mark.parametrize(
    "name",
    ["warehouse/fast", "warehouse/fast.yaml", "configs/warehouse/fast.yaml", "./configs/warehouse/fast"],
)
def test_a_name_gives_the_configuration_of_the_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load(name, ["seed=3"]) == load(str(ROOT / "configs/warehouse/fast.yaml"), ["seed=3"])


def test_a_file_of_this_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "warehouse" / "fast"
    file.parent.mkdir()
    file.write_text("seed: 77\n")
    assert load("warehouse/fast").seed == 77


@pytest.mark.parametrize("name", ["warehouse/none", "../pyproject", "warehouse", "", "nul\0", "x" * 5000])
def test_any_other_name_stays_what_it_is_and_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert located(name) == name
    with pytest.raises(BadInput):
        load(name)


def test_a_missing_file_is_refused_with_the_command_that_lists_names(tmp_path):
    done = train("--config", "warehouse/fsat", cwd=tmp_path)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert "dials_mpi.configs" in done.stderr


def test_studies_are_found_by_their_short_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short, whole = (
        load_study(name) for name in ("table-3-small", str(ROOT / "configs/studies/table-3-small.yaml"))
    )
    assert [run.config for run in short.runs] == [run.config for run in whole.runs]
    assert short.name == "table-3-small"


# The command -----------------------------------------------------------------------------------------------


def configs(*arguments: str, cwd: Path):
    return launch("-m", "dials_mpi.configs", *arguments, cwd=cwd)


@pytest.mark.quick
def test_the_command_lists_and_copies(tmp_path):
    listed = configs(cwd=tmp_path)
    assert (listed.code, listed.stderr) == (0, "")
    for preset in presets():
        assert any(line.split()[0] == preset.name for line in listed.stdout.splitlines())
    assert configs("warehouse/fast", cwd=tmp_path).code == 0
    copied = tmp_path / "warehouse-fast.yaml"
    assert copied.read_bytes() == (ROOT / "configs/warehouse/fast.yaml").read_bytes()
    again = configs("warehouse/fast", cwd=tmp_path)
    assert again.code == 2 and "warehouse-fast.yaml exists" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["warehouse/none"], "no configuration 'warehouse/none'"),
        (["--out", "x.yaml"], "--out"),
        (["warehouse/fast", "--out", "no/folder.yaml"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, words):
    done = configs(*arguments, cwd=tmp_path)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr


# The wheel -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The folder into which a wheel is unpacked that is built from a source distribution of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "*.egg-info", "build", "__pycache__")

    def without(place: str, names: list[str]) -> set[str]:
        """What the wheel does not need; dials_mpi/results is a package."""
        return {*ignore(place, names), *(("results", "tests") if Path(place) == ROOT else ())}

    shutil.copytree(ROOT, folder / "tree", ignore=without, symlinks=True)
    made = [sys.executable, "-m", "build", "--outdir", str(folder), "."]  # the wheel, from an sdist
    subprocess.run(made, cwd=folder / "tree", check=True, timeout=300, capture_output=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def from_wheel(wheel: Path, tmp_path: Path, *arguments: str):
    """Run a command of the wheel, alone, in an empty folder."""
    where = {"PYTHONPATH": str(wheel)}
    return launch("-m", "dials_mpi", *arguments, cwd=tmp_path, environment=where, preloaded=False)


def test_a_wheel_in_an_empty_folder_finds_configurations_by_name(wheel, tmp_path):
    assert (wheel / "dials_mpi" / "py.typed").is_file()
    inside = (wheel / "dials_mpi/presets").rglob("*.yaml")
    assert sorted(path.relative_to(wheel / "dials_mpi/presets") for path in inside) == FILES
    listed = from_wheel(wheel, tmp_path, "configs")
    assert (listed.code, listed.stderr) == (0, "")
    assert "city/lille" in listed.stdout
    shown = from_wheel(wheel, tmp_path, "train", "--config", "warehouse/fast", "--print-config")
    assert (shown.code, shown.stderr) == (0, "")
    assert "learning_rate: 0.004" in shown.stdout


def test_a_wheel_has_the_trained_runs_and_their_readme(wheel, tmp_path):
    for name in (*shipped.names(), "trained/README.md"):
        inside = wheel / "dials_mpi" / name / ("" if name.endswith(".md") else "run.h5")
        assert inside.read_bytes() == (ROOT / inside.relative_to(wheel)).read_bytes()
    listed = from_wheel(wheel, tmp_path, "configs")
    assert all(f"{name} " in listed.stdout for name in shipped.names())
    code = "from dials_mpi.storage.runfile import RunFile; print(RunFile.open('trained/warehouse').directory)"
    opened = launch("-c", code, cwd=tmp_path, environment={"PYTHONPATH": str(wheel)})
    assert (opened.code, opened.stdout) == (0, f"{wheel / 'dials_mpi' / 'trained' / 'warehouse'}\n")


@pytest.mark.slow  # the wheel's inner loops are compiled
def test_all_commands_of_a_wheel_help_train_and_draw(wheel, tmp_path):
    for name in COMMANDS:
        helped = from_wheel(wheel, tmp_path, name, "--help")
        assert (helped.code, helped.stderr) == (0, ""), name
    assert from_wheel(wheel, tmp_path, "evaluate", "trained/warehouse", "--episodes", "1").code == 0
    assert from_wheel(wheel, tmp_path, "train", *SMALL, "--output", "run").code == 0
    drawn = from_wheel(wheel, tmp_path, "report", "run", "--out", "figures")
    assert drawn.code == 0 and list((tmp_path / "figures").glob("*.png"))
