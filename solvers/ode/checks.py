"""What tensors bring along: slopes that do not fit their state, transforms that hide values, derivatives."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.transforms import hides_samples


def check_slope(slope: Tensor, y: Tensor, name: str = "field(t, y)") -> None:
    """A real tensor of the state's shape, and not of more digits: the state would take them over in the first step."""
    shape = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
    if shape != tuple(y.shape):
        raise ShapeError(
            f"expected {name} to have the shape of y, {tuple(y.shape)}, got {shape}; "
            "return one derivative per component, and mind how t broadcasts"
        )
    if not slope.is_floating_point() or torch.promote_types(slope.dtype, y.dtype) != y.dtype:
        raise ArgumentError(
            f"expected {name} in the dtype of y, {y.dtype}, or a shorter one, got {slope.dtype}; "
            "convert what it computes with, or the state"
        )
    refuse_vmap(slope)


def check_tensor(x: object, name: str) -> None:
    """Lists of numbers have neither dtype nor device."""
    if not isinstance(x, Tensor):
        raise ArgumentError(f"expected {name} to be a tensor, got {type(x).__name__}; give torch.tensor(...)")


def refuse_vmap(x: Tensor) -> None:
    """Step sizes follow from values, which a tensor has not got whose samples are hidden; other transforms may be."""
    if hides_samples(x):
        raise ArgumentError(
            "expected tensors whose values can be read, got samples of torch.func.vmap; the solver takes a batch "
            "itself, each sample with its own steps: make it the first axis of y0, and map the field where parameters "
            "differ"
        )


def refuse_transforms(name: str) -> None:
    """Neither a backward pass of our own nor a compiled step can be looked into."""
    if torch._C._are_functorch_transforms_active():
        raise ArgumentError(
            f"expected Direct() and eager steps under transforms of torch.func, got {name}; leave it out there"
        )


def is_differentiated(x: Tensor) -> bool:
    """Whether anybody asks for derivatives by it, in reverse or in forward mode."""
    return x.requires_grad or forward_ad.unpack_dual(x).tangent is not None
