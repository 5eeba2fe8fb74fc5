"""Reading blocks of fields out of a file whose contents are known: ``(sample, time, channel, *space)``, always."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.positioned import OpenFile
from neuralop_kit.datasets.readers.container import Container
from neuralop_kit.datasets.readers.contents import ONE, SPACE_LETTERS, Contents, Numbers, Role, Variable
from neuralop_kit.datasets.readers.contiguous import ContiguousArray
from neuralop_kit.datasets.readers.frame_places import DirectFrames, FramePlaces, ListedPlaces, RegularPlaces
from neuralop_kit.solvers.errors import DataError, NonFiniteError


class FieldFile:
    """One file of a public layout, opened late.

    A process looks at every number once, when it first reads it; later reads trust the page cache, as long as it is the
    same file that is opened.

    Args:
        container: the file.
        contents: what is in it.
    """

    def __init__(self, container: Container, contents: Contents) -> None:
        self.container = container
        self.contents = contents
        # Of the file with this stamp: frames in which all numbers are finite, by roles.
        self._stamp: Any = None
        self._seen: dict[Role, NDArray[np.bool_]] = {}
        # Of the file that is open now.
        self._opened: Any = None
        self._direct: dict[tuple[Role, ...], DirectFrames | None] = {}

    @property
    def num_frames(self) -> int:
        """Times per trajectory; 1 for a steady problem."""
        return 1 if self.contents.num_frames is None else self.contents.num_frames

    def check_lengths(self) -> None:
        """See that the arrays are as long as the file says, before anyone makes room for what it says.

        Raises:
            DataError: one of them is shorter.
        """
        for variable in self.contents.variables:
            if variable.initial is not None:
                self._check_length(variable.initial, num_frames=1)
            self._check_length(variable, num_frames=self.num_frames - (variable.initial is not None))
        samples = self.contents.num_samples
        if samples > 1 and not any("n" in v.axes or len(v.places) > 1 for v in self.contents.variables):
            raise DataError(
                f"expected fields that differ between the {samples} samples of {self.container.path}, got none; take "
                "the file as one sample"
            )

    def read(self, samples: range, frames: range, roles: Sequence[Role]) -> Numbers:
        """A block ``(sample, time, channel, *space)`` of the variables with these roles, as float32 or float64.

        Raises:
            DataError: the file is damaged, or not what its own description says.
            NonFiniteError: NaN or infinity.
        """
        variables = self.contents.of_role(*roles)
        num_channels = sum(variable.num_components for variable in variables)
        shape = (len(samples), len(frames), num_channels, *self.contents.shape)
        block = self._only(variables, samples, frames, shape)
        if block is None:
            block, first = np.empty(shape, dtype=self.contents.dtype), 0
            for variable in variables:
                part = block[:, :, first : first + variable.num_components]
                self._fill(part, variable, samples, frames)
                first += variable.num_components
        where = slice(samples.start, samples.stop), slice(frames.start, frames.stop, frames.step)
        looked_at = [seen[where] for seen in self._seen_by(roles)]
        new = [seen for seen in looked_at if not seen.all()]
        if new:
            # A finite sum of squares is one of finite numbers, and is found faster; that of large ones may overflow.
            if not math.isfinite(np.vdot(block, block)):
                self._check_finite(block, samples)
            for seen in new:
                seen[...] = True
        return block

    def direct(self, roles: tuple[Role, ...]) -> DirectFrames | None:
        """Where the frames of these roles are, for reads into other arrays; None if they are not stored like that."""
        if roles not in self._direct or self.container.opened is not self._opened:
            self._direct[roles] = self._find_direct(roles, self._seen_by(roles))
        return self._direct[roles]

    def release(self) -> None:
        """Called when a batch has been read; keeps the file open."""

    def read_variable(self, variable: Variable, samples: range, frames: range) -> Numbers:
        """A block of one variable, of length one along every axis on which it does not depend."""
        if variable.initial is None:
            block = self._values(variable, samples, _shifted(frames, variable.skip))
        else:
            shape = (len(samples), len(frames), variable.num_components, *self.contents.shape)
            block = np.empty(shape, dtype=self.contents.dtype)
            self._fill(block, variable, samples, frames)
        self._check_finite(block, samples)
        return block

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_stamp": None, "_seen": {}, "_opened": None, "_direct": {}}

    def _seen_by(self, roles: Sequence[Role]) -> tuple[NDArray[np.bool_], ...]:
        """Which frames were looked at since the file with this stamp was opened, ``(sample, frame)``, for each role."""
        # Who is in another process, or closed the file, opens it again here.
        if self.container.opened is not self._opened:
            self._opened, self._direct = self.container.opened, {}
            if self.container.stamp != self._stamp:
                self._stamp, self._seen = self.container.stamp, {}
        shape = (self.contents.num_samples, self.num_frames)
        for role in roles:
            if role not in self._seen:
                self._seen[role] = np.zeros(shape, dtype=bool)
        return tuple(self._seen[role] for role in roles if self.contents.of_role(role))

    def _find_direct(self, roles: tuple[Role, ...], seen: tuple[NDArray[np.bool_], ...]) -> DirectFrames | None:
        found: list[FramePlaces] = []
        for variable in self.contents.of_role(*roles):
            arrays = self._arrays(variable)
            places = [RegularPlaces.of(variable, array, shape=self.contents.shape) for array in arrays]
            known = [place for place in places if place is not None]
            if not known or len(known) < len(variable.places):
                return None
            self._check_length(variable, num_frames=self.num_frames)
            found.append(known[0] if len(known) == 1 else ListedPlaces.of(known, num_frames=self.num_frames))
            file = arrays[0].file
        return DirectFrames(OpenFile(file.descriptor, file.path), tuple(found), seen) if found else None

    def _arrays(self, variable: Variable) -> list[ContiguousArray]:
        """All arrays of a variable, if they are alike and lie in the file as they are in memory; else some of them."""
        arrays: list[ContiguousArray] = []
        for place in variable.places:
            try:
                array = self.container.array(place)
            except DataError:
                break  # whoever reads this sample is told
            if not isinstance(array, ContiguousArray) or array.dtype != np.dtype(self.contents.dtype):
                break
            if arrays and array.shape != arrays[0].shape:
                break
            arrays.append(array)
        return arrays

    def _check_length(self, variable: Variable, num_frames: int) -> None:
        place = variable.places[0]
        found = dict(zip(variable.axes, self.container.array(place).shape, strict=False))
        if len(variable.places) > 1:
            found["n"] = len(variable.places)
        needed = {"n": self.contents.num_samples, "t": variable.skip + num_frames}
        if any(found.get(letter, length) < length for letter, length in needed.items()):
            raise DataError(
                f"expected at least the lengths {needed} at {place} of {self.container.path}, got {found}; the file is "
                "cut, or its parts do not go together"
            )

    def _only(
        self, variables: Sequence[Variable], samples: range, frames: range, shape: tuple[int, ...]
    ) -> Numbers | None:
        """The values of a single variable as they were read, where they need not be copied into a block."""
        if not self.container.copies or len(variables) != 1 or variables[0].initial is not None:
            return None
        values = self._values(variables[0], samples, _shifted(frames, variables[0].skip))
        fits = values.shape == shape and values.dtype == self.contents.dtype and values.flags.c_contiguous
        return values if fits else None

    def _check_finite(self, block: Numbers, samples: range) -> None:
        finite = np.isfinite(block)
        if not finite.all():
            # A block of length one holds for all samples.
            bad = [i for i, part in zip(samples, finite, strict=False) if not part.all()]
            raise NonFiniteError(
                f"expected finite numbers, got NaN or infinity in samples {bad[:8]} of {self.container.path}; leave "
                "them out, or fetch the file again"
            )

    def _fill(self, part: Numbers, variable: Variable, samples: range, frames: range) -> None:
        if variable.initial is None:
            part[...] = self._values(variable, samples, _shifted(frames, variable.skip))
            return
        # Frame 0 is an array of its own.
        has_start = len(frames) > 0 and frames[0] == 0
        if has_start:
            part[:, :1] = self._values(variable.initial, samples, range(1))
        rest = frames[1:] if has_start else frames
        if rest:
            part[:, int(has_start) :] = self._values(variable, samples, _shifted(rest, variable.skip - 1))

    def _values(self, variable: Variable, samples: range, frames: range) -> Numbers:
        """Something that broadcasts to ``(sample, time, component, *space)``."""
        if len(variable.places) == 1:
            return self._block(variable.places[0], variable, samples, frames)
        blocks = [self._block(variable.places[i], variable, range(1), frames) for i in samples]
        return np.concatenate(blocks) if blocks else np.empty((0, 1, 1) + (1,) * len(self.contents.shape))

    def _block(self, place: str, variable: Variable, samples: range, frames: range) -> Numbers:
        array = self.container.array(place)
        axes, space = variable.axes, SPACE_LETTERS[: len(self.contents.shape)]
        if len(array.shape) != len(axes):
            raise DataError(f"expected {len(axes)} axes at {place} of {self.container.path}, got shape {array.shape}")
        frame_slice = slice(frames.start, frames.stop, frames.step)
        chosen: dict[str, slice | int] = {"n": slice(samples.start, samples.stop), "t": frame_slice, ONE: 0}
        with self.container.explained():
            values = np.asarray(array[tuple(chosen.get(letter, slice(None)) for letter in axes)])
        order, permutation = _order(axes, space)
        values = values.transpose(permutation)
        lengths = dict(zip(order, values.shape, strict=True))
        components = lengths.get("c", 1) * lengths.get("d", 1)
        outer = [lengths.get(letter, 1) for letter in "nt"]
        expected = dict(zip(f"nt{space}", (len(samples), len(frames), *self.contents.shape), strict=True))
        if components != variable.num_components or any(lengths.get(k, n) != n for k, n in expected.items()):
            raise DataError(
                f"expected {expected} and {variable.num_components} components at {place} of {self.container.path}, "
                f"got {lengths}; the file is cut, or its parts do not go together"
            )
        return values.reshape(*outer, components, *(lengths.get(letter, 1) for letter in space))


@cache
def _order(axes: str, space: str) -> tuple[str, tuple[int, ...]]:
    """Axes in the order in which they are wanted, and where they are now; those of length one are gone."""
    letters = axes.replace(ONE, "")
    order = "".join(letter for letter in f"ntcd{space}" if letter in letters)
    return order, tuple(letters.index(letter) for letter in order)


def _shifted(frames: range, by: int) -> range:
    return range(frames.start + by, frames.stop + by, frames.step)
