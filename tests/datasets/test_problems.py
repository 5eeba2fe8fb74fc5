"""The registry: every published setting makes a file, finds its name, says how hard it is, and is resolved in time."""

import copy

import numpy as np
import pytest
import torch

from neuralop_kit.datasets import PROBLEMS, check_file, generate, open_dataset
from neuralop_kit.datasets.problems import Difficulty, Problem, Trajectories
from neuralop_kit.solvers.errors import RegistryError

PUBLISHED = [name for name, problem in PROBLEMS.items() if problem.setting]
ORIGINS = {"fno", "pdebench", "apebench", "mgno", "torch-harmonics"}


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


def tiny_shape(problem: Problem) -> tuple[int, ...]:
    if problem.name == "shallow-water-sphere":
        return (8, 16)
    if problem.setting == "mgno" and problem.name.startswith("helmholtz"):
        return (101, 101)
    return (48,) if problem.domain.num_dims == 1 else (8,) * problem.domain.num_dims


def hurried(problem: Problem) -> Problem:
    """The same with a short warm-up, and with longer steps where it takes a second or more to be accurate."""
    quick = copy.copy(problem)
    if isinstance(quick, Trajectories):
        quick.warmup = min(quick.warmup, 2)
        if quick.name == "diffusion-sorption-pdebench":
            quick.substeps = 1
    return quick


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_setting_makes_a_file(name, tmp_path):
    problem = hurried(PROBLEMS[name])
    shape = tiny_shape(problem)
    folder = generate(problem, tmp_path, samples=1, resolution=shape, splits={"test": 1.0})
    (file,) = folder.glob("data/test/*.hdf5")
    assert check_file(file) == []
    data = open_dataset(folder, "test")
    assert data.domain == problem.domain
    assert data.target_names == problem.target_names
    if problem.times:
        trajectory = data.trajectories[0]
        assert trajectory.shape == (len(problem.times), len(problem.target_names), *shape)
        assert np.allclose(data.trajectories.times(0), problem.times)
        # Something happens; transport may end where it began.
        assert (trajectory - trajectory[0]).flatten(1).norm(dim=1).max() > 1e-3 * trajectory[0].norm()
    else:
        u, v = data[0]
        assert (u.shape, v.shape) == ((len(problem.input_names), *shape), (len(problem.target_names), *shape))


def test_all_origins_are_there():
    assert {PROBLEMS[name].setting for name in PUBLISHED} == ORIGINS


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("burgers", "fno", "burgers"),
        ("burgers", "apebench", "burgers-apebench"),
        ("burgers-pdebench-0.01", "pdebench", "burgers-pdebench-0.01"),
        ("shallow-water", "pdebench", "shallow-water-pdebench"),
        ("helmholtz", "mgno", "helmholtz-mgno"),
        ("darcy", "fno", "darcy"),
    ],
)
def test_a_name_and_an_origin_find_the_problem(name, settings, expected):
    assert PROBLEMS.choose(name, settings).name == expected


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("burgers", "pdebench", "got 12; take one of these names: \\['burgers-pdebench-0.001'"),
        ("stokes", "pdebench", "got 0; take one of these names"),
        ("darcy", "nobody", "apebench"),
        ("burg", "fno", "got 0"),
    ],
)
def test_what_is_not_one_problem_is_refused(name, settings, word, tmp_path):
    with pytest.raises(RegistryError, match=word):
        generate(name, tmp_path / "data", samples=1, resolution=8, settings=settings)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("name", "advice"), [("darcyy", "did you mean darcy"), ("xyz", "take one of these")])
def test_a_misspelt_name_is_guessed(name, advice):
    with pytest.raises(RegistryError, match=advice):
        PROBLEMS[name]


def test_difficulties_are_those_that_apebench_states():
    assert PROBLEMS["advection-apebench"].difficulty((160,)) == pytest.approx({"gamma_1": -4.0})
    expected = {"gamma_2": 1.5, "delta_1": -1.5}
    assert PROBLEMS["burgers-apebench"].difficulty((160,)) == pytest.approx(expected)
    # Its own formula by hand, in two dimensions: a N^s 2^(s-1) D with a = dt alpha / L^s.
    number = Difficulty(dt=0.5, length=2.0, linear={3: 0.25}).at((10, 10))
    assert number == pytest.approx({"gamma_3": 0.5 * 0.25 / 8 * 1000 * 4 * 2})
    assert PROBLEMS["darcy"].difficulty((64, 64)) == {"contrast": 4.0}
    waves = PROBLEMS["helmholtz-mgno"].difficulty((101, 101))
    assert waves["points_per_wave"] == pytest.approx(100 * 2 * torch.pi * 20 / 1000)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_says_how_hard_it_is(name):
    problem = PROBLEMS[name]
    coarse = (16, 32) if problem.name == "shallow-water-sphere" else (32,) * problem.domain.num_dims
    numbers, finer = problem.difficulty(coarse), problem.difficulty(tuple(2 * n for n in coarse))
    assert numbers
    assert all(np.isfinite(value) and value != 0 for value in numbers.values())
    # A finer grid is harder by the order of each term; that of media, and of a source, does not change.
    for key, value in numbers.items():
        order = int(key[-1]) if key[-1].isdigit() else {"contrast": 0, "waves": 0}.get(key)
        if order is not None:
            assert finer[key] == pytest.approx(value * 2**order, rel=1e-12)


MORE_VISCOUS = [
    ("burgers-pdebench-{}", ("0.001", "0.01", "0.1", "1", "4"), "gamma_2"),
    ("advection-pdebench-{}", ("0.1", "0.4", "1", "7"), "gamma_1"),
    ("reaction-diffusion-pdebench-{}-1", ("0.5", "1", "2", "5"), "gamma_2"),
    ("reaction-diffusion-pdebench-1-{}", ("1", "2", "5", "10"), "gamma_0"),
    ("navier-stokes-fno-{}", ("1e-5", "1e-4", "1e-3"), "gamma_2"),
    ("compressible-pdebench-1d-{}", ("1e-8", "0.01", "0.1"), "gamma_2"),
    ("compressible-pdebench-2d-{}-0.1", ("0.1", "1"), "delta_1"),
]


@pytest.mark.parametrize(("pattern", "values", "key"), MORE_VISCOUS, ids=[row[0] for row in MORE_VISCOUS])
def test_difficulty_is_proportional_to_the_coefficient(pattern, values, key):
    problems = [PROBLEMS[pattern.format(value)] for value in values]
    numbers = [abs(p.difficulty((64,) * p.domain.num_dims)[key]) / p.dt for p in problems]
    assert numbers == sorted(set(numbers))
    if key != "delta_1":
        expected = [float(value) / float(values[0]) for value in values]
        assert [number / numbers[0] for number in numbers] == pytest.approx(expected, rel=1e-12)


def test_a_dataset_says_how_hard_it_is(tmp_path):
    generate("burgers", tmp_path, samples=1, resolution=40, settings="apebench", splits={"test": 1.0})
    parameters = open_dataset(tmp_path, "test").contents.parameters
    assert parameters["delta_1"].value == pytest.approx(-1.5 * 40 / 160)


SPECTRAL = [
    ("burgers-apebench", (64,), 1e-6),
    ("burgers-pdebench-0.1", (64,), 1e-6),
    ("reaction-diffusion-pdebench-1-5", (64,), 1e-6),
    ("diffusion-reaction-pdebench", (16, 16), 1e-6),
    ("gray-scott-apebench", (32, 32), 1e-6),
    ("allen-cahn", (32, 32), 1e-5),
    ("navier-stokes-fno-1e-4", (24, 24), 1e-5),
]


@pytest.mark.parametrize(("name", "shape", "tolerance"), SPECTRAL)
def test_steps_are_short_enough(name, shape, tolerance):
    problem = PROBLEMS[name]
    stepper = problem.stepper(max(shape))
    u = stepper.initial_condition(1, shape, generator=seeds(1), dtype=torch.float64)
    finer = copy.copy(stepper)
    finer.num_substeps, finer._last = 2 * stepper.num_substeps, None
    count = min(len(problem.times) - 1, 20)
    end, better = (s.rollout(u, count, save_every=count)[:, -1] for s in (stepper, finer))
    assert (end - better).norm() < tolerance * better.norm()


def test_pdebench_darcy_is_linear_in_beta_and_the_same_on_a_finer_grid():
    weak, strong = (PROBLEMS[f"darcy-pdebench-{beta}"].sample(seeds(2), (16, 16)) for beta in ("0.01", "10"))
    assert torch.equal(weak.input, strong.input)
    assert (1000 * weak.target - strong.target).abs().max() < 1e-12 * strong.target.abs().max()
    assert len(weak.input.unique()) == 2
    assert (weak.input.amin(), weak.input.amax()) == (pytest.approx(0.1, rel=1e-15), 1.0)
    fine = PROBLEMS["darcy-pdebench-1"].sample(seeds(2), (48, 48)).input
    assert torch.equal(fine[..., 1::3, 1::3], weak.input)
