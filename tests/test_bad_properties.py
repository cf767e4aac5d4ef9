"""Random input: properties of hypothesis, and sweeps through all pages of a file.

Whatever the settings, walltimes and command lines, they are accepted or refused in a sentence. Whatever the
damage to a checkpoint or a run file, it is noticed or it changes no number.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import bad_input
import h5py
import pytest
import yaml
from bad_input import KINDS, NOISE, Originals, Worker, refused_or_done, with_files
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_config import JUNK, KEYS, PLAIN, VALID, accepts_or_refuses

from dials_mpi.config import from_yaml, load
from dials_mpi.core.errors import BadInput
from dials_mpi.run import walltime

worker, originals = bad_input.worker, bad_input.originals


# Settings ------------------------------------------------------------------------------------------------


def quick(examples: int) -> hypothesis_settings:
    """Without shrinking: if the worker hangs, every further attempt takes the time limit."""
    return hypothesis_settings(
        deadline=None,
        max_examples=examples,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


VALUES = st.one_of(
    JUNK,
    st.integers(-10, 10**6).map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(
        ["true", "no", "[2,2]", "[8, 8]", "gru", "fnn", "dials", "global", "traffic", "1e-4", "0"]
    ),
    PLAIN.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
)
OVERRIDE = st.tuples(st.sampled_from([*KEYS, "traffic.grid", "ppo", "x"]) | st.text(max_size=8), VALUES)


@given(overrides=st.lists(OVERRIDE, min_size=1, max_size=6))
@quick(200)
def test_random_overrides_raise_only_bad_input(overrides):
    accepts_or_refuses(load, None, [f"{key}={value}" for key, value in overrides])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(
    content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
@example(content=b"\xef\xbb\xbf")
@example(content=b"\xef\xbb\xbf\xef\xbb\xbfseed: 1")
@example(content="seed: 1\u2028mode: dials".encode())
@quick(200)
def test_random_bytes_in_a_file_raise_only_bad_input(scratch, content):
    (scratch / "any.yaml").write_bytes(content)
    accepts_or_refuses(load, str(scratch / "any.yaml"))


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 4), st.binary(max_size=4)),
        min_size=1,
        max_size=3,
    )
)
@quick(60)
def test_damage_to_a_configuration_raises_only_bad_input(scratch, cuts):
    content = VALID.encode()
    for start, length, junk in cuts:
        content = content[:start] + junk + content[start + length :]
    (scratch / "damaged.yaml").write_bytes(content)
    accepts_or_refuses(load, str(scratch / "damaged.yaml"))


YAML_TEXT = st.recursive(
    st.one_of(
        VALUES, st.sampled_from(["&a 1", "*a", "!!int 1", "!x", "|\n  text", ">-\n  text", "? x", "<<: {}"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(inner, max_size=3).map(lambda parts: "".join(f"\n  - {part}" for part in parts)),
        st.lists(st.tuples(st.sampled_from([*KEYS, "clip", "grid", "<<"]), inner), max_size=3).map(
            lambda parts: "".join(f"\n  {key.rpartition('.')[2]}: {part}" for key, part in parts)
        ),
    ),
    max_leaves=5,
)


@given(
    lines=st.lists(
        st.tuples(st.sampled_from([*KEYS, "ppo", "policy", "influence", "warehouse"]), YAML_TEXT), max_size=4
    )
)
@quick(200)
def test_a_random_document_raises_only_bad_input(scratch, lines):
    text = "".join(f"{key}: {value}\n" for key, value in lines)
    (scratch / "document.yaml").write_text(text, encoding="utf-8", errors="replace")
    accepts_or_refuses(load, str(scratch / "document.yaml"))


@given(text=st.text(alphabet="0123456789:-. \n٣h", max_size=14) | st.text(max_size=8))
@example(text="9999-9999:59:59")
@quick(300)
def test_a_random_walltime_raises_only_bad_input(text):
    try:
        seconds = walltime.seconds(text)
    except BadInput as refusal:
        assert str(refusal).isprintable() and "3:50:00" in str(refusal)
    else:
        days, _, clock = text.strip().rpartition("-")
        hours, minutes, rest = map(int, clock.split(":"))
        assert seconds == ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest > 0


@pytest.mark.parametrize("told", ["", "x", "-1", "1e9", "0", "٣", "\n", "99999999999999999999", "9" * 400])
def test_random_text_of_the_scheduler_gives_no_traceback(monkeypatch, told):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", told)
    monkeypatch.setenv("PATH", "/nowhere")
    deadline, notes = walltime.deadline_of(None, 0.0)
    assert all(note.isprintable() for note in notes)
    assert deadline.allows(0.0) == (told not in ("0", "٣"))


WORD = st.one_of(
    st.sampled_from(
        ["--resume", "--log-ranks", "--config", "--output", "--walltime", "--", "-x", "-", "--conf", "--o"]
    ),
    st.sampled_from(
        ["good.yaml", "open.yaml", "binary.yaml", "nowhere", ".", "3:50:00", "seed=1", "ppo.clip=0.2"]
    ),
    OVERRIDE.map("=".join),
    st.text(st.characters(exclude_characters="\0"), max_size=6),
    st.text(st.characters(exclude_characters="\0"), max_size=4).map("--{}".format),
)


@given(words=st.lists(WORD, min_size=1, max_size=5))
@quick(120)
def test_a_random_command_line_gives_no_traceback(worker, scratch, words):
    """--print-config comes first: after a -- it would be a setting, and the run would start."""
    if not (scratch / "good.yaml").exists():
        with_files(scratch)
    said = refused_or_done(worker, scratch, "train", ["--print-config", *words])
    if said.code == 0:
        from_yaml(said.stdout) if not said.stdout.startswith("usage:") else None


# Files ---------------------------------------------------------------------------------------------------


STRUCTURES = re.compile(
    rb"\x89HDF|TREE|SNOD|HEAP|OHDR|OCHK|GCOL|FRHP|FHDB|FHIB|BTHD|BTIN|BTLF|EAHD|EAIB|EASB|EADB|FAHD|FADB"
)
"""Signatures of HDF5's structures: a changed byte near them has the largest effect."""

PLACE = st.tuples(st.booleans(), st.integers(0, 10**6), st.integers(0, 100))
READ_ERRORS = st.one_of(
    st.tuples(
        st.just("flip"), PLACE, st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]) | st.integers(1, 255)
    ),
    st.tuples(st.just("zero"), PLACE, st.sampled_from([2, 8, 64, 512, 4096, 65536])),
    st.tuples(st.just("ones"), PLACE, st.sampled_from([2, 8, 64, 512])),
    st.tuples(st.just("noise"), PLACE, st.sampled_from([2, 8, 64, 512, 4096])),
    st.tuples(st.just("elsewhere"), PLACE, st.sampled_from([8, 512, 4096])),
    st.tuples(st.just("lost"), PLACE, st.sampled_from([1, 8, 512, 4096])),
    st.tuples(st.just("cut"), PLACE, st.just(0)),
    st.tuples(st.just("longer"), PLACE, st.integers(1, 1000)),
)
FLIP = st.tuples(st.just("flip"), PLACE, st.integers(1, 255))


def damaged(data: bytes, damage: tuple[str, tuple[bool, int, int], int]) -> bytes:
    """A file's bytes with damage at one place."""
    kind, (at_structure, number, offset), size = damage
    starts = [match.start() for match in STRUCTURES.finditer(data)]
    place = (starts[number % len(starts)] + offset if at_structure else number) % len(data)
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ size]) + data[place + 1 :]
    if kind == "lost":
        return data[:place] + data[place + size :]
    if kind == "longer":
        return data + NOISE[:size]
    place -= place % min(size, 512)  # disks and caches lose aligned blocks
    size = min(size, len(data) - place)
    new = {
        "zero": bytes(size),
        "ones": b"\xff" * size,
        "noise": NOISE[number % 999 :][:size],
        "elsewhere": (data[place // 2 :] + bytes(size))[:size],
    }[kind]
    return data[:place] + new + data[place + len(new) :]


def test_damage_is_damage():
    """The strategy itself: only the given place changes."""
    data = b"....OHDR" + bytes(range(248))
    assert damaged(data, ("flip", (True, 5, 1), 32)) == data.replace(b"OHDR", b"OhDR")
    assert damaged(data, ("zero", (False, 17, 0), 8)) == data[:16] + bytes(8) + data[24:]
    assert damaged(data, ("lost", (False, 10, 0), 8)) == data[:10] + data[18:]
    assert damaged(data, ("cut", (False, 256 + 9, 0), 0)) == data[:9]
    for kind in ("ones", "noise", "elsewhere"):
        assert len(damaged(data, (kind, (False, 250, 0), 64))) == len(data)


@pytest.fixture(scope="module")
def at_hand(originals, tmp_path_factory) -> Path:
    """A killed run to damage and to restore."""
    return originals.copy(tmp_path_factory.mktemp("at_hand"))


def pages(size: int) -> list[tuple[str, tuple[bool, int, int], int]]:
    """The file with each of its pages lost in turn."""
    return [("zero", (False, place, 0), 4096) for place in range(0, size, 4096)]


def require_noticed_or_harmless(
    worker: Worker, originals: Originals, run: Path, damages: Sequence[tuple[str, tuple[bool, int, int], int]]
) -> None:
    """--resume loads the original numbers despite the damage, or those of the older checkpoint."""
    newest = run / "checkpoint-384.h5"
    whole = (originals.killed / newest.name).read_bytes()
    for damage in damages:
        content = damaged(whole, damage)
        newest.write_bytes(content)
        found = worker.start(run)
        if found != originals.starts["checkpoint-384.h5"]:
            assert found == {**originals.starts["checkpoint-256.h5"], "damaged": [newest.name]}, damage


def test_a_lost_page_of_a_checkpoint_is_detected(worker, originals, at_hand):
    size = (at_hand / "checkpoint-384.h5").stat().st_size
    require_noticed_or_harmless(worker, originals, at_hand, pages(size))


@given(damage=READ_ERRORS)
@quick(120)
def test_any_damage_to_a_checkpoint_is_detected_or_harmless(worker, originals, at_hand, damage):
    require_noticed_or_harmless(worker, originals, at_hand, [damage])


@given(damage=FLIP)
@quick(100)
def test_any_flipped_byte_of_a_checkpoint_is_detected_or_harmless(worker, originals, at_hand, damage):
    require_noticed_or_harmless(worker, originals, at_hand, [damage])


def test_a_checkpoint_whose_numbers_were_replaced_is_detected(worker, originals, at_hand):
    """HDF5's own checksum accepts zeros if the checksum itself is zeroed too."""
    newest = at_hand / "checkpoint-384.h5"
    whole = (originals.killed / newest.name).read_bytes()
    with h5py.File(originals.killed / newest.name) as file:
        parts = [
            f"{kind}/{part}" for kind in KINDS for part in ("parameters", "first_moment", "second_moment")
        ]
        rows = [file[part][region].tobytes() for part in parts for region in range(4)]
    for row in rows:
        assert whole.count(row) == 1
        before, behind = whole.split(row)
        newest.write_bytes(before + bytes(len(row) + 4) + behind[4:])
        found = worker.start(at_hand)
        assert found == {**originals.starts["checkpoint-256.h5"], "damaged": [newest.name]}


def text_heaps(data: bytes) -> Iterator[int]:
    """The places where HDF5 stores number and size of texts of variable length, without a checksum."""
    for match in re.finditer(b"GCOL", data):
        place, end = (
            match.start() + 16,
            match.start() + int.from_bytes(data[match.start() + 8 :][:8], "little"),
        )
        number = -1
        while number and place + 16 <= min(end, len(data)):
            number, size = (
                int.from_bytes(data[at : at + width], "little") for at, width in ((place, 2), (place + 8, 8))
            )
            yield from (place, place + 8)
            place += 16 + -(-size // 8) * 8


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_where_texts_are_stored_is_detected(worker, originals, at_hand, every):
    """With such a byte the library has searched for a text without end. every: of how many places one is
    tried; names of dimensions are stored in the same way, so there are many."""
    newest = at_hand / "checkpoint-384.h5"
    places = list(text_heaps((originals.killed / newest.name).read_bytes()))[::every]
    damages = [("flip", (False, place, 0), bit) for place in places for bit in (1, 255)]
    require_noticed_or_harmless(worker, originals, at_hand, damages)


def require_refused_or_good(worker: Worker, originals: Originals, run: Path, content: bytes) -> None:
    """A damaged run file: the run does not start, or it writes the same as with an intact file."""
    shutil.rmtree(run)
    shutil.copytree(originals.killed, run)
    (run / "run.h5").write_bytes(content)
    found = worker.start(run, session=True)
    if "refused" in found:
        assert found["refused"].isprintable()
        assert (run / "run.h5").read_bytes() == content
    else:
        assert found == originals.starts["checkpoint-384.h5"]


def test_a_lost_page_of_a_run_file(worker, originals, at_hand):
    whole = (originals.killed / "run.h5").read_bytes()
    for damage in pages(len(whole)):
        require_refused_or_good(worker, originals, at_hand, damaged(whole, damage))


@given(damage=READ_ERRORS)
@quick(120)
def test_any_damage_to_a_run_file_is_refused_or_harmless(worker, originals, at_hand, damage):
    whole = (originals.killed / "run.h5").read_bytes()
    require_refused_or_good(worker, originals, at_hand, damaged(whole, damage))


@given(damage=READ_ERRORS)
@quick(100)
def test_any_damage_to_a_run_file_gives_no_traceback_in_the_report(worker, originals, scratch, damage):
    (scratch / "run.h5").write_bytes(damaged((originals.finished / "run.h5").read_bytes(), damage))
    assert worker.read(scratch).isprintable()


@given(damage=READ_ERRORS)
@quick(60)
def test_any_damage_to_a_run_file_is_detected_by_the_evaluation(worker, originals, scratch, damage):
    """The file is refused, or the figures are those of the intact file."""
    (scratch / "run.h5").unlink(missing_ok=True)
    arguments = [".", "--episodes", "2"]
    said = worker.main("evaluate", arguments, originals.finished)
    assert (said.code, said.stderr) == (0, "")
    (scratch / "run.h5").write_bytes(damaged((originals.finished / "run.h5").read_bytes(), damage))
    found = refused_or_done(worker, scratch, "evaluate", arguments)
    assert found.code == 2 or found.stdout == said.stdout
