"""What layers ask of a field before they touch it."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralop_kit.solvers.errors import ArgumentError, ShapeError


def check_field(u: Tensor, channels: int | None, num_dims: int) -> None:
    """Raise unless ``u`` is a real field ``(batch, channels, *space)`` with so many space axes; ``None``: any channels.

    Raises:
        ShapeError: the rank or the number of channels is another one.
        ArgumentError: it is no tensor, or the values are complex numbers or integers.
    """
    check_tensor(u)
    if u.ndim != 2 + num_dims or (channels is not None and u.shape[1] != channels):
        raise ShapeError(
            f"expected a field of shape (batch, {channels or 'channel'}, *space) with {num_dims} space axes, "
            f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
        )
    check_real(u)


def check_tensor(u: object) -> None:
    """Raise an :class:`ArgumentError` for arrays of numpy, lists of numbers and the like."""
    if not isinstance(u, Tensor):
        raise ArgumentError(f"expected a tensor, got {type(u).__name__}; torch.as_tensor makes one of an array")


def check_real(u: Tensor) -> None:
    """Raise an :class:`ArgumentError` if the values are complex numbers or integers."""
    if not u.is_floating_point():
        raise ArgumentError(
            f"expected a field of real floating point numbers, got {u.dtype}; give complex numbers as two channels, "
            "integers as u.float()"
        )


def check_dtype(u: Tensor, weight: Tensor) -> None:
    """Raise an :class:`ArgumentError` where field and weights differ in dtype and autocast does not see to it."""
    if u.dtype != weight.dtype and not torch.is_autocast_enabled(u.device.type):
        raise ArgumentError(
            f"expected a field of {weight.dtype}, as the weights are, got {u.dtype}; convert one of them: "
            f"u.to({weight.dtype}) or model.to({u.dtype})"
        )


def with_an_item(u: Tensor) -> Tensor:
    """The same batch and one item more, of zeros: for what refuses empty batches, as Fourier transforms do.

    Of several processes the last may well hold an empty batch; its parameters need a gradient all the same.

    >>> import torch
    >>> with_an_item(torch.zeros(0, 3, 8)).shape
    torch.Size([1, 3, 8])
    """
    return pad(u, (0, 0) * (u.ndim - 1) + (0, 1))
