"""A second run of a field: under the conditions of the first, and without leaving traces of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.method import Field
from neuralop_kit.solvers.randomness import global_states


class Scene:
    """What evaluations of a field depend on, and what they change, beside arguments and parameters.

    Begin it before a solve and call :meth:`watched` after it. Autocast is then known, and which buffers the solve has
    changed: the running statistics of a batch norm, mostly.

    Args:
        field: what is solved; buffers are those of a module.
        y: a state.
    """

    def __init__(self, field: Field, y: Tensor) -> None:
        self.device = y.device
        kind = y.device.type
        self.dtype, self.has_autocast = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        self.buffers: list[Tensor] = []
        self._modules = list(field.modules()) if isinstance(field, nn.Module) else []
        self._versions = [versions(module) for module in self._modules]
        self._randomness = global_states(y.device)

    def watched(self) -> None:
        """See what the solve has changed.

        Raises:
            ArgumentError: the field draws random numbers, which a second run would not find again.
        """
        if not all(map(torch.equal, self._randomness, global_states(self.device))):
            raise ArgumentError(
                "expected a field that gives the same value again, got one that draws random numbers (dropout?); "
                "draw them once before the solve, call eval(), or use Direct() with fixed steps"
            )
        for module, before in zip(self._modules, self._versions, strict=True):
            # The means of a batch norm change behind the back of autograd; its counter does not.
            if versions(module) != before:
                self.buffers += module.buffers(recurse=False)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Evaluations inside see the autocast of the solve; buffers that they change are restored."""
        kept = [buffer.clone() for buffer in self.buffers]
        try:
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.has_autocast):
                yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self.buffers, kept, strict=True):
                    buffer.copy_(value)


def versions(module: nn.Module) -> list[int]:
    """How often each of its own buffers was changed in place."""
    return [buffer._version for buffer in module.buffers(recurse=False)]
