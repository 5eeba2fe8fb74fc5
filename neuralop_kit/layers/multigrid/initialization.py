"""First values of a multigrid operator's kernels: random, or those of a textbook solver."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.layers.multigrid.smoothers import Smoother
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.errors import ArgumentError


@dataclass(frozen=True)
class LevelKernels:
    """What is to be filled on one level.

    Args:
        system: ``A``, shape ``(count, in, out, *stencil)``.
        smoother: ``B`` of every sweep, shape ``(num_sweeps, out, in, *stencil)``.
        laplacian: the stencil of ``-h^2 Laplace``.
        identity: the stencil of the identity.
        spacing: ``h``, the mean distance of neighbouring points on the level's own grid.
        num_dims: of space.
    """

    system: Tensor
    smoother: Tensor
    laplacian: Tensor
    identity: Tensor
    spacing: float
    num_dims: int

    @classmethod
    def on_box(cls, system: Tensor, smoother: Tensor, spacings: Sequence[float]) -> "LevelKernels":
        """Stencils of 3 points per axis, with the 3-, 5- or 7-point Laplacian; ``h`` is the geometric mean."""
        num_dims = len(spacings)
        spacing = math.prod(spacings) ** (1 / num_dims)
        identity = torch.zeros((3,) * num_dims, dtype=torch.float64)
        centre = (1,) * num_dims
        identity[centre] = 1.0
        laplacian = torch.zeros_like(identity)
        for axis, h in enumerate(spacings):
            weight = (spacing / h) ** 2
            laplacian[centre] += 2 * weight
            for end in (0, 2):
                laplacian[(*centre[:axis], end, *centre[axis + 1 :])] -= weight
        return cls(system, smoother, laplacian, identity, spacing, num_dims)


class Initialization(ABC):
    """A rule for the first values of all kernels."""

    # Kernels act as h^-order (A) and h^order (B) times what is stored: 2 for a Laplacian, 0 for no scaling.
    order: float = 0.0

    @abstractmethod
    def fill(self, levels: Sequence[LevelKernels], smoother: Smoother, generator: torch.Generator | None) -> None:
        """Write the values, in place, coarsest level first."""


@register_component("random_kernels")
@dataclass(frozen=True)
class RandomKernels(Initialization):
    """Independent uniform values up to ``gain / sqrt(3^d * channels)``, torch's convolutions having gain 1.

    Args:
        gain: positive. Good value: 0.5; with 1, the many stencils in a row of a cycle train to larger errors.
    """

    gain: float = 0.5

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ArgumentError(f"expected a positive gain, got {self.gain}; 0.5 is a good value")

    def fill(self, levels: Sequence[LevelKernels], smoother: Smoother, generator: torch.Generator | None) -> None:
        """Draw."""
        for level in levels:
            for kernels in (level.smoother, level.system):
                bound = self.gain / math.sqrt(math.prod(kernels.shape[2:]))
                torch.nn.init.uniform_(kernels, -bound, bound, generator=generator)


@register_component("elliptic_kernels")
@dataclass(frozen=True)
class EllipticKernels(Initialization):
    """A multigrid solver, before any training, for every channel by itself:

        A u = -diffusivity * Laplace(u) + reaction * u,      B = w / diag A

    by the 3-, 5- or 7-point stencil, with the factors ``w`` of the operator's smoother. With as many input as output
    channels, ``B`` keeps channels apart. Otherwise a random map ``V`` with orthonormal columns (or rows) leads from the
    ones to the others, so that the operator is ``V`` times the solver.

    Args:
        diffusivity: positive, in the unit of your equation.
        reaction: in the same unit over length squared. Negative values give a Helmholtz operator, of which multigrid
            solves no more waves than the coarsest grid resolves.
        noise: what random stencils amplify white noise by, relative to ``diag A`` and its inverse, are added; 0 for
            the exact solver. Good value: below 0.1.

    Source: Trottenberg, Oosterlee and Schueller (2001), chapter 2.
    """

    diffusivity: float = 1.0
    reaction: float = 0.0
    noise: float = 0.0

    order = 2.0

    def __post_init__(self) -> None:
        if not self.diffusivity > 0 or self.noise < 0:
            raise ArgumentError(
                f"expected diffusivity > 0 and noise >= 0, got {self.diffusivity} and {self.noise}; correct them"
            )

    def fill(self, levels: Sequence[LevelKernels], smoother: Smoother, generator: torch.Generator | None) -> None:
        """Write stencils and factors, then add noise."""
        _, num_in, num_out = levels[0].system.shape[:3]
        channels = _channel_map(num_out, num_in, generator).to(levels[0].system)
        for level in levels:
            identity = level.identity.to(level.system)
            stencil = self.diffusivity * level.laplacian + self.reaction * level.spacing**2 * level.identity
            stencil = stencil.to(level.system)
            diagonal = (identity * stencil).sum()
            factors = smoother.relaxations(len(level.smoother), level.num_dims)
            level.system.copy_(_outer(channels.mT, stencil).expand_as(level.system))
            for kernel, factor in zip(level.smoother, factors, strict=True):
                kernel.copy_(_outer(channels, factor / diagonal * identity))
            if self.noise:
                for kernels, scale in ((level.system, diagonal.item()), (level.smoother, 1 / diagonal.item())):
                    kernels.add_(_noise(kernels, generator), alpha=self.noise * scale)


def _channel_map(num_out: int, num_in: int, generator: torch.Generator | None) -> Tensor:
    """Identity, or a random matrix with orthonormal columns or rows, ``(num_out, num_in)``."""
    if num_out == num_in:
        return torch.eye(num_out, dtype=torch.float64)
    large, small = max(num_out, num_in), min(num_out, num_in)
    columns, _ = torch.linalg.qr(torch.randn(large, small, dtype=torch.float64, generator=generator))
    return columns if num_out > num_in else columns.mT


def _outer(channels: Tensor, stencil: Tensor) -> Tensor:
    return channels.view(*channels.shape, *[1] * stencil.ndim) * stencil


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random stencils that amplify white noise by one on average."""
    values = torch.randn(like.shape, dtype=torch.float64, generator=generator)
    return (values / math.sqrt(math.prod(like.shape[2:]))).to(like)
