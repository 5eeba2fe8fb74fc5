"""Systems: eigenvectors are left out where the step is the same without them, and nowhere else."""

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import HIG, GaussNewton, Sven
from neuralop_kit.optim.gram import eigen
from neuralop_kit.optim.gram.filters import Damp, Power, Truncate
from neuralop_kit.optim.gram.jacobian import DenseJacobian
from neuralop_kit.optim.gram.systems import GramSystem, QRSystem, System
from neuralop_kit.solvers.errors import NonFiniteError

DOUBLE = {"dtype": torch.float64}


def jacobian(singular_values: Tensor, num_columns: int, seed: int = 0) -> DenseJacobian:
    """A wide one with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    n = len(singular_values)
    left = torch.linalg.qr(torch.randn(n, n, generator=generator, **DOUBLE)).Q
    right = torch.linalg.qr(torch.randn(num_columns, n, generator=generator, **DOUBLE)).Q
    return DenseJacobian((left * singular_values) @ right.T, memory_budget=2**30)


def refuse(*args: object) -> None:
    raise AssertionError("expected no eigenvectors, got a call for them")


@pytest.mark.parametrize("lowest", [1e-1, 1e-3, 1e-5])
def test_where_nothing_is_dropped_no_eigenvectors_are_needed(lowest, monkeypatch):
    matrix = jacobian(torch.logspace(0, torch.tensor(lowest).log10().item(), 20, **DOUBLE), 30)
    r = torch.randn(20, generator=torch.Generator().manual_seed(1), **DOUBLE)
    monkeypatch.setattr(eigen.lapack, "dstevd", refuse)
    system = GramSystem(matrix)
    found = system.solve(r, Truncate(rtol=lowest / 2))
    expected = torch.linalg.pinv(matrix.dense(), rtol=1e-12) @ r
    # A Gram matrix squares the condition number.
    assert (found - expected).norm() < 1e-15 / lowest**2 * 20 * expected.norm()
    assert system.rank == 20


@pytest.mark.parametrize("distance", [0.999, 0.9, 0.5])
@pytest.mark.parametrize("rest", ["equal", "small"])
def test_a_value_below_the_threshold_is_always_dropped(distance, rest):
    values = torch.ones(40, **DOUBLE) if rest == "equal" else torch.full((40,), 0.02, **DOUBLE)
    values[0], values[-1] = 1.0, 0.01 * distance
    matrix = jacobian(values, 50)
    r = torch.randn(40, generator=torch.Generator().manual_seed(1), **DOUBLE)
    system = GramSystem(matrix)
    found = system.solve(r, Truncate(rtol=0.01))
    assert system.rank == 39
    whole = torch.linalg.pinv(matrix.dense(), rtol=1e-12) @ r
    expected = torch.linalg.pinv(matrix.dense(), rtol=0.01) @ r
    assert (found - expected).norm() < 1e-9 * expected.norm() < 1e-3 * (whole - expected).norm()


@pytest.mark.parametrize("filter_", [Truncate(1e-3, max_rank=3), Power(-0.5), Damp(1e-3, rtol=1e-3)], ids=str)
def test_other_filters_see_the_singular_values(filter_):
    values = torch.linspace(1.0, 0.5, 6, **DOUBLE)
    matrix = jacobian(values, 9)
    r = torch.randn(6, generator=torch.Generator().manual_seed(1), **DOUBLE)
    u, s, vh = torch.linalg.svd(matrix.dense(), full_matrices=False)
    expected = vh.T @ (filter_(s) * (u.T @ r))
    assert (GramSystem(matrix).solve(r, filter_) - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("exponent", [-480, -332, 332, 480])
@pytest.mark.parametrize("shape", [(12, 41), (60, 41)], ids=["rows", "columns"])
def test_steps_do_not_depend_on_the_scale_of_the_residual(exponent, shape):
    # Powers of two change no digit; squares of squares of these numbers are zero or infinite.
    optimizers = {
        "sven": Sven, "fine": lambda p: Sven(p, rtol=1e-9), "cholesky": lambda p: GaussNewton(p, rtol=0.0),
        "qr": GaussNewton, "half": lambda p: HIG(p, exponent=-1.0, rtol=1e-3),
    }  # fmt: skip
    for name, make in optimizers.items():
        ends = []
        for scale in (1.0, 2.0**exponent):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 1)).double()
            x = torch.rand(shape[0], 2, **DOUBLE)
            optimizer = make(model.parameters())
            for _ in range(3):
                optimizer.step(lambda m=model, x=x, c=scale: c * (m(x).squeeze(1) - (3 * x).sin().sum(dim=1)))
            assert optimizer.info.status == "moved", name
            ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert (ends[0] - ends[1]).norm() < 1e-8 * ends[0].norm(), name


@pytest.mark.parametrize("system", [QRSystem, GramSystem])
@pytest.mark.parametrize("is_tall", [False, True])
def test_damping_is_relative_to_the_largest_block(system, is_tall):
    # The largest row is a block of its own, from which power iterations never see the others; together they are larger.
    matrix = torch.zeros(12, 20, **DOUBLE)
    matrix[0, 0], matrix[1:, 1:] = 3.0, 0.5
    matrix = matrix.T if is_tall else matrix
    r = torch.randn(len(matrix), generator=torch.Generator().manual_seed(1), **DOUBLE)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert s[0] > 2 * s[1]
    filter_ = Damp(damping=1e-2)
    expected = vh.T @ (filter_(s) * (u.T @ r))
    found: System = system(DenseJacobian(matrix, memory_budget=2**20))
    assert (found.solve(r, filter_) - expected).norm() < 1e-12 * expected.norm()


def test_zero_and_nan():
    r = torch.ones(4, **DOUBLE)
    assert not GramSystem(DenseJacobian(torch.zeros(4, 6, **DOUBLE), memory_budget=2**20)).solve(r, Truncate()).any()
    broken = torch.eye(4, 6, **DOUBLE)
    broken[2, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="finite derivatives"):
        GramSystem(DenseJacobian(broken, memory_budget=2**20)).solve(r, Truncate())
