"""Dense quasi-Newton methods with self-scaling, for small networks in float64."""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import line_search
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.base import KitOptimizer, State, StepKind, dense_gradient, real_view
from neuralop_kit.solvers.errors import ArgumentError

_SEARCH_WARNINGS = "The line search algorithm|Rounding errors prevent the line search"


class QuasiNewton(KitOptimizer):
    """Base: an inverse Hessian H of all weights, learned from differences of gradients along strong Wolfe steps.

        s = step,  y = change of gradient,  v = s / s.y - H y / y.Hy
        H <- (1/tau) [H - H y (H y)^T / y.Hy + phi (y.Hy) v v^T] + s s^T / s.y

    A leaf gives tau and phi. All weights are in one group. A step whose line search fails starts H anew, one that is
    out of evaluations goes as far as the last of them, if the loss is lower there; a step whose loss is not finite is
    refused. :attr:`status` is "moved", "restarted", "stayed" or "refused".

    Memory: P^2 float64 numbers for P weights, so P up to some thousands. Time: 4 P^2 and some evaluations per step.

    Args:
        params: parameters, in one group.
        lr: first trial length along ``-H g``, > 0.
        c1, c2: of the strong Wolfe conditions, ``0 < c1 < c2 < 1``.
        max_evaluations: of the line search.
    """

    step_kind: ClassVar[StepKind] = "closure"
    _step_supports_amp_scaling = False
    needs_whole = "takes all weights as one vector"

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 1.0, *, c1: float = 1e-4, c2: float = 0.9, max_evaluations: int = 25
    ) -> None:
        if not 0.0 < c1 < c2 < 1.0:
            raise ArgumentError(f"expected 0 < c1 < c2 < 1, got c1={c1}, c2={c2}; 1e-4 and 0.9 are usual")
        self.c1, self.c2, self.max_evaluations, self.status = c1, c2, max_evaluations, ""
        super().__init__(params, {"lr": lr})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The first group; there is no second one."""
        if self.param_groups:
            raise ArgumentError("expected one group, got a second one; one inverse Hessian has one learning rate")
        super().add_param_group(param_group)

    @abstractmethod
    def scaling(self, b: float, h: float, size: int) -> tuple[float, float]:
        """tau and phi from ``b = s.H^-1 s / s.y``, ``h = y.Hy / s.y`` and the number of weights; ``b h >= 1``."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss.
        """
        if closure is None:
            raise ArgumentError(
                f"expected a closure, got none; {type(self).__name__} evaluates the loss at trial steps"
            )
        if not self._parameters():
            raise ArgumentError("expected parameters with requires_grad, got none; unfreeze some of them")
        problem = _Evaluations(self._parameters(), closure)
        try:
            return torch.tensor(self._step(problem), dtype=torch.float64)
        except Exception:
            # A trial may raise; it is no place to stay.
            problem.place(problem.start)
            raise

    def _step(self, problem: "_Evaluations") -> float:
        """Move, and return the loss before."""
        start, (loss, gradient) = problem.start, problem(problem.start)
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            self.status = "refused"
            return loss
        state = self._state(len(start))
        inverse = state["inverse_hessian"].numpy()
        lr = float(self.param_groups[0]["lr"])
        direction = -lr * (inverse @ gradient)
        size = self._search(problem, start, direction, gradient, loss)
        if size is None:
            # Along the bare gradient a failure means that rounding is reached.
            self.status = "restarted" if state["num_updates"] else "stayed"
            state["inverse_hessian"], state["num_updates"] = torch.eye(len(start), dtype=torch.float64), 0
            problem.place(start)
            return loss
        end = start + size * direction
        _, new_gradient = problem(end)
        problem.place(end)
        step, change = end - start, new_gradient - gradient
        b = -size * lr * float(step @ gradient)
        if self.update_inverse(inverse, step, change, b, is_first=state["num_updates"] == 0):
            state["num_updates"] += 1
        self.status = "moved"
        return loss

    def update_inverse(
        self, inverse: np.ndarray, s: np.ndarray, y: np.ndarray, curvature: float, *, is_first: bool
    ) -> bool:
        """Update H in place; False where ``s.y <= 0`` and there is nothing to learn.

        Args:
            inverse: H, ``(P, P)``.
            s, y: step and change of gradient.
            curvature: ``s.H^-1 s``.
            is_first: H is still the identity, and takes the scale ``s.y / y.y`` of the problem before the update.
        """
        product = float(s @ y)
        if product <= 0.0:
            return False
        if is_first:
            inverse *= product / float(y @ y)
            curvature *= float(y @ y) / product
        image = inverse @ y
        weight = float(y @ image)
        tau, phi = self.scaling(curvature / product, weight / product, len(s))
        v = s / product - image / weight
        inverse -= np.outer(image, image / weight)
        inverse += np.outer(phi * weight * v, v)
        inverse /= tau
        inverse += np.outer(s / product, s)
        return True

    def _search(
        self, problem: "_Evaluations", start: np.ndarray, direction: np.ndarray, gradient: np.ndarray, loss: float
    ) -> float | None:
        """A length with the strong Wolfe conditions, or one that is still too short for them; None if there is none."""
        if not direction.any():
            return None
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # What scipy warns of is what the status says.
            warnings.filterwarnings("ignore", message=_SEARCH_WARNINGS, category=RuntimeWarning)
            size, _, _, _, _, slope = line_search(
                lambda x: problem(x)[0], lambda x: problem(x)[1], start, direction, gfk=gradient, old_fval=loss,
                c1=self.c1, c2=self.c2, maxiter=self.max_evaluations,
            )  # fmt: skip
        if size is None or slope is not None:
            return size
        # Without a slope the evaluations ended at the longest trial, which may be anywhere.
        decreases = problem(start + size * direction)[0] <= loss + self.c1 * size * float(gradient @ direction)
        return size if decreases else None

    def _state(self, size: int) -> State:
        """H and the number of its updates, kept with the first parameter."""
        state = self.state[self._parameters()[0]]
        # A checkpoint may have brought it to another device.
        state["inverse_hessian"] = state["inverse_hessian"].cpu() if "inverse_hessian" in state else torch.empty(0)
        if len(state["inverse_hessian"]) != size:
            state["inverse_hessian"], state["num_updates"] = torch.eye(size, dtype=torch.float64), 0
        return state

    def _parameters(self) -> list[Tensor]:
        return [p for p in self.param_groups[0]["params"] if p.requires_grad]


class BFGS(QuasiNewton):
    """``tau = phi = 1``: Broyden, Fletcher, Goldfarb, Shanno, with dense H.

    Args: see :class:`QuasiNewton`.

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = BFGS([weight])
    """

    def scaling(self, b: float, h: float, size: int) -> tuple[float, float]:
        """Ones."""
        return 1.0, 1.0


class SSBFGS(QuasiNewton):
    """Self-scaled BFGS: ``phi = 1``, ``tau = min(1, 1/b)``.

    Args: see :class:`QuasiNewton`.

    Source: Al-Baali (1998); for PINNs Urban, Stefanou and Pons (2025), "Unveiling the optimization process of PINNs".

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = SSBFGS([weight])
    """

    def scaling(self, b: float, h: float, size: int) -> tuple[float, float]:
        """Shrink the directions that H overestimates."""
        return min(1.0, 1.0 / b), 1.0


class SSBroyden(QuasiNewton):
    """Self-scaled Broyden: tau and phi between BFGS and beyond DFP, as far as H stays positive definite.

        A = b h - 1,  c = sqrt(A / (1 + A)),  rho = min(1, h (1 - c)),  theta = max((rho - 1)/A, min(1/rho, (1 - b)/b))
        sigma = 1 + A theta,  q = |sigma|^(1/(1-P)),  phi = (1 - theta) / sigma
        tau = min(q min(1, 1/b), sigma) if theta <= 0, else min(1, 1/b) min(q, 1/theta)

    Where A is nearly zero H is already right along s, and the update is that of :class:`SSBFGS`.

    Args: see :class:`QuasiNewton`.

    Good values: networks of a few hundred weights, float64; the PINN literature trains the logarithm or the root of the
    loss to go further. On residuals :class:`GaussNewton` is faster; this one needs only a loss.
    Source: Urban, Stefanou and Pons (2025), "Unveiling the optimization process of PINNs"; second choice of theta.

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = SSBroyden([weight])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (weight.square() * torch.tensor([1.0, 10.0, 100.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> losses = [optimizer.step(closure) for _ in range(20)]
    >>> bool(losses[-1] < 1e-12)
    True
    """

    def scaling(self, b: float, h: float, size: int) -> tuple[float, float]:
        """See the class."""
        a = b * h - 1.0
        bfgs_tau = min(1.0, 1.0 / b)
        if a < 1e-10 or size < 2:
            return bfgs_tau, 1.0
        rho = min(1.0, h * (1.0 - (a / (1.0 + a)) ** 0.5))
        theta = max((rho - 1.0) / a, min(1.0 / rho, (1.0 - b) / b))
        sigma = 1.0 + a * theta
        q = abs(sigma) ** (1.0 / (1.0 - size))
        tau = min(bfgs_tau * q, sigma) if theta <= 0 else bfgs_tau * min(q, 1.0 / theta)
        return tau, (1.0 - theta) / sigma


class _Evaluations:
    """Loss and gradient as functions of the flat vector of weights; the last few are remembered."""

    def __init__(self, parameters: list[Tensor], closure: Callable[[], Any]) -> None:
        self.parameters, self.closure = parameters, closure
        self.start = torch.cat([real_view(p.detach()).flatten().double() for p in parameters]).numpy().copy()
        self.known: dict[bytes, tuple[float, np.ndarray]] = {}

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        key = x.tobytes()
        if key not in self.known:
            self.place(x)
            with torch.enable_grad():
                value = self.closure()
            if value is None:
                raise ArgumentError("expected a closure that returns the loss, got None; end it with `return loss`")
            self.known[key] = float(torch.as_tensor(value).detach()), self._gradient()
        return self.known[key]

    def place(self, x: np.ndarray) -> None:
        """Write the weights."""
        sizes = [real_view(p).numel() for p in self.parameters]
        for parameter, part in zip(self.parameters, torch.from_numpy(x).split(sizes), strict=True):
            view = real_view(parameter.data)
            view.copy_(part.view(view.shape))

    def _gradient(self) -> np.ndarray:
        rows = []
        for parameter in self.parameters:
            missing = parameter.grad is None
            gradient = torch.zeros_like(parameter) if missing else dense_gradient(parameter, "QuasiNewton")
            rows.append(real_view(gradient).flatten().double())
        return torch.cat(rows).cpu().numpy()
