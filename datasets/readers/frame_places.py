"""Where the frames of a quantity are in a file, for those who read them without asking anyone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.positioned import OpenFile
from neuralop_kit.datasets.readers.contents import SPACE_LETTERS, Variable
from neuralop_kit.datasets.readers.contiguous import ContiguousArray


class FramePlaces(ABC):
    """Frames that lie in a file as they are in memory, each in one piece.

    Attributes:
        size: bytes of a frame.
        gap: bytes of something else that follows each.
    """

    size: int
    gap: int

    @abstractmethod
    def at(self, samples: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where frame ``frames[i]`` of sample ``samples[i]`` begins."""


@dataclass(frozen=True)
class RegularPlaces(FramePlaces):
    """Frames at equal distances, of samples at equal distances.

    Args:
        size: bytes of a frame.
        start: where the first one begins.
        sample_step, frame_step: distances in bytes; zero for what does not change.
    """

    size: int
    start: int
    sample_step: int
    frame_step: int
    gap: int = 0

    @classmethod
    def of(cls, variable: Variable, array: ContiguousArray, *, shape: tuple[int, ...]) -> "RegularPlaces | None":
        """Those of a variable that is stored sample by sample, frame by frame, channel by channel; else None."""
        space = SPACE_LETTERS[: len(shape)]
        outer = variable.axes.removesuffix(space)
        lengths, components = array.shape[len(outer) :], 1
        if outer.endswith("c"):
            outer, components = outer[:-1], array.shape[len(outer) - 1]
        stored_so = variable.axes.endswith(space) and outer in ("", "n", "t", "nt") and lengths == shape
        if not stored_so or len(variable.places) != 1 or variable.initial or components != variable.num_components:
            return None
        steps = dict(zip(outer, array.strides, strict=False))
        first_frame = array.place + variable.skip * steps.get("t", 0)
        frame = int(np.prod(array.shape[len(outer) :])) * array.dtype.itemsize
        return cls(frame, first_frame, steps.get("n", 0), steps.get("t", 0))

    def at(self, samples: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """``start + sample_step sample + frame_step frame``."""
        return self.start + self.sample_step * samples + self.frame_step * frames


@dataclass(frozen=True)
class ListedPlaces(FramePlaces):
    """Frames that lie anywhere.

    Args:
        size: bytes of a frame.
        gap: bytes of something else that follows each.
        offsets: ``(sample, frame)``.
    """

    size: int
    gap: int
    offsets: NDArray[np.int64]

    def at(self, samples: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """From the list."""
        found: NDArray[np.int64] = self.offsets[samples, frames]
        return found


@dataclass(frozen=True)
class DirectFrames:
    """All quantities of some roles in one file.

    Args:
        file: open.
        variables: in the order of their channels.
        seen: whether the numbers of a frame are known to be sound, ``(sample, frame)``.
    """

    file: OpenFile
    variables: tuple[FramePlaces, ...]
    seen: NDArray[np.bool_]
