"""Trace a network into calls, and ask a rule about each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuralop_kit.convert import rules as _rules  # noqa: F401 - fills the table of rules
from neuralop_kit.convert.grid import Layout, Size, hold, iterate_lines, num_points, plain_layout
from neuralop_kit.convert.registry import (
    Call,
    Conversion,
    Derived,
    Edge,
    Refusal,
    Settings,
    adopt,
    find_rule,
    plain,
)
from neuralop_kit.convert.sandwich import sandwich


@dataclass(frozen=True)
class Record:
    """One line of the report.

    Args:
        path: of the module; of a function, that of the module that calls it, and its name.
        rule: what it is read as.
        exact: whether it equals the original at the reference resolution.
        convergent: whether it has a limit.
        limit: which order, or why not.
    """

    path: str
    rule: str
    exact: bool
    convergent: bool
    limit: str


@dataclass(frozen=True)
class Slot:
    """A place in the list of values: stands for a value in the arguments of a step."""

    index: int


@dataclass
class Step:
    """One call of the finished operator."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    takes_ratios: bool
    attribute: tuple[str, str] | None = None
    finished: list[int] = field(default_factory=list)


class Untraceable(Exception):
    """A module whose code can not be followed without values."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason


def skeleton(module: nn.Module, memo: dict[int, nn.Module] | None = None) -> nn.Module:
    """Modules of the same classes that hold the same parameters and buffers, without the hooks of the original."""
    memo = {} if memo is None else memo
    if id(module) not in memo:
        memo[id(module)] = other = adopt(module, type(module))
        for name, child in module._modules.items():
            other._modules[name] = None if child is None else skeleton(child, memo)
    return memo[id(module)]


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is converted as a whole: it has a rule, or is one of torch's own."""
    torch_own = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    return find_rule(module) is not None or torch_own


class Tracer(fx.Tracer):
    """Modules with a rule are leaves; those in ``opaque``, whose code can not be traced, as well."""

    def __init__(self, opaque: dict[str, str]) -> None:
        super().__init__()
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether not to look inside."""
        return is_leaf(m) or module_qualified_name in self.opaque

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Remember which module's code failed."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Untraceable:
            raise
        except Exception as error:
            raise Untraceable(self.path_of_module(m), _why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError) or "interpreted as an integer" in str(error):
        return "its control flow depends on data or shapes; make it a rule of its own with register_rule"
    if "item assignment" in str(error):
        return "it writes into a tensor by index; build a new tensor instead"
    return f"its code can not be traced ({type(error).__name__}: {str(error)[:80]}); register a rule for it"


def trace(root: nn.Module) -> tuple[fx.Graph, dict[str, str]]:
    """Graph of a network with one input, and the submodules that are opaque, with the reason.

    Raises:
        Untraceable: the code of the network itself can not be traced.
    """
    opaque: dict[str, str] = {}
    single = adopt(root, _with_one_input(type(root)))
    while True:
        try:
            return Tracer(opaque).trace(single), opaque
        except Untraceable as error:
            opaque[error.path] = error.reason
        except Exception as error:
            raise Untraceable("", _why(error)) from error


def _with_one_input(cls: type[nn.Module]) -> type[nn.Module]:
    """The class with a forward that leaves further arguments at their defaults."""

    def forward(self: Any, u: Any) -> Any:
        return cls.forward(self, u)

    return type(cls.__name__, (cls,), {"forward": forward})


def num_required_inputs(net: nn.Module) -> int:
    """Arguments of ``forward`` without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(net.forward).parameters.values()
    return sum(p.default is p.empty and p.kind in kinds for p in parameters)


class Converter:
    """Walks through a traced network with values at the reference resolution, and makes the steps of the operator.

    Args:
        root: a :func:`skeleton` of the network; converted modules are put into it.
        settings: of the conversion.
    """

    def __init__(self, root: nn.Module, settings: Settings) -> None:
        self.root, self.settings = root, settings
        self.steps: list[Step] = []
        self.records: list[Record] = []
        self.refusals: list[tuple[str, str]] = []
        self.converted: dict[str, tuple[Any, Conversion]] = {}
        # Converted modules take their places in the tree; a second call still needs the first one.
        self.originals = dict(root.named_modules(remove_duplicate=False))

    def run(self, graph: fx.Graph, opaque: dict[str, str], example: Tensor, layout: Layout) -> tuple[Any, Any]:
        """Fill :attr:`steps`; returns the slots of the output, and its value with edges in place of tensors."""
        values: dict[fx.Node, Any] = {}
        slots: dict[fx.Node, Slot] = {}
        last_use = {user: node for node in graph.nodes for user in node.all_input_nodes}
        for node in graph.nodes:
            if node.op == "output":
                structure = fx.node.map_arg(node.args[0], lambda n: slots[n])
                self._note_last_uses(last_use, slots, structure)
                return structure, fx.node.map_arg(node.args[0], lambda n: values[n])
            slots[node] = Slot(len(slots))
            if node.op == "placeholder":
                values[node] = Edge(layout, example)
                continue
            step, values[node] = self._convert(node, values, slots, opaque)
            self.steps.append(step)
        raise RuntimeError("a traced graph has an output")

    def _note_last_uses(self, last_use: dict[fx.Node, fx.Node], slots: dict[fx.Node, Slot], structure: Any) -> None:
        """Let each step drop the values that no later one asks for."""
        kept = {slot.index for slot in _slots_in(structure)}
        for node, user in last_use.items():
            index = slots[node].index
            if user.op != "output" and index not in kept:
                # The first slot is the input, which has no step.
                self.steps[slots[user].index - 1].finished.append(index)

    def _convert(
        self, node: fx.Node, values: dict[fx.Node, Any], slots: dict[fx.Node, Slot], opaque: dict[str, str]
    ) -> tuple[Step, Any]:
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(self.root.get_submodule(owner), name)
            step = Step(None, (), {}, False, attribute=(owner, name))
            return step, Edge(plain_layout(value.shape), value) if isinstance(value, Tensor) else value
        target = self._target(node)
        args, kwargs = (_mapped(part, values) for part in (node.args, node.kwargs))
        path = _path(node)
        output = self._value(target, args, kwargs)
        reason = opaque.get(str(node.target)) if node.op == "call_module" else None
        conversion = self._conversion(path, target, args, kwargs, output, reason)
        chosen = target if conversion.target is None else conversion.target
        if node.op == "call_module" and isinstance(chosen, nn.Module) and chosen is not target:
            self.place(str(node.target), chosen)
        runtime = [fx.node.map_arg(part, lambda n: slots[n]) for part in (node.args, node.kwargs)]
        step = Step(chosen, tuple(runtime[0]), dict(runtime[1]), getattr(chosen, "takes_ratios", False))
        return step, _edges(conversion.layout, output)

    def _target(self, node: fx.Node) -> Any:
        if node.op == "call_module":
            return self.originals[str(node.target)]
        return getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target

    def _value(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What the call gives at the reference resolution."""
        with torch.no_grad():
            return target(*_values(args), **_values(kwargs))

    def _conversion(
        self, path: str, target: Any, args: Any, kwargs: Any, output: Any, reason: str | None
    ) -> Conversion:
        """Of one call: by its rule, or kept at the reference resolution, or refused."""
        call = Call(target, tuple(args), dict(kwargs), output, self.settings)
        if not call.edges and not isinstance(output, Tensor) and reason is None:
            return Conversion(None, "numbers")
        try:
            conversion = self._again(path, call) if path in self.converted else self.by_rule(call, reason)
        except Refusal as refusal:
            self.refusals.append((path, str(refusal)))
            conversion = self._kept(call, str(refusal))
        if isinstance(conversion.target, nn.Module):
            self.converted[path] = (_layouts(call), conversion)
        spatial = any(line for edge in call.edges for line in iterate_lines(edge.layout))
        if spatial and conversion.rule not in _SILENT:
            self.records.append(
                Record(path, conversion.rule, conversion.exact, conversion.convergent, conversion.limit)
            )
        return conversion

    def by_rule(self, call: Call, reason: str | None = None) -> Conversion:
        """What the rule for a call says; a :class:`Refusal` if there is none, or for the reason given."""
        if reason is not None:
            raise Refusal(reason)
        module = call.target if isinstance(call.target, nn.Module) else None
        if module is not None and (module._forward_pre_hooks or hasattr(module, "parametrizations")):
            raise Refusal("its weights are computed by a hook or a parametrization; remove that first")
        rule = find_rule(call.target)
        if rule is None:
            return _without_rule(call)
        margins = [line for edge in call.edges for line in iterate_lines(edge.layout) if line.margin]
        if margins and rule.__name__ not in ("convolution", "transposed_convolution"):
            raise Refusal("its input was padded by hand; only a convolution may follow")
        return rule(call)

    def _again(self, path: str, call: Call) -> Conversion:
        """A module with weights that is called a second time must find its points in the same places."""
        layouts, conversion = self.converted[path]
        if layouts != _layouts(call):
            raise Refusal("it is called on two different grids; use one module for each")
        return conversion

    def _kept(self, call: Call, reason: str) -> Conversion:
        """At the reference resolution, between two resamplings."""
        layouts = [edge.layout for edge in call.edges]
        kept = sandwich(call.target, layouts)
        return Conversion(
            _guess(layouts, call.output), "kept at the reference", target=kept, limit=f"resampled around it: {reason}"
        )

    def place(self, path: str, module: nn.Module) -> None:
        """Put a converted module into the tree."""
        owner, _, name = path.rpartition(".")
        self.root.get_submodule(owner)._modules[name] = module


# Reading a size or an item of a tuple is nothing to report.
_SILENT = ("shape", "property", "numbers", "item")


def _without_rule(call: Call) -> Conversion:
    name = getattr(call.target, "__name__", type(call.target).__name__)
    if not any(edge.is_free for edge in call.edges):
        # Whatever it does, it does it at one resolution.
        return Conversion(_guess([edge.layout for edge in call.edges], call.output), name, limit="fixed latent grid")
    if (name.endswith("_") and not name.endswith("__")) or name == "setitem":
        raise Refusal(f"{name} changes a tensor in place; build a new tensor instead")
    raise Refusal(f"there is no rule for {name}; add one with register_rule")


def _guess(layouts: list[Layout], output: Any) -> Any:
    """Dimensions of unchanged size keep their lines."""
    if not isinstance(output, Tensor):
        return plain(output)
    first = hold(layouts[0]) if layouts else ()
    same = len(first) == output.ndim
    return tuple(
        first[d] if same and num_points(first[d]) == n else (Size(n, is_batch=d == 0 and bool(first)),)
        for d, n in enumerate(output.shape)
    )  # fmt: skip


def _layouts(call: Call) -> Any:
    return [edge.layout for edge in call.edges]


def _path(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    owner = str(stack[-1][0]) if stack else ""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    return f"{owner}.{name}".lstrip(".")


def _mapped(part: Any, values: dict[fx.Node, Any]) -> Any:
    return fx.node.map_aggregate(part, lambda n: values[n] if isinstance(n, fx.Node) else n)


def _values(structure: Any) -> Any:
    if isinstance(structure, Edge):
        return structure.value
    if isinstance(structure, slice):
        return slice(*(_values(part) for part in (structure.start, structure.stop, structure.step)))
    if isinstance(structure, tuple | list):
        return type(structure)(_values(item) for item in structure)
    if isinstance(structure, dict):
        return {key: _values(item) for key, item in structure.items()}
    return structure


def _edges(layout: Any, output: Any) -> Any:
    """Edges in place of tensors, and derived integers in place of integers."""
    if isinstance(output, Tensor):
        return Edge(layout if layout is not None else plain_layout(output.shape), output)
    if isinstance(output, torch.Size):
        return tuple(Derived(n) for n in output)
    if isinstance(output, tuple | list):
        parts = layout if layout is not None else [None] * len(output)
        return tuple(_edges(part, item) for part, item in zip(parts, output, strict=True))
    return Derived(output) if isinstance(output, int) and not isinstance(output, bool) else output


def _slots_in(structure: Any) -> list[Slot]:
    found: list[Slot] = []
    fx.node.map_aggregate(structure, lambda x: found.append(x) if isinstance(x, Slot) else None)
    return found
