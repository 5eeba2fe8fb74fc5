"""PDEBench, one large tensor per file: advection, Burgers, reaction-diffusion, compressible flow, Darcy."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.readers.contents import Contents, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import axis_from
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DataError

FLOW = {"density": "kg/m3", "pressure": "Pa", "Vx": "m/s", "Vy": "m/s", "Vz": "m/s"}
ADVECTION = "u_t + beta u_x = 0"
BURGERS = "u_t + (u^2/2)_x = viscosity u_xx"
REACTION = "u_t = Nu u_xx + rho u (1 - u)"
COMPRESSIBLE = "compressible Navier-Stokes, ideal gas with gamma = 5/3; shear and bulk viscosity eta and zeta"
DARCY = "-div(nu grad u) = beta"
# A tenth of the samples, the first one.
TEST_SHARE = 10
MEANING = {
    "beta": "advection speed, or source of the Darcy problem", "Nu": "number in the file's name",
    "rho": "reaction rate", "eta": "shear viscosity", "zeta": "bulk viscosity", "M": "Mach number of the initial state",
}  # fmt: skip


class PDEBenchArrays(Layout):
    """PDEBench's family A.

    Source: Takamoto et al. (2022), arXiv 2210.07182; the generators and ``utils.py`` of PDEBench.
    """

    name = "PDEBench (arrays)"
    container = Hdf5Container

    def matches(self, file: Hdf5Container) -> bool:
        """A tensor, or a density, with coordinates beside it."""
        return file.has("x-coordinate") and (file.has("tensor") or file.has("density"))

    def contents(self, file: Hdf5Container, hints: Hints) -> Contents:
        """See the base class."""
        letters = "".join(a for a in "xyz" if file.has(f"{a}-coordinate"))
        return self._darcy(file, letters) if file.has("nu") else self._in_time(file, letters)

    def _in_time(self, file: Hdf5Container, space: str) -> Contents:
        names = ["tensor"] if file.has("tensor") else [name for name in FLOW if file.has(name)]
        defects: list[str] = []
        first = file.array(names[0])
        axes = _axes(first.shape, space, defects)
        sizes = dict(zip(axes, first.shape, strict=True))
        frames, shape = sizes["t"], tuple(sizes[a] for a in space)
        times = np.asarray(file.values("t-coordinate") if file.has("t-coordinate") else range(frames), dtype=np.float64)
        if len(times) > frames:
            defects.append(f"t-coordinate has {len(times)} entries for {frames} frames: the rest was cut off")
        elif len(times) < frames:
            raise DataError(f"expected a time for each of {frames} frames in {file.path}, got {len(times)}")
        problem, equation, parameters = _problem(file, defects)
        outgoing = "trans" in file.path.name.lower()
        boundary = "neumann" if outgoing else "periodic"
        domain = _domain(file, space, shape, boundary)
        if problem == "burgers" and domain.axes[0].start < 0:
            defects.append("generated on x in (-1, 1) although the text says (0, 1), files before November 2023: the "
                           "spacing is that of x-coordinate; the scale of time is in doubt")  # fmt: skip
        contents = Contents(
            layout=self.name, name=problem, equation=equation, domain=domain, shape=shape,
            variables=tuple(Variable("u" if n == "tensor" else n, axes, (n,), unit=FLOW.get(n, "1")) for n in names),
            num_samples=sizes.get("n", 1), num_frames=frames, times=times[:frames],
            dtype=common_dtype(*(file.array(name).dtype for name in names)), parameters=parameters,
            splits=_splits(sizes.get("n", 1)),
            assumptions=(f"grid of cell centres, {boundary} boundaries"
                         + (" (by the file's name)" if outgoing else ""),),
        )  # fmt: skip
        if problem == "advection":
            defects += _wrong_speed(file, contents, axes)
        return replace(contents, defects=tuple(defects))

    def _darcy(self, file: Hdf5Container, space: str) -> Contents:
        nu, u = file.array("nu"), file.array("tensor")
        shape = nu.shape[-len(space) :]
        if len(nu.shape) != 1 + len(space) or len(u.shape) - len(nu.shape) not in (0, 1):
            raise DataError(f"expected nu (sample, x, y) and tensor (sample, 1, x, y), got {nu.shape} and {u.shape}")
        domain = _domain(file, space, shape, "dirichlet")
        solution = f"n1{space}" if len(u.shape) == len(nu.shape) + 1 else f"n{space}"
        return Contents(
            layout=self.name, name="darcy", equation=DARCY, domain=domain, shape=shape,
            variables=(Variable("nu", f"n{space}", ("nu",), "input"), Variable("u", solution, ("tensor",), "target")),
            num_samples=nu.shape[0], dtype=common_dtype(nu.dtype, u.dtype), parameters=_parameters(file, ("beta",)),
            splits=_splits(nu.shape[0]),
            assumptions=("grid of cell centres; zero half a cell outside the box, so not at the outermost points",),
            defects=("the solution is the second-last frame of a march in time, not steady for small beta: never use "
                     "it as an exact solution of the steady equation",),
        )  # fmt: skip


def _axes(shape: tuple[int, ...], space: str, defects: list[str]) -> str:
    """Letters of a stored tensor: ``ntx``, without samples in some test files, one axis more in files made at home."""
    expected = f"nt{space}"
    if len(shape) == len(expected) + 1 and shape[0] == 1:
        defects.append("a leading axis of length one (the device of the generator) was dropped")
        return f"1{expected}"
    if len(shape) == len(expected) - 1:
        return expected[1:]
    if len(shape) != len(expected):
        raise DataError(f"expected a tensor with axes {expected}, got shape {shape}; its axes are not known")
    return expected


def _domain(file: Hdf5Container, space: str, shape: tuple[int, ...], boundary: str) -> Domain:
    grid = [file.values(f"{a}-coordinate").ravel() for a in space]
    found = tuple(map(len, grid))
    if found != shape:
        raise DataError(f"expected coordinates of {shape} points in {file.path}, got {found}; its parts do not fit")
    return Domain([axis_from(x, boundary=boundary, nodes="cell") for x in grid])


def _problem(file: Hdf5Container, defects: list[str]) -> tuple[str, str, Mapping[str, Parameter]]:
    """Which equation it is, by the attributes."""
    parameters = _parameters(file, ("beta", "Nu", "rho", "eta", "zeta", "M"))
    if file.has("density"):
        return "compressible-flow", COMPRESSIBLE, parameters
    if "rho" in parameters:
        return "reaction-diffusion", REACTION, parameters
    if "Nu" in parameters:
        viscosity = Parameter(parameters["Nu"].value / math.pi, "1", "coefficient of u_xx")
        defects.append("the equation uses Nu / pi: the parameter viscosity is that, Nu is the number in the file")
        return "burgers", BURGERS, {**parameters, "viscosity": viscosity}
    if "beta" in parameters:
        return "advection", ADVECTION, parameters
    return "unknown", "", parameters


def _parameters(file: Hdf5Container, names: tuple[str, ...]) -> dict[str, Parameter]:
    found = {name: file.number("/", name) for name in names}
    return {k: Parameter(v, "1", MEANING.get(k, k)) for k, v in found.items() if math.isfinite(v)}


def _wrong_speed(file: Hdf5Container, contents: Contents, axes: str) -> list[str]:
    """Files before September 2023 move at another speed than their ``beta``: measured on the strongest wave."""
    beta, times = contents.parameters["beta"].value, contents.times
    if times is None or len(times) < 2 or beta == 0.0 or not np.isfinite(times[:2]).all() or times[1] <= times[0]:
        return []
    index: Any = tuple({"n": slice(0, 8), "t": slice(0, 2), "1": 0}.get(letter, slice(None)) for letter in axes)
    with file.explained():
        u = np.asarray(file.array("tensor")[index], dtype=np.float64).reshape(-1, 2, contents.shape[0])
    modes = np.fft.rfft(u, axis=-1)[..., 1 : max(2, contents.shape[0] // 3)]
    sample, k = np.unravel_index(np.abs(modes[:, 0]).argmax(), modes[:, 0].shape)
    before, after = modes[sample, :, k]
    if not np.abs(before) > 0 or not np.isfinite(modes).all():
        return []
    shift = -np.angle(after / before) / (2 * np.pi * (k + 1)) * contents.domain.lengths[0]
    speed = shift / (times[1] - times[0])
    # A wave that goes half around between two frames cannot be told from one that goes back.
    if abs(beta) * (times[1] - times[0]) * (k + 1) > 0.2 * contents.domain.lengths[0] or abs(speed / beta - 1) <= 0.05:
        return []
    return [f"waves move at speed {speed:.3g}, not at beta = {beta:.3g}, as before September 2023: fetch the file anew"]


def _splits(num_samples: int) -> dict[str, range]:
    """Those of PDEBench's own loader of single files: the first tenth is for testing."""
    cut = num_samples // TEST_SHARE
    return {"train": range(cut, num_samples), "test": range(cut)}
