"""What a step costs: Sven and Gauss-Newton against Adam on one network, Lion against torch's AdamW.

A ratio of one third for the Gram family is what we aim at. In blocks of steps, where Adam gains most from its caches,
Gauss-Newton takes 2.8 to 3.0 times as long as Adam, and Sven 2.7 where it drops no singular value. Where it drops some,
as it mostly does on fresh batches of 128, it takes 3.3 times as long: the checks that keep silent errors out cost 5 to
10 per cent, before them it was 2.9. A step of that family does far more than one of Adam, which is another question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import Accuracy, Comparison
from benchmarks.accuracy import Pair, relative_error
from benchmarks.measures import Call, Measure, Subject, tensors_in
from neuralop_kit.optim import FixedStep, GaussNewton, Lion, Sven

Started = tuple[torch.optim.Optimizer, Callable[..., object]]


class Step:
    """A step of an optimizer that goes on from call to call.

    Args:
        start: gives an optimizer and a function that takes one step with it, always from the same beginning.
    """

    def __init__(self, start: Callable[[], Started]) -> None:
        self.start = start
        self.optimizer, self.run = start()

    def __call__(self, *inputs: Tensor) -> None:
        """One step."""
        self.run(*inputs)

    def first_change(self, *inputs: Tensor) -> Tensor:
        """What the first step does to all weights."""
        optimizer, run = self.start()
        before = flat(weights_of(optimizer))
        run(*inputs)
        return flat(weights_of(optimizer)) - before

    def held_bytes(self) -> int:
        """Gradients and states that stay from step to step."""
        gradients = [weight.grad for weight in weights_of(self.optimizer) if weight.grad is not None]
        states = [value for state in self.optimizer.state.values() for value in tensors_in(list(state.values()))]
        return sum(tensor.nbytes for tensor in (*gradients, *states))


@dataclass(frozen=True)
class OptimizerStep(Call):
    """One step of a :class:`Step`."""

    label: str = "step"

    def held_bytes(self, subject: Subject) -> int:
        """See :class:`Step`."""
        return subject.held_bytes() if isinstance(subject, Step) else 0


@dataclass(frozen=True)
class FirstStep(Accuracy):
    """Distance of the first step from its formula in float64; nothing to say about a peer with another rule."""

    exact: Callable[..., Tensor]
    tolerance: float

    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """See the class."""
        if not isinstance(subject, Step) or subject is pair.peer:
            return None
        return relative_error((subject.first_change(*pair.inputs),), (self.exact(*pair.inputs),))


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All of its groups."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def flat(weights: Sequence[Tensor]) -> Tensor:
    """All weights as one float64 vector."""
    return torch.cat([weight.detach().flatten().double() for weight in weights])


@dataclass(frozen=True)
class RegressionCase:
    """A batch for an MLP with 29,089 weights."""

    batch: int = 128

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points and values."""
        return torch.randn(self.batch, 16, generator=generator), torch.randn(self.batch, generator=generator)


def network() -> nn.Module:
    """Always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(16, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 80), nn.GELU(),
            nn.Linear(80, 1),
        )  # fmt: skip


def sven(model: nn.Module) -> torch.optim.Optimizer:
    """The paper's rule."""
    return Sven(model.parameters(), lr=0.1, rtol=1e-2, control=FixedStep())


def sven_truncating(model: nn.Module) -> torch.optim.Optimizer:
    """Where singular values are dropped, which takes eigenvectors."""
    return Sven(model.parameters(), lr=0.1, rtol=1e-1, control=FixedStep())


def gauss_newton(model: nn.Module) -> torch.optim.Optimizer:
    """Damped, by Cholesky."""
    return GaussNewton(model.parameters(), lr=0.1, damping=1e-2, rtol=0.0, control=FixedStep())


def residual_step(make: Callable[[nn.Module], torch.optim.Optimizer]) -> Step:
    """From the residuals."""

    def start() -> Started:
        model = network()
        optimizer = make(model)
        return optimizer, lambda x, y: optimizer.step(lambda: model(x).squeeze(1) - y)  # type: ignore[arg-type]

    return Step(start)


def adam_step() -> Step:
    """Forward, backward, Adam."""

    def start() -> Started:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def run(x: Tensor, y: Tensor) -> None:
            optimizer.zero_grad()
            (model(x).squeeze(1) - y).square().mean().backward()
            optimizer.step()

        return optimizer, run

    return Step(start)


def linearized(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Residual and Jacobian in float64, one backward pass per row."""
    model = network().to(x.device).double()
    r = model(x.double()).squeeze(1) - y.double()
    parameters = list(model.parameters())
    rows = [flat(torch.autograd.grad(value, parameters, retain_graph=True)) for value in r]
    return r.detach(), torch.stack(rows)


def exact_sven(rtol: float) -> Callable[[Tensor, Tensor], Tensor]:
    """By the pseudo-inverse."""

    def exact(x: Tensor, y: Tensor) -> Tensor:
        r, jacobian = linearized(x, y)
        return -0.1 * torch.linalg.pinv(jacobian, rtol=rtol) @ r

    return exact


def exact_gauss_newton(x: Tensor, y: Tensor) -> Tensor:
    """By a dense solve."""
    r, jacobian = linearized(x, y)
    damping = 1e-2 * torch.linalg.matrix_norm(jacobian, 2) ** 2
    gram = jacobian @ jacobian.T + damping * torch.eye(len(r), dtype=r.dtype, device=r.device)
    return -0.1 * jacobian.T @ torch.linalg.solve(gram, r)


def residual_comparison(
    name: str, make: Callable[[nn.Module], torch.optim.Optimizer], exact: Callable[..., Tensor], tolerance: float
) -> Comparison:
    """One optimizer of the Gram family."""
    return Comparison(
        name=f"optim/residual_step/{name}-29k-batch128",
        ours=lambda case: residual_step(make),
        peer=lambda case: adam_step(),
        peer_name="Adam",
        case=RegressionCase(),
        measure=(OptimizerStep(),),
        accuracy=FirstStep(exact, tolerance=tolerance),
        target=1 / 3,
    )


RESIDUAL_STEPS = [
    residual_comparison("sven", sven, exact_sven(1e-2), 1e-3),
    residual_comparison("sven_truncating", sven_truncating, exact_sven(1e-1), 1e-3),
    # Its damping is a fraction of the largest eigenvalue, which is known to a few per cent.
    residual_comparison("gauss_newton", gauss_newton, exact_gauss_newton, 0.05),
]


@dataclass(frozen=True)
class GradientCase:
    """Weights with gradients, as after a backward pass."""

    num_tensors: int = 32
    size: int = 65_536

    def weights(self) -> list[Tensor]:
        """Fixed weights and gradients."""
        generator = torch.Generator().manual_seed(0)
        weights: list[Tensor] = []
        for _ in range(self.num_tensors):
            weights.append(nn.Parameter(torch.randn(self.size, generator=generator)))
            weights[-1].grad = torch.randn(self.size, generator=generator)
        return weights

    def step(self, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Step:
        """A step of an optimizer on them."""

        def start() -> Started:
            optimizer = make(self.weights())
            return optimizer, optimizer.step

        return Step(start)

    def inputs(self, generator: torch.Generator) -> tuple[()]:
        """Nothing: a step takes no arguments."""
        return ()


def exact_lion() -> Tensor:
    """The first step: the sign of the gradient, and the decay."""
    weights = GradientCase().weights()
    signs = torch.cat([weight.grad.sign().double() for weight in weights if weight.grad is not None])
    return -1e-4 * (signs + 0.01 * flat(weights))


LION = Comparison(
    name="optim/gradient_step/lion-2M",
    ours=lambda case: case.step(lambda p: Lion(p, lr=1e-4, weight_decay=0.01)),
    peer=lambda case: case.step(lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True)),
    peer_name="torch AdamW foreach",
    case=GradientCase(),
    measure=(OptimizerStep(),),
    # Weights near 1 hold a step of 1e-4 to four digits in float32.
    accuracy=FirstStep(exact_lion, tolerance=2e-3),
    target=1.0,
)
