"""Numbers to stand beside published ones: PDEBench's table, The Well's windows of a rollout, APEBench's curve."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.training.metrics import (
    PDEBENCH_BANDS,
    boundary_rmse,
    crmse,
    error_shells,
    max_error,
    nrmse,
    rmse,
)

BAND_NAMES = ("low", "mid", "high")
APEBENCH_STEPS = 100
WELL_WINDOWS: tuple[tuple[int, int], ...] = ((6, 12), (13, 30))


def pdebench_scores(prediction: Tensor, target: Tensor, *, domain: Domain, skip_frames: int = 0) -> Mapping[str, float]:
    """A row of PDEBench's tables, aggregated over samples as PDEBench does, with all samples in one batch.

        RMSE, nRMSE, bRMSE              mean over samples, times and channels
        cRMSE, fRMSE low, mid, high     root of the mean of squares over samples, then the mean
        max                             maximum over samples, then the mean

    Args:
        prediction, target: ``(batch, channel, *space)`` or ``(batch, time, channel, *space)``, at least 26 points per
            axis (24 in one dimension), so that there is a high band.
        domain: its lengths scale fRMSE, its quadrature weighs the points: alike on PDEBench's grids of cell centres.
        skip_frames: leading frames that were given. PDEBench's numbers before October 2024 score them as if predicted:
            pass 0, with the true frames in ``prediction``, to compare with those.

    Published values average over batches of a size that is not always stated; cRMSE, fRMSE and max depend on it.

    Raises:
        ShapeError: the shapes do not match, or the grid is too coarse for the bands.

    Source: Takamoto et al. (2022), arXiv 2210.07182, ``metrics.py``.

    >>> scores = pdebench_scores(torch.zeros(4, 1, 32), torch.ones(4, 1, 32), domain=Domain.periodic((1.0,)))
    >>> scores["RMSE"], scores["nRMSE"], scores["cRMSE"], scores["max"]
    (1.0, 1.0, 1.0, 1.0)
    """

    def each(metric: Callable[..., Tensor]) -> Tensor:
        return metric(prediction, target, domain=domain, skip_frames=skip_frames, reduction="none")

    shells = error_shells(prediction, target, domain=domain, skip_frames=skip_frames).mean(dim=0).sqrt()
    if shells.shape[-1] <= PDEBENCH_BANDS[-1][0]:
        raise ShapeError(
            f"expected a grid with more than {PDEBENCH_BANDS[-1][0]} shells of wavenumbers, got {shells.shape[-1]}; "
            "use frmse_bands with coarser bands"
        )
    edges = each(boundary_rmse)
    if domain.num_dims == 3:
        edges = edges.square().sum(dim=-1).sqrt()  # squares are summed over channels in 3-D only
    scores = {
        "RMSE": each(rmse).mean(),
        "nRMSE": each(nrmse).mean(),
        "cRMSE": each(crmse).square().mean(dim=0).sqrt().mean(),
        "max": each(max_error).amax(dim=0).mean(),
        "bRMSE": edges.mean(),
    }
    for name, (first, end) in zip(BAND_NAMES, PDEBENCH_BANDS, strict=True):
        scores[f"fRMSE {name}"] = shells[..., first:end].mean()
    return {name: value.item() for name, value in scores.items()}


def window_means(errors: Tensor, windows: Sequence[tuple[int, int]] = WELL_WINDOWS) -> Tensor:
    """Means of an error per step ``(..., time)`` over windows of steps: shape ``(..., num_windows)``.

    Args:
        errors: of a rollout, for example ``rollout_errors(..., metric=vrmse)``.
        windows: pairs (first, last + 1) of steps, counted from 0; by default The Well's.

    Raises:
        ShapeError: there are fewer steps than the windows want.

    Source: Ohana et al. (2024), arXiv 2412.00568, tables of rollouts.

    >>> window_means(torch.arange(30.0)).tolist()
    [8.5, 21.0]
    """
    needed = max(end for _, end in windows)
    if errors.shape[-1] < needed:
        raise ShapeError(f"expected at least {needed} steps, got {errors.shape[-1]}; roll out further")
    return torch.stack([errors[..., first:end].mean(dim=-1) for first, end in windows], dim=-1)


def apebench_curve(prediction: Tensor, target: Tensor, *, domain: Domain) -> Tensor:
    """APEBench's mean nRMSE after each step of a rollout: shape ``(time,)``.

        mean over samples of  sum over channels of  sqrt(sum_x (p - t)^2) / sqrt(sum_x t^2)

    Channels are *summed*, so that a state of C channels predicted as zero scores C, not 1. For several training seeds
    take the median of their curves at each step: ``torch.stack(curves).quantile(0.5, dim=0)``, which for an even number
    of seeds lies between the middle two.

    Args:
        prediction, target: of the rollout without its given first state, ``(batch, time, channel, *space)``.
        domain: says which axes are space; its quadrature weighs the points.

    Raises:
        ShapeError: the shapes do not match, or these are no trajectories.

    Source: Koehler et al. (2024), arXiv 2411.00180; exponax, which defines its metrics.

    >>> apebench_curve(torch.zeros(4, 3, 2, 32), torch.ones(4, 3, 2, 32), domain=Domain.periodic((1.0,))).tolist()
    [2.0, 2.0, 2.0]
    """
    values = nrmse(prediction, target, domain=domain, reduction="none")
    if values.ndim != 3:
        raise ShapeError(
            f"expected a trajectory (batch, time, channel, *space) with {domain.num_dims} space axes, "
            f"got {tuple(prediction.shape)}; roll the model out"
        )
    return values.sum(dim=2).mean(dim=0)


def apebench_score(curve: Tensor, *, num_steps: int = APEBENCH_STEPS) -> Tensor:
    """APEBench's one number for a rollout: the geometric mean of its error over the first steps.

    Args:
        curve: error per step ``(..., time)``, from :func:`apebench_curve`, positive.
        num_steps: how many count, at least 1.

    Raises:
        ShapeError: there are fewer steps.

    >>> round(apebench_score(torch.tensor([0.01, 1.0, 7.0]), num_steps=2).item(), 6)
    0.1
    """
    if not 1 <= num_steps <= curve.shape[-1]:
        raise ShapeError(f"expected between 1 and {curve.shape[-1]} steps, got {num_steps}; roll out further")
    return curve[..., :num_steps].log().mean(dim=-1).exp()
