"""Networks whose own code can not be traced: their parts are exchanged, and their code runs as it is.

The network runs once at the reference resolution while every call is watched. Modules are converted by the same rules
as in a traced network. Between them only what is right at every resolution without a change may happen, for the code
itself stays; it must not look at values, and must make the same calls at another resolution.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuralop_kit.convert.arrival import Grid, reference_layout
from neuralop_kit.convert.converter import Converter, Record, Slot, Step, guess
from neuralop_kit.convert.grid import Layout, input_layout, iterate_lines, plain_layout
from neuralop_kit.convert.registry import Call, Edge, Refusal, Settings
from neuralop_kit.convert.sandwich import Sandwich
from neuralop_kit.convert.tracing import is_leaf

# Asking for one of these makes Python's control flow depend on values.
_LOOKS = ("__bool__", "item", "tolist", "__int__", "__float__", "__index__", "__len__", "numpy", "__contains__")
_HARMLESS = ("size", "dim", "numel", "__get__", "stride", "is_contiguous", "data_ptr", "__set__")


class Watcher(TorchFunctionMode):
    """Follows layouts through functions; modules report to it through their forwards."""

    def __init__(self, converter: Converter, root: nn.Module, why: str) -> None:
        super().__init__()
        self.converter, self.root, self.why = converter, root, why
        self.path: list[str] = []
        self.inside = 0
        self.calls: list[str] = []
        # Tensors are kept alive, so that no identity is used twice.
        self.known: dict[int, tuple[Tensor, Layout]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One function outside of the converted modules."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if self.inside or name in _HARMLESS:
            return output
        self.calls.append(name)
        if name in _LOOKS:
            self._refuse(name, "its control flow depends on the values of a tensor")
            return output
        self._follow(f"{self._here()}.{name}".lstrip("."), func, args, kwargs, output)
        return output

    def module(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """One call of a module with a rule."""
        # What is put in its place must not inherit the watching.
        watched = module.__dict__.pop("forward")
        self.inside += 1
        output = module.forward(*args, **kwargs)
        self.inside -= 1
        self.calls.append(path)
        self._follow(path, module, args, kwargs, output)
        module.__dict__["forward"] = watched
        return output

    def remember(self, output: Any, layout: Any) -> None:
        """Where the points of an output are."""
        if isinstance(output, Tensor):
            self.known[id(output)] = (output, plain_layout(output.shape) if layout is None else layout)
        elif isinstance(output, tuple | list):
            for index, item in enumerate(output):
                self.remember(item, None if layout is None else layout[index])

    def edges(self, structure: Any) -> Any:
        """Edges in place of tensors."""
        if isinstance(structure, Tensor):
            known = self.known.get(id(structure))
            return Edge(known[1] if known else plain_layout(structure.shape), structure)
        if isinstance(structure, tuple | list):
            return tuple(self.edges(item) for item in structure)
        return structure

    def _follow(self, path: str, target: Any, args: Any, kwargs: Any, output: Any) -> None:
        named = {key: self.edges(value) for key, value in kwargs.items()}
        call = Call(target, self.edges(args), named, output, self.converter.settings)
        if not call.edges and not isinstance(output, Tensor):
            return
        try:
            conversion = self.converter.by_rule(call)
            if conversion.target is not None:
                self._exchange(path, target, conversion.target)
        except Refusal as refusal:
            self._refuse(path.rpartition(".")[2], str(refusal), path)
            # What follows is not to blame for it.
            self.remember(output, guess([edge.layout for edge in call.edges], output))
            return
        self.remember(output, conversion.layout)
        if any(line for edge in call.edges for line in iterate_lines(edge.layout)):
            record = Record(path, conversion.rule, conversion.exact, conversion.convergent, conversion.limit)
            self.converter.records.append(record)

    def _exchange(self, path: str, target: Any, converted: Callable[..., Any]) -> None:
        if not isinstance(target, nn.Module):
            raise Refusal(f"this function changes with the resolution, and around it {self.why}")
        if getattr(converted, "takes_ratios", False):
            raise Refusal(f"this module has to know the resolution, and around it {self.why}")
        if path in self.converter.converted:
            raise Refusal(f"it is called twice, and around it {self.why}")
        module = converted if isinstance(converted, nn.Module) else _Function(converted)
        self.converter.converted[path] = (module, None)  # type: ignore[assignment]

    def _here(self) -> str:
        return self.path[-1] if self.path else ""

    def _refuse(self, name: str, reason: str, path: str | None = None) -> None:
        pair = (self._here() if path is None else path, reason)
        if pair not in self.converter.refusals:
            self.converter.refusals.append(pair)


class _Function(nn.Module):
    """A converted function in the place of a module without parameters."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The function."""
        return self.function(*args, **kwargs)


def watch(
    root: nn.Module, settings: Settings, grid: Grid, example: Tensor, *, why: str
) -> tuple[Converter, list[Step], Slot, Any]:
    """Run, exchange modules; converter with its refusals, the one step of the operator, its output and the layouts.

    ``why`` the code can not be traced goes into refusals.
    """
    converter = Converter(root, settings)
    watcher = Watcher(converter, root, why)
    output = _run(watcher, example)
    layouts = reference_layout(watcher.edges(output), settings.domain, grid.resolution)
    if not converter.refusals:
        _expect_same_calls(watcher, example.new_zeros((*example.shape[:2], *grid.domain.refine(grid.resolution, 3))))
    for path, (module, _) in converter.converted.items():
        converter.place(path, module)
    return converter, [Step(root, (Slot(0),), {}, False)], Slot(1), layouts


def keep(
    root: nn.Module, refused: Converter, settings: Settings, grid: Grid, example: Tensor
) -> tuple[Converter, list[Step], Slot, Any]:
    """The whole network at the reference resolution, because of what was refused."""
    converter = Converter(root, settings)
    converter.refusals = refused.refusals
    layout = input_layout(settings.domain, example.shape)
    with torch.no_grad():
        output = root(example)
    path, reason = refused.refusals[0]
    limit = f"resampled around it: {reason}"
    converter.records = [Record(path or "(all of it)", "kept at the reference", True, True, limit)]
    edges = _plain_edges(output)
    step = Step(Sandwich(root, [layout]), (Slot(0),), {}, True)
    return converter, [step], Slot(1), reference_layout(edges, settings.domain, grid.resolution)


def _plain_edges(output: Any) -> Any:
    if isinstance(output, Tensor):
        return Edge(plain_layout(output.shape), output)
    return type(output)(_plain_edges(item) for item in output) if isinstance(output, tuple | list) else output


def _run(watcher: Watcher, example: Tensor) -> Any:
    root = watcher.root
    watcher.remember(example, input_layout(watcher.converter.settings.domain, example.shape))
    modules = dict(root.named_modules())
    leaves = [path for path, module in modules.items() if path and is_leaf(module)]
    below = {path for path in modules if any(path.startswith(f"{leaf}.") for leaf in leaves)}
    for path, module in modules.items():
        if path and path not in below:
            module.__dict__["forward"] = (
                _leaf(watcher, path, module) if path in leaves else _inner(watcher, path, module)
            )
    try:
        with torch.no_grad(), watcher:
            output = root(example)
    finally:
        for module in modules.values():
            module.__dict__.pop("forward", None)
    return output


def _leaf(watcher: Watcher, path: str, module: nn.Module) -> Callable[..., Any]:
    return lambda *args, **kwargs: watcher.module(path, module, args, kwargs)


def _inner(watcher: Watcher, path: str, module: nn.Module) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        watcher.path.append(path)
        try:
            return type(module).forward(module, *args, **kwargs)
        finally:
            watcher.path.pop()

    return forward


def _expect_same_calls(watcher: Watcher, finer: Tensor) -> None:
    """A branch on the size of the input shows when the size changes."""
    converter, calls = watcher.converter, watcher.calls
    probe = Watcher(Converter(watcher.root, converter.settings), watcher.root, watcher.why)
    try:
        _run(probe, finer)
    except Exception:  # whatever the user's code raises, it does so because of the size
        converter.refusals.append(("", f"it does not run at another resolution, and {watcher.why}"))
        return
    if probe.calls != calls:
        first = next((a for a, b in zip(calls, probe.calls, strict=False) if a != b), "the end")
        converter.refusals.append(("", f"its control flow depends on the size of the input (from {first} on)"))
