"""What all problems in time share: from one state to the next, and on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.randomness import Generators


@dataclass(frozen=True)
class Flow:
    """How states of one kind (shape, dtype, device) move; the inner form is whatever the engine computes with.

    Args:
        enter: a field to its inner form.
        advance: the inner form after one ``dt``.
        leave: the inner form to a field.
    """

    enter: Callable[[Tensor], Tensor]
    advance: Callable[[Tensor], Tensor]
    leave: Callable[[Tensor], Tensor]


class TimeStepper(ABC):
    """Advances fields in time by fixed intervals; an engine says how, in :meth:`flow`.

    Args:
        domain: where the fields live.
        dt: time between two states of a rollout, positive, in the time unit of the equation.

    Raises:
        ArgumentError: ``dt`` is not positive.
        DomainError: the domain does not go with the equation.

    Shapes: state ``(batch, num_channels, *space)``, trajectory ``(batch, time, num_channels, *space)``.
    """

    num_channels = 1
    allowed_dims: tuple[int, ...] = (1, 2, 3)

    def __init__(self, domain: Domain, *, dt: float) -> None:
        if not (math.isfinite(dt) and dt > 0):
            raise ArgumentError(f"expected dt > 0, got {dt}; correct it")
        boundaries = {axis.boundary for axis in domain.axes}
        if domain.num_dims not in self.allowed_dims or not boundaries <= self.allowed_boundaries:
            allowed = " or ".join(str(d) for d in self.allowed_dims)
            raise DomainError(
                f"expected a domain of {allowed} dimensions, {' or '.join(sorted(self.allowed_boundaries))}, for "
                f"{type(self).__name__}, got {domain}; use Domain.periodic or Domain.box"
            )
        self.domain = domain
        self.dt = float(dt)

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Which boundaries an axis of the domain may have."""
        return frozenset({"periodic"})

    @abstractmethod
    def flow(self, u: Tensor) -> Flow:
        """How states like ``u`` move."""

    def step(self, u: Tensor) -> Tensor:
        """The state after ``dt``."""
        return self.rollout(u, num_steps=1)[:, 1]

    def rollout(self, u: Tensor, num_steps: int, *, save_every: int = 1) -> Tensor:
        """The trajectory from ``u`` on, the initial state included.

        Args:
            u: state, ``(batch, num_channels, *space)``.
            num_steps: steps of ``dt``, at least 1, a multiple of ``save_every``.
            save_every: keep every so many-th state only.

        Returns:
            ``(batch, 1 + num_steps / save_every, num_channels, *space)``. A state that blows up becomes NaN in its own
            item and stays NaN; its neighbours are unharmed.

        Raises:
            ShapeError: ``u`` has the wrong rank or number of channels.
            ArgumentError: the numbers of steps do not fit, or ``u`` is in half precision, in which no state can be
                advanced.
        """
        self.check(u)
        if u.dtype in (torch.float16, torch.bfloat16):
            raise ArgumentError(f"expected a state in float32 or float64, got {u.dtype}; advance u.float()")
        if num_steps < 1 or save_every < 1 or num_steps % save_every:
            raise ArgumentError(
                f"expected num_steps to be a positive multiple of save_every, got {num_steps} and {save_every}; "
                f"take {max(1, num_steps // max(save_every, 1)) * max(save_every, 1)}"
            )
        if not len(u):
            # Fourier transforms refuse empty batches, which the last process of several may well hold.
            return u[:, None].repeat_interleave(1 + num_steps // save_every, dim=1)
        flow = self.flow(u)
        states, inner = [u], flow.enter(u)
        for _ in range(num_steps // save_every):
            for _ in range(save_every):
                inner = flow.advance(inner)
            states.append(flow.leave(inner))
        return torch.stack(states, dim=1)

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Random smooth states, the same functions at any resolution: ``(batch, num_channels, *shape)``."""
        field, channels = self.random_field(), self.num_channels
        # The channels of a sample are drawn together: one after the other, the second would be another function on
        # every grid, because the first takes more numbers on a finer one.
        if generator is None or isinstance(generator, torch.Generator):
            fields = field.sample(batch * channels, shape, generator=generator, dtype=dtype, device=device)
        else:
            parts = [field.sample(channels, shape, generator=g, dtype=dtype, device=device) for g in generator]
            fields = torch.cat(parts)
        return self.state_of(fields.unflatten(0, (batch, channels)).squeeze(2))

    def state_of(self, fields: Tensor) -> Tensor:
        """State made of Gaussian fields ``(batch, num_channels, *space)``; the fields themselves unless overridden."""
        return fields

    def random_field(self) -> GaussianRandomField:
        """Distribution of each channel of :meth:`initial_condition`: variance 1, a few waves per shortest length."""
        length, dims = min(self.domain.lengths), self.domain.num_dims
        field = GaussianRandomField(self.domain, alpha=2 + dims / 2, tau=10 / length, sigma=1.0)
        unit = field.average_variance((64,) * dims) ** -0.5
        return GaussianRandomField(self.domain, alpha=2 + dims / 2, tau=10 / length, sigma=unit)

    def check(self, u: Tensor) -> None:
        """Raise a :class:`ShapeError` unless ``u`` is a state."""
        dims = self.domain.num_dims
        if u.ndim != 2 + dims or u.shape[1] != self.num_channels:
            raise ShapeError(
                f"expected a state of shape (batch, {self.num_channels}, *space) with {dims} space axes, "
                f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
            )
