"""What every solver promises. Inherit :class:`SolverContract` in a test class, define four methods, get the tests.

class TestDarcy(SolverContract):
    domain = Domain.box((1.0, 1.0), nodes="cell")
    order = 2.0

    def make(self):
        return Darcy(self.domain)

    def solve(self, solver, *inputs):
        return solver.solve(*inputs)

    def inputs(self, shape, *, batch=3):
        ...     # coefficient and source, the same functions on every grid

    def exact(self, shape):
        ...     # inputs whose solution is known, and that solution
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from neuralop_kit import Domain, NeuralopKitError
from neuralop_kit.solvers.status import SolveInfo, Status

Fields = tuple[Tensor, ...]


class SolverContract:
    """The tests every solver inherits; a subclass sets the attributes that differ and defines the four methods below.

    Solvers of another kind than "fields in, field and :class:`SolveInfo` out" override :meth:`solve` to look like one;
    those whose order is in something else than the spacing (a time step) override :meth:`error`.
    """

    domain: Domain
    # Grids for everything but the order; at least one odd and one rectangular where there are two axes.
    shapes: tuple[tuple[int, ...], ...] = ((12, 8), (9, 7))
    # Gradients are compared with finite differences in a random direction.
    tiny_shape: tuple[int, ...] = (4, 3)

    # The order that the docstring promises, fitted to the errors of num_refinements problems from reference_shape on.
    order: float = 2.0
    order_tolerance: float = 0.1
    reference_shape: tuple[int, ...] = (12, 16)
    num_refinements: int = 4

    # Relative error of two ways to compute the same thing; for float32, against float64.
    float32_tolerance: float = 1e-5
    float64_tolerance: float = 1e-12
    # Set to False where the solver promises no gradients, or none in forward mode.
    is_differentiable: bool = True
    has_forward_mode: bool = True

    def make(self) -> Any:
        """The solver."""
        raise NotImplementedError

    def make_precise(self) -> Any:
        """The solver with its tightest tolerance, for finite differences."""
        return self.make()

    def solve(self, solver: Any, *inputs: Tensor) -> tuple[Tensor, SolveInfo]:
        """Solution and report."""
        raise NotImplementedError

    def inputs(self, shape: tuple[int, ...], *, batch: int = 3) -> Fields:
        """Float64 inputs, batch first; every item another function, and each the same function on every grid."""
        raise NotImplementedError

    def exact(self, shape: tuple[int, ...]) -> tuple[Fields, Tensor]:
        """Inputs and the solution they have, from theory or from an independent solver."""
        raise NotImplementedError

    # ---- order

    def test_order_of_convergence(self):
        self.check_order()

    def check_order(self, *, order: float | None = None) -> list[float]:
        """Assert the fitted order, from both sides: claiming too little is also wrong."""
        order = self.order if order is None else order
        errors = [self.error(k) for k in range(self.num_refinements)]
        levels = [-math.log2(error) for error in errors]
        mean = (len(levels) - 1) / 2
        slope = sum((k - mean) * level for k, level in enumerate(levels)) / sum(
            (k - mean) ** 2 for k in range(len(levels))
        )
        listed = ", ".join(f"{error:.3e}" for error in errors)
        assert abs(slope - order) <= self.order_tolerance, f"expected order {order}, got {slope:.3f} from {listed}"
        return errors

    def error(self, refinement: int) -> float:
        """Relative L2 error where the spacing is ``2**-refinement`` times that of the reference shape."""
        shape = self.domain.refine(self.reference_shape, 2**refinement)
        inputs, exact = self.exact(shape)
        value, _ = self.solve(self.make(), *inputs)
        weights = self.domain.weights(shape, dtype=torch.float64)
        return ((weights * (value - exact) ** 2).sum() / (weights * exact**2).sum()).sqrt().item()

    # ---- values

    def test_every_item_is_reported(self):
        for shape in self.shapes:
            inputs = self.inputs(shape)
            value, info = self.solve(self.make(), *inputs)
            assert value.dtype == torch.float64
            assert value.isfinite().all()
            assert {report.shape for report in (info.status, info.iterations, info.residual_norm)} == {(3,)}
            assert info.converged.all()

    def test_batch_is_a_loop_over_its_items(self):
        solver = self.make()
        for shape in self.shapes:
            inputs = self.inputs(shape)
            one_by_one = [self.solve(solver, *[u[i : i + 1] for u in inputs])[0] for i in range(3)]
            self.assert_same(self.solve(solver, *inputs)[0], torch.cat(one_by_one))

    def test_same_input_gives_the_same_bits(self):
        inputs = self.inputs(self.shapes[0])
        first, _ = self.solve(self.make(), *inputs)
        assert torch.equal(self.solve(self.make(), *inputs)[0], first)

    def test_float32_agrees_with_float64(self):
        for shape in self.shapes:
            single = tuple(u.float() for u in self.inputs(shape))
            value, _ = self.solve(self.make(), *single)
            assert value.dtype == torch.float32
            expected, _ = self.solve(self.make(), *[u.double() for u in single])
            self.assert_same(value.double(), expected, torch.float32)

    def test_memory_layout_of_the_input_does_not_matter(self):
        for shape in self.shapes:
            inputs = self.inputs(shape)
            expected, _ = self.solve(self.make(), *inputs)
            spread = [torch.stack([u, u], dim=-1).flatten(-2)[..., ::2] for u in inputs]
            self.assert_same(self.solve(self.make(), *spread)[0], expected)

    def test_input_is_not_modified(self):
        inputs = self.inputs(self.shapes[0])
        before = [u.clone() for u in inputs]
        self.solve(self.make(), *inputs)
        assert all(torch.equal(u, v) for u, v in zip(inputs, before, strict=True))

    # ---- failure

    def test_nan_is_flagged_and_stays_in_its_own_item(self):
        solver = self.make()
        inputs = self.inputs(self.shapes[0])
        expected, _ = self.solve(solver, *inputs)
        for i in range(len(inputs)):
            spoiled = [u.clone() for u in inputs]
            spoiled[i][1].flatten()[0] = math.nan
            value, info = self.solve(solver, *spoiled)
            assert info.status[1] == Status.INVALID_INPUT
            assert not value[1].isfinite().any(), "a failed item must not look like a solution"
            assert info.converged[[0, 2]].all()
            assert torch.equal(value[[0, 2]], expected[[0, 2]])

    def test_wrong_shapes_are_refused(self):
        solver = self.make()
        for bad in self.wrong_inputs():
            with pytest.raises(NeuralopKitError, match=r"expected .*, got .*; "):
                self.solve(solver, *bad)

    def wrong_inputs(self) -> Iterator[Fields]:
        """Inputs that do not fit: rank, channels, and grids that differ from each other."""
        inputs = self.inputs(self.shapes[0])
        for i, u in enumerate(inputs):
            wrong = [u[0], u.unsqueeze(-1), torch.cat([u, u], dim=1), u[:, :0]]
            if len(inputs) > 1:
                wrong.append(u[..., 1:])
            for bad in wrong:
                yield (*inputs[:i], bad, *inputs[i + 1 :])

    # ---- gradients

    def test_gradients_are_right(self):
        if not self.is_differentiable:
            return
        inputs = tuple(u.requires_grad_() for u in self.inputs(self.tiny_shape, batch=2))
        solver = self.make_precise()
        function, forward = lambda *u: self.solve(solver, *u)[0], self.has_forward_mode
        assert gradcheck(function, inputs, check_forward_ad=forward, fast_mode=True)

    # ---- devices

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    def test_cuda_agrees_with_cpu(self):
        solver = self.make()
        for shape in self.shapes:
            inputs = self.inputs(shape)
            value, info = self.solve(solver, *[u.cuda() for u in inputs])
            assert value.is_cuda
            assert info.status.is_cuda
            # The order of summation differs there, and with it the last iterate, by the solver's own tolerance.
            self.assert_same(value.cpu(), self.solve(solver, *inputs)[0], factor=1e3)

    # ---- helpers

    def assert_same(
        self, actual: Tensor, expected: Tensor, dtype: torch.dtype = torch.float64, *, factor: float = 1.0
    ) -> None:
        """Equal up to ``factor`` times the tolerance of ``dtype``, relative to the largest entry."""
        assert actual.shape == expected.shape
        assert actual.isfinite().all()
        tolerance = self.float32_tolerance if dtype == torch.float32 else self.float64_tolerance
        error = ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
        assert error <= factor * tolerance, f"relative error {error:.2e}"
