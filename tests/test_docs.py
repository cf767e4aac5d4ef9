"""The pages: every command in them runs, on little; the configuration page is that of the dataclasses."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import h5py
import pytest
from conftest import SMALL, launch

from dials_mpi.config import Config, load
from dials_mpi.domains import create
from dials_mpi.study.plan import load_study
from dials_mpi.train import _require_place

ROOT = Path(__file__).parents[1]
PLACES = ("configs/", "examples/")
ELSEWHERE = ("train", "study", "bench")
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Command(NamedTuple):
    """A line of a page: the ranks that it starts (0: no mpirun), a program of ours, and its arguments."""

    page: str
    line: str
    ranks: int
    program: str
    arguments: list[str]


def lines_of(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    lines = [re.sub(r"(^|\s+)#.*$", "", line).strip() for block in blocks for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def parsed(page: Path, line: str) -> Command | None:
    """None: it starts none of our programs."""
    words = [word.removeprefix(".venv/bin/") for word in shlex.split(line)]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words[0] in ("jobs/laptop.sh", "sbatch"):  # which start the training
        words = [word for word in words if not word.startswith("--array")]
        script = next(word for word in words if word.startswith("jobs/"))
        assert (ROOT / script).is_file(), line
        rest = words[words.index(script) + 1 :]
        rest = rest[1:] if script.endswith("seeds.sbatch") else rest
        program = "study" if script.endswith("study.sbatch") else "train"
        return Command(page.name, line, 0, program, rest)
    ranks = int(words[2]) if words[:2] == ["mpirun", "-n"] else 0
    words = words[3:] if ranks else words
    if words[:2] != ["python", "-m"] or not words[2].startswith("dials_mpi."):
        return None
    return Command(page.name, line, ranks, words[2].removeprefix("dials_mpi."), words[3:])


COMMANDS = {
    f"{page.name}: {line}": command
    for page in PAGES
    for line in lines_of(page)
    if "$" not in line and (command := parsed(page, line))
}
OTHERS = [line for page in PAGES for line in lines_of(page) if "$" in line or not parsed(page, line)]


def test_the_pages_have_commands():
    """The walk sees something, and every program is shown."""
    assert len(COMMANDS) > 50
    assert {c.program for c in COMMANDS.values()} >= {
        "train",
        "evaluate",
        "report",
        "watch",
        "study",
        "bench",
    }


@pytest.fixture
def run(trained):
    """The directory of a finished run of four robots."""
    return trained(*SMALL)


def with_files(command: Command, run: Path, tmp_path: Path) -> list[str]:
    """The arguments, with a run that there is, files that may be written, and little to do."""
    words, known = [], False
    for before, word in zip(["", *command.arguments], command.arguments, strict=False):
        if before in ("--out", "--output"):
            word = str(tmp_path / Path(word).name)
        elif word in ("[DIR", "...]", "DIR") or word.startswith("runs/"):
            if known:  # the same one again would be refused
                continue
            word, known = str(run), True
        elif word.startswith("configs/") or word.startswith("examples/"):
            word = str(ROOT / word)
        elif before in ("--episodes", "--steps") and command.program != "report":
            word = "2"
        words.append("traffic.gui=false" if word == "traffic.gui=true" else word)
    return words


def find_modules(command: Command, monkeypatch) -> None:
    """Those in the folders that the line puts into PYTHONPATH."""
    for folder in re.findall(r"PYTHONPATH=(\S+)", command.line):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def little(config: Config) -> list[str]:
    """Settings with which a run takes a second: one update, one fit, one evaluation."""
    update = config.ppo.memory_size
    steps = [f"{key}={update}" for key in ("total_steps", "evaluate_every", "retrain_every")]
    return [
        *steps,
        f"{config.domain_key}.horizon=20",
        "dataset_size=40",
        "evaluation_episodes=1",
        "influence.epochs=1",
    ]


def configured(command: Command) -> Config:
    """The configuration of a training, or of a study's first system."""
    words = command.arguments
    if command.program == "study":
        return load_study(str(ROOT / words[0]), None).runs[0].config
    file = str(ROOT / words[words.index("--config") + 1]) if "--config" in words else None
    return load(file, [word for word in words if "=" in word])


MORE = {
    "evaluate": ["--episodes", "1"],
    "watch": ["--steps", "2"],
    "fidelity": ["--episodes", "1", "traffic.horizon=30", "dataset_size=300"],
}
"""What is added to a program's arguments, so that it does little; of what is given twice the last counts."""


TRAININGS = [
    pytest.param(name, marks=pytest.mark.slow if "warehouse.grid=[32,32]" in command.arguments else ())
    for name, command in COMMANDS.items()
    if command.program == "train"
]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_runs(name, tmp_path, monkeypatch):
    """In one process; that so many ranks can share it is tested below."""
    command = COMMANDS[name]
    find_modules(command, monkeypatch)
    words = [str(ROOT / word) if word.startswith(PLACES) else word for word in command.arguments]
    folders = os.pathsep.join(str(ROOT / path) for path in re.findall(r"PYTHONPATH=(\S+)", command.line))
    where = {"PYTHONPATH": os.pathsep.join(filter(None, [folders, os.environ.get("PYTHONPATH")]))}
    program = ("-m", "dials_mpi.train", *words, *little(configured(command)))
    done = launch(*program, cwd=tmp_path, environment=where)
    assert (done.code, done.stderr) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    with h5py.File(run / "run.h5") as file:
        assert file.attrs["finished"] and len(file["evaluation/env_steps"]) == 2


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.program == "study"])
def test_a_study_runs(name, tmp_path):
    """Its first run; of one that compares values of F, which would all be the same here, the list."""
    command = COMMANDS[name]
    words = [str(ROOT / word) if word.startswith(PLACES) else word for word in command.arguments]
    few = little(configured(command))
    set_here = {word.partition("=")[0] for word in few}
    words = [word for word in words if word.partition("=")[0] not in set_here]  # given twice is refused
    more = ["--only", "1", "--ranks", "1", "--output", "out", *few]
    if "/figure-4" in words[0]:
        words, more = [*words, "--list"], ["--output", "out"]
    done = launch("-m", "dials_mpi.study", *words, *more, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    if "--list" not in words:
        assert "end: 1 finished" in done.stdout
    if "--report" in words:
        assert (tmp_path / words[words.index("--report") + 1] / "tables.md").exists()


def of_results(command: Command) -> bool:
    """Whether it is about archived runs: those are in test_results.py."""
    return any(word.startswith("results/") for word in command.arguments)


PLAYED = [n for n, c in COMMANDS.items() if c.program not in ELSEWHERE and not of_results(c)]


@pytest.mark.parametrize("name", PLAYED)
def test_a_command_runs(name, run, tmp_path, capsys, monkeypatch):
    command = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    words = with_files(command, run, tmp_path)
    if command.program == "watch" and "--influence" in words:
        words += ["--episodes", "2"]
    if command.program in ("evaluate", "watch") and any("traffic" in word for word in words):
        words += ["traffic.horizon=10", "dataset_size=100"]
    find_modules(command, monkeypatch)
    main = importlib.import_module(f"dials_mpi.{command.program}")
    if not hasattr(main, "main"):
        main = importlib.import_module(f"dials_mpi.{command.program}.__main__")
    with pytest.raises(SystemExit) as end:
        main.main([*words, *MORE.get(command.program, [])])
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.program == "bench"])
def test_a_measurement_has_the_options_that_are_named(name, capsys):
    """How they measure is tested elsewhere: each takes a minute."""
    arguments = COMMANDS[name].arguments
    main = importlib.import_module("dials_mpi.bench.__main__").main
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in arguments if word.startswith("--"))
    if "--config" in arguments:
        load(str(ROOT / arguments[arguments.index("--config") + 1]))


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.ranks and c.program == "train"])
def test_so_many_ranks_can_share_the_work(name, monkeypatch):
    command = COMMANDS[name]
    find_modules(command, monkeypatch)
    words = command.arguments
    file = str(ROOT / words[words.index("--config") + 1]) if "--config" in words else None
    config = load(file, [word for word in words if "=" in word])
    regions = create(config.domain, config.domain_section).regions
    _require_place(command.ranks, len(regions), config.global_ranks)


def test_the_other_commands_install_what_there_is():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    known = re.compile(
        r"python3\.11 -m venv \.venv|\. \.venv/bin/activate|study=\S+|.*\$study.*|"
        r"\.venv/bin/python -m pytest -n 2 --dist loadfile|"
        r"(\.venv/bin/)?pip install -e ('\.\[(?P<extras>[a-z,]+)\]'|examples/\w+)"
    )
    for line in OTHERS:
        found = known.fullmatch(line)
        assert found, line
        assert set((found["extras"] or "mpich").split(",")) <= set(extras), line
        for file in re.findall(r"(?:jobs|configs|examples)/[\w./-]+", line):
            assert (ROOT / file).exists(), line


def test_the_page_of_the_configuration_is_that_of_the_dataclasses():
    script = ROOT / "docs" / "make_configuration.py"
    spec = importlib.util.spec_from_file_location("make_configuration", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_configuration"] = module
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), f"run python {script.relative_to(ROOT)}"


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "domain" / "index.html").is_file()


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_menu():
    menu = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert menu == {page.name for page in PAGES if page.parent.name == "docs"}
