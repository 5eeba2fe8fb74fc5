"""NVRM: neural variability on top of any optimizer; gradients at noisy weights, steps on clean ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, StateDict

from neuralop_kit.optim.base import check_nonnegative
from neuralop_kit.optim.noise import Gaussian, Noise
from neuralop_kit.solvers.errors import ArgumentError


class NVRM(Optimizer):
    """Neural variable risk minimisation: train so that the loss stays low under small changes of every weight.

        theta_{t+1} = base step of theta_t with the gradient at theta_t + e_t,    e_t ~ noise of scale b

    which minimises ``E L(theta + e)``, to second order the loss plus ``b^2/2 tr H``. Between steps the model carries
    noisy weights; :meth:`eval` gives it the clean ones, to the last bit, :meth:`train` the same noise again, and
    ``with optimizer.clean():`` both. Evaluate and save the model clean.

    Args:
        base: the optimizer that moves the clean weights; its groups are shared, so schedulers work on either.
        b: scale of the noise, >= 0; with 0 nothing is kept and every bit is that of the base.
        noise: distribution; see :mod:`neuralop_kit.optim.noise`.
        generator: gives the seed; by default torch's global generator. Noise depends on the seed, the number of the
            step and the order of the parameters only.

    Raises:
        ArgumentError: b is negative.

    Memory: one copy of the weights. A checkpoint holds the clean weights: loading it restores them and the noise.
    Good values: b 0.01 to 0.05 for weights of order 1; larger against wrong labels.
    Source: Xie et al. (2021), "Artificial neural variability for deep learning", algorithm 1. There the noise is added
    and subtracted in place and drifts; here it is never part of the clean weights.

    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = NVRM(torch.optim.SGD([weight], lr=0.1), b=0.01)
    >>> weight.square().sum().backward()
    >>> _ = optimizer.step()
    >>> with optimizer.clean():
    ...     weight.data
    tensor([0.8000, 0.8000, 0.8000])
    """

    def __init__(
        self, base: Optimizer, b: float = 0.01, *, noise: Noise | None = None, generator: torch.Generator | None = None
    ) -> None:
        if not isinstance(base, Optimizer):
            raise ArgumentError(f"expected an optimizer, got {type(base).__name__}; build it first: NVRM(SGD(...))")
        check_nonnegative("b", b)
        self.base, self.b, self.noise = base, float(b), noise or Gaussian()
        # The very same group objects: what a scheduler writes here, the base reads.
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
        self.step_kind = getattr(base, "step_kind", "gradient")
        self._seed = int(torch.randint(2**62, (), generator=generator).item())
        self._count = 0
        self._training = True

    # torch traces a step of its optimizers without keeping what it sets on them: the count would stand still.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the base on the clean weights, then fresh noise."""
        if self.b == 0.0:
            return self.base.step(closure)
        loss = None
        if closure is not None:
            if self.step_kind != "gradient":
                raise ArgumentError(
                    f"expected a base that steps from p.grad, got {type(self.base).__name__}; wrap SGD, Adam or Lion"
                )
            with torch.enable_grad():
                loss = closure()
        self._remove_noise()
        self.base.step()
        self._count += 1
        if self._training:
            self._add_noise()
        return loss

    def train(self) -> None:
        """Give the model its noisy weights."""
        self._training = True
        self._add_noise()

    def eval(self) -> None:
        """Give the model its clean weights, exactly."""
        self._training = False
        self._remove_noise()

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Clean weights inside, what was there before after."""
        was_training = self._training
        self.eval()
        try:
            yield
        finally:
            if was_training:
                self.train()

    @torch.no_grad()
    def _add_noise(self) -> None:
        # Before the first step there is no noise, as in the source.
        if self.b == 0.0 or self._count == 0 or any("clean" in state for state in self.state.values()):
            return
        generators: dict[torch.device, torch.Generator] = {}
        for parameter in self._parameters():
            if not parameter.requires_grad:
                continue
            if parameter.device not in generators:
                seed = (self._seed + self._count) % 2**63
                generators[parameter.device] = torch.Generator(parameter.device).manual_seed(seed)
            self.state[parameter]["clean"] = parameter.detach().clone()
            parameter.add_(self.noise.sample_like(parameter, generators[parameter.device]), alpha=self.b)

    @torch.no_grad()
    def _remove_noise(self) -> None:
        for parameter in self._parameters():
            if "clean" in self.state[parameter]:
                parameter.copy_(self.state[parameter].pop("clean"))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base, and so to both; it gets its noise with the next step."""
        if any(param_group is group for group in self.base.param_groups):
            super().add_param_group(param_group)
        else:
            self.base.add_param_group(param_group)

    def state_dict(self) -> StateDict:
        """The state of the base, the clean weights while the model has noisy ones, and where the noise comes from."""
        clean = {i: self.state[p]["clean"] for i, p in enumerate(self._parameters()) if "clean" in self.state[p]}
        own = {"b": self.b, "seed": self._seed, "count": self._count, "training": self._training, "clean": clean}
        return {**self.base.state_dict(), "nvrm": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what :meth:`state_dict` gave; the model gets the saved clean weights, and the saved noise on top."""
        if "nvrm" not in state_dict:
            raise ArgumentError(
                "expected a state dict of NVRM, got one without 'nvrm'; load that of a base into `base`"
            )
        own = state_dict["nvrm"]
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "nvrm"})
        self.param_groups = self.base.param_groups
        self.state.clear()
        parameters = self._parameters()
        for index, clean in own["clean"].items():
            parameters[index].copy_(clean)
        self.b, self._seed, self._count, self._training = own["b"], own["seed"], own["count"], own["training"]
        if own["clean"]:
            self._add_noise()

    def __getstate__(self) -> dict[str, Any]:
        names = ("base", "b", "noise", "step_kind", "_seed", "_count", "_training")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in names}}
