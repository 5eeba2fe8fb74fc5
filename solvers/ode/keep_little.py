"""What compiled steps keep for their gradients."""

from collections.abc import Sequence
from typing import Any

from torch._functorch import config
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn
from torch.fx import GraphModule

# Reasons to keep what could be computed again; not among them is that it takes long.
_REASONS = ("used_far_apart", "long_fusible_chains", "materialized_backward")


class KeepLittle(CustomPartitionerFn):
    """Keeps states, norms, matrix products and transforms; arithmetic is done again, in the backward pass's own kernel.

    The compiler's own rule keeps two dozen tensors per step. Each is an allocation and an object of Python, which takes
    longer than the arithmetic where states are small.
    """

    def __call__(
        self, gm: GraphModule, joint_inputs: Sequence[object], **settings: Any
    ) -> tuple[GraphModule, GraphModule]:
        """Cut the graph of values and gradients in two."""
        lifted = {f"ban_recompute_{reason}": False for reason in _REASONS if hasattr(config, f"ban_recompute_{reason}")}
        with config.patch(lifted):
            return min_cut_rematerialization_partition(gm, joint_inputs, **settings)

    def uuid(self) -> str:
        """Tells compiled code apart in the compiler's cache."""
        return f"{type(self).__qualname__}: {_REASONS}"
