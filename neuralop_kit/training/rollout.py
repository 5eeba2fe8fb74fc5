"""Autoregressive prediction: a one-step operator applied to its own output, again and again."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.training.losses import reduced, relative_l2


def rollout(model: nn.Module, u0: Tensor, num_steps: int, *, include_start: bool = False) -> Tensor:
    """The trajectory that a one-step operator predicts from ``u0``.

        u_1 = model(u_0),  u_2 = model(u_1),  ...

    A model that takes several past states has them as channels, oldest first: it predicts the next state, which
    replaces the oldest one. Gradients flow through all steps; wrap the call in ``torch.no_grad()`` to evaluate.

    Args:
        model: field in, field out, at the same resolution.
        u0: ``(batch, channel, *space)``; with k past states its channels are k times those the model predicts.
        num_steps: number of applications, at least 1.
        include_start: put the last given state first.

    Returns:
        ``(batch, num_steps, channel, *space)``, one time more with ``include_start``.

    Raises:
        ShapeError: the predicted field cannot take the place of a past state.

    >>> halve = nn.Conv1d(1, 1, 1, bias=False).requires_grad_(False)
    >>> _ = halve.weight.fill_(0.5)
    >>> rollout(halve, torch.full((1, 1, 4), 8.0), 3)[0, :, 0, 0].tolist()
    [4.0, 2.0, 1.0]
    """
    if num_steps < 1:
        raise ArgumentError(f"expected num_steps >= 1, got {num_steps}; one step is model(u0)")
    states: list[Tensor] = []
    window = u0
    for _ in range(num_steps):
        state: Tensor = model(window)
        if not states:
            _check_step(u0, state)
        states.append(state)
        window = torch.cat([window[:, state.shape[1] :], state], dim=1)
    if include_start:
        states.insert(0, u0[:, -states[0].shape[1] :])
    return torch.stack(states, dim=1)


def rollout_errors(
    model: nn.Module,
    u0: Tensor,
    trajectory: Tensor,
    *,
    domain: Domain | None = None,
    metric: Callable[..., Tensor] = relative_l2,
    reduction: str = "mean",
) -> Tensor:
    """The error after each step of a rollout, without gradients.

    Args:
        model, u0: as in :func:`rollout`.
        trajectory: true states after ``u0``, ``(batch, time, channel, *space)``; gives the number of steps.
        domain: gives the quadrature weights.
        metric: ``relative_l2``, or one of the measures of PDEBench and The Well (``nrmse``, ``vrmse``, ...); called as
            ``metric(prediction, target, domain=..., reduction="none")``; a value per channel is averaged over channels.
        reduction: over samples: ``"mean"`` and ``"sum"`` give ``(time,)``, ``"none"`` gives ``(batch, time)``.

    >>> errors = rollout_errors(nn.Identity(), torch.ones(2, 1, 8), torch.full((2, 3, 1, 8), 2.0))
    >>> errors.tolist()
    [0.5, 0.5, 0.5]
    """
    with torch.no_grad():
        predicted = rollout(model, u0, trajectory.shape[1])
    pairs = zip(predicted.unbind(dim=1), trajectory.unbind(dim=1), strict=True)
    each = [metric(p, t, domain=domain, reduction="none").reshape(len(u0), -1).mean(dim=1) for p, t in pairs]
    return reduced(torch.stack(each, dim=-1), reduction)


def _check_step(u0: Tensor, state: Tensor) -> None:
    same_grid = state.shape[0] == u0.shape[0] and state.shape[2:] == u0.shape[2:]
    if not same_grid or u0.shape[1] % state.shape[1]:
        raise ShapeError(
            f"expected a prediction that can replace a past state of {tuple(u0.shape)}, got {tuple(state.shape)}; "
            "the model must keep the grid, and its input channels be a multiple of its output channels"
        )
