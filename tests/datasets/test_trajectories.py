"""Trajectories: stored frame by frame, read whole or as pairs, resumed, described, damaged."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.datasets import FinalTime, Problem, Samples, Steps, check_file, generate, open_dataset, to_xarray
from neuralop_kit.datasets.describe import describe
from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import ArgumentError, DataError
from tests.datasets import tiny

FRAMES, SHAPE = 4, (5, 7)


class Moving(Problem):
    """A plane wave that moves, and its slope: frame k is the wave at time k/2."""

    name = "moving"
    equation = "u_t + u_x = 0"
    source = "by hand"
    domain = Domain.periodic((1.0, 2.0))
    input_names = ()
    target_names = ("wave", "slope")
    units = {"wave": "K", "slope": "K/m"}  # noqa: RUF012
    parameters = {}  # noqa: RUF012
    times = (0.0, 0.5, 1.0, 1.5)

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        x = 2 * torch.pi * self.domain.coordinates(shape, dtype=torch.float64)[0]
        phases = torch.stack([6 * torch.rand((), generator=g, dtype=torch.float64) for g in generators])
        angle = x - torch.tensor(self.times).double()[:, None, None] + phases[:, None, None, None]
        target = torch.stack([angle.sin(), 2 * torch.pi * angle.cos()], dim=1)
        return Samples(input=None, target=target, converged=torch.ones(len(generators), dtype=torch.bool))


def expected(folder: Path, index: int) -> torch.Tensor:
    """Trajectory ``(time, channel, *space)`` of a training sample, behind the one of the test set."""
    from neuralop_kit.datasets.plan import sample_seed

    generator = torch.Generator().manual_seed(sample_seed(5, index))
    return Moving().sample([generator], SHAPE).target[0].transpose(0, 1).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("moving") / "data", problem=Moving())


def test_trajectories_come_back(folder):
    data = open_dataset(folder)
    assert len(data.trajectories) == 11
    first = 2  # test and validation come before
    for k in (0, 4, 10):
        assert torch.equal(data.trajectories[k], expected(folder, first + k))
    assert data.trajectories.times(0).tolist() == [0.0, 0.5, 1.0, 1.5]
    assert data.units == {"wave": "K", "slope": "K/m"}
    data.verify()


def test_tasks_cut_pairs(folder):
    whole = open_dataset(folder).trajectories[3]
    steps = open_dataset(folder, task=Steps(history=2))
    assert (len(steps), steps.input_names, steps.target_names) == (22, ("wave", "slope") * 2, ("wave", "slope"))
    u, v = steps[3 * 2 + 1]
    assert torch.equal(u, whole[1:3].flatten(0, 1))
    assert torch.equal(v, whole[3])
    final = open_dataset(folder, "test", task=FinalTime())
    assert [field.shape for field in final[0]] == [(2, *SHAPE)] * 2
    # Statistics are those of the training split, per channel of the pair.
    assert len(steps.statistics.input.mean) == 4
    assert steps.statistics.target.std[1] == pytest.approx(2 * np.pi / 2**0.5, rel=0.01)


def test_files_are_in_the_wells_layout(folder):
    files = sorted(folder.glob("data/train/*.hdf5"))
    for path in files:
        assert check_file(path) == []
    with h5py.File(files[0]) as file:
        wave = file["t0_fields/wave"]
        assert wave.shape == (4, FRAMES, *SHAPE)
        assert wave.chunks == (1, 1, *SHAPE)
        assert wave.attrs["time_varying"]
        assert file["dimensions/time"][:].tolist() == [0.0, 0.5, 1.0, 1.5]
    # One shard alone is a dataset too.
    assert len(open_dataset(files[0]).trajectories) == 4


def test_bytes_do_not_depend_on_interruption_or_workers(folder, tmp_path):
    class Stopping(Moving):
        calls = 0

        def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
            Stopping.calls += 1
            if Stopping.calls == 4:
                raise KeyboardInterrupt
            return super().sample(generators, shape)

    with pytest.raises(KeyboardInterrupt):
        tiny.make(tmp_path / "a", problem=Stopping())
    tiny.make(tmp_path / "a", problem=Moving())
    assert tiny.content(tmp_path / "a") == tiny.content(folder)
    with tiny.plans():
        generate(Moving(), tmp_path / "b", samples=13, resolution=SHAPE, seed=5, workers=2)
    assert tiny.content(tmp_path / "b") == tiny.content(folder)


def killed(folder: Path, fatal: int, log: Path) -> None:
    tiny.generate_until(folder, fatal, log, problem=Moving())


def test_killed_generation_ends_with_the_same_bytes(folder, tmp_path):
    passed: list[str] = []
    atomic.observer = passed.append
    try:
        tiny.make(tmp_path / "points", problem=Moving())
    finally:
        atomic.observer = None
    # In the middle of a trajectory, behind one, before and behind a shard, and at the very end.
    for point in ("record half written", "record written", "image complete", "shard in place", "manifest in place"):
        places = [k for k, name in enumerate(passed) if name == point]
        fatal = places[len(places) // 2]
        data, log = tmp_path / f"data{fatal}", tmp_path / f"log{fatal}"
        assert tiny.run_child(killed, data, fatal, log) == tiny.DIED, point
        if point != "manifest in place":
            with pytest.raises(DataError, match="expected to find a finished dataset"):
                open_dataset(data)
        tiny.make(data, problem=Moving())
        assert tiny.content(data) == tiny.content(folder), f"other content after a kill at {fatal}: {point}"


def test_loader_workers_and_exports(folder):
    data = open_dataset(folder)
    loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context="fork")
    assert sum(len(u) for u, _ in loader) == len(data)
    frame = to_xarray(open_dataset(folder, "test"))
    assert dict(frame.sizes) == {"sample": 1, "time": FRAMES, "x": 5, "y": 7}
    assert np.array_equal(frame["slope"].values[0], open_dataset(folder, "test").trajectories[0][:, 1].numpy())
    text = describe(folder)
    assert "4 frames from 0 to 1.5" in text
    assert "state        wave" in text


def test_a_flipped_byte_in_any_frame_is_found(folder, tmp_path):
    source = sorted(folder.glob("data/test/*.hdf5"))[0]
    content = bytearray(source.read_bytes())
    value = open_dataset(source).trajectories[0][2, 1].numpy().tobytes()
    content[content.index(value) + 5] ^= 1
    (tmp_path / "x.hdf5").write_bytes(content)
    damaged = open_dataset(tmp_path / "x.hdf5")
    damaged.read([0])  # frames 0 and 1 are intact
    with pytest.raises(DataError, match="wrong checksums"):
        damaged.read([1])
    with pytest.raises(DataError, match="wrong checksums"):
        damaged.verify()


def test_what_does_not_fit_is_refused(folder, tmp_path):
    with pytest.raises(ArgumentError, match="leave it out"):
        open_dataset(tiny.make(tmp_path / "pairs"), task=Steps())
    with pytest.raises(ArgumentError, match="fits into"):
        open_dataset(folder, task=Steps(history=4))

    class Backwards(Moving):
        times = (0.0, 0.5, 0.4, 1.5)

    with pytest.raises(ArgumentError, match="increasing times"):
        tiny.make(tmp_path / "x", problem=Backwards())
