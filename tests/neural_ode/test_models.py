"""Modules around the solvers: shapes, operators as right-hand sides, latent series, the baselines."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.models import FNO, MgNO
from neuralop_kit.neural_ode import (
    RNODE,
    Autonomous,
    ErrorRegularizer,
    LatentODE,
    NeuralODE,
    NeuralSDE,
    RecurrentEncoder,
    Steer,
    TayNODE,
    masked_mean_square,
    negative_evidence,
)
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.ode import FixedStep, Replay, odeint
from neuralop_kit.solvers.ode.adjoint import Adjoint
from neuralop_kit.solvers.sde import sdeint

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Pendulum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return torch.stack([u[:, 1], -self.gravity * torch.sin(u[:, 0])], dim=1)


def test_a_node_is_odeint_with_its_options():
    u0, field = torch.randn(3, 2, dtype=torch.float64), Pendulum()
    node = NeuralODE(field, method="dopri5", rtol=1e-4, atol=1e-5, control="joint")
    expected = odeint(field, u0, UNIT, method="dopri5", rtol=1e-4, atol=1e-5, control="joint")
    assert torch.equal(node(u0, UNIT).ys, expected.ys)
    assert [name for name, _ in node.named_parameters()] == ["field.gravity"]
    node(u0, UNIT).ys[-1].sum().backward()
    assert field.gravity.grad.abs() > 0


@pytest.mark.parametrize("field", [nn.Linear(2, 2), lambda u: -u])
def test_a_field_that_takes_no_time_is_refused_at_once(field):
    autonomous = lambda t, u: u  # noqa: E731
    for make in (NeuralODE, lambda f: NeuralSDE(f, autonomous), lambda f: NeuralSDE(autonomous, f)):
        with pytest.raises(ArgumentError, match=r"expected a field that takes the time .*; Autonomous\(network\)"):
            make(field)
    NeuralODE(torch.compile(Autonomous(nn.Linear(2, 2))))


def test_a_stochastic_one_is_sdeint_with_its_options():
    drift, diffusion = nn.Linear(2, 2), nn.Linear(2, 2)
    f, g = Autonomous(drift), Autonomous(diffusion)
    sde, u0 = NeuralSDE(f, g, method="sosri2", rtol=0.1, atol=0.1), torch.randn(5, 2)
    found = sde(u0, UNIT, generator=torch.Generator().manual_seed(3))
    expected = sdeint(
        f, g, u0, UNIT, method="sosri2", rtol=0.1, atol=0.1, generator=torch.Generator().manual_seed(3)
    )  # fmt: skip
    assert torch.equal(found.ys, expected.ys)
    assert not torch.equal(sde(u0, UNIT).ys, found.ys)
    found.ys[-1].sum().backward()
    assert all(p.grad.abs().max() > 0 for p in sde.parameters())


def make_operator(name: str, num_dims: int) -> nn.Module:
    """Two channels to two channels."""
    torch.manual_seed(0)
    if name == "MgNO":
        return MgNO(2, 2, domain=Domain.box((1.0,) * num_dims), width=6, num_layers=1, levels=2)
    return FNO(2, 2, domain=Domain.periodic((1.0,) * num_dims), width=6, num_layers=2, modes=4)


OPERATORS = pytest.mark.parametrize(
    ("name", "shape"), [("FNO", (32,)), ("FNO", (12, 10)), ("MgNO", (17, 17))], ids=lambda x: str(x)
)


@OPERATORS
def test_an_operator_as_right_hand_side_of_a_field(name, shape):
    """Any shape of the state; the derivative of the loss reaches every weight."""
    operator = make_operator(name, len(shape))
    node = NeuralODE(Autonomous(operator), rtol=1e-4, atol=1e-4)
    solution = node(torch.randn(2, 2, *shape), torch.tensor([0.0, 0.5, 1.0]))
    assert solution.ys.shape == (3, 2, 2, *shape)
    assert bool(solution.stats.converged.all())
    (solution.ys.square().mean() + ErrorRegularizer()(solution.stats)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in operator.parameters())


@OPERATORS
def test_gradients_through_an_operator_are_those_of_differences_and_of_the_replay(name, shape):
    """One step size for all, so that differences see what the tape sees; the loss holds the regularizer."""
    operator, u0 = make_operator(name, len(shape)).double(), torch.randn(2, 2, *shape, dtype=torch.float64)

    def loss(adjoint: Adjoint | None = None) -> Tensor:
        node = NeuralODE(Autonomous(operator), controller=FixedStep(0.25), adjoint=adjoint)
        solution = node(u0, UNIT)
        return solution.ys[-1].square().mean() + ErrorRegularizer(1e-3)(solution.stats)

    weights = list(operator.parameters())
    direct, replayed = (torch.autograd.grad(loss(adjoint), weights) for adjoint in (None, Replay()))
    scale = max(g.abs().max() for g in direct)
    assert max((a - b).abs().max() for a, b in zip(direct, replayed, strict=True)) < 1e-12 * scale
    directions = [torch.randn_like(p) for p in weights]
    slope = sum((g * d).sum() for g, d in zip(direct, directions, strict=True)).item()
    values, epsilon = [], 1e-5
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(weights, directions, strict=True):
                p += sign * epsilon * d
            values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * epsilon), rel=1e-6)


def test_the_solution_does_not_depend_on_the_resolution():
    domain = Domain.periodic((1.0,))
    torch.manual_seed(0)
    operator = FNO(1, 1, domain=domain, width=6, num_layers=2, modes=6).double()
    node = NeuralODE(Autonomous(operator), rtol=1e-9, atol=1e-9)

    def end(n: int) -> Tensor:
        x = domain.coordinates((n,), dtype=torch.float64)[0]
        u0 = torch.exp(torch.sin(2 * math.pi * x)).view(1, 1, n)
        with torch.no_grad():
            return node(u0, UNIT).ys[:, 0, 0]

    finest = end(128)
    assert (finest[1] - finest[0]).abs().max() > 0.05
    errors = [(end(n)[1] - finest[1, :: 128 // n]).abs().max().item() for n in (16, 32, 64)]
    assert max(errors[1:]) < 1e-3 * errors[0] + 1e-8
    assert errors[0] < 1e-4


class TestIntegrals:
    u0 = torch.tensor([[0.4], [1.1], [-0.7]], dtype=torch.float64)

    @pytest.mark.parametrize("control", ["per_sample", "joint"])
    @pytest.mark.parametrize("order", [1, 2, 3])
    def test_taynode_of_a_linear_equation(self, order, control):
        """d^K u / dt^K = a^K u, so that the integral of its square is a^(2K) u0^2 (e^(2a) - 1) / (2a)."""
        a = 0.8
        node = NeuralODE(lambda t, u: a * u, rtol=1e-9, atol=1e-9, control=control)
        solution, penalty = TayNODE(3.0, order=order).solve(node, self.u0, UNIT)
        expected = 3 * a ** (2 * order) * self.u0.square().mean() * (math.exp(2 * a) - 1) / (2 * a)
        assert penalty.item() == pytest.approx(expected.item(), rel=1e-7)
        assert torch.allclose(solution.ys[-1], math.exp(a) * self.u0, rtol=1e-7)

    def test_taynode_sees_the_time(self):
        """u' = t^2: the third derivative is 2."""
        node = NeuralODE(lambda t, u: t**2 + 0 * u)
        assert TayNODE(1.0, order=3).solve(node, self.u0, UNIT)[1].item() == pytest.approx(4.0, rel=1e-6)

    def test_rnode_of_a_linear_equation(self, generator):
        """One component: the probe e has e^2 a^2 for its square, the kinetic part is that of K = 1."""
        a, (kinetic, jacobian) = 0.8, (0.5, 2.0)
        node = NeuralODE(lambda t, u: a * u, rtol=1e-9, atol=1e-9)
        _, penalty = RNODE(1.0, kinetic=kinetic, jacobian=jacobian).solve(node, self.u0, UNIT, generator=generator)
        generator.manual_seed(generator.initial_seed())
        probe = torch.randn(self.u0.shape, generator=generator, dtype=torch.float64)
        energy = a**2 * self.u0.square().mean() * (math.exp(2 * a) - 1) / (2 * a)
        expected = kinetic * energy + jacobian * a**2 * probe.square().mean()
        assert penalty.item() == pytest.approx(expected.item(), rel=1e-7)

    @pytest.mark.parametrize("regularizer", [TayNODE(1.0, order=2), RNODE(1.0)], ids=lambda r: type(r).__name__)
    def test_gradients_and_fields(self, regularizer):
        u0 = torch.randn(2, 1, 4, 4)
        convolution = nn.Conv2d(1, 1, 3, padding=1)
        node = NeuralODE(Autonomous(nn.Sequential(convolution, nn.Tanh())), rtol=1e-3, atol=1e-3)
        solution, penalty = regularizer.solve(node, u0, torch.tensor([0.0, 0.5, 1.0]))
        penalty.backward()
        assert solution.ys.shape == (3, 2, 1, 4, 4)
        assert convolution.weight.grad.abs().max() > 0

    def test_steer(self, generator):
        t = torch.tensor([0.0, 1.0, 2.0])
        drawn = torch.stack([Steer(0.5)(t, generator=generator) for _ in range(200)])
        assert torch.equal(drawn[:, :2], t[:2].expand(200, 2))
        assert drawn[:, 2].min() < 1.6
        assert drawn[:, 2].max() > 2.4
        assert ((drawn[:, 2] - 2).abs() <= 0.5).all()
        with pytest.raises(ArgumentError, match="interval"):
            Steer(1.5)(t)
        with pytest.raises(ArgumentError, match="interval"):
            Steer(0.5)(t[:1])
        with pytest.raises(ArgumentError, match="positive"):
            Steer(0.0)
        backward = Steer(0.5)(t.flip(0), generator=generator)
        assert 0 < (backward[-1] - t[0]).abs() <= 0.5


class TestLatent:
    t = torch.linspace(0, 1, 6)

    def make(self) -> LatentODE:
        torch.manual_seed(0)
        field = Autonomous(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)))
        return LatentODE(RecurrentEncoder(3, 4, hidden_channels=8), NeuralODE(field, rtol=1e-4), nn.Linear(4, 3))

    def series(self) -> tuple[Tensor, Tensor]:
        values, mask = torch.randn(5, 6, 3), (torch.rand(5, 6, 3) < 0.6).long()
        mask[0, 2] = 0
        return values, mask

    def test_hidden_values_do_not_matter(self):
        model, (values, mask) = self.make(), self.series()
        spoiled = torch.where(mask > 0, values, torch.nan)
        for a, b in zip(model.encoder(values, mask, self.t), model.encoder(spoiled, mask, self.t), strict=True):
            assert torch.equal(a, b)

    def test_times_without_observations_may_be_left_out(self):
        encoder, (values, mask) = self.make().encoder, self.series()
        keep = torch.tensor([0, 1, 3, 4, 5])
        whole = encoder(values[:1], mask[:1], self.t)[0]
        assert torch.allclose(whole, encoder(values[:1, keep], mask[:1, keep], self.t[keep])[0], atol=1e-6)
        other = mask.clone()
        other[0, 3] = 1 - other[0, 3]
        assert not torch.allclose(whole, encoder(values[:1], other[:1], self.t)[0])

    def test_evaluation_takes_the_mean_and_keeps_the_variance(self):
        """A published code returns the mean in place of the variance here."""
        model, (values, mask) = self.make().eval(), self.series()
        path = model(values, mask, self.t)
        assert torch.equal(path.solution.ys[0], path.mean)
        assert not torch.allclose(path.mean, path.log_variance)
        assert torch.equal(path.prediction, model(values, mask, self.t).prediction)
        model.train()
        assert torch.equal(model(values, mask, self.t).log_variance, path.log_variance)

    def test_samples_have_the_law_of_the_encoder(self, generator):
        mean, log_variance = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), math.log(0.25))
        drawn = self.make().sample(mean, log_variance, generator)
        assert abs(drawn.mean().item() - 2) < 5 * 0.5 / math.sqrt(20_000)
        assert abs(drawn.std().item() - 0.5) < 5 * 0.5 / math.sqrt(40_000)

    def test_loss(self):
        model, (values, mask) = self.make(), self.series()
        path = model(values, mask, self.t)
        law = torch.distributions.Normal(path.mean, (path.log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
        squares = ((path.prediction - values).square() * mask).sum() / len(values)
        loss = negative_evidence(path, torch.where(mask > 0, values, torch.nan), mask, sigma=0.1, kl_weight=0.3)
        assert loss.item() == pytest.approx((squares / 0.02 + 0.3 * kl).item(), rel=1e-4)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        expected = squares * len(values) / mask.sum()
        assert masked_mean_square(path.prediction, values, mask).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_times_of_every_sample_and_queries(self):
        model, (values, mask) = self.make().eval(), self.series()
        own = self.t.repeat(5, 1)
        assert torch.allclose(model(values, mask, own).prediction, model(values, mask, self.t).prediction, atol=1e-5)
        query = torch.linspace(0, 2, 4)
        assert model(values, mask, self.t, query=query).prediction.shape == (5, 4, 3)

    def test_a_query_may_begin_later_than_the_path(self):
        """The state of the encoder belongs to the first time that was observed, wherever the questions begin."""
        model, (values, mask) = self.make().eval(), self.series()
        whole = model(values, mask, self.t).prediction
        later = self.t[3:]
        for t, query in ((self.t, later), (self.t.repeat(5, 1), later), (self.t, later.repeat(5, 1))):
            path = model(values, mask, t, query=query)
            assert torch.allclose(path.prediction, whole[:, 3:], atol=1e-5)
            assert len(path.solution.ts) == len(path.solution.ys) == 3
        assert not torch.allclose(whole[:, 3:], whole[:, :3], atol=1e-3)
        with pytest.raises(ArgumentError, match="rise"):
            model(values, mask, self.t, query=self.t - 1)

    def test_wrong_shapes(self):
        encoder, (values, mask) = self.make().encoder, self.series()
        with pytest.raises(ShapeError, match="values and mask"):
            encoder(values[..., :2], mask[..., :2], self.t)
        with pytest.raises(ShapeError, match="times"):
            encoder(values, mask, self.t[:-1])
