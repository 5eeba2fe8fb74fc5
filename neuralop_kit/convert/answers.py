"""What code asks about sizes while it is traced: how many dimensions, how many parts, whether two sizes are equal."""

import dis
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn

# As they are before a tracer puts its own in their places.
_CALL, _GETATTR = nn.Module.__call__, nn.Module.__getattr__


@contextmanager
def _not_traced() -> Iterator[None]:
    """Modules compute, in the middle of being traced."""
    cls: Any = nn.Module
    traced = cls.__call__, cls.__getattr__
    cls.__call__, cls.__getattr__ = _CALL, _GETATTR
    try:
        with torch.no_grad():
            yield
    finally:
        cls.__call__, cls.__getattr__ = traced


class Values:
    """Values of the nodes of a growing graph, for one input."""

    def __init__(self, root: nn.Module, example: Tensor) -> None:
        self.root, self.example = root, example
        self.known: dict[fx.Node, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        """Of one node; those before it are computed once."""
        if node not in self.known:
            with _not_traced():
                for each in node.graph.nodes:
                    if each not in self.known:
                        self.known[each] = self._of(each)
        return self.known[node]

    def _of(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.example.clone()
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        args: Any = fx.node.map_arg(node.args, lambda n: self.known[n])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: self.known[n])
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


class Answers:
    """Answers that are the same at every resolution, as far as two inputs can tell.

    Args:
        root: the network.
        example: at the reference resolution.
        finer: a larger batch at another resolution.
    """

    def __init__(self, root: nn.Module, example: Tensor, finer: Tensor) -> None:
        self.values, self.others = Values(root, example), Values(root, finer)

    def num_dims(self, node: fx.Node) -> int:
        """Of a tensor."""
        return int(self.values(node).ndim)

    def length(self, node: fx.Node) -> int | None:
        """Of a tuple or list of tensors or sizes; ``None`` where this is a number of points or items."""
        found, other = self.values(node), self._other(node)
        both_have = all(isinstance(value, tuple | list) for value in (found, other))
        return len(found) if both_have and len(found) == len(other) else None

    def truth(self, node: fx.Node, frame: FrameType) -> bool | None:
        """Of a comparison of sizes; ``None`` where it depends on data, or on the resolution unless just asserted."""
        found = self.values(node)
        # Another dtype or device may come without a new conversion.
        kinds = [type(self.values(part)) for part in node.all_input_nodes]
        if not isinstance(found, bool | int) or torch.dtype in kinds or torch.device in kinds:
            return None
        same = isinstance(other := self._other(node), bool | int) and bool(other) == bool(found)
        return bool(found) if same or _is_asserted(frame) else None

    def _other(self, node: fx.Node) -> Any:
        try:
            return self.others(node)
        except Exception:  # whatever the user's code raises, it does so because of the size
            return None


def _is_asserted(frame: FrameType) -> bool:
    """Whether the truth that a frame asks for decides on nothing but an ``assert``."""
    code = list(dis.get_instructions(frame.f_code))
    here = next(index for index, step in enumerate(code) if step.offset >= frame.f_lasti)
    jump = next((index for index in range(here, min(here + 4, len(code) - 1)) if "JUMP" in code[index].opname), None)
    if jump is None:
        return False
    targets = [code[jump + 1], *(step for step in code if step.offset == code[jump].argval)]
    return any(step.opname == "LOAD_ASSERTION_ERROR" or step.argval is AssertionError for step in targets)
