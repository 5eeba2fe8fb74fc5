"""Gaussian random fields against the plain FFT sampler that most papers use."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import Call, Comparison, ErrorFunction
from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField

ALPHA, TAU = 2.5, 7.0


@dataclass(frozen=True)
class SampleCase:
    """How many samples of which size."""

    batch: int
    shape: tuple[int, int]

    def inputs(self, generator: torch.Generator) -> tuple[torch.Generator]:
        """The generator itself: drawing is part of the work."""
        return (generator,)


def field() -> GaussianRandomField:
    """Vorticity of the Navier-Stokes data set of the FNO paper."""
    return GaussianRandomField(Domain.periodic((1.0, 1.0)), alpha=ALPHA, tau=TAU)


def ours(case: SampleCase) -> Callable[[torch.Generator], Tensor]:
    """The same function at any resolution: numbers are drawn in float64, in blocks of growing wavenumber."""
    sampler = field()
    return lambda generator: sampler.sample(case.batch, case.shape, generator=generator)


class PlainSampler(nn.Module):
    """White noise in the order of the FFT, float32: another function at each resolution."""

    scale: Tensor

    def __init__(self, case: SampleCase) -> None:
        super().__init__()
        self.shape = (case.batch, 1, *case.shape)
        num_points = case.shape[0]
        k = 2 * torch.pi * torch.fft.fftfreq(num_points, 1 / num_points)
        squared = k[:, None] ** 2 + k**2
        scale = num_points**2 * TAU ** (ALPHA - 1) * (squared + TAU**2) ** (-ALPHA / 2)
        scale[0, 0] = 0.0
        self.register_buffer("scale", scale)

    def forward(self, generator: torch.Generator) -> Tensor:
        """A batch of samples."""
        noise = torch.randn(self.shape, dtype=torch.complex64, generator=generator, device=generator.device)
        return (2**0.5 * torch.fft.ifft2(self.scale * noise)).real


def variance_defect(outputs: tuple[Tensor, ...], inputs: tuple[torch.Generator]) -> float:
    """Distance of the empirical variance from the sum of the eigenvalues, relative to it."""
    exact = field().average_variance(tuple(outputs[0].shape[2:]))
    return abs(outputs[0].double().square().mean().item() / exact - 1)


# 16 samples estimate the variance to about a tenth; the tolerance still tells it from a wrong factor of 2.
SAMPLING = [
    Comparison(
        name=f"solvers/gaussian_random_field/{n}x{n}-batch16",
        ours=ours,
        peer=PlainSampler,
        peer_name="plain FFT sampler",
        case=SampleCase(batch=16, shape=(n, n)),
        measure=(Call(),),
        accuracy=ErrorFunction(variance_defect, tolerance=0.3),
    )
    for n in (64, 256)
]
