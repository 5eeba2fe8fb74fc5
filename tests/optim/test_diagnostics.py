"""Diagnostics on cases whose answers are known."""

import math

import pytest
import torch
from torch import nn

from neuralop_kit.optim import Automatic, BatchedVJP
from neuralop_kit.optim.diagnostics import (
    effective_rank,
    forgetting,
    frequency_errors,
    gradient_alignment,
    opposing_signals,
    sharpness,
    sparsity,
    stable_rank,
)
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sharpness_of_a_quadratic_is_its_largest_eigenvalue():
    values = torch.cat([torch.linspace(-1, 1, 58, dtype=torch.float64), torch.tensor([9.0, -7.0], dtype=torch.float64)])
    basis = torch.linalg.qr(torch.randn(60, 60, generator=generator(), dtype=torch.float64)).Q
    hessian = basis @ torch.diag(values) @ basis.T
    left, right = nn.Parameter(torch.ones(4, 5).double()), nn.Parameter(torch.ones(40).double())

    def loss() -> torch.Tensor:
        x = torch.cat([left.flatten(), right])
        return 0.5 * x @ hessian @ x

    largest, smallest = sharpness(loss, [left, right], num_iterations=25, generator=generator())
    assert largest == pytest.approx(9.0, rel=1e-6)
    assert smallest == pytest.approx(-7.0, rel=1e-6)


def test_sharpness_equals_that_of_the_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.rand(12, 2).double(), torch.rand(12, 1).double()
    parameters = list(model.parameters())

    def loss(*values: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in model.named_parameters()]
        out = torch.func.functional_call(model, dict(zip(names, values or parameters, strict=True)), (x,))
        return (out - y).square().mean()

    blocks = torch.autograd.functional.hessian(loss, tuple(parameters))
    rows = [
        torch.cat([b.reshape(p.numel(), -1) for b in row], dim=1) for p, row in zip(parameters, blocks, strict=True)
    ]
    values = torch.linalg.eigvalsh(torch.cat(rows))
    largest, smallest = sharpness(loss, parameters, num_iterations=17, generator=generator())
    assert largest == pytest.approx(values[-1].item(), rel=1e-9)
    assert smallest == pytest.approx(values[0].item(), rel=1e-6, abs=1e-12)


def test_a_linear_loss_is_flat():
    weight = nn.Parameter(torch.ones(3))
    assert sharpness(lambda: weight.sum(), [weight]) == (0.0, 0.0)


def test_complex_weights_are_pairs():
    weight = nn.Parameter(torch.ones(3, dtype=torch.complex128))

    def loss() -> torch.Tensor:
        return 3 * weight.real.square().sum() - 5 * weight.imag.square().sum()

    assert sharpness(loss, [weight]) == pytest.approx((6.0, -10.0))

    def losses() -> torch.Tensor:
        return torch.stack([weight.real.sum(), weight.imag.sum()])

    found = opposing_signals(losses, [weight], torch.tensor([2.0, 1.0]).double(), fraction=0.5)
    assert found.cosine == pytest.approx(0.0, abs=1e-12)


def test_what_has_diverged_is_nan():
    weight = nn.Parameter(torch.tensor([1.0, math.nan]))
    assert all(map(math.isnan, sharpness(lambda: weight.square().sum(), [weight])))
    # A finite gradient whose derivative is not.
    root = nn.Parameter(torch.zeros(2))
    assert all(map(math.isnan, sharpness(lambda: root.abs().pow(1.5).sum(), [root])))
    matrix = torch.tensor([[1.0, math.inf]])
    assert math.isnan(effective_rank(matrix))
    assert math.isnan(stable_rank(matrix))


def test_ranks_of_known_matrices():
    assert effective_rank(torch.eye(6)) == pytest.approx(6, abs=1e-9)
    assert effective_rank(torch.outer(torch.arange(4.0), torch.ones(3))) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(3, 3)) == 0
    assert stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))) == pytest.approx(1.5)
    # Two singular values in the ratio 3 : 1 have entropy log 4 - 3/4 log 3.
    expected = math.exp(math.log(4) - 0.75 * math.log(3))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ShapeError, match="matrix"):
        effective_rank(torch.ones(2, 2, 2))


def test_sparsity_counts_small_weights():
    assert sparsity([torch.tensor([1.0, 0.001, -0.5, 0.0]), torch.tensor([10.0, 0.05])]) == 0.5
    assert sparsity([torch.zeros(0, 3), torch.tensor([1.0, 0.0])]) == 0.5
    with pytest.raises(ArgumentError, match="weights"):
        sparsity([])


def test_opposing_groups_are_found():
    # Sample 0 pulls the first weight up, sample 1 down; the others hardly feel it.
    weight = nn.Parameter(torch.tensor([0.1, 0.0], dtype=torch.float64))
    targets = torch.cat([torch.tensor([5.0, -5.0]), torch.zeros(18)]).double()

    def losses() -> torch.Tensor:
        return 0.5 * (weight[0] - targets).square() + 0.0 * weight[1]

    with torch.no_grad():
        before = losses()
        weight[0] += 0.2
    found = opposing_signals(losses, [weight], before)
    assert found.rising.tolist() == [1]
    assert found.falling.tolist() == [0]
    assert found.cosine == pytest.approx(-1.0)
    # All losses have curvature one in that direction.
    assert found.curvature == pytest.approx(1.0)
    # (4.7^2 + 5.3^2) / 20^2 of 0.3^2: they cancel in the mean.
    assert found.share == pytest.approx((4.7**2 + 5.3**2) / 400 / 0.09)


def test_opposing_signals_are_blocks_of_the_gram_matrix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.randn(20, 2).double(), torch.randn(20, 1).double()
    weights = list(model.parameters())

    def losses() -> torch.Tensor:
        return (model(x) - y).square().squeeze(1)

    before = losses().detach()
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.1 * torch.randn_like(weight))
    found = opposing_signals(losses, weights, before, fraction=0.1)
    gradients = [torch.autograd.grad(value, weights, retain_graph=True) for value in losses()]
    rows = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in gradients])
    gram = rows @ rows.T
    up, down, across = (
        gram[i][:, j].mean() for i, j in [(found.rising,) * 2, (found.falling,) * 2, (found.rising, found.falling)]
    )
    assert found.cosine == pytest.approx((across / (up * down).sqrt()).item(), abs=1e-12)
    assert found.share == pytest.approx(((up + down) / 100 / gram.mean()).item(), rel=1e-12)


def test_samples_that_agree_do_not_oppose():
    # Negative control: one common target.
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    scales = torch.linspace(1, 2, 20, dtype=torch.float64)
    found = opposing_signals(lambda: 0.5 * scales * (weight - 3.0).square(), [weight], torch.zeros(20).double())
    assert found.cosine == pytest.approx(1.0)


def pinn():
    """Two equations with second derivatives, walls and data: four blocks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, edge = torch.rand(9, 2).double().requires_grad_(), torch.rand(5, 2).double()

    def residual() -> dict[str, torch.Tensor]:
        u = model(x)
        (slope,) = torch.autograd.grad(u[:, 0].sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
        pde = torch.stack([bend[:, 0] - u[:, 1], slope[:, 1] * u[:, 1] - 1], dim=1)
        return {"pde": pde, "walls": model(edge)[:, 0], "data": model(edge)[:, 1] - 0.5}

    return residual, list(model.parameters())


@pytest.mark.parametrize("engine", [Automatic, BatchedVJP])
def test_alignment_of_gradients_is_that_of_the_blocks_of_the_gram_matrix(engine):
    (residual, parameters), weights = pinn(), {"pde": 1.0, "walls": 30.0, "data": 0.2}
    found = gradient_alignment(residual, parameters, weights=weights)
    assert found.names == ("pde[0]", "pde[1]", "walls", "data")
    r, jacobian = engine().linearize(residual, parameters, weights)
    gram, parts = jacobian.gram(), torch.arange(len(r)).split([9, 9, 5, 5])
    products = torch.stack([torch.stack([r[i] @ gram[i][:, j] @ r[j] for j in parts]) for i in parts])
    norms = products.diagonal().sqrt()
    torch.testing.assert_close(found.norms, norms, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.cosines, products / norms.outer(norms), rtol=0, atol=1e-12)
    # The formula, from gradients of the four losses.
    value = residual()
    losses = [value["pde"][:, 0] / 2**0.5, value["pde"][:, 1] / 2**0.5, value["walls"], value["data"]]
    rows = [torch.autograd.grad(loss.square().mean(), parameters, retain_graph=True) for loss in losses]
    units = [nn.functional.normalize(torch.cat([g.flatten() for g in row]), dim=0) for row in rows]
    assert found.score == pytest.approx(2 * (sum(units) / 4).square().sum().item() - 1, abs=1e-12)
    assert abs(found.score) < 0.99


def test_alignment_of_known_gradients():
    weight = nn.Parameter(torch.tensor([3.0, 4.0, 1.0], dtype=torch.float64))
    axes = torch.eye(3).double()

    def score(*directions: torch.Tensor) -> float:
        # Positive residuals, linear in the weight: their gradients point where the directions do.
        def residual() -> dict[str, torch.Tensor]:
            return {str(i): weight @ d[:, None] + 100 for i, d in enumerate(directions)}

        return gradient_alignment(residual, [weight]).score

    cosine = nn.functional.cosine_similarity(axes[0] + axes[1], axes[1] - 3 * axes[2], dim=0).item()
    assert score(axes[0] + axes[1], axes[1] - 3 * axes[2]) == pytest.approx(cosine, abs=1e-12)
    assert score(axes[0], 5 * axes[0], axes[0]) == pytest.approx(1.0)
    assert score(*axes) == pytest.approx(2 / 3 - 1)
    assert score(axes[0], -7 * axes[0]) == pytest.approx(-1.0)
    # A residual that is zero pulls nowhere, and one that is not finite anywhere.
    assert score(axes[0], 0 * axes[0], -axes[0]) == pytest.approx(-1.0)
    assert math.isnan(score(0 * axes[0]))
    assert math.isnan(score(axes[0], math.nan * axes[1]))


@pytest.mark.parametrize("shape", [(16,), (12, 9)])
def test_frequency_errors_separate_the_modes(shape):
    x = torch.meshgrid(*[torch.arange(n).double() / n * 2 * math.pi for n in shape], indexing="ij")[0]
    target = (torch.sin(x) + 0.5 * torch.sin(3 * x)).expand(2, 1, *shape)
    prediction = (0.9 * torch.sin(x) + 0.2 * torch.sin(3 * x)).expand(2, 1, *shape)
    errors = frequency_errors(prediction, target)
    assert len(errors) == min(shape) // 2 + 1
    assert errors[1].item() == pytest.approx(0.1)
    assert errors[3].item() == pytest.approx(0.6)
    assert errors[[0, 2, 4]].isnan().all()


def test_frequency_errors_are_sums_over_shells():
    target, error = torch.randn(2, 3, 2, 12, 9, generator=generator(), dtype=torch.float64)
    lines = torch.meshgrid(torch.fft.fftfreq(12, 1 / 12), torch.fft.fftfreq(9, 1 / 9), indexing="ij")
    shell = ((lines[0] ** 2 + lines[1] ** 2).sqrt() + 0.5).floor()
    powers = [torch.fft.fft2(field).abs().square().sum(dim=(0, 1)) for field in (error, target)]
    expected = [(powers[0][shell == k].sum() / powers[1][shell == k].sum()).sqrt() for k in range(5)]
    torch.testing.assert_close(frequency_errors(target + error, target), torch.stack(expected), rtol=1e-12, atol=0)
    half = frequency_errors((target + error).half(), target.half())
    torch.testing.assert_close(half.double(), torch.stack(expected), rtol=1e-2, atol=0)


def test_forgetting_is_a_factor():
    assert forgetting(1e-3, 1e-2) == pytest.approx(10)


def test_bad_values_are_refused():
    with pytest.raises(ArgumentError, match="errors"):
        forgetting(0.0, 1.0)
    with pytest.raises(ShapeError, match="one shape"):
        frequency_errors(torch.ones(1, 1, 4), torch.ones(1, 1, 5))
    weight = nn.Parameter(torch.ones(4))
    with pytest.raises(ArgumentError, match="fraction"):
        opposing_signals(lambda: weight, [weight], torch.ones(4), fraction=0.7)
    with pytest.raises(ShapeError, match="losses"):
        opposing_signals(lambda: weight, [weight], torch.ones(3))
