"""Recorder: runs a residual function so that the uses of every parameter can be written down per sample."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules import module as module_hooks
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from neuralop_kit.optim.gram.kernels import ConvKernel, Kernel, LinearKernel, Use

_CONVOLUTIONS: dict[Any, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


class UnrecordableError(Exception):
    """The residual uses parameters in a way that has no rows per sample; another engine has to do it."""


class Recorder(TorchFunctionMode):
    """Replaces products with parameters by recorded ones while a residual function runs.

    Linear and convolution layers become :class:`Kernel`; the smallest module around another use of a parameter
    (spectral convolutions, norms, multigrid) is run once more with a copy of its parameters per sample, whose gradients
    are then per sample. A parameter for which neither works is listed in :attr:`foreign`.

    Args:
        parameters: those of the optimizer.
        memory_budget: bytes that the gradients per sample of a module may take where some of its parameters belong to
            layers inside, which would have needed factors only.
    """

    def __init__(self, parameters: Sequence[Tensor], *, memory_budget: int = 2**30) -> None:
        super().__init__()
        self.memory_budget = memory_budget
        self.indices = {id(parameter): i for i, parameter in enumerate(parameters)}
        self.anchor = torch.zeros((), requires_grad=True)
        self.is_recording = False
        self.uses: list[Use] = []
        self.copies: list[tuple[int, Tensor]] = []
        self.foreign: set[int] = set()
        self._is_paused = False

    def index(self, tensor: Tensor | None) -> int | None:
        """Which parameter a tensor is; None for other tensors."""
        return self.indices.get(id(tensor))

    def run(self, function: Callable[[], Any], *, copies: bool = True) -> Any:
        """The value of ``function``, recorded; without ``copies`` layers alone, and all else is foreign.

        A hook on all modules makes each of their calls slower, which is seen where networks are small.
        """
        if not copies:
            with self:
                return function()
        hook = register_module_forward_hook(self._copy_per_sample, with_kwargs=True)
        try:
            with self:
                return function()
        finally:
            hook.remove()
            # torch 2.13 forgets to remove this one, and its table of global hooks would grow with every step.
            module_hooks._global_forward_hooks_with_kwargs.pop(hook.id, None)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Catch products with parameters; note any other use that autograd would follow."""
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        kernel_and_input = self._kernel(func, args, kwargs)
        if kernel_and_input is not None:
            kernel, x = kernel_and_input
            return kernel(x)
        out = func(*args, **kwargs)
        used = {self.indices[key] for key in map(id, _tensors((*args, *kwargs.values()))) if key in self.indices}
        if used and any(t.requires_grad for t in _tensors(out)):
            self.foreign |= used
        return out

    def _kernel(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Kernel, Tensor] | None:
        """The kernel of a linear or convolution call whose weight or bias is a parameter."""
        if func is not F.linear and func not in _CONVOLUTIONS:
            return None
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        call = {**dict(zip(names, args, strict=False)), **kwargs}
        x, weight, bias = call["input"], call["weight"], call.get("bias")
        if self.index(weight) is None and self.index(bias) is None:
            return None
        if torch.is_autocast_enabled(x.device.type):
            # Factors of several precisions: what a plain run rounds, and where, is not known here.
            raise UnrecordableError("runs under autocast")
        if x.is_complex():
            # Factors are real; a copy per sample may be complex.
            return None
        if func is F.linear:
            return (LinearKernel(self, weight, bias), x) if x.ndim >= 2 else None
        dims = _CONVOLUTIONS[func]
        if x.ndim != 2 + dims or call.get("groups", 1) != 1:
            return None
        stride, dilation = (_per_axis(call.get(name, 1), dims) for name in ("stride", "dilation"))
        sides = _padding(call.get("padding", 0), weight.shape[2:], dilation)
        return ConvKernel(self, weight, bias, stride, dilation), F.pad(x, sides) if any(sides) else x

    def _copy_per_sample(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """After a module that owns foreign parameters: its output again, with a copy of them per sample."""
        if self._is_paused or not self.foreign:
            return None
        own = {name: p for name, p in module.named_parameters() if self.index(p) is not None}
        if not any(self.index(p) in self.foreign for p in own.values()) or not self._is_worth_it(own, output):
            return None
        batches = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in kwargs.items() if name not in batches}
        if not _is_batched((*args, *batches.values()), output) or any(_tensors(others)):
            return None
        copies = {name: p.detach().expand(len(output), *p.shape).requires_grad_(True) for name, p in own.items()}

        def one(parameters: dict[str, Tensor], sample: tuple[Tensor, ...], named: dict[str, Tensor]) -> Tensor:
            inputs = tuple(x.unsqueeze(0) for x in sample)
            options = {**others, **{name: x.unsqueeze(0) for name, x in named.items()}}
            return functional_call(module, parameters, inputs, options).squeeze(0)

        self._is_paused = True
        try:
            with warnings.catch_warnings():
                # Without a rule for all samples at once, torch takes them one by one: still one pass for them all.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                again = vmap(one)(copies, args, batches)
        except (RuntimeError, TypeError, ValueError):
            # It has no meaning sample by sample, or no rule for it; its parameters stay foreign.
            return None
        finally:
            self._is_paused = False
        if not isinstance(again, Tensor) or again.shape != output.shape:
            return None
        for name, copy in copies.items():
            index = self.indices[id(own[name])]
            self.copies.append((index, copy))
            self.foreign.discard(index)
        return again

    def _is_worth_it(self, own: Mapping[str, Tensor], output: Any) -> bool:
        """Whether gradients per sample of these parameters cost less than backward passes for the foreign ones alone.

        A product of two rows of theirs touches every parameter once, a backward pass once per point of a sample. What
        was recorded of layers inside is forgotten with the first output.
        """
        foreign = [p for p in own.values() if self.index(p) in self.foreign]
        if len(foreign) == len(own) or not isinstance(output, Tensor) or not output.ndim:
            return True
        num_passes = min(len(output), sum(p.numel() for p in foreign))
        size = len(output) * sum(p.numel() * p.element_size() for p in own.values())
        return num_passes * output.shape[2:].numel() > len(output) and size <= self.memory_budget

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Use]]:
        """Backward passes inside are written down in the list."""
        self.uses, self.is_recording = [], True
        try:
            yield self.uses
        finally:
            self.is_recording = False


def _is_batched(args: Any, output: Any) -> bool:
    """Whether all inputs and the output are tensors with one common first axis."""
    tensors = [*args, output]
    return bool(args) and all(isinstance(t, Tensor) and t.ndim and len(t) == len(tensors[0]) for t in tensors)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _per_axis(value: Any, dims: int) -> tuple[int, ...]:
    """One number for all axes, or one each."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Sides for ``torch.nn.functional.pad``, last axis first."""
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(n, n) for n in _per_axis(0 if padding == "valid" else padding, len(kernel))]
    return [n for pair in reversed(pairs) for n in pair]
