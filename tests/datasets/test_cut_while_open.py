"""A file that is cut while a dataset reads it is an error of ours, never the end of the process."""

import copy
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralop_kit.datasets import FieldDataset, open_dataset
from neuralop_kit.solvers.errors import DataError
from tests.datasets import foreign, tiny
from tests.datasets.test_trajectories import Moving

# What a child found: exit codes of its process.
REFUSED, SAME, OTHER = 10, 11, 12
# Beyond the first page: what a map gives for the rest of the last page is zeros, and of all others a signal.
KEPT_BYTES = 5000


def npy(path: Path, *, fortran: bool = False) -> FieldDataset:
    values = foreign.numbers(20, 6, 16, 8)
    np.save(path / "f.npy", np.asfortranarray(values) if fortran else values)
    return open_dataset(path / "f.npy", axes="ntxy")


def fortran_npy(path: Path) -> FieldDataset:
    return npy(path, fortran=True)


def pt(path: Path) -> FieldDataset:
    foreign.pt(path / "f.pt", x=foreign.numbers(20, 16, 16) > 0, y=foreign.numbers(20, 16, 16))
    return open_dataset(path / "f.pt")


def advection(path: Path) -> FieldDataset:
    foreign.advection(path / "f.hdf5", samples=100)
    return open_dataset(path / "f.hdf5")


def mat5(path: Path) -> FieldDataset:
    foreign.mat5(path / "f.mat", a=foreign.numbers(40, 64), u=foreign.numbers(40, 64))
    return open_dataset(path / "f.mat")


def our_pairs(path: Path) -> FieldDataset:
    return open_dataset(tiny.make(path / "data", resolution=(32, 32)))


def our_trajectories(path: Path) -> FieldDataset:
    return open_dataset(tiny.make(path / "data", problem=Moving(), resolution=(32, 32)))


def cut(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > KEPT_BYTES:
            os.truncate(path, KEPT_BYTES)


def read_on(folder: Path, make: Callable[[Path], FieldDataset], everything_before: bool) -> None:
    """Read one pair, or all, then everything after the cut."""
    warnings.simplefilter("ignore")
    data = make(folder)
    expected = copy.deepcopy(data).read(range(len(data)))
    data.read(range(len(data)) if everything_before else [0])
    cut(folder)
    try:
        found = data.read(range(len(data)))
    except DataError:
        os._exit(REFUSED)
    os._exit(SAME if all(map(torch.equal, found, expected)) else OTHER)


def read_on_in_a_map(folder: Path) -> None:
    np.save(folder / "f.npy", foreign.numbers(20, 6, 16, 8))
    values = np.load(folder / "f.npy", mmap_mode="r")
    cut(folder)
    values.sum()
    os._exit(OTHER)


# MATLAB's older files are read whole.
EVERY = [(make, REFUSED) for make in (npy, fortran_npy, pt, advection, our_pairs, our_trajectories)]


@pytest.mark.parametrize(("make", "outcome"), [*EVERY, (mat5, SAME)], ids=lambda it: getattr(it, "__name__", ""))
@pytest.mark.parametrize("everything_before", [False, True], ids=["one pair read", "all read"])
def test_a_cut_file_is_our_error(tmp_path, make, outcome, everything_before):
    assert tiny.run_child(read_on, tmp_path, make, everything_before) == outcome


def test_a_map_ends_the_process(tmp_path):
    """The negative control."""
    assert tiny.run_child(read_on_in_a_map, tmp_path) == -signal.SIGBUS
