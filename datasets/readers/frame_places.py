"""Where the frames of a quantity are in a file, for those who read them without asking anyone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.positioned import OpenFile
from neuralop_kit.datasets.readers.contents import ONE, SPACE_LETTERS, Variable
from neuralop_kit.datasets.readers.contiguous import ContiguousArray


class FramePlaces(ABC):
    """Frames that lie in a file as in memory, or with the axis of components last, each in one piece.

    Attributes:
        size: bytes of a frame.
        gap: bytes of something else that follows each.
        num_last: components that are stored point by point, behind the axes of space; 1 if they are not.
    """

    size: int
    gap: int
    num_last: int

    def run(self, sample: int) -> int | None:
        """Where all frames of a sample begin, if they follow each other as they do in memory."""
        return None

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
        num_last: components that are stored point by point.
    """

    size: int
    start: int
    sample_step: int
    frame_step: int
    num_last: int = 1
    gap: int = 0

    @classmethod
    def of(cls, variable: Variable, array: ContiguousArray, *, shape: tuple[int, ...]) -> "RegularPlaces | None":
        """Those of a variable that is stored sample by sample, frame by frame, channel by channel; else None."""
        if len(array.shape) != len(variable.axes):
            return None
        # Axes that are dropped have length one and no meaning, or are that of a single channel.
        kept = [i for i, letter in enumerate(variable.axes) if letter not in ONE + "c" or array.shape[i] != 1]
        axes = "".join(variable.axes[i] for i in kept)
        lengths, strides = [array.shape[i] for i in kept], [array.strides[i] for i in kept]
        num_outer = sum(letter in "nt" for letter in axes)
        outer, inner, space = axes[:num_outer], axes[num_outer:], SPACE_LETTERS[: len(shape)]
        begin = num_outer + inner.startswith("c")
        end = begin + len(shape)
        stored_so = inner in (space, f"c{space}", f"{space}c", f"{space}cd") and outer in ("", "n", "t", "nt")
        if not stored_so or tuple(shape) != tuple(lengths[begin:end]) or variable.initial is not None:
            return None
        num_last = math.prod(lengths[end:])
        if variable.num_components != math.prod(lengths[num_outer:begin]) * num_last:
            return None
        steps = dict(zip(outer, strides, strict=False))
        frame = math.prod(lengths[num_outer:]) * array.dtype.itemsize
        start = array.place + variable.skip * steps.get("t", 0)
        return cls(frame, start, steps.get("n", 0), steps.get("t", 0), num_last)

    def run(self, sample: int) -> int | None:
        """``start + sample_step sample`` for frames side by side."""
        side_by_side = self.frame_step == self.size and self.num_last == 1
        return self.start + self.sample_step * sample if side_by_side else None

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
        num_last: components that are stored point by point.
    """

    size: int
    gap: int
    offsets: NDArray[np.int64]
    num_last: int = 1

    @classmethod
    def of(cls, samples: Sequence[RegularPlaces], *, num_frames: int) -> "ListedPlaces":
        """Those of samples that are arrays of their own."""
        starts, steps = (np.array([[getattr(s, name)] for s in samples]) for name in ("start", "frame_step"))
        return cls(samples[0].size, 0, starts + steps * np.arange(num_frames), samples[0].num_last)

    def run(self, sample: int) -> int | None:
        """The first place, for frames side by side."""
        places = self.offsets[sample]
        side_by_side = self.num_last == 1 and (places[1:] - places[:-1] == self.size).all()
        return int(places[0]) if side_by_side else None

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
        seen: whether the numbers of a frame are known to be sound, ``(sample, frame)`` for each role.
    """

    file: OpenFile
    variables: tuple[FramePlaces, ...]
    seen: tuple[NDArray[np.bool_], ...]

    def all_seen(self, samples: Any, frames: Any) -> bool:
        """Whether all of these frames are known to be sound."""
        return all(bool(seen[samples, frames].all()) for seen in self.seen)
