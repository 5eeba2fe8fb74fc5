"""neuraloperator's bundled ``.pt`` files: Darcy, Burgers, forced Navier-Stokes."""

import numpy as np

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.readers.contents import Contents, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import unit_box
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.torch_file import TorchContainer
from neuralop_kit.solvers.errors import DataError


class NeuraloperatorPt(Layout):
    """A dictionary with tensors ``x`` and ``y``.

    Source: neuraloperator 2.0, ``neuralop/data/datasets``; Zenodo records 12784353 and 12825163.
    """

    name = "neuraloperator"
    container = TorchContainer

    def matches(self, file: TorchContainer) -> bool:
        """``x`` and ``y``."""
        return {"x", "y"} <= set(file.names())

    def contents(self, file: TorchContainer, hints: Hints) -> Contents:
        """See the base class."""
        x, y = file.array("x"), file.array("y")
        if len(x.shape) < 2 or x.shape[:1] != y.shape[:1]:
            raise DataError(f"expected x and y with as many samples in {file.path}, got {x.shape} and {y.shape}")
        if len(x.shape) == 2 and len(y.shape) == 3 and y.shape[2] == x.shape[1]:
            return self._burgers(file)
        axes = {2: "nx", 3: "nxy", 4: "n1xy" if x.shape[1] == 1 else "nxyz"}.get(len(x.shape), "")
        if not axes or x.shape != y.shape:
            raise DataError(f"expected x and y on one grid in {file.path}, got {x.shape} and {y.shape}")
        space = axes.lstrip("n1")
        darcy = x.dtype == np.bool_
        given, asked = ("permeability_class", "pressure") if darcy else ("x", "y")
        if len(space) == 2 and not darcy:
            given, asked = "forcing", "vorticity"
        periodic = unit_box(len(space), boundary="periodic", nodes="left")
        return Contents(
            layout=self.name, name="darcy" if darcy else "navier-stokes-forcing" if given == "forcing" else "unknown",
            equation="-div(a grad u) = f" if darcy else "",
            domain=unit_box(len(space), boundary="dirichlet", nodes="cell") if darcy else periodic,
            shape=x.shape[-len(space) :],
            variables=(Variable(given, axes, ("x",), "input"), Variable(asked, axes, ("y",), "target")),
            num_samples=x.shape[0], dtype=common_dtype(x.dtype, y.dtype),
            assumptions=("grid of a unit box: the file says nothing about space",),
            defects=("x only says which of two permeabilities a cell has; their values, the source and the scale of y "
                     "are not known, and it is not the FNO paper's Darcy: no loss from the equation",) if darcy else (),
        )  # fmt: skip

    def _burgers(self, file: TorchContainer) -> Contents:
        y = file.array("y")
        viscosity = np.ravel(file.values("visc")) if "visc" in file.names() else np.empty(0)
        parameters = {}
        if viscosity.size == 1 and np.isfinite(viscosity[0]):
            parameters["viscosity"] = Parameter(float(viscosity[0]), "1", "coefficient of u_xx")
        return Contents(
            layout=self.name, name="burgers", equation="u_t + (u^2/2)_x = viscosity u_xx", shape=(y.shape[2],),
            domain=unit_box(1, boundary="periodic", nodes="left"), variables=(Variable("u", "ntx", ("y",)),),
            num_samples=y.shape[0], num_frames=y.shape[1], times=np.linspace(0.0, 1.0, y.shape[1]),
            dtype=common_dtype(y.dtype), parameters=parameters,
            assumptions=("grid of a periodic unit interval, times from 0 to 1: the file says nothing about them",),
        )  # fmt: skip
