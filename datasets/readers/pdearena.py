"""PDEArena: smoke in a box and Maxwell's equations, HDF5 files with one group per split."""

import h5py
import numpy as np

from neuralop_kit.datasets.readers.contents import Contents, Numbers, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import unit_box
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DataError

SPLITS = ("train", "valid", "test")
SMOKE = "v_t + v . grad v = -grad p + 0.01 Lap v + buoyancy u,  div v = 0,  u_t + v . grad u = 0"
MAXWELL = "Maxwell's equations, fields D and H"


class PDEArena(Layout):
    """PDEArena's Navier-Stokes and Maxwell files.

    Source: Gupta and Brandstetter (2022), arXiv 2209.15616; ``pdedatagen`` of PDEArena.
    """

    name = "PDEArena"
    container = Hdf5Container

    def matches(self, file: Hdf5Container) -> bool:
        """One of the splits as a group, with the fields of a known problem."""
        splits = [name for name in SPLITS if file.has(name, h5py.Group)]
        return bool(splits) and (file.has(f"{splits[0]}/vx") or file.has(f"{splits[0]}/d_field"))

    def contents(self, file: Hdf5Container, hints: Hints) -> Contents:
        """See the base class."""
        splits = [name for name in SPLITS if file.has(name, h5py.Group)]
        split = hints.split or (splits[0] if len(splits) == 1 else None)
        if split not in splits:
            raise ArgumentError(f"expected a split among {splits} of {file.path}, got {split!r}; take one")
        return self._maxwell(file, split) if file.has(f"{split}/d_field") else self._smoke(file, split)

    def _smoke(self, file: Hdf5Container, split: str) -> Contents:
        u = file.array(f"{split}/u")
        if len(u.shape) != 4:
            raise DataError(f"expected u (sample, time, x, y) in {file.path}, got {u.shape}; it is of another problem")
        samples, frames, nx, ny = u.shape
        lengths = [float(np.ravel(_first(file, f"{split}/{a}"))[-1]) for a in "xy"]
        step, stored = _first(file, f"{split}/dt"), _first(file, f"{split}/t")
        sample_parameters = {}
        if file.has(f"{split}/buo_y"):
            sample_parameters["buoyancy"] = np.asarray(file.values(f"{split}/buo_y"), dtype=np.float64).ravel()
        return Contents(
            layout=self.name, name="smoke", equation=SMOKE, shape=(nx, ny),
            domain=Domain.box(lengths, boundary="dirichlet", nodes="cell"),
            variables=tuple(Variable(name, "ntxy", (f"{split}/{name}",)) for name in ("u", "vx", "vy")),
            num_samples=samples, num_frames=frames,
            times=float(stored.ravel()[0]) + float(step.ravel()[0]) * np.arange(frames), dtype=common_dtype(u.dtype),
            sample_parameters=sample_parameters, splits={split: range(samples)},
            assumptions=("grid of cell centres in a box with walls",),
            defects=("stored x and dx are those of nodes with both ends: the spacing is length / points instead",
                     "stored t is spaced wrongly: times are the first one plus multiples of dt",
                     "vx and vy are values on faces, half a cell off, with the last row and column dropped",
                     "buo_y of files fetched before September 2023 is wrong"),
        )  # fmt: skip

    def _maxwell(self, file: Hdf5Container, split: str) -> Contents:
        d, h = file.array(f"{split}/d_field"), file.array(f"{split}/h_field")
        if len(d.shape) != 6 or d.shape != h.shape:
            raise DataError(
                f"expected d_field, h_field (sample, time, x, y, z, 3), got {d.shape}, {h.shape} in {file.path}"
            )
        return Contents(
            layout=self.name, name="maxwell", equation=MAXWELL, shape=d.shape[2:5],
            domain=unit_box(3, boundary="periodic", nodes="left"),
            variables=tuple(Variable(name, "ntxyzc", (f"{split}/{place}",), num_components=d.shape[-1], rank=1)
                            for name, place in (("D", "d_field"), ("H", "h_field"))),
            num_samples=d.shape[0], num_frames=d.shape[1], times=np.arange(d.shape[1], dtype=np.float64),
            dtype=common_dtype(d.dtype, h.dtype), splits={split: range(d.shape[0])},
            assumptions=("grid of a periodic unit box; times are frame numbers: the file gives neither",),
        )  # fmt: skip


def _first(file: Hdf5Container, place: str) -> Numbers:
    """The entry of the first sample."""
    values = file.values(place)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"expected finite numbers at {place} of {file.path}, got {values.ravel()[:8].tolist()}")
    return np.asarray(values[0], dtype=np.float64)
