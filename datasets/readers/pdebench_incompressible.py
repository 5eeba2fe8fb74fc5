"""PDEBench, incompressible Navier-Stokes with smoke and a force that does not depend on time."""

import numpy as np

from neuralop_kit.datasets.readers.contents import Contents, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import unit_box
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.pdebench_groups import numbers_in
from neuralop_kit.solvers.errors import DataError

EQUATION = "u_t + u . grad u = -grad p + nu Lap u + particles force,  div u = 0,  particles carried along"


class PDEBenchIncompressible(Layout):
    """PDEBench's family C.

    Source: Takamoto et al. (2022), arXiv 2210.07182; the generator of PDEBench.
    """

    name = "PDEBench (incompressible)"
    container = Hdf5Container

    def matches(self, file: Hdf5Container) -> bool:
        """Velocity, particles, force and time."""
        return all(file.has(name) for name in ("velocity", "particles", "force", "t"))

    def contents(self, file: Hdf5Container, hints: Hints) -> Contents:
        """See the base class."""
        velocity, particles, force = (file.array(name) for name in ("velocity", "particles", "force"))
        times = np.asarray(file.values("t"), dtype=np.float64)
        if len(velocity.shape) != 5 or times.shape != velocity.shape[:2]:
            raise DataError(f"expected velocity (sample, time, x, y, 2) and t (sample, time) in {file.path}, got "
                            f"{velocity.shape} and {times.shape}; it is of another problem")  # fmt: skip
        samples, frames, nx, ny, components = velocity.shape
        defects = ["velocities were resampled from a staggered grid: their divergence at cell centres is not zero",
                   "the generator's box is in cells, its configuration says [1, 1]: spacing and viscosity are unknown, "
                   "so no loss from the equation"]  # fmt: skip
        written = file.number("/", "latestIndex", frames - 1) + 1
        if not 1 <= written <= frames or written != int(written):
            raise DataError(f"expected latestIndex below {frames} in {file.path}, got {written - 1}; it is damaged")
        if written < frames:
            defects.append(f"only {int(written)} of {frames} frames were written: the zeros behind them were cut off")
        times = times[:, : int(written)]
        alike = bool((times == times[:1]).all())
        return Contents(
            layout=self.name, name="incompressible-flow", equation=EQUATION,
            domain=unit_box(2, boundary="dirichlet", nodes="cell"), shape=(nx, ny),
            variables=(Variable("velocity", "ntxyc", ("velocity",), num_components=components, rank=1),
                       Variable("particles", "ntxyc", ("particles",)),
                       Variable("force", "nxyc", ("force",), "input", num_components=components, rank=1)),
            num_samples=samples, num_frames=int(written), times=times[0] if alike else times,
            dtype=common_dtype(velocity.dtype, particles.dtype, force.dtype),
            parameters=numbers_in(file.attribute("/", "config", "")),
            assumptions=("grid of cell centres in a unit box with walls",), defects=tuple(defects),
        )  # fmt: skip
