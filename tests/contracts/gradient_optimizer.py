"""What an optimizer that steps from gradients promises beyond the contract of all optimizers.

class TestLion(GradientContract):
    lr = 1e-2
    foreach = True

    def make(self, groups, lr, **options):
        return Lion(groups, lr, **options)

    def reference(self, lr, weight_decay):
        return LionRule(lr, weight_decay)
"""

import copy
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import (
    CountingBackend,
    OptimizerContract,
    Problem,
    as_numpy,
    assert_same_state,
    assert_same_weights,
)


class Rule(Protocol):
    """One weight's rule, written plainly in numpy; complex weights come as complex arrays."""

    def step(self, weight: np.ndarray, gradient: np.ndarray) -> np.ndarray: ...


class NoReads(TorchDispatchMode):
    """No number is read from a tensor inside, which on a GPU would wait for all that came before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read"
        return func(*args, **(kwargs or {}))


class GradientContract(OptimizerContract):
    """The tests every optimizer with ``step_kind = "gradient"`` inherits."""

    has_complex_option = True
    weight_decay: bool = True
    # What the optimizer promises beyond the base.
    foreach: bool = False
    # Why `torch.compile(optimizer.step)` takes the plain step instead; None where it compiles.
    not_compiled: str | None = None
    # Options that make tracing fast.
    compiled_options: ClassVar[dict[str, Any]] = {}
    # Options under which a phase of the gradient turns the step and does nothing else; None where nothing is promised.
    phase_options: ClassVar[dict[str, Any] | None] = None
    phase_shape: tuple[int, ...] = (3, 2, 4)
    # Option sets with which the rule is compared to its reference.
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def reference(self, lr: float, weight_decay: float, **options: Any) -> Rule:
        """A fresh rule for one weight, in numpy; rules that see more than one weight have tests of their own."""
        pytest.skip("this rule needs more than one weight and its gradient; see its own tests")

    def reference_groups(self, problem: Problem) -> list[dict[str, Any]]:
        """The weights whose steps are compared with :meth:`reference`, by default all."""
        return self.groups(problem)

    def test_rule_is_the_published_one(self):
        # 20 steps, float64, two groups with learning rates and decays of their own, complex weights among them.
        settings = [(self.lr, 0.1), (2 * self.lr, 0.0)] if self.weight_decay else [(self.lr, 0.0)] * 2
        for options in self.variants:
            problem = Problem()
            groups = self.reference_groups(problem)
            for group, (lr, decay) in zip(groups, settings, strict=True):
                group.update({"lr": lr, "weight_decay": decay} if self.weight_decay else {"lr": lr})
            optimizer = self.make(groups, self.lr, **options)
            rows = [(i, p, self.reference(*settings[i], **options)) for i in (0, 1) for p in groups[i]["params"]]
            for _ in range(20):
                optimizer.zero_grad()
                problem.loss().backward()
                expected = [rule.step(as_numpy(p, i == 1), as_numpy(p.grad, i == 1)) for i, p, rule in rows]
                optimizer.step()
                for (i, parameter, _), value in zip(rows, expected, strict=True):
                    np.testing.assert_allclose(as_numpy(parameter, i == 1), value, rtol=1e-12, atol=1e-12)

    def test_closure_runs_with_gradients_and_its_value_comes_back(self):
        problem, other = Problem(), Problem()
        optimizer, plain = self.optimizer(problem), self.optimizer(other)
        for _ in range(3):
            expected = other.loss().detach()
            with torch.no_grad():
                value = optimizer.step(self.closure(optimizer, problem))
            self.advance(plain, other)
            assert torch.equal(value.detach(), expected)
        assert_same_weights(problem, other)

    def test_maximize_climbs(self):
        up, down = Problem(), Problem()
        climber, plain = self.optimizer(up, maximize=True), self.optimizer(down)
        for _ in range(4):
            up.zero_grad()
            (-up.loss()).backward()
            climber.step()
            self.advance(plain, down)
        for a, b in zip(up.parameters(), down.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-13)

    def test_gradients_are_left_alone(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        for _ in range(3):
            optimizer.zero_grad()
            problem.loss().backward()
            before = [p.grad.clone() for p in problem.parameters()]
            optimizer.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(problem.parameters(), before, strict=True))

    def test_weights_without_entries_are_no_trouble(self):
        shapes = [(0,), (0, 3), (3, 0), (2, 0, 4), ()]
        weights = [nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in shapes]
        optimizer = self.make(weights, self.lr)
        for _ in range(5):
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert weights[-1] != 1.0

    def test_a_pending_conjugate_is_a_gradient_like_any_other(self):
        start, gradient = torch.randn(2, 3, 2, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
        weights = [nn.Parameter(start.clone()) for _ in range(2)]
        for weight, g in zip(weights, (gradient.conj(), gradient.conj().resolve_conj()), strict=True):
            optimizer = self.make([weight], self.lr)
            for _ in range(3):
                weight.grad = g
                optimizer.step()
            self.finish(optimizer)
        assert not torch.equal(weights[0], start)
        assert torch.equal(weights[0], weights[1])

    def test_state_of_another_optimizer_is_refused(self):
        problem = Problem()
        other = torch.optim.SGD(problem.parameters(), 0.1)
        optimizer = self.make(problem.parameters(), self.lr)
        with pytest.raises(ArgumentError, match="state dict"):
            optimizer.load_state_dict(other.state_dict())

    def test_sparse_gradient_is_refused(self):
        weight = nn.Parameter(torch.ones(4, 3))
        optimizer = self.make([weight], self.lr)
        nn.functional.embedding(torch.tensor([1]), weight, sparse=True).sum().backward()
        with pytest.raises(ArgumentError, match=r"sparse.*; use"):
            optimizer.step()

    def test_a_gradient_that_is_not_finite_is_never_hidden(self):
        for bad in (float("nan"), float("inf")):
            problem = Problem()
            optimizer = self.optimizer(problem)
            self.advance(optimizer, problem, 2)
            optimizer.zero_grad()
            problem.loss().backward()
            problem.wide.grad[0, 0] = bad
            optimizer.step()
            self.advance(optimizer, problem, 1)
            assert not problem.wide.isfinite().all(), f"a gradient of {bad} left the weight as if nothing were wrong"

    def test_a_gradient_scaler_skips_steps_that_overflowed_and_changes_no_others(self):
        problem, other = Problem(), Problem()
        optimizer, plain = self.optimizer(problem), self.optimizer(other)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for overflows in (False, True, False, True, False):
            before, state = copy.deepcopy(problem), copy.deepcopy(optimizer.state_dict())
            optimizer.zero_grad()
            scaler.scale(problem.loss()).backward()
            if overflows:
                problem.wide.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            if overflows:
                assert_same_weights(problem, before)
                assert_same_state(optimizer.state_dict(), state)
            else:
                self.advance(plain, other)
        assert_same_weights(problem, other)

    def test_a_bad_gradient_does_not_harm_other_weights(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, 2)
        optimizer.zero_grad()
        problem.loss().backward()
        problem.wide.grad[0, 0] = float("nan")
        optimizer.step()
        assert all(p.isfinite().all() for p in problem.parameters() if p is not problem.wide)

    def test_all_at_once_equals_one_by_one(self):
        if not self.foreach:
            pytest.skip("has one implementation only")
        for options in self.variants:
            joint, single = Problem(), Problem()
            self.advance(self.optimizer(joint, foreach=True, **options), joint, 10)
            self.advance(self.optimizer(single, foreach=False, **options), single, 10)
            for a, b in zip(joint.parameters(), single.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)

    def test_a_rate_in_a_tensor_is_never_read(self):
        problem = Problem()
        optimizer = self.optimizer(problem, lr=torch.tensor(self.lr, dtype=torch.float64))
        for _ in range(3):
            optimizer.zero_grad()
            problem.loss().backward()
            with NoReads():
                optimizer.step()

    def test_compiled_step_equals_the_plain_one(self):
        # The graphs are what is tested; no compiler is needed for that. Few weights, as tracing is slow.
        torch._dynamo.reset()
        graphs, num_steps = CountingBackend(), 6
        problem, other = Problem(), Problem()
        groups, plain_groups = self.few_weights(problem), self.few_weights(other)
        # One rate is a number and one a tensor, and a schedule changes both in every step.
        groups[1]["lr"] = torch.tensor(self.lr, dtype=torch.float64)
        optimizer, plain = (self.make(g, self.lr, **self.compiled_options) for g in (groups, plain_groups))
        schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in (optimizer, plain)]
        compiled = torch.compile(optimizer.step, backend=graphs)
        # Four graphs are for the first step, the second, those after it, and the end of a period. Past the limit torch
        # would take the plain step, which here would be compared with itself.
        with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
            for _ in range(num_steps):
                problem.zero_grad()
                problem.loss().backward()
                compiled()
                self.advance(plain, other)
                for schedule in schedules:
                    schedule.step()
        for a, b in zip(problem.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert (graphs.num_runs >= num_steps) == (self.not_compiled is None)

    def few_weights(self, problem: Problem) -> list[dict[str, Any]]:
        """A real matrix, and complex ones of two shapes: torch fails on views of such together, not of fewer."""
        real, paired = self.groups(problem)
        return [{**real, "params": [problem.tall]}, {**paired, "params": [problem.modes, problem.square_modes]}]

    def test_complex_tensors_equal_pairs_of_reals(self):
        problem = Problem()
        native = nn.Parameter(torch.view_as_complex(problem.modes.detach().clone()))
        options = [{"params": [problem.modes], "complex_weights": True}, {"params": [native]}]
        optimizers = [self.make([group], self.lr) for group in options]
        for _ in range(6):
            problem.zero_grad()
            problem.loss().backward()
            native.grad = torch.view_as_complex(problem.modes.grad.clone())
            for optimizer in optimizers:
                optimizer.step()
            pairs = torch.view_as_real(native.detach())
            torch.testing.assert_close(pairs, problem.modes.detach(), rtol=1e-12, atol=1e-12)

    def test_step_turns_with_the_phase(self):
        if self.phase_options is None:
            pytest.skip("not promised")
        torch.manual_seed(0)
        start = torch.randn(self.phase_shape, dtype=torch.complex128)
        gradients = torch.randn(12, *self.phase_shape, dtype=torch.complex128)
        angles = torch.exp(1j * torch.tensor([0.3, 1.1, -2.0], dtype=torch.float64))[:, None, None]
        ends = []
        for phase in (torch.ones_like(angles), angles):
            weight = nn.Parameter(torch.view_as_real(phase * start).clone())
            group = {"params": [weight], "complex_weights": True}
            optimizer = self.make([group], self.lr, **self.phase_options)
            for gradient in gradients:
                weight.grad = torch.view_as_real(phase * gradient).clone()
                optimizer.step()
            ends.append(torch.view_as_complex(weight.detach()) / phase)
        assert not torch.allclose(ends[0], start)
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-10)
