"""torchdiffeq's signatures: existing code runs on these integrators by changing one import.

odeint           gradients by backpropagation through the steps
odeint_adjoint   the same gradients from the accepted states alone
odeint_event     until an event, with the gradient of its time

What differs: a failed solve raises :class:`ConvergenceError`, where the original has assertions; the step size follows
the root mean square over all numbers of the state, also of a tuple; ``rk4`` is the classical method, not the rule of
3/8; between fixed steps there is dense output in place of lines.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.ode import event, solve
from neuralop_kit.solvers.ode.adjoint import Adjoint
from neuralop_kit.solvers.ode.controllers import FixedStep, IController, StepController
from neuralop_kit.solvers.ode.method import Method
from neuralop_kit.solvers.ode.methods import METHODS
from neuralop_kit.solvers.ode.packing import Function, Numbers, Packed, Packing, State
from neuralop_kit.solvers.ode.replay import Replay

Options = Mapping[str, Any]

OTHER_NAMES = {"adaptive_heun": "heun"}


def odeint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Numbers = 1e-7,
    atol: Numbers = 1e-9,
    method: str | None = None,
    options: Options | None = None,
    event_fn: Function | None = None,
) -> Any:
    """Solve ``dy/dt = func(t, y)`` with one step size for all numbers of the state, which has any shape.

    Args:
        func: gets ``t`` as a number and the state; returns the shape of the state.
        y0: a tensor, real or complex, or a tuple of tensors of one dtype.
        t: times, ``(num_times,)``, rising or falling; with ``event_fn`` the second only gives the direction.
        rtol, atol: positive; for a tuple also one per part.
        method: ``"dopri5"`` by default; also any other name of ``odeint`` of this package, and ``"adaptive_heun"``.
            Methods without error estimate step from one time to the next, or by ``options["step_size"]``.
        options: ``first_step, min_step, max_num_steps, safety, ifactor, dfactor``; ``step_size`` of fixed steps.
        event_fn: solve until a component of ``event_fn(t, y)`` changes its sign, for ever if none does.

    Returns:
        States at the times, ``(num_times, *state)``, or a tuple of such; with ``event_fn`` the time of the event, and
        the states at the start and there.

    Raises:
        ArgumentError: a method or an option is not known here, or a number is out of range.
        ConvergenceError: the solve failed.

    >>> y = odeint(lambda t, y: -y, torch.tensor(1.0), torch.tensor([0.0, 1.0]))
    >>> [round(v, 5) for v in y.tolist()]
    [1.0, 0.36788]
    """
    return _solve(func, y0, t, rtol, atol, method, options, event_fn, None)


def odeint_adjoint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Numbers = 1e-7,
    atol: Numbers = 1e-9,
    method: str | None = None,
    options: Options | None = None,
    event_fn: Function | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: Any = None,
    adjoint_options: Any = None,
    adjoint_params: Any = None,
) -> Any:
    """The same, with one state per step in memory: see :class:`~neuralop_kit.solvers.ode.replay.Replay`.

    Gradients are those of :func:`odeint` to rounding, where the original solves a second equation backward with an
    error of its own. So arguments that begin with ``adjoint`` have nothing to say; they are accepted and left alone.
    """
    return _solve(func, y0, t, rtol, atol, method, options, event_fn, Replay())


def odeint_event(
    func: Function,
    y0: State,
    t0: Tensor,
    *,
    event_fn: Function,
    reverse_time: bool = False,
    rtol: Numbers = 1e-7,
    atol: Numbers = 1e-9,
    method: str | None = None,
    options: Options | None = None,
) -> tuple[Tensor, Any]:
    """Solve from ``t0`` until ``event_fn(t, y) = 0``; see :func:`odeint` and its ``event_fn``."""
    start = t0.reshape(1)
    t = torch.cat([start, start.detach() + (-1.0 if reverse_time else 1.0)])
    found: tuple[Tensor, Any] = odeint(
        func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn
    )
    return found


def _solve(
    func: Function,
    y0: State,
    t: Tensor,
    rtol: Numbers,
    atol: Numbers,
    method: str | None,
    options: Options | None,
    event_fn: Function | None,
    adjoint: Adjoint | None,
) -> Any:
    packing = Packing(y0)
    field, start = Packed(func, packing), packing.pack(y0)
    tolerances = packing.tolerance(rtol), packing.tolerance(atol)
    name = "dopri5" if method is None else OTHER_NAMES.get(method, method)
    if name not in METHODS:
        raise ArgumentError(
            f"expected a method among {sorted([*METHODS, *OTHER_NAMES])}, got {name!r}; take one of these"
        )
    settings = Settings(METHODS[name](), dict(options or {}))
    if event_fn is not None:
        return _until_event(field, start, t, event_fn, tolerances, settings)
    if settings.goes_through:
        ys = _states(field, start, t, tolerances, settings, adjoint)
    else:
        ends = [start[None]]
        for i in range(len(t) - 1):
            pair = t[i : i + 2]
            ends.append(_states(field, ends[-1][0], pair, tolerances, settings.between(pair), adjoint)[-1:])
        ys = torch.cat(ends)
    return packing.unpack(ys[:, 0])


@dataclass(frozen=True)
class Settings:
    """Method and options, in our words.

    Args:
        method: what steps.
        options: the user's.

    Raises:
        ArgumentError: an option is not known.
    """

    method: Method
    options: dict[str, Any]

    known = ("first_step", "min_step", "max_num_steps", "safety", "ifactor", "dfactor", "step_size")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.options) - set(self.known))
        if unknown:
            raise ArgumentError(f"expected options among {sorted(self.known)}, got {unknown}; leave the others out")

    @property
    def goes_through(self) -> bool:
        """Whether times inside steps come from dense output, rather than a solve from each time to the next."""
        is_accurate = len(self.method.dense) >= self.method.order - 1
        return is_accurate and (self.method.has_companion or "step_size" in self.options)

    def between(self, pair: Tensor) -> "Settings":
        """For one interval: a single step where nothing else chooses its length."""
        if self.method.has_companion or "step_size" in self.options:
            return self
        return Settings(self.method, {**self.options, "step_size": (pair[1] - pair[0]).item()})

    @property
    def controller(self) -> StepController:
        """That of torchdiffeq, or fixed steps."""
        if not self.method.has_companion:
            return FixedStep(self._number("step_size", math.nan))
        return IController(
            safety=self._number("safety", 0.9),
            max_factor=self._number("ifactor", 10.0),
            min_factor=self._number("dfactor", 0.2),
            shrinks_when_accepted=False,
        )

    @property
    def first_step(self) -> float | None:
        """Length of the first step."""
        return self._number("first_step", 0.0) or None

    @property
    def min_step(self) -> float:
        """Length at which to give up."""
        return self._number("min_step", 0.0)

    @property
    def max_steps(self) -> int:
        """Trial steps before giving up."""
        return int(self._number("max_num_steps", 2**31 - 1))

    def _number(self, name: str, default: float) -> float:
        value = self.options.get(name)
        return default if value is None else abs(float(value))


Tolerances = tuple[float | Tensor, float | Tensor]


def _states(
    field: Packed, y0: Tensor, t: Tensor, tolerances: Tolerances, settings: Settings, adjoint: Adjoint | None
) -> Tensor:
    """Packed states at all times, ``(num_times, 1, size)``."""
    return solve.odeint(
        field,
        y0,
        t,
        method=settings.method,
        rtol=tolerances[0],
        atol=tolerances[1],
        control="joint",
        controller=settings.controller,
        adjoint=adjoint,
        first_step=settings.first_step,
        max_steps=settings.max_steps,
        min_step=settings.min_step,
        raise_on_failure=True,
    ).ys


def _until_event(
    field: Packed, y0: Tensor, t: Tensor, event_fn: Function, tolerances: Tolerances, settings: Settings
) -> tuple[Tensor, Any]:
    unpack = field.packing.unpack
    with torch.no_grad():
        signs = torch.sign(event_fn(t[0], unpack(y0[0])))
    found = event.odeint_event(
        field,
        y0,
        torch.stack([t[0], torch.full_like(t[0], math.inf) * torch.sign(t[1] - t[0]).detach()]),
        # All components begin positive: the first zero is that of the least.
        lambda s, y: (event_fn(s, unpack(y[0])) * signs).amin(),
        method=settings.method,
        rtol=tolerances[0],
        atol=tolerances[1],
        control="joint",
        controller=settings.controller,
        first_step=settings.first_step,
        max_steps=settings.max_steps,
    )
    if not found.found.all():
        raise ConvergenceError("expected an event, got none before the solve failed; look at the field")
    return found.t[0].to(t.dtype), unpack(torch.cat([y0, found.y]))
