"""The solver contract itself: a sound solver passes all of it, and each kind of unsound solver fails the right test."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.status import SolveInfo, Status
from tests.contracts.solver import SolverContract


class Screened:
    """A sound specimen: u - u'' = f on a line, zero at both ends, differences on inner points, dense solve."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def solve(self, source: Tensor) -> tuple[Tensor, SolveInfo]:
        if source.ndim != 3 or source.shape[1] != 1:
            raise ShapeError(f"expected a source of shape (batch, 1, n), got {tuple(source.shape)}; add the channel")
        valid = source.isfinite().all(dim=-1, keepdim=True)
        load = torch.where(valid, source, 0.0)
        u = torch.where(valid, self.invert(load), torch.nan)
        status = torch.where(valid[:, 0, 0], int(Status.CONVERGED), int(Status.INVALID_INPUT))
        return u, SolveInfo(status, torch.zeros_like(status), torch.zeros(len(status)))

    def matrix(self, n: int, dtype: torch.dtype) -> Tensor:
        (h,) = self.domain.spacing((n,))
        side = torch.full((n - 1,), -1 / h**2, dtype=dtype)
        return torch.diag(torch.full((n,), 1 + 2 / h**2, dtype=dtype)) + torch.diag(side, 1) + torch.diag(side, -1)

    def invert(self, load: Tensor) -> Tensor:
        matrix = self.matrix(load.shape[-1], load.dtype).expand(len(load), -1, -1)
        return torch.linalg.solve(matrix, load[:, 0, :, None]).mT


class LineContract(SolverContract):
    domain = Domain.box((1.0,), nodes="interior")
    shapes = ((12,), (9,))
    tiny_shape = (5,)
    reference_shape = (15,)

    def make(self) -> Screened:
        return Screened(self.domain)

    def solve(self, solver, *inputs):
        return solver.solve(*inputs)

    def inputs(self, shape, *, batch=3):
        x = self.domain.coordinates(shape, dtype=torch.float64)
        return (torch.stack([torch.exp(x) * torch.cos(3 * x + phase) for phase in range(batch)]),)

    def exact(self, shape):
        u = torch.sin(2 * math.pi * self.domain.coordinates(shape, dtype=torch.float64)).unsqueeze(0)
        return ((1 + 4 * math.pi**2) * u,), u


class TestSoundSolver(LineContract):
    """Nothing to add: every inherited test passes."""


class FirstOrder(Screened):
    def invert(self, load: Tensor) -> Tensor:
        (h,) = self.domain.spacing(load.shape[2:])
        return super().invert(load) * (1 + h)


class MixesItems(Screened):
    def invert(self, load: Tensor) -> Tensor:
        return super().invert(load - load.mean(dim=0))


class HidesFailure(Screened):
    def solve(self, source: Tensor) -> tuple[Tensor, SolveInfo]:
        u, info = super().solve(source)
        return u.nan_to_num(), SolveInfo(torch.zeros_like(info.status), info.iterations, info.residual_norm)


class SpoilsNeighbours(Screened):
    def solve(self, source: Tensor) -> tuple[Tensor, SolveInfo]:
        u, info = super().solve(source)
        return u * source.mean() / source.mean(), info


class SinglePrecision(Screened):
    def invert(self, load: Tensor) -> Tensor:
        return super().invert(load.float()).to(load.dtype)


class ReturnsDouble(Screened):
    def invert(self, load: Tensor) -> Tensor:
        return super().invert(load).double()


class InPlace(Screened):
    def solve(self, source: Tensor) -> tuple[Tensor, SolveInfo]:
        return super().solve(source.mul_(2.0))


class Detached(Screened):
    def invert(self, load: Tensor) -> Tensor:
        return super().invert(load.detach()) + 0 * load


class Careless(Screened):
    def solve(self, source: Tensor) -> tuple[Tensor, SolveInfo]:
        return super().solve(source.flatten(1)[:, None] if source.ndim > 2 else source[:, None])


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (FirstOrder, "test_order_of_convergence"),
        (MixesItems, "test_batch_is_a_loop_over_its_items"),
        (HidesFailure, "test_nan_is_flagged_and_stays_in_its_own_item"),
        (SpoilsNeighbours, "test_nan_is_flagged_and_stays_in_its_own_item"),
        (SinglePrecision, "test_gradients_are_right"),
        (ReturnsDouble, "test_float32_agrees_with_float64"),
        (InPlace, "test_input_is_not_modified"),
        (Detached, "test_gradients_are_right"),
        (Careless, "test_wrong_shapes_are_refused"),
    ],
)
def test_unsound_solvers_fail(broken, test):
    class Case(LineContract):
        def make(self) -> Screened:
            return broken(self.domain)

    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        getattr(Case(), test)()


def test_the_order_is_fitted_from_both_sides():
    for claimed in (1.0, 3.0):
        with pytest.raises(AssertionError, match=r"got (1\.9|2\.0)"):
            TestSoundSolver().check_order(order=claimed)
