"""Any readable file, written in The Well's layout, conforms to it and reads back the same; and as xarray."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralop_kit import Domain
from neuralop_kit.datasets import check_file, open_dataset, to_xarray, write_well
from neuralop_kit.datasets.readers import Contents, FieldFile, Variable
from neuralop_kit.datasets.readers.container import Container
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.tasks import Steps
from neuralop_kit.solvers.errors import ArgumentError, DataError, NonFiniteError
from tests.datasets import foreign
from tests.datasets.test_hostile_readers import VICTIMS

pytestmark = pytest.mark.filterwarnings("ignore::neuralop_kit.datasets.DataWarning")


def pairs(data) -> tuple[torch.Tensor, torch.Tensor]:
    return data.read(range(len(data)))


def assert_same(ours, theirs) -> None:
    """The same channels, in the order of the layout: scalars, vectors, tensors."""
    names = zip((ours.input_names, ours.target_names), (theirs.input_names, theirs.target_names), strict=True)
    orders = [[first.index(name) for name in second] for first, second in names]
    assert [sorted(order) for order in orders] == [list(range(len(order))) for order in orders]
    assert (ours.domain, ours.shape) == (theirs.domain, theirs.shape)
    assert ours.units == theirs.units
    for one, other, order in zip(pairs(ours), pairs(theirs), orders, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one[:, order], other)


@pytest.mark.parametrize("name", VICTIMS)
def test_every_layout_survives(tmp_path, name):
    VICTIMS[name](tmp_path / "file")
    data = open_dataset(tmp_path / "file", axes="ntx" if name == "numpy" else None)
    path = write_well(data, tmp_path / "well.hdf5")
    assert check_file(path) == []
    again = open_dataset(path)
    assert_same(again, data)
    values = {key: parameter.value for key, parameter in data.contents.parameters.items()}
    assert values == {key: parameter.value for key, parameter in again.contents.parameters.items()}
    assert (again.contents.name, again.contents.equation) == (data.contents.name, data.contents.equation)
    if data.contents.num_frames is not None:
        assert torch.equal(again.trajectories.times(1), data.trajectories.times(1))


@pytest.mark.parametrize("make", [foreign.darcy, lambda path: foreign.groups(path, "reaction"), foreign.maxwell])
def test_some_more(tmp_path, make):
    make(tmp_path / "file")
    data = open_dataset(tmp_path / "file")
    assert_same(open_dataset(write_well(data, tmp_path / "well.hdf5")), data)


def test_split_is_written_alone(tmp_path):
    foreign.advection(tmp_path / "file")
    data = open_dataset(tmp_path / "file", "test")
    assert len(open_dataset(write_well(data, tmp_path / "well.hdf5")).trajectories) == 2


def test_what_does_not_vary_is_stored_once(tmp_path):
    fields = foreign.well(tmp_path / "file")
    path = write_well(open_dataset(tmp_path / "file"), tmp_path / "well.hdf5")
    with h5py.File(path) as file:
        for name, group in (("profile", "t0"), ("obstacle", "t0"), ("velocity", "t1"), ("stress", "t2")):
            np.testing.assert_array_equal(file[f"{group}_fields/{name}"][...], fields[name])


def test_target_is_whole_or_not_there(tmp_path):
    foreign.well(tmp_path / "file")
    with h5py.File(tmp_path / "file", "r+") as file:
        file["t2_fields/stress"][2, 3, 4, 6, 1, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"samples \[2\]"):
        write_well(open_dataset(tmp_path / "file"), tmp_path / "well.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(ArgumentError, match="exists"):
        write_well(open_dataset(tmp_path / "file"), tmp_path / "file")
    with pytest.raises(DataError, match="to write"):
        write_well(open_dataset(tmp_path / "file"), tmp_path / "nowhere" / "well.hdf5")


class Memory(Container):
    """Arrays that are in no file."""

    format = "memory"
    arrays: dict = {}  # noqa: RUF012

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return False

    def names(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def array(self, place: str) -> np.ndarray:
        return self.arrays[place]

    def _open(self) -> None:
        return None


@st.composite
def contents(draw) -> tuple[Contents, dict[str, np.ndarray]]:
    """Variables that are constant along any of their axes, in any order of axes, of any rank."""
    dims, samples, frames = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    shape = tuple(draw(st.integers(2, 5)) for _ in range(dims))
    sizes = {"n": samples, "t": frames, "c": dims, "d": dims, **dict(zip("xyz", shape, strict=False))}
    dtype = draw(st.sampled_from(["float32", "float64"]))
    variables, arrays = [], {}
    for k in range(draw(st.integers(1, 3))):
        rank = draw(st.integers(0, 2))
        space = "".join(letter for letter in "xyz"[:dims] if draw(st.booleans()) or k == 0)
        axes = ("n" if draw(st.booleans()) or k == 0 else "") + ("t" if k == 0 or draw(st.booleans()) else "") + space
        axes = "".join(draw(st.permutations(axes + "cd"[:rank])))
        name = draw(st.text("abcé ", min_size=1, max_size=5).map(str.strip).filter(bool)) + str(k)
        arrays[name] = np.random.default_rng(k).standard_normal([sizes[a] for a in axes]).astype(dtype)
        role = "state" if "t" in axes else "input"
        variables.append(Variable(name, axes, (name,), role, num_components=dims**rank, rank=rank))
    domain = draw(st.sampled_from([Domain.periodic((1.0,) * dims), Domain.box((2.0,) * dims, boundary="neumann")]))
    times = np.sort(np.random.default_rng(0).random((samples, frames) if draw(st.booleans()) else frames))
    return Contents("memory", "any", domain, shape, tuple(variables), samples, frames, times, dtype), arrays


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents())
def test_any_variables_survive(tmp_path_factory, given_contents):
    about, arrays = given_contents
    folder = tmp_path_factory.mktemp("any")
    container = Memory(folder / "nothing")
    container.arrays = arrays
    data = TaskDataset([FieldFile(container, about)], [range(about.num_samples)], task=Steps())
    path = write_well(data, folder / "well.hdf5")
    assert check_file(path) == []
    again = open_dataset(path)
    assert_same(again, data)
    assert [again.trajectories.times(i).tolist() for i in range(about.num_samples)] == [
        data.trajectories.times(i).tolist() for i in range(about.num_samples)
    ]


class TestXarray:
    def test_trajectories(self, tmp_path):
        fields = foreign.well(tmp_path / "file", time="own")
        frame = to_xarray(open_dataset(tmp_path / "file"), samples=[2, 0])
        assert dict(frame.sizes) == {"sample": 2, "time": 4, "x": 5, "y": 7}
        np.testing.assert_array_equal(frame["density"].values, fields["density"][[2, 0]])
        np.testing.assert_array_equal(frame["stress_yx"].values, fields["stress"][[2, 0], ..., 1, 0])
        np.testing.assert_allclose(frame["times"].values[0], [0, 0.3, 0.6, 0.9], rtol=1e-6)
        np.testing.assert_allclose(frame["y"].values, np.linspace(0, 2, 7))
        assert frame.attrs["Re"] == 100.0

    def test_pairs_of_ours(self, whole):
        data = open_dataset(whole)
        frame = to_xarray(data, samples=[3])
        np.testing.assert_array_equal(frame["force"].values[0], data[3][0][0].numpy())
        assert frame["slope"].dims == ("sample", "x", "y")
        assert frame["slope"].attrs["units"] == "1/m"

    def test_steady_problem_of_others(self, tmp_path):
        nu, u = foreign.darcy(tmp_path / "file")
        frame = to_xarray(open_dataset(tmp_path / "file"))
        np.testing.assert_array_equal(frame["nu"].values, nu)
        np.testing.assert_array_equal(frame["u"].values, u[:, 0])
