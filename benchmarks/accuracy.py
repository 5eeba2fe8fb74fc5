"""Accuracy checks: relative L2 distance from something better, always evaluated in float64."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measures import Measure, Subject, tensors_in


@dataclass(frozen=True)
class Pair:
    """What was built for one measurement: both subjects, their inputs, and whether they share their weights."""

    ours: Subject
    peer: Subject | None
    inputs: tuple[Any, ...]
    same_function: bool = False


def relative_error(outputs: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> float:
    """Largest ``|output - reference| / |reference|`` over the tensors, Euclidean norms, float64; NaN is infinite."""
    if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in reference] or not outputs:
        raise ValueError(
            f"expected outputs of shapes {[tuple(tensor.shape) for tensor in reference]} like the reference, "
            f"got {[tuple(tensor.shape) for tensor in outputs]}; make both compute the same thing"
        )
    return max(distance(output, exact) for output, exact in zip(outputs, reference, strict=True))


def distance(output: Tensor, exact: Tensor) -> float:
    """Relative Euclidean distance of two tensors of one shape."""
    output, exact = widened(output.detach().cpu()), widened(exact.detach().cpu())
    scale = torch.linalg.vector_norm(exact).item() or 1.0
    value = torch.linalg.vector_norm(output - exact).item() / scale
    return float("inf") if value != value else value


def widened(item: Any) -> Any:
    """Tensors in double precision; everything else as it is."""
    if isinstance(item, Tensor) and item.is_complex():
        return item.to(torch.complex128)
    if isinstance(item, Tensor) and item.is_floating_point():
        return item.double()
    return item


def in_float64(subject: Subject) -> Subject:
    """A double precision copy of a module; a plain function is trusted to follow the dtype of its inputs."""
    return copy.deepcopy(subject).double() if isinstance(subject, nn.Module) else subject


class Accuracy(ABC):
    """How wrong a subject is in a measurement."""

    tolerance: float

    @abstractmethod
    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """The error, or ``None`` where there is nothing to compare with."""


@dataclass(frozen=True)
class AgainstFloat64(Accuracy):
    """The same function in float64, on the same inputs widened.

    With ``Comparison.match`` the reference of both sides is *our* float64 module, so the two implementations also check
    each other; without it each side is compared with its own float64 copy, which shows rounding only.
    """

    tolerance: float

    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """Distance from the float64 module."""
        better = in_float64(pair.ours if pair.same_function else subject)
        reference = measure.outputs(better, tuple(widened(item) for item in pair.inputs))
        return relative_error(measure.outputs(subject, pair.inputs), reference)


@dataclass(frozen=True)
class AgainstPeer(Accuracy):
    """The peer's answer is the reference: for direct solvers, raw file reads and other trusted peers."""

    tolerance: float

    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """Distance from the peer; nothing to say about the peer itself, or without one."""
        if pair.peer is None or subject is pair.peer:
            return None
        return relative_error(measure.outputs(subject, pair.inputs), measure.outputs(pair.peer, pair.inputs))


@dataclass(frozen=True)
class AgainstReference(Accuracy):
    """An independent function of the widened inputs gives the reference: an exact solution, a tight solve by scipy.

    A peer that returns no tensors, such as a raw read, has no error; ours must return what is compared.
    """

    reference: Callable[..., Any]
    tolerance: float

    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """Distance from the reference."""
        outputs = measure.outputs(subject, pair.inputs)
        if subject is pair.peer and not outputs:
            return None
        exact = tensors_in(self.reference(*(widened(item) for item in pair.inputs)))
        return relative_error(outputs[: len(exact)], exact)


@dataclass(frozen=True)
class ErrorFunction(Accuracy):
    """Your own error: ``function(outputs, inputs) -> float``, for instance the relative residual of a linear system."""

    function: Callable[[tuple[Tensor, ...], tuple[Any, ...]], float]
    tolerance: float

    def error(self, subject: Subject, pair: Pair, measure: Measure) -> float | None:
        """What the function says."""
        value = float(self.function(measure.outputs(subject, pair.inputs), pair.inputs))
        return float("inf") if value != value else value
