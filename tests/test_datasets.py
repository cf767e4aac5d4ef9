"""Dataset files: their content, the ranks that write them, and runs that start from them."""

from __future__ import annotations

import os
import signal
import weakref

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, launch, train

import dials_mpi
from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.algorithm.learners import Learners
from dials_mpi.config import from_yaml, load
from dials_mpi.core import signals
from dials_mpi.core.errors import BadInput, StopAtOnce
from dials_mpi.core.seeding import Purpose, stream
from dials_mpi.domains import create
from dials_mpi.domains.base import Region
from dials_mpi.learning.influence import Predictor
from dials_mpi.run.collection import Collection
from dials_mpi.storage import datasets
from dials_mpi.storage.datasets import DatasetFile, RegionData, RegionNames
from dials_mpi.storage.runfile import RunFile

REGIONS, EPISODES = 4, 5
TWO_GLOBAL = (*SMALL, "global_ranks=2", "dataset_size=400", "evaluation_episodes=9")


def region(rng, episodes, inputs, sources, agents, bits=True):
    """Random data of one region, episodes of 7 steps."""
    shape = episodes, 7
    seen = (
        rng.integers(0, 2, (*shape, inputs), np.uint8) if bits else rng.random((*shape, inputs), np.float32)
    )
    return RegionData(
        seen,
        rng.integers(0, 4, (*shape, sources), np.uint8),
        rng.integers(0, 5, (*shape, agents), np.uint8),
        rng.random((*shape, agents), np.float32),
    )


def unequal(rng, episodes):
    """Three regions of different sizes, one with inputs that are not bits."""
    return [
        region(rng, episodes, 19, 2, 1),
        region(rng, episodes, 8, 1, 3),
        region(rng, episodes, 3, 1, 1, bits=False),
    ]


NAMES = [
    RegionNames((0,), (4, 2), ("left", "right")),
    RegionNames((1, 2, 3), (4,)),
    RegionNames((4,), (4,)),
]


def same(one, other):
    return all(
        left.dtype == right.dtype and np.array_equal(left, right)
        for left, right in zip(one, other, strict=True)
    )


def test_written_data_is_read_back(tmp_path):
    written = unequal(np.random.default_rng(0), 6)
    path = datasets.path_of(tmp_path, 0)
    datasets.write(path, written, NAMES, {"env_steps": 0})
    file = DatasetFile(path)
    assert (file.regions, file.attributes["env_steps"]) == (3, 0)
    for k, expected in enumerate(written):
        assert same(file.region(k), expected)
        assert file.shapes(k) == {name: getattr(expected, name).shape for name in RegionData._fields}
        assert file.classes(k) == NAMES[k].classes
    with h5py.File(path) as plain:  # as a user without this package reads it
        packed, bits = plain["regions/0/inputs"][()], plain["regions/0/inputs"].attrs["bits"]
        assert packed.shape == (6, 7, 3)
        assert np.array_equal(np.unpackbits(packed, axis=-1)[..., :bits], written[0].inputs)
        assert list(plain["regions/0"].attrs["source_names"]) == ["left", "right"]
        assert plain["regions/1"].attrs["agents"].tolist() == [1, 2, 3]
        assert plain["regions/0/inputs"].chunks == (6, 7, 3)  # a region is one chunk


@pytest.mark.parametrize("bits", [True, False])
def test_a_dataset_holds_bits_as_bits(bits):
    data = region(np.random.default_rng(0), 6, 37, 4, 1, bits)
    dataset = Dataset(data.inputs, data.sources)
    assert sum(array.nbytes for array in dataset.stored) == 6 * 7 * ((5 if bits else 4 * 37) + 4)
    one = Region((0,), 37, (4,) * 4, input_type="uint8" if bits else "float32")
    room = Dataset.empty(one, 6, 7)
    for part in (slice(0, 4), slice(4, 6)):
        for t in range(7):
            room.record(part, t, data.inputs[part, t], data.sources[part, t])
    for each in (dataset, room):
        assert same(each, data[:2]) and same((each.inputs, each.sources), data[:2])
        assert same(each.some(slice(2, 5)), (data.inputs[2:5], data.sources[2:5]))


def test_a_file_is_written_in_chunks_of_episodes(tmp_path):
    whole = unequal(np.random.default_rng(0), 7)
    path = datasets.path_of(tmp_path, 0)
    with datasets.writing(path, 7, NAMES, {"env_steps": 0}) as put:
        for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
            put(RegionData(*(array[part] for array in region)) for region in whole)
            assert datasets.present(tmp_path) == []  # it is there when all of it is
    for k, expected in enumerate(whole):
        assert same(DatasetFile(path).region(k), expected)


def test_a_signal_between_two_chunks_is_handled_at_once_and_leaves_no_file(tmp_path):
    signals.install_handlers()
    reached = []
    try:
        with pytest.raises(StopAtOnce), datasets.writing(tmp_path / "0.h5", 4, NAMES, {}) as put:
            put(unequal(np.random.default_rng(0), 2))
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the next chunk")
    finally:
        for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            signal.signal(number, action)
    assert (reached, list(tmp_path.iterdir())) == ([], [])


def test_parts_are_read_as_one_file_from_any_folder(tmp_path, monkeypatch):
    parts = [unequal(np.random.default_rng(seed), 2 + seed) for seed in range(3)]
    path = datasets.path_of(tmp_path / "run", 40)
    (tmp_path / "run").mkdir()
    files = [datasets.part_of(path, rank) for rank in range(3)]
    for file, regions in zip(files, parts, strict=True):
        datasets.write(file, regions, NAMES, {})
    assert datasets.present(tmp_path / "run") == []  # parts alone are not a dataset
    datasets.join(path, files, {"env_steps": 40})
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    found = DatasetFile(datasets.path_of(tmp_path / "moved", 40))
    for k in range(3):
        together = [np.concatenate(arrays) for arrays in zip(*(regions[k] for regions in parts), strict=True)]
        assert same(found.region(k), RegionData(*together))
        assert found.shapes(k)["inputs"] == together[0].shape


def test_older_files_and_parts_without_a_file_are_removed(tmp_path):
    rng = np.random.default_rng(0)
    for steps in (0, 100, 20):
        datasets.write(datasets.path_of(tmp_path, steps), unequal(rng, 2), NAMES, {})
    for steps in (20, 100, 300):
        datasets.write(datasets.part_of(datasets.path_of(tmp_path, steps), 1), unequal(rng, 2), NAMES, {})
    assert [path.stem for path in datasets.present(tmp_path)] == ["100", "20", "0"]
    datasets.remove_older(tmp_path)
    assert sorted(path.name for path in (tmp_path / datasets.FOLDER).iterdir()) == ["100-part1.h5", "100.h5"]


def test_a_damaged_file_is_refused_in_one_sentence(tmp_path):
    path = datasets.path_of(tmp_path, 0)
    datasets.write(path, unequal(np.random.default_rng(0), 2), NAMES, {})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadInput, match=r"0\.h5 is not a dataset file, or a damaged one"):
        DatasetFile(path)


def test_refitting_from_the_file_gives_the_weights_of_the_run(trained):
    run = trained(*SMALL, "total_steps=128", ranks=3)
    config = from_yaml(RunFile(run).configuration())
    domain = create(config.domain, config.domain_section)
    file = DatasetFile(run / "datasets" / "0.h5")
    stored = content(run / "run.h5")["predictor/parameters"]
    assert file.regions == len(stored) == REGIONS
    for k in range(REGIONS):
        predictor = Predictor(config.influence, domain.regions[k], trainable=True)
        predictor.network.initialise(stream(config.seed, Purpose.PREDICTOR_INITIALISATION, k))
        before = predictor.network.vector.copy()
        data = file.region(k)
        predictor.fit(data.inputs, data.sources, stream(config.seed, Purpose.INFLUENCE_FIT, k))
        assert np.array_equal(predictor.network.vector, stored[k])
        assert not np.array_equal(before, stored[k])


def test_actions_and_rewards_are_those_of_the_episodes(trained):
    """With the file's actions, the global simulator gives the file's rewards, inputs and sources again."""
    run = trained(*SMALL, "total_steps=128", ranks=3)
    config = from_yaml(RunFile(run).configuration())
    domain = create(config.domain, config.domain_section)
    file = DatasetFile(run / "datasets" / "0.h5")
    regions = [file.region(k) for k in range(REGIONS)]
    episodes = [stream(config.seed, Purpose.COLLECT, episode) for episode in range(EPISODES)]
    simulator = domain.global_simulator(episodes)
    state = simulator.reset()
    for t in range(domain.horizon):
        for k, data in enumerate(regions):
            assert np.array_equal(data.inputs[:, t], state.inputs[k])
        actions = np.stack([data.actions[:, t, 0] for data in regions]).astype(np.int64)
        state, sources, rewards, _ = simulator.step(actions)
        for k, data in enumerate(regions):
            assert np.array_equal(data.sources[:, t], sources[k])
            assert np.array_equal(data.rewards[:, t, 0], rewards[k])
    assert len(np.unique(np.concatenate([data.actions.ravel() for data in regions]))) > 1


def test_two_global_ranks_write_the_same_data_as_one(trained):
    alone, shared = trained(*TWO_GLOBAL), trained(*TWO_GLOBAL, ranks=4)
    names = sorted(path.name for path in (shared / "datasets").iterdir())
    assert names == ["128-part0.h5", "128-part1.h5", "128.h5"]
    assert [path.name for path in (alone / "datasets").iterdir()] == ["128.h5"]
    one, other = (DatasetFile(run / "datasets" / "128.h5") for run in (alone, shared))
    assert one.attributes["env_steps"] == other.attributes["env_steps"] == 128
    for k in range(REGIONS):
        assert same(one.region(k), other.region(k))


@pytest.mark.parametrize(
    ("words", "ranks"),
    [((), None), ((), 4), (("schedule=overlapped", "total_steps=384"), 4)],
    ids=["one rank", "two global ranks", "overlapped"],
)
def test_chunks_of_episodes_change_no_result(words, ranks, trained):
    """20 episodes are chunks of 8, 8 and 4; of two global ranks the first has two and the other one."""
    words = (*TWO_GLOBAL, *words, "datasets=all")
    whole, cut = trained(*words), trained(*words, "collect_chunk=3", ranks=ranks)
    expected, found = content(whole / "run.h5"), content(cut / "run.h5")
    for name in ("evaluation/returns", "influence/cross_entropy_after", "policy/parameters"):
        assert np.array_equal(expected[name], found[name]), name
    files = datasets.present(whole)
    assert len(files) > 1 and [file.name for file in files] == [each.name for each in datasets.present(cut)]
    for file in files:
        one, other = DatasetFile(file), DatasetFile(cut / "datasets" / file.name)
        assert all(same(one.region(k), other.region(k)) for k in range(REGIONS))


def test_a_rank_holds_one_chunk_at_a_time(tmp_path, monkeypatch):
    """What a global rank has played is freed before it plays more, and before the policies train."""
    played, counts, play, learn = [], [], Collection.record, Learners.train

    def alive():
        return sum(reference() is not None for reference in played)

    def playing(collection, segment, part):
        counts.append((part[0].stop - part[0].start, alive()))
        found = play(collection, segment, part)
        played.append(weakref.ref(found.datasets[0]))
        return found

    def training(learners, segment):
        counts.append(("train", alive()))
        return learn(learners, segment)

    monkeypatch.setattr(Collection, "record", playing)
    monkeypatch.setattr(Learners, "train", training)
    config = load(None, [*SMALL, "total_steps=128", "dataset_size=400", "collect_chunk=8"])
    dials_mpi.train(config, tmp_path / "run", quiet=True)
    assert counts == [(8, 0), (8, 0), (4, 0), ("train", 0)]


def test_a_global_rank_without_episodes_writes_nothing(trained):
    """Five episodes are one block: one of two global ranks plays them all."""
    alone, shared = trained(*SMALL), trained(*SMALL, "global_ranks=2", ranks=4)
    assert [path.name for path in (shared / "datasets").iterdir()] == ["128.h5"]
    one, other = (DatasetFile(run / "datasets" / "128.h5") for run in (alone, shared))
    for k in range(REGIONS):
        assert len(one.region(k).rewards) == EPISODES
        assert same(one.region(k), other.region(k))


@pytest.mark.parametrize(("kept", "expected"), [("none", []), ("last", [128]), ("all", [128, 0])])
def test_the_setting_datasets_decides_which_files_are_kept(kept, expected, trained):
    run = trained(*SMALL, f"datasets={kept}")
    assert [int(path.stem) for path in datasets.present(run)] == expected
    assert (run / "datasets").exists() == bool(expected)


def test_the_joint_policy_of_an_overlapped_run_is_one_segment_older(trained):
    run = trained(*SMALL, "total_steps=384", "schedule=overlapped", "datasets=all")
    found = {path.stem: DatasetFile(path).attributes["policy_env_steps"] for path in datasets.present(run)}
    assert found == {"0": 0, "128": 0, "256": 128}


def test_names_of_the_sources_are_those_of_the_domain(trained):
    run = trained(*SMALL, "datasets=all")
    config = load(None, [word for word in SMALL if "=" in word])
    names = [source.name for source in create("warehouse", config.domain_section).sources(1)]
    with h5py.File(run / "datasets" / "0.h5") as file:
        assert list(file["regions/1"].attrs["source_names"]) == names


def test_a_run_that_starts_from_its_own_datasets_gives_the_same_results(trained, tmp_path):
    kept = trained(*SMALL, "datasets=all")
    again = tmp_path / "again"
    result = train(*SMALL, f"datasets_from={kept}/datasets/0.h5", "--output", str(again), ranks=3)
    assert (result.code, result.stderr) == (0, "")
    expected, found = content(kept / "run.h5"), content(again / "run.h5")
    for name in ("evaluation/returns", "influence/cross_entropy_after", "policy/parameters"):
        assert np.array_equal(expected[name], found[name]), name
    assert [path.name for path in datasets.present(again)] == ["128.h5"]  # the first was not collected


def test_several_global_ranks_read_their_shares(trained, tmp_path):
    kept = trained(*TWO_GLOBAL, "datasets=all", ranks=4)
    words = (*TWO_GLOBAL, f"datasets_from={kept}/datasets/0.h5", "--output", str(tmp_path / "again"))
    result = train(*words, ranks=4)
    assert (result.code, result.stderr) == (0, "")
    expected, found = content(kept / "run.h5"), content(tmp_path / "again" / "run.h5")
    for name in ("evaluation/returns", "influence/cross_entropy_after", "policy/parameters"):
        assert np.array_equal(expected[name], found[name]), name


def test_a_resumed_run_does_not_need_datasets_from(trained, tmp_path):
    kept = trained(*SMALL, "total_steps=128")
    own = tmp_path / "kept.h5"
    own.write_bytes((kept / "datasets" / "0.h5").read_bytes())
    words = (*SMALL, "ppo.anneal=false", f"datasets_from={own}", "--output", str(tmp_path / "out"))
    assert train(*words, "total_steps=128").code == 0
    own.unlink()
    result = train(*words, "--resume")
    assert (result.code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("warehouse.grid=[2,3]",), "has 4 regions and this system has 6"),
        (("dataset_size=200",), "set dataset_size=100"),
        (("warehouse.horizon=10",), "has other regions"),
        (("mode=untrained",), "fits no predictors"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(words, said, trained, tmp_path):
    kept = trained(*SMALL, "total_steps=128", ranks=3)
    place = f"datasets_from={kept}"
    result = train(*SMALL, place, *words, "--output", str(tmp_path / "out"), ranks=3)
    assert result.code == 2
    assert len(result.ours()) == 1 and said in result.stderr, result.stderr
    assert not (tmp_path / "out" / "run.h5").exists()


def test_several_datasets_are_refused_without_a_choice(trained, tmp_path):
    kept = trained(*SMALL, "datasets=all")
    for place, said in ((kept, "several datasets"), (tmp_path, "no datasets")):
        result = train(*SMALL, f"datasets_from={place}", "--output", str(tmp_path / "out"))
        assert result.code == 2 and said in result.stderr


def test_a_worker_that_only_trains_loads_no_h5py_for_datasets():
    code = "import sys, dials_mpi.run.system; print('h5py' in sys.modules)"
    assert launch("-c", code).stdout.strip() == "False"
