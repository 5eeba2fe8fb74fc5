"""What the projecting layers share: the shape of a field, and one report per item from one per channel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from neuralop_kit.layers.checks import check_real, check_tensor
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.status import SolveInfo

Info = TypeVar("Info", bound=SolveInfo)


def check_field(u: Tensor, domain: Domain, *, channels: int | None = None) -> None:
    """Raise unless ``u`` is a real field on ``domain``, with so many channels if given.

    Raises:
        ShapeError: the rank or the number of channels is another one.
        ArgumentError: it is no tensor, or the values are complex numbers or integers.
    """
    check_tensor(u)
    if u.ndim != 2 + domain.num_dims or (channels is not None and u.shape[1] != channels):
        wanted = "channel" if channels is None else channels
        raise ShapeError(
            f"expected a field of shape (batch, {wanted}, *space) with {domain.num_dims} space axes, "
            f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
        )
    check_real(u)


def check_totals(totals: Tensor, u: Tensor) -> None:
    """Raise a :class:`ShapeError` unless there is one number per item and channel of ``u``."""
    check_tensor(totals)
    if totals.shape != u.shape[:2]:
        raise ShapeError(
            f"expected totals of shape {tuple(u.shape[:2])}, one per item and channel, got {tuple(totals.shape)}; "
            "they are integrals over the domain: (domain.weights(shape) * u).flatten(2).sum(2)"
        )


def worst_of_channels(info: SolveInfo, shape: Sequence[int]) -> SolveInfo:
    """One report per item, from one for every pair of item and channel; ``shape`` is their numbers."""
    status, iterations, residual = (
        x.reshape(shape).amax(dim=1) for x in (info.status, info.iterations, info.residual_norm)
    )
    return SolveInfo(status, iterations, residual)


def of_no_item(u: Tensor, info: Info) -> tuple[Tensor, Info]:
    """Result and report of an empty batch, from those of a batch with an item."""
    return u[:0], replace(info, **{name: value[:0] for name, value in vars(info).items()})
