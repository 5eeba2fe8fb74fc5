"""Rules: how one module or function of a network is read as an operator. A table that users extend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuralop_kit.convert.grid import Layout, Line, as_line, free_dims, is_free, plain_layout, shape_of
from neuralop_kit.convert.kernels import Kernel
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import RegistryError

ConvertedModule = TypeVar("ConvertedModule", bound=nn.Module)


class Refusal(Exception):
    """Why a rule does not convert a call; raised inside of rules, collected by the converter."""


@dataclass(frozen=True)
class Settings:
    """What holds for a whole conversion; see :func:`neuralop_kit.convert.to_operator` for the fields."""

    domain: Domain
    kernel: Kernel
    fixed_latent: bool = False
    trapezoid: bool = False
    alias_free: bool = False


@dataclass(frozen=True)
class Edge:
    """A tensor between two calls: what its dimensions are, and its values at the reference resolution."""

    layout: Layout
    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """At the reference resolution."""
        return shape_of(self.layout)

    @property
    def is_free(self) -> bool:
        """Whether its shape follows the resolution of the input."""
        return bool(free_dims(self.layout))


class Derived(int):
    """An integer that the network computed from a shape, in contrast to one that is written into its code."""


@dataclass(frozen=True)
class Call:
    """One call inside the network, with an :class:`Edge` in place of every tensor.

    Args:
        target: the module, or the function; methods are functions of ``torch.Tensor``.
        args, kwargs: of the call.
        output: what it returned at the reference resolution.
        settings: of the conversion.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    settings: Settings

    @property
    def edges(self) -> list[Edge]:
        """All tensors among the arguments, in order."""
        return list(edges_in((self.args, self.kwargs)))

    @property
    def field(self) -> Edge:
        """The first argument, which has to be a tensor."""
        if self.args and isinstance(self.args[0], Edge):
            return self.args[0]
        raise Refusal("its first argument is no tensor; pass the field first")

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


@dataclass(frozen=True)
class Conversion:
    """What became of a call.

    Args:
        layout: of what it returns; a tuple of layouts where it returns several tensors.
        rule: its name, for the report.
        target: what is called instead, with the same arguments; ``None`` where the original is right at every
            resolution. It may have an attribute ``takes_ratios``: it is then also given ``ratios=``, how much finer
            each axis of the domain is than the reference.
        limit: to what, and how fast, it converges, for the report.
        exact: whether it equals the original at the reference resolution.
        convergent: whether it has a limit.
    """

    layout: Any
    rule: str
    target: Callable[..., Any] | None = None
    limit: str = "pointwise"
    exact: bool = True
    convergent: bool = True


Rule = Callable[[Call], Conversion]
RULES: dict[Any, Rule] = {}


def register_rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Decorator: teach :func:`to_operator` a module class or a function; a later rule replaces an earlier one.

    The rule gets a :class:`Call` and returns a :class:`Conversion`, or raises :class:`Refusal` with a reason. It must
    keep the original parameters: :func:`adopt` makes a module of another class that shares them. A rule for a class
    holds for its subclasses; the network is not traced into a module that has one.

    Args:
        targets: module classes, functions such as ``torch.roll``, or methods such as ``torch.Tensor.roll``.

    Raises:
        RegistryError: a target can not be called.

    >>> class Square(nn.Module):
    ...     def forward(self, u: Tensor) -> Tensor:
    ...         return u * u
    >>> @register_rule(Square)
    ... def convert_square(call: Call) -> Conversion:
    ...     return Conversion(call.field.layout, "square")
    """
    for target in targets:
        if not callable(target):
            raise RegistryError(f"expected module classes and functions, got {target!r}; name methods as Tensor.roll")

    def register(rule: Rule) -> Rule:
        for target in targets:
            RULES[target] = rule
        return rule

    return register


def find_rule(target: Any) -> Rule | None:
    """The rule for a module, by its class and the classes that it derives from, or for a function."""
    if not isinstance(target, nn.Module):
        return RULES.get(target)
    return next((RULES[cls] for cls in type(target).__mro__ if cls in RULES), None)


def adopt(module: nn.Module, cls: type[ConvertedModule], **attributes: Any) -> ConvertedModule:
    """An object of another class with the same parameters, buffers and children: the very same objects.

    Args:
        module: stays as it is.
        cls: its ``__init__`` is not called; attributes are copied from ``module``.
        attributes: set afterwards, in place of those of ``module``.

    >>> linear = nn.Linear(2, 3)
    >>> adopt(linear, nn.Linear).weight is linear.weight
    True
    """
    other = cls.__new__(cls)
    other.__dict__.update(module.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        other.__dict__[table] = dict(module.__dict__[table])
    other.__dict__["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
    for name, table in module.__dict__.items():
        if name.endswith("_hooks") and isinstance(table, dict):
            other.__dict__[name] = type(table)()
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def edges_in(structure: Any) -> Iterator[Edge]:
    """Tensors in nested tuples, lists and dicts."""
    if isinstance(structure, Edge):
        yield structure
    elif isinstance(structure, tuple | list):
        for item in structure:
            yield from edges_in(item)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from edges_in(item)


def plain(output: Any) -> Any:
    """Layout of an output that has no space."""
    if isinstance(output, Tensor):
        return plain_layout(output.shape)
    if isinstance(output, tuple | list) and not isinstance(output, torch.Size):
        return tuple(plain(item) for item in output)
    return None


def refuse_points_as_channels(edge: Edge) -> None:
    """Raise a :class:`Refusal` where dimension 1, of which a module has one number or matrix row each, holds points."""
    if is_free(edge.layout[1]):
        raise Refusal("it has numbers for each point of the grid, which dimension 1 holds; move the channels there")


def line_at(edge: Edge, dim: int) -> Line:
    """The line along a dimension; a :class:`Refusal` where it is not one line."""
    line = as_line(edge.layout[dim])
    if line is None:
        raise Refusal(
            f"its input has no single space axis in dimension {dim} of {edge.shape}; "
            "points were mixed with channels or blocks before: take latent='fixed' or strict=False"
        )
    return line
