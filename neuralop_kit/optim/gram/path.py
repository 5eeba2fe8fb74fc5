"""Path: where a step leads, for each of its sizes."""

from dataclasses import dataclass

from torch import Tensor

# A bend that would be longer than this fraction of the straight part is cut to it: there the parabola is no better a
# model than the line. That of Transtrum and Sethna is 3/16, for whole steps alone; ours holds at every size.
LONGEST_BEND = 0.35


@dataclass(frozen=True)
class Path:
    """``size * direction + min(size, longest) * size * bend``: a line, or a parabola that becomes one.

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
