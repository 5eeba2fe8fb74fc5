"""The measures of PDEBench, The Well, the FNO paper and APEBench, by their own definitions.

    rmse                    PDEBench: root mean square error, in the unit of the field
    nrmse, nrmse_per_step   PDEBench: root mean square error over root mean square of the target
    vrmse                   The Well: the same over the standard deviation of the target
    binned_spectral_mse, pearson    The Well: error by wavenumber, correlation (in ``well_metrics.py``)
    max_error               PDEBench: largest absolute error
    crmse                   PDEBench: error of the conserved mean
    boundary_rmse           PDEBench: error on the edges of the box
    frmse_bands             PDEBench: error in bands of wavenumbers
    relative_l2             FNO: one ratio of norms per sample (in ``losses.py``)

All take ``(batch, channel, *space)``, or trajectories ``(batch, time, channel, *space)`` when ``domain`` says how many
axes are space. All give one value per sample, time and channel first (``reduction="none"``, shape ``(batch, [time,]
channel)``) and then average (``"mean"``), so that nothing depends on the batch size; where PDEBench takes a root after
averaging over its batch, the docstring says how to get its number from the values per sample.

``skip_frames`` leaves out the first frames of a trajectory, which are input, not prediction. PDEBench's published
numbers score them as predicted without error, and so are too good by ``num_frames / (num_frames - skip_frames)``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.training.losses import comparable

PDEBENCH_BANDS: tuple[tuple[int, int | None], ...] = ((0, 4), (4, 12), (12, None))


def rmse(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """PDEBench's RMSE: ``sqrt(mean_x (p - t)^2)`` per sample, time and channel. Arguments as for :func:`nrmse`.

    >>> rmse(torch.full((2, 1, 8), 3.0), torch.ones(2, 1, 8)).item()
    2.0
    """
    error, _, weights = fields(prediction, target, domain, skip_frames)
    return reduced_values(mean_over_points(error**2, weights).sqrt(), reduction)


def nrmse(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """PDEBench's nRMSE: ``sqrt(mean_x (p - t)^2) / sqrt(mean_x t^2)`` per sample, time and channel; no epsilon.

    Args:
        prediction, target: equal shapes, see the top of this file.
        domain: gives the quadrature weights of the spatial mean; ``None`` counts every point alike, as PDEBench does.
        skip_frames: leading frames of a trajectory that are not scored.
        reduction: ``"mean"`` over everything, or ``"none"``.

    A prediction of zero scores 1. A trajectory scored step by step differs much from one ratio for all of it.

    Source: Takamoto et al. (2022), arXiv 2210.07182, ``metrics.py``.

    >>> nrmse(torch.zeros(2, 1, 8), torch.ones(2, 1, 8)).item()
    1.0
    """
    error, target, weights = fields(prediction, target, domain, skip_frames)
    return reduced_values(
        (mean_over_points(error**2, weights) / mean_over_points(target**2, weights)).sqrt(), reduction
    )


def nrmse_per_step(prediction: Tensor, target: Tensor, *, domain: Domain, skip_frames: int = 0) -> Tensor:
    """:func:`nrmse` at each time of a trajectory ``(batch, time, channel, *space)``: shape ``(time,)``.

    A mean over samples and channels; APEBench sums over channels, see :func:`apebench_curve`.
    """
    values = nrmse(prediction, target, domain=domain, skip_frames=skip_frames, reduction="none")
    if values.ndim != 3:
        raise ShapeError(
            f"expected a trajectory (batch, time, channel, *space) with {domain.num_dims} space axes, "
            f"got {tuple(prediction.shape)}; use nrmse for single fields"
        )
    return values.mean(dim=(0, 2))


def vrmse(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """The Well's VRMSE: ``sqrt(mean_x (p - t)^2 / (var_x(t) + 1e-7))``, unbiased variance.

    Predicting the spatial mean scores sqrt((n-1)/n), a little less than 1. Nearly constant targets score huge values.
    Arguments as for :func:`nrmse`; The Well counts every point alike.

    Source: Ohana et al. (2024), arXiv 2412.00568, ``benchmark/metrics/spatial.py``.

    >>> t = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    >>> round(vrmse(torch.full_like(t, 2.5), t).item(), 5) == round((3 / 4) ** 0.5, 5)
    True
    """
    error, target, weights = fields(prediction, target, domain, skip_frames)
    num_points = target.shape[-1]
    centred = target - mean_over_points(target, weights).unsqueeze(-1)
    variance = mean_over_points(centred**2, weights) * (num_points / (num_points - 1))
    return reduced_values((mean_over_points(error**2, weights) / (variance + 1e-7)).sqrt(), reduction)


def max_error(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """Largest absolute error over the points, per sample, time and channel. Arguments as for :func:`nrmse`.

    PDEBench's number is ``max_error(..., reduction="none").amax(dim=0).mean()`` over all samples.
    """
    error, _, _ = fields(prediction, target, domain, skip_frames)
    return reduced_values(error.abs().amax(dim=-1), reduction)


def crmse(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """Absolute error of the spatial mean, which a conservative prediction gets right: ``|mean_x (p - t)|``.

    PDEBench's number is ``crmse(..., reduction="none").square().mean(dim=0).sqrt().mean()`` over all samples. Arguments
    as for :func:`nrmse`.
    """
    error, _, weights = fields(prediction, target, domain, skip_frames)
    return reduced_values(mean_over_points(error, weights).abs(), reduction)


def boundary_rmse(
    prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0, reduction: str = "mean"
) -> Tensor:
    """PDEBench's bRMSE: root mean square error over the outermost points of every axis, corners counted once per edge.

    In 3-D PDEBench sums the squares over channels; that is ``boundary_rmse(..., reduction="none").square().sum(-1)``,
    then the root. Every axis counts, also periodic ones; ``domain`` only says how many there are.
    """
    error, shape = scored_errors(prediction, target, domain, skip_frames)
    total = error.new_zeros(error.shape[: error.ndim - len(shape)])
    count = 0
    for dim in range(-len(shape), 0):
        for end in (0, -1):
            side = error.select(dim, end).reshape(*total.shape, -1)
            total = total + side.square().sum(dim=-1)
            count += math.prod(shape) // shape[dim]
    return reduced_values((total / count).sqrt(), reduction)


def frmse_bands(
    prediction: Tensor,
    target: Tensor,
    *,
    domain: Domain | None = None,
    bands: Sequence[tuple[int, int | None]] = PDEBENCH_BANDS,
    skip_frames: int = 0,
    reduction: str = "mean",
) -> Tensor:
    """PDEBench's fRMSE: size of the error's Fourier coefficients, averaged within bands of wavenumbers.

        sqrt(sum of |F(p - t)|^2 in the shell floor(|k|) = s) * volume / num_points,   averaged over s in the band

    In 1-D a shell is one coefficient of ``rfft``. In 2-D and 3-D only the octant of non-negative wavenumbers below
    Nyquist counts, and shells below min(n)/2. For one sample this is PDEBench's number; over several PDEBench takes
    the mean of the squares before the root: use :func:`error_shells`.

    Args:
        bands: pairs (first, last + 1) of shells; ``None`` means up to the last.
        reduction: ``"mean"``: shape ``(num_bands,)``; ``"none"``: ``(batch, [time,] channel, num_bands)``.
        Others as for :func:`nrmse`; lengths are those of ``domain``, or 1.

    Raises:
        ShapeError: the grid is too coarse for one of the bands.
    """
    shells = error_shells(prediction, target, domain=domain, skip_frames=skip_frames).sqrt()
    num_shells = shells.shape[-1]
    if any(first >= num_shells for first, _ in bands):
        raise ShapeError(
            f"expected a grid with shells in every band of {tuple(bands)}, got {num_shells} shells; give coarser bands"
        )
    values = torch.stack([shells[..., first:end].mean(dim=-1) for first, end in bands], dim=-1)
    if reduction == "mean":
        return values.flatten(end_dim=-2).mean(dim=0)
    return reduced_values(values, reduction)


def error_shells(prediction: Tensor, target: Tensor, *, domain: Domain | None = None, skip_frames: int = 0) -> Tensor:
    """Squared Fourier coefficients of the error, scaled and summed over shells; see :func:`frmse_bands`.

    Shape ``(batch, [time,] channel, num_shells)``. PDEBench's fRMSE of a band, over all samples, is
    ``error_shells(...).mean(dim=0).sqrt()[..., first:end].mean(dim=-1)``.
    """
    error, shape = scored_errors(prediction, target, domain, skip_frames)
    volume = 1.0 if domain is None else domain.measure
    scale = (volume / math.prod(shape)) ** 2
    if len(shape) == 1:
        return torch.fft.rfft(error).abs().square() * scale
    dims = tuple(range(-len(shape), 0))
    power = torch.fft.fftn(error, dim=dims).abs().square()
    for dim, n in zip(dims, shape, strict=True):
        power = power.narrow(dim, 0, n // 2)
    num_shells = min(shape) // 2
    grid = torch.meshgrid(*[torch.arange(n // 2, device=error.device) for n in shape], indexing="ij")
    # Squares of whole numbers: the root is exact where it is whole, so floor puts every |k| into its shell.
    shell = sum((k.double().square() for k in grid), torch.zeros((), device=error.device)).sqrt().floor().long()
    kept = shell < num_shells
    sums = power.new_zeros(*power.shape[: -len(shape)], num_shells)
    return sums.index_add_(-1, shell[kept], power[..., kept]) * scale


def scored_errors(
    prediction: Tensor, target: Tensor, domain: Domain | None, skip_frames: int
) -> tuple[Tensor, tuple[int, ...]]:
    """``prediction - target`` of the scored frames, and the shape of space."""
    prediction, target = comparable(prediction, target)
    num_dims = prediction.ndim - 2 if domain is None else domain.num_dims
    if prediction.ndim not in (num_dims + 2, num_dims + 3) or num_dims < 1:
        raise ShapeError(
            f"expected (batch, [time,] channel, *space) with {num_dims} space axes, got {tuple(prediction.shape)}; "
            "pass domain= to say which axes are space"
        )
    num_frames = prediction.shape[1] if prediction.ndim == num_dims + 3 else 1
    if not 0 <= skip_frames < num_frames:
        raise ArgumentError(
            f"expected 0 <= skip_frames < {num_frames}, got {skip_frames}; only trajectories "
            "(batch, time, channel, *space) with a domain= have frames to skip"
        )
    error = prediction - target
    return (error[:, skip_frames:] if skip_frames else error), tuple(prediction.shape[-num_dims:])


def fields(
    prediction: Tensor, target: Tensor, domain: Domain | None, skip_frames: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Error and target with space flattened into the last axis, and weights of its points that sum to one."""
    error, shape = scored_errors(prediction, target, domain, skip_frames)
    _, target = comparable(prediction, target)
    target = target[:, skip_frames:] if skip_frames else target
    start = error.ndim - len(shape)
    weights = torch.ones(shape, dtype=torch.float64) if domain is None else domain.weights(shape, dtype=torch.float64)
    weights = (weights / weights.sum()).to(error).flatten()
    return error.flatten(start_dim=start), target.flatten(start_dim=start), weights


def mean_over_points(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the last axis."""
    return (values * weights).sum(dim=-1)


def reduced_values(values: Tensor, reduction: str) -> Tensor:
    """The mean, or the values themselves."""
    if reduction == "mean":
        return values.mean()
    if reduction == "none":
        return values
    raise ArgumentError(f"expected a reduction among 'mean', 'none', got {reduction!r}; take one of these")
