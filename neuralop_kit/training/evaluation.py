"""Measuring a model on datasets, and refusing unusable data before the first step."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuralop_kit.solvers.errors import NeuralopKitError, ShapeError
from neuralop_kit.training import distributed
from neuralop_kit.training.data_order import EVALUATION_EPOCH, Batches, PairDataset, as_datasets, check_finite

Metric = Callable[[Tensor, Tensor], Tensor]
Predict = Callable[[Tensor], Tensor]


def evaluate(
    predict: Predict,
    dataset: PairDataset,
    metrics: Mapping[str, Metric],
    *,
    batch_size: int,
    move: Callable[[Tensor], Tensor],
    num_workers: int = 0,
) -> dict[str, float]:
    """Mean of each metric over the samples of a dataset, shared among all processes.

    Args:
        predict: field in, field out; called without gradients.
        dataset: items ``(input, target)``.
        metrics: each ``(prediction, target) -> mean over the batch``; then nothing depends on ``batch_size``.
        move: brings a field to the model's device and dtype.
    """
    values, counts = [], []
    batches = Batches(as_datasets(dataset), batch_size=batch_size, seed=0, epoch=EVALUATION_EPOCH)
    with torch.no_grad():
        for source, target, num_samples, _ in batches.loader(num_workers=num_workers):
            source, target = move(source), move(target)
            prediction = predict(source)
            values.append(torch.stack([metric(prediction, target) for metric in metrics.values()]))
            counts.append(num_samples)
    # Brought to the host once, at the end, and summed in float64.
    weights = torch.tensor(counts, dtype=torch.float64)
    sums = weights @ torch.stack(values).cpu().double()
    *totals, count = distributed.sum_numbers([*sums.tolist(), sum(counts)], values[0].device)
    return {name: total / count for name, total in zip(metrics, totals, strict=True)}


def check_data(model: nn.Module, datasets: Mapping[str, PairDataset], *, move: Callable[[Tensor], Tensor]) -> None:
    """Run the model once on the first sample of every dataset, so that what does not fit is known before training.

    Raises:
        ShapeError: the model refuses the input, or gives another shape than the target's.
        NonFiniteError: the data contain NaN or infinity.
    """
    was_training = model.training
    model.eval()
    try:
        for name, dataset in datasets.items():
            # What is in memory is checked whole; the rest of a lazy dataset when it is read.
            if isinstance(dataset, TensorDataset):
                check_finite(*dataset.tensors, samples=torch.arange(len(dataset)), name=name)
            source, target, *_ = Batches([dataset], batch_size=1, seed=0, epoch=EVALUATION_EPOCH)[0]
            _check_sample(model, move(source), move(target), name)
    finally:
        model.train(was_training)


def _check_sample(model: nn.Module, source: Tensor, target: Tensor, name: str) -> None:
    try:
        with torch.no_grad():
            prediction = model(source)
    except NeuralopKitError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise ShapeError(
            f"expected inputs that the model accepts, got {tuple(source.shape)} from dataset {name!r}: {error}"
        ) from error
    if prediction.shape != target.shape:
        raise ShapeError(
            f"expected targets of the shape that the model predicts, {tuple(prediction.shape)}, got "
            f"{tuple(target.shape)} from dataset {name!r}; check channels and resolution"
        )
