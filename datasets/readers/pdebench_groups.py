"""PDEBench, one group per seed: diffusion-sorption, diffusion-reaction, radial dam break."""

import re

import h5py
import numpy as np

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.readers.contents import Contents, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import axis_from
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.pdebench_arrays import TEST_SHARE
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DataError

SORPTION = "c_t = D / R(c) c_xx, c = 1 at the left end, a Cauchy condition at the right one"
REACTION = "u_t = Du Lap u + u - u^3 - k - v,   v_t = Dv Lap v + u - v,   no flux through the walls"
DAM_BREAK = "shallow water, height of the free surface after a radial dam break"
MAX_CONFIG = 2**16
_NUMBER = re.compile(r"^\s*([A-Za-z_]\w*)\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$", re.MULTILINE)
# Sizes and seeds are said elsewhere.
NO_PARAMETERS = re.compile(r"(dim|left|right|seed|bottom|top|num|workers|steps?)$")


class PDEBenchGroups(Layout):
    """PDEBench's family B. The groups are named by seeds, which may have gaps; samples are in the order of names.

    Source: Takamoto et al. (2022), arXiv 2210.07182; the generators of PDEBench.
    """

    name = "PDEBench (groups)"
    container = Hdf5Container

    def matches(self, file: Hdf5Container) -> bool:
        """Groups with ``data`` and ``grid``; the first and the last one are looked at."""
        names = file.names()
        ends = {names[0], names[-1]} if names else set()
        return bool(ends) and all(file.has(f"{n}/data") and file.has(f"{n}/grid", h5py.Group) for n in ends)

    def contents(self, file: Hdf5Container, hints: Hints) -> Contents:
        """See the base class."""
        names = file.names()
        first = names[0]
        data = file.array(f"{first}/data")
        grid = {a: file.values(f"{first}/grid/{a}") for a in "txyz" if file.has(f"{first}/grid/{a}")}
        space = "".join(a for a in "xyz" if a in grid)
        if len(data.shape) != len(space) + 2 or "t" not in grid:
            raise DataError(
                f"expected data (time, *space, channel) in {file.path}, got {data.shape} for axes {list(grid)}"
            )
        defects: list[str] = []
        axes = f"t{space}c"
        channels: tuple[str, ...] = ("c",)
        if len(space) == 1:
            problem, equation, boundary = "diffusion-sorption", SORPTION, "dirichlet"
            start = np.asarray(data[(slice(0, 1),)])
            if np.ptp(start) == 0:
                defects.append("initial states are constant in space: a family with one parameter only")
        elif data.shape[-1] == 2:
            problem, equation, boundary = "diffusion-reaction", REACTION, "neumann"
            channels = ("u", "v")
            axes = "tyxc"
            defects.append("the first space axis is y: axes were swapped; initial states are white noise per cell, "
                           "which depends on the mesh: no study of resolutions with it")  # fmt: skip
        else:
            problem, equation, boundary = "shallow-water", DAM_BREAK, "neumann"
            channels = ("h",)
        sizes = dict(zip(axes, data.shape, strict=True))
        if sizes["c"] != len(channels) or any(len(grid[a]) != sizes[a] for a in f"t{space}"):
            raise DataError(
                f"expected {len(channels)} channels and coordinates as long as the axes {axes} of data {data.shape}, "
                f"got { {a: len(x) for a, x in grid.items()} } in {file.path}; it is of another problem"
            )
        places = tuple(f"{name}/data" for name in names)
        state = Variable("state", axes, places, num_components=len(channels), names=channels)
        cut = len(names) - len(names) // TEST_SHARE
        return Contents(
            layout=self.name, name=problem, equation=equation,
            domain=Domain([axis_from(grid[a], boundary=boundary, nodes="cell") for a in space]),
            shape=tuple(sizes[a] for a in space), variables=(state,), num_samples=len(names), num_frames=sizes["t"],
            times=np.asarray(grid["t"], dtype=np.float64), dtype=common_dtype(data.dtype),
            parameters=numbers_in(file.attribute(first, "config", "")),
            splits={"train": range(cut), "test": range(cut, len(names))},
            assumptions=(f"grid of cell centres, {boundary} boundaries",), defects=tuple(defects),
        )  # fmt: skip


def numbers_in(config: object) -> dict[str, Parameter]:
    """Numbers of a YAML text, by their keys; nothing else of YAML is understood, so that nothing can be injected.

    >>> {k: p.value for k, p in numbers_in("sim:\\n  Du: 1e-3\\n  xdim: 128\\n  name: 2d\\n").items()}
    {'Du': 0.001}
    """
    text = config[:MAX_CONFIG] if isinstance(config, str) else ""
    found = {key: float(value) for key, value in _NUMBER.findall(text) if not NO_PARAMETERS.search(key)}
    return {k: Parameter(v, "1", "of the file's configuration") for k, v in found.items() if np.isfinite(v)}
