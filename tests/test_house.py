"""The house rules: who may import what, no circles, everything public documented, workers kept light."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import SMALL, launch

import dials_mpi

ROOT = Path(dials_mpi.__file__).parent
FILES = {
    ".".join(["dials_mpi", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The files, parsed, by module."""
    return {name: ast.parse(path.read_text(), str(path)) for name, path in FILES.items()}


class Import(NamedTuple):
    """One module that another needs: for annotations only (typing), inside a function (late), or at once."""

    importer: str
    module: str
    typing: bool
    late: bool


def imports(importer: str, tree: ast.Module) -> Iterator[Import]:
    """All imports in a file, resolved to full names; ``from package import module`` to the module."""

    def walk(node: ast.AST, typing: bool, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from walk(ast.Module([part], []), True, late)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), typing, late)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(importer, alias.name, typing, late)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{importer}: relative import"
                for alias in child.names:
                    submodule = f"{child.module}.{alias.name}"
                    yield Import(importer, submodule if submodule in FILES else child.module, typing, late)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, typing, late or inside)

    yield from walk(tree, False, False)


@functools.cache
def all_imports() -> list[Import]:
    """Those of all files."""
    return [found for name, tree in trees().items() for found in imports(name, tree)]


def within(module: str, package: str) -> bool:
    """Whether a module is the package or lies in it."""
    return module == package or module.startswith(package + ".")


def importers(of: str, typing: bool = False) -> set[str]:
    """The modules that import ``of`` or something in it, at any place, at run time."""
    return {found.importer for found in all_imports() if within(found.module, of) and typing >= found.typing}


def test_the_walk_sees_imports():
    """The rules below mean something: known imports of each kind are found."""
    assert len(FILES) > 15
    assert Import("dials_mpi.parallel.communicator", "numpy", False, False) in all_imports()
    assert Import("dials_mpi.parallel.communicator", "mpi4py", True, False) in all_imports()
    assert Import("dials_mpi.parallel.communicator", "mpi4py", False, True) in all_imports()
    assert Import("dials_mpi.run.system", "dials_mpi.run.datasets", False, False) in all_imports()


COMMANDS = (
    *("train", "evaluate", "archive", "fidelity", "configs", "cache"),
    *("report", "watch", "influence", "study", "bench", "check", "export"),
)
FLOORS = {
    "core": set(),
    "settings": {"core"},
    "parallel": {"core", "settings"},
    "storage": {"core", "settings"},
    "learning": {"core", "settings"},
    "domains": {"core", "settings"},
    "config": {"core", "settings", "domains"},
    "algorithm": {"core", "settings", "learning", "domains", "config"},
    "results": {"core", "settings", "learning", "domains", "config", "algorithm", "storage"},
    "run": {
        *("core", "settings", "learning", "domains", "config", "algorithm", "storage"),
        *("parallel", "results"),
    },
}
"""What each package may import at run time; commands and the interfaces for other trainers may import all."""


def floor(module: str) -> str:
    """The package, or the top-level module, that a module lies in."""
    return module.split(".")[1] if module != "dials_mpi" else ""


@pytest.mark.quick
@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_downwards(package):
    own = [
        found
        for found in all_imports()
        if within(found.importer, f"dials_mpi.{package}") and not found.typing
    ]
    needed = {found for found in own if within(found.module, "dials_mpi") and floor(found.module) != package}
    allowed = {"", *FLOORS[package]}
    assert {found for found in needed if floor(found.module) not in allowed} == set()


@pytest.mark.quick
def test_every_package_has_its_floor():
    others = {*COMMANDS, "cli", "gym", "__main__"}
    assert {floor(name) for name in FILES if name != "dials_mpi"} == {*FLOORS, *others}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("mpi4py", {"dials_mpi.parallel.communicator"}),
        (
            "h5py",
            {
                f"dials_mpi.storage.{name}"
                for name in ("hdf5", "runfile", "dimensions", "checkpoint", "datasets", "probe")
            },
        ),
        ("yaml", {"dials_mpi.settings.yaml_text"}),
        *((name, set()) for name in ("sumo", "sumolib")),  # by name: see below
        *((name, {"dials_mpi.export.traci_program"}) for name in ("libsumo", "traci")),  # copied, not run
        ("gymnasium", {"dials_mpi.gym.libraries", "dials_mpi.learning.sb3"}),
        *((name, {"dials_mpi.learning.sb3"}) for name in ("stable_baselines3", "sb3_contrib")),
        ("pettingzoo", {"dials_mpi.gym.libraries"}),
        ("xarray", {f"dials_mpi.results.{name}" for name in ("series", "run", "many", "agents")}),
        ("pandas", {f"dials_mpi.results.{name}" for name in ("series", "run")}),
        ("tensorboard", {"dials_mpi.run.sinks.tensorboard"}),
        ("optuna", {"dials_mpi.study.sampling"}),
    ],
)
def test_a_library_with_one_door(library, allowed):
    assert importers(library, typing=True) <= allowed


def test_only_sumo_and_classes_from_outside_are_imported_by_name():
    """An import that the walk would not see."""
    assert importers("importlib.import_module") | importers("importlib") <= {
        "dials_mpi",  # its functions, at their first use
        "dials_mpi.domains.sumo.installation",
        "dials_mpi.core.imports",  # classes that a setting names
        "dials_mpi.core.provenance",  # asks modules for their versions
    }


def test_reading_a_configuration_loads_no_simulator():
    """SUMO's modules take seconds and memory, and are not on every machine."""
    loaded = "import sys, dials_mpi.config; print(*sys.modules)"
    result = launch("-c", loaded)
    assert result.code == 0
    assert not {"libsumo", "traci", "sumolib", "sumo", "numba"} & set(result.stdout.split())


def test_the_program_does_without_torch():
    """The tests compare with it; the benchmark takes its matrix product as the floor where it is there.

    Networks in PyTorch and exported policies need it, and who trains with Stable-Baselines3."""
    needing = {name for name in FILES if name.startswith("dials_mpi.learning.torch_")}
    needing |= {
        "dials_mpi.learning.torchscript",
        "dials_mpi.learning.onnx_model",
        "dials_mpi.learning.sb3",
    } & FILES.keys()
    allowed = {name for name in FILES if within(name, "dials_mpi.bench")} | needing
    assert importers("torch", typing=True) <= allowed
    early = {f.importer for f in all_imports() if f.module in needing and not f.late and not f.typing}
    assert early <= needing


def test_numba_is_imported_by_the_decorator_its_cache_and_the_kernels():
    own = {"dials_mpi.core.jit", "dials_mpi.core.kernel_cache"}
    allowed = own | {name for name in FILES if within(name, "dials_mpi.learning.kernels")}
    assert importers("numba") | importers("llvmlite") <= allowed


def test_consoles_are_plain_ones():
    """Which show text as it is, however narrow the terminal says to be."""
    assert importers("rich.console", typing=True) == {"dials_mpi.core.console"}


def test_nothing_imports_the_commands():
    for command in COMMANDS:
        own = f"dials_mpi.{command}"
        assert [name for name in importers(own) if not within(name, own)] == []


def test_nothing_imports_the_interfaces_for_others():
    """They need libraries that the program does without."""
    assert [name for name in importers("dials_mpi.gym") if not within(name, "dials_mpi.gym")] == []


def test_pictures_are_drawn_by_few():
    """matplotlib is not on every machine, and takes a second to load."""
    drawers = ("report", "watch", "influence.picture", "results.style", "results.frame", "domains.pictures")
    drawers = tuple(f"dials_mpi.{name}" for name in drawers)
    drawing = {name for name in importers("matplotlib") if not any(within(name, d) for d in drawers)}
    assert drawing and all(name.split(".")[-1] == "drawing" for name in drawing)
    early = {f.importer for f in all_imports() if f.module.endswith(".drawing") and not f.late}
    assert early <= drawing


@pytest.mark.quick
def test_no_circles():
    """Of modules that import each other at once; a module comes after all that it needs."""
    needs = {name: set() for name in FILES}
    for found in all_imports():
        if found.module in FILES and not found.typing and not found.late:
            needs[found.importer].add(found.module)
    ready: set[str] = set()
    while len(ready) < len(needs):
        new = {name for name in needs if name not in ready and needs[name] <= ready}
        assert new, f"a circle among {sorted(set(needs) - ready)}"
        ready |= new


@pytest.mark.quick
def test_everything_public_has_a_docstring():
    missing = []

    def look(node: ast.AST, name: str) -> None:
        if not ast.get_docstring(node):
            missing.append(name)
        for child in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            if isinstance(child, kinds) and not child.name.startswith("_"):
                look(child, f"{name}.{child.name}")

    for name, tree in trees().items():
        look(tree, name)
    assert missing == []


def test_a_worker_stays_light(tmp_path):
    """After a whole segment, rank 1 has loaded none of what only root needs, and no torch."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\n"
        "from dials_mpi import train\n"
        "connect = train.launch.connect\n"
        "def remember():\n"
        "    ranks = connect()\n"
        "    wait, name = ranks.barrier, f'modules{ranks.rank}'\n"
        "    def barrier():\n"
        "        open(name, 'w').write(' '.join(sys.modules))\n"
        "        wait()\n"
        "    ranks.barrier = barrier\n"
        "    return ranks\n"
        "train.launch.connect = remember\n"
        "train.main(sys.argv[1:])\n"
    )
    result = launch(str(driver), *SMALL, "--output", "out", ranks=2, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    root, worker = ((tmp_path / f"modules{rank}").read_text().split() for rank in (0, 1))
    assert {"numba", "dials_mpi.algorithm.learners"} <= set(worker)
    assert {"h5py", "rich"} <= set(root)
    heavy = ("h5py", "rich", "matplotlib", "torch", "scipy.special")
    assert [name for name in heavy if name in worker] == []
    assert [name for name in heavy[2:] if name in root] == []
