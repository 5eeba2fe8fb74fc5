"""NeuralSDE: a module whose output are paths of a stochastic equation with learned coefficients."""

import torch
from torch import Tensor, nn

from neuralop_kit.neural_ode.node import check_takes_time
from neuralop_kit.solvers.ode.control import CONTROLS, StepControl
from neuralop_kit.solvers.ode.controllers import StepController
from neuralop_kit.solvers.ode.pose import named
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.sde.brownian import BrownianPath
from neuralop_kit.solvers.sde.integrate import METHODS, sdeint
from neuralop_kit.solvers.sde.method import Coefficient, StochasticMethod


class NeuralSDE(nn.Module):
    """Solve ``du = drift(t, u) dt + diffusion(t, u) dW``, one Brownian motion per element of ``u``.

    Args:
        drift, diffusion: ``(t, u)`` to tensors of the shape of ``u``; ``t`` broadcasts against ``u``.
        method: a name or an object, see :func:`~neuralop_kit.solvers.sde.sdeint`; ``"sosri2"`` also estimates
            stiffness.
        rtol, atol: tolerances, positive; 0.01 to 0.3.
        control: ``"per_sample"`` or ``"joint"``.
        controller: of the step size.
        max_steps: trial steps before a sample gives up.
        raise_on_failure: whether a failed sample is an error.

    Shape: ``(batch, ...)`` and times ``(num_times,)`` to a solution with ``ys`` of ``(num_times, batch, ...)``. Several
    paths from one state: repeat it, ``u0.repeat_interleave(num_paths, dim=0)``.

    Source: Li et al. (2020), arXiv 2001.01328; Pal et al. (2021), arXiv 2105.03918, section 4.2.

    >>> sde = NeuralSDE(lambda t, u: -u, lambda t, u: 0.1 * u, rtol=0.1, atol=0.1)
    >>> sde(torch.ones(4, 2), torch.tensor([0.0, 1.0]), generator=torch.Generator().manual_seed(0)).ys.shape
    torch.Size([2, 4, 2])
    """

    def __init__(
        self,
        drift: Coefficient,
        diffusion: Coefficient,
        *,
        method: str | StochasticMethod = "sosri",
        rtol: float = 1e-2,
        atol: float = 1e-2,
        control: str | StepControl = "per_sample",
        controller: StepController | None = None,
        max_steps: int = 10_000,
        raise_on_failure: bool = False,
    ) -> None:
        super().__init__()
        check_takes_time(drift)
        check_takes_time(diffusion)
        self.drift, self.diffusion = drift, diffusion
        self.method = named(METHODS, method, "method")
        self.control = named(CONTROLS, control, "control")
        self.rtol, self.atol = rtol, atol
        self.controller = controller
        self.max_steps, self.raise_on_failure = max_steps, raise_on_failure

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        u0: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        brownian: BrownianPath | None = None,
    ) -> Solution:
        """One path per sample; fresh ones at every call, unless ``brownian`` says which."""
        return sdeint(
            self.drift, self.diffusion, u0, t, method=self.method, rtol=self.rtol, atol=self.atol,
            control=self.control, controller=self.controller, brownian=brownian, generator=generator,
            max_steps=self.max_steps, raise_on_failure=self.raise_on_failure,
        )  # fmt: skip
