"""Stochastic equations at equal strong accuracy: SOSRI on a Brownian tree against a plain Euler-Maruyama loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import Call, Comparison, ErrorFunction
from neuralop_kit.solvers import sdeint
from neuralop_kit.solvers.ode import FixedStep
from neuralop_kit.solvers.sde import SOSRI2, BrownianTree

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PathCase:
    """Paths of ``dy = (2 t c(y) + y/2) dt + c(y) dW`` with ``c(y) = sqrt(1 + y^2)`` from 0.3 to t = 1.

    Solved exactly by ``y = sinh(arsinh(y_0) + t^2 + W)``. ``depth`` is that of the tree, so that 2^depth steps fit; the
    loop takes ``loop_steps``, as many as it needs for the same error.
    """

    paths: int
    depth: int
    loop_steps: int

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """Initial states, ``(paths, 1)``, in float64."""
        return (torch.full((self.paths, 1), 0.3, dtype=torch.float64),)


def size_of_noise(y: Tensor) -> Tensor:
    """c(y)."""
    return (1 + y**2).sqrt()


def ours(case: PathCase) -> Callable[[Tensor], Ends]:
    """Fixed steps on the ends of the leaves; the state and the noise at t = 1."""

    def solve(y0: Tensor) -> Ends:
        path = BrownianTree(0.0, 1.0, y0.shape, depth=case.depth, generator=torch.Generator().manual_seed(0))
        solution = sdeint(
            lambda t, y: 2 * t * size_of_noise(y) + y / 2, lambda t, y: size_of_noise(y), y0, torch.tensor([0.0, 1.0]),
            method=SOSRI2(), controller=FixedStep(2.0**-case.depth), control="joint", brownian=path,
        )  # fmt: skip
        return solution.ys[-1], path.at(1.0).value

    return solve


def plain_loop(case: PathCase) -> Callable[[Tensor], Ends]:
    """What one would write without a library: a normal number per step, nothing else."""

    def solve(y0: Tensor) -> Ends:
        generator = torch.Generator().manual_seed(0)
        h, y, noise = 1 / case.loop_steps, y0, torch.zeros_like(y0)
        for k in range(case.loop_steps):
            change = h**0.5 * torch.randn(y0.shape, generator=generator, dtype=y0.dtype)
            c = size_of_noise(y)
            y = y + h * (2 * k * h * c + y / 2) + change * c
            noise = noise + change
        return y, noise

    return solve


def strong_error(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> float:
    """Mean distance from the exact end of the path that each side has drawn, over the mean size of these ends."""
    y, noise = outputs
    exact = torch.sinh(torch.asinh(inputs[0]) + 1 + noise)
    return ((y - exact).abs().mean() / exact.abs().mean()).item()


def comparison(case: PathCase, *, tolerance: float, quick: bool) -> Comparison:
    """One accuracy."""
    return Comparison(
        name=f"solvers/sde/strong-error-{tolerance:g}",
        ours=ours,
        peer=plain_loop,
        peer_name=f"Euler-Maruyama, {case.loop_steps:,} steps",
        case=case,
        measure=(Call(f"{2**case.depth} steps of SOSRI2"),),
        accuracy=ErrorFunction(strong_error, tolerance=tolerance),
        quick=quick,
    )


SDE = [
    comparison(PathCase(paths=1000, depth=4, loop_steps=2048), tolerance=0.011, quick=True),
    comparison(PathCase(paths=1000, depth=5, loop_steps=16_384), tolerance=0.004, quick=False),
]
