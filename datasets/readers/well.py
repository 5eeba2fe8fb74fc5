"""The Well: scalars, vectors and tensors that vary in sample, time and each direction as their own flags say."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.readers.contents import SPACE_LETTERS, Contents, Numbers, Role, Variable, common_dtype
from neuralop_kit.datasets.readers.grids import axis_from, unit_box
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container, texts
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DataError, DomainError
from neuralop_kit.solvers.sphere import GRIDS

COMPONENT_LETTERS = ("", "c", "cd")
DOMAIN_ATTRIBUTE = "domain"


class TheWell(Layout):
    """The Well's layout, also as written by :func:`neuralop_kit.datasets.write_well`.

    A field without time in a file with several times is an input of the problem; every other field is a state.

    Source: The Well 1.2, ``docs/data_format.md``, and where that differs its checker and loader.
    """

    name = "The Well"
    container = Hdf5Container

    def matches(self, file: Hdf5Container) -> bool:
        """The groups ``dimensions`` and ``t0_fields``."""
        return file.has("dimensions", h5py.Group) and file.has("t0_fields", h5py.Group)

    def contents(self, file: Hdf5Container, hints: Hints) -> Contents:
        """See the base class."""
        defects: list[str] = []
        assumptions: list[str] = []
        dims = texts(file.attribute("dimensions", "spatial_dims"))
        if not 1 <= len(dims) <= len(SPACE_LETTERS):
            raise DataError(f"expected one to {len(SPACE_LETTERS)} spatial_dims in {file.path}, got {dims}")
        samples = file.number("/", "n_trajectories")
        if not samples >= 1 or samples != int(samples):
            raise DataError(f"expected n_trajectories of at least 1 in {file.path}, got {samples}")
        times = np.atleast_1d(np.asarray(file.values("dimensions/time"), dtype=np.float64))
        num_frames = times.shape[-1]
        grid = {dim: _coordinates(file, dim, defects) for dim in dims}
        shape = tuple(len(x) for x in grid.values())
        found = list(_variables(file, len(dims), num_frames))
        if not found:
            raise DataError(f"expected fields in t0_fields, t1_fields or t2_fields of {file.path}, got none")
        steady = all(variable.role == "input" for variable, _, _ in found)
        variables = [v if not steady else _steady_role(v, role) for v, _, role in found]
        parameters, per_sample = _parameters(file, int(samples))
        return Contents(
            layout=self.name, name=str(file.attribute("/", "dataset_name", "unnamed")),
            equation=str(file.attribute("/", "equation", "")),
            domain=_domain(file, grid, defects, assumptions), shape=shape, variables=tuple(variables),
            num_samples=int(samples), num_frames=None if steady else num_frames, times=None if steady else times,
            dtype=common_dtype(*(dtype for _, dtype, _ in found)), parameters=parameters, sample_parameters=per_sample,
            assumptions=tuple(assumptions), defects=tuple(defects),
        )  # fmt: skip


def _coordinates(file: Hdf5Container, dim: str, defects: list[str]) -> Numbers:
    x = np.asarray(file.values(f"dimensions/{dim}"), dtype=np.float64)
    if x.ndim > 1:
        if x.size and (x != x.reshape(-1, x.shape[-1])[:1]).any():
            defects.append(f"coordinates {dim} differ from sample to sample: those of the first one stand for all")
        x = x.reshape(-1, x.shape[-1])[0] if x.size else x.ravel()
    return x.ravel()


def _variables(file: Hdf5Container, num_dims: int, num_frames: int) -> Any:
    """Every field as a variable, its dtype, and the role that an attribute of ours states."""
    for rank in range(3):
        group = f"t{rank}_fields"
        if not file.has(group, h5py.Group):
            continue
        for name in texts(file.attribute(group, "field_names")):
            place = f"{group}/{name}"
            array = file.array(place)
            in_space = file.attribute(place, "dim_varying", [True] * num_dims)
            if not isinstance(in_space, list) or len(in_space) != num_dims:
                raise DataError(f"expected dim_varying with {num_dims} flags at {place} of {file.path}, got {in_space}")
            in_time = bool(file.attribute(place, "time_varying", True))
            axes = ("n" if file.attribute(place, "sample_varying", True) else "") + ("t" if in_time else "")
            axes += "".join(letter for letter, varies in zip(SPACE_LETTERS, in_space, strict=False) if varies)
            axes += COMPONENT_LETTERS[rank]
            if len(array.shape) != len(axes):
                raise DataError(f"expected axes {axes!r} by the flags of {place} in {file.path}, got {array.shape}")
            count = int(np.prod(array.shape[len(axes) - rank :])) if rank else 1
            role: Role = "state" if in_time else "input"
            unit = str(file.attribute(place, "unit", "1"))
            variable = Variable(name, axes, (place,), role, unit, num_components=count, rank=rank)
            yield variable, array.dtype, file.attribute(place, "role", "target")


def _steady_role(variable: Variable, role: Any) -> Variable:
    return replace(variable, role="input" if role == "input" else "target" if role == "target" else "state")


def _parameters(file: Hdf5Container, samples: int) -> tuple[Mapping[str, Parameter], Mapping[str, Numbers]]:
    """Scalars that hold for the file, and those that differ between samples; scalars in time are left out."""
    common, each = {}, {}
    names = texts(file.attribute("scalars", "field_names")) if file.has("scalars", h5py.Group) else []
    for name in names:
        if file.attribute(f"scalars/{name}", "time_varying", False):
            continue
        values = np.asarray(file.values(f"scalars/{name}"), dtype=np.float64).ravel()
        if len(values) == 1 and np.isfinite(values[0]):
            common[name] = Parameter(float(values[0]), "1", "scalar of the file")
        elif len(values) == samples:
            each[name] = values
    return common, each


def _domain(file: Hdf5Container, grid: Mapping[str, Numbers], defects: list[str], assumptions: list[str]) -> Domain:
    stated = file.attribute("/", DOMAIN_ATTRIBUTE)
    shape = tuple(len(x) for x in grid.values())
    if isinstance(stated, str):
        try:
            domain = Domain.from_json(json.loads(stated))
            domain.check_shape(shape)
            return domain
        except (ValueError, RecursionError, AttributeError) as error:
            raise DataError(
                f"expected a domain in attribute {DOMAIN_ATTRIBUTE!r} of {file.path}, got {error}"
            ) from error
    if file.attribute("/", "grid_type") == "spherical" and len(grid) == 2:
        for kind in GRIDS:
            sphere = Domain.sphere(grid=kind)
            if all(
                _close(sphere.axis_coordinates(i, len(x)).numpy(), x) for i, x in enumerate(grid.values()) if len(x) > 1
            ):
                return sphere
        defects.append("latitudes are on neither grid of a sphere that is known here: they are taken as a flat box")
    kinds = _boundaries(file, list(grid), defects)
    axes = []
    for dim, x in grid.items():
        boundary = "periodic" if kinds.get(dim) == "periodic" else "neumann"
        try:
            axes.append(axis_from(x, boundary=boundary))
        except (DataError, DomainError) as error:
            defects.append(f"coordinates {dim} are not equidistant: the axis is a unit interval ({error})")
            axes.append(unit_box(1, boundary=boundary, nodes="cell").axes[0])
        assumptions.append(
            f"grid along {dim}: {axes[-1].nodes} nodes, by its coordinates; boundary {kinds.get(dim, 'open')}"
        )
    return Domain(axes)


def _boundaries(file: Hdf5Container, dims: list[str], defects: list[str]) -> dict[str, str]:
    """Boundary type of each dimension; The Well's loader takes those that nothing is said about as open."""
    kinds: dict[str, str] = {}
    if not file.has("boundary_conditions", h5py.Group):
        return kinds
    for name in file.names("boundary_conditions"):
        place = f"boundary_conditions/{name}"
        associated = file.attribute(place, "associated_dims")
        if isinstance(associated, str):
            defects.append(f"associated_dims of {place} is a text, not a list: taken as a list of one")
        if file.has(f"{place}/mask") and not np.asarray(file.values(f"{place}/mask")).any():
            defects.append(f"the mask of {place} marks nothing: the condition is taken to hold at both ends")
        for dim in texts(associated):
            if dim in dims:
                kinds[dim] = str(file.attribute(place, "bc_type", "open")).lower()
    return kinds


def _close(ours: Numbers, theirs: Numbers) -> bool:
    return bool(ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=1e-5))
