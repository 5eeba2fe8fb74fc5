"""Measures: what one repetition does. Each prepares a function of no arguments, so that only the work is timed."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Subject = Callable[..., Any]
Work = Callable[[], Any]


def tensors_in(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a result, in order; solver reports and other companions are left out."""
    if isinstance(result, Tensor):
        return (result,)
    if isinstance(result, list | tuple):
        return tuple(item for item in result if isinstance(item, Tensor))
    return ()


def direction_like(tensor: Tensor) -> Tensor:
    """Cotangent of an output: fixed random numbers, the same in every dtype up to rounding; one for a scalar."""
    if tensor.ndim == 0:
        return torch.ones_like(tensor)
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return drawn.to(tensor)


class Measure(ABC):
    """What one repetition does, and which tensors of it are compared for accuracy."""

    @property
    def label(self) -> str:
        """Name in the table."""
        return type(self).__name__

    @abstractmethod
    def prepare(self, subject: Subject, inputs: tuple[Any, ...]) -> Work:
        """A function that does one repetition; everything that is not the work happens before."""

    def outputs(self, subject: Subject, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """What accuracy looks at: by default the tensors that one repetition returns."""
        return tensors_in(self.prepare(subject, inputs)())

    def held_bytes(self, subject: Subject) -> int:
        """What a subject keeps from one repetition to the next on top of its parameters; counted as memory."""
        return 0


@dataclass(frozen=True)
class Call(Measure):
    """``subject(*inputs)`` as it is: solvers, losses, readers, optimizer steps."""

    label: str = "call"

    def prepare(self, subject: Subject, inputs: tuple[Any, ...]) -> Work:
        """The call."""
        return lambda: subject(*inputs)


@dataclass(frozen=True)
class Forward(Measure):
    """Inference: the call without gradients."""

    label: str = "forward"

    def prepare(self, subject: Subject, inputs: tuple[Any, ...]) -> Work:
        """The call under ``no_grad``."""

        def work() -> Any:
            with torch.no_grad():
                return subject(*inputs)

        return work


@dataclass(frozen=True)
class ForwardBackward(Measure):
    """The call and the gradients of every parameter and every floating-point input.

    Accuracy covers the outputs and the input gradients; the layout of parameters differs between peers.
    """

    label: str = "forward + backward"

    def prepare(self, subject: Subject, inputs: tuple[Any, ...]) -> Work:
        """The call and ``torch.autograd.grad``, which leaves no ``.grad`` behind to be zeroed."""
        inputs = tuple(with_gradient(item) for item in inputs)
        leaves = [item for item in inputs if isinstance(item, Tensor) and item.requires_grad]
        num_inputs = len(leaves)
        leaves += trainable(subject)
        with torch.no_grad():
            directions = [direction_like(output) for output in tensors_in(subject(*inputs))]

        def work() -> tuple[Tensor, ...]:
            outputs = tensors_in(subject(*inputs))
            gradients = torch.autograd.grad(outputs, leaves, directions, allow_unused=True)
            used = tuple(gradient for gradient in gradients[:num_inputs] if gradient is not None)
            return tuple(output.detach() for output in outputs) + used

        return work


@dataclass(frozen=True)
class TrainingStep(Measure):
    """Forward, loss, backward and one optimizer step on a fixed random target.

    Accuracy compares the loss after ``num_checked_steps`` steps. What is learned in how many epochs belongs in a Study.
    """

    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss
    num_checked_steps: int = 3
    label: str = "training step"

    def prepare(self, subject: Subject, inputs: tuple[Any, ...]) -> Work:
        """One step; the parameters move on from call to call."""
        if not isinstance(subject, nn.Module):
            raise TypeError(f"expected an nn.Module to train, got {type(subject).__name__}; use Call()")
        optimizer = self.optimizer(subject.parameters())
        with torch.no_grad():
            target = direction_like(tensors_in(subject(*inputs))[0])

        def work() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            value = self.loss(tensors_in(subject(*inputs))[0], target)
            value.backward()
            optimizer.step()
            return value.detach()

        return work

    def outputs(self, subject: Subject, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """The last loss of a few steps of a copy."""
        work = self.prepare(copy.deepcopy(subject), inputs)
        losses = [work() for _ in range(self.num_checked_steps)]
        return (losses[-1],)


def with_gradient(item: Any) -> Any:
    """A leaf that asks for its gradient, where that makes sense."""
    if isinstance(item, Tensor) and (item.is_floating_point() or item.is_complex()):
        return item.detach().requires_grad_()
    return item


def trainable(subject: Subject) -> list[Tensor]:
    """Parameters that ask for a gradient; none if the subject is a plain function."""
    if not isinstance(subject, nn.Module):
        return []
    return [parameter for parameter in subject.parameters() if parameter.requires_grad]
