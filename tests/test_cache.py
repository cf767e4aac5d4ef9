"""The cache: with any problem a run continues; it never executes code that other users may have written."""

import errno
import grp
import json
import os
import pickle
import resource
import shutil
import stat
import sys
from pathlib import Path

import pytest
import sumolib
from conftest import Finished, launch

from dials_mpi.core import cache
from dials_mpi.core import jit as compiled
from dials_mpi.core.jit import code_folder
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.traffic import platoons
from dials_mpi.domains.traffic.network import FILES, Network
from dials_mpi.domains.traffic.platoons import recorded_platoons


def triple(number):
    return 3 * number


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of the test's own, without earlier warnings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.GROUP, raising=False)
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "cache"


def tripled(number=2):
    """Compile ``triple`` as a new process would, and call it; whether the code came from the cache."""
    code = compiled.compiled(triple)
    assert code(number) == 3 * number
    return bool(sum(code.stats.cache_hits.values()))


def stored():
    """The file with the code."""
    [file] = code_folder().glob("*.nbc")
    return file


def said(capsys):
    """The lines on stderr."""
    return capsys.readouterr().err.splitlines()


# --- damaged files ---


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_pipe(file):
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "garbage": lambda file: file.write_bytes(b"\x80garbage" * 1000),
    "one byte": lambda file: file.write_bytes(file.read_bytes().replace(b"triple", b"tripel", 1)),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"more"),
    "a pipe": replace_by_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_machine_code_is_compiled_again(damage, home, capsys):
    assert not tripled() and tripled()
    assert said(capsys) == []
    DAMAGES[damage](stored())
    assert not tripled()
    [line] = said(capsys)
    assert line.startswith(f"dials_mpi: {stored()} is damaged: it is made again")
    assert tripled()
    assert said(capsys) == []


def test_code_is_compiled_again_if_the_file_is_another_pickle(home, capsys):
    tripled()
    cache.write(stored(), pickle.dumps({"some": "thing"}))
    assert not tripled()
    assert "is damaged: it is made again" in said(capsys)[0]
    assert tripled()


def test_a_folder_in_place_of_a_file_is_tolerated(home, capsys):
    tripled()
    replace_by_folder(stored())
    assert not tripled() and not tripled()
    [line] = said(capsys)
    assert f"{stored()} cannot be read (Is a directory): the run continues without it" in line
    assert [file.name for file in code_folder().iterdir()] == [stored().name]


def test_a_damaged_file_is_not_executed(home, tmp_path):
    tripled()
    stored().write_bytes(pickle.dumps(Touch(tmp_path / "executed")))
    tripled()
    assert not (tmp_path / "executed").exists()


def test_several_ranks_and_files_give_one_warning(home):
    script = (
        "import os\n"
        "import numpy as np\n"
        "from dials_mpi.learning.kernels.activations import exp, tanh\n"
        "os.write(1, f'{exp(np.float32(0))} {tanh(np.float32(0))}\\n'.encode())  # one piece\n"
    )
    for _ in range(2):
        done = launch("-c", script, ranks=3)
        assert (done.code, done.stdout.split()) == (0, ["1.0", "0.0"] * 3)
        for file in home.rglob("*.nbc"):
            os.truncate(file, 100)
    assert len(done.ours()) == 1 and "is damaged" in done.ours()[0]


# --- files that cannot be written or read ---


def refuse_all(*_, **__):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.fixture
def unwritable(monkeypatch):
    """The file system is read-only, also for root."""
    given = os.open

    def read_only(path, flags, *rest, **how):
        if flags & os.O_WRONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return given(path, flags, *rest, **how)

    def apply():
        monkeypatch.setattr(cache.os, "open", read_only)

    return apply


def test_a_read_only_cache_is_read(home, unwritable, capsys):
    tripled()
    unwritable()
    assert tripled()
    assert said(capsys) == []
    assert not tripled(2.5) and not tripled(2.5)
    [line] = said(capsys)
    assert (
        f"{code_folder()} cannot be written (Read-only file system), so every start repeats the work" in line
    )
    assert "set XDG_CACHE_HOME" in line


def test_a_quota_is_tolerated(home, monkeypatch, capsys):
    monkeypatch.setattr(cache.os, "replace", refuse_all)
    assert not tripled() and not tripled()
    [line] = said(capsys)
    assert f"{code_folder()} cannot be written (Disk quota exceeded)" in line
    assert list(code_folder().iterdir()) == []


def test_a_full_disk_is_tolerated(home, capsys):
    keep = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, keep[1]))
    try:
        assert not tripled() and not tripled()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, keep)
    assert "cannot be written (File too large)" in said(capsys)[0]
    assert list(code_folder().iterdir()) == []
    assert not tripled() and tripled()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_replaced_if_possible(home, capsys):
    tripled()
    stored().chmod(0)
    assert not tripled()
    assert "cannot be read (Permission denied): the run continues without it" in said(capsys)[0]
    assert tripled()


def test_without_a_home_nothing_is_cached(home, monkeypatch, capsys):
    """As in a container, for a user id without an entry in the password database."""

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    assert not tripled() and not tripled()
    assert all(file.is_file() for file in Network(1, 1, 1, 101.0, 10.0).files())
    [line] = said(capsys)
    assert "nothing is cached, because the home folder is unknown: set XDG_CACHE_HOME" in line


@pytest.mark.parametrize("given", ["", "cache", "~/cache"])
def test_a_relative_place_is_ignored(given, home, tmp_path, monkeypatch):
    """The XDG Base Directory Specification requires it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert not tripled() and tripled()
    assert tmp_path / "me" / ".cache" / "dials_mpi" in stored().parents


# --- permissions ---


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    keep = os.umask(0)
    yield os.umask
    os.umask(keep)


@pytest.mark.parametrize(
    ("mask", "folder", "file"),
    [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o027, 0o750, 0o640), (0o002, 0o755, 0o644)],
)
def test_permissions_follow_the_umask_but_others_may_never_write(mask, folder, file, home, umask):
    umask(mask)
    tripled()
    (net, *_) = Network(1, 1, 1, 100.0, 10.0).files()
    folders = [home, home / "dials_mpi", code_folder(), net.parent.parent, net.parent]
    assert [mode(path) for path in folders] == [folder] * 5
    assert [mode(path) for path in (stored(), net)] == [file] * 2


OPENED = {
    "its base": lambda home: home.chmod(0o775),
    "the folder": lambda home: (home / "dials_mpi").chmod(0o777),
    "the folder of the code": lambda home: code_folder().chmod(0o757),
    "a sticky folder": lambda home: code_folder().chmod(0o1777),
    "the file": lambda home: stored().chmod(0o664),
    "the file to all": lambda home: stored().chmod(0o646),
}


@pytest.mark.parametrize("which", [None, *OPENED])
def test_code_that_others_may_write_is_not_executed(which, home, tmp_path, capsys):
    """The control, None: only the user has write permission, and the code is executed."""
    tripled()
    cache.write(stored(), pickle.dumps(Touch(tmp_path / "executed")))
    if which:
        OPENED[which](home)
    assert not tripled()
    assert (tmp_path / "executed").exists() == (which is None)
    if which:
        [line] = said(capsys)
        assert f"dials_mpi: {home}" in line and "can be written by" in line and "(chmod " in line


def test_code_that_belongs_to_another_user_is_not_executed(home, tmp_path, monkeypatch, capsys):
    tripled()
    cache.write(stored(), pickle.dumps(Touch(tmp_path / "executed")))
    if os.geteuid() == 0:
        os.chown(home / "dials_mpi", 54321, 54321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert not tripled() and not tripled()
    assert not (tmp_path / "executed").exists()
    [line] = said(capsys)
    assert "belongs to another user, and code that others may have written is not executed" in line


def test_a_folder_above_that_others_may_write_is_not_trusted(home, tmp_path, monkeypatch, capsys):
    """Others could rename the cache and create another one there; not in a sticky folder such as /tmp."""
    above = tmp_path / "above"
    above.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(above / "cache"))
    tripled()
    above.chmod(0o777)
    assert not tripled()
    assert f"{above} can be written by everybody" in said(capsys)[0]
    above.chmod(0o1777)
    assert tripled()


def test_permissions_of_a_link_are_those_of_its_target(home, tmp_path, capsys):
    (tmp_path / "real" / "open").mkdir(parents=True)
    home.symlink_to(tmp_path / "real" / "open")
    assert not tripled() and tripled()
    (tmp_path / "real").chmod(0o777)
    assert not tripled()
    assert f"{tmp_path / 'real'} can be written by everybody" in said(capsys)[0]


def test_a_trusted_group_shares_a_cache(home, umask, monkeypatch, capsys):
    umask(0o002)
    monkeypatch.setenv(cache.GROUP, grp.getgrgid(os.getegid()).gr_name)
    home.mkdir()
    os.chown(home, -1, os.getegid())
    home.chmod(0o2775)
    assert not tripled() and tripled()
    assert (mode(code_folder()) & 0o777, mode(stored())) == (0o775, 0o664)
    assert said(capsys) == []
    monkeypatch.delenv(cache.GROUP)
    assert not tripled()
    assert "can be written by its group" in said(capsys)[0]


def test_an_unknown_group_is_not_trusted(home, monkeypatch, capsys):
    tripled()
    monkeypatch.setenv(cache.GROUP, "nobody-has-this-name")
    assert tripled()
    home.chmod(0o775)
    assert not tripled()
    unknown, refused = said(capsys)
    assert "is nobody-has-this-name, and there is no such group: no group is trusted" in unknown
    assert "can be written by its group" in refused


# --- what affects the code ---


@pytest.mark.parametrize("library", ["numba", "llvmlite", "numpy"])
def test_versions_do_not_replace_each_others_code(library, home, monkeypatch):
    tripled()
    with monkeypatch.context() as other:
        other.setattr(sys.modules[library], "__version__", "0.0.other")
        compiled._digest.cache_clear()
        assert not tripled() and tripled()
    compiled._digest.cache_clear()
    assert tripled()


def test_processors_and_options_have_their_own_code():
    show = "from dials_mpi.core.jit import code_folder; print(code_folder())"
    others = [{}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, {"NUMBA_OPT": "1"}]
    places = [launch("-c", show, environment=given).stdout for given in others]
    assert places[0] == f"{code_folder()}\n" and len(set(places)) == 3


def test_every_file_that_affects_compiled_code_changes_the_folders_name(tmp_path, monkeypatch):
    """Also files that have intrinsics only, and the file with the compiler's options."""
    package = shutil.copytree(compiled.PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(compiled, "PACKAGE", package)

    def name_after(file: str) -> str:
        (package / file).write_bytes((package / file).read_bytes() + b"# changed\n")
        return compiled._digest.__wrapped__()

    names = [compiled._digest.__wrapped__()]
    names += [name_after(f"learning/kernels/{name}.py") for name in ("instructions", "gemm", "gru")]
    names += [name_after(file) for file in ("learning/ppo.py", "domains/traffic/kernels.py", "core/jit.py")]
    assert len(set(names)) == len(names) == 7
    assert name_after("core/text.py") == names[-1]


def test_another_function_has_other_code(home):
    def triple(number):
        return 4 * number

    tripled()
    assert compiled.compiled(triple)(2) == 8
    assert tripled()


LINKED = """
import sys

import numpy as np

from dials_mpi.core.jit import compiled

@compiled
def inner(numbers, least):
    kept = np.zeros(numbers.size)
    for i in range(numbers.size):
        if numbers[i] < least:
            raise ValueError("a number is too small")
        kept[i] = max(numbers[i], kept[i - 1])
    return kept.max() - np.empty_like(kept).size

@compiled
def outer(numbers, least):
    return 2 * inner(numbers, least)

for name in sys.argv[1:]:
    print(globals()[name](np.arange(5.0), 0.0))
    try:
        globals()[name](np.arange(5.0), 1.0)
    except ValueError as error:
        print(error)
print(*(name for name in ("numba.np.arraymath", "numba.typed.typeddict") if name in sys.modules))
"""


def test_stored_code_needs_no_compiler_and_new_code_can_call_it(home, tmp_path):
    """Loading the compiler's rules would take 22 MB in every rank."""
    script = tmp_path / "linked.py"
    script.write_text(LINKED)
    inner, outer = (f"{number}\na number is too small\n" for number in (-1.0, -2.0))
    compiler = "numba.np.arraymath numba.typed.typeddict\n"
    for names, expected in [
        (["inner"], inner + compiler),
        (["inner"], inner + "\n"),
        (["inner", "outer"], inner + outer + compiler),
        (["outer", "inner"], outer + inner + "\n"),
    ]:
        result = launch(str(script), *names)
        assert (result.code, result.stdout, result.stderr) == (0, expected, "")


# --- road networks ---


NETWORK = Network(1, 2, 1, 100.0, 10.0)


def builds(monkeypatch):
    """The calls of netconvert from now on."""
    calls, build = [], installation.netconvert

    def counted(arguments):
        calls.append(arguments)
        build(arguments)

    monkeypatch.setattr(installation, "netconvert", counted)
    return calls


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut off", "empty", "zeros"])
def test_a_damaged_network_is_built_again(damage, name, home, monkeypatch, capsys):
    files = NETWORK.files()
    content = [len(file.read_bytes()) for file in files]
    DAMAGES[damage](files[FILES.index(name)])
    calls = builds(monkeypatch)
    assert NETWORK.files() == NETWORK.files() == files
    assert len(calls) == 1
    [line] = said(capsys)
    assert f"{files[FILES.index(name)]} is damaged: it is made again" in line
    assert len(sumolib.net.readNet(str(files[0])).getTrafficLights()) == 2
    assert [len(file.read_bytes()) for file in files][1:] == content[1:]


def test_a_missing_file_of_a_network_is_built_again(home):
    net, *_ = NETWORK.files()
    net.unlink()
    assert NETWORK.files()[0] == net and net.is_file()


def test_a_network_that_cannot_be_cached_is_built_once_in_a_temporary_folder(home, monkeypatch, capsys):
    monkeypatch.setattr(cache.os, "replace", refuse_all)
    calls = builds(monkeypatch)
    files = Network(1, 2, 1, 103.0, 10.0).files()
    assert Network(1, 2, 1, 103.0, 10.0).files() == files and len(calls) == 1
    assert home not in files[0].parents
    assert len(sumolib.net.readNet(str(files[0])).getTrafficLights()) == 2
    [line] = said(capsys)
    assert f"dials_mpi: {home}" in line and "cannot be written (Disk quota exceeded)" in line
    shutil.rmtree(files[0].parent)  # as on a machine that clears its temporary folder
    assert all(file.is_file() for file in Network(1, 2, 1, 103.0, 10.0).files()) and len(calls) == 2


def test_a_cached_network_is_read_from_a_read_only_cache(home, unwritable, monkeypatch, capsys):
    files = NETWORK.files()
    unwritable()
    calls = builds(monkeypatch)
    assert NETWORK.files() == files and calls == []
    assert said(capsys) == []


def test_damaged_platoons_are_recorded_again(home, monkeypatch, capsys):
    monkeypatch.setattr(platoons, "_record", lambda *_: [[(6.0, 8.0)]] * 4)
    recorded_platoons(100.0, 10.0, 0.1, 2)
    [file] = (home / "dials_mpi" / "platoons").iterdir()
    file.write_text(json.dumps([[[0.0, 99.0]]] * 4))
    assert recorded_platoons(100.0, 10.0, 0.1, 2).draw(2, 0.0) == (6, 8)
    assert f"{file} is damaged" in said(capsys)[0]


# --- whole programs ---

TRAFFIC = ("domain=traffic", "traffic.grid=[1,2]", "traffic.horizon=10")


def evaluate(*arguments, **how) -> Finished:
    command = ("-m", "dials_mpi.evaluate", *TRAFFIC, "--policy", "never", "--episodes", "2")
    return launch(*command, *arguments, **how)


def test_traffic_runs_without_a_cache_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    places = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    done = evaluate(environment=places)
    assert done.code == 0 and "mean return" in done.stdout
    [line] = done.stderr.splitlines()
    assert f"{tmp_path}/file/dials_mpi/networks/" in line and "cannot be written (Not a directory)" in line
    assert list((tmp_path / "temporary").iterdir()) == []


LOCAL = ("sumo", "libsumo", "traci", "sumolib", "numpy", "numba", "yaml", "mpi4py", "random", "json")


def test_files_in_the_working_folder_are_not_imported_in_place_of_libraries(tmp_path):
    for name in LOCAL:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('this is the {name} of the user')")
    done = evaluate(cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")


def test_a_domain_in_the_working_folder_is_still_found(tmp_path):
    shutil.copy(Path(__file__).parent / "unequal_domain.py", tmp_path / "my_domain.py")
    command = ("-m", "dials_mpi.evaluate", "domain=my_domain:Nowhere", "--policy", "random")
    done = launch(*command, cwd=tmp_path)
    assert done.code == 2 and "my_domain has no class Nowhere" in done.stderr


@pytest.mark.parametrize("name", ["libsumo", "traci", "sumolib"])
def test_another_module_in_place_of_sumos_is_refused(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = evaluate(environment={"PYTHONPATH": path})
    assert done.code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"dials_mpi: {tmp_path}/{name}.py would be imported in place of SUMO's")


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_another_file_or_folder_named_sumo_does_no_harm(kind, tmp_path):
    if kind == "a file":
        (tmp_path / "sumo.py").write_text("raise SystemExit('executed')")
    else:
        (tmp_path / "sumo").mkdir()
        (tmp_path / "sumo" / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = evaluate(environment={"PYTHONPATH": path})
    assert (done.code, done.stderr) == (0, "")


def train_once(tmp_path, *settings, script="from dials_mpi.train import main; main()", **how) -> Finished:
    how = {"cwd": tmp_path, "ranks": 2} | how
    return launch("-c", script, *TRAFFIC, "traffic.sumo=traci", *settings, "--output", "out", **how)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_a_screen_that_cannot_be_opened_is_refused_before_anything_is_begun(tmp_path):
    done = train_once(tmp_path, "traffic.gui=true", environment={"DISPLAY": ":987"})
    assert done.code == 2
    [line] = done.ours()
    assert "unable to open display :987" in line and line.endswith("or traffic.gui=false")
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


BROKEN = {
    "ends at once": "#!/bin/sh\necho it does not work >&2\nexit 1\n",
    "cannot be executed": "no program",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_sumo_that_never_starts_is_refused_before_anything_is_begun(how, tmp_path):
    broken = tmp_path / "sumo"
    broken.write_text(BROKEN[how])
    broken.chmod(0o755)
    script = (
        "from dials_mpi.domains.sumo import installation\n"
        f"installation.simulator = lambda gui: {str(broken)!r}\n"
        "from dials_mpi.train import main\n"
        "main()\n"
    )
    done = train_once(tmp_path, script=script)
    assert done.code == 2
    [line] = done.ours()
    said = "it does not work" if how == "ends at once" else "Exec format error"
    assert said in line and "traffic cannot be simulated here: SUMO does not start: " in line
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
