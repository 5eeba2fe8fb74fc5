"""The Well's measures beside VRMSE: the error in bins of wavenumbers, and the correlation with the truth."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.training.losses import comparable
from neuralop_kit.training.metrics import fields, mean_over_points, reduced_values, scored_errors

# Of energies in normalised errors.
EPSILON = 1e-7


def well_bins(shape: Sequence[int], num_bins: int = 3) -> tuple[float, ...]:
    """Edges of The Well's bins of wavenumbers, in radians per grid spacing: ``num_bins + 1`` numbers from 0.

        0, e_1, ..., e_num_bins      with log e from log(2 pi / max n) to log(pi sqrt(d)) in equal steps, the first as 0

    The first bin holds the mean and the longest waves. The last edge is the corner of the FFT's box, where waves
    alternate along every axis, so that all wavenumbers are in some bin. The Well's first releases ended at ``pi`` and
    left out what lies behind.

    Source: Ohana et al. (2024), arXiv 2412.00568, section 4; The Well 1.2, ``benchmark/metrics/spectral.py``.

    >>> [round(edge, 4) for edge in well_bins((64, 64))]
    [0.0, 0.3499, 1.2467, 4.4429]
    """
    first, last = math.log(2 * math.pi / max(shape)), math.log(math.pi * math.sqrt(len(shape)) + 1e-6)
    edges = [math.exp(first + (last - first) * k / num_bins) for k in range(num_bins + 1)]
    return (0.0, *edges[1:])


def binned_spectral_mse(
    prediction: Tensor,
    target: Tensor,
    *,
    domain: Domain | None = None,
    bins: Sequence[float] | None = None,
    normalized: bool = False,
    skip_frames: int = 0,
    reduction: str = "mean",
) -> Tensor:
    """The Well's binned spectral MSE: the part of the mean square error that waves of each bin have.

        1/n^2 sum of |F(p - t)|^2 over wavenumbers with  e_b <= |omega| < e_b+1,      omega_i = 2 pi k_i / n_i

    ``n`` is the number of all points. By Plancherel's formula the sum over the bins of :func:`well_bins` is the mean
    square error. Every point counts alike, as in The Well; wavenumbers are per grid spacing, not per length.

    Args:
        prediction, target: ``(batch, channel, *space)``, or ``(batch, time, channel, *space)`` with ``domain``.
        domain: says how many axes are space.
        bins: ascending edges; by default those of :func:`well_bins`.
        normalized: divide by the same sum for the target, plus 1e-7: The Well's NMSE per bin. 1 for a prediction of
            zero.
        skip_frames: leading frames of a trajectory that are not scored.
        reduction: ``"mean"``: shape ``(num_bins,)``; ``"none"``: ``(batch, [time,] channel, num_bins)``.

    Raises:
        ShapeError: the shapes do not match.
        ArgumentError: ``bins`` do not ascend, or there are no frames to skip.

    Source: as for :func:`well_bins`.

    >>> x = torch.arange(16) * 2 * torch.pi / 16
    >>> [round(value, 6) for value in binned_spectral_mse(torch.cos(7 * x)[None, None], torch.zeros(1, 1, 16)).tolist()]
    [0.0, 0.0, 0.5]
    """
    error, shape = scored_errors(prediction, target, domain, skip_frames)
    edges = torch.tensor(well_bins(shape) if bins is None else tuple(bins), dtype=torch.float64, device=error.device)
    if len(edges) < 2 or not bool((edges[1:] > edges[:-1]).all()):
        raise ArgumentError(f"expected at least two ascending edges of bins, got {edges.tolist()}; sort them")
    energy = _binned_energy(error, shape, edges)
    if normalized:
        truth = comparable(prediction, target)[1][:, skip_frames:] if skip_frames else comparable(prediction, target)[1]
        energy = energy / (_binned_energy(truth, shape, edges) + EPSILON)
    if reduction == "mean":
        return energy.flatten(end_dim=-2).mean(dim=0)
    return reduced_values(energy, reduction)


def pearson(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """Pearson's correlation of prediction and target over space, per sample, time and channel: from -1 to 1.

        mean_x (p - mean p)(t - mean t) / sqrt(var_x(p) var_x(t))

    Blind to scale and offset: ``a t + b`` with positive ``a`` scores 1. A constant field has no correlation: NaN. The
    step at which it falls below 0.8 or 0.9 is how long a rollout of chaotic flow is said to be good for. Arguments as
    for :func:`nrmse`.

    Source: Pearson (1895); used for rollouts by Kochkov et al. (2021), PNAS 118.

    >>> t = torch.tensor([[[1.0, 2.0, 4.0]]])
    >>> round(pearson(3 * t + 1, t).item(), 6), round(pearson(-t, t).item(), 6)
    (1.0, -1.0)
    """
    error, target, weights = fields(prediction, target, domain, skip_frames)
    p, t = (_centred(u, weights) for u in (target + error, target))
    variances = mean_over_points(p**2, weights) * mean_over_points(t**2, weights)
    return reduced_values(mean_over_points(p * t, weights) / variances.sqrt(), reduction)


def _centred(u: Tensor, weights: Tensor) -> Tensor:
    """Minus the mean; NaN where nothing but rounding would be left."""
    centred = u - mean_over_points(u, weights).unsqueeze(-1)
    rounding = 8 * torch.finfo(u.dtype).eps * u.abs().amax(dim=-1, keepdim=True)
    return torch.where(centred.abs().amax(dim=-1, keepdim=True) > rounding, centred, torch.nan)


def _binned_energy(u: Tensor, shape: tuple[int, ...], edges: Tensor) -> Tensor:
    """Sums of squared Fourier coefficients over bins, divided by the squared number of points."""
    dims = tuple(range(-len(shape), 0))
    power = torch.fft.fftn(u, dim=dims).abs().square() / math.prod(shape) ** 2
    axes = [2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64, device=u.device) for n in shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    omega = torch.stack([axis.square() for axis in grid]).sum(dim=0).sqrt()
    bins = torch.bucketize(omega, edges, right=True) - 1
    kept = (bins >= 0) & (bins < len(edges) - 1)
    sums = power.new_zeros(*power.shape[: -len(shape)], len(edges) - 1)
    return sums.index_add_(-1, bins[kept], power[..., kept])
