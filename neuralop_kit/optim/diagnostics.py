"""What kind of solution an optimizer has found: numbers by which optimizers differ beyond their loss.

sharpness            largest eigenvalues of the Hessian, by Lanczos
effective_rank       of a matrix of weights or activations; also stable_rank
sparsity             share of weights that are nearly zero
opposing_signals     groups of samples that pull the weights apart
gradient_alignment   how far the gradients of named residuals agree
frequency_errors     error per wavenumber, and so the spectral bias
forgetting           how much of an old task a new one has cost
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view
from neuralop_kit.optim.gram.residual import ResidualFunction, Weights, check_graph, differentiable, residual_blocks
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


def sharpness(
    loss_fn: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    *,
    num_iterations: int = 30,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Largest and smallest eigenvalue of the Hessian of the loss, by Lanczos with full orthogonalisation.

    Gradient descent is stable where ``lr * largest < 2``. Extreme eigenvalues converge first; for outliers 20 to 50
    iterations are exact to many digits. Each costs one Hessian-vector product, about three forward passes.

    Args:
        loss_fn: returns the scalar loss.
        parameters: tensors that it depends on; complex ones count as pairs of reals.
        num_iterations: at most as many as there are weights.
        generator: of the first direction.

    Returns:
        The two; NaN where loss or gradient are not finite.

    >>> weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    >>> largest, smallest = sharpness(lambda: (weight.square() * torch.tensor([1.0, 5.0, -2.0])).sum(), [weight])
    >>> round(largest, 6), round(smallest, 6)
    (10.0, -4.0)
    """
    parameters = list(parameters)
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss_fn(), parameters, create_graph=True, materialize_grads=True)
        flat = _flat(gradients)
    if not flat.isfinite().all():
        return math.nan, math.nan

    def times(v: Tensor) -> Tensor:
        if not flat.requires_grad:
            return torch.zeros_like(v)
        return _flat(
            torch.autograd.grad(flat, parameters, v.to(flat.dtype), retain_graph=True, materialize_grads=True)
        ).double()

    device = torch.device("cpu") if generator is None else generator.device
    start = torch.randn(len(flat), generator=generator, dtype=torch.float64, device=device).to(flat.device)
    matrix = _lanczos(times, start, num_iterations)
    if not matrix.isfinite().all():
        return math.nan, math.nan
    values = torch.linalg.eigvalsh(matrix)
    return values[-1].item(), values[0].item()


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    """All gradients as one real vector."""
    return torch.cat([real_view(g).flatten() for g in gradients])


def _lanczos(times: Callable[[Tensor], Tensor], start: Tensor, num_iterations: int) -> Tensor:
    """The tridiagonal matrix of a symmetric operator on the Krylov space of ``start``."""
    basis = [start / start.norm()]
    diagonal, beside = [], []
    for _ in range(min(num_iterations, len(start))):
        image = times(basis[-1])
        diagonal.append(torch.dot(image, basis[-1]))
        # Twice is enough: rounding would bring back directions that are done.
        for _ in range(2):
            known = torch.stack(basis)
            image = image - known.T @ (known @ image)
        norm = image.norm()
        if norm <= 1e-10 * torch.stack(diagonal).abs().max():
            break
        beside.append(norm)
        basis.append(image / norm)
    matrix = torch.diag(torch.stack(diagonal))
    if len(diagonal) > 1:
        off = torch.stack(beside[: len(diagonal) - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return matrix


def effective_rank(matrix: Tensor) -> float:
    """``exp(-sum_i p_i log p_i)`` with ``p = s / sum s``: n for n equal singular values, 1 for a single one.

    NaN where the matrix is not finite.

    Args:
        matrix: ``(rows, columns)``; of weights, or of activations with their mean taken off.

    >>> round(effective_rank(torch.eye(5)), 6)
    5.0
    """
    shares = _singular_values(matrix)
    shares = shares[shares != 0] / shares.sum()
    return torch.exp(-(shares * shares.log()).sum()).item() if len(shares) else 0.0


def stable_rank(matrix: Tensor) -> float:
    """``|W|_F^2 / s_1^2``: at most the rank, and continuous; NaN where the matrix is not finite."""
    s = _singular_values(matrix)
    return (s.square().sum() / s[0].square()).item() if s.any() else 0.0


def _singular_values(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2:
        raise ShapeError(f"expected a matrix, got shape {tuple(matrix.shape)}; flatten all axes but one")
    if not matrix.isfinite().all():
        # A network that has diverged is to have a row in the table all the same.
        return torch.full((1,), math.nan, dtype=torch.float64)
    return torch.linalg.svdvals(matrix.detach().to(torch.promote_types(matrix.dtype, torch.float64)))


def sparsity(parameters: Sequence[Tensor], *, threshold: float = 0.01) -> float:
    """Share of the weights below ``threshold`` times the largest one of their tensor, in [0, 1]."""
    sizes = [p.detach().abs() for p in parameters if p.numel()]
    if not sizes:
        raise ArgumentError("expected weights, got none; give those of the network")
    return sum(int((size < threshold * size.max()).sum()) for size in sizes) / sum(size.numel() for size in sizes)


@dataclass(frozen=True)
class OpposingSignals:
    """Two groups of samples whose losses moved most, in opposite directions, during one step.

    Args:
        rising, falling: indices of the samples, ``(group_size,)`` each.
        cosine: between the mean gradients of the groups; near -1 if they pull the weights apart.
        share: of the squared norm of the whole gradient, that of the two groups together; above 1 if they cancel.
        curvature: of the loss along the difference of the two gradients.
    """

    rising: Tensor
    falling: Tensor
    cosine: float
    share: float
    curvature: float


def opposing_signals(
    losses_fn: Callable[[], Tensor], parameters: Sequence[Tensor], losses_before: Tensor, *, fraction: float = 0.05
) -> OpposingSignals:
    """The groups of samples whose losses rose and fell most since ``losses_before``, and how they oppose each other.

    Args:
        losses_fn: returns the losses of all samples, ``(samples,)``.
        parameters: what they depend on.
        losses_before: the same losses before the last step.
        fraction: size of each group, as a share of the samples, in (0, 1/2].

    Source: Rosenfeld and Risteski (2023), "Outliers with opposing signals"; the measures are ours.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> before = torch.tensor([2.0, -2.0])
    >>> found = opposing_signals(lambda: torch.cat([weight, -weight]), [weight], before, fraction=0.5)
    >>> found.cosine
    -1.0
    """
    if not 0.0 < fraction <= 0.5:
        raise ArgumentError(f"expected fraction in (0, 1/2], got {fraction}; 0.05 is a good start")
    parameters = list(parameters)
    with torch.enable_grad():
        losses = losses_fn()
    if losses.shape != losses_before.shape or losses.ndim != 1:
        raise ShapeError(f"expected losses of shape {tuple(losses_before.shape)} again, got {tuple(losses.shape)}")
    size = max(int(fraction * len(losses)), 1)
    order = (losses.detach() - losses_before).argsort(descending=True)
    rising, falling = order[:size], order[-size:].flip(0)

    def gradient(value: Tensor, *, create_graph: bool = False) -> Tensor:
        with torch.enable_grad():
            found = torch.autograd.grad(
                value, parameters, retain_graph=True, create_graph=create_graph, materialize_grads=True
            )
            return _flat(found)

    up, down = gradient(losses[rising].mean()), gradient(losses[falling].mean())
    whole = gradient(losses.mean(), create_graph=True)
    difference = up - down
    parts = (up.square().sum() + down.square().sum()) * (size / len(losses)) ** 2
    bent = gradient(torch.dot(whole, difference)) if whole.requires_grad else torch.zeros_like(difference)
    return OpposingSignals(
        rising=rising, falling=falling,
        cosine=(torch.dot(up, down) / (up.norm() * down.norm()).clamp_min(1e-300)).item(),
        share=(parts / whole.detach().square().sum().clamp_min(1e-300)).item(),
        curvature=(torch.dot(bent, difference) / difference.square().sum().clamp_min(1e-300)).item(),
    )  # fmt: skip


@dataclass(frozen=True)
class GradientAlignment:
    """How far the gradients of the blocks of a residual agree.

    Args:
        score: ``2 |mean_i v_i / |v_i||^2 - 1`` over the blocks whose gradient ``v_i`` is not zero: of two blocks the
            cosine; of n blocks 1 where all agree, ``2/n - 1`` where all are orthogonal, and -1 where they cancel.
        cosines: between each two blocks, ``(blocks, blocks)``; NaN with a gradient that is zero.
        norms: of the gradients.
        names: of the blocks.
    """

    score: float
    cosines: Tensor
    norms: Tensor
    names: tuple[str, ...]


def gradient_alignment(
    residual_fn: ResidualFunction, parameters: Sequence[Tensor], *, weights: Weights = None
) -> GradientAlignment:
    """Angles between the gradients of named residuals: whether equation, walls and data pull the same way.

    The inner products are ``r_i^T G_ij r_j`` with the blocks of the Gram matrix ``G = J J^T`` of all residuals. Where
    they are negative, gradient descent on the sum undoes for one what it does for another; curvature, as of the Gram
    family, SOAP or quasi-Newton methods, turns steps until less is undone.

    Args:
        residual_fn: what :class:`neuralop_kit.optim.GaussNewton` takes: a dict of blocks, or one of several components.
        parameters: what it depends on.
        weights: of the blocks; they change norms, not angles.

    Cost: a forward pass, and a backward pass for each block. Numbers are NaN where the residual is not finite.
    Source: Wang et al. (2025), "Gradient alignment in physics-informed neural networks".

    >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> gradient_alignment(lambda: {"inside": weight[:1], "walls": weight.sum()[None]}, [weight]).cosines[0, 1]
    tensor(0.7071, dtype=torch.float64)
    """
    parameters = list(parameters)
    with torch.enable_grad():
        blocks = residual_blocks(differentiable(residual_fn)(), weights)
    check_graph(blocks)
    gradients = torch.stack([
        _flat(torch.autograd.grad(rows, parameters, rows.detach(), retain_graph=True, materialize_grads=True)).double()
        for rows in blocks.values()
    ])  # fmt: skip
    norms = gradients.norm(dim=1)
    units = gradients / norms.unsqueeze(1)
    cosines = units @ units.T
    felt = norms != 0
    score = 2 * cosines[felt][:, felt].mean().item() - 1
    return GradientAlignment(score, cosines, norms, tuple(blocks))


def frequency_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Error per wavenumber, ``|FFT(prediction - target)_k| / |FFT(target)_k|``, averaged over batch and channels.

    Args:
        prediction, target: periodic fields ``(batch, channel, *space)``.

    Returns:
        Ratios ``(num_shells,)`` by the integer part of ``|k| + 1/2``; NaN where the target has nothing.

    >>> x = torch.arange(16) / 16 * 2 * math.pi
    >>> target = (torch.sin(x) + torch.sin(3 * x))[None, None]
    >>> frequency_errors(torch.sin(x)[None, None], target)[[1, 3]].round(decimals=6)
    tensor([0., 1.])
    """
    if prediction.shape != target.shape or target.ndim < 3:
        raise ShapeError(
            f"expected two fields (batch, channel, *space) of one shape, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}; a single field still needs both axes: u[None, None]"
        )
    prediction, target = (f.to(torch.promote_types(f.dtype, torch.float32)) for f in (prediction, target))
    space = target.shape[2:]
    axes = list(range(2, target.ndim))
    powers = [torch.fft.fftn(f, dim=axes).abs().square().sum(dim=(0, 1)) for f in (prediction - target, target)]
    lines = [torch.fft.fftfreq(n, d=1 / n, device=target.device) for n in space]
    radius = torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(dim=0).sqrt()
    shell = (radius + 0.5).long().flatten()
    sums = [torch.zeros(int(shell.max()) + 1).to(power).index_add_(0, shell, power.flatten()) for power in powers]
    ratio = (sums[0] / sums[1]).sqrt()
    # What is only rounding of the target is nothing.
    empty = sums[1] <= torch.finfo(target.dtype).eps ** 2 * sums[1].sum()
    return torch.where(empty, math.nan, ratio)[: min(space) // 2 + 1]


def forgetting(error_before: float, error_after: float) -> float:
    """Growth of the error on an old task while a new one was learned, as a factor: 1 is none, 10 a whole digit."""
    if not (error_before > 0 and error_after >= 0):
        raise ArgumentError(f"expected positive errors, got {error_before} and {error_after}; measure both on task A")
    return error_after / error_before
