"""Ask a rule about every call of a traced network, and collect the steps of the operator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuralop_kit.convert.grid import Layout, Size, hold, iterate_lines, num_points, plain_layout
from neuralop_kit.convert.registry import (
    Call,
    Conversion,
    Derived,
    Edge,
    Refusal,
    Settings,
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
                structure = _mapped(node.args[0], slots)
                self._note_last_uses(last_use, slots, structure)
                return structure, _mapped(node.args[0], values)
            slots[node] = Slot(len(slots))
            if node.op == "placeholder":
                values[node] = Edge(layout, example)
                continue
            step, values[node] = self._convert(node, values, slots, opaque)
            self.steps.append(step)
        raise RuntimeError("a traced graph has an output")

    def run_alone(self, example: Tensor, layout: Layout) -> tuple[Any, Any]:
        """The same for a network that is one module with a rule."""
        edge = Edge(layout, example)
        output = self._value(self.root, (edge,), {})
        conversion = self._conversion("", self.root, (edge,), {}, output, None)
        chosen = self.root if conversion.target is None else conversion.target
        self.root = chosen if isinstance(chosen, nn.Module) else self.root
        self.steps = [Step(chosen, (Slot(0),), {}, getattr(chosen, "takes_ratios", False))]
        return Slot(1), _edges(conversion.layout, output)

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
        runtime = [_mutable(_mapped(part, slots)) for part in (node.args, node.kwargs)]
        step = Step(chosen, runtime[0], runtime[1], getattr(chosen, "takes_ratios", False))
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
        if module is not None and hasattr(module, "parametrizations"):
            raise Refusal("its weights are computed by a parametrization; remove that first")
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
            guess(layouts, call.output), "kept at the reference", target=kept, limit=f"resampled around it: {reason}"
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
        return Conversion(guess([edge.layout for edge in call.edges], call.output), name, limit="fixed latent grid")
    if (name.endswith("_") and not name.endswith("__")) or name in ("setitem", "__setitem__"):
        raise Refusal(f"{name} changes a tensor in place; build a new tensor instead")
    raise Refusal(f"there is no rule for {name}; add one with register_rule")


def guess(layouts: list[Layout], output: Any) -> Any:
    """Layout of what a refused call returned: dimensions of unchanged size keep their lines."""
    if isinstance(output, tuple | list) and not isinstance(output, torch.Size):
        return tuple(guess(layouts, item) for item in output)
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


def _mapped(part: Any, values: Mapping[fx.Node, Any]) -> Any:
    return fx.node.map_aggregate(part, lambda n: values[n] if isinstance(n, fx.Node) else n)


def _mutable(structure: Any) -> Any:
    """Plain containers for those of a graph, which compilers do not know."""
    if isinstance(structure, list):
        return [_mutable(item) for item in structure]
    if isinstance(structure, tuple):
        return tuple(_mutable(item) for item in structure)
    return {k: _mutable(v) for k, v in structure.items()} if isinstance(structure, dict) else structure


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
        pairs = [_edges(part, item) for part, item in zip(parts, output, strict=True)]
        # Results of torch have names, such as values and indices.
        return type(output)(pairs) if hasattr(output, "n_fields") else tuple(pairs)
    return Derived(output) if isinstance(output, int) and not isinstance(output, bool) else output


def _slots_in(structure: Any) -> list[Slot]:
    found: list[Slot] = []
    fx.node.map_aggregate(structure, lambda x: found.append(x) if isinstance(x, Slot) else None)
    return found
