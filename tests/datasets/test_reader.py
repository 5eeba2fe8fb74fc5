"""Reading: order, laziness, few open files, loaders with forked and spawned workers."""

import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from neuralop_kit.datasets import FieldDataset, open_dataset, reader
from neuralop_kit.solvers.errors import ArgumentError, DataError
from tests.datasets import tiny


@pytest.fixture
def train(whole) -> FieldDataset:
    return open_dataset(whole)


def everything(data: FieldDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return data.read(range(len(data)))


def num_open(folder: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    found = 0
    for link in links:
        try:
            found += link.readlink().is_relative_to(folder)
        except OSError:
            continue
    return found


def test_items_are_pairs_of_fields(train):
    force, target = train[0]
    assert (force.shape, target.shape) == ((1, 5, 7), (2, 5, 7))
    assert force.dtype == torch.float32
    assert (train.input_names, train.target_names) == (("force",), ("potential", "slope"))
    assert train.shape == (5, 7)
    assert len(train) == 11


def test_any_order_gives_the_same_samples(train):
    inputs, targets = everything(train)
    order = list(range(len(train)))
    random.Random(0).shuffle(order)
    order += order[:3]
    shuffled = train.read(order)
    assert torch.equal(shuffled[0], inputs[order])
    assert torch.equal(shuffled[1], targets[order])
    for index in (0, 3, 4, 10, -1, -11):
        assert torch.equal(train[index][0], inputs[index])
        assert torch.equal(train[index][1], targets[index])
    for one, (u, v) in zip(order, train.__getitems__(order), strict=True):
        assert torch.equal(u, inputs[one])
        assert torch.equal(v, targets[one])
    assert train.read([])[0].shape == (0, 1, 5, 7)


@pytest.mark.parametrize("index", [11, -12, 10**9])
def test_index_outside_is_an_index_error(train, index):
    with pytest.raises(IndexError, match="expected indices below 11"):
        train[index]


def test_iteration_ends(train):
    assert len(list(train)) == 11


def test_result_belongs_to_the_caller(train):
    first = train[2][0]
    copy = first.clone()
    first.add_(1.0)
    assert torch.equal(train[2][0], copy)


def test_nothing_is_opened_before_it_is_needed(whole):
    data = open_dataset(whole)
    assert num_open(whole) == 0
    data[0]
    assert num_open(whole) == 1


def test_few_files_stay_open(whole, monkeypatch):
    monkeypatch.setattr(reader, "MAX_OPEN_FILES", 1)
    data = open_dataset(whole)
    expected = everything(open_dataset(whole))
    for index in [0, 10, 5] * 3:
        assert torch.equal(data[index][1], expected[1][index])
        assert num_open(whole) == 1


def test_memory_is_bounded_by_places_not_samples(tmp_path):
    folder = tiny.make(tmp_path / "data", samples=40, resolution=(64, 64), splits={"train": 1})
    data = open_dataset(folder)
    everything(data)
    held = sum(shard.offsets.nbytes + shard.verified.nbytes for shard in data._shards.values())
    assert held == 40 * (3 * 8 + 1)
    assert not any(isinstance(value, torch.Tensor) for value in vars(data).values())
    assert len(pickle.dumps(data)) < 10_000 < 40 * data.description.sample_bytes


def test_pickle_drops_open_files_and_reads_on(train):
    expected = everything(train)
    again = pickle.loads(pickle.dumps(train))
    assert again._shards == {}
    assert torch.equal(everything(again)[1], expected[1])
    assert again.domain == train.domain


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_loader_workers(whole, context):
    data = open_dataset(whole)
    inputs, targets = everything(data)  # files are open in the parent when workers start
    loader = DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context=context)
    for _ in range(2 if context == "fork" else 1):
        batches = list(loader)
        assert torch.equal(torch.cat([u for u, _ in batches]), inputs)
        assert torch.equal(torch.cat([v for _, v in batches]), targets)


def test_forked_readers_do_not_disturb_each_other(whole):
    data = open_dataset(whole)
    inputs, _ = everything(data)
    pids = []
    for seed in range(4):
        pid = os.fork()
        if pid == 0:
            dice = random.Random(seed)
            good = all(torch.equal(data[k][0], inputs[k]) for k in (dice.randrange(11) for _ in range(200)))
            os._exit(0 if good else 1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert torch.equal(data[5][0], inputs[5])


def test_damage_reaches_the_user_of_a_loader(tmp_path):
    folder = tiny.make(tmp_path / "data")
    data = open_dataset(folder)
    value = data[4][0].numpy().tobytes()
    path = folder / "data/train/train-00001.hdf5"
    content = bytearray(path.read_bytes())
    content[content.find(value)] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"wrong checksums of samples \[0\]"):
        list(DataLoader(open_dataset(folder), batch_size=4, num_workers=1, multiprocessing_context="fork"))


def test_file_changed_while_open_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_OPEN_FILES", 1)
    folder = tiny.make(tmp_path / "data")
    data = open_dataset(folder)
    everything(data)
    path = folder / "data/train/train-00000.hdf5"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"\0")
    with pytest.raises(DataError, match="as it was"):
        data[0]


def test_shards_of_two_datasets_do_not_mix(tmp_path):
    first = tiny.make(tmp_path / "first")
    second = tiny.make(tmp_path / "second", resolution=(7, 5))
    name = "data/train/train-00000.hdf5"
    (first / name).write_bytes((second / name).read_bytes())
    with pytest.raises(DataError):
        open_dataset(first)[0]


def test_missing_split_names_those_there_are(tmp_path):
    folder = tiny.make(tmp_path / "data", splits={"test": 1})
    with pytest.raises(ArgumentError, match=r"\['test'\]"):
        open_dataset(folder, "train")


@pytest.mark.parametrize("path", ["missing", "empty", "/dev/zero", "missing/one.hdf5"])
def test_nothing_there_is_our_error(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected"):
        open_dataset(tmp_path / path)


def test_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a device or pipe"):
        open_dataset(tmp_path / "pipe")


def test_verify_reads_everything(tmp_path):
    folder = tiny.make(tmp_path / "data")
    open_dataset(folder).verify()
    path = folder / "data/train/train-00000.hdf5"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected sha256"):
        open_dataset(folder).verify()
