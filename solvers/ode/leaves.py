"""Which tensors a field depends on, found by looking rather than by asking."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from neuralop_kit.solvers.ode.host import send
from neuralop_kit.solvers.ode.march import Problem


@dataclass(frozen=True)
class Leaves:
    """Leaf tensors that ask for a gradient.

    Args:
        tensors: the leaves.
        are_behind_a_graph: whether some reach the field through tensors that were computed before.
    """

    tensors: tuple[Tensor, ...]
    are_behind_a_graph: bool


def leaves_of(problem: Problem, y0: Tensor) -> Leaves:
    """Parameters of the field, and all that one evaluation of it reaches.

    A leaf that a plain function uses only at later times is not found: make such a field a module.
    """
    stepper = problem.stepper
    with torch.enable_grad():
        # Nodes are numbered in the order of their birth.
        birth = get_gradient_edge(y0.new_zeros((), requires_grad=True).clone()).node._sequence_nr()
        value = stepper.field(stepper.control.spread(send(problem.times[0], y0), y0.ndim), y0.detach())
    found: dict[int, Tensor] = {}
    if isinstance(stepper.field, nn.Module):
        found = {id(p): p for p in stepper.field.parameters() if p.requires_grad}
    seen, waiting, is_behind = set(), [value.grad_fn], False
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        # The nodes that accumulate into a leaf know it; others have no such attribute.
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf
        elif node._sequence_nr() < birth:
            is_behind = True
        waiting += [next_node for next_node, _ in node.next_functions]
    return Leaves(tuple(found.values()), is_behind)
