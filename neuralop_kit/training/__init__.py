"""Losses, trainer, checkpoints, saved models.

Trainer                   the loop: any optimizer, several resolutions, killed and resumed without a trace
EarlyStopping, Checkpoints, PerStep, PerEpoch, TensorBoardLog     what a trainer may be given
relative_l2, relative_h1  quadrature-weighted relative errors; RelativeL2, RelativeH1 as objects with residuals
binned_spectral_mse, well_bins, pearson   The Well's error by wavenumber, and the correlation with the truth
rmse, nrmse, nrmse_per_step, vrmse, crmse, max_error, boundary_rmse, frmse_bands, error_shells, PDEBENCH_BANDS
                          the measures of PDEBench and The Well, by their own definitions
pdebench_scores           all of PDEBench's at once, aggregated over samples as there
window_means, WELL_WINDOWS   a rollout's error over The Well's windows of steps
apebench_curve, apebench_score   a rollout's error per step, and the geometric mean of it, as in APEBench
rollout, rollout_errors   autoregressive prediction and its error after each step
Normalized                a model in physical units around one in normalised ones, by ChannelStatistics
save_model, load_model    a trained operator is one folder
process_group             join the processes that ``torchrun`` started
CheckpointFolder          the checkpoints of a run, for tools of your own; Snapshot is what one holds
"""

from neuralop_kit.datasets.statistics import ChannelStatistics
from neuralop_kit.training.checkpoint import CheckpointFolder, Checkpoints, Snapshot
from neuralop_kit.training.distributed import process_group
from neuralop_kit.training.logs import TensorBoardLog
from neuralop_kit.training.losses import RelativeH1, RelativeL2, relative_h1, relative_l2
from neuralop_kit.training.metrics import (
    PDEBENCH_BANDS,
    boundary_rmse,
    crmse,
    error_shells,
    frmse_bands,
    max_error,
    nrmse,
    nrmse_per_step,
    rmse,
    vrmse,
)
from neuralop_kit.training.normalization import Normalized
from neuralop_kit.training.progress import EarlyStopping
from neuralop_kit.training.rollout import rollout, rollout_errors
from neuralop_kit.training.saved import load_model, save_model
from neuralop_kit.training.schedules import PerEpoch, PerStep
from neuralop_kit.training.scores import WELL_WINDOWS, apebench_curve, apebench_score, pdebench_scores, window_means
from neuralop_kit.training.trainer import Trainer
from neuralop_kit.training.well_metrics import binned_spectral_mse, pearson, well_bins

__all__ = [
    "Trainer",
    "EarlyStopping",
    "Checkpoints",
    "PerStep",
    "PerEpoch",
    "TensorBoardLog",
    "relative_l2",
    "relative_h1",
    "RelativeL2",
    "RelativeH1",
    "rmse",
    "nrmse",
    "nrmse_per_step",
    "vrmse",
    "binned_spectral_mse",
    "well_bins",
    "pearson",
    "crmse",
    "max_error",
    "boundary_rmse",
    "frmse_bands",
    "error_shells",
    "PDEBENCH_BANDS",
    "pdebench_scores",
    "window_means",
    "WELL_WINDOWS",
    "apebench_curve",
    "apebench_score",
    "rollout",
    "rollout_errors",
    "Normalized",
    "ChannelStatistics",
    "save_model",
    "load_model",
    "process_group",
    "CheckpointFolder",
    "Snapshot",
]
