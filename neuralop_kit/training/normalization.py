"""Normalisation that travels with the model: a saved operator takes and gives physical units."""

import torch
from torch import Tensor, nn

from neuralop_kit.datasets.statistics import ChannelStatistics
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.errors import ShapeError


@register_model("normalized")
class Normalized(nn.Module):
    """A model that sees normalised fields while its user sees physical ones.

        v = mean_t + std_t * model((u - mean_u) / std_u)

    Args:
        model: ``(batch, channel, *space)`` to the same; registered, if the whole is to be saved by ``save_model``.
        input_statistics, target_statistics: of the training data: ``dataset.statistics.input``, ``.target``, or
            ``ChannelStatistics.of(fields)``. A channel that never varies is shifted but not scaled.

    Shape: as the model's. The loss sees physical units; use a relative one.

    >>> statistics = ChannelStatistics(mean=(2.0,), std=(0.5,))
    >>> model = Normalized(nn.Identity(), input_statistics=statistics, target_statistics=statistics)
    >>> model(torch.full((1, 1, 4), 3.0)).flatten().tolist()
    [3.0, 3.0, 3.0, 3.0]
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self, model: nn.Module, *, input_statistics: ChannelStatistics, target_statistics: ChannelStatistics
    ) -> None:
        super().__init__()
        self.model = model
        for side, statistics in (("input", input_statistics), ("target", target_statistics)):
            self.register_buffer(f"{side}_mean", torch.tensor(statistics.mean))
            self.register_buffer(f"{side}_std", torch.tensor([s or 1.0 for s in statistics.std]))

    def forward(self, u: Tensor, *others: Tensor) -> Tensor:
        """Physical field in, physical field out; further tensors go to the model as they are."""
        u = (u - _per_channel(self.input_mean, u, "input")) / _per_channel(self.input_std, u, "input")
        v: Tensor = self.model(u, *others)
        return v * _per_channel(self.target_std, v, "target") + _per_channel(self.target_mean, v, "target")


def _per_channel(values: Tensor, u: Tensor, side: str) -> Tensor:
    """``values`` as a field of one point, in the field's dtype."""
    if u.ndim < 2 or u.shape[1] != values.numel():
        raise ShapeError(
            f"expected a field (batch, {values.numel()}, *space) to go with the {side} statistics, "
            f"got {tuple(u.shape)}; check the channels, or compute the statistics of this data"
        )
    return values.to(u.dtype).reshape(-1, *[1] * (u.ndim - 2))
