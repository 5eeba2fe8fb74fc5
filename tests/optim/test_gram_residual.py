"""What a residual function may return, and derivatives that are not finite where the residual is."""

import pytest
import torch
from torch import nn

from neuralop_kit.optim import BatchedVJP, FixedStep, GaussNewton, Ghost, Randomized, Sven
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


def test_nothing_is_no_residual():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Sven([weight])
    with pytest.raises(ArgumentError, match="at least one block"):
        optimizer.step(dict)
    with pytest.raises(ShapeError, match=r"'walls', got none.*leave the block"):
        optimizer.step(lambda: {"inside": weight, "walls": weight[:0]})


@pytest.mark.parametrize("engine", [BatchedVJP, lambda: Randomized(1)])
@pytest.mark.parametrize("make", [GaussNewton, Sven])
@pytest.mark.parametrize("num_rows", [1, 8])
def test_derivatives_that_are_not_finite_are_refused(make, engine, num_rows):
    # The root of a square: at zero its value is zero, and its derivative 0/0.
    weight, scales = nn.Parameter(torch.zeros(2).double()), torch.ones(num_rows).double()
    optimizer = make([weight], engine=engine())
    optimizer.step(lambda: weight.square().sum().sqrt() * scales - 1)
    assert optimizer.info.status == "refused"
    assert f"{num_rows} of {num_rows} rows" in optimizer.info.reason
    assert torch.equal(weight, torch.zeros_like(weight))
    with torch.no_grad():
        weight.fill_(0.1)
    optimizer.step(lambda: weight.square().sum().sqrt() * scales - 1)
    assert optimizer.info.status == "moved"


@pytest.mark.parametrize("make", [Sven, GaussNewton, lambda p, **kw: Sven(p, rtol=1e-10, **kw)])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 8])
def test_factors_of_derivatives_that_are_not_finite_are_refused(make, num_rows):
    # No row of J is formed here, and no control looks at the loss.
    model = nn.Linear(2, 1).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    points = torch.rand(num_rows, 2).double()
    optimizer = make(model.parameters(), engine=Ghost(), control=FixedStep())
    optimizer.step(lambda: model(points).squeeze(1).square().sqrt() + 1)
    assert optimizer.info.status == "refused"
    assert "finite derivatives" in optimizer.info.reason
    assert not any(p.any() for p in model.parameters())
