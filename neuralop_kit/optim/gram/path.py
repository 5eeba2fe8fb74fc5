"""Path: where a step leads, for each of its sizes."""

from dataclasses import dataclass

from torch import Tensor

# A bend that would be longer than this fraction of the straight part is cut to it: there the parabola is no better a
# model than the line. Anything from 0.2 to 1 does; twice the straight part is worse.
LONGEST_BEND = 0.35


@dataclass(frozen=True)
class Path:
    """``size * direction + min(size, longest) * size * bend``: a line, or a parabola that becomes one.

        r(theta + s v + s^2 b) = r + s J v + s^2 (r_vv / 2 + J b) + O(s^3),        b = -1/2 J^+ r_vv

    with the second derivative ``r_vv`` of the residual along v. With this bend residuals follow their linear model to
    third order in the size, on a line only to second: steps may be far longer where the residual is curved, as on the
    floor of a narrow valley. Known as geodesic acceleration. The source bends whole steps, and refuses those that bend
    too far; here all sizes of a line search lie on one parabola, and a bend that is too long is cut.

    Source: Transtrum and Sethna (2012), "Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares
    minimization", where the second derivative is a difference as well.

    Args:
        direction: ``(parameters,)``, float64; a whole step, learning rates included.
        bend: ``(parameters,)``; None for a line.
        longest: the size at which the bend is ``LONGEST_BEND`` times as long as the straight part.
    """

    direction: Tensor
    bend: Tensor | None = None
    longest: Tensor | None = None

    def displacement(self, size: float) -> Tensor:
        """Of all weights."""
        if self.bend is None or self.longest is None:
            return size * self.direction
        return size * (self.direction + self.longest.clamp_max(size) * self.bend)
