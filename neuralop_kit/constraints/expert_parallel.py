"""ExpertParallel: experts shared out over processes; only their coefficients travel.

**When the batch is at least as large as the number of processes, do not use this**: wrap the model in
``DistributedDataParallel`` and give each process a part of the batch, as ``Trainer`` does. Nothing but the gradients
of parameters travels then, and no process waits for another's solve.

With fewer items than processes, every process computes the same batch, solves its own experts, and receives the
coefficients of the others. Who must do what to the gradients of parameters:

    forward     all processes gather all coefficients, and compute the same field and the same loss
    backward    gradients of coefficients are summed over processes: R equal losses give R times the gradient
    parameters  the *mean* over processes: what came through the basis directly is there R times and is divided by R;
                what came through the coefficients was multiplied by R once, and each process has its experts' part

``DistributedDataParallel`` takes that mean, over all processes, so it is right as it is, and so is
:func:`average_gradients` for a bare model. A sum would give R times the gradient. The gradient with respect to the
basis or the inputs on one process is incomplete until it is averaged too.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from neuralop_kit.constraints.ranks import Ranks, Result
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, NeuralopKitError


class ExpertParallel(Ranks):
    """Experts shared out evenly over the processes of one dimension of a device mesh, the first ones taking the rest.

    All processes of that dimension must be given the same batch and draw the same collocation points. A process that
    dies is an error on all others within the timeout of the process group. For how gradients are averaged see
    :mod:`neuralop_kit.constraints.expert_parallel`.

    Args:
        mesh: for example ``init_device_mesh("cpu", (2, 2), mesh_dim_names=("batch", "experts"))``.
        dimension: its name, or number; may be left out where the mesh has one.
        shares: how many experts each process takes, where that shall not be even; at least one.

    Raises:
        ArgumentError: ``shares`` does not fit processes or experts.
    """

    def __init__(self, mesh: DeviceMesh, *, dimension: str | int = 0, shares: tuple[int, ...] | None = None) -> None:
        self.group = mesh.get_group(dimension)
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        if shares is not None and (len(shares) != self.size or min(shares) < 1):
            raise ArgumentError(f"expected a share >= 1 for each of {self.size} processes, got {shares}; correct them")
        self.shares = shares

    def share(self, num_experts: int) -> tuple[int, ...]:
        """How many experts each process solves."""
        if num_experts < self.size:
            raise ArgumentError(
                f"expected at least one expert for each of {self.size} processes, got {num_experts} experts; "
                "use the other processes for the batch: a mesh of two dimensions"
            )
        if self.shares is None:
            return tuple(num_experts // self.size + (rank < num_experts % self.size) for rank in range(self.size))
        if sum(self.shares) != num_experts:
            raise ArgumentError(f"expected shares of {num_experts} experts, got {self.shares}; make them add up")
        return self.shares

    def own(self, num_experts: int, device: torch.device) -> Tensor:
        """A contiguous range."""
        share = self.share(num_experts)
        first = sum(share[: self.rank])
        return torch.arange(first, first + share[self.rank], device=device)

    def gather(self, coefficients: Tensor, num_experts: int) -> Tensor:
        """All-gather; its derivative sums the gradients of all processes."""
        return gather_slices(coefficients, self.share(num_experts), self.rank, self.group)

    def gather_report(self, values: Tensor, num_experts: int) -> Tensor:
        """All-gather."""
        numbers = values.long() if values.dtype == torch.bool else values
        return _gather(numbers, self.share(num_experts), self.group).to(values.dtype)

    def together(self, work: Callable[[], Result]) -> Result:
        """One number is summed: how many processes have failed."""
        problem: NeuralopKitError | None = None
        result: list[Result] = []
        try:
            result.append(work())
        except NeuralopKitError as error:
            problem = error
        device = torch.device("cuda") if dist.get_backend(self.group) == "nccl" else torch.device("cpu")
        failures = torch.tensor([float(problem is not None)], device=device)
        dist.all_reduce(failures, group=self.group)
        if problem is not None:
            raise problem
        if failures.item() > 0:
            raise ConvergenceError(
                f"expected the solves of all {self.size} processes to end, got errors on {int(failures.item())} "
                "others; see their messages"
            )
        return result[0]

    def __repr__(self) -> str:
        return f"ExpertParallel({self.size} processes)"


def average_gradients(parameters: Iterable[Tensor], *, group: dist.ProcessGroup | None = None) -> None:
    """Replace every gradient by its mean over processes, as ``DistributedDataParallel`` does; for models without it.

    Args:
        parameters: of a model that is the same on all processes; those without a gradient count as zero.
        group: by default all processes.
    """
    trainable = [p for p in parameters if p.requires_grad]
    for p in trainable:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    if not trainable:
        return
    flat = torch.cat([p.grad.flatten() for p in trainable if p.grad is not None])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    for p, part in zip(trainable, flat.split([p.numel() for p in trainable]), strict=True):
        p.grad = part.view_as(p)


def gather_slices(values: Tensor, share: tuple[int, ...], rank: int, group: dist.ProcessGroup) -> Tensor:
    """``(batch, own, ...)`` of all processes next to each other; the derivative sums over processes, to any order."""
    return _GatherSum.apply(values, share, rank, group)


def _gather(values: Tensor, share: tuple[int, ...], group: dist.ProcessGroup) -> Tensor:
    """``(batch, own, ...)`` of all processes next to each other; shorter ones are filled up for the way."""
    width = max(share)
    padded = values.new_zeros((len(values), width, *values.shape[2:]))
    padded[:, : values.shape[1]] = values
    parts = [torch.empty_like(padded) for _ in share]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:, :number] for part, number in zip(parts, share, strict=True)], dim=1)


def _sum_and_pick(values: Tensor, share: tuple[int, ...], rank: int, group: dist.ProcessGroup) -> Tensor:
    """The part of this process in the sum over all: the transpose of :func:`_gather`."""
    total = values.contiguous().clone()
    dist.all_reduce(total, group=group)
    first = sum(share[:rank])
    return total[:, first : first + share[rank]].contiguous()


class _GatherSum(torch.autograd.Function):
    """Gather forward, sum and pick backward; each is the other's derivative, to any order."""

    @staticmethod
    def forward(values: Tensor, share: tuple[int, ...], rank: int, group: dist.ProcessGroup) -> Tensor:
        return _gather(values, share, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *ctx.where = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _SumPick.apply(gradient, *ctx.where), None, None, None


class _SumPick(torch.autograd.Function):
    """See :class:`_GatherSum`."""

    @staticmethod
    def forward(values: Tensor, share: tuple[int, ...], rank: int, group: dist.ProcessGroup) -> Tensor:
        return _sum_and_pick(values, share, rank, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *ctx.where = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _GatherSum.apply(gradient, *ctx.where), None, None, None
