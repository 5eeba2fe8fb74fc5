"""Gauss-Newton and its relatives: damped, with momentum, half-inverse."""

from collections.abc import Mapping

from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.gram.control import AdaptiveHalving, StepControl
from neuralop_kit.optim.gram.engines import Engine
from neuralop_kit.optim.gram.filters import Damp, Power
from neuralop_kit.optim.gram.optimizer import GramOptimizer


class GaussNewton(GramOptimizer):
    """Damped least squares on the linearised residual; for small networks in float64 it reaches rounding.

        theta <- theta - lr * size * (J^T J + damping * s_max^2)^(-1) J^T r

    computed on the smaller side of J. Known as Levenberg-Marquardt, as MinSR (``J^T (J J^T + damping)^(-1) r``), and
    for PINNs as energy natural gradient in sample space (ENGD-W).

    Args:
        params: parameters or groups.
        lr: factor on the step, >= 0.
        damping: >= 0, as a fraction of the largest eigenvalue of ``J J^T``; the first one, where the control adapts it.
        rtol: singular values below this fraction of the largest one are dropped as well, in [0, 1). With 0 nothing is
            dropped and a Cholesky factorisation does.
        control: how far to go; by default :class:`AdaptiveHalving`, which adapts the damping to the step that was
            possible. :class:`LevenbergMarquardt` adapts it to the decrease of the loss, with whole steps only: cheaper
            per step, and slow near the solution. :class:`Halving` and others keep it.
        engine: how to get J; by default the cheapest one that is exact.
        weights: weight of each named block of residuals.
        momentum: of the increment, in [0, 1); see :class:`SPRING`.
        max_norm: limit on the length of a step.
        weight_decay: decoupled, >= 0.

    On the 2-D Poisson problem of the literature (257 weights, float64) it reaches a relative error of 1e-6 in 40 to 60
    steps; ``LevenbergMarquardt()`` is then at 1e-3, and without any adaptation some problems are not solved at all. On
    lines instead of parabolas, ``AdaptiveHalving(geodesic_acceleration=False)``, one seed in twenty ends in a curved
    valley at 2e-6, and errors on Burgers' equation are ten times larger.
    Good values: the defaults for residuals without noise in float64; for large networks, mini-batches or float32
    ``damping=1e-3, rtol=0, control=LevenbergMarquardt()``.
    Source: Mueller and Zeinhofer (2023); Guzman-Cordero et al. (2025), "Improving energy natural gradient descent".

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    >>> x = torch.linspace(-1, 1, 32, dtype=torch.float64).unsqueeze(1)
    >>> optimizer = GaussNewton(model.parameters())
    >>> for _ in range(30):
    ...     loss = optimizer.step(lambda: (model(x) - x.abs()).squeeze(1))
    >>> bool(loss < 0.05)
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        damping: float = 1e-3,
        rtol: float = 1e-8,
        control: StepControl | None = None,
        engine: Engine | None = None,
        weights: Mapping[str, float] | None = None,
        momentum: float = 0.0,
        max_norm: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, filter_=Damp(damping=damping, rtol=rtol), control=control or AdaptiveHalving(), engine=engine,
            weights=weights, momentum=momentum, max_norm=max_norm, weight_decay=weight_decay,
        )  # fmt: skip


class SPRING(GaussNewton):
    """Gauss-Newton with momentum that is corrected by the residual: Kaczmarz steps for points drawn anew each step.

        phi <- argmin_phi |J phi - r|^2 + damping s_max^2 |phi - mu phi_old|^2,    theta <- theta - lr * size * phi

    What the old increment already explains is not asked for again. The old one is ``size * phi``, what was gone in a
    straight line, and is forgotten by a step that stayed; with size 1, as published, this makes no difference.
    :class:`GaussNewton` with other defaults.

    Args: see :class:`GaussNewton`.

    Good values: momentum 0.5 to 0.8 with a control that searches; with :class:`FixedStep` momentum 0.8 to 0.99, lr
    0.05 to 0.1 and ``max_norm`` 0.03.
    Source: Goldshlager et al. (2024), "A Kaczmarz-inspired approach", eq. 14; for PINNs Guzman-Cordero et al. (2025).

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> _ = SPRING([weight]).step(lambda: weight - 2.0)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        damping: float = 1e-8,
        momentum: float = 0.8,
        rtol: float = 0.0,
        control: StepControl | None = None,
        engine: Engine | None = None,
        weights: Mapping[str, float] | None = None,
        max_norm: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, damping=damping, rtol=rtol, control=control, engine=engine, weights=weights, momentum=momentum,
            max_norm=max_norm, weight_decay=weight_decay,
        )  # fmt: skip


class HIG(GramOptimizer):
    """Half-inverse gradients: halfway between gradient descent and Gauss-Newton, for badly scaled outputs.

        theta <- theta - lr * size * V S^(-1/2) U^T r

    Args:
        params: parameters or groups.
        lr: factor on the step, >= 0; its scale is that of a root of a singular value.
        rtol: singular values below this fraction of the largest one are dropped, in [0, 1).
        exponent: of S; -1/2 is the half-inverse, -1 Gauss-Newton, 1 gradient descent.
        control, engine, weights, weight_decay: see :class:`GaussNewton`.

    Good values: rtol 1e-6; without noise lr 1 under :class:`AdaptiveHalving`.
    Source: Schnell et al. (2022), "Half-inverse gradients for physical deep learning", eq. 5.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> _ = HIG([weight]).step(lambda: weight - 2.0)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        rtol: float = 1e-6,
        exponent: float = -0.5,
        control: StepControl | None = None,
        engine: Engine | None = None,
        weights: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        filter_ = Power(exponent=exponent, rtol=rtol)
        super().__init__(
            params, lr, filter_=filter_, control=control or AdaptiveHalving(geodesic_acceleration=False),
            engine=engine, weights=weights, weight_decay=weight_decay,
        )  # fmt: skip
