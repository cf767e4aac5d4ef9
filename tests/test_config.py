"""The configuration: accepted values, refused values and their messages, and the shipped files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dials_mpi import settings
from dials_mpi.config import Config, from_yaml, load
from dials_mpi.config.schedule import Segment, segments
from dials_mpi.core.errors import BadInput
from dials_mpi.settings import section, section_chosen_by, setting
from dials_mpi.settings.yaml_text import LARGEST_FILE, parse, parse_value, scalar

CONFIGS = Path(__file__).parents[1] / "configs"
GRIDS = {4: (2, 2), 25: (5, 5), 49: (7, 7), 100: (10, 10)}


def refusal(call, *arguments) -> str:
    """The message of the BadInput that a call raises: one printable sentence."""
    with pytest.raises(BadInput) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable() and 20 < len(message) < 600, message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


# Refused values ------------------------------------------------------------------------------------------

BROKEN_FILES = {
    # not YAML, or not a mapping of settings
    "tab": (b"seed: 1\n\tmode: dials\n", ["line 2, column 1"]),
    "open bracket": (b"warehouse:\n  grid: [2, 2\n", ["line 3"]),
    "open quote": (b"mode: 'dials\n", ["line 2"]),
    "bad indentation": (b"ppo:\n    clip: 0.1\n  epochs: 3\n", ["line 3, column 3"]),
    "two colons": (b"seed: 1: 2\n", ["line 1, column 8"]),
    "control character": (b"seed: 1\nmode: \x07\n", ["line 2", "U+0007"]),
    "NUL": (b"\x00" * 100, ["line 1", "U+0000"]),
    "not UTF-8": (b"mode: dials # caf\xe9\n", ["byte 17", "UTF-8"]),
    "UTF-16": ("seed: 1\n".encode("utf-16"), ["UTF-8"]),
    "too large": (b"# " + b"x" * LARGEST_FILE, ["larger than"]),
    "two documents": (b"seed: 1\n---\nseed: 2\n", ["single document", "line 2"]),
    "a list": (b"- seed: 1\n", ["top level", "mapping"]),
    "a scalar": (b"dials\n", ["top level", "'dials'", "mapping"]),
    "duplicate key": (b"seed: 1\nmode: dials\nseed: 2\n", ["'seed'", "twice", "line 3, column 1"]),
    "duplicate in a section": (b"ppo:\n  clip: 0.1\n  'clip': 0.2\n", ["'clip'", "twice", "line 3"]),
    "alias": (b"seed: &x 1\ntotal_steps: *x\n", ["line 1", "aliases", "write the value out"]),
    "alias bomb": (
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 122)),
        ["aliases"],
    ),
    "alias to itself": (b"ppo: &p\n  clip: *p\n", ["aliases"]),
    "tag": (b"seed: !!python/object/apply:os.system ['true']\n", ["tags", "line 1"]),
    "local tag": (b"seed: !x 1\n", ["tags"]),
    "deep lists": (b"seed: " + b"[" * 50_000, ["deep"]),
    "deep mappings": (b"seed: " + b"{a: " * 20_000, ["deep"]),
    "not a date": (b"seed: 2020-13-45\n", ["seed is '2020-13-45'", "whole number"]),
    "endless number": (b"seed: " + b"9" * 9999, ["digits"]),
    "endless hexadecimal": (b"seed: 0x" + b"f" * 9999, ["seed is 0xff", "very long"]),
    "a list as key": (b"? [seed]\n: 1\n", ["line 1", "key"]),
    # unknown keys
    "misspelt": (b"sead: 1\n", ["sead", "did you mean seed?"]),
    "misspelt in a section": (b"ppo: {learning_rat: 1}\n", ["did you mean ppo.learning_rate?"]),
    "misspelt section": (b"warehose: {grid: [2, 2]}\n", ["did you mean warehouse?"]),
    "in another section": (b"clip: 0.1\n", ["did you mean ppo.clip?"]),
    "in two other sections": (b"learning_rate: 1\n", ["ppo.learning_rate", "influence.learning_rate"]),
    "in the wrong section": (b"policy: {seed: 1}\n", ["policy.seed", "did you mean seed?"]),
    "resembles nothing": (b"zzz: 1\n", ["zzz", "the keys are domain, mode, seed"]),
    "nothing in a section": (b"policy: {zzz: 1}\n", ["policy.zzz", "policy.architecture, policy.hidden"]),
    "dotted": (b"ppo.clip: 0.1\n", ["ppo.clip", "nested section"]),
    "number as key": (b"1: 2\n", ["unknown key 1"]),
    "no key": (b"~: 2\n", ["unknown key empty"]),
    "escaped key": (b'"a\\nb": 2\n', ["unknown key 'a\\nb'"]),
    # wrong values
    "section as scalar": (b"ppo: 3\n", ["ppo is 3", "section", "ppo.rollout_steps"]),
    "section as list": (b"ppo: [clip]\n", ["ppo is ['clip']", "section"]),
    "setting as section": (b"seed: {a: 1}\n", ["seed is {'a': 1}", "whole number"]),
    "empty value": (b"seed:\n", ["seed is empty", "whole number"]),
    "bool for int": (b"seed: true\n", ["seed is true", "whole number"]),
    "int for bool": (b"ppo: {anneal: 1}\n", ["ppo.anneal is 1", "true or false"]),
    "text for bool": (b"ppo: {anneal: maybe}\n", ["ppo.anneal is 'maybe'", "true or false"]),
    "bool for float": (b"ppo: {clip: yes}\n", ["clip is yes", "write true"]),
    "text for float": (b"ppo: {clip: small}\n", ["ppo.clip is 'small'", "a number"]),
    "list for float": (b"ppo: {clip: [0.1]}\n", ["ppo.clip is [0.1]"]),
    "infinite": (b"ppo: {entropy_coefficient: .inf}\n", ["entropy_coefficient is inf"]),
    "not a number": (b"ppo: {clip: .nan}\n", ["ppo.clip is nan"]),
    "overflow": (b"ppo: {clip: 1e999}\n", ["ppo.clip is '1e999'"]),
    "huge int for float": (b"ppo: {clip: 1" + b"0" * 400 + b"}\n", ["ppo.clip", "from 0 to 1"]),
    "float for int": (b"ppo: {epochs: 2.5}\n", ["ppo.epochs is 2.5", "whole number from 1"]),
    "exponent for int": (b"total_steps: 4e6\n", ["total_steps is '4e6'", "write 4000000"]),
    "number for text": (b"mode: 3\n", ["mode is 3", "dials, untrained, global"]),
    "YAML's no": (b"mode: no\n", ["mode is no", "false in YAML 1.1", "'no' in quotes"]),
    "not a choice": (b"policy: {architecture: lstm}\n", ["'lstm'", "one of gru, fnn"]),
    "unknown domain": (b"domain: factory\n", ["domain is 'factory'", "warehouse"]),
    "domain as list": (b"domain: [warehouse]\n", ["domain is ['warehouse']"]),
    "too small": (b"ppo: {epochs: 0}\n", ["ppo.epochs is 0", "from 1 to"]),
    "too large a value": (b"seed: 4294967296\n", ["seed is 4294967296", "from 0 to 4294967295"]),
    "negative": (b"seed: -1\n", ["seed is -1"]),
    "scalar for pair": (b"warehouse: {grid: 5}\n", ["warehouse.grid is 5", "list of 2"]),
    "one of two": (b"warehouse: {grid: [5]}\n", ["warehouse.grid is [5]", "list of 2"]),
    "three of two": (b"warehouse: {grid: [5, 5, 5]}\n", ["warehouse.grid", "list of 2"]),
    "wrong element": (b"warehouse: {grid: [5, five]}\n", ["warehouse.grid is [5, 'five']", "whole number"]),
    "element out of bounds": (b"policy: {hidden: [0, 8]}\n", ["policy.hidden is [0, 8]", "from 1 to"]),
    "text for pair": (b"warehouse: {grid: 5x5}\n", ["warehouse.grid is '5x5'", "list of 2"]),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_refused_in_one_sentence(name, tmp_path):
    data, mentions = BROKEN_FILES[name]
    file = tmp_path / "broken.yaml"
    file.write_bytes(data)
    message = refusal(load, str(file))
    assert message.startswith(str(file))
    for text in mentions:
        assert text in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert "No such file" in refusal(load, str(tmp_path / "none.yaml"))
    assert "directory" in refusal(load, str(tmp_path))
    assert "cannot be read" in refusal(load, "nul\0.yaml")
    locked = tmp_path / "locked.yaml"
    locked.write_text("seed: 1\n")
    locked.chmod(0)
    try:
        locked.read_text()
    except PermissionError:
        assert "Permission denied" in refusal(load, str(locked))


def test_a_file_name_with_a_line_break_is_shown_on_one_line(tmp_path):
    file = tmp_path / "a\nb.yaml"
    assert "a\\nb.yaml" in refusal(load, str(file))
    file.write_text("sead: 1")
    assert "a\\nb.yaml" in refusal(load, str(file))


BROKEN_OVERRIDES = {
    "seed": ["key=value"],
    "": ["key=value"],
    "=1": ["key=value"],
    " = 1": ["key=value"],
    "--seed": ["key=value"],
    "seed=": ["seed is empty"],
    "seed=[": ["cannot be read"],
    "seed=1: 2": ["seed is {1: 2}"],
    "seed=1: 2: 3": ["cannot be read"],
    "seed='": ["cannot be read"],
    "seed=*x": ["cannot be read"],
    "seed=&x 1": ["aliases"],
    "seed=!!int 1": ["tags"],
    "seed==1": ["seed is", "whole number"],
    "seed=one": ["seed is 'one'", "whole number"],
    "seed=1e3": ["write 1000"],
    "seed.x=1": ["seed.x", "set seed itself"],
    "wharehouse.x=1": ["did you mean warehouse?"],
    "zzz.x=1": ["unknown key zzz.x", "the keys are domain"],
    ".seed=1": ["did you mean seed?"],
    "ppo.=1": ["unknown key ppo."],
    "ppo=1": ["ppo is a section", "ppo.rollout_steps"],
    "ppo={clip: 0.1}": ["ppo is a section"],
    "warehouse=[5,5]": ["warehouse is a section", "warehouse.grid"],
    "ppo.learningrate=1": ["did you mean ppo.learning_rate?"],
    "ppo.clip=-0.1": ["ppo.clip is -0.1", "from 0 to 1"],
    "ppo.clip=nan": ["ppo.clip is 'nan'"],
    "warehouse.grid=5,5": ["warehouse.grid is '5,5'", "list of 2"],
    "warehouse.grid=[5,true]": ["warehouse.grid", "whole number"],
    "warehouse.ring=3": ["true or false"],
    "warehouse.item_probability=2": ["from 0 to 1"],
    "domain=factory": ["domain is 'factory'"],
    "factory.size=3": ["unknown key factory.size"],
    "mode=Dials": ["one of dials, untrained, global"],
    "a\nb=1": ["unknown key 'a\\nb'"],
    "a\udcffb=1": ["unknown key"],
    "seed=\x07": ["U+0007"],
}


@pytest.mark.quick
@pytest.mark.parametrize("override", BROKEN_OVERRIDES)
def test_a_broken_override_is_refused_in_one_sentence(override):
    message = refusal(load, None, ["mode=global", override])
    assert message.startswith("override ")
    for text in BROKEN_OVERRIDES[override]:
        assert text in message


BROKEN_COMBINATIONS = {
    ("ppo.memory_size=100",): [
        "ppo.memory_size is 100",
        "envs_per_region x ppo.rollout_steps=128",
        "use 128",
    ],
    ("ppo.minibatch_size=1", "policy.architecture=fnn"): ["ppo.minibatch_size is 1", "at least 2"],
    ("warehouse.grid=[101,1]",): ["warehouse.grid", "from 1 to 100"],
    ("warehouse.grid=[4,6]", "warehouse.block=[3,2]"): [
        "warehouse.block is [3, 2]",
        "use 1, 2 or 4",
        "1, 2, 3 or 6",
    ],
    ("domain=traffic", "dataset_size=9900", "traffic.block=[1,3]"): ["traffic.block is [1, 3]", "1 or 2"],
    ("envs_per_region=12",): ["ppo.memory_size is 128", "use 96 or 192"],
    ("ppo.minibatch_size=24",): ["ppo.minibatch_size is 24", "use 16 or 32"],
    ("ppo.minibatch_size=512",): ["ppo.minibatch_size is 512", "use 128"],
    ("policy.sequence_length=3",): ["policy.sequence_length is 3", "use 2 or 4"],
    ("policy.sequence_length=16",): ["policy.sequence_length is 16", "use 8"],
    ("ppo.minibatch_size=4",): ["ppo.minibatch_size is 4", "policy.sequence_length=8", "use 8"],
    ("total_steps=250_000",): ["total_steps is 250000", "use 200000 or 300000"],
    ("total_steps=50",): ["total_steps is 50", "at least 128"],
    ("total_steps=50_000",): ["total_steps is 50000", "use 100000, or lower evaluate_every to 50000"],
    ("evaluate_every=10_000", "segment_every=20_000"): ["use 20000, or lower segment_every to 10000"],
    ("retrain_every=150_000",): ["retrain_every is 150000", "use 100000 or 200000"],
    ("evaluate_every=100", "total_steps=1000"): ["evaluate_every is 100", "at least 128"],
    ("total_steps=10**9",): ["total_steps is '10**9'"],
    ("total_steps=1_000_000_000_000",): ["evaluate_every is 100000", "at least 10000000"],
    ("dataset_size=199",): ["dataset_size is 199", "at least 200"],
    ("dataset_size=1050",): ["dataset_size is 1050", "warehouse.horizon=100", "use 1000 or 1100"],
    ("warehouse.horizon=6000",): ["dataset_size is 10000", "at least 12000"],
    ("dataset_size=200", "influence.held_out=0.8"): ["influence.held_out is 0.8", "at most 0.5"],
    ("influence.held_out=1",): ["influence.held_out is 1", "none of 100 episodes", "at most 0.99"],
}


@pytest.mark.parametrize("overrides", BROKEN_COMBINATIONS)
def test_an_impossible_combination_is_refused_with_its_remedy(overrides):
    message = refusal(load, None, overrides)
    for text in BROKEN_COMBINATIONS[overrides]:
        assert text in message


def test_a_config_made_in_code_is_checked_too():
    assert "ppo.memory_size" in refusal(lambda: dataclasses.replace(Config(), envs_per_region=12))


def test_a_combination_names_the_file_it_came_from(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("envs_per_region: 12\n")
    assert refusal(load, str(file)).startswith(f"{file}: ppo.memory_size")
    assert refusal(load, str(file), ["seed=1"]).startswith(f"{file} with its overrides: ")


# Ambiguous numbers ---------------------------------------------------------------------------------------

ODD_FORMS = {
    "010": ["octal 8", "write 10 (or 8)"],
    "-010": ["octal -8", "write -10 (or -8)"],
    "+0_17": ["octal 15", "write 17 (or 15)"],
    "08": ["leading zero", "write 8"],
    "00": ["leading zero", "write 0"],
    "007.5": ["leading zero", "write 7.5"],
    "00.5": ["leading zero", "write 0.5"],
    "01e3": ["leading zero", "write 1e3"],
    "0o10": ["octal", "write 8"],
    "0x1F": ["hexadecimal", "write 31"],
    "-0x1_f": ["hexadecimal", "write -31"],
    "0b11": ["binary", "write 3"],
    "1:30": ["90 in YAML 1.1", "write 90"],
    "190:20:30.15": ["685230.15 in YAML 1.1", "write 685230.15"],
    "1_0": ["underscores", "write 10"],
    "1__000": ["underscores", "write 1000"],
    "10_00.5": ["underscores", "write 1000.5"],
    "0.00_1": ["underscores", "write 0.001"],
    ".00_1": ["underscores", "write 0.001"],
    "yes": ["true in YAML 1.1", "write true"],
    "Off": ["false in YAML 1.1", "write false"],
}


@pytest.mark.parametrize("text", ODD_FORMS)
@pytest.mark.parametrize("key", ["seed", "mode", "ppo.clip", "ppo.anneal"])
def test_a_number_that_is_read_in_several_ways_is_refused(key, text, tmp_path):
    """On the command line and in a file, for settings of any type; the message suggests values."""
    section, _, name = key.rpartition(".")
    file = tmp_path / "some.yaml"
    file.write_text(f"{section}: {{{name}: {text}}}\n" if section else f"{name}: {text}\n")
    for message in (refusal(load, None, [f"{key}={text}"]), refusal(load, str(file))):
        assert f"{text}" in message and all(part in message for part in ODD_FORMS[text]), message
    assert f"{name} is {text}" in refusal(load, str(file))


def test_such_numbers_are_refused_in_lists_and_as_keys():
    assert "line 1, column 5" in refusal(parse, "a: [010, 1]", "x") and "write 10" in refusal(
        parse, "a: [010, 1]", "x"
    )
    for text in ("010: 1", "on: 1", "? 1:30\n: 1"):
        assert "write" in refusal(parse, text, "x")


@pytest.mark.parametrize("text", ["\uff11\uff12", "٣", "\uff11.5", "²", "0x", "_1"])
def test_digits_of_other_scripts_are_not_numbers(text):
    for key in ("seed", "ppo.learning_rate"):
        assert "number" in refusal(load, None, [f"{key}={text}"])


@pytest.mark.parametrize("text", ["'010'", '"1:30"', "2001-01-01", "<<", "=", "y", "1.2.3", "0xg"])
def test_texts_stay_texts(text):
    assert parse(f"a: {text}", "x") == {"a": text.strip("'\"")}


@pytest.mark.parametrize(("text", "meant"), [("y", "true"), ("N", "false"), ("'on'", "true")])
def test_a_text_like_a_truth_value_is_refused_for_a_truth_value(text, meant):
    assert f"(write {meant})" in refusal(load, None, [f"ppo.anneal={text}"])


FORMS = {
    "5": 5, "+5": 5, "-0": 0, "8_000_000": 8_000_000, "1_000": 1000, ".5": 0.5, "5.": 5.0, "-1.5": -1.5,
    "1.0e-05": 1e-5, "1.5e3": 1500.0, "1_000.5": 1000.5, "true": True, "FALSE": False, "~": None,
    "null": None, ".inf": float("inf"),
}  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_unambiguous_numbers_are_read(text):
    found = parse_value(text, "x")
    assert found == FORMS[text] and type(found) is type(FORMS[text])


SCALARS = st.one_of(
    st.text("0123456789_.:eE+-xobaAyYnNosf~<=#", min_size=1, max_size=7),
    st.sampled_from([*ODD_FORMS, *FORMS]),
    st.text(max_size=8),
)


@given(text=SCALARS)
def test_a_number_is_the_same_to_python_and_to_yaml_1_1(text):
    """PyYAML may read it as a text or refuse it; if PyYAML reads a number, it is the same one."""
    try:
        ours = parse_value(text, "x")
    except BadInput:
        return
    if type(ours) in (int, float) and not text.strip().lower().lstrip("+-").startswith((".inf", ".nan")):
        plain = text.partition(" #")[0].strip().replace("_", "")
        assert ours == float(plain) and type(ours) is (int if plain.lstrip("+-").isdigit() else float)
    with contextlib.suppress(yaml.YAMLError, ValueError):
        theirs = yaml.safe_load(text)
        if type(theirs) in (int, float, bool) and theirs == theirs:
            assert type(ours) is type(theirs) and ours == theirs


@given(
    value=st.recursive(
        st.one_of(SCALARS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
        lambda inner: st.lists(inner, max_size=3),
    )
)
def test_written_values_are_read_back_by_both_loaders(value):
    """By the loader of the package, and by PyYAML alone, which users' scripts use."""
    text = scalar(value)
    assert parse_value(text, "x") == value == yaml.safe_load(text)


# Accepted values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "ppo:\n", "ppo: {}\n", "\ufeff"])
def test_empty_means_the_defaults(text, tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text(text, encoding="utf-8")
    assert load(str(file)) == load(None) == Config()


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4", ".0001"])
def test_a_number_may_be_written_in_any_way(text):
    assert load(None, [f"ppo.learning_rate={text}"]).ppo.learning_rate == 1e-4


def test_an_int_is_a_number_too():
    config = load(None, ["ppo.clip=1"])
    assert config.ppo.clip == 1 and isinstance(config.ppo.clip, float)
    assert config.digest() == load(None, ["ppo.clip=1.0"]).digest()


def test_overrides_take_precedence_over_the_file_and_later_over_earlier_ones(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("seed: 1\nppo: {clip: 0.3}\nwarehouse: {grid: [3, 4], ring: false}\n")
    config = load(str(file), ["warehouse.grid=[5,5]", "seed=2", " seed = 3 ", "warehouse.ring_policy=oldest"])
    assert config.seed == 3 and config.ppo.clip == 0.3
    section = config.domain_section
    assert (section.grid, section.ring, section.ring_policy) == ((5, 5), False, "oldest")


def test_an_override_may_correct_the_file(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("seed: -1\n")
    assert load(str(file), ["seed=5"]).seed == 5


def test_a_feedforward_policy_has_no_sequences():
    config = load(None, ["policy.architecture=fnn", "policy.sequence_length=7", "ppo.minibatch_size=4"])
    assert config.policy.architecture == "fnn"


def test_predictors_that_are_fitted_once_need_no_multiple():
    assert load(None, ["retrain_every=123_456_789"]).retrain_every == 123_456_789


def test_shares_of_the_dataset():
    assert load(None, ["dataset_size=200"]).held_out_episodes == 1
    config = load(None, ["dataset_size=1500", "influence.held_out=0.2"])
    assert (config.dataset_episodes, config.held_out_episodes, config.steps_per_env) == (15, 3, 8)


# Writing and identity ------------------------------------------------------------------------------------

ODD = [
    "seed=4294967295",
    "mode=untrained",
    "ppo.learning_rate=1e-17",
    "ppo.adam_epsilon=0.1234567890123456789",
    "policy.hidden=[1,4096]",
    "ppo.anneal=false",
    "warehouse.grid=[1,7]",
]


@pytest.mark.quick
@pytest.mark.parametrize("overrides", [[], ODD])
def test_written_configurations_are_read_back(overrides, tmp_path):
    config = load(None, overrides)
    text = config.to_yaml()
    assert from_yaml(text) == config == pickle.loads(pickle.dumps(config))
    assert from_yaml(text).to_yaml() == text and from_yaml(text).digest() == config.digest()
    file = tmp_path / "written.yaml"
    file.write_text(text)
    assert load(str(file)) == config


def test_written_configurations_have_a_comment_for_every_key():
    lines = Config().to_yaml().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("# "), line
    keys = {key.rpartition(".")[2] for key in settings.flat(Config())}
    assert keys <= {line.split(":")[0].strip() for line in lines}


def test_every_default_is_valid():
    written = yaml.safe_load(Config().to_yaml())
    assert settings.flat(settings.build(Config, written, "defaults")) == settings.flat(Config())


CHANGES = {
    "sinks": "[csv]",
    "segment_every": "50000",
    "schedule": "overlapped",
    "mode": "global",
    "retrain_every": "200_000",
    "total_steps": "200_000",
    "evaluate_every": "200_000",
    "dataset_size": "500",
    "envs_per_region": "8",
    "warehouse.grid": "[10,9]",
    "warehouse.block": "[2,5]",
    "warehouse.horizon": "50",
    "warehouse.ring_policy": "oldest",
    "policy.sequence_length": "4",
    "policy.architecture": "fnn",
    "policy.hidden": "[64,64]",
    "ppo.rollout_steps": "4",
    "ppo.memory_size": "256",
    "ppo.minibatch_size": "64",
    "ppo.time_limit": "terminal",
    "ppo.max_gradient_norm": 0.5,
    "influence.architecture": "fnn",
    "influence.hidden": "[64,32]",
    "influence.held_out": "0.2",
    "influence.heads": "autoregressive",
    "influence.patience": 3,
    "influence.start": "first",
    "influence.refit_epochs": 3,
    "datasets": "all",
    "datasets_from": "runs/kept",
    "policies_from": "runs/kept",
    "predictors_from": "runs/kept",
    "learner": "mine:Learner",
    "policy.share": "kind",
}


def changed(key: str, value: Any) -> str:
    """Another value for a setting that leaves the configuration valid."""
    if key in CHANGES:
        return CHANGES[key]
    if isinstance(value, bool):
        return str(not value)
    return str(value + 1 if isinstance(value, int) else value / 2)


def test_the_digest_changes_with_every_value_that_affects_results():
    values = settings.flat(Config())
    for key in ("domain", "match_by"):  # of the second, see test_warm_start.py
        del values[key]
    # Of networks in PyTorch, see test_torch_network.py; of a learner.
    for key in ("policy.arguments", "influence.arguments", "learning.device", "learner_arguments"):
        del values[key]
    digests = {key: load(None, [f"{key}={changed(key, value)}"]).digest() for key, value in values.items()}
    own = [["learner=mine:Learner", *more] for more in ([], ["learner_arguments={rate: 0.5}"])]
    assert len({load(None, words).digest() for words in own}) == 2
    same = {key for key, digest in digests.items() if digest == Config().digest()}
    kept = {"checkpoint_every", "checkpoint_minutes", "checkpoint_keep", "datasets", "sinks"}
    assert same == {*kept, "silence", "global_ranks", "collect_chunk", "checkpoint_writers"}
    assert len(set(digests.values())) == len(values) - len(same) + 1


ARGUMENTS = "{rate: 1e-4, layers: [64, 1_000], names: {of: MlpPolicy, none: null}, on: true}"


def test_arguments_of_a_class_are_plain_values():
    config = load(None, ["learner=mine:Learner", f"learner_arguments={ARGUMENTS.replace('on:', 'log:')}"])
    assert config.learner_arguments == {
        "rate": 1e-4,
        "layers": [64, 1000],
        "names": {"of": "MlpPolicy", "none": None},
        "log": True,
    }
    assert from_yaml(config.to_yaml()) == config and hash(from_yaml(config.to_yaml())) == hash(config)


@pytest.mark.parametrize("value", ["3", "[a]", "{1: 2}", "{a b: 2}", "{a: .inf}", "{a: {1: 2}}"])
def test_other_arguments_are_refused(value):
    with pytest.raises(BadInput, match="but must be a mapping of plain values, such as"):
        load(None, ["learner=mine:Learner", f"learner_arguments={value}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learner_arguments={a: 1}"], "learner=ppo has its settings in the section ppo: remove"),
        (["learner=mine:Learner", "mode=global"], "use mode=dials or untrained, or learner=ppo"),
        (
            ["learner=mine:Learner", "ppo.memory_size=40"],
            "is not a multiple of envs_per_region=16: use 32 or",
        ),
    ],
)
def test_a_learner_of_ones_own_excludes_some_settings(words, said):
    with pytest.raises(BadInput) as refusal:
        load(None, words)
    assert said in str(refusal.value)


def test_a_learner_of_ones_own_needs_no_minibatches_or_sequences():
    own = load(None, ["learner=mine:Learner", "ppo.memory_size=48", "ppo.minibatch_size=7"])
    assert own.steps_per_env == 3


def test_the_digest_is_that_of_files_from_before_the_newer_settings():
    assert Config().digest() == "d9e6b5c099b6186a7334829ec117e4232ad7aa7f8df2e77f0ecb8de188fe4c77"


def test_the_digest_is_that_of_the_content():
    text = "seed: 3\nppo:\n  clip: 0.2\n  epochs: 4\n"
    shuffled = "# a comment\nppo: {epochs: 4, clip: 2.0e-1}  # another\nmode: dials\nseed: +3\n"
    assert from_yaml(text).digest() == from_yaml(shuffled).digest()
    assert len(Config().digest()) == 64 and int(Config().digest(), 16)


# Segments ------------------------------------------------------------------------------------------------


def counted(config: Config) -> list[Segment]:
    """The segments, by counting updates one at a time."""
    found, steps, updates, first = [], 0, 0, 0
    while steps < config.total_steps:
        steps += config.ppo.memory_size
        updates += 1
        every = config.segment_every or config.evaluate_every
        if steps >= (len(found) + 1) * every:
            start, end = len(found) * every, (len(found) + 1) * every
            refit = config.mode == "dials" and start % config.retrain_every == 0
            evaluate = end in range(0, config.total_steps + 1, config.evaluate_every)
            found.append(Segment(len(found), first, updates - first, steps, refit, evaluate))
            first = updates
    return found


@given(
    memory=st.integers(1, 60),
    every=st.integers(0, 200),
    count=st.integers(1, 12),
    refit=st.integers(1, 15),
    mode=st.sampled_from(["dials", "untrained", "global"]),
    parts=st.sampled_from([None, 1, 2, 5]),
)
@hypothesis_settings(deadline=None, max_examples=150, derandomize=True)
def test_segments_agree_with_counting_updates_one_by_one(memory, every, count, refit, mode, parts):
    segment_every = memory + every if parts else 0
    every = segment_every * parts if parts else memory + every
    ppo = dataclasses.replace(
        Config().ppo, rollout_steps=1, memory_size=memory, minibatch_size=memory, normalise_advantages=False
    )
    config = Config(
        mode=mode,
        total_steps=every * count,
        evaluate_every=every,
        segment_every=segment_every,
        retrain_every=every * refit,
        envs_per_region=1,
        ppo=ppo,
        policy=dataclasses.replace(Config().policy, sequence_length=memory),
    )
    assert segments(config) == counted(config)
    assert config.total_updates == sum(segment.updates for segment in segments(config))


@pytest.mark.quick
def test_segments_of_the_paper():
    run = segments(Config())
    assert len(run) == 40 and run[-1].env_steps == 4_000_000
    assert run[0] == Segment(0, 0, 782, 100_096, True, True)
    assert run[1] == Segment(1, 782, 781, 200_064, False, True)
    assert [s.index for s in run if s.refit] == [0]
    assert [s.index for s in segments(load(None, ["retrain_every=1_000_000"])) if s.refit] == [
        0,
        10,
        20,
        30,
    ]
    assert not any(s.refit for s in segments(load(None, ["mode=untrained"])))


# The shipped files ---------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize(
    "file", sorted(CONFIGS.glob("[wt]*/*.yaml")), ids=lambda file: str(file.relative_to(CONFIGS))
)
def test_every_shipped_file_loads(file):
    config = load(str(file))
    assert from_yaml(config.to_yaml()) == config


WAREHOUSE = {
    "influence.architecture": "gru",
    "influence.hidden": (64, 64),
    "influence.learning_rate": 1e-4,
    "dataset_size": 10_000,
    "influence.batch_size": 32,
    "influence.epochs": 300,
    "warehouse.horizon": 100,  # Table 4's sequence length
    "policy.architecture": "gru",
    "policy.hidden": (256, 128),
    "policy.sequence_length": 8,
    "ppo.rollout_steps": 8,
    "warehouse.item_probability": 0.02,
    "warehouse.ring": True,
    "retrain_every": 4_000_000,
}
TRAFFIC = {
    "influence.architecture": "fnn",
    "influence.hidden": (128, 128),
    "influence.learning_rate": 1e-4,
    "dataset_size": 9_900,  # whole episodes, next to the 1e4 of Table 4
    "influence.batch_size": 128,
    "influence.epochs": 100,
    "traffic.horizon": 300,
    "traffic.inflow": 0.1,
    "policy.architecture": "fnn",
    "policy.hidden": (256, 128),
    "ppo.rollout_steps": 16,
    "retrain_every": 1_000_000,
}
BOTH = {
    "ppo.learning_rate": 2.5e-4,
    "ppo.discount": 0.99,
    "ppo.gae_lambda": 0.95,
    "ppo.memory_size": 128,
    "ppo.minibatch_size": 32,
    "ppo.epochs": 3,
    "ppo.entropy_coefficient": 1e-2,
    "ppo.clip": 0.1,
    "ppo.value_coefficient": 1,
    "total_steps": 4_000_000,
    "mode": "dials",
}


@pytest.mark.parametrize("agents", GRIDS)
@pytest.mark.parametrize(("domain", "own"), [("warehouse", WAREHOUSE), ("traffic", TRAFFIC)])
def test_the_files_of_the_paper_have_the_values_of_tables_4_to_6(domain, own, agents):
    file = CONFIGS / domain / f"{agents}.yaml"
    values, tables = settings.flat(load(str(file))), {**BOTH, **own, "domain": domain}
    assert {key: values[key] for key in tables} == tables
    assert values[f"{domain}.grid"] == GRIDS[agents]
    written = yaml.safe_load(file.read_text())
    for key in tables:
        head, _, name = key.rpartition(".")
        assert name in (written[head] if head else written), f"{key} is not spelt out"


def test_the_defaults_are_the_papers_largest_system():
    assert load(str(CONFIGS / "warehouse" / "100.yaml")) == load(None)


@pytest.mark.parametrize("domain", ["warehouse", "traffic"])
def test_the_first_commands_are_small(domain):
    config = load(str(CONFIGS / domain / "fast.yaml"))
    assert config.domain_section.grid == (2, 2)
    assert config.total_steps <= 500_000 and len([s for s in segments(config) if s.refit]) == 1


# Settings on their own -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mill:
    """A toy section."""

    sails: int = setting(4, "Sails", low=2)
    names: tuple[str, ...] = setting(("a",), "Names")


@dataclass(frozen=True)
class Pump:
    """Another."""

    pressure: float = setting(1.5, "Bar", high=9)


PLACES = {"mill": Mill, "pump": Pump}


def place_of(value: str) -> tuple[str, type]:
    return ("far", Pump) if value == "far:Pump" else (value, PLACES[value])


@dataclass(frozen=True)
class Toy:
    """A configuration with a section that another setting chooses."""

    place: str = setting("mill", "Where", choices=("mill", "pump", "far:Pump"))
    title: str = setting("x", "A text")
    there: Any = field(
        default_factory=Mill, metadata=section_chosen_by("place", tuple(PLACES), place_of, "There.")
    )
    spare: Pump = field(default_factory=Pump, metadata=section("A spare pump."))


def toy(text: str, *overrides: str) -> Toy:
    return settings.build(Toy, parse(text, "toy"), "toy", overrides)


@pytest.mark.quick
def test_a_setting_chooses_a_section():
    assert toy("mill: {sails: 6, names: [a, b]}").there == Mill(6, ("a", "b"))
    assert toy("place: pump\npump: {pressure: 2}").there == Pump(2.0)
    assert toy("", "place=pump", "pump.pressure=3").there == Pump(3.0)
    assert toy("place: pump") == Toy("pump", there=Pump())


def test_only_the_chosen_section_is_accepted():
    assert "place=pump: remove it" in refusal(toy, "pump: {pressure: 2}")
    assert "place=mill: remove it" in refusal(toy, "mill: {sails: 3}", "place=pump")
    assert "place=pump: remove it" in refusal(toy, "", "pump.pressure=2")
    assert "one of mill, pump" in refusal(toy, "", "place=well")


@pytest.mark.quick
def test_one_sided_bounds_and_lists_of_any_length():
    assert "at least 2" in refusal(toy, "mill: {sails: 1}")
    assert "at most 9" in refusal(toy, "spare: {pressure: 10}")
    assert "a list of values, each a text" in refusal(toy, "mill: {names: [1]}")
    assert toy("mill: {names: []}").there.names == ()


@given(title=st.text(max_size=40), names=st.lists(st.text(max_size=20)), pressure=st.floats(-1e300, 9))
@hypothesis_settings(deadline=None, max_examples=200, derandomize=True)
@example(title="\ud800", names=["1e5", "null", "- x", "#", "\x85", "\ufeff"], pressure=-0.0)
def test_any_text_and_number_is_read_back(title, names, pressure):
    before = Toy("mill", title, Mill(5, tuple(names)), Pump(pressure))
    assert toy(settings.dump(before)) == before


# Random input -------------------------------------------------------------------------------------------

VALID = yaml.safe_dump(yaml.safe_load((CONFIGS / "warehouse" / "4.yaml").read_text()), sort_keys=False)
KEYS = list(settings.flat(Config()))
JUNK = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="[]{}:,-#&*!|>'\"%@`? \t\n.=~<x10e_", max_size=8),
    st.sampled_from(
        ["1e999", "0x", "0b_", "1:30", "2001-1-1", "=", "<<", "null", "---", "...", "- ", "\x85"]
    ),
)
quick = hypothesis_settings(
    deadline=None, max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck)
)


def accepts_or_refuses(call, *arguments) -> None:
    try:
        config = call(*arguments)
    except BadInput as error:
        assert str(error).isprintable(), str(error)
    else:
        assert from_yaml(config.to_yaml()) == config


@given(cuts=st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), JUNK), min_size=1, max_size=4))
@quick
def test_a_mutated_file_raises_only_bad_input(cuts):
    text = VALID
    for start, length, junk in cuts:
        text = text[:start] + junk + text[start + length :]
    accepts_or_refuses(from_yaml, text, "mutated")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(
    content=st.dictionaries(
        st.sampled_from([*KEYS, "ppo", "policy", "warehouse"])
        | PLAIN.filter(lambda value: not isinstance(value, list | dict)),
        PLAIN,
        max_size=4,
    )
)
@quick
def test_a_random_mapping_raises_only_bad_input(content):
    accepts_or_refuses(settings.build, Config, content, "mapping")


@given(key=st.sampled_from(KEYS) | st.text(max_size=8), value=JUNK)
@quick
def test_a_random_override_raises_only_bad_input(key, value):
    accepts_or_refuses(load, None, [f"{key}={value}"])
