"""A bare ``.npy`` array: the axes cannot be known, so they have to be said."""

import numpy as np

from neuralop_kit.datasets.readers.contents import AXIS_LETTERS, ONE, SPACE_LETTERS, Contents, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import unit_box
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.numpy_file import NumpyContainer
from neuralop_kit.solvers.errors import ArgumentError


class NumpyArray(Layout):
    """One field, steady or in time; PINO's and Huang's arrays have samples and times first or last.

    Of an array whose samples come last, all is read for each sample: convert it before training.
    """

    name = "npy"
    container = NumpyContainer

    def matches(self, file: NumpyContainer) -> bool:
        """Always: the format is the layout."""
        return True

    def contents(self, file: NumpyContainer, hints: Hints) -> Contents:
        """See the base class."""
        array, axes = file.array("u"), hints.axes
        if axes is None:
            raise ArgumentError(
                f"expected axes= for {file.path} with its axes {array.shape}, got none, and a .npy file does not say "
                "which is what; give one letter each, n sample, t time, c channel, x y z space, such as axes='ntxy'"
            )
        space = "".join(letter for letter in SPACE_LETTERS if letter in axes)
        known = set(axes) <= set(AXIS_LETTERS + ONE) - {"d"} and len(set(axes) - {ONE}) == len(axes.replace(ONE, ""))
        if not known or len(axes) != len(array.shape) or not space or space != SPACE_LETTERS[: len(space)]:
            raise ArgumentError(f"expected one letter of 'ntcxyz1' for each axis of {array.shape}, got axes={axes!r}")
        sizes = dict(zip(axes, array.shape, strict=True))
        count = sizes.get("c", 1)
        frames = sizes.get("t")
        return Contents(
            layout=self.name, name=file.path.stem, domain=unit_box(len(space), boundary="periodic", nodes="left"),
            shape=tuple(sizes[a] for a in space), variables=(Variable("u", axes, ("u",), num_components=count),),
            num_samples=sizes.get("n", 1), num_frames=frames, times=None if frames is None else np.arange(frames) * 1.0,
            dtype=common_dtype(array.dtype),
            assumptions=("grid of a periodic unit box, times are frame numbers: state domain= if they are not",),
        )  # fmt: skip
