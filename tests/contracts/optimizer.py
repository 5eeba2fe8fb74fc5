"""What every optimizer promises. Inherit :class:`OptimizerContract`, say how to make the optimizer, get the tests.

class TestSven(OptimizerContract):
    step_kind = "residual"
    lr = 1.0

    def make(self, groups, lr, **options):
        return Sven(groups, lr, **options)

Optimizers that step from ``p.grad`` inherit :class:`tests.contracts.gradient_optimizer.GradientContract` instead.
"""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.optim import Optimizer

from neuralop_kit.solvers.errors import ArgumentError


class Problem(nn.Module):
    """A small nonlinear least squares problem in weights of every kind: residual_i = tanh(a_i . weights) - b_i."""

    def __init__(self, *, num_rows: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = {"wide": (3, 5), "tall": (4, 2), "square": (3, 3), "kernel": (3, 2, 3), "bias": (4,), "scale": (1,)}
        for name, shape in {**shapes, "modes": (3, 2, 4, 2), "square_modes": (2, 3, 3, 2), "phases": (3, 2)}.items():
            value = torch.randn(shape, generator=generator, dtype=torch.float64) / 2
            self.register_parameter(name, nn.Parameter(value.to(dtype)))
        size = sum(p.numel() for p in self.parameters())
        rows = torch.randn(num_rows, size, generator=generator, dtype=torch.float64) / size**0.5
        self.register_buffer("rows", rows.to(dtype))
        self.register_buffer(
            "targets", (0.8 * torch.rand(num_rows, generator=generator, dtype=torch.float64)).to(dtype)
        )

    def residual(self) -> Tensor:
        flat = torch.cat([p.flatten() for p in self.parameters()])
        return torch.tanh(self.rows @ flat) - self.targets

    def loss(self) -> Tensor:
        return 0.5 * self.residual().square().sum()

    def real_weights(self) -> list[nn.Parameter]:
        complex_weights = {id(p) for p in self.complex_weights()}
        return [p for p in self.parameters() if id(p) not in complex_weights]

    def complex_weights(self) -> list[nn.Parameter]:
        return [self.modes, self.square_modes, self.phases]


class CountingBackend:
    """Runs graphs as they are, and counts how often."""

    def __init__(self) -> None:
        self.num_runs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        run = aot_eager(graph, inputs)

        def counted(*args: Any) -> Any:
            self.num_runs += 1
            return run(*args)

        return counted


class OptimizerContract:
    """The tests every optimizer inherits; a subclass sets what differs and defines :meth:`make`."""

    # A learning rate with which the problem's loss falls by `descent` within `num_descent` steps.
    lr: float = 1e-2
    num_descent: int = 100
    descent: float = 0.1
    step_kind: str = "gradient"

    # Groups have an option `complex_weights`.
    has_complex_option: bool = False
    # States that are copies of the weight, in its dtype.
    weight_copies: tuple[str, ...] = ()
    # A weight that the loss does not feel moves all the same, as no gradient says so.
    moves_unused_weights: bool = False
    # Steps after which a state is worth saving: late enough for every buffer to have been used.
    num_before_save: int = 3

    def make(self, groups: Any, lr: float, **options: Any) -> Optimizer:
        raise NotImplementedError

    def groups(self, problem: Problem, **complex_options: Any) -> list[dict[str, Any]]:
        """Two groups: real weights, and complex ones stored as pairs."""
        if self.has_complex_option:
            complex_options["complex_weights"] = True
        return [{"params": problem.real_weights()}, {"params": problem.complex_weights(), **complex_options}]

    def finish(self, optimizer: Optimizer) -> None:
        """Called before weights are compared with what they should be; for optimizers that keep other weights aside."""

    def optimizer(self, problem: Problem, **options: Any) -> Optimizer:
        return self.make(self.groups(problem), options.pop("lr", self.lr), **options)

    def advance(self, optimizer: Optimizer, problem: Problem, num_steps: int = 1) -> None:
        """Steps as a training loop would take them."""
        for _ in range(num_steps):
            if self.step_kind == "residual":
                optimizer.step(problem.residual)
            elif self.step_kind == "value":
                optimizer.step(problem.loss)
            elif self.step_kind == "closure":
                optimizer.step(self.closure(optimizer, problem))
            else:
                optimizer.zero_grad()
                problem.loss().backward()
                optimizer.step()

    def closure(self, optimizer: Optimizer, problem: Problem) -> Callable[[], Tensor]:
        def run() -> Tensor:
            optimizer.zero_grad()
            loss = problem.loss()
            loss.backward()
            return loss

        return run

    def test_loss_falls(self):
        problem = Problem()
        before = problem.loss().item()
        self.advance(self.optimizer(problem), problem, self.num_descent)
        assert problem.loss().item() < self.descent * before

    def test_saved_and_loaded_run_is_the_same_run(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, self.num_before_save)
        file = io.BytesIO()
        torch.save({"weights": problem.state_dict(), "optimizer": optimizer.state_dict()}, file)
        self.advance(optimizer, problem, self.num_before_save)

        file.seek(0)
        saved = torch.load(file, weights_only=True)
        other = Problem(seed=5)
        other.load_state_dict(saved["weights"])
        # Options that are not those of the saved run: the checkpoint wins.
        resumed = self.optimizer(other, lr=3 * self.lr)
        resumed.load_state_dict(saved["optimizer"])
        self.advance(resumed, other, self.num_before_save)
        assert_same_weights(problem, other)

    def test_loading_does_not_share_memory_with_the_file(self):
        problem, other = Problem(), Problem()
        optimizer, resumed = self.optimizer(problem), self.optimizer(other)
        self.advance(optimizer, problem, 2)
        saved = copy.deepcopy(optimizer.state_dict())
        reference = copy.deepcopy(saved)
        resumed.load_state_dict(saved)
        self.advance(resumed, other, 2)
        assert_same_state(saved, reference)

    def test_copies_and_pickles_go_on_alike(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, 2)
        problem_copy, optimizer_copy = copy.deepcopy((problem, optimizer))
        self.advance(optimizer, problem, 2)
        self.advance(optimizer_copy, problem_copy, 2)
        assert_same_weights(problem, problem_copy)

    def test_copies_under_a_scheduler_move_their_own_weights(self):
        # A scheduler puts a `step` of its own on the object, bound to the original.
        problem = Problem()
        optimizer = self.optimizer(problem)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: 1.0)
        self.advance(optimizer, problem, 2)
        copies = [copy.deepcopy((problem, optimizer)), pickle.loads(pickle.dumps((problem, optimizer)))]
        before = copy.deepcopy(problem)
        for problem_copy, optimizer_copy in copies:
            self.advance(optimizer_copy, problem_copy, 2)
        assert_same_weights(problem, before)
        self.advance(optimizer, problem, 2)
        for problem_copy, _ in copies:
            assert_same_weights(problem, problem_copy)

    def test_bfloat16_weights_have_float32_states(self):
        problem = Problem(dtype=torch.bfloat16)
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, 2)
        assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in problem.parameters())
        other = Problem(dtype=torch.bfloat16)
        resumed = self.optimizer(other)
        resumed.load_state_dict(optimizer.state_dict())
        for source in (optimizer, resumed):
            states = [
                t for state in source.state.values() for name, t in state.items() if name not in self.weight_copies
            ]
            wide = [t for t in states if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
            assert {t.dtype for t in wide} <= {torch.float32, torch.complex64, torch.float64}
        assert_same_state(resumed.state_dict(), optimizer.state_dict())

    def test_a_group_with_rate_zero_stays(self):
        problem = Problem()
        groups = self.groups(problem)
        groups[1]["lr"] = 0.0
        before = copy.deepcopy(problem)
        optimizer = self.make(groups, self.lr)
        self.advance(optimizer, problem, 3)
        self.finish(optimizer)
        for old, new in zip(before.complex_weights(), problem.complex_weights(), strict=True):
            assert torch.equal(old, new)
        assert not torch.equal(before.wide, problem.wide)

    def test_a_group_can_be_added_later(self):
        problem = Problem()
        first, second = self.groups(problem)
        optimizer = self.make([first], self.lr)
        self.advance(optimizer, problem, 2)
        before = problem.modes.detach().clone()
        optimizer.add_param_group(second)
        self.advance(optimizer, problem, 3)
        assert not torch.equal(before, problem.modes)

    def test_scheduler_rules_the_rate(self):
        problem, slow = Problem(), Problem()
        optimizer, plain = self.optimizer(problem), self.optimizer(slow)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: 1.0 if count < 2 else 0.0)
        for _ in range(4):
            self.advance(optimizer, problem)
            scheduler.step()
        self.advance(plain, slow, 2)
        self.finish(optimizer)
        self.finish(plain)
        assert_same_weights(problem, slow)

    def test_rate_may_be_a_tensor(self):
        problem, other = Problem(), Problem()
        rates = (torch.tensor(self.lr, dtype=torch.float64), self.lr)
        optimizers = [self.optimizer(p, lr=lr) for p, lr in zip((problem, other), rates, strict=True)]
        schedules = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
        for _ in range(3):
            for optimizer, schedule, p in zip(optimizers, schedules, (problem, other), strict=True):
                self.advance(optimizer, p)
                schedule.step()
        assert all(isinstance(group["lr"], Tensor) for group in optimizers[0].param_groups)
        for optimizer in optimizers:
            self.finish(optimizer)
        for a, b in zip(problem.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)

    def test_one_cycle_turns_rate_and_momentum(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        names = {"betas", "momentum"} & optimizer.defaults.keys()
        if not names:
            with pytest.raises(ValueError, match="cycle_momentum"):
                torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=10)
        before = [{name: group[name] for name in names} for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=10, cycle_momentum=bool(names))
        self.advance(optimizer, problem)
        rate = optimizer.param_groups[0]["lr"]
        schedule.step()
        for group, old in zip(optimizer.param_groups, before, strict=True):
            assert group["lr"] > rate
            assert all(group[name] != old[name] for name in names)
        self.advance(optimizer, problem)
        assert all(p.isfinite().all() for p in problem.parameters())

    def test_compiled_step_equals_the_plain_one(self):
        # Bit by bit, as it is not traced; those that are have a test of their own.
        graphs, problem, other = CountingBackend(), Problem(), Problem()
        optimizer, plain = self.optimizer(problem), self.optimizer(other)
        optimizer.step = torch.compile(optimizer.step, backend=graphs)
        self.advance(optimizer, problem, 4)
        self.advance(plain, other, 4)
        assert_same_weights(problem, other)
        assert graphs.num_runs == 0

    def test_two_runs_are_the_same(self):
        runs = [Problem(), Problem()]
        for problem in runs:
            torch.manual_seed(3)
            self.advance(self.optimizer(problem), problem, 5)
        assert_same_weights(*runs)

    def test_weights_without_gradient_are_left_alone(self):
        problem = Problem()
        problem.square.requires_grad_(False)
        unused = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
        groups = self.groups(problem)
        groups[0]["params"].append(unused)
        before = problem.square.clone()
        optimizer = self.make(groups, self.lr)
        self.advance(optimizer, problem, 3)
        self.finish(optimizer)
        assert torch.equal(problem.square, before)
        assert torch.equal(unused, torch.ones_like(unused)) == (not self.moves_unused_weights)

    def test_negative_rate_is_refused(self):
        with pytest.raises(ArgumentError, match="lr"):
            self.make(self.groups(Problem()), -1.0)


def as_numpy(tensor: Tensor, is_complex: bool) -> np.ndarray:
    """A copy as a numpy array, complex where the tensor holds pairs."""
    tensor = tensor.detach().clone()
    return (torch.view_as_complex(tensor) if is_complex else tensor).numpy()


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(a, b), f"{name} differs by {(a - b).abs().max().item():.1e}"


def assert_same_state(left: Any, right: Any) -> None:
    """Equal in every tensor, number and name, however nested."""
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_state(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same_state(a, b)
    else:
        assert left == right
