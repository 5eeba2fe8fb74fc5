"""Recorder: runs a residual function so that the uses of every parameter can be written down per sample."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules import module as module_hooks
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from neuralop_kit.optim.gram.kernels import Gradient, Kernel, Use
from neuralop_kit.optim.gram.layer_kernels import BlockKernel, ConvKernel, EmbeddingKernel, LinearKernel

_CONVOLUTIONS: dict[Any, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


class UnrecordableError(Exception):
    """The residual uses parameters in a way that has no rows per sample; another engine has to do it."""


class Recorder(TorchFunctionMode):
    """Replaces products with parameters by recorded ones while a residual function runs.

    Linear, convolution and embedding layers and products with one matrix per mode become :class:`Kernel`; the smallest
    module around another use of a parameter (norms, multigrid) is run once more with a copy of its parameters per
    sample, whose gradients are then per sample. A parameter for which neither works is listed in :attr:`foreign`, one
    whose factors or gradients do not fit in :attr:`left_out`. All calls of torch together are the :attr:`trace`.

    Args:
        parameters: those of the optimizer.
        memory_budget: bytes that all factors and gradients per sample may take.
        no_layers: parameters that are not recorded in lookups and products per mode, as they are no layers there.
        no_copies: parameters without copies.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        memory_budget: int = 2**30,
        no_layers: Set[int] = frozenset(),
        no_copies: Set[int] = frozenset(),
    ) -> None:
        super().__init__()
        self.memory_budget, self.no_layers, self.no_copies = memory_budget, no_layers, no_copies
        self.indices = {id(parameter): i for i, parameter in enumerate(parameters)}
        self.anchor = torch.zeros((), requires_grad=True)
        self.is_recording = False
        self.uses: list[Use | Gradient] = []
        self.copies: list[tuple[int, Tensor]] = []
        self.foreign: set[int] = set()
        self.left_out: set[int] = set()
        self.trace = 0
        self._seen: set[int] = set()
        self._num_bytes = self._copied_bytes = 0
        self._is_paused = False

    def index(self, tensor: Tensor | None) -> int | None:
        """Which parameter a tensor is; None for other tensors."""
        return self.indices.get(id(tensor))

    def view_index(self, tensor: Tensor) -> int | None:
        """Which parameter a tensor is, or sees all of in another shape."""
        index = self.index(tensor)
        base = tensor._base
        if index is None and base is not None and tensor.is_contiguous() and tensor.numel() == base.numel():
            index = self.index(base)
        return index

    def reserve(self, index: int, num_bytes: int, *, joined: bool = False) -> bool:
        """Whether so much more of a parameter may be held; if not, the parameter is left out.

        Args:
            index: which parameter.
            num_bytes: what is to be held.
            joined: whether it will be copied if there is more than one such part.
        """
        needed = num_bytes * (2 if joined and index in self._seen else 1)
        if index in self.left_out or self._num_bytes + needed > self.memory_budget:
            self.left_out.add(index)
            return False
        self._seen.add(index)
        self._num_bytes += needed
        return True

    def release(self) -> None:
        """Nothing of what was recorded is held any more."""
        self._seen, self._num_bytes = set(), self._copied_bytes

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
        self.trace = hash((self.trace, func))
        if func is F.batch_norm and (args[5] if len(args) > 5 else kwargs.get("training", False)):
            # Also without parameters of its own, and where it was switched to training after the rows were checked.
            raise UnrecordableError("has a batch norm in training mode, which couples its rows")
        kernel_and_input = self._kernel(func, args, kwargs)
        if kernel_and_input is not None:
            kernel, x = kernel_and_input
            return kernel(x)
        out = func(*args, **kwargs)
        used = set()
        for tensor in _tensors((*args, *kwargs.values())):
            index = self.indices.get(id(tensor))
            if index is None and tensor.requires_grad:
                index = self.indices.get(id(tensor._base))
            if index is not None:
                used.add(index)
        if used and any(t.requires_grad for t in _tensors(out)) and not self._is_view(out):
            self.foreign |= used
        return out

    def _is_view(self, out: Any) -> bool:
        """Whether this only looks at a parameter in another shape, which is not yet a use of it."""
        return isinstance(out, Tensor) and (self.index(out) is not None or self.index(out._base) is not None)

    def _kernel(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Kernel, Tensor] | None:
        """The kernel of a call of a layer whose weight or bias is a parameter."""
        if func is F.embedding:
            return self._embedding(*args, **kwargs)
        if func is torch.bmm and len(args) == 2:
            return self._blocks(*args)
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

    def _embedding(
        self,
        indices: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> tuple[Kernel, Tensor] | None:
        """The kernel of a lookup; not of one that rescales vectors or gradients, or makes sparse ones."""
        index = self.index(weight)
        if index is None or index in self.no_layers or not indices.ndim:
            return None
        if max_norm is not None or scale_grad_by_freq or sparse:
            return None
        padding = padding_idx if padding_idx is None or padding_idx >= 0 else len(weight) + padding_idx
        return EmbeddingKernel(self, weight, padding), indices

    def _blocks(self, x: Tensor, weight: Tensor) -> tuple[Kernel, Tensor] | None:
        """The kernel of a product with one matrix per mode."""
        index = self.view_index(weight)
        if index is None or index in self.no_layers or weight.is_complex() or torch.is_autocast_enabled(x.device.type):
            return None
        return BlockKernel(self, weight), x

    def _copy_per_sample(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """After a module that owns foreign parameters: its output again, with a copy of them per sample."""
        if self._is_paused or not self.foreign:
            return None
        own = {name: p for name, p in module.named_parameters() if self.index(p) is not None}
        foreign = {self.index(p) for p in own.values()} & self.foreign
        if not foreign or foreign & self.no_copies or not self._is_worth_it(own, output):
            return None
        batches = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in kwargs.items() if name not in batches}
        if not _is_batched((*args, *batches.values()), output) or any(_tensors(others)):
            return None
        size = len(output) * sum(p.numel() * p.element_size() for p in own.values())
        # Some products write the copies out, and they have gradients of the same size.
        if self._num_bytes + 2 * size > self.memory_budget:
            return None
        self._num_bytes += size
        self._copied_bytes += size
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
        return num_passes * output.shape[2:].numel() > len(output)

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Use | Gradient]]:
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
