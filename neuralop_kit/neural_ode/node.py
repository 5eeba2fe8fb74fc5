"""NeuralODE: a module whose output is the solution of a differential equation with a learned right-hand side."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.adjoint import Adjoint
from neuralop_kit.solvers.ode.control import CONTROLS, StepControl
from neuralop_kit.solvers.ode.controllers import StepController
from neuralop_kit.solvers.ode.method import Method
from neuralop_kit.solvers.ode.methods import METHODS
from neuralop_kit.solvers.ode.pose import named
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.ode.solve import odeint
from neuralop_kit.solvers.ode.trial import Stepper

Field = Callable[[Tensor, Tensor], Tensor]


class Autonomous(nn.Module):
    """A network ``u -> du/dt`` as a right-hand side ``(t, u) -> du/dt`` that does not look at the time.

    So an FNO or a MgNO becomes the right-hand side of a partial differential equation, by the method of lines.

    Args:
        network: maps a state to its rate of change, of the same shape.

    >>> NeuralODE(Autonomous(nn.Linear(3, 3)))(torch.zeros(2, 3), torch.tensor([0.0, 1.0])).ys.shape
    torch.Size([2, 2, 3])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """The network's value."""
        return self.network(u)


class NeuralODE(nn.Module):
    """Solve ``du/dt = field(t, u)`` from ``u(t_0) = u0``; the parameters are the field's.

    The solution brings what the solver measured on the way, ``solution.stats``, and this can be differentiated: a
    regularizer on it teaches the field to be cheap to solve.

    Args:
        field: ``(t, u) -> du/dt``, a module or a function; ``t`` broadcasts against ``u``. :class:`Autonomous` makes
            one of a network that takes ``u`` alone.
        method: a name or an object, see :func:`~neuralop_kit.solvers.ode.odeint`.
        rtol, atol: tolerances, positive. The weight of an :class:`ErrorRegularizer` belongs to one tolerance.
        control: ``"per_sample"`` step sizes, or one ``"joint"`` step size for the batch, which is cheaper where samples
            are alike.
        controller: of the step size.
        adjoint: how gradients are found; by default by backpropagation through the accepted steps.
        max_steps: trial steps before a sample gives up; the gradient holds each, so that a field that has become stiff
            ends in an error here before memory ends.
        raise_on_failure: whether a failed sample is an error; otherwise its states are NaN, its status says why.

    Shape: ``(batch, ...)`` and times ``(num_times,)`` to a solution with ``ys`` of ``(num_times, batch, ...)``.

    Raises:
        ArgumentError: a name is unknown, or the field takes no time; more, when called, from
            :func:`~neuralop_kit.solvers.ode.odeint`.

    Source: Chen et al. (2018), arXiv 1806.07366; Pal et al. (2021), arXiv 2105.03918.

    >>> node = NeuralODE(Autonomous(nn.Linear(2, 2)), rtol=1e-4, atol=1e-4)
    >>> solution = node(torch.randn(8, 2), torch.tensor([0.0, 0.5, 1.0]))
    >>> solution.ys.shape, bool(solution.stats.converged.all())
    (torch.Size([3, 8, 2]), True)
    """

    def __init__(
        self,
        field: Field,
        *,
        method: str | Method = "tsit5",
        rtol: float = 1e-6,
        atol: float = 1e-6,
        control: str | StepControl = "per_sample",
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
        max_steps: int = 1_000,
        raise_on_failure: bool = False,
    ) -> None:
        super().__init__()
        check_takes_time(field)
        self.field = field
        self.method = named(METHODS, method, "method")
        self.control = named(CONTROLS, control, "control")
        self.rtol, self.atol = rtol, atol
        self.controller, self.adjoint = controller, adjoint
        self.max_steps, self.raise_on_failure = max_steps, raise_on_failure

    def forward(self, u0: Tensor, t: Tensor, *, dense: bool = False) -> Solution:
        """The solution at the times ``t``; with ``dense``, it can be called at any time between them."""
        return self.solve(self.field, u0, t, dense=dense)

    # The loop over steps looks at values; what is compiled around it stays so, and so does a field compiled by itself.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def solve(self, field: Field, u0: Tensor, t: Tensor, *, dense: bool = False) -> Solution:
        """Solve with another field in the same way: for fields that carry an integral along."""
        return odeint(
            field, u0, t, method=self.method, rtol=self.rtol, atol=self.atol, control=self.control,
            controller=self.controller, adjoint=self.adjoint, max_steps=self.max_steps, dense=dense,
            raise_on_failure=self.raise_on_failure,
        )  # fmt: skip

    def stepper(self) -> Stepper:
        """Takes single steps as the solver does."""
        return Stepper(self.method, self.field, self.control, self.rtol, self.atol)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"method={type(self.method).__name__}, rtol={self.rtol}, atol={self.atol}"


def end_points(stop: float = 1.0, *, like: Tensor) -> Tensor:
    """The two times 0 and ``stop``, in dtype and on the device of a state: for layers of which only the end counts.

    >>> end_points(like=torch.zeros(3))
    tensor([0., 1.])
    """
    return torch.tensor([0.0, stop], dtype=like.dtype, device=like.device)


def check_takes_time(field: Field) -> None:
    """Raise an :class:`ArgumentError` for what takes the state alone, the usual mistake: it would fail deep inside."""
    try:
        signature = inspect.signature(field.forward if isinstance(field, nn.Module) else field)
    except (TypeError, ValueError):
        return  # built in, and silent about its arguments
    try:
        signature.bind(None, None)
    except TypeError:
        name = type(field).__name__ if isinstance(field, nn.Module) else getattr(field, "__name__", repr(field))
        raise ArgumentError(
            f"expected a field that takes the time and the state, got {name}{signature}; "
            "Autonomous(network) makes one of a network that takes the state alone"
        ) from None
