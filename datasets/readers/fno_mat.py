"""MATLAB files of the FNO, PINO and MgNO papers, version 5 (scipy) and 7.3 (HDF5, axes reversed)."""

from typing import Any, ClassVar

import numpy as np

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.readers.container import Container
from neuralop_kit.datasets.readers.contents import Contents, Numbers, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import unit_box
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.matlab import ITEM_BYTES, MatlabContainer
from neuralop_kit.solvers.errors import DataError

# Solutions that are this small at the edge, compared with their maximum, are zero there.
EDGE = 1e-3
PAIRS = ({"coeff", "sol"}, {"a", "u"}, {"input", "output"})
EXTRA = ("Kcoeff", "Kcoeff_x", "Kcoeff_y")


class FnoMat(Layout):
    """Pairs ``coeff -> sol`` or ``a -> u``, trajectories ``u`` behind ``a``, trajectories ``output`` behind ``input``.

    Source: Li et al. (2021), arXiv 2010.08895, and its repository; Li et al. (2021), arXiv 2111.03794 (PINO); He et al.
    (2024), arXiv 2310.19809 (MgNO).
    """

    name = "FNO .mat"
    container: ClassVar[type[Container]] = MatlabContainer

    def matches(self, file: Any) -> bool:
        """One of the pairs of names."""
        return any(pair <= set(file.names()) for pair in PAIRS)

    def contents(self, file: Any, hints: Hints) -> Contents:
        """See the base class."""
        names = set(file.names())
        if {"coeff", "sol"} <= names:
            return self._darcy(file)
        if {"input", "output"} <= names:
            return self._in_time(file, "input", "output", "nx", "ntx")
        shape = self._shape(file, "u")
        if len(shape) == 2:
            return self._burgers(file)
        return self._in_time(file, "a", "u", "nxy", "nxyt")

    def _axes(self, letters: str) -> str:
        """Letters in the order of the file."""
        return letters

    def _shape(self, file: Any, place: str) -> tuple[int, ...]:
        """Shape in MATLAB's order."""
        return tuple(file.array(place).shape)

    def _darcy(self, file: Any) -> Contents:
        samples, *shape = self._shape(file, "coeff")
        if len(shape) != 2 or self._shape(file, "sol") != (samples, *shape):
            raise DataError(f"expected coeff and sol (sample, x, y) in {file.path}, got {shape}; it is another problem")
        axes = self._axes("nxy")
        index = tuple(slice(0, 1) if letter == "n" else slice(None) for letter in axes)
        with file.explained():
            first = np.asarray(file.array("sol")[index], dtype=np.float64)
        sol = np.abs(first.transpose([axes.index(letter) for letter in "nxy"]))[0]
        edge = max(sol[0].max(), sol[-1].max(), sol[:, 0].max(), sol[:, -1].max())
        nodes = "vertex" if edge <= EDGE * sol.max() and min(shape) > 1 else "cell"
        others = [name for name in EXTRA if name in file.names()]
        return Contents(
            layout=self.name, name="darcy", equation="-div(a grad u) = 1, u = 0 on the boundary",
            domain=unit_box(2, boundary="dirichlet", nodes=nodes), shape=tuple(shape),
            variables=(Variable("coeff", axes, ("coeff",), "input"), Variable("sol", axes, ("sol",), "target")),
            num_samples=samples, dtype=common_dtype(file.array("coeff").dtype, file.array("sol").dtype),
            assumptions=(f"grid of {nodes} nodes in a unit box, as the solution at the edge is "
                         f"{'zero' if nodes == 'vertex' else 'not zero'}",
                         *([f"{', '.join(others)} are left out: they follow from coeff"] if others else [])),
        )  # fmt: skip

    def _burgers(self, file: Any) -> Contents:
        a, u = self._shape(file, "a"), self._shape(file, "u")
        if a != u:
            raise DataError(f"expected a and u (sample, x) in {file.path}, got {a} and {u}; it is of another problem")
        axes = self._axes("nx")
        return Contents(
            layout=self.name, name="burgers", equation="u_t + (u^2/2)_x = viscosity u_xx; a at t = 0, u at t = 1",
            domain=unit_box(1, boundary="periodic", nodes="left"), shape=u[1:],
            variables=(Variable("a", axes, ("a",), "input"), Variable("u", axes, ("u",), "target")), num_samples=u[0],
            dtype=common_dtype(file.array("a").dtype, file.array("u").dtype),
            assumptions=("grid of a periodic unit interval; viscosity is not in the file (R10: 0.1, v1000: 0.001)",),
        )  # fmt: skip

    def _in_time(self, file: Any, start: str, rest: str, first: str, later: str) -> Contents:
        """A trajectory: the initial state, then the frames behind it."""
        a, u = self._shape(file, start), self._shape(file, rest)
        sizes = dict(zip(later, u, strict=False))
        if len(u) != len(later) or a != tuple(sizes[letter] for letter in first):
            raise DataError(f"expected {start} ({first}) and {rest} ({later}) in {file.path}, got {a} and {u}")
        space, frames = first.lstrip("n"), sizes["t"]
        times, defects = self._times(file, frames), []
        state = Variable("u", self._axes(later), (rest,))
        zero = start == "input" and self._first_frame_is_zero(file, rest)
        if zero:
            defects.append(f"the first frame of {rest} was never filled: {start} takes its place")
        if zero or start == "a":
            state = Variable("u", self._axes(later), (rest,), skip=int(zero),
                             initial=Variable("u", self._axes(first), (start,)))  # fmt: skip
        if start == "a":
            frames, times = frames + 1, np.concatenate([[0.0], times])
        periodic = unit_box(len(space), boundary="periodic", nodes="left")
        return Contents(
            layout=self.name, name="navier-stokes" if len(space) == 2 else "burgers",
            equation="w_t + u . grad w = nu Lap w + f" if len(space) == 2 else "u_t + (u^2/2)_x = visc u_xx",
            domain=periodic, shape=tuple(sizes[letter] for letter in space), variables=(state,), num_samples=sizes["n"],
            num_frames=frames, times=times, dtype=common_dtype(file.array(start).dtype, file.array(rest).dtype),
            parameters=self._parameters(file),
            assumptions=("grid of a periodic unit box, its right end left out",
                         *([f"frame 0 is {start}, frames 1, 2, ... are {rest}"] if start == "a" else [])),
            defects=tuple(defects),
        )  # fmt: skip

    def _times(self, file: Any, frames: int) -> Numbers:
        for name, first in (("t", 1.0), ("tspan", 0.0)):
            if name in file.names():
                times = np.asarray(file.values(name), dtype=np.float64).ravel()
                if len(times) == frames and np.isfinite(times).all():
                    return times
                return np.arange(frames) + first
        return np.arange(frames) + 1.0

    def _parameters(self, file: Any) -> dict[str, Parameter]:
        values = np.ravel(file.values("visc")) if "visc" in file.names() else np.empty(0)
        if values.size != 1 or not np.isfinite(values[0]):
            return {}
        return {"viscosity": Parameter(float(values[0]), "1", "visc of the file")}

    def _first_frame_is_zero(self, file: Any, place: str) -> bool:
        index = tuple({"n": slice(0, 8), "t": slice(0, 1)}.get(letter, slice(None)) for letter in self._axes("ntx"))
        with file.explained():
            return not np.asarray(file.array(place)[index]).any()


class FnoMat73(FnoMat):
    """The same in MATLAB's version 7.3, an HDF5 file with all axes reversed; samples are far apart in it."""

    name = "FNO .mat 7.3"
    container = Hdf5Container

    def matches(self, file: Any) -> bool:
        """MATLAB's block in front or its attribute, and one of the pairs of names."""
        names = [name for name in file.names() if file.has(name)]
        from_matlab = file.has_user_block or any(file.attribute(name, "MATLAB_class") for name in names[:1])
        kinds = {file.attribute(name, "MATLAB_class", "double") for name in names if name in ("a", "u", "coeff", "sol")}
        return bool(from_matlab and kinds <= set(ITEM_BYTES) and super().matches(file))

    def _axes(self, letters: str) -> str:
        return letters[::-1]

    def _shape(self, file: Any, place: str) -> tuple[int, ...]:
        return tuple(file.array(place).shape)[::-1]
