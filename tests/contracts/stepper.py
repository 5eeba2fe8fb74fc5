"""What every time stepper promises: the solver's contract, with the time step in place of the spacing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.status import SolveInfo, Status
from tests.contracts.solver import SolverContract


class StepperContract(SolverContract):
    """Inherit it, define :meth:`make_stepper`; ``order`` is then the order in ``dt``.

    Errors are measured against a run with steps eight times shorter than the shortest: its own error, below
    ``8**-order`` of the last one, does not show in the fit.
    """

    num_channels: int = 1
    order: float = 4.0
    order_tolerance: float = 0.15
    # The longest step of the order test, how many of them, and how large the fields are.
    dt: float = 0.1
    num_steps: int = 8
    amplitude: float = 0.5
    reference_shape: tuple[int, ...] = (32,)
    shapes: tuple[tuple[int, ...], ...] = ((16,), (15,))
    tiny_shape: tuple[int, ...] = (6,)

    def make_stepper(self, dt: float) -> Any:
        """The stepper, with everything but ``dt`` fixed."""
        raise NotImplementedError

    def make(self) -> Any:
        return self.make_stepper(self.dt / 4)

    def solve(self, solver: Any, *inputs: Tensor) -> tuple[Tensor, SolveInfo]:
        """The state after two steps; steppers have no report of their own, NaN is their flag."""
        (u,) = inputs
        value = solver.rollout(u, num_steps=2)[:, -1]
        good = value.flatten(1).isfinite().all(dim=1)
        status = torch.where(good, int(Status.CONVERGED), int(Status.INVALID_INPUT))
        return value, SolveInfo(status=status, iterations=torch.full_like(status, 2), residual_norm=status.double())

    def inputs(self, shape: tuple[int, ...], *, batch: int = 3) -> tuple[Tensor]:
        """Two waves per axis and channel, every item another phase; cosines where there are walls."""
        domain: Domain = self.domain
        x = domain.coordinates(shape, dtype=torch.float64)
        rows = []
        for i in range(batch * self.num_channels):
            value = torch.full(shape, 0.1, dtype=torch.float64)
            for axis, line in zip(domain.axes, x, strict=True):
                phase = 0.4 + 0.7 * i if axis.is_periodic else 0.0
                turn = (2 if axis.is_periodic else 1) * math.pi * (line - axis.start) / axis.length
                value = value + torch.cos(turn + phase) + (0.2 + 0.1 * i) * torch.cos(2 * turn)
            rows.append(self.amplitude * value)
        return (torch.stack(rows).reshape(batch, self.num_channels, *shape),)

    def error(self, refinement: int) -> float:
        fine = 2 ** (self.num_refinements + 2)
        value, best = (self._end(2**refinement), self._end(fine))
        return ((value - best).norm() / best.norm()).item()

    def _end(self, substeps: int) -> Tensor:
        (u,) = self.inputs(self.reference_shape)
        stepper = self.make_stepper(self.dt / substeps)
        count = self.num_steps * substeps
        return stepper.rollout(u, num_steps=count, save_every=count)[:, -1]

    # ---- what steppers promise beyond

    def test_rollout_is_repeated_steps(self):
        stepper = self.make()
        (u,) = self.inputs(self.shapes[0])
        trajectory = stepper.rollout(u, num_steps=4)
        assert trajectory.shape == (3, 5, *u.shape[1:])
        assert torch.equal(trajectory[:, 0], u)
        for k in range(4):
            self.assert_same(stepper.step(trajectory[:, k]), trajectory[:, k + 1])
        self.assert_same(stepper.rollout(u, num_steps=4, save_every=2), trajectory[:, ::2])

    def test_no_states_move_to_no_states(self):
        stepper = self.make()
        (u,) = self.inputs(self.shapes[0])
        assert stepper.rollout(u[:0], 4, save_every=2).shape == (0, 3, *u.shape[1:])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_refused(self, dtype):
        (u,) = self.inputs(self.shapes[0])
        with pytest.raises(ArgumentError, match="float32 or float64"):
            self.make().rollout(u.to(dtype), 1)

    def test_initial_condition_is_one_function_on_every_grid(self):
        stepper = self.make()
        shape = self.domain.refine(self.shapes[0], 3)
        seeds = [torch.Generator().manual_seed(k) for k in range(2)]
        again = [torch.Generator().manual_seed(k) for k in range(2)]
        coarse = stepper.initial_condition(2, shape, generator=seeds, dtype=torch.float64)
        factor = 3 if any(axis.nodes == "cell" for axis in self.domain.axes) else 2
        fine_shape = self.domain.refine(shape, factor)
        fine = stepper.initial_condition(2, fine_shape, generator=again, dtype=torch.float64)
        picked = fine[(..., *self.domain.common_nodes(shape, fine_shape))]
        # The coarse grid lacks the high modes; a second channel drawn from a shifted stream would not correlate at all.
        for one, other in zip(coarse.flatten(0, 1), picked.flatten(0, 1), strict=True):
            pair = torch.stack([one.flatten(), other.flatten()])
            assert torch.corrcoef(pair)[0, 1] > 0.9
