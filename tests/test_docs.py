"""The pages: every command in them runs with small settings, and every file and module they name exists."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import h5py
import pytest
import yaml
from conftest import SMALL, launch
from test_city_runs import QUICK, city  # noqa: F401  (a fixture)

import dials_mpi
from dials_mpi.config import Config, load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import NETWORKS
from dials_mpi.domains import create
from dials_mpi.learning import learner
from dials_mpi.parallel.layout import require_usable
from dials_mpi.run.sharing import require_simulators
from dials_mpi.study.plan import load_study
from dials_mpi.study.sweep_plan import load_sweep

ROOT = Path(__file__).parents[1]
PLACES = ("configs/", "examples/")
ELSEWHERE = ("train", "study", "bench")
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", *DOCS]


class Command(NamedTuple):
    """A line of a page: the ranks that it starts (0: no mpirun), a program of this package, its arguments."""

    page: str
    line: str
    ranks: int
    program: str
    arguments: list[str]

    def work(self) -> tuple[str, ...]:
        """The program and its arguments without the output: equal for commands that do the same."""
        kept = [word for before, word in pairwise(["", *self.arguments]) if "--output" not in (before, word)]
        return self.program, *kept


def lines_of(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    lines = [re.sub(r"(^|\s+)#.*$", "", line).strip() for block in blocks for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def parsed(page: Path, line: str) -> Command | None:
    """None: it starts no program of this package."""
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


def of_program(*programs: str) -> list[str]:
    """The names of these programs' commands, one of each kind of work."""
    works = {command.work(): name for name, command in COMMANDS.items() if command.program in programs}
    return list(works.values())


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


@pytest.fixture
def city_run(city, trained):  # noqa: F811
    """The directory of a finished run on a small city."""
    return trained(*QUICK, *city)


def with_files(command: Command, run: Path, tmp_path: Path) -> list[str]:
    """The arguments, with a run that there is, files that may be written, and little to do."""
    words, known = [], False
    for before, word in zip(["", *command.arguments], command.arguments, strict=False):
        if before in ("--out", "--output", "--picture", "--tripinfo", "--traci", "--html", "--marl-eval"):
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


def folders_of(command: Command) -> list[str]:
    """Those that the line puts into PYTHONPATH."""
    return [
        str(ROOT / folder)
        for folders in re.findall(r"PYTHONPATH=(\S+)", command.line)
        for folder in folders.split(":")
    ]


def find_modules(command: Command, monkeypatch) -> None:
    """Those in the folders that the line puts into PYTHONPATH."""
    for folder in folders_of(command):
        monkeypatch.syspath_prepend(folder)


def little(config: Config) -> list[str]:
    """Settings with which a run takes a second: one update, one fit, one evaluation."""
    of_city = config.domain_key == "city"  # whose decisions take ten seconds
    smaller = ["ppo.memory_size=48", "ppo.minibatch_size=24", "ppo.rollout_steps=12"] if of_city else []
    update = 48 if of_city else config.ppo.memory_size
    steps = [f"{key}={update}" for key in ("total_steps", "evaluate_every", "retrain_every")]
    return [
        *(*smaller, *steps),
        *(["city.sumo=traci"] if of_city and config.shared else []),  # one process has all regions
        f"{config.domain_key}.horizon=20",
        "dataset_size=40",
        "evaluation_episodes=1",
        "influence.epochs=1",
    ]


def configured(command: Command) -> Config:
    """The configuration of a training, or of a study's first system."""
    words = command.arguments
    if command.program == "study" and "--sampler" in words:
        return load_sweep(str(ROOT / words[0])).base
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


def more(command: Command) -> list[str]:
    """What is added to a command, so that it does little."""
    if command.program == "fidelity" and command.page == "city.md":
        return ["--episodes", "1", "city.horizon=60", "dataset_size=120"]
    return MORE.get(command.program, [])


def system(name: str) -> str:
    """What a training trains, whatever its length: the digest of its configuration, or how it is written."""
    words = COMMANDS[name].arguments
    file = str(ROOT / words[words.index("--config") + 1]) if "--config" in words else None
    chosen = [word for word in words if "=" in word and not word.startswith("total_steps=")]
    try:
        return load(file, chosen).digest()
    except BadInput:  # a domain that is found through PYTHONPATH
        return f"{file} {chosen}"


SLOW = {"warehouse.grid=[32,32]", "policy.share=all", "examples/river/river.yaml", "configs/traffic/100.yaml"}


BY_DEFAULT = ("README.md", "domain.md", "trainers.md")
"""Pages whose trainings run by default."""


def trainings() -> Iterator[object]:
    """All of them. Not slow is the first of each system on the pages BY_DEFAULT, except
    1,024 robots, 100 junctions, shared policies, which test_sharing.py trains, and the river, which
    test_example_domains.py does. The configurations of all others are checked below."""
    seen: set[str] = set()
    for name in of_program("train"):
        slow = system(name) in seen or SLOW & {*COMMANDS[name].arguments}
        slow = slow or COMMANDS[name].page not in BY_DEFAULT
        seen.add(system(name))
        yield pytest.param(name, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("name", list(trainings()))
def test_a_training_runs(name, tmp_path, monkeypatch):
    """In one process; that so many ranks can share it is tested below."""
    command = COMMANDS[name]
    find_modules(command, monkeypatch)
    if configured(command).learner.startswith("sb3"):
        pytest.importorskip("stable_baselines3")
    words = [str(ROOT / word) if word.startswith(PLACES) else word for word in command.arguments]
    folders = os.pathsep.join(folders_of(command))
    path = os.pathsep.join(filter(None, [folders, os.environ.get("PYTHONPATH")]))
    where = {"PYTHONPATH": path} if folders else None
    program = ("-m", "dials_mpi.train", *words, *little(configured(command)))
    done = launch(*program, cwd=tmp_path, environment=where)
    assert (done.code, done.stderr) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    with h5py.File(run / "run.h5") as file:
        assert file.attrs["finished"] and len(file["evaluation/env_steps"]) == 2


def studies() -> Iterator[object]:
    """All of them. Slow are those that do the same with a file as one before, but for numbers."""
    seen: set[tuple[str, ...]] = set()
    for name in of_program("study"):
        file, *words = COMMANDS[name].arguments
        kind = (file, *(word for word in words if word in ("--sampler", "--report", "--list")))
        yield pytest.param(name, marks=pytest.mark.slow if kind in seen else ())
        seen.add(kind)


@pytest.mark.parametrize("name", list(studies()))
def test_a_study_runs(name, tmp_path):
    """Its first run; of one that compares values of F, which would all be the same here, and of a sweep, the
    list."""
    command = COMMANDS[name]
    words = [str(ROOT / word) if word.startswith(PLACES) else word for word in command.arguments]
    few = little(configured(command))
    set_here = {word.partition("=")[0] for word in few}
    words = [word for word in words if word.partition("=")[0] not in set_here]  # given twice is refused
    more = ["--only", "1", "--ranks", "1", "--output", "out", *few]
    if "/figure-4" in words[0] or "--sampler" in words:
        words, more = [*{**dict.fromkeys(words), "--list": None}], ["--output", "out"]
    done = launch("-m", "dials_mpi.study", *words, *more, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    if "--list" not in words:
        assert "end: 1 finished" in done.stdout
    if "--report" in words:
        assert (tmp_path / words[words.index("--report") + 1] / "tables.md").exists()


def of_results(command: Command) -> bool:
    """Whether it is about archived runs: those are in test_results.py."""
    return any(word.startswith("results/") for word in command.arguments)


PROGRAMS = {command.program for command in COMMANDS.values()}
PLAYED = [name for name in of_program(*PROGRAMS - {*ELSEWHERE}) if not of_results(COMMANDS[name])]


@pytest.mark.parametrize("name", PLAYED)
def test_a_command_runs(name, request, tmp_path, capsys, monkeypatch):
    command = COMMANDS[name]
    run = request.getfixturevalue("city_run" if command.page == "city.md" else "run")
    if command.program == "report" and command.page != "README.md":
        request.getfixturevalue("tables_alone")  # those of README.md are drawn
    monkeypatch.chdir(tmp_path)
    words = with_files(command, run, tmp_path)
    words = [re.sub(r"samples=\d+", "samples=20", word) for word in words]
    if command.program == "watch" and "--influence" in words:
        words += ["--episodes", "2"]
    if "--config" in words and any("traffic" in word for word in words):
        words += ["traffic.horizon=10", "dataset_size=100"]
    find_modules(command, monkeypatch)
    main = importlib.import_module(f"dials_mpi.{command.program}")
    if not hasattr(main, "main"):
        main = importlib.import_module(f"dials_mpi.{command.program}.__main__")
    with pytest.raises(SystemExit) as end:
        main.main([*words, *more(command)])
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
    domain = create(config.domain, config.domain_section)
    require_usable(command.ranks, len(domain.regions), config.global_ranks)
    require_simulators(config, domain, command.ranks)


def test_the_other_commands_install_what_there_is():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    known = re.compile(
        r"python3\.11 -m venv \.venv|\. \.venv/bin/activate|study=\S+|.*\$study.*|"
        r"\.venv/bin/python -m pytest( -m (?P<marker>\w+))?( -n 2)?( --dist loadfile)?|"
        r"\.venv/bin/mpirun -n 3 \.venv/bin/python -m mpi4py -m pytest -x --only-mpi tests/test_ranks\.py|"
        r"\.venv/bin/(ruff check|ruff format --check|mypy)|"
        r"(\.venv/bin/)?pip install -e ('\.\[(?P<extras>[a-z0-9,]+)\]'|examples/\w+)"
    )
    for line in OTHERS:
        found = known.fullmatch(line)
        assert found, line
        assert not found["marker"] or f"\n    {found['marker']}: " in (ROOT / "setup.cfg").read_text(), line
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


@pytest.mark.quick
def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def only(entry: dict) -> object:
    """The value of a dictionary's single key."""
    (value,) = entry.values()
    return value


def test_every_page_is_in_the_menu_and_in_the_list_of_pages():
    """In the same groups and order."""
    home, *groups = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    groups = [[*map(only, only(group))] for group in groups]
    index = (ROOT / "docs" / "index.md").read_text().split("\n## ")
    assert only(home) == "index.md"
    assert groups == [re.findall(r"\]\((\S+\.md)\)", section) for section in index[1:]]
    assert sorted(page for group in groups for page in group) == [
        p.name for p in DOCS if p.name != "index.md"
    ]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


SOURCES = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("[a-z]*/**/*.py")]
NAMING = [*PAGES, ROOT / "CHANGELOG.md"]


NOT_OURS = {"lights.py", "/tools/randomTrips.py"}
"""A file that a command writes, and one of SUMO's."""


@pytest.mark.quick
@pytest.mark.parametrize("page", NAMING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_and_modules_that_a_page_names_exist(page):
    text = page.read_text()
    files = set(re.findall(r"[\w/]*\w\.py\b", text)) - NOT_OURS
    assert [
        f for f in files if not any(f"/{source}".endswith(f"/{f.lstrip('/')}") for source in SOURCES)
    ] == []
    folders = set(re.findall(r"(?<![\w/.-])((?:dials_mpi|tests|jobs|docs)/[\w/.-]*\w)", text))
    assert [folder for folder in folders if not (ROOT / folder).exists()] == []
    groups = {NETWORKS, learner.GROUP}  # of entry points
    modules = set(re.findall(r"\bdials_mpi(?:\.[A-Za-z_]\w*)+", text)) - groups
    assert [name for name in modules if not is_there(name)] == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return bool(importlib.util.find_spec(name)) or hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:  # what stands before the attribute is no module, or no package
        return hasattr(importlib.import_module(module), attribute) if is_there(module) else False


def test_the_walk_over_names_finds_what_is_missing():
    assert is_there("dials_mpi.domains.base.Region") and is_there("dials_mpi.domains.base")
    assert not is_there("dials_mpi.domains.base.Regions") and not is_there("dials_mpi.start.find")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", dials_mpi.__version__)
    assert citation["references"][0]["authors"][0]["family-names"] == "Suau"


def test_the_workflow_runs_the_tests_and_the_linters():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    commands = {step["run"] for step in steps if "run" in step}
    assert {".ci/run", "ruff check", "ruff format --check", "mypy"} <= commands
    assert jobs["mpi"]["strategy"]["matrix"]["ranks"] == [1, 3]
    assert any(command.startswith("mpirun") and "tests/test_ranks.py" in command for command in commands)
