"""Domains that are not of this package: how they are found, their section, and what is refused."""

import sys

import pytest

from dials_mpi.config import from_yaml, load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import DOMAINS, create, find

WELL = """
from dataclasses import dataclass
from dials_mpi.domains.warehouse import Warehouse
from dials_mpi.settings import setting

@dataclass(frozen=True)
class WellConfig:
    grid: tuple[int, int] = setting((1, 2), "Rows and columns", low=1)
    block: tuple[int, int] = setting((1, 1), "Of a region", low=1)
    ring: bool = setting(False, "A border")
    ring_policy: str = setting("closest", "What it goes for", choices=("closest", "oldest"))
    item_probability: float = setting(0.5, "Water", low=0, high=1)
    horizon: int = setting(50, "Steps", low=1)

class Well(Warehouse):
    name = "well"
    Config = WellConfig
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported, under a name that no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(text: str) -> str:
        names.append(f"outside_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_class_from_outside_is_a_domain_with_its_own_section(module):
    place = f"{module(WELL)}:Well"
    config = load(None, [f"domain={place}", "well.item_probability=0.25", "well.grid=[2,3]"])
    assert (config.domain, config.domain_key) == (place, "well")
    assert config.domain_section.item_probability == 0.25
    domain = create(config.domain, config.domain_section)
    assert (type(domain).__name__, len(domain.regions)) == ("Well", 6)
    text = config.to_yaml()
    assert "well:\n  # Rows and columns\n  grid: [2, 3]" in text
    assert from_yaml(text) == config


def test_an_entry_point_gives_a_domain_a_name(module, tmp_path):
    place = f"{module(WELL)}:Well"
    info = tmp_path / "wells-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wells\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dials_mpi.domains]\nwater = {place}\n")
    config = load(None, ["domain=water", "well.horizon=20", "dataset_size=100"])
    assert (config.domain, config.domain_key, config.domain_section.horizon) == ("water", "well", 20)
    with pytest.raises(BadInput, match=r"domain is 'fire': choose warehouse, traffic, city, water, or name"):
        load(None, ["domain=fire"])


def test_a_class_inside_a_class_is_found(module):
    name = module(WELL + "\nclass Town:\n    Well = Well\n")
    assert find(f"{name}:Town.Well")[0].name == "well"


def test_names_here_come_before_those_of_packages(module, tmp_path):
    info = tmp_path / "thieves-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thieves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dials_mpi.domains]\nwarehouse = {module(WELL)}:Well\n")
    assert find("warehouse") == DOMAINS["warehouse"]


def test_mistakes_in_the_section_are_refused_as_in_any_other(module):
    domain = f"domain={module(WELL)}:Well"
    for words, said in (
        (
            ["well.item_probabilty=0.1"],
            "unknown key well.item_probabilty, did you mean well.item_probability",
        ),
        (["well.item_probability=2"], "well.item_probability is 2, but must be a number from 0 to 1"),
        (["warehouse.grid=[2,2]"], "warehouse is read only with domain=warehouse"),
        (["dataset_size=75"], "dataset_size is 75, less than two episodes of 50 steps"),
        (["dataset_size=120"], "dataset_size is 120, which is not a multiple of well.horizon=50"),
    ):
        with pytest.raises(BadInput) as refusal:
            load(None, [domain, *words])
        assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        ("{}:Nothing", "", "has no class Nothing"),
        (
            "{}:WellConfig",
            "",
            "WellConfig has no name, which every domain needs",
        ),
        ("{}", "", "or name a class of your own as module:Class"),
        (":Well", "", "or name a class of your own as module:Class"),
        ("no_such_module:Well", "", "No module named 'no_such_module': install its package, or put"),
        ("{}:Well", "import no_such_thing\n", "No module named 'no_such_thing': install its package"),
        ("{}:Well", "1 / 0\n", "fails: ZeroDivisionError: division by zero"),
        ("{}:Well", "def (:\n", "fails: SyntaxError"),
        ("{}:Well", "Well.name = 'my well'\n", "the name of Well is 'my well': make it an identifier"),
        ("{}:Well", "Well.name = 'ppo'\n", "whose section ppo has the name of another"),
        ("{}:Well", "Well.Config = dict\n", "Well.Config is not a frozen dataclass with a horizon"),
        (
            "{}:Well",
            "WellConfig.__dataclass_fields__.pop('horizon')\n",
            "not a frozen dataclass with a horizon",
        ),
        (
            "{}:Well",
            "from dataclasses import make_dataclass\n"
            "Well.Config = make_dataclass('C', [('horizon', int, 5)], frozen=True)\n",
            "horizon of Well.Config is not made by dials_mpi.settings.setting",
        ),
    ],
)
def test_what_is_no_domain_is_refused_in_a_sentence(module, place, change, said):
    name = module(WELL + "\n" + change)
    with pytest.raises(BadInput) as refusal:
        load(None, [f"domain={place.format(name)}"])
    assert said in str(refusal.value) and "\n" not in str(refusal.value)
