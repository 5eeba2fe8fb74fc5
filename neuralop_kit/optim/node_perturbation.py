"""Descent from perturbed outputs of layers: fewer numbers to try than there are weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.overrides import TorchFunctionMode

from neuralop_kit.optim.base import as_written
from neuralop_kit.optim.noise import Noise, Rademacher
from neuralop_kit.optim.spsa import check_radius
from neuralop_kit.optim.zeroth_order import LossFunction, ZerothOrder
from neuralop_kit.solvers.errors import ArgumentError

_LAYERS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
}  # fmt: skip


class NodePerturbation(ZerothOrder):
    """Noise on what linear and convolution layers put out, instead of on their weights.

        a_l <- a_l + c z_l  in all layers at once,    s = (L(c z) - L(-c z)) / (2 c)
        dL/da_l ~ s z_l,    dL/dW_l ~ (s z_l) x_l^T,    dL/db_l ~ s z_l

    with the inputs ``x_l`` of the layers in a pass without noise. Unbiased up to ``O(c^2)``, with ``N - 1`` times the
    squared gradient as variance, where N counts all outputs of the batch; for :class:`SPSA` N counts weights. It pays
    where outputs are fewer than weights: wide layers, single samples. A function that returns the losses of the
    samples, ``(batch,)``, instead of their mean makes N the outputs of one sample.

    Parameters that are used in any other way (of norms, spectral convolutions, attention) are perturbed themselves, as
    in :class:`SPSA`, in the same passes. Layers are known by the calls of ``torch.nn.functional.linear``,
    ``conv1d`` to ``conv3d`` and the transposed ones, which must come in the same order in each pass; a compiled network
    runs as it was written.

    Args:
        params, lr, num_samples, weight_decay, generator: see :class:`ZerothOrder`.
        radius: c > 0; small against the scale on which activations bend, large against the rounding of the loss.
        noise: by default random signs.

    Raises:
        ArgumentError: the loss differentiates the network inside (its weights then act on more than layer outputs), or
            differs between passes; losses ``(batch,)`` where a layer puts out another number of rows; several
            processes.

    Cost: ``2 num_samples + 1`` forward passes. Memory: the inputs of the layers, as a backward pass keeps them.
    With losses ``(batch,)`` no sample may feel the others, as it does through a batch norm in training.
    Source: Williams (1992), Le Cun et al. (1988) "GEMINI"; variances: Werfel, Xie and Seung (2005).

    >>> layer, x = torch.nn.Linear(8, 1).double(), torch.eye(8).double()
    >>> optimizer = NodePerturbation(layer.parameters(), lr=0.5)
    >>> losses = [optimizer.step(lambda: (layer(x) - 1).square().squeeze(1)) for _ in range(60)]
    >>> bool(losses[-1] < 0.05 * losses[0])
    True
    """

    needs_whole = "finds layers by the parameters that they are called with"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        radius: float = 1e-3,
        num_samples: int = 1,
        noise: Noise | None = None,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.radius = check_radius(radius)
        self._calls: list[_Call] = []
        self._others: set[int] = set()
        super().__init__(
            params, lr, num_samples=num_samples, noise=noise or Rademacher(), exact=True, weight_decay=weight_decay,
            generator=generator,
        )  # fmt: skip

    def probe(self, function: LossFunction, seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        """A pass that looks at the layers, then central differences."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ArgumentError(
                "expected a single process for NodePerturbation, got several; use SPSA, whose step is the same on "
                "every rank"
            )
        function = as_written(function)
        watch = _Watch({id(p) for p in self._parameters()})
        with watch:
            losses = _losses(function())
        self._others = watch.others
        self._calls = [call for call in watch.calls if call.owned - watch.others]
        for call in self._calls:
            if call.inputs[0]._version != call.version:
                raise ArgumentError(
                    "expected inputs of layers that stay as they are, got one that was changed in place afterwards; "
                    "write y = x + ... instead of x += ..."
                )
            if losses.ndim and call.shape[0] != len(losses):
                raise ArgumentError(
                    f"expected layers with one row of outputs for each of {len(losses)} losses, got outputs of shape "
                    f"{tuple(call.shape)}; return the mean loss instead"
                )
        slopes = []
        for seed in seeds:
            up, down = (self._loss_beside(function, seed, size) for size in (self.radius, -self.radius))
            slopes.append((up - down) / (2 * self.radius * len(seeds) * max(losses.numel(), 1)))
        return losses.mean(), slopes

    def directions(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of the parameters that are perturbed themselves."""
        for parameter, direction in super().directions(seed):
            if id(parameter) in self._others:
                yield parameter, direction

    def parts(self, seeds: list[int], coefficients: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """From the estimate of dL/da of each call and the inputs of the layer."""
        yield from super().parts(seeds, [coefficient.sum() for coefficient in coefficients])
        parameters = {id(p): p for p in self._parameters()}
        noises = [_Draws(self.noise, seed) for seed in seeds]
        for call in self._calls:
            slope = torch.zeros((), dtype=call.like.dtype, device=call.like.device)
            for noise, coefficient in zip(noises, coefficients, strict=True):
                factor = coefficient.to(call.like.dtype).view(-1, *[1] * (len(call.shape) - 1))
                slope = slope + factor * noise(call.like)
            for key, gradient in call.pull_back(slope, call.owned - self._others):
                yield parameters[key], gradient
        self._calls = []

    def _loss_beside(self, function: LossFunction, seed: int, size: float) -> Tensor:
        """The losses with noise of a seed on everything; weights are put back."""
        kept = [(p, p.clone()) for p in self._parameters() if id(p) in self._others]
        for parameter, direction in self.directions(seed):
            parameter.add_(direction, alpha=size)
        watch = _Watch({id(p) for p in self._parameters()}, self._others, _Draws(self.noise, seed), size)
        try:
            with watch:
                losses = _losses(function())
        finally:
            for parameter, value in kept:
                parameter.copy_(value)
        if [call.shape for call in watch.calls if call.owned - self._others] != [call.shape for call in self._calls]:
            raise ArgumentError(
                "expected the same layers in the same order in every pass, got others; "
                "fix what is random in the loss, or use SPSA"
            )
        return losses


@dataclass(frozen=True)
class _Call:
    """A layer that was called: with what, which parameters are in it, and a stand-in for its output."""

    function: Any
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    owned: frozenset[int]
    like: Tensor
    version: int

    @property
    def shape(self) -> torch.Size:
        return self.like.shape

    def pull_back(self, slope: Tensor, wanted: frozenset[int]) -> list[tuple[int, Tensor]]:
        """The gradients of its parameters from that of its output."""
        leaves = {id(t): t.detach().requires_grad_(True) for t in self.inputs if id(t) in wanted}
        with torch.enable_grad():
            out = self.function(*(leaves.get(id(t), t) for t in self.inputs), **self.options)
            gradients = torch.autograd.grad(out, list(leaves.values()), slope.expand_as(out))
        return list(zip(leaves, gradients, strict=True))


class _Draws:
    """Noise for one output after the other, the same again from the same seed."""

    def __init__(self, noise: Noise, seed: int) -> None:
        # Another stream than that of the weights, also where a generator takes the lower 32 bits alone, as the CPU's.
        self.noise, self.seed = noise, seed ^ 2**31
        self.generators: dict[torch.device, torch.Generator] = {}

    def __call__(self, like: Tensor) -> Tensor:
        if like.device not in self.generators:
            self.generators[like.device] = torch.Generator(like.device).manual_seed(self.seed)
        return self.noise.sample_like(like, self.generators[like.device])


class _Watch(TorchFunctionMode):
    """A pass in which calls of layers are written down, and noise is added to their outputs.

    Args:
        owned: identities of the parameters.
        others: of those that get no gradient from outputs; found in a pass without noise.
        draws, size: the noise; None for a pass without.
    """

    def __init__(
        self, owned: set[int], others: set[int] | None = None, draws: _Draws | None = None, size: float = 0.0
    ) -> None:
        super().__init__()
        self.owned, self.others, self.draws, self.size = owned, set(others or ()), draws, size
        self.calls: list[_Call] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        used = frozenset(self.owned & set(_identities((*args, *kwargs.values()))))
        if not used or not isinstance(out, Tensor) or not (out.is_floating_point() or out.is_complex()):
            if not isinstance(out, Tensor) and any(True for _ in _identities(out)):
                self.others |= used
            return out
        inputs, options = _named(args, kwargs)
        if func not in _LAYERS or id(inputs[0]) in used:
            self.others |= used
            return out
        if torch.is_grad_enabled():
            raise ArgumentError(
                "expected a loss that is computed without gradients, got a layer under enable_grad; "
                "for a loss with derivatives of the network inside use SPSA"
            )
        # Neither its memory nor its layout: noise is to depend on the shape alone.
        like = out.new_empty(()).expand(out.shape)
        self.calls.append(_Call(func, inputs, options, used, like, inputs[0]._version))
        if self.draws is None or not used - self.others:
            return out
        return torch.add(out, self.draws(like), alpha=self.size)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Input, weight and bias in front, whichever way they were given."""
    if len(args) < 3:
        names = ("input", "weight", "bias")[len(args) :]
        args = (*args, *(kwargs.get(name) for name in names))
        kwargs = {name: value for name, value in kwargs.items() if name not in names}
    return args, kwargs


def _identities(value: Any) -> Iterator[int]:
    """Of the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield id(value)
    elif isinstance(value, dict):
        yield from _identities(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _identities(item)


def _losses(value: Any) -> Tensor:
    """One loss, or those of the samples; float64."""
    losses = torch.as_tensor(value).detach().double()
    if losses.ndim > 1:
        raise ArgumentError(
            f"expected a loss, or one per sample, got shape {tuple(losses.shape)}; reduce it over the other axes"
        )
    return losses
