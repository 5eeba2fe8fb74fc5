"""Follow the code of a network: which calls it makes, and where it can not be followed."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from torch import Tensor, fx, nn

from neuralop_kit.convert import rules as _rules  # noqa: F401 - fills the table of rules
from neuralop_kit.convert.answers import Answers
from neuralop_kit.convert.registry import adopt, find_rule


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
    is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    torch_own = type(module).__module__.startswith("torch.nn") and not is_container
    return find_rule(module) is not None or torch_own


class Sized(fx.Proxy):
    """A value that code may ask for the number of its dimensions, or of its parts."""

    tracer: "Tracer"

    @property
    def ndim(self) -> int:
        """Known while tracing."""
        return self.tracer.answers.num_dims(self.node)

    def dim(self) -> int:
        """Known while tracing."""
        return self.ndim

    def __len__(self) -> int:
        length = self.tracer.answers.length(self.node)
        return super().__len__() if length is None else length

    def __getattr__(self, name: str) -> "SizedAttribute":
        return SizedAttribute(self, name)


class SizedAttribute(fx.proxy.Attribute, Sized):
    """The same of a shape."""


class Tracer(fx.Tracer):
    """Modules with a rule are leaves; those in ``opaque``, whose code can not be traced, as well."""

    # Else what code makes of a buffer would be a constant, which does not follow a new state.
    proxy_buffer_attributes = True

    def __init__(self, opaque: dict[str, str], answers: Answers) -> None:
        super().__init__()
        self.opaque, self.answers = opaque, answers

    def proxy(self, node: fx.Node) -> Sized:
        """What stands for the value of a node."""
        return Sized(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The parts of a tuple or a shape, whose number is known."""
        length, parts = self.answers.length(obj.node), cast(Any, obj)
        return super().iter(obj) if length is None else iter([parts[index] for index in range(length)])

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Comparisons of sizes that come out the same at every resolution."""
        truth = self.answers.truth(obj.node, sys._getframe(2))
        return super().to_bool(obj) if truth is None else truth

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether not to look inside."""
        return is_leaf(m) or module_qualified_name in self.opaque

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Remember which module's code failed."""

        def complete(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if isinstance(output, fx.proxy.Attribute):
                # Reading an attribute enters the graph when it is first used, which is outside of this module.
                _ = output.node
            return output

        try:
            return super().call_module(m, complete, args, kwargs)
        except Untraceable:
            raise
        except Exception as error:
            raise Untraceable(self.path_of_module(m), _why(error)) from error


def _why(error: Exception) -> str:
    place = _place(error)
    if "cannot be iterated" in str(error):
        return f"it iterates over a tensor{place}; name the parts, as in q, k, v = x.unbind(0)"
    if isinstance(error, fx.proxy.TraceError) or "interpreted as an integer" in str(error):
        return f"its control flow depends on data or shapes{place}; make it a rule of its own with register_rule"
    if "item assignment" in str(error):
        return f"it writes into a tensor by index{place}; build a new tensor instead"
    return f"its code can not be traced ({type(error).__name__}: {str(error)[:80]}){place}; register a rule for it"


def _place(error: Exception) -> str:
    """The user's line that failed: the last one before torch's own."""
    lines = [(frame, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    own = [(frame.f_code.co_filename, number) for frame, number in lines
           if frame.f_globals.get("__name__", "").split(".")[0] not in ("torch", "neuralop_kit")]  # fmt: skip
    return f" (line {own[-1][1]} of {Path(own[-1][0]).name})" if own else ""


def trace(root: nn.Module, example: Tensor, finer: Tensor) -> tuple[fx.Graph, dict[str, str], dict[str, Tensor]]:
    """Graph of a network with one input, the submodules that are opaque, with the reason, and constants of its code.

    Args:
        root: the network; calling it must have no lasting effects.
        example: an input at the reference resolution.
        finer: one at another resolution, of another number of items.

    Raises:
        Untraceable: the code of the network itself can not be traced.
    """
    opaque: dict[str, str] = {}
    single = adopt(root, _with_one_input(type(root)))
    while True:
        try:
            graph = Tracer(opaque, Answers(single, example, finer)).trace(single)
        except Untraceable as error:
            if error.path in opaque:
                raise
            opaque[error.path] = error.reason
        except Exception as error:
            raise Untraceable("", _why(error)) from error
        else:
            return graph, opaque, {name: value for name, value in vars(single).items() if name not in vars(root)
                                   and isinstance(value, Tensor)}  # fmt: skip


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
