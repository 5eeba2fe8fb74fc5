"""Every public layout, from files built to its published schema: same values, axes, grid, names; every known defect."""

import pickle
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from neuralop_kit import Domain
from neuralop_kit.datasets import DataWarning, FinalTime, Steps, open_dataset
from neuralop_kit.datasets.readers import FieldFile
from neuralop_kit.datasets.readers.grids import axis_from
from neuralop_kit.datasets.readers.well_statistics import read_statistics
from neuralop_kit.solvers.errors import ArgumentError, DataError, DomainError, NonFiniteError
from tests.datasets import foreign


def opened(path, *words, **options):
    """The dataset, after a check that the warnings are those expected: one per word, in any order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = open_dataset(path, **options)
    texts = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    assert len(texts) == len(words), texts
    for word in words:
        assert any(word in text for text in texts), (word, texts)
    return data


def trajectories(data) -> np.ndarray:
    return np.stack([data.trajectories[i].numpy() for i in range(len(data.trajectories))])


def everything(data) -> tuple[np.ndarray, np.ndarray]:
    return tuple(part.numpy() for part in data.read(range(len(data))))


CUT = "t-coordinate has"


class TestPDEBenchArrays:
    def test_advection(self, tmp_path):
        u = foreign.advection(tmp_path / "f.hdf5")
        data = opened(tmp_path / "f.hdf5", "7 entries for 6 frames")
        np.testing.assert_array_equal(trajectories(data), u[:, :, None])
        assert data.domain == Domain.periodic((1.0,), nodes="cell")
        assert data.contents.parameters["beta"].value == 0.4
        np.testing.assert_allclose(data.trajectories.times(3).numpy(), 0.05 * np.arange(6), rtol=1e-6)
        assert data.contents.name == "advection"

    def test_wrong_speed_is_measured_and_named(self, tmp_path):
        foreign.advection(tmp_path / "f.hdf5", beta=0.4, speed=0.8)
        opened(tmp_path / "f.hdf5", CUT, "speed 0.8, not at beta = 0.4")

    def test_leading_device_axis_is_dropped(self, tmp_path):
        u = foreign.advection(tmp_path / "f.hdf5", leading=True)
        np.testing.assert_array_equal(trajectories(opened(tmp_path / "f.hdf5", CUT, "leading axis"))[:, :, 0], u)

    def test_burgers_viscosity_is_nu_over_pi(self, tmp_path):
        foreign.burgers(tmp_path / "f.hdf5")
        parameters = opened(tmp_path / "f.hdf5", CUT, "Nu / pi").contents.parameters
        assert parameters["viscosity"].value == pytest.approx(0.01 / np.pi)
        assert parameters["Nu"].value == 0.01

    def test_old_burgers_interval(self, tmp_path):
        foreign.burgers(tmp_path / "f.hdf5", start=-1.0)
        data = opened(tmp_path / "f.hdf5", CUT, "Nu / pi", "(-1, 1)")
        assert data.domain == Domain.periodic((2.0,), origin=(-1.0,), nodes="cell")

    def test_reaction_diffusion(self, tmp_path):
        u = foreign.reaction(tmp_path / "f.hdf5")
        data = opened(tmp_path / "f.hdf5", CUT)
        assert data.contents.name == "reaction-diffusion"
        np.testing.assert_array_equal(trajectories(data)[:, :, 0], u)

    def test_compressible_flow(self, tmp_path):
        fields = foreign.flow(tmp_path / "f_trans.hdf5")
        data = opened(tmp_path / "f_trans.hdf5", CUT)
        np.testing.assert_array_equal(trajectories(data), np.stack(list(fields.values()), axis=2))
        assert data.input_names == ("density", "pressure", "Vx", "Vy")
        assert data.shape == (5, 7)
        assert data.domain.axes[0].boundary == "neumann"

    def test_test_file_without_samples(self, tmp_path):
        fields = foreign.flow(tmp_path / "f.hdf5", samples=False)
        data = opened(tmp_path / "f.hdf5", CUT)
        np.testing.assert_array_equal(trajectories(data)[0], np.stack(list(fields.values()), axis=1))

    def test_darcy(self, tmp_path):
        nu, u = foreign.darcy(tmp_path / "f.hdf5")
        data = opened(tmp_path / "f.hdf5", "second-last frame")
        inputs, targets = everything(data)
        np.testing.assert_array_equal(inputs[:, 0], nu)
        np.testing.assert_array_equal(targets, u)
        assert (data.input_names, data.target_names) == (("nu",), ("u",))
        assert data.domain == Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
        with pytest.raises(ArgumentError, match="steady"):
            data.trajectories  # noqa: B018

    def test_published_split_is_the_first_tenth(self, tmp_path):
        u = foreign.advection(tmp_path / "f.hdf5")
        test, train = (opened(tmp_path / "f.hdf5", CUT, split=name) for name in ("test", "train"))
        np.testing.assert_array_equal(trajectories(test)[:, :, 0], u[:2])
        np.testing.assert_array_equal(trajectories(train)[:, :, 0], u[2:])
        with pytest.raises(ArgumentError, match="published split"):
            opened(tmp_path / "f.hdf5", CUT, split="valid")


class TestPDEBenchGroups:
    @pytest.mark.parametrize(
        ("problem", "words", "boundary"),
        [
            ("sorption", ["constant in space"], "dirichlet"),
            ("reaction", ["first space axis is y"], "neumann"),
            ("dam", [], "neumann"),
        ],
    )
    def test_each_problem(self, tmp_path, problem, words, boundary):
        expected = foreign.groups(tmp_path / "f.h5", problem)
        data = opened(tmp_path / "f.h5", *words)
        np.testing.assert_array_equal(trajectories(data), expected)
        assert data.shape == expected.shape[3:]
        assert {axis.boundary for axis in data.domain.axes} == {boundary}
        assert data.domain.axes[0].start == -1.0
        assert set(data.contents.parameters) == {"Du"}
        test = opened(tmp_path / "f.h5", *words, split="test")
        np.testing.assert_array_equal(trajectories(test), expected[-1:])

    def test_incompressible_flow_is_cut_at_the_last_written_frame(self, tmp_path):
        fields = foreign.incompressible(tmp_path / "f.h5", latest=2)
        data = opened(tmp_path / "f.h5", "staggered", "in cells", "only 3 of 4 frames")
        found = trajectories(data)
        assert found.shape == (2, 3, 3, 5, 7)
        np.testing.assert_array_equal(found[:, :, :2], fields["velocity"][:, :3].transpose(0, 1, 4, 2, 3))
        np.testing.assert_array_equal(found[:, :, 2], fields["particles"][:, :3, ..., 0])
        u, v = data[0]
        assert data.input_names == ("velocity_x", "velocity_y", "particles", "force_x", "force_y")
        np.testing.assert_array_equal(u[3:].numpy(), fields["force"][0].transpose(2, 0, 1))
        assert v.shape == (3, 5, 7)


class TestPDEArena:
    def test_smoke(self, tmp_path):
        fields = foreign.smoke(tmp_path / "f.h5")
        data = opened(tmp_path / "f.h5", "x and dx", "stored t", "on faces", "buo_y")
        np.testing.assert_array_equal(trajectories(data), np.stack(list(fields.values()), axis=2))
        assert data.contents.dtype == "float64"
        assert data.domain == Domain.box((32.0, 16.0), boundary="dirichlet", nodes="cell")
        np.testing.assert_array_equal(data.trajectories.times(0).numpy(), 18 + 6.0 * np.arange(4))
        np.testing.assert_array_equal(data.contents.sample_parameters["buoyancy"], [0.2, 0.3, 0.4])

    def test_split_is_a_group(self, tmp_path):
        foreign.smoke(tmp_path / "f.h5", splits=("train", "test"))
        with pytest.raises(ArgumentError, match=r"\['train', 'test'\]"):
            open_dataset(tmp_path / "f.h5")
        with pytest.warns(DataWarning):
            assert len(open_dataset(tmp_path / "f.h5", "test").trajectories) == 3

    def test_maxwell(self, tmp_path):
        fields = foreign.maxwell(tmp_path / "f.h5")
        data = opened(tmp_path / "f.h5")
        np.testing.assert_array_equal(trajectories(data)[:, :, :3], fields["d_field"].transpose(0, 1, 5, 2, 3, 4))
        assert data.trajectories.names[3:] == ("H_x", "H_y", "H_z")


class TestTheWell:
    def test_scalars_vectors_tensors_and_constants(self, tmp_path):
        fields = foreign.well(tmp_path / "f.hdf5")
        data = opened(tmp_path / "f.hdf5")
        found = trajectories(data)
        names = data.trajectories.names
        assert names == (
            "density", "profile", "velocity_x", "velocity_y", "stress_xx", "stress_xy", "stress_yx", "stress_yy",
        )  # fmt: skip
        np.testing.assert_array_equal(found[:, :, 0], fields["density"])
        np.testing.assert_array_equal(found[:, :, 1], np.broadcast_to(fields["profile"][:, :, None], (3, 4, 5, 7)))
        np.testing.assert_array_equal(found[:, :, 2:4], fields["velocity"].transpose(0, 1, 4, 2, 3))
        np.testing.assert_array_equal(found[:, :, 5], fields["stress"][..., 0, 1])
        u, v = data[4]
        assert data.input_names == (*names, "obstacle")
        np.testing.assert_array_equal(u[-1].numpy(), fields["obstacle"])
        np.testing.assert_array_equal(v.numpy(), found[1, 2])
        assert data.domain == Domain.box((1.0, 2.0), boundary=("periodic", "neumann"), nodes=("left", "vertex"))
        assert data.contents.parameters["Re"].value == 100.0

    def test_times_of_each_trajectory(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5", time="own")
        data = opened(tmp_path / "f.hdf5")
        np.testing.assert_allclose(data.trajectories.times(2).numpy(), [0, 0.3, 0.6, 0.9], rtol=1e-6)

    def test_bare_text_and_empty_mask(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5", bare_text=True, empty_mask=True)
        data = opened(tmp_path / "f.hdf5", *["is a text, not a list"] * 2, *["marks nothing"] * 2)
        assert data.domain.axes[0].is_periodic

    def test_empty_field_names(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5", constant=True)
        assert opened(tmp_path / "f.hdf5").trajectories.names == ("density",)

    def test_coordinates_that_are_not_equidistant(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5")
        with h5py.File(tmp_path / "f.hdf5", "r+") as file:
            file["dimensions/y"][...] = np.arange(7, dtype="f4") ** 2
        assert opened(tmp_path / "f.hdf5", "not equidistant").domain.lengths == (1.0, 1.0)

    def test_folder_of_splits_with_old_statistics(self, tmp_path):
        for split in ("train", "valid"):
            (tmp_path / "data" / split).mkdir(parents=True)
            for k in range(2):
                foreign.well(tmp_path / "data" / split / f"{k}.hdf5")
        section = (
            "{key}:\n  density: {a}\n  profile: {a}\n  obstacle: 0.0\n  velocity:\n  - {a}\n  - 2.0\n"
            "  stress:\n  - - 1.0\n    - 2.0\n  - - 3.0\n    - {a}\n"
        )
        mean, std = section.format(key="mean", a="-1e-1"), section.format(key="std", a="4.0")
        (tmp_path / "stats.yaml").write_text(mean + std + "mean_delta: {}\n")
        data = opened(tmp_path, split="valid")
        assert len(data) == 2 * 3 * 3
        assert data.statistics.input.mean == (-0.1, -0.1, -0.1, 2.0, 1.0, 2.0, 3.0, -0.1, 0.0)
        assert data.statistics.target.std == (4.0, 4.0, 4.0, 2.0, 1.0, 2.0, 3.0, 4.0)
        assert read_statistics(tmp_path / "stats.yaml")["rms"]["velocity"] == [np.hypot(0.1, 4.0), np.hypot(2.0, 2.0)]
        with pytest.raises(DataError, match="train"):
            open_dataset(tmp_path, "test")

    def test_sphere(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5")
        theta, phi = (Domain.sphere(grid="gauss").axis_coordinates(i, n) for i, n in enumerate((5, 7)))
        with h5py.File(tmp_path / "f.hdf5", "r+") as file:
            file.attrs["grid_type"] = "spherical"
            file["dimensions/x"][...], file["dimensions/y"][...] = theta.numpy(), phi.numpy()
        assert opened(tmp_path / "f.hdf5").domain == Domain.sphere(grid="gauss")


class TestMatlab:
    """Version 5 and 7.3 hold the same."""

    @pytest.fixture(params=[foreign.mat5, foreign.mat73])
    def save(self, request):
        return request.param

    def test_darcy_with_solutions_that_vanish_at_the_edge(self, tmp_path, save):
        coeff, sol = foreign.numbers(3, 5, 7, dtype="f8"), foreign.numbers(3, 5, 7, dtype="f8")
        sol[:, [0, -1]] = sol[:, :, [0, -1]] = 0
        save(tmp_path / "f.mat", coeff=coeff, sol=sol, Kcoeff=coeff)
        data = opened(tmp_path / "f.mat")
        inputs, targets = everything(data)
        np.testing.assert_array_equal(inputs[:, 0], coeff)
        np.testing.assert_array_equal(targets[:, 0], sol)
        assert data.domain == Domain.box((1.0, 1.0), boundary="dirichlet", nodes="vertex")
        assert any("Kcoeff" in text for text in data.contents.assumptions)

    def test_darcy_with_cell_centres(self, tmp_path, save):
        save(tmp_path / "f.mat", coeff=foreign.numbers(3, 5, 7), sol=foreign.numbers(3, 5, 7))
        assert opened(tmp_path / "f.mat").domain.axes[0].nodes == "cell"

    def test_burgers(self, tmp_path, save):
        a, u = foreign.numbers(4, 16, dtype="f8"), foreign.numbers(4, 16, dtype="f8")
        save(tmp_path / "f.mat", a=a, u=u)
        inputs, targets = everything(opened(tmp_path / "f.mat"))
        np.testing.assert_array_equal(inputs[:, 0], a)
        np.testing.assert_array_equal(targets[:, 0], u)

    def test_navier_stokes_begins_with_its_initial_state(self, tmp_path, save):
        a, u = foreign.numbers(4, 5, 7), foreign.numbers(4, 5, 7, 3)
        save(tmp_path / "f.mat", a=a, u=u, t=np.arange(1.0, 4.0))
        data = opened(tmp_path / "f.mat")
        np.testing.assert_array_equal(trajectories(data)[:, 0, 0], a)
        np.testing.assert_array_equal(trajectories(data)[:, 1:, 0], u.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(data.trajectories.times(0).numpy(), [0, 1, 2, 3])
        # As in the paper: some frames behind the initial state are given, the rest is asked for.
        (given, asked) = open_dataset(tmp_path / "f.mat", task=Steps(history=2, future=1, first=1))[1]
        np.testing.assert_array_equal(given.numpy(), u[1, ..., :2].transpose(2, 0, 1))
        np.testing.assert_array_equal(asked.numpy()[0], u[1, ..., 2])

    def test_pino_burgers(self, tmp_path, save):
        first, rest = foreign.numbers(4, 8, dtype="f8"), foreign.numbers(4, 5, 8, dtype="f8")
        save(tmp_path / "f.mat", input=first, output=rest, visc=np.array([[0.01]]), tspan=np.linspace(0, 1, 5))
        data = opened(tmp_path / "f.mat")
        np.testing.assert_array_equal(trajectories(data)[:, :, 0], rest)
        assert data.contents.parameters["viscosity"].value == 0.01
        np.testing.assert_array_equal(data.trajectories.times(0).numpy(), np.linspace(0, 1, 5))

    def test_frame_that_was_never_filled(self, tmp_path, save):
        first, rest = foreign.numbers(4, 8), foreign.numbers(4, 5, 8)
        rest[:, 0] = 0
        save(tmp_path / "f.mat", input=first, output=rest)
        found = trajectories(opened(tmp_path / "f.mat", "never filled"))
        np.testing.assert_array_equal(found[:, 0, 0], first)
        np.testing.assert_array_equal(found[:, 1:, 0], rest[:, 1:])

    def test_unknown_variables_are_listed(self, tmp_path, save):
        save(tmp_path / "f.mat", temperature=np.zeros((3, 4)))
        with pytest.raises(DataError, match="temperature"):
            open_dataset(tmp_path / "f.mat")


class TestTorch:
    def test_darcy(self, tmp_path):
        x, y = foreign.numbers(4, 5, 7) > 0, foreign.numbers(4, 5, 7)
        foreign.pt(tmp_path / "f.pt", x=x, y=y)
        inputs, targets = everything(opened(tmp_path / "f.pt", "not the FNO paper's Darcy"))
        np.testing.assert_array_equal(inputs[:, 0], x.astype("f4"))
        np.testing.assert_array_equal(targets[:, 0], y)

    def test_burgers(self, tmp_path):
        y = foreign.numbers(4, 6, 8, dtype="f8")
        foreign.pt(tmp_path / "f.pt", x=y[:, 0], y=y, visc=np.array([[0.01]]))
        data = opened(tmp_path / "f.pt")
        np.testing.assert_array_equal(trajectories(data)[:, :, 0], y)
        assert data[0][0].dtype == torch.float64

    @pytest.mark.parametrize("shape", [(4, 5, 7), (4, 1, 5, 7)])
    def test_forcing_with_and_without_channel(self, tmp_path, shape):
        x, y = foreign.numbers(*shape), foreign.numbers(*shape)
        foreign.pt(tmp_path / "f.pt", x=x, y=y)
        data = opened(tmp_path / "f.pt")
        assert data.target_names == ("vorticity",)
        np.testing.assert_array_equal(everything(data)[0], x.reshape(4, 1, 5, 7))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int16])
    def test_types(self, tmp_path, dtype):
        x, y = (100 * torch.from_numpy(foreign.numbers(4, 5, 7))).to(dtype), torch.from_numpy(foreign.numbers(4, 5, 7))
        torch.save({"x": x, "y": y}, tmp_path / "f.pt")
        assert torch.equal(opened(tmp_path / "f.pt").read(range(4))[0][:, 0], x.to(torch.promote_types(dtype, y.dtype)))

    def test_parts_of_one_memory(self, tmp_path):
        both = torch.from_numpy(foreign.numbers(8, 5, 7))
        torch.save({"x": both[:4], "y": both[4:], "both": both}, tmp_path / "f.pt")
        for found, expected in zip(opened(tmp_path / "f.pt").read(range(4)), both.split(4), strict=True):
            assert torch.equal(found[:, 0], expected)

    @pytest.mark.parametrize(
        ("order", "version", "words"),
        [(b"little", False, None), (b"little", True, "save it once more"), (b"big", False, "order of bytes")],
    )
    def test_an_archive_that_another_tool_packed(self, tmp_path, order, version, words):
        """Where its version says that torch wrote it, torch believes to know where things are."""
        x, y = foreign.numbers(4, 5, 7), foreign.numbers(4, 5, 7)
        foreign.pt(tmp_path / "torch.pt", x=x, y=y)
        with zipfile.ZipFile(tmp_path / "torch.pt") as old, zipfile.ZipFile(tmp_path / "f.pt", "w") as new:
            for name in old.namelist():
                if version or not name.endswith(".format_version"):
                    new.writestr(name, order if name.endswith("byteorder") else old.read(name))
        if words:
            with pytest.raises(DataError, match=words):
                open_dataset(tmp_path / "f.pt")
        else:
            for found, expected in zip(everything(opened(tmp_path / "f.pt")), (x, y), strict=True):
                np.testing.assert_array_equal(found[:, 0], expected)


class TestNumpy:
    @pytest.mark.parametrize(
        ("axes", "order"), [("ntxy", (0, 1, 2, 3)), ("nxyt", (0, 2, 3, 1)), ("xytn", (2, 3, 1, 0))]
    )
    @pytest.mark.parametrize("fortran", [False, True])
    def test_axes_in_any_order(self, tmp_path, axes, order, fortran):
        u = foreign.numbers(3, 4, 5, 7)
        stored = u.transpose(order)
        np.save(tmp_path / "f.npy", np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored))
        np.testing.assert_array_equal(trajectories(opened(tmp_path / "f.npy", axes=axes))[:, :, 0], u)

    def test_domain_that_the_user_knows(self, tmp_path):
        np.save(tmp_path / "f.npy", foreign.numbers(3, 5, 7))
        domain = Domain.box((2.0, 3.0))
        assert opened(tmp_path / "f.npy", axes="nxy", domain=domain).domain == domain
        with pytest.raises(DomainError):
            open_dataset(tmp_path / "f.npy", axes="nxy", domain=Domain.box((1.0,)))

    @pytest.mark.parametrize("axes", [None, "nxyz", "nx", "nzy", "nnx", "abc", ""])
    def test_axes_must_be_said_and_fit(self, tmp_path, axes):
        np.save(tmp_path / "f.npy", foreign.numbers(3, 5, 7))
        with pytest.raises(ArgumentError, match="expected"):
            open_dataset(tmp_path / "f.npy", axes=axes)


class TestEveryLayout:
    @pytest.fixture
    def data(self, tmp_path):
        foreign.well(tmp_path / "f.hdf5")
        return open_dataset(tmp_path / "f.hdf5", task=Steps(history=2))

    def test_steps_are_cut_from_every_trajectory(self, data):
        whole = trajectories(data)
        assert len(data) == 3 * 2
        for i, (u, v) in enumerate(data):
            k, start = divmod(i, 2)
            np.testing.assert_array_equal(u[:16].numpy(), whole[k, start : start + 2].reshape(16, 5, 7))
            np.testing.assert_array_equal(v.numpy(), whole[k, start + 2])

    def test_final_time(self, tmp_path, data):
        pairs = open_dataset(tmp_path / "f.hdf5", task=FinalTime())
        inputs, targets = everything(pairs)
        np.testing.assert_array_equal(inputs[:, :8], trajectories(data)[:, 0])
        np.testing.assert_array_equal(targets, trajectories(data)[:, -1])

    def test_stride_and_future(self, tmp_path, data):
        pairs = open_dataset(tmp_path / "f.hdf5", task=Steps(history=1, future=2, stride=1))
        whole = trajectories(data)
        np.testing.assert_array_equal(pairs[1][1].numpy(), whole[0, 2:4].reshape(16, 5, 7))
        with pytest.raises(ArgumentError, match="fewer frames"):
            open_dataset(tmp_path / "f.hdf5", task=Steps(history=9))

    @pytest.mark.parametrize("context", ["fork", "spawn"])
    def test_two_loader_workers(self, data, context):
        inputs, targets = data.read(range(len(data)))  # the file is open in the parent when workers start
        batches = list(DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=context))
        assert torch.equal(torch.cat([u for u, _ in batches]), inputs)
        assert torch.equal(torch.cat([v for _, v in batches]), targets)

    @pytest.mark.parametrize("task", [Steps(first=0), Steps(history=2, first=0), Steps(stride=2, first=0), FinalTime()])
    def test_a_batch_in_any_order_is_its_items(self, tmp_path, data, task):
        pairs = open_dataset(tmp_path / "f.hdf5", task=task)
        order = [len(pairs) - 1, 0, 1, 0, len(pairs) // 2, -1]
        inputs, targets = pairs.read(order)
        assert torch.equal(inputs, torch.stack([pairs[i][0] for i in order]))
        assert torch.equal(targets, torch.stack([pairs[i][1] for i in order]))

    def test_neighbours_are_read_together(self, data, monkeypatch):
        reads, read = [], FieldFile.read

        def noted(file, samples, frames, roles):
            reads.append((samples, frames, roles))
            return read(file, samples, frames, roles)

        monkeypatch.setattr(FieldFile, "read", noted)
        data.read(range(len(data)))
        states = [(samples, frames) for samples, frames, roles in reads if roles == ("state",)]
        assert states == [(range(k, k + 1), range(4)) for k in range(3)]

    def test_large_numbers_whose_sum_overflows_are_finite(self, tmp_path):
        np.save(tmp_path / "f.npy", np.full((3, 4, 5), 3e38, dtype="f4"))
        assert (trajectories(opened(tmp_path / "f.npy", axes="ntx")) == np.float32(3e38)).all()

    def test_pickle_and_verify(self, data):
        again = pickle.loads(pickle.dumps(data))
        again.verify()
        assert torch.equal(again[-1][1], data[5][1])
        with pytest.raises(IndexError):
            again[6]

    def test_not_a_number_is_our_error(self, tmp_path, data):
        with h5py.File(tmp_path / "f.hdf5", "r+") as file:
            file["t0_fields/density"][1, 2, 3, 4] = np.nan
        with pytest.raises(NonFiniteError, match=r"samples \[1\]"):
            open_dataset(tmp_path / "f.hdf5").verify()

    def test_unknown_content_names_what_is_there(self, tmp_path):
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file["temperature"] = np.zeros(3)
        with pytest.raises(DataError, match=r"The Well.*temperature"):
            open_dataset(tmp_path / "f.h5")
        (tmp_path / "zarr").mkdir()
        (tmp_path / "zarr" / ".zgroup").write_text("{}")
        with pytest.raises(DataError, match="zarr"):
            open_dataset(tmp_path / "zarr")

    @pytest.mark.parametrize(
        ("make", "name"),
        [(foreign.advection, "f.mat"), (foreign.darcy, "f.npy"), (lambda p: foreign.groups(p, "dam"), "f.pt")],
    )
    def test_the_name_of_the_file_means_nothing(self, tmp_path, make, name):
        make(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert open_dataset(tmp_path / name).contents.layout.startswith("PDEBench")

    def test_files_of_different_kind_are_not_mixed(self, tmp_path):
        (tmp_path / "train").mkdir()
        foreign.well(tmp_path / "train" / "a.hdf5")
        foreign.well(tmp_path / "train" / "b.hdf5", constant=True)
        with pytest.raises(DataError, match="equal channels"):
            open_dataset(tmp_path)


@pytest.mark.parametrize("n", [7, 64, 1024])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (-1.0, 1.0), (-2.5, 2.5), (0.0, 2 * np.pi), (0.25, 3.0)])
@pytest.mark.parametrize(
    ("boundary", "nodes"), [("periodic", "left"), ("periodic", "cell"), ("neumann", "cell"), ("neumann", "vertex")]
)
def test_axis_is_found_from_its_points(n, start, stop, boundary, nodes):
    domain = Domain.box((stop - start,), boundary=boundary, nodes=nodes, origin=(start,))
    found = axis_from(domain.axis_coordinates(0, n).numpy().astype("f4"), boundary=boundary)
    assert (found.nodes, found.boundary) == (nodes, boundary)
    assert found.start == pytest.approx(start, abs=1e-6)
    assert found.stop == pytest.approx(stop, abs=1e-6)
