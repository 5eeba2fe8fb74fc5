"""Muon, SOAP and M3 against their rules in numpy, and what orthogonalising promises."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import M3, SOAP, Muon
from neuralop_kit.optim.matrices import orthogonalize
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract
from tests.contracts.optimizer import Problem


def matrices(array: np.ndarray) -> np.ndarray:
    """(stack, rows, columns): complex arrays hold a matrix per mode, real ones are one matrix."""
    if np.iscomplexobj(array):
        return array.reshape(-1, *array.shape[-2:])
    return array.reshape(1, array.shape[0], -1)


def adjoint(x: np.ndarray) -> np.ndarray:
    return x.conj().T


def newton_schulz(x: np.ndarray, steps: int = 5) -> np.ndarray:
    """The quintic iteration on one matrix, through its singular values."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + 1e-7)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


class AdamRule:
    """Adam with one second moment per number."""

    def __init__(self, betas=(0.9, 0.999), eps=1e-8) -> None:
        self.betas, self.eps, self.m, self.v, self.t = betas, eps, 0.0, 0.0, 0

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        b1, b2 = self.betas
        self.t += 1
        self.m = b1 * self.m + (1 - b1) * gradient
        self.v = b2 * self.v + (1 - b2) * abs(gradient) ** 2
        return self.m / (1 - b1**self.t) / (np.sqrt(self.v / (1 - b2**self.t)) + self.eps)


class MatrixRule:
    """Splits a weight into matrices; vectors go by Adam."""

    decay_first = True

    def __init__(self, lr: float, weight_decay: float, **options: Any) -> None:
        self.lr, self.weight_decay, self.options = lr, weight_decay, options
        self.adam, self.parts = AdamRule(), None

    def part(self) -> Any:
        raise NotImplementedError

    def step(self, weight: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        if weight.ndim < 2:
            direction = self.adam.direction(gradient)
        else:
            stack = matrices(gradient)
            self.parts = self.parts or [self.part() for _ in stack]
            found = [part.direction(x) for part, x in zip(self.parts, stack, strict=True)]
            if found[0] is None:
                return weight
            direction = np.stack(found).reshape(weight.shape)
        if self.decay_first:
            return weight * (1 - self.lr * self.weight_decay) - self.lr * direction
        return (weight - self.lr * direction) * (1 - self.lr * self.weight_decay)


class MuonRule(MatrixRule):
    def part(self):
        return MuonMatrix(**self.options)


class MuonMatrix:
    def __init__(self, nesterov=True) -> None:
        self.nesterov, self.m = nesterov, 0.0

    def direction(self, gradient):
        self.m = 0.95 * self.m + 0.05 * gradient
        look = 0.95 * self.m + 0.05 * gradient if self.nesterov else self.m
        return 0.2 * np.sqrt(max(gradient.shape)) * newton_schulz(look)


class SOAPRule(MatrixRule):
    decay_first = False

    def part(self):
        return SOAPMatrix(**self.options)


class SOAPMatrix:
    """Keeps the first moment unrotated and rotates it at every step: another way to the same rule."""

    def __init__(self, period=10, max_size=10_000) -> None:
        self.period, self.max_size, self.factors, self.m, self.v, self.t = period, max_size, None, 0.0, 0.0, 0

    def products(self, g):
        return [g @ adjoint(g), adjoint(g) @ g]

    def direction(self, gradient):
        if self.factors is None:
            self.factors = [0.05 * product for product in self.products(gradient)]
            self.bases = [
                np.linalg.eigh(f)[1][:, ::-1] if len(f) <= self.max_size else np.eye(len(f)) for f in self.factors
            ]
            return None
        left, right = self.bases
        self.t += 1
        self.m = 0.95 * self.m + 0.05 * gradient
        self.v = 0.95 * self.v + 0.05 * abs(adjoint(left) @ gradient @ right) ** 2
        scale = np.sqrt(self.v / (1 - 0.95**self.t)) + 1e-8
        direction = left @ (adjoint(left) @ self.m @ right / (1 - 0.95**self.t) / scale) @ adjoint(right)
        self.factors = [0.95 * f + 0.05 * p for f, p in zip(self.factors, self.products(gradient), strict=True)]
        if self.t % self.period == 0:
            for side, (factor, basis) in enumerate(zip(self.factors, self.bases, strict=True)):
                if len(factor) > self.max_size:
                    continue
                order = np.argsort(-np.diag(adjoint(basis) @ factor @ basis).real)
                self.v = np.take(self.v, order, axis=side)
                self.bases[side] = np.linalg.qr(factor @ basis[:, order])[0]
        return direction


class M3Rule(MatrixRule):
    def part(self):
        rule = {"paper": PaperM3, "ema": AveragedM3}[self.options["mode"]](self.options["period"])
        rule.second_moment = self.options.get("second_moment", True)
        return rule


class PaperM3:
    """Algorithm 1, line by line."""

    def __init__(self, period: int) -> None:
        self.period, self.gradients = period, []
        self.m1 = self.m2 = self.v = self.o2 = 0.0

    def direction(self, g):
        t, f = len(self.gradients), self.period
        if t >= f and t % f == 0:
            self.m2 = self.m2 + 0.9 * sum(self.gradients[t - f : t])
            self.o2 = newton_schulz(self.m2)
        self.gradients.append(g)
        self.m1 = self.m1 + 0.95 * g
        self.v = self.v + 0.999 * abs(g) ** 2
        return (newton_schulz(self.m1) + self.o2) / (np.sqrt(self.v) + 1e-8 if self.second_moment else 1.0)


class AveragedM3:
    def __init__(self, period: int) -> None:
        self.period, self.gradients = period, []
        self.m1 = self.m2 = self.v = self.o2 = 0.0

    def direction(self, g):
        t, f = len(self.gradients), self.period
        if t >= f and t % f == 0:
            self.m2 = 0.9 * self.m2 + 0.1 * np.mean(self.gradients[t - f : t], axis=0)
            self.o2 = newton_schulz(self.m2)
        self.gradients.append(g)
        self.m1 = 0.95 * self.m1 + 0.05 * g
        self.v = 0.999 * self.v + 0.001 * abs(g) ** 2
        scale = np.sqrt(self.v / (1 - 0.999 ** (t + 1))) + 1e-8 if self.second_moment else 1.0
        return max(1.0, g.shape[0] / g.shape[1]) ** 0.5 * (newton_schulz(self.m1) + self.o2) / scale


class TestMuon(GradientContract):
    lr = 2e-2
    foreach = True
    variants = ({}, {"nesterov": False})
    phase_options: ClassVar[dict[str, Any]] = {}
    compiled_options: ClassVar[dict[str, Any]] = {"num_iterations": 1}

    def make(self, groups, lr, **options):
        return Muon(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return MuonRule(lr, weight_decay, **options)

    def test_step_commutes_with_unitary_maps_of_either_channel_space(self):
        torch.manual_seed(0)
        gradient = torch.randn(3, 4, 5, dtype=torch.complex128)
        left = torch.linalg.qr(torch.randn(3, 4, 4, dtype=torch.complex128)).Q
        right = torch.linalg.qr(torch.randn(3, 5, 5, dtype=torch.complex128)).Q
        steps = []
        for g in (gradient, left @ gradient @ right):
            weight = nn.Parameter(torch.zeros(3, 4, 5, 2, dtype=torch.float64))
            optimizer = Muon([{"params": [weight], "complex_weights": True}], 1.0)
            weight.grad = torch.view_as_real(g).clone()
            optimizer.step()
            steps.append(torch.view_as_complex(weight.detach()))
        torch.testing.assert_close(left @ steps[0] @ right, steps[1], rtol=0, atol=1e-12)

    def test_agrees_with_torch_up_to_bfloat16(self):
        torch.manual_seed(0)
        ours, theirs = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
        optimizers = (
            Muon([ours], 1e-2),
            torch.optim.Muon([theirs], 1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        )
        for _ in range(5):
            ours.grad = torch.randn(6, 4)
            theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        # bfloat16 has 8 bits: relative differences of some percent in steps of 1e-2 * 0.2 * sqrt(6).
        torch.testing.assert_close(ours.data, theirs.data, rtol=0, atol=5 * 0.05 * 1e-2 * 0.5)


class TestSOAP(GradientContract):
    lr = 3e-2
    variants = ({"period": 3}, {"period": 10}, {"period": 2, "max_size": 3})
    phase_options: ClassVar[dict[str, Any]] = {"period": 3}
    # The bases of a first gradient that does not span the space are arbitrary there, so what follows is compared only
    # on square matrices.
    phase_shape = (3, 4, 4)
    num_before_save = 4

    def make(self, groups, lr, **options):
        return SOAP(groups, lr, **{"period": 2, **options})

    def reference(self, lr, weight_decay, **options):
        return SOAPRule(lr, weight_decay, **options)

    def reference_groups(self, problem):
        real = [problem.square, problem.bias]
        return [{"params": real}, {"params": [problem.square_modes, problem.phases], "complex_weights": True}]

    def test_with_identity_bases_it_is_adam(self):
        problem, other = Problem(), Problem()
        optimizer = SOAP(problem.parameters(), 1e-2, betas=(0.9, 0.999), max_size=0)
        adam = torch.optim.Adam(other.parameters(), 1e-2)
        for count in range(6):
            for p, q in zip(problem.parameters(), other.parameters(), strict=True):
                p.grad = torch.sin(torch.arange(p.numel(), dtype=p.dtype) + count).view_as(p)
                # The first gradient only starts the factors of a matrix; a vector moves.
                q.grad = p.grad.clone() if count or p.ndim < 2 else None
            optimizer.step()
            adam.step()
        for p, q in zip(problem.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)

    def test_a_gradient_in_its_own_basis_gives_its_polar_factor(self):
        # All of Adam's first directions are signs, and here only the diagonal has any.
        torch.manual_seed(0)
        for shape, options in (((5, 3), {}), ((2, 4, 4, 2), {"complex_weights": True})):
            weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
            optimizer = SOAP([{"params": [weight], **options}], 1.0)
            weight.grad = torch.randn(shape, dtype=torch.float64)
            for _ in range(2):
                optimizer.step()
            gradient, moved = (torch.view_as_complex(t) if options else t for t in (weight.grad, weight.detach()))
            u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
            torch.testing.assert_close(-moved, u @ vh, rtol=0, atol=1e-6)

    def test_a_first_gradient_that_is_not_finite_is_told_by_the_weights(self):
        for bad in (float("nan"), float("inf"), 1e300):
            problem = Problem()
            optimizer = self.optimizer(problem)
            problem.loss().backward()
            problem.wide.grad[0, 0] = bad
            optimizer.step()
            self.advance(optimizer, problem, 3)
            assert not problem.wide.isfinite().all()
            assert problem.tall.isfinite().all()

    def test_bases_stay_unitary(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, 9)
        for name in ("basis_rows", "basis_columns"):
            basis = optimizer.state[problem.modes][name]
            eye = torch.eye(basis.shape[-1], dtype=basis.dtype).expand_as(basis)
            torch.testing.assert_close(basis.mH @ basis, eye, rtol=0, atol=1e-13)


class TestM3(GradientContract):
    lr = 3e-4
    descent = 0.2
    variants = (
        {"mode": "ema", "period": 4},
        {"mode": "paper", "period": 3},
        {"mode": "ema", "period": 3, "second_moment": False},
        {"mode": "paper", "period": 3, "second_moment": False},
    )
    phase_options: ClassVar[dict[str, Any]] = {"period": 3}
    compiled_options: ClassVar[dict[str, Any]] = {"num_iterations": 1}
    num_before_save = 5

    def make(self, groups, lr, **options):
        return M3(groups, lr, **{"period": 4, **options})

    def reference(self, lr, weight_decay, **options):
        return M3Rule(lr, weight_decay, **options)

    def test_printed_rule_does_not_feel_its_betas(self):
        ends = []
        for betas in ((0.95, 0.999, 0.9), (0.3, 0.999, 0.2)):
            problem = Problem()
            self.advance(self.optimizer(problem, mode="paper", betas=betas, period=3), problem, 9)
            ends.append(problem.wide.detach())
        # Up to the 1e-7 beside the norm.
        torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)

    def test_slow_memory_waits_for_the_next_chunk(self):
        ends = {}
        for count in (4, 5):
            for alpha in (0.0, 1.0):
                problem = Problem()
                self.advance(self.optimizer(problem, alpha=alpha, period=4), problem, count)
                ends[count, alpha] = problem.wide.detach()
        assert torch.equal(ends[4, 0.0], ends[4, 1.0])
        assert not torch.allclose(ends[5, 0.0], ends[5, 1.0])

    def test_without_second_moment_and_slow_memory_it_is_muon_up_to_the_factor_of_shape(self):
        ends = []
        for optimizer in (
            lambda p: Muon(p, 1e-2, nesterov=False, weight_decay=0.0),
            lambda p: M3(p, 1e-2 * 0.2 * max(p[0].shape) ** 0.5, alpha=0.0, second_moment=False),
            lambda p: M3(p, 1e-2 * 0.2 * max(p[0].shape) ** 0.5, alpha=0.0),
        ):
            problem = Problem()
            self.advance(optimizer([problem.wide]), problem, 5)
            ends.append(problem.wide.detach())
        torch.testing.assert_close(ends[1], ends[0], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(ends[2], ends[0], rtol=1e-2, atol=1e-2)

    def test_second_moment_left_out_takes_no_memory(self):
        problem = Problem()
        optimizer = self.optimizer(problem, second_moment=False)
        self.advance(optimizer, problem, 1)
        assert "square" not in optimizer.state[problem.wide]

    def test_unknown_mode_is_refused_with_the_known_ones(self):
        with pytest.raises(ArgumentError, match=r"\['ema', 'paper'\]"):
            M3([nn.Parameter(torch.ones(2, 2))], mode="sum")


@pytest.mark.parametrize("make", [Muon, lambda p, lr: SOAP(p, lr, period=2), lambda p, lr: M3(p, lr, period=3)])
@pytest.mark.parametrize("shape", [(4, 3), (5,)])
def test_complex_numbers_that_are_real_move_as_real_ones(make, shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape, dtype=torch.float64), torch.randn(8, *shape, dtype=torch.float64)
    real, pairs = (nn.Parameter(t.clone()) for t in (start, torch.stack([start, torch.zeros_like(start)], dim=-1)))
    optimizers = make([real], 1e-2), make([{"params": [pairs], "complex_weights": True}], 1e-2)
    for gradient in gradients:
        real.grad, pairs.grad = gradient.clone(), torch.stack([gradient, torch.zeros_like(gradient)], dim=-1)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(pairs[..., 0], real, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(real, start)
    assert pairs[..., 1].abs().max() < 1e-14


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (2, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_orthogonalize_keeps_singular_vectors(shape, dtype):
    torch.manual_seed(1)
    x = torch.randn(4, *shape, dtype=dtype)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    core = u.mH @ orthogonalize(x) @ vh.mH
    values = core.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(core, torch.diag_embed(values), rtol=0, atol=1e-12)
    # The image of [0.01, 1] under five iterations.
    kept = values.real[s / s.norm(dim=-1, keepdim=True) > 0.01]
    assert kept.min() > 0.68
    assert kept.max() < 1.14


def test_orthogonalize_leaves_zero_at_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_pairs_are_asked_for_where_weights_are_complex():
    weight = nn.Parameter(torch.ones(3, 4))
    optimizer = Muon([{"params": [weight], "complex_weights": True}])
    weight.grad = torch.ones(3, 4)
    with pytest.raises(ArgumentError, match=r"trailing axis of 2.*got shape \(3, 4\)"):
        optimizer.step()
