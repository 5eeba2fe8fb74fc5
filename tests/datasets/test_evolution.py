"""Problems in time: resolved in time, the same function on every grid, stored and read like any other."""

import pytest
import torch

from neuralop_kit.datasets import PROBLEMS, generate, open_dataset

CASES = [("burgers", (64,)), ("navier-stokes", (32, 32))]


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_time_steps_are_short_enough(name, shape):
    problem = PROBLEMS[name]
    samples = problem.sample(seeds(2), shape)
    finer = problem.make_stepper(problem.time, int(4 * problem.steps_per_point * shape[0])).step(samples.input)
    assert samples.converged.all()
    assert (samples.target - finer).norm() < 1e-6 * finer.norm()
    # It is no identity: the state has changed by a large part of itself.
    assert (samples.target - samples.input).norm() > 0.2 * samples.input.norm()


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_finer_grid_has_the_same_functions(name, shape):
    problem = PROBLEMS[name]
    fine_shape = problem.domain.refine(shape)
    coarse, fine = problem.sample(seeds(2), shape), problem.sample(seeds(2), fine_shape)
    picked = fine.target[(..., *problem.domain.common_nodes(shape, fine_shape))]
    # The finer grid has more modes of the initial state, small ones, which diffusion then removes.
    assert (coarse.target - picked).norm() < 0.02 * picked.norm()


def test_generates_in_parallel_and_opens(tmp_path):
    data = open_dataset(generate("burgers", tmp_path, samples=10, resolution=32, workers=2), "train")
    u, v = data[3]
    assert u.shape == v.shape == (1, 32)
    assert data.input_names == ("initial_velocity",)
    assert data.domain == PROBLEMS["burgers"].domain
