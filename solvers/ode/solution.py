"""What an integrator gives back: the trajectory, and what it cost, step by step."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.status import Status


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a solve cost, and the solver's own estimates of why; ``error`` and ``stiffness`` can be differentiated.

    Of trial step ``j`` of length ``h`` from ``u`` to ``v``, with stages ``k_i`` at the states ``g_i``:

        E_j = RMS( h * sum_i (bhat_i - b_i) k_i / (atol + rtol * max(|u|, |v|)) )       accepted when E_j <= 1
        S_j = RMS(k_last - k_before) / RMS(g_last - g_before)                           about the largest |eigenvalue|

    RMS runs over one sample in per-sample control, over the whole batch in joint control.

    Args:
        num_accepted, num_rejected, num_evaluations: int64, ``(batch,)``. An evaluation of the
            field counts for a sample while that sample is on its way.
        status: values of :class:`Status`, int64, ``(batch,)``.
        error: ``E``; shape ``(num_rows, batch)``, in joint control ``(num_rows, 1)``, as all that follow.
        stiffness: ``S``.
        step_size: ``|h|``; a constant in every gradient.
        step_start: the time at which the step began.
        accepted: which entries are steps that were taken. The others (rejected, or the sample had arrived) carry 0 in
            all the rows above; a row without any taken step is left out.

    Source: Shampine (1977) for ``S``; Pal et al. (2021), section 3, for what both are good for.

    >>> import torch
    >>> from neuralop_kit.solvers.ode import odeint
    >>> stats = odeint(lambda t, y: -3.0 * y, torch.ones(2, 1), torch.tensor([0.0, 1.0])).stats
    >>> bool((stats.error <= 1).all()), round(stats.stiffness[0, 0].item(), 2)
    (True, 3.0)
    """

    num_accepted: Tensor
    num_rejected: Tensor
    num_evaluations: Tensor
    status: Tensor
    error: Tensor
    stiffness: Tensor
    step_size: Tensor
    step_start: Tensor
    accepted: Tensor

    @property
    def converged(self) -> Tensor:
        """Which samples reached the last time, bool, ``(batch,)``."""
        return self.status == Status.CONVERGED

    def raise_if_failed(self) -> None:
        """Raise a :class:`ConvergenceError` that names the failed samples; does nothing when there are none."""
        failed = [(i, Status(s).name) for i, s in enumerate(self.status.tolist()) if s != Status.CONVERGED]
        if failed:
            listed = ", ".join(f"sample {i}: {name}" for i, name in failed[:8]) + (", ..." if len(failed) > 8 else "")
            raise ConvergenceError(
                f"expected all {len(self.status)} samples to reach the last time, "
                f"got {len(failed)} failures ({listed}); look at their right-hand sides, allow more steps, "
                "loosen the tolerances, or take a stiff method"
            )


@dataclass(frozen=True, eq=False)
class Solution:
    """A trajectory, and how it was found.

    Args:
        ts: the times asked for, ``(num_times,)`` or, where every sample has its own, ``(num_times, batch)``.
        ys: the state at these times, ``(num_times, batch, ...)``; NaN where a failed sample did not arrive.
        stats: see :class:`Statistics`.
        last_t: the time up to which each sample came, ``(batch,)``.
        last_y: the state there, ``(batch, ...)``: of a sample that failed, the last good one.
        dense: continues the trajectory between the times; only where ``odeint`` was asked for it.

    >>> import torch
    >>> from neuralop_kit.solvers.ode import odeint
    >>> solution = odeint(lambda t, y: -y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), rtol=1e-6, dense=True)
    >>> round(solution.ys[-1].item(), 4), round(solution(torch.tensor(0.5)).item(), 4)
    (0.3679, 0.6065)
    """

    ts: Tensor
    ys: Tensor
    stats: Statistics
    last_t: Tensor
    last_y: Tensor
    dense: Callable[[Tensor], Tensor] | None = None

    def __call__(self, t: Tensor) -> Tensor:
        """The state at time ``t``, a number for all samples or shape ``(batch,)``; returns ``(batch, ...)``."""
        if self.dense is None:
            raise ArgumentError("expected a solution with dense output, got one without; call odeint(..., dense=True)")
        return self.dense(t)
