"""``check`` on a city: the report on its files, a map, and the checks with one region or episode at once."""

import sys
from pathlib import Path

import city_common
import pytest
from PIL import Image

from dials_mpi.check import speed
from dials_mpi.check.__main__ import main
from dials_mpi.domains.city import City, CityConfig
from dials_mpi.domains.city.net import read

sys.path.append(str(Path(__file__).parents[1] / "examples" / "relays"))

SECONDS = 20


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    """A configuration file of the small city, and settings that make its episodes short."""
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    busy = city_common.busy()
    file = tmp_path / "city.yaml"
    file.write_text(
        f"domain: city\ncity: {{scenario: '', network: '{busy.network}', routes: ['{busy.routes[0]}'], "
        f"begin: 100, horizon: {SECONDS}}}\n"
        f"dataset_size: {100 * SECONDS}\nenvs_per_region: 2\n"
    )
    return ["--config", str(file)]


def called(capsys, code: int, *words: object) -> tuple[str, str]:
    """What the command prints."""
    with pytest.raises(SystemExit, match=str(code)):
        main([str(word) for word in words])
    return capsys.readouterr()


def test_a_city_is_reported_on_and_keeps_the_contract(words, capsys):
    out, err = called(capsys, 0, *words, "--episodes", 2)
    assert err == ""
    heading, *rows = out.splitlines()
    assert heading.split()[:3] == ["agent", "greens", "links"] and heading.split()[-1] == "signal"
    signals = list(read(city_common.busy().network).signals)
    assert [row.split()[-1] for row in rows[:4]] == signals == ["A0", "A1", "B0", "B1"]
    assert [row.split()[0] for row in rows[:4]] == list("0123")
    assert any("vehicles depart in the window" in row for row in rows[4:])
    assert any("depart outside the window" in row for row in rows[4:])
    assert "wrong" not in out
    for check in (
        *("episodes that begin later, restarts", "environments that begin later", "max-pressure"),
        *("Definition 3", "independent sources", "a step of a local simulator"),
    ):
        assert check in out


def test_the_report_alone_with_a_map(words, capsys, tmp_path):
    out, err = called(capsys, 0, *words, "--survey", "--picture", tmp_path / "map.png")
    assert err == "" and len(out.splitlines()) < 12 and "Definition 3" not in out
    with Image.open(tmp_path / "map.png") as picture:
        colours = {colour[:3] for _, colour in picture.getcolors(10**6)}
    for colour in ("#0072B2", "#E69F00", "#D4D4D4"):  # of two regions, and of junctions
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_a_picture_is_refused_in_one_sentence(words, capsys, tmp_path):
    for wrong, said in (
        ([*words, "--picture", tmp_path / "map.txt"], "--picture is"),
        ([*words, "--picture", tmp_path / "none" / "map.png"], "choose another --picture"),
        (["relays:Relays", "--picture", tmp_path / "map.png"], "the domain relays has no map"),
        (["relays:Relays", "--survey"], "the domain relays reads no files"),
        (["domain=relays:Relays", "--survey"], "the domain relays reads no files"),
    ):
        _, err = called(capsys, 2, *wrong)
        assert err.startswith("dials_mpi: ") and err.count("\n") == 1 and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["city.yaml"]


def test_the_report_names_options_of_the_sumocfg_without_effect(tmp_path):
    given = city_common.busy()
    (tmp_path / "own.sumocfg").write_text(
        f'<configuration><net-file value="{given.network}"/><route-files value="{given.routes[0]}"/>'
        '<begin value="100"/><end value="160"/><lateral-resolution value="0.8"/></configuration>'
    )
    domain = City(CityConfig(scenario=str(tmp_path / "own.sumocfg"), horizon=60))
    assert any("lateral-resolution" in warning for warning in domain.survey().warnings)
