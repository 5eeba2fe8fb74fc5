"""What a residual function may return, and the scaled vector that the Gram family works on."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

from neuralop_kit.optim.base import as_written
from neuralop_kit.solvers.errors import ArgumentError, NonFiniteError, ShapeError

ResidualValue = Tensor | Mapping[str, Tensor]
ResidualFunction = Callable[[], ResidualValue]
Weights = Mapping[str, float] | None

# A field of residuals per sample is one block per component, up to this many.
MAX_COMPONENTS = 16


def differentiable(function: ResidualFunction) -> ResidualFunction:
    """The function with a whole graph: what is compiled in it runs as it was written, reentrant checkpoints raise.

    Those have no graph inside and speak to ``backward`` alone: their weights would seem to have no effect at all.
    """
    written = as_written(function)

    def run() -> ResidualValue:
        if "apply" in vars(CheckpointFunction):
            # One such function inside another.
            return written()
        CheckpointFunction.apply = staticmethod(_refuse_reentrant)  # type: ignore[method-assign]
        try:
            return written()
        finally:
            del CheckpointFunction.apply

    return run


def _refuse_reentrant(*args: Any) -> Any:
    """In the place of a reentrant checkpoint; where nothing is differentiated it does no harm."""
    if torch.is_grad_enabled():
        raise ArgumentError(
            "expected checkpoints whose graph can be followed, got a reentrant one in the residual; "
            "call checkpoint(..., use_reentrant=False)"
        )
    return super(CheckpointFunction, CheckpointFunction).apply(*args)


def residual_blocks(value: ResidualValue, weights: Weights) -> dict[str, Tensor]:
    """The blocks of rows, each of shape ``(rows,)``, scaled so that the loss is half their sum of squares.

    A tensor is taken as it is. Of a dict, block ``b`` is scaled by ``sqrt(weight_b / rows_b)``: the loss is half the
    weighted sum of the mean squares. A block of shape ``(samples, components)`` becomes one block per component.

    Raises:
        ShapeError: a scalar where a vector is needed, or an empty block.
        ArgumentError: something else than real floating tensors, or weights that do not go with the blocks.
    """
    if isinstance(value, Tensor):
        if weights:
            raise ArgumentError(
                f"expected a dict of residuals with the names {sorted(weights)}, got one tensor; name its parts"
            )
        return dict(_components("residual", value))
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"expected a tensor or a dict of tensors from the residual function, got {type(value).__name__}; "
            "return the signed residuals"
        )
    if weights and weights.keys() != value.keys():
        raise ArgumentError(f"expected weights for {sorted(value)}, got {sorted(weights)}; give one for each block")
    if not value:
        raise ArgumentError("expected at least one block of residuals, got an empty dict; return the residuals")
    blocks = {}
    for name, block in value.items():
        for part, rows in _components(name, block):
            blocks[part] = rows * math.sqrt((weights[name] if weights else 1.0) / block.numel())
    return blocks


def _components(name: str, block: Tensor) -> list[tuple[str, Tensor]]:
    """A block as named vectors."""
    if not isinstance(block, Tensor) or not block.is_floating_point():
        kind = block.dtype if isinstance(block, Tensor) else type(block).__name__
        raise ArgumentError(
            f"expected real floating residuals in {name!r}, got {kind}; complex ones go through torch.view_as_real"
        )
    if block.ndim and block.numel() == 0:
        raise ShapeError(
            f"expected residuals in {name!r}, got none, shape {tuple(block.shape)}; leave the block and its weight out"
        )
    if block.ndim == 0:
        raise ShapeError(
            f"expected a residual vector in {name!r}, got shape {tuple(block.shape)}; "
            "return the signed residuals themselves, not their sum of squares"
        )
    rows = block.flatten(1) if block.ndim > 1 else block.unsqueeze(1)
    if rows.shape[1] == 1 or rows.shape[1] > MAX_COMPONENTS:
        return [(name, rows.flatten())]
    return [(f"{name}[{i}]", rows[:, i]) for i in range(rows.shape[1])]


def joined(blocks: Mapping[str, Tensor]) -> Tensor:
    """All rows, detached, float64."""
    return torch.cat([block.detach() for block in blocks.values()]).double()


def check_graph(blocks: Mapping[str, Tensor]) -> None:
    """Raise an :class:`ArgumentError` unless every block can be differentiated."""
    for name, block in blocks.items():
        if not block.requires_grad:
            raise ArgumentError(
                f"expected residuals that depend on the parameters, got {name!r} without a graph; "
                "do not detach them, and do not compute them under no_grad"
            )


def finite(r: Tensor) -> Tensor:
    """``r``, or a :class:`NonFiniteError`, also where its sum of squares is not finite."""
    if r.square().sum().isfinite():
        return r
    bad = int((~r.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"expected finite residuals, got {bad} of {len(r)} rows with NaN or infinity; shorten the step"
        )
    raise NonFiniteError(
        f"expected residuals whose sum of squares is finite, got sizes up to {r.abs().max().item():.0e}; "
        "multiply them by a small number"
    )


def finite_jacobian(matrix: Tensor) -> Tensor:
    """``matrix``, or a :class:`NonFiniteError`: derivatives may be NaN where the residual is not, as of a root at 0."""
    # A sum needs no memory, and is finite unless something in it is not, or overflows.
    if not matrix.sum().isfinite() and not matrix.isfinite().all():
        bad = int((~matrix.isfinite()).any(dim=1).sum())
        raise NonFiniteError(
            f"expected finite derivatives of the residual, got {bad} of {len(matrix)} rows with NaN or infinity; "
            "keep roots and norms away from zero"
        )
    return matrix


def finite_product(matrix: Tensor) -> Tensor:
    """A product of J with itself, or a :class:`NonFiniteError`: of factors, J is not looked at before."""
    if not matrix.sum().isfinite() and not matrix.isfinite().all():
        raise NonFiniteError(
            "expected finite derivatives of the residual, got products of them with NaN or infinity; "
            "keep roots and norms away from zero"
        )
    return matrix


def check_weights(weights: Weights) -> None:
    """Raise an :class:`ArgumentError` unless every weight is positive and finite."""
    for name, weight in (weights or {}).items():
        if not 0.0 < weight < math.inf:
            raise ArgumentError(f"expected a positive weight for {name!r}, got {weight}; leave the block out instead")
