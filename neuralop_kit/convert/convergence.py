"""convergence_report: does an operator act on functions, and still compute what was trained?"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.layers.resample import Resample
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, MissingExtraError
from neuralop_kit.solvers.sphere import SphereDomain

Grid = tuple[int, ...]


@dataclass(frozen=True)
class ConvergenceReport:
    """One function on many grids; all differences are relative, in the L2 norm over the domain.

    Both columns are needed. A network tied to pixels tends to something too, a pointwise map: its error falls, its
    drift does not. Orders are fitted to differences of neighbouring nested grids, for the error against the finest
    falls too fast near the end, where the finest grid's own error cancels.

    Args:
        shapes: the grids, coarsest first.
        reference: the grid that drift is measured from.
        error: against the finest grid; zero for that one.
        drift: from the output on the reference grid.
        step: difference to the next grid that is nested in it; NaN where there is none.
        order: slope between this step and the next; NaN where there is none.
        floor: share of the input, in the L2 norm, that oscillates too fast for the grid: no network can do better
            than its own answer to that.
    """

    shapes: tuple[Grid, ...]
    reference: Grid
    error: tuple[float, ...]
    drift: tuple[float, ...]
    step: tuple[float, ...]
    order: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def fitted_order(self) -> float:
        """That of the two finest nested steps; infinity when they are round-off, NaN where there are fewer than two."""
        if any(step < 1e-12 for step in self.step if not math.isnan(step)):
            return math.inf
        known = [order for order in self.order if not math.isnan(order)]
        return known[-1] if known else math.nan

    def __str__(self) -> str:
        head = f"{'grid':>12} {'error':>10} {'drift':>10} {'step':>10} {'order':>6} {'input floor':>12}"
        rows = [f"against the finest grid, and against the reference {_name(self.reference)}:", head]
        columns = (self.shapes, self.error, self.drift, self.step, self.order, self.floor)
        for shape, error, drift, step, order, floor in zip(*columns, strict=True):
            rows.append(
                f"{_name(shape):>12} {_number(error)} {_number(drift)} {_number(step)} "
                f"{'' if math.isnan(order) else f'{order:.2f}':>6} {floor:12.1e}"
            )
        return "\n".join(rows)

    def plot(self, path: str | Path) -> None:
        """Error and drift over the number of points, as a PNG file.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError(
                "expected matplotlib, got none; install it with pip install 'neuralop-kit[examples]'"
            ) from error
        figure = Figure(figsize=(5, 3.6), layout="constrained")
        axes = figure.subplots()
        points = [math.prod(shape) ** (1 / len(shape)) for shape in self.shapes]
        for values, label in ((self.error, "error against finest"), (self.drift, "drift from reference")):
            shown = [(x, y) for x, y in zip(points, values, strict=True) if y > 0]
            axes.loglog(*zip(*shown, strict=True), marker="o", label=label) if shown else None
        axes.set(xlabel="points per axis", ylabel="relative L2 difference")
        axes.grid(alpha=0.3)
        axes.legend()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def convergence_report(
    operator: Callable[[Tensor], Any],
    domain: Domain,
    function: Callable[[Tensor], Tensor],
    resolutions: Sequence[Sequence[int] | int],
    *,
    reference: Sequence[int] | None = None,
) -> ConvergenceReport:
    """Sample one function on several grids, in float64, and compare what the operator makes of it.

    Args:
        operator: any network; a module is copied to float64 and evaluated. Its output is a field on the input's grid,
            or a vector ``(batch, number)``.
        domain: where the function lives.
        function: coordinates ``(num_dims, *shape)`` to values ``(channel, *shape)`` or ``(*shape)``. Smooth functions
            show the order; functions with jumps show what data will be like.
        resolutions: the grids, one shape each or one number for all axes. Orders need three nested ones.
        reference: grid for the drift; by default the operator's own, or the first.

    Outputs on grids that are not nested are compared after interpolation to the coarser one.

    Raises:
        ArgumentError: there are fewer than two grids.

    >>> domain = Domain.periodic((1.0,))
    >>> smooth = torch.nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    >>> report = convergence_report(smooth, domain, lambda x: torch.sin(6.2831853 * x), [16, 32, 64])
    >>> report.error[0] > report.error[1] > report.error[2] == 0
    True
    """
    shapes = [(n,) * domain.num_dims if isinstance(n, int) else tuple(n) for n in resolutions]
    if len(shapes) < 2:
        raise ArgumentError(f"expected at least two resolutions, got {len(shapes)}; orders need three nested ones")
    shapes.sort(key=math.prod)
    home = tuple(reference or getattr(operator, "resolution", None) or shapes[0])
    exact = copy.deepcopy(operator).double().eval() if isinstance(operator, nn.Module) else operator
    fields = {shape: _sample(function, domain, shape) for shape in {*shapes, home}}
    with torch.no_grad():
        outputs = {shape: exact(field) for shape, field in fields.items()}
    compare = _Comparison(domain)
    following = [_next_nested(domain, shapes, index) for index in range(len(shapes))]
    steps = [
        math.nan if j is None else compare(outputs[shape], outputs[shapes[j]])
        for shape, j in zip(shapes, following, strict=True)
    ]
    return ConvergenceReport(
        shapes=tuple(shapes),
        reference=home,
        error=tuple(compare(outputs[shape], outputs[shapes[-1]]) for shape in shapes),
        drift=tuple(compare(outputs[home], outputs[shape]) for shape in shapes),
        step=tuple(steps),
        order=tuple(_orders(domain, shapes, steps, following)),
        floor=tuple(_floor(fields[shapes[-1]], shape, domain) for shape in shapes),
    )


def _sample(function: Callable[[Tensor], Tensor], domain: Domain, shape: Grid) -> Tensor:
    values = function(domain.coordinates(shape, dtype=torch.float64))
    # A function of one channel may leave its axis out, or keep that of a single coordinate.
    return values.reshape(1, -1, *shape)


def _nested(domain: Domain, coarse: Grid, fine: Grid) -> bool:
    try:
        domain.common_nodes(coarse, fine)
    except DomainError:
        return False
    return True


def _next_nested(domain: Domain, shapes: Sequence[Grid], index: int) -> int | None:
    later = range(index + 1, len(shapes))
    return next((j for j in later if _nested(domain, shapes[index], shapes[j])), None)


def _orders(
    domain: Domain, shapes: Sequence[Grid], steps: Sequence[float], following: Sequence[int | None]
) -> list[float]:
    """From each pair of steps in a row whose spacings shrink by the same factor."""
    orders = []
    for index, j in enumerate(following):
        k = None if j is None else following[j]
        order = math.nan
        if j is not None and k is not None and steps[index] > 0 and steps[j] > 0:
            h = [max(domain.spacing(shapes[i])) for i in (index, j, k)]
            if math.isclose(h[0] / h[1], h[1] / h[2], rel_tol=1e-6):
                order = math.log(steps[index] / steps[j]) / math.log(h[0] / h[1])
        orders.append(order)
    return orders


class _Comparison:
    """Relative difference of two outputs, on the points of the first."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.resample = Resample(domain)

    def __call__(self, a: Tensor, b: Tensor) -> float:
        if a.ndim == 2 + self.domain.num_dims:
            return self._fields(a, b)
        return _ratio((a - b).norm().item(), a.norm().item())

    def _fields(self, a: Tensor, b: Tensor) -> float:
        shape, other = tuple(a.shape[2:]), tuple(b.shape[2:])
        if _nested(self.domain, shape, other):
            b = b[(slice(None), slice(None), *self.domain.common_nodes(shape, other))]
        else:
            b = self.resample(b, shape)
        weights = self.domain.weights(shape, dtype=a.dtype)
        return _ratio((weights * (a - b) ** 2).sum().sqrt().item(), (weights * a**2).sum().sqrt().item())


def _ratio(difference: float, size: float) -> float:
    return difference / size if size > 0 else (0.0 if difference == 0 else math.inf)


def _floor(finest: Tensor, shape: Grid, domain: Domain) -> float:
    """Share of the finest sample beyond the Nyquist wavenumber of a grid, of its mirror image between walls.

    On a sphere, what is beyond the harmonics that the grid carries.
    """
    if isinstance(domain, SphereDomain):
        resample, weights = Resample(domain), domain.weights(tuple(finest.shape[2:]), dtype=finest.dtype)
        lost = finest - resample(resample(finest, shape), tuple(finest.shape[2:]))
        return _ratio((weights * lost**2).sum().sqrt().item(), (weights * finest**2).sum().sqrt().item())
    spectrum, kept = finest, torch.ones((), dtype=torch.bool)
    for index, (n, axis) in enumerate(zip(shape, domain.axes, strict=True)):
        dim = 2 + index
        if not axis.is_periodic:
            spectrum = torch.cat((spectrum, spectrum.flip(dim)), dim=dim)
        spectrum = torch.fft.fft(spectrum, dim=dim)
        m = spectrum.shape[dim]
        k = torch.fft.fftfreq(m, 1 / m).abs()
        kept = kept[..., None] & (k <= (n // 2 if axis.is_periodic else n))
    total = spectrum.abs().square()
    return _ratio(total[..., ~kept].sum().sqrt().item(), total.sum().sqrt().item())


def _name(shape: Grid) -> str:
    return "x".join(map(str, shape))


def _number(value: float) -> str:
    return f"{'' if math.isnan(value) else f'{value:.2e}':>10}"
