"""What optimizers share that never run backwards: random directions, drawn again instead of stored."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT, StateDict

from neuralop_kit.optim.base import KitOptimizer, StepKind
from neuralop_kit.optim.noise import Noise
from neuralop_kit.solvers.errors import ArgumentError

LossFunction = Callable[[], Tensor]


class ZerothOrder(KitOptimizer):
    """Base of optimizers that estimate the gradient as a sum of random directions: ``g = sum_i a_i z_i``.

        theta <- theta - lr * (g + weight_decay * theta)

    A leaf gives the numbers ``a_i``. Directions are never stored: each is drawn again from its seed when it is needed
    (MeZO), so that memory is that of inference, or that and one copy of the weights where ``exact`` asks for it.
    A step with a loss that is not finite is refused: weights stay, :attr:`status` says "refused" instead of "moved".

    Args:
        params: parameters or groups.
        lr: step size, >= 0.
        num_samples: directions per step, >= 1.
        noise: law of their entries, of variance 1.
        exact: keep a copy of the weights, so that they come back to the last bit after each probe; without it they
            drift by rounding.
        weight_decay: >= 0.
        generator: gives the seed; by default torch's global generator.
    """

    step_kind: ClassVar[StepKind] = "value"
    _step_supports_amp_scaling = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        num_samples: int,
        noise: Noise,
        exact: bool,
        weight_decay: float,
        generator: torch.Generator | None,
    ) -> None:
        if num_samples < 1:
            raise ArgumentError(f"expected num_samples >= 1, got {num_samples}; more of them give less noise")
        self.num_samples, self.noise, self.exact = num_samples, noise, exact
        self.status = ""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        shared = self._shared_state()
        shared["seed"], shared["count"] = int(torch.randint(2**62, (), generator=generator).item()), 0

    @abstractmethod
    def probe(self, function: LossFunction, seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the numbers ``a_i`` of the directions with these seeds; weights are left as they were."""

    @torch.no_grad()
    def step(self, closure: LossFunction | None = None) -> Any:  # type: ignore[override]
        """One step.

        Args:
            closure: returns the loss; nothing is differentiated backwards, and it is called several times.

        Returns:
            The loss: that of the weights before the step, or the mean of those on either side.
        """
        if closure is None:
            raise ArgumentError(
                f"expected a function that returns the loss, got none; call {type(self).__name__}.step(f)"
            )
        seeds = self._next_seeds()
        loss, coefficients = self.probe(closure, seeds)
        if not all(number.isfinite().all() for number in (loss, *coefficients)):
            self.status = "refused"
            return loss
        for parameter, group in self._rows():
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        rates = {parameter: group["lr"] for parameter, group in self._rows()}
        for parameter, part in self.parts(seeds, coefficients):
            parameter.sub_(part * rates[parameter])
        self.status = "moved"
        return loss

    def load_state_dict(self, state_dict: StateDict) -> None:
        """See :class:`KitOptimizer`; what it must hold is where the draws come from."""
        if not any("seed" in state for state in state_dict["state"].values()):
            raise ArgumentError(
                f"expected a state dict of {type(self).__name__}, got one without a seed; "
                "load it into the optimizer that it was saved from"
            )
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def estimate(self, function: LossFunction) -> list[Tensor]:
        """The estimate of the gradient that the next step would use, one tensor per parameter; draws new directions."""
        seeds = self._next_seeds()
        _, coefficients = self.probe(function, seeds)
        totals = {p: torch.zeros_like(p, requires_grad=False) for p in self._parameters()}
        for parameter, part in self.parts(seeds, coefficients):
            totals[parameter].add_(part)
        return list(totals.values())

    def parts(self, seeds: list[int], coefficients: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with what is to be added up to their gradients: each direction times its number."""
        for seed, coefficient in zip(seeds, coefficients, strict=True):
            for parameter, direction in self.directions(seed):
                yield parameter, direction * coefficient.to(direction.dtype)

    def directions(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with its part of the direction of a seed."""
        generators: dict[torch.device, torch.Generator] = {}
        for parameter in self._parameters():
            device = parameter.device
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(seed)
            yield parameter, self.noise.sample_like(parameter, generators[device])

    def values_along(self, function: LossFunction, seed: int, sizes: list[float]) -> list[Tensor]:
        """The losses at ``theta + size * z``."""
        start = [p.clone() for p in self._parameters()] if self.exact else None
        values, here = [], 0.0
        try:
            for size in sizes:
                if start is not None:
                    self._restore(start)
                    here = 0.0
                self._shift(seed, size - here)
                here = size
                values.append(single_loss(function()).detach().double())
        finally:
            # Also where the function raises, as a solver may.
            if start is not None:
                self._restore(start)
            else:
                self._shift(seed, -here)
        return values

    def _shift(self, seed: int, size: float) -> None:
        for parameter, direction in self.directions(seed):
            parameter.add_(direction, alpha=size)

    def _restore(self, start: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters(), start, strict=True):
            parameter.copy_(value)

    def _rows(self) -> list[tuple[Tensor, dict[str, Any]]]:
        return [(p, group) for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _parameters(self) -> list[Tensor]:
        return [parameter for parameter, _ in self._rows()]

    def _shared_state(self) -> dict[str, Any]:
        """Where the draws come from: kept with the very first parameter, frozen or not."""
        return self.state[self.param_groups[0]["params"][0]]

    def _next_seeds(self) -> list[int]:
        """Seeds that no step has used."""
        if not self._parameters():
            raise ArgumentError("expected parameters with requires_grad, got none; unfreeze some of them")
        shared = self._shared_state()
        first = shared["seed"] + shared["count"] * self.num_samples
        shared["count"] += 1
        return [(first + i) % 2**63 for i in range(self.num_samples)]


def single_loss(value: Any) -> Tensor:
    """A loss as a tensor without axes; an :class:`ArgumentError` for several of them."""
    loss = torch.as_tensor(value)
    if loss.numel() != 1:
        raise ArgumentError(f"expected a single loss, got shape {tuple(loss.shape)}; return its mean")
    return loss.reshape(())
