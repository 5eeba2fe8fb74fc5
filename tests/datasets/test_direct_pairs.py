"""Reads that go straight from the file into tensors: the numbers that HDF5 finds, looked at once, of no other file."""

import errno
import os
import random

import h5py
import numpy as np
import pytest
import torch

from neuralop_kit.datasets import FinalTime, Steps, open_dataset, positioned
from neuralop_kit.datasets.positioned import MAX_BUFFERS, OpenFile, read_pieces
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.solvers.errors import DataError, NonFiniteError
from tests.datasets import foreign

SHAPE = (5, 9, 6, 4)
FIELDS = ("density", "pressure", "Vx", "Vy")
TASKS = [Steps(), Steps(history=3), Steps(history=2, future=2, stride=2, first=1), FinalTime()]


def gas(path, *, seed: int = 0, chunks: bool = False):
    """A file of PDEBench's, compressible flow in two dimensions; also what is in it."""
    numbers = np.random.default_rng(seed).random((4, *SHAPE), dtype=np.float32)
    with h5py.File(path, "w") as file:
        for name, values in zip(FIELDS, numbers, strict=True):
            file.create_dataset(name, data=values, chunks=(1, 1, *SHAPE[2:]) if chunks else None)
        for axis, n in zip("xy", SHAPE[2:], strict=True):
            file[f"{axis}-coordinate"] = (np.arange(n) + 0.5) / n
        file["t-coordinate"] = 0.05 * np.arange(SHAPE[1])
        file.attrs["eta"] = file.attrs["zeta"] = file.attrs["M"] = 0.1
    return path, numbers


def shuffled(data) -> list[int]:
    order = [*range(len(data)), *range(0, len(data), 3)]
    random.Random(0).shuffle(order)
    return order


pytestmark = pytest.mark.filterwarnings("ignore::neuralop_kit.datasets.DataWarning")


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_pairs_are_those_of_hdf5(tmp_path, task):
    path, numbers = gas(tmp_path / "f.hdf5")
    data = open_dataset(path, task=task)
    frames = torch.from_numpy(numbers).permute(1, 2, 0, 3, 4)
    order = shuffled(data)
    assert data.files[0].direct(("state",)) is not None
    each = len(data) // SHAPE[0]
    for _ in range(2):
        for batch in (order, sorted(order), list(range(len(data))), [order[0]]):
            for u, v, index in zip(*data.read(batch), batch, strict=True):
                given, asked = task.frames(index % each, SHAPE[1])
                assert torch.equal(u, frames[index // each, list(given)].flatten(0, 1))
                assert torch.equal(v, frames[index // each, list(asked)].flatten(0, 1))


def test_what_lies_in_chunks_is_read_by_hdf5(tmp_path):
    data, other = (open_dataset(gas(tmp_path / f"{c}.hdf5", chunks=c)[0]) for c in (True, False))
    assert data.files[0].direct(("state",)) is None
    order = shuffled(data)
    for ours, theirs in zip(data.read(order), other.read(order), strict=True):
        assert torch.equal(ours, theirs)


def test_steady_pairs_and_inputs(tmp_path):
    nu, u = (np.random.default_rng(k).random((7, 6, 4), dtype=np.float32) for k in range(2))
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["nu"], file["tensor"] = nu, u[:, None]
        file["x-coordinate"], file["y-coordinate"] = (np.arange(6) + 0.5) / 6, (np.arange(4) + 0.5) / 4
        file.attrs["beta"] = 1.0
    data = open_dataset(tmp_path / "darcy.hdf5")
    assert data.files[0].direct(("target", "state")) is not None
    order = shuffled(data)
    given, asked = data.read(order)
    np.testing.assert_array_equal(given[:, 0], nu[order])
    np.testing.assert_array_equal(asked[:, 0], u[order])


@pytest.mark.parametrize(("problem", "is_direct"), [("dam", True), ("reaction", False), ("sorption", False)])
def test_samples_that_are_arrays_of_their_own(tmp_path, problem, is_direct):
    u = foreign.groups(tmp_path / "f.h5", problem)
    data = open_dataset(tmp_path / "f.h5", task=Steps(history=2))
    assert (data.files[0].direct(("state",)) is not None) == is_direct
    order = shuffled(data)
    for _ in range(2):
        for given, asked, (sample, k) in zip(*data.read(order), (divmod(i, 2) for i in order), strict=True):
            np.testing.assert_array_equal(given, u[sample, k : k + 2].reshape(given.shape))
            np.testing.assert_array_equal(asked, u[sample, k + 2])
        for sample in range(len(u)):
            np.testing.assert_array_equal(data.trajectories[sample], u[sample])


@pytest.mark.parametrize("task", [Steps(), Steps(history=2)], ids=str)
def test_vectors_and_tensors_whose_components_come_last(tmp_path, task):
    """The Well's, in two files, with an obstacle that is the same for all."""
    (tmp_path / "train").mkdir()
    states, obstacles = [], []
    for k in range(2):
        fields = foreign.well(tmp_path / "train" / f"{k}.hdf5")
        with h5py.File(tmp_path / "train" / f"{k}.hdf5", "r+") as file:
            file["t0_fields"].attrs["field_names"] = np.array(["density", "obstacle"], dtype=foreign.TEXT)
        flat = [fields[name].reshape(3, 4, 5, 7, -1) for name in ("density", "velocity", "stress")]
        states += list(np.concatenate(flat, axis=-1).transpose(0, 1, 4, 2, 3))
        obstacles += 3 * [fields["obstacle"]]
    data = open_dataset(tmp_path, task=task)
    assert all(file.direct(("state",)) is not None and file.direct(("input",)) is not None for file in data.files)
    order, each = shuffled(data), task.num_pairs(4)
    for _ in range(2):
        for batch in (order, sorted(order), order[:1]):
            for u, v, (sample, k) in zip(*data.read(batch), (divmod(i, each) for i in batch), strict=True):
                given, asked = task.frames(k, 4)
                np.testing.assert_array_equal(u[:-1], states[sample][list(given)].reshape(-1, 5, 7))
                np.testing.assert_array_equal(u[-1], obstacles[sample])
                np.testing.assert_array_equal(v, states[sample][list(asked)].reshape(-1, 5, 7))
        np.testing.assert_array_equal(data.trajectories[4], states[4])


@pytest.mark.parametrize("damage", ["missing", "short", "other type"])
def test_a_damaged_group_harms_no_other(tmp_path, damage):
    u = foreign.groups(tmp_path / "f.h5", "dam")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        values = file["0008/data"][...]
        del file["0008/data"]
        if damage != "missing":
            file["0008/data"] = values[:2] if damage == "short" else values.astype("f8")
    data = open_dataset(tmp_path / "f.h5")
    assert data.files[0].direct(("state",)) is None
    sound = [i for i in range(len(data)) if i // 3 != 5]
    np.testing.assert_array_equal(data.read(sound)[1], np.delete(u, 5, axis=0)[:, 1:].reshape(-1, 1, *u.shape[3:]))
    if damage == "other type":
        np.testing.assert_array_equal(data.trajectories[5], u[5])
    else:
        with pytest.raises(DataError, match="0008"):
            data.read([5 * 3 + 2])


def test_every_number_is_looked_at_when_it_is_first_read(tmp_path):
    path, numbers = gas(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        file["Vx"][3, 4, 1, 1] = np.nan
    data = open_dataset(path)
    each = SHAPE[1] - 1
    sound = [i for i in range(len(data)) if i not in (3 * each + 3, 3 * each + 4)]
    for _ in range(2):
        data.read(sound)
        for bad in (3 * each + 3, 3 * each + 4):
            with pytest.raises(NonFiniteError, match=r"samples \[3\]"):
                data.read([0, bad])
    with pytest.raises(NonFiniteError, match=r"samples \[3\]"):
        data.trajectories[3]
    assert torch.equal(data.trajectories[2], torch.from_numpy(numbers[:, 2]).transpose(0, 1))


def test_large_numbers_are_no_infinities(tmp_path):
    path, _ = gas(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        file["density"][...] = 3e38
    data = open_dataset(path)
    assert data.read(range(len(data)))[0].max() == np.float32(3e38)


def test_numbers_are_looked_at_once(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(np, "vdot", lambda a, b: looks.append(a.size) or 0.0)
    data = open_dataset(gas(tmp_path / "f.hdf5")[0])
    data.read(range(len(data)))
    assert sum(looks) > 0
    looks.clear()
    data.read(shuffled(data))
    data.verify()
    _ = [data.trajectories[i] for i in range(SHAPE[0])]
    assert not looks


def test_another_file_of_this_name_is_looked_at_again(tmp_path):
    path, _ = gas(tmp_path / "f.hdf5")
    data = open_dataset(path)
    everything = range(len(data))
    data.read(everything)
    path.unlink()
    _, numbers = gas(path, seed=1)
    with h5py.File(path, "r+") as file:
        file["Vx"][0, 0, 0, 0] = np.nan
    # The old one is still open; after that, what was known of it means nothing.
    data.read(everything)
    data.files[0].container.close()
    with pytest.raises(NonFiniteError):
        data.read(everything)
    assert torch.equal(data.trajectories[1], torch.from_numpy(numbers[:, 1]).transpose(0, 1))


def test_a_forked_process_opens_its_own(tmp_path):
    data = open_dataset(gas(tmp_path / "f.hdf5")[0])
    order = shuffled(data)
    expected = data.read(order)[0]
    pid = os.fork()
    if pid == 0:
        # What the parent's descriptor would be is taken by another file as soon as it is free.
        good = torch.equal(data.read(order)[0], expected)
        with (tmp_path / "other").open("wb") as other:
            other.write(bytes(10**6))
            good = good and torch.equal(data.read(order)[0], expected)
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert torch.equal(data.read(order)[0], expected)


def test_a_file_that_is_cut_while_open_is_our_error(tmp_path):
    path, _ = gas(tmp_path / "f.hdf5")
    data = open_dataset(path)
    data.read(range(len(data)))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="cut"):
        data.read(range(len(data)))


def test_whole_path_agrees_with_the_short_one(tmp_path, monkeypatch):
    path, _ = gas(tmp_path / "f.hdf5")
    short, whole = open_dataset(path, task=Steps(history=2)), open_dataset(path, task=Steps(history=2))
    order = shuffled(short)
    expected = short.read(order)
    monkeypatch.setattr(FieldFile, "direct", lambda self, roles: None)
    for a, b in zip(expected, whole.read(order), strict=True):
        assert torch.equal(a, b)


# ---- reads at a place


@pytest.mark.parametrize("gap", [0, 4])
def test_pieces_of_several_files_in_any_order_and_twice(tmp_path, gap):
    size, count = 6, 40
    contents = [np.random.default_rng(k).bytes((size + gap) * count) for k in range(3)]
    files = {}
    for k, content in enumerate(contents):
        (tmp_path / f"{k}").write_bytes(content)
        files[7 * k] = OpenFile(os.open(tmp_path / f"{k}", os.O_RDONLY), tmp_path / f"{k}")
    dice = np.random.default_rng(0)
    numbers, pieces = dice.integers(0, 3, 300), dice.integers(0, count, 300)
    numbers[:50], pieces[:50] = 1, np.arange(50) // 2
    buffers = [memoryview(bytearray(size)) for _ in pieces]
    behind = [memoryview(bytearray(gap)) for _ in pieces] if gap else None
    read_pieces(files, pieces * (size + gap), buffers, owners=7 * numbers, behind=behind)
    for k, (number, piece) in enumerate(zip(numbers, pieces, strict=True)):
        whole = contents[number][piece * (size + gap) :][: size + gap]
        assert bytes(buffers[k]) == whole[:size]
        assert not gap or bytes(behind[k]) == whole[size:]
    for file in files.values():
        os.close(file.descriptor)


def in_half(read, descriptor, buffers, place):
    return read(descriptor, [buffers[0][: len(buffers[0]) // 2]], place)


def not_in_memory(*_):
    raise BlockingIOError(errno.EAGAIN, "would wait")


def unknown(*_):
    raise OSError(errno.EOPNOTSUPP, "not supported")


@pytest.mark.parametrize("answer", [in_half, not_in_memory, unknown])
def test_what_is_not_in_memory_is_read_all_the_same(tmp_path, monkeypatch, answer):
    asked, read = [], os.preadv

    def preadv(descriptor, buffers, place, flags=0):
        if not flags:
            return read(descriptor, buffers, place)
        asked.append(place)
        return answer(read, descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(positioned, "AT_ONCE", 8)
    content = np.random.default_rng(0).bytes(4000)
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        for places, is_asked in ((100 * np.random.default_rng(1).permutation(20), True), (100 * np.arange(20), False)):
            asked.clear()
            buffers = [memoryview(bytearray(100)) for _ in places]
            read_pieces({0: OpenFile(file.fileno(), tmp_path / "f")}, 2 * places if is_asked else places, buffers)
            step = 2 if is_asked else 1
            assert [bytes(b) for b in buffers] == [content[step * p :][:100] for p in places.tolist()]
            assert bool(asked) == is_asked


def test_more_pieces_than_the_system_takes_and_a_file_that_ends(tmp_path):
    count = 3 * MAX_BUFFERS
    content = np.random.default_rng(0).bytes(2 * count)
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        files = {0: OpenFile(file.fileno(), tmp_path / "f")}
        buffers = [memoryview(bytearray(2)) for _ in range(count)]
        read_pieces(files, 2 * np.arange(count), buffers)
        assert b"".join(buffers) == content
        with pytest.raises(DataError, match=r"more than .* bytes in .*f, got the end; the file was cut"):
            read_pieces(files, 2 * np.arange(count) + 2, buffers)
