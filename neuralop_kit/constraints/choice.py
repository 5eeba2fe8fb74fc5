"""ExpertChoice: which constraint holds where."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.interface import Interface, Separate
from neuralop_kit.constraints.partition import Assignment
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

_SEPARATE = Separate()


class ExpertChoice(nn.Module):
    """Takes, on every part of a domain, one of several fields: conservation here, the equation's residual there.

        u = sum_k chi_k(x) sum_c g_kc u_c(x),      g_kc >= 0,  sum_c g_kc = 1

    with fields ``u_c`` from different layers, such as :class:`MixtureOfExperts` and :class:`ConservationConstraint`.
    Chosen by rule, ``g`` is zero or one, and the field is one of them, exactly, in the interior of every part. Learned,
    it is the softmax of one number per part and candidate: mixtures of fields that satisfy a *linear* constraint
    satisfy it too, but a blend of solutions of a nonlinear equation need not solve it; watch ``g`` become zero or one.

    Args:
        partition: the parts.
        num_candidates: how many fields.
        rule: number of the field for every part, in its order; by default the choice is learned, equal at first.
        interface: :class:`Separate`, or :class:`Overlap` for a field without jumps.

    Shape: ``num_candidates`` fields ``(batch, channel, *space)`` to one like them, and ``g``,
    ``(num_experts, num_candidates)``.

    Raises:
        ArgumentError: the rule does not name a field for every part. ShapeError: fields differ in shape or number.

    >>> from neuralop_kit import Domain
    >>> from neuralop_kit.constraints import Partition
    >>> choice = ExpertChoice(Partition(Domain.box((1.0,), nodes="cell"), (2,)), 2, rule=(1, 0))
    >>> choice(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))[0]
    tensor([[[1., 1., 0., 0.]]])
    """

    def __init__(
        self,
        partition: Assignment,
        num_candidates: int,
        *,
        rule: Sequence[int] | None = None,
        interface: Interface = _SEPARATE,
    ) -> None:
        super().__init__()
        if rule is not None and (
            len(rule) != partition.num_experts or not all(0 <= number < num_candidates for number in rule)
        ):
            raise ArgumentError(
                f"expected a number below {num_candidates} for each of {partition.num_experts} parts, "
                f"got {tuple(rule)}; correct the rule"
            )
        self.partition, self.num_candidates, self.interface = partition, num_candidates, interface
        self.rule = None if rule is None else tuple(rule)
        shape = (partition.num_experts, num_candidates)
        self.preference = nn.Parameter(torch.zeros(shape)) if rule is None else None

    def shares(self, like: Tensor) -> Tensor:
        """``g``, in the dtype and on the device of ``like``."""
        if self.preference is not None:
            return self.preference.to(like.dtype).softmax(dim=1)
        chosen = torch.tensor(self.rule, device=like.device)
        return nn.functional.one_hot(chosen, self.num_candidates).to(like.dtype)

    def forward(self, *fields: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen field, and the shares."""
        if len(fields) != self.num_candidates or len({field.shape for field in fields}) != 1:
            raise ShapeError(
                f"expected {self.num_candidates} fields of one shape, got {[tuple(field.shape) for field in fields]}; "
                "give one per candidate"
            )
        shape = fields[0].shape[2:]
        windows = self.interface.windows(self.partition, shape, (0,) * len(shape), fields[0])
        shares = self.shares(fields[0])
        weights = torch.einsum("kc,k...->c...", shares, windows)
        return torch.stack([w * field for w, field in zip(weights, fields, strict=True)]).sum(dim=0), shares
