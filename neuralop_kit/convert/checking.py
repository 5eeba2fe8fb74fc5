"""The promise of a conversion, checked: at the reference resolution nothing has changed."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuralop_kit.convert.tracing import skeleton
from neuralop_kit.solvers.errors import ArgumentError, NeuralopKitError


class ConversionError(NeuralopKitError, ValueError):
    """A network was not converted; :attr:`reasons` lists what stood in the way, as pairs of module path and reason."""

    def __init__(self, message: str, reasons: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.reasons = list(reasons)


def check_it_runs(net: nn.Module, example: Tensor) -> None:
    """The network itself takes a field at the reference resolution, and its parameters are its own.

    Raises:
        ArgumentError: it does not; says which of its modules failed, and how. Or it is compiled to TorchScript.
        ConversionError: hooks compute weights, which a conversion could not share.
    """
    _expect_plain_modules(net)
    plain = skeleton(net).eval()
    inside: list[str] = []

    def enter(path: str, *_: Any) -> None:
        inside.append(path)

    def leave(*_: Any) -> None:
        inside.pop()

    for path, module in plain.named_modules():
        module.register_forward_pre_hook(partial(enter, path))
        module.register_forward_hook(leave)
    try:
        with torch.no_grad():
            plain(example)
    except Exception as error:  # whatever the user's code raises, no conversion can follow
        raise ArgumentError(
            f"expected a network that takes a field of shape {tuple(example.shape)}, got {type(error).__name__} in "
            f"{f'module {inside[-1]!r}' if inside[-1] else 'the network itself'}: {error}; "
            "give the resolution on which it was trained"
        ) from error


def _expect_plain_modules(net: nn.Module) -> None:
    modules = list(net.named_modules())
    scripted = next((path for path, module in modules if isinstance(module, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise ArgumentError(
            f"expected modules with code in Python, got TorchScript in {scripted or 'the network itself'}; "
            "convert the network that it was made from"
        )
    # Where torch's own modules have a tensor that is no parameter, a hook puts it there before each call.
    hooked = [path for path, module in modules
              if module._forward_pre_hooks and type(module).__module__.startswith("torch.nn")
              and any(isinstance(value, Tensor) for value in module.__dict__.values())]  # fmt: skip
    if hooked:
        reason = "its weights are computed by a hook; remove that first, as torch.nn.utils.remove_weight_norm does"
        reasons = [(path, reason) for path in hooked]
        raise ConversionError(f"expected weights that are parameters, got hooks in {hooked}; {reason}", reasons)


def check_equality(net: nn.Module, operator: nn.Module, example: Tensor, *, is_exact: bool) -> None:
    """At the reference the operator is the network, gradients included, unless a rule says that it changed it.

    Raises:
        ConversionError: it is not.
    """
    # A copy in evaluation and without hooks: neither buffers nor hooks of the user notice.
    plain = skeleton(net).eval()
    modes = [(module, module.training) for module in operator.modules()]
    try:
        operator.eval()
        actual = _values_and_slope(operator, example)
    finally:
        for module, mode in modes:
            module.training = mode
    if not is_exact:
        return
    # The slope passes through more operations than the values.
    tolerances = [100 * torch.finfo(example.dtype).eps] * (len(actual) - 1) + [1e4 * torch.finfo(example.dtype).eps]
    for a, b, tolerance in zip(actual, _values_and_slope(plain, example), tolerances, strict=True):
        scale = b.abs().max().item() or 1.0
        error = (a - b).abs().max().item() / scale if a.shape == b.shape else math.inf
        if not error <= tolerance:
            raise ConversionError(
                f"expected the operator and its gradient to equal the network's at {tuple(example.shape[2:])}, got a "
                f"relative difference of {error:.1e}; is the network deterministic, with rules that are right?",
                [("", f"differs by {error:.1e} at the reference resolution")],
            )


def _values_and_slope(module: nn.Module, example: Tensor) -> list[Tensor]:
    """Output tensors, and the gradient of a sum of them with respect to the input."""
    with torch.enable_grad():
        leaf = example.detach().clone().requires_grad_()
        # Through a copy, since the network may write into its input.
        outputs = _tensors(module(leaf.clone()))
        total = sum(((v * torch.linspace(1, 2, max(v.numel(), 2)).to(v)[: v.numel()].reshape(v.shape)).sum()
                     for v in outputs if v.requires_grad), torch.zeros(()))  # fmt: skip
        slope = torch.autograd.grad(total.real, leaf, allow_unused=True)[0] if total.requires_grad else None
    return [*(v.detach() for v in outputs), torch.zeros_like(example) if slope is None else slope]


def _tensors(structure: Any) -> list[Tensor]:
    found: list[Tensor] = []
    fx.node.map_aggregate(structure, lambda x: found.append(x) if isinstance(x, Tensor) else None)
    return found
