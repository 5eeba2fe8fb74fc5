"""Which frames of a trajectory are given and which are asked for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.solvers.errors import ArgumentError


class Task(ABC):
    """A rule that cuts pairs (input, target) of frames out of trajectories; frames become channels, oldest first."""

    @abstractmethod
    def num_pairs(self, num_frames: int) -> int:
        """Pairs that a trajectory of so many frames gives; zero when it is too short."""

    @abstractmethod
    def frames(self, pair: int, num_frames: int) -> tuple[range, range]:
        """Input and target frames of pair number ``pair``."""

    def table(self, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input and target frames of all pairs, one row for each.

        >>> FinalTime().table(5)
        (array([[0]]), array([[4]]))
        """
        rows = [self.frames(pair, num_frames) for pair in range(self.num_pairs(num_frames))]
        return np.array([given for given, _ in rows], np.int64), np.array([asked for _, asked in rows], np.int64)


@dataclass(frozen=True)
class Steps(Task):
    """From some frames to the following ones, at every place of the trajectory: what autoregressive models learn.

    Args:
        history: frames given, at least 1.
        future: frames asked for, at least 1.
        stride: distance of frames that are used, at least 1.
        first: frame at which the earliest pair begins; PDEBench and The Well score what comes behind the input.

    >>> Steps(history=2).frames(3, 10)
    (range(3, 5), range(5, 6))
    >>> Steps(history=10, future=10, first=0).num_pairs(20)
    1
    """

    history: int = 1
    future: int = 1
    stride: int = 1
    first: int = 0

    def __post_init__(self) -> None:
        if min(self.history, self.future, self.stride) < 1 or self.first < 0:
            raise ArgumentError(f"expected history, future, stride >= 1 and first >= 0, got {self}; correct them")

    def num_pairs(self, num_frames: int) -> int:
        """One per start."""
        span = (self.history + self.future - 1) * self.stride + 1
        return max(0, num_frames - self.first - span + 1)

    def frames(self, pair: int, num_frames: int) -> tuple[range, range]:
        """``history`` frames from the start on, then ``future`` frames."""
        start = self.first + pair
        middle = start + self.history * self.stride
        return range(start, middle, self.stride), range(middle, middle + self.future * self.stride, self.stride)


@dataclass(frozen=True)
class FinalTime(Task):
    """From the first frame to the last one.

    >>> FinalTime().frames(0, 101)
    (range(0, 1), range(100, 101))
    """

    def num_pairs(self, num_frames: int) -> int:
        """One, if there is anything between."""
        return int(num_frames > 1)

    def frames(self, pair: int, num_frames: int) -> tuple[range, range]:
        """The first, the last."""
        return range(1), range(num_frames - 1, num_frames)
