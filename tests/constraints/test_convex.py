"""CvxpyConstraint: what comes back is checked, whatever the backend; failures stay in their items."""

import cvxpy
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from neuralop_kit.constraints import CvxpyConstraint
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization import project_onto_simplex
from neuralop_kit.solvers.status import Status

SIZE = 6


def simplex_layer(**options) -> CvxpyConstraint:
    """Nearest point of a simplex whose size is the second parameter."""
    x, z, total = cvxpy.Variable(SIZE), cvxpy.Parameter(SIZE), cvxpy.Parameter()
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - z)), [x >= 0, cvxpy.sum(x) == total])
    return CvxpyConstraint(problem, [z, total], [x], **options)


def points(generator, *, batch=5) -> Tensor:
    return torch.randn(batch, SIZE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["x >= 0", "-x <= 0", "eye @ x >= 0", "nonneg=True"])
def test_plain_nonnegativity_is_not_lost(generator, kind):
    # A backend of cvxpylayers 1.2 drops exactly these; ours may not, however they are written.
    x, z = cvxpy.Variable(SIZE, nonneg=kind == "nonneg=True"), cvxpy.Parameter(SIZE)
    written = {"x >= 0": [x >= 0], "-x <= 0": [-x <= 0], "eye @ x >= 0": [torch.eye(SIZE).numpy() @ x >= 0]}
    constraints = [*written.get(kind, []), cvxpy.sum(x) == 1]
    layer = CvxpyConstraint(cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - z)), constraints), [z], [x])
    given = points(generator)
    (y,), info = layer(given)
    assert info.converged.all()
    assert (given.min() < -0.5).item(), "nothing would have to be cut off"
    torch.testing.assert_close(y, project_onto_simplex(given, torch.ones(5).double())[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attribute", [False, True])
def test_a_backend_that_drops_a_constraint_is_caught(generator, attribute):
    x, z = cvxpy.Variable(SIZE, nonneg=attribute), cvxpy.Parameter(SIZE)
    constraints = [cvxpy.sum(x) == 1] if attribute else [cvxpy.sum(x) == 1, x >= 0]
    layer = CvxpyConstraint(cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - z)), constraints), [z], [x])

    def without_nonnegativity(z: Tensor, **_) -> tuple[Tensor]:
        return (z + (1 - z.sum(dim=1, keepdim=True)) / SIZE,)

    layer._layer = (without_nonnegativity,)
    given = points(generator)
    given[0] = 0.0  # its projection is positive anyway
    (y,), info = layer(given)
    assert info.status.tolist() == [0, *[Status.BREAKDOWN] * 4]
    assert y[1:].isnan().all()
    assert info.residual_norm[1:].min() > 1e-3


def test_an_item_without_a_solution_does_not_disturb_the_others(generator):
    given, total = points(generator), torch.tensor([1.0, -1.0, 2.0, torch.nan, 0.5]).double()
    given.requires_grad_()
    (y,), info = simplex_layer()(given, total)
    assert info.status.tolist() == [0, Status.INFEASIBLE, 0, Status.INVALID_INPUT, 0]
    good = info.converged
    expected, _ = project_onto_simplex(given[good], total[good])
    torch.testing.assert_close(y[good], expected, rtol=0, atol=1e-6)
    assert y[~good].isnan().all()
    (gradient,) = torch.autograd.grad(y[good].square().sum(), given)
    assert gradient[~good].eq(0).all()
    (wanted,) = torch.autograd.grad(expected.square().sum(), given)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5)


def test_without_a_single_solution(generator):
    (y,), info = simplex_layer()(points(generator, batch=2), torch.full((2,), -1.0).double())
    assert (info.status == Status.INFEASIBLE).all()
    assert y.isnan().all()


def test_gradcheck(generator):
    layer = simplex_layer()
    inputs = points(generator, batch=2).requires_grad_(), torch.ones(2).double().requires_grad_()
    assert gradcheck(lambda z, total: layer(z, total)[0][0], inputs, eps=1e-4, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_dtype_comes_back_and_the_batch_may_be_missing(generator):
    given = points(generator).float()
    (y,), info = simplex_layer()(given, torch.tensor(1.0))
    assert y.dtype == info.residual_norm.dtype == torch.float32
    assert y.shape == (5, SIZE)


def test_wrong_arguments_are_refused(generator):
    layer = simplex_layer()
    for wrong in ((points(generator),), (points(generator)[:, 1:], torch.ones(5)), (points(generator), torch.ones(4))):
        with pytest.raises(ShapeError, match=r"expected parameters .*, got .*; "):
            layer(*wrong)
    with pytest.raises(ArgumentError, match=r"expected a positive tolerance, got 0.0; "):
        simplex_layer(tolerance=0.0)
    x, z = cvxpy.Variable(), cvxpy.Parameter()
    curved = cvxpy.Problem(cvxpy.Minimize(x**2 * z**2), [x >= z])
    with pytest.raises(ArgumentError, match="DPP"):
        CvxpyConstraint(curved, [z], [x])
