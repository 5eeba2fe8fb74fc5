"""Generation: plans, seeds, workers, failures; the Darcy problems are the same functions at every resolution."""

import hashlib
import math
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralop_kit import Domain
from neuralop_kit.datasets import PROBLEMS, generate, open_dataset
from neuralop_kit.datasets.plan import ORDER, sample_seed, split_counts
from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import (
    ArgumentError,
    ConvergenceError,
    DataError,
    DomainError,
    NeuralopKitError,
    NonFiniteError,
    RegistryError,
)
from tests.datasets import tiny


class TestPlan:
    @given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 2**32 - 2000))
    def test_seeds_never_repeat_within_a_dataset(self, seed, start):
        seeds = {sample_seed(seed, i) for i in range(start, start + 2000)}
        assert len(seeds) == 2000
        assert all(0 <= s < 2**32 for s in seeds)

    def test_many_seeds_never_repeat(self):
        assert len({sample_seed(0, i) for i in range(200_000)}) == 200_000

    def test_an_ordinary_hash_would_repeat(self):
        # Negative control: torch keeps 32 bits of a seed, and 4.7 pairs of 200 000 random numbers coincide.
        assert torch.rand((), generator=torch.Generator().manual_seed(7)) == torch.rand(
            (), generator=torch.Generator().manual_seed(7 + 2**32)
        )
        hashed = {hashlib.sha256(f"0 {i}".encode()).digest()[:4] for i in range(200_000)}
        assert len(hashed) < 200_000

    def test_seeds_of_two_datasets_are_unrelated(self):
        first, second = ({sample_seed(seed, i) for i in range(10_000)} for seed in (0, 1))
        assert len(first & second) < 10  # 0.02 expected

    @given(
        samples=st.integers(1, 10_000),
        shares=st.dictionaries(st.sampled_from(ORDER), st.floats(0.01, 100), min_size=1),
    )
    def test_splits_are_proportional_and_complete(self, samples, shares):
        counts = split_counts(samples, shares)
        assert sum(counts.values()) == samples
        for name, share in shares.items():
            assert abs(counts.get(name, 0) - samples * share / sum(shares.values())) < 1.0 + 1e-6

    @pytest.mark.parametrize(
        ("samples", "shares", "expected"),
        [
            (1000, {"train": 0.8, "valid": 0.1, "test": 0.1}, {"train": 800, "valid": 100, "test": 100}),
            (30, {"train": 0.8, "valid": 0.1, "test": 0.1}, {"train": 24, "valid": 3, "test": 3}),
            (120, {"test": 20, "train": 100}, {"train": 100, "test": 20}),
            (1, {"train": 1, "valid": 1, "test": 1}, {"train": 1}),
            (5, {"test": 1.0}, {"test": 5}),
        ],
    )
    def test_splits_by_example(self, samples, shares, expected):
        assert split_counts(samples, shares) == expected

    @pytest.mark.parametrize(
        "shares", [{}, {"train": -1.0}, {"train": 0.0}, {"train": math.nan}, {"validation": 1.0}, {"train": math.inf}]
    )
    def test_bad_splits_are_refused(self, shares):
        with pytest.raises(ArgumentError, match="expected sizes"):
            split_counts(10, shares)


def test_samples_are_what_the_problem_says(whole):
    for split in ("train", "valid", "test"):
        data = open_dataset(whole, split)
        force, target = data.read(range(len(data)))
        squared = (force.square().sum((1, 2, 3)) / target[:, :1].square().sum((1, 2, 3))).sqrt() / (2 * torch.pi) ** 2
        # |k|^2 / (2 pi)^2 of wavenumbers (1 or 2, 1 or 2) on a torus of lengths 1 and 2.
        for value in squared.tolist():
            assert min(abs(value - x) for x in (1.25, 2.0, 4.25, 5.0)) < 1e-5
        assert data.units == {"force": "1/m2", "potential": "1", "slope": "1/m"}
        assert data.domain == Domain.periodic((1.0, 2.0))


def test_all_samples_differ(whole):
    parts = [open_dataset(whole, split) for split in ("train", "valid", "test")]
    everything = torch.cat([data.read(range(len(data)))[0] for data in parts])
    assert len(everything) == tiny.SAMPLES
    assert len(torch.unique(everything.flatten(1), dim=0)) == tiny.SAMPLES


@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path, whole, workers):
    assert tiny.content(tiny.make(tmp_path / "data", workers=workers)) == tiny.content(whole)


def test_bytes_depend_on_the_seed(tmp_path, whole):
    other = tiny.content(tiny.make(tmp_path / "data", seed=6))
    same = [name for name, digest in tiny.content(whole).items() if other[name] == digest]
    assert same == []


def test_test_set_stays_when_the_training_set_grows_and_when_it_is_made_alone(tmp_path):
    settings = {"problem": tiny.Tiny(), "splits": {"train": 8, "test": 4}}
    small = open_dataset(tiny.make(tmp_path / "small", samples=12, **settings), "test")
    large = tiny.make(tmp_path / "large", samples=30, splits={"train": 26, "test": 4})
    alone = tiny.make(tmp_path / "alone", samples=4, splits={"test": 1.0}, resolution=(10, 14))
    for other, stride in ((large, 1), (alone, 2)):
        data = open_dataset(other, "test")
        for k in range(4):
            torch.testing.assert_close(data[k][1][:, ::stride, ::stride], small[k][1], rtol=1e-5, atol=1e-6)


def test_single_thread_during_generation_and_the_users_threads_after_it(tmp_path):
    seen = []

    class Watching(tiny.Tiny):
        def sample(self, generators, shape):
            seen.append(torch.get_num_threads())
            return super().sample(generators, shape)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny.make(tmp_path / "data", problem=Watching())
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class TestFailures:
    @pytest.mark.parametrize(
        ("broken", "error", "match"),
        [
            ("converged", ConvergenceError, r"samples \[7\]"),
            ("nan", NonFiniteError, r"samples \[7\]"),
            ("inf", NonFiniteError, r"samples \[7\]"),
            ("1e39", NonFiniteError, "in float32"),  # finite in float64, infinite in the file
        ],
    )
    def test_failed_sample_is_not_stored_and_nothing_before_it_is_lost(self, tmp_path, whole, broken, error, match):
        folder = tmp_path / "data"
        with pytest.raises(error, match=match):
            tiny.make(folder, problem=tiny.Tiny(failing=7, broken=broken))
        with pytest.raises(DataError):
            open_dataset(folder)
        repaired = tiny.Tiny()
        tiny.make(folder, problem=repaired)
        assert repaired.solved <= tiny.SAMPLES - 6
        assert tiny.content(folder) == tiny.content(whole)

    def test_wrong_shape_of_a_problem_is_named(self, tmp_path):
        class Wrong(tiny.Tiny):
            target_names = ("potential",)
            units = {"force": "1", "potential": "1"}  # noqa: RUF012

        with pytest.raises(NeuralopKitError, match=r"expected samples of shape \(1, 2, 5, 7\)"):
            tiny.make(tmp_path / "data", problem=Wrong())

    def test_failure_in_a_worker_arrives_here(self, tmp_path):
        with pytest.raises(ConvergenceError, match="to converge") as caught:
            tiny.make(tmp_path / "data", problem=tiny.Tiny(failing=1, broken="converged"), workers=2)
        assert "in a worker process" in "".join(caught.value.__notes__)

    def test_death_of_a_worker_is_our_error_and_can_be_resumed(self, tmp_path, whole):
        with pytest.raises(DataError, match="exit code 3"):
            tiny.make(tmp_path / "data", problem=tiny.Tiny(failing=3, broken="exit"), workers=2)
        assert tiny.content(tiny.make(tmp_path / "data")) == tiny.content(whole)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"samples": 0}, ArgumentError),
            ({"samples": 2.5}, ArgumentError),
            ({"seed": -1}, ArgumentError),
            ({"resolution": 0}, ArgumentError),
            ({"resolution": 8.0}, ArgumentError),
            ({"resolution": (5, 7, 9)}, DomainError),
            ({"workers": 0}, ArgumentError),
            ({"dtype": "int8"}, ArgumentError),
            ({"splits": {"holdout": 1}}, ArgumentError),
        ],
    )
    def test_bad_argument_writes_nothing(self, tmp_path, changes, error):
        with pytest.raises(error, match="expected"):
            tiny.make(tmp_path / "data", **changes)
        assert not (tmp_path / "data").exists()

    def test_unknown_problem_lists_the_known(self, tmp_path):
        with pytest.raises(RegistryError, match="darcy"):
            generate("navier", tmp_path, samples=1, resolution=8)

    def test_name_cannot_be_registered_twice(self):
        with pytest.raises(RegistryError, match="expected a new name"):
            PROBLEMS.register(PROBLEMS["darcy"])

    @pytest.mark.parametrize(
        ("changes", "word"),
        [({"seed": 6}, "seed 5 instead of 6"), ({"samples": 14}, "counts"), ({"resolution": 6}, "shape")],
    )
    def test_other_dataset_in_the_folder_is_left_alone(self, tmp_path, changes, word):
        folder = tiny.make(tmp_path / "data")
        before = tiny.content(folder)
        with pytest.raises(DataError, match=word):
            tiny.make(folder, **changes)
        assert tiny.content(folder) == before

    def test_other_unfinished_dataset_in_the_folder_is_left_alone(self, tmp_path):
        folder = tmp_path / "data"
        tiny.run_child(tiny.generate_until, folder, 20, tmp_path / "log")
        before = tiny.content(folder)
        with pytest.raises(DataError, match="seed 5 instead of 6"):
            tiny.make(folder, seed=6)
        assert tiny.content(folder) == before

    def test_too_small_a_disk_is_refused_before_the_first_sample(self, tmp_path):
        problem = tiny.Tiny()
        with pytest.raises(DataError, match="of free space"):
            tiny.make(tmp_path / "data", problem=problem, samples=10**6, resolution=(3000, 3000))
        assert problem.solved == 0


def generate_within(folder: Path, limit: int, what: str) -> None:
    """Generate with every file limited to ``limit`` bytes, as on a disk that fills up; exit code 7 is our error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        tiny.make(folder, splits={"train": 1})
    except DataError as error:
        os._exit(7 if f"expected to write {folder / what}, got File too large" in str(error) else 1)


@pytest.mark.parametrize(
    ("limit", "records", "what"),
    [
        (100, 0, "unfinished/request.json"),
        (1000, 2, "data/train/train-00000.hdf5"),  # in the third record of 452 bytes
        (1820, 3, "data/train/train-00000.hdf5"),  # in the checksum of the fourth
        (12000, 4, "data/train/train-00000.hdf5"),  # in the shard itself
    ],
)
def test_full_disk_is_our_error_and_can_be_resumed(tmp_path, limit, records, what):
    folder = tmp_path / "data"
    assert tiny.run_child(generate_within, folder, limit, what) == 7
    assert list(folder.glob("data/*/*")) == []
    assert sum((path.stat().st_size - 32) // 452 for path in folder.glob("unfinished/*.journal")) == records
    problem = tiny.Tiny()
    tiny.make(folder, problem=problem, splits={"train": 1})
    assert problem.solved == tiny.SAMPLES - records // 2 * 2
    assert tiny.content(folder) == tiny.content(tiny.make(tmp_path / "whole", splits={"train": 1}))


def generate_as_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        # The rights of a folder do not bind root.
        os.setgid(65534)
        os.setuid(65534)
    try:
        tiny.make(folder / "data")
    except DataError as error:
        os._exit(7 if "Permission denied" in str(error) else 1)


def test_finished_dataset_in_a_read_only_folder_is_no_error():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.make(folder / "data")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            assert tiny.run_child(generate_as_nobody, folder) == 0
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)


def test_read_only_folder_is_our_error():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        assert tiny.run_child(generate_as_nobody, folder) == 7
        folder.chmod(0o755)
        assert list(folder.iterdir()) == []


def hold(folder: Path, ready, release) -> None:
    with atomic.exclusive_lock(folder, error=DataError):
        ready.set()
        release.wait(60)


def test_two_writers_on_one_folder(tmp_path, whole):
    folder = tmp_path / "data"
    folder.mkdir()
    ready, release = tiny.PROCESSES.Event(), tiny.PROCESSES.Event()
    other = tiny.PROCESSES.Process(target=hold, args=(folder, ready, release))
    other.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="expected to be the only writer"):
        tiny.make(folder)
    assert tiny.content(folder) == {}
    release.set()
    other.join(60)
    assert tiny.content(tiny.make(folder)) == tiny.content(whole)


def test_files_are_synced_before_renamed_and_complete_before_listed(tmp_path, monkeypatch):
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def name_of(path: Path) -> str:
        return path.name.partition(".tmp-")[0]

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", name_of(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def recorded_rename(source, target) -> None:
        calls.append(("rename", name_of(Path(target))))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_rename)
    tiny.make(tmp_path / "data", samples=5, splits={"train": 1})

    def written(name: str, folder: str) -> list[tuple[str, str]]:
        return [("fsync", name), ("rename", name), ("fsync", folder)]

    assert calls == [
        *written("request.json", "unfinished"),
        *written("train-00000.hdf5", "train"),
        *written("train-00001.hdf5", "train"),
        *written("stats.yaml", "data"),
        *written("dataset.json", "data"),
    ]


class TestDarcy:
    @pytest.mark.parametrize("name", ["darcy", "darcy-rough", "darcy-lognormal"])
    def test_same_functions_at_three_times_the_resolution(self, name):
        problem = PROBLEMS[name]
        coarse, fine = (
            problem.sample([torch.Generator().manual_seed(seed) for seed in range(6)], (n, n)) for n in (32, 96)
        )
        nested = (slice(None), slice(None), *problem.domain.common_nodes((32, 32), (96, 96)))
        mean = coarse.input.mean()
        same = (coarse.input > mean) == (fine.input[nested] > mean)
        assert same.double().mean() > 0.985
        # Negative control: other seeds agree in about half of the cells.
        assert ((coarse.input > mean) == (fine.input[nested] > mean).roll(1, 0)).double().mean() < 0.75
        difference = (coarse.target - fine.target[nested]).norm() / fine.target[nested].norm()
        assert difference < 0.03
        assert (coarse.target - fine.target[nested].roll(1, 0)).norm() / fine.target[nested].norm() > 0.1
        assert bool(coarse.converged.all())

    def test_pressures_solve_the_equation(self):
        # Flux through the boundary equals the source, computed from the stored fields alone, cell by cell.
        samples = PROBLEMS["darcy"].sample([torch.Generator().manual_seed(3)], (24, 24))
        a, u = samples.input[0, 0], samples.target[0, 0]
        assert sorted(a.unique().tolist()) == [3.0, 12.0]
        h = 1 / 24
        flux = sum((2 * a_wall * u_wall).sum() for a_wall, u_wall in zip(*map(self.walls, (a, u)), strict=True))
        assert flux.item() == pytest.approx(1.0, abs=1e-8)
        face = 2 * a[:-1] * a[1:] / (a[:-1] + a[1:]) * (u[1:] - u[:-1])
        across = 2 * a[:, :-1] * a[:, 1:] / (a[:, :-1] + a[:, 1:]) * (u[:, 1:] - u[:, :-1])
        balance = (face[1:] - face[:-1])[:, 1:-1] + (across[:, 1:] - across[:, :-1])[1:-1]
        assert (-balance / h**2 - 1.0).abs().max() < 1e-6

    @staticmethod
    def walls(field):
        return [field[0], field[-1], field[:, 0], field[:, -1]]

    def test_dataset_of_the_paper(self, tmp_path):
        data = open_dataset(generate("darcy", tmp_path / "data", samples=20, resolution=32, dtype="float64"))
        assert data.description.parameters["high"].value == 12.0
        a, u = data.read(range(len(data)))
        assert a.dtype == torch.float64
        assert 0.005 < u.amax((1, 2, 3)).min() < u.max() < 0.03
        assert data.statistics is not None
        np.testing.assert_allclose(data.statistics.target.mean[0], u.mean().item(), rtol=1e-12)
