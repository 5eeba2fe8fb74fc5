"""Pairs found by one look-up are those of the long way, and each of their frames is verified when it is first read."""

import random

import numpy as np
import pytest
import torch

from neuralop_kit.datasets import FinalTime, Steps, open_dataset, pair_places, task_dataset
from neuralop_kit.datasets.pair_places import PairPlaces
from neuralop_kit.solvers.errors import DataError
from tests.datasets import tiny
from tests.datasets.test_direct_pairs import gas
from tests.datasets.test_trajectories import FRAMES, Moving

TASKS = [Steps(), Steps(history=2, future=2), FinalTime()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("moving") / "data", problem=Moving())


@pytest.fixture
def answers(monkeypatch):
    """What :meth:`PairPlaces.read` said."""
    said, read = [], PairPlaces.read
    monkeypatch.setattr(PairPlaces, "read", lambda self, *where: said.append(read(self, *where)) or said[-1])
    return said


def batches(data):
    order = list(range(len(data)))
    shuffled = [*order, *order[::3]]
    random.Random(0).shuffle(shuffled)
    return [order, shuffled, shuffled[:5], [order[-1]], [0, 0, 0]]


@pytest.mark.parametrize("task", TASKS, ids=str)
@pytest.mark.parametrize("kept_open", [128, 0])
def test_our_trajectories_of_several_files(folder, task, answers, monkeypatch, kept_open):
    monkeypatch.setattr(task_dataset, "MAX_OPEN_FILES", kept_open)
    data, whole = open_dataset(folder, task=task), open_dataset(folder)
    assert len(data.files) > 1
    trajectories = [whole.trajectories[k] for k in range(len(whole.trajectories))]
    each = task.num_pairs(FRAMES)
    for _ in range(2):
        for batch in batches(data):
            for u, v, index in zip(*data.read(batch), batch, strict=True):
                given, asked = task.frames(index % each, FRAMES)
                assert torch.equal(u, trajectories[index // each][list(given)].flatten(0, 1))
                assert torch.equal(v, trajectories[index // each][list(asked)].flatten(0, 1))
    assert answers
    assert all(answers)


@pytest.mark.filterwarnings("ignore::neuralop_kit.datasets.DataWarning")
def test_pdebench_goes_this_way_too(tmp_path, answers):
    data = open_dataset(gas(tmp_path / "f.hdf5")[0])
    for batch in batches(data):
        data.read(batch)
    assert answers
    assert all(answers)


def damaged_file(folder, path):
    """One frame of one sample with a byte that is not what it was: number 2 of four."""
    source = sorted(folder.glob("data/train/*.hdf5"))[0]
    content = bytearray(source.read_bytes())
    value = open_dataset(source).trajectories[1][2, 1].numpy().tobytes()
    content[content.index(value) + 5] ^= 1
    path.write_bytes(content)
    return open_dataset(path)


def test_a_flipped_byte_is_found_each_time_and_harms_no_other(folder, tmp_path, answers):
    data = damaged_file(folder, tmp_path / "x.hdf5")
    bad, worse = FRAMES, FRAMES + 1  # from frame 1 to 2 and from 2 to 3 of sample 1
    sound = [k for k in range(len(data)) if k not in (bad, worse)]
    for _ in range(2):
        for index in (bad, worse):
            with pytest.raises(DataError, match="wrong checksums"):
                data.read([*sound, index])
        data.read(sound)
    assert True in answers
    assert False in answers


def test_it_is_the_checksum_that_finds_it(folder, tmp_path, monkeypatch):
    """The negative control: nobody compares."""
    monkeypatch.setattr(pair_places, "matches", lambda chunks, stored: np.ones(len(chunks), dtype=bool))
    data = damaged_file(folder, tmp_path / "x.hdf5")
    assert len(data.read(range(len(data)))[0]) == len(data)


def test_frames_are_verified_once(folder, monkeypatch):
    looked_at, matches = [], pair_places.matches
    monkeypatch.setattr(pair_places, "matches", lambda c, stored: looked_at.append(len(c)) or matches(c, stored))
    data = open_dataset(folder)
    for batch in batches(data):
        data.read(batch)
    assert len(looked_at) == len(data.files)
    data.verify()
    assert len(looked_at) == len(data.files)
