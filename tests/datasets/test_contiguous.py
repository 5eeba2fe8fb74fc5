"""Arrays that are read without HDF5 hold what HDF5 would have read, and whatever is stored otherwise is left to it."""

import os

import h5py
import numpy as np
import pytest

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers import contiguous
from neuralop_kit.datasets.readers.contiguous import ContiguousArray
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.numpy_file import NumpyContainer
from neuralop_kit.solvers.errors import DataError

SHAPE = (3, 5, 7, 1100)
NUMBERS = np.arange(np.prod(SHAPE)).reshape(SHAPE)
INDICES = [
    (slice(None),) * 4,
    (slice(1, 2), slice(2, 4), slice(None), slice(None)),
    (slice(0, 3), slice(4, 5), slice(None), slice(None)),
    (slice(1, 3), slice(0, 5, 2), slice(None), slice(None)),
    (2, slice(0, 1), slice(3, 6), slice(None)),
    (slice(None), 4, slice(None), slice(None)),
    (slice(None), slice(None), slice(None), 1099),
    (slice(None), slice(None), slice(1, 6), slice(5, 9)),
    (slice(2, 2), slice(None), slice(None), slice(None)),
    (1,),
    (slice(2, 9), slice(3, 99), slice(None), slice(None)),
    (slice(0, 3, 2), 1, slice(None), slice(3, 1000, 7)),
    (slice(None), slice(None), 6, slice(0, 1)),
]


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", ">u4"])
def test_every_part_is_what_hdf5_reads(tmp_path, dtype, block):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", userblock_size=block) as file:
        file["before"], file["u"] = np.ones(3), (NUMBERS % 30000).astype(dtype)
    container = Hdf5Container(path)
    array = container.array("u")
    assert isinstance(array, ContiguousArray)
    with h5py.File(path) as file:
        for index in INDICES:
            expected, found = file["u"][index], array[index]
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("near", "block"), [(0, 1), (2**15, 1), (2**15, 2**18), (2**40, 2**40)])
def test_every_part_is_what_numpy_reads(tmp_path, monkeypatch, order, near, block):
    """Run by run, in blocks of one row and of several, and in one go."""
    monkeypatch.setattr(contiguous, "NEAR_BYTES", near)
    monkeypatch.setattr(contiguous, "BLOCK_BYTES", block)
    numbers = NUMBERS.astype("f4")[..., :200]
    np.save(tmp_path / "f.npy", np.asarray(numbers, order=order))
    array = NumpyContainer(tmp_path / "f.npy").array("u")
    for index in INDICES:
        if index[-1] != 1099:
            np.testing.assert_array_equal(array[index], numbers[index])


def test_an_index_outside_is_refused(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["u"] = NUMBERS.astype("f4")
    container = Hdf5Container(tmp_path / "f.h5")
    array = container.array("u")
    with pytest.raises((IndexError, ValueError)):
        array[3, slice(None), slice(None), slice(None)]


def shifted_exponent(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    space = h5py.h5s.create_simple((4, 4))
    h5py.h5d.create(file.id, b"u", kind, space).write(space, space, np.ones((4, 4), "f4"))


STORED_OTHERWISE = {
    "chunks": lambda file: file.create_dataset("u", data=np.ones((4, 4)), chunks=(2, 4)),
    "deflate": lambda file: file.create_dataset("u", data=np.ones((4, 4)), compression="gzip"),
    "booleans": lambda file: file.create_dataset("u", data=np.ones((4, 4), dtype=bool)),
    "never written": lambda file: file.create_dataset("u", (4, 4), "f4"),
    "compact": lambda file: h5py.h5d.create(
        file.id, b"u", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4, 4)), compact()
    ),
    "shifted exponent": shifted_exponent,
}


def compact() -> h5py.h5p.PropDCID:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    return properties


@pytest.mark.parametrize("make", STORED_OTHERWISE.values(), ids=STORED_OTHERWISE)
def test_what_is_stored_otherwise_is_left_to_hdf5(tmp_path, make):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        make(file)
    guarded = GuardedFile(tmp_path / "f.h5")
    with h5py.File(guarded) as file:
        assert ContiguousArray.of(guarded, file["u"]) is None


def test_a_file_that_is_cut_while_open_is_our_error(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["u"] = NUMBERS.astype("f4")
    container = Hdf5Container(tmp_path / "f.h5")
    array = container.array("u")
    os.truncate(tmp_path / "f.h5", NUMBERS.size * 2)
    array[0, slice(None), slice(None), slice(None)]
    with pytest.raises(DataError, match="cut while open"):
        array[2, slice(None), slice(None), slice(None)]


def test_a_new_array_after_the_file_was_closed(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["u"] = NUMBERS.astype("f4")
    container = Hdf5Container(tmp_path / "f.h5")
    first = container.array("u")
    assert container.array("u") is first
    container.close()
    np.testing.assert_array_equal(container.array("u")[(slice(None),) * 4], NUMBERS.astype("f4"))
