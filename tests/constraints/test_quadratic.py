"""QPConstraint against the other layers, another algorithm, and finite differences."""

import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit import Domain
from neuralop_kit.constraints import LinearConstraint, QPConstraint, SimplexConstraint
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.status import Status

LINE = Domain.box((2.0,), nodes="vertex")


def decreasing(v: Tensor) -> Tensor:
    return v[..., :-1] - v[..., 1:]


def mass(v: Tensor, total: Tensor) -> Tensor:
    return (LINE.weights(v.shape[1:], dtype=v.dtype) * v).sum(dim=-1) - total


def draw(generator, *, batch=5, num_points=12) -> Tensor:
    return torch.randn(batch, 1, num_points, generator=generator, dtype=torch.float64)


def test_monotone_fields_are_those_of_isotonic_regression(generator):
    u = draw(generator, num_points=20)
    v, info = QPConstraint(LINE, inequalities=decreasing)(u)
    assert info.converged.all()
    weights = LINE.weights((20,), dtype=torch.float64).numpy()
    for ours, given in zip(v[:, 0], u[:, 0], strict=True):
        expected = IsotonicRegression().fit_transform(range(20), given.numpy(), sample_weight=weights)
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_positivity_and_mass_are_those_of_the_closed_form(generator):
    u, total = draw(generator), torch.rand(5, 1, generator=generator, dtype=torch.float64) + 0.5
    v, info = QPConstraint(LINE, equalities=mass, inequalities=lambda v, total: -v)(u, total)
    expected, _ = SimplexConstraint(LINE)(u, total)
    assert info.converged.all()
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-11)


def test_equalities_alone_are_a_linear_constraint(generator):
    u, total = draw(generator), torch.rand(5, 1, generator=generator, dtype=torch.float64)
    v, _ = QPConstraint(LINE, equalities=mass)(u, total)
    expected, _ = LinearConstraint(lambda x: torch.ones_like(x)[None], domain=LINE)(u, total)
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-12)


def test_derivatives_with_respect_to_field_and_data(generator):
    layer = QPConstraint(LINE, equalities=mass, inequalities=lambda v, total: decreasing(v))
    inputs = draw(generator, batch=2, num_points=5).requires_grad_(), torch.ones(2, 1).double().requires_grad_()
    assert gradcheck(lambda u, total: layer(u, total)[0], inputs, fast_mode=True)
    assert gradgradcheck(lambda u, total: layer(u, total)[0], inputs, fast_mode=True)


def contradiction(v: Tensor, bound: Tensor) -> Tensor:
    """``bound <= v <= 1``."""
    return torch.cat([v - 1, bound - v])


def test_items_without_a_solution_are_nan_and_flagged(generator):
    u, bound = draw(generator, batch=3), torch.tensor([[0.0], [2.0], [0.5]]).double()
    v, info = QPConstraint(LINE, inequalities=contradiction)(u, bound)
    assert info.status.tolist() == [0, Status.INFEASIBLE, 0]
    assert v[1].isnan().all()
    torch.testing.assert_close(v[0], u[0].clamp(0, 1), rtol=0, atol=1e-12)


def test_relaxation_gives_the_least_violation(generator):
    u, bound = draw(generator, batch=3).requires_grad_(), torch.tensor([[0.0], [2.0], [0.5]]).double()
    v, info = QPConstraint(LINE, inequalities=contradiction, relaxation=1e8)(u, bound)
    assert info.status.tolist() == [0, Status.INFEASIBLE, 0]
    # Between 1 from above and 2 from below, the least squared violation is in the middle.
    torch.testing.assert_close(v[1].detach(), torch.full((1, 12), 1.5).double(), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(v.sum(), u)
    assert gradient[1].eq(0).all()
    assert gradient[0].ne(0).any()


def test_wrong_arguments_are_refused(generator):
    with pytest.raises(ArgumentError, match=r"expected equalities, inequalities or both, got none; "):
        QPConstraint(LINE)
    with pytest.raises(ArgumentError, match=r"expected a positive relaxation, got 0.0; "):
        QPConstraint(LINE, equalities=mass, relaxation=0.0)
    with pytest.raises(ShapeError, match=r"expected a field .*, got .*; "):
        QPConstraint(LINE, equalities=mass)(draw(generator)[0])
