"""A trial step: the increment of a method, and how large its error and the stiffness of the field are there."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.method import Field, Method

Tolerance = float | Tensor
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Numbers in a vector of a CPU, about, and in a state that takes less time to compute with than a call takes.
VECTOR, SMALL = 8, 2**14


class Trial(NamedTuple):
    """A trial step: see :class:`Increment` for ``y``, ``slope``, ``stages`` and :class:`Statistics` for the others."""

    y: Tensor
    slope: Tensor
    error: Tensor
    stiffness: Tensor
    stages: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Stepper:
    """Takes trial steps of one method in one field; pure tensors in, pure tensors out.

    Args:
        method, field, control: what steps, in what, and which samples share a step size.
        rtol, atol: tolerances, numbers or tensors that broadcast against the state.
    """

    method: Method
    field: Field
    control: StepControl
    rtol: Tolerance
    atol: Tolerance

    @functools.cached_property
    def kinds(self) -> tuple[object, ...]:
        """What tells compiled steps apart."""
        return type(self.method), type(self.control), kind_of(self.field)

    def take(self, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Trial:
        """A trial step from ``y`` at ``t``; ``t`` and ``h`` have shape ``(rows,)``."""
        step = compiled(take_step, self.kinds, self.control, y) if self.method.compile else take_step
        return step(self, t, y, slope, h)


def take_step(stepper: Stepper, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Trial:
    """The one graph that is compiled."""
    control = stepper.control
    t, h = control.spread(t, y.ndim), control.spread(h, y.ndim)
    new = stepper.method.step(stepper.field, t, y, slope, h)
    # At equal states both norms are zero, and so must be the estimate and its gradient.
    stiffness = control.norm(new.slope_change) / control.norm(new.state_change).clamp_min(torch.finfo(y.dtype).tiny)
    if new.defect is None:
        # Zero, and NaN where the step is.
        error = control.rms(new.slope * 0.0)
    else:
        size = torch.maximum(y.abs(), new.y.abs())
        error = control.rms(new.defect / (stepper.atol + stepper.rtol * size))
    return Trial(new.y, new.slope, error, stiffness, new.stages)


def compiled(
    function: Callable[Arguments, Result], kinds: tuple[object, ...], control: StepControl, y: Tensor
) -> Callable[Arguments, Result]:
    """The compiled function for states like ``y``; one per kind of what it runs, so that graphs are found again."""
    is_narrow = y.numel() < VECTOR * control.num_rows(len(y))
    is_small = y.numel() <= SMALL
    return _compiled(function, *kinds, on_cpu=y.device.type == "cpu", is_narrow=is_narrow, is_small=is_small)


@functools.cache
def _compiled(
    function: Callable[Arguments, Result], *kinds: object, on_cpu: bool, is_narrow: bool, is_small: bool
) -> Callable[Arguments, Result]:
    options: dict[str, str | int | bool | Callable[..., object]] = {}
    if on_cpu:
        # The calls of kernels are compiled as well: in Python they would take a third of a small step. On a GPU they
        # wait for the device anyway.
        options["cpp_wrapper"] = True
    if on_cpu and is_narrow:
        # Loops over a row would fill a part of a vector, and take longer than numbers one by one.
        options["cpp.simdlen"] = 1
    if on_cpu and is_small:
        # Imports the compiler, a second that solvers without one are spared; other torches may lack this part.
        with contextlib.suppress(ImportError):
            from neuralop_kit.solvers.ode.keep_little import KeepLittle

            options["custom_partitioner_fn"] = KeepLittle()
    # A graph for each shape and for with and without gradients; torch's own limit of eight is one for all kinds.
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        return torch.compile(  # type: ignore[call-overload]
            function, fullgraph=True, recompile_limit=32, isolate_recompiles=True, options=options
        )
    return torch.compile(function, fullgraph=True, options=options)


def kind_of(function: Callable[..., object]) -> object:
    """The same for functions with the same code, and for modules of the same class."""
    return function.__code__ if isinstance(function, FunctionType) else type(function)
