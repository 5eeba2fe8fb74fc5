"""One shard as an HDF5 file in The Well's layout, made in memory: the same content gives the same bytes.

/  @dataset_name @grid_type @n_spatial_dims @n_trajectories @simulation_parameters, and each parameter by its name
   @format @format_version @description @generator @statistics    ours, as JSON in text of fixed length
   @complete = True                                               ours, written last
/dimensions           time, one coordinate array per axis; @spatial_dims
/boundary_conditions  one group per axis, mask at its ends; @bc_type "periodic", "wall" or "open", @boundary
/scalars              the parameters again
/t0_fields            one dataset per field, (sample, [time,] *space), one chunk per sample and time with a Fletcher
                      checksum
/t1_fields, /t2_fields   empty

Fields of steady problems have no time axis (``time_varying`` is false) and ``/dimensions/time`` holds one zero.
Source: The Well 1.2, docs/data_format.md and scripts/check_thewell_formatting.py.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.statistics import Array, FieldStatistics
from neuralop_kit.solvers.atomic import reached
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.sphere import SphereDomain

FORMAT = "neuralop_kit fields"
FORMAT_VERSION = 1
WELL_ATTRIBUTES = ("dataset_name", "grid_type", "n_spatial_dims", "n_trajectories", "simulation_parameters")
OUR_ATTRIBUTES = ("format", "format_version", "description", "generator", "statistics", "complete")

# The format of HDF5 1.10 has checksums on its own tables too: a flipped byte there is an error, not an adventure. Only
# the heap for text of variable length has none, and damage in it can make HDF5 loop forever. The Well asks for such
# text; our reader does not look at it, what it needs is text of fixed length.
LIBRARY_VERSIONS = ("v110", "v110")


def shard_image(
    description: Description,
    fields: Mapping[str, Array],
    *,
    statistics: Mapping[str, FieldStatistics],
    generator: Mapping[str, Any],
) -> bytes:
    """The bytes of a shard.

    Args:
        description: what the fields are.
        fields: arrays ``(sample, [time,] *space)``, one per name of the description, in its dtype.
        statistics: of these fields.
        generator: how they were made: anything that JSON can hold.

    Raises:
        ShapeError: an array is missing or has another shape or dtype than the description says.
        ArgumentError: a parameter has the name of an attribute of the layout.
    """
    num_samples = _check_fields(description, fields)
    taken = sorted(set(description.parameters) & {*WELL_ATTRIBUTES, *OUR_ATTRIBUTES})
    if taken:
        raise ArgumentError(f"expected parameters not named like attributes of the layout, got {taken}; rename them")
    # Without a cache for chunks they lie in the order in which they are written.
    with h5py.File("shard", "w", driver="core", backing_store=False, libver=LIBRARY_VERSIONS, rdcc_nbytes=0) as file:
        file.attrs["dataset_name"] = description.name
        file.attrs["grid_type"] = "spherical" if isinstance(description.domain, SphereDomain) else "cartesian"
        file.attrs["n_spatial_dims"] = description.domain.num_dims
        file.attrs["n_trajectories"] = num_samples
        file.attrs["format"], file.attrs["format_version"] = np.bytes_(FORMAT), FORMAT_VERSION
        file.attrs["description"] = _json(description.to_json())
        file.attrs["generator"] = _json(dict(generator))
        file.attrs["statistics"] = _json({name: part.to_json() for name, part in statistics.items()})
        times = np.array(description.times or (0.0,), dtype=np.float32)
        write_dimensions(file, description.domain, description.shape, times=times)
        write_boundaries(file, description.domain, description.shape)
        _write_parameters(file, description)
        _write_fields(file, description, fields)
        file.attrs["complete"] = True
        file.flush()
        reached("image complete")
        image: bytes = file.id.get_file_image()
    return image


def dimension_names(domain: Domain) -> tuple[str, ...]:
    """Names of the space axes: ``theta, phi`` on a sphere, ``x, y, z`` in a box, ``x1, x2, ...`` in a larger one."""
    if isinstance(domain, SphereDomain):
        return ("theta", "phi")
    if domain.num_dims <= 3:
        return ("x", "y", "z")[: domain.num_dims]
    return tuple(f"x{i + 1}" for i in range(domain.num_dims))


def write_dimensions(file: h5py.File, domain: Domain, shape: Sequence[int], *, times: NDArray[Any]) -> None:
    """The group ``dimensions``; times ``(time,)``, or ``(sample, time)`` where trajectories differ."""
    group = file.create_group("dimensions", track_order=True)
    names = dimension_names(domain)
    group.attrs["spatial_dims"] = texts(names)
    time = group.create_dataset("time", data=times)
    time.attrs["sample_varying"], time.attrs["time_varying"] = times.ndim == 2, True
    for i, (name, n) in enumerate(zip(names, shape, strict=True)):
        points = domain.axis_coordinates(i, n).numpy().astype(np.float32)
        set_varying(group.create_dataset(name, data=points))


def write_boundaries(file: h5py.File, domain: Domain, shape: Sequence[int]) -> None:
    """The group ``boundary_conditions``: one condition per axis, at its two ends."""
    group = file.create_group("boundary_conditions", track_order=True)
    sphere = isinstance(domain, SphereDomain)
    names = dimension_names(domain)
    for axis, name, n in zip(domain.axes, names, shape, strict=True):
        # The poles of a sphere are no wall; The Well has no word for them but "open".
        kind = "periodic" if axis.is_periodic else "open" if sphere else "wall"
        condition = group.create_group(f"{name}_{kind}")
        condition.attrs["bc_type"], condition.attrs["boundary"] = kind, axis.boundary
        condition.attrs["associated_dims"] = texts([name])
        condition.attrs["associated_fields"] = texts([])
        set_varying(condition)
        mask = np.zeros(n, dtype=bool)
        mask[[0, -1]] = True
        condition.create_dataset("mask", data=mask)


def _write_parameters(file: h5py.File, description: Description) -> None:
    group = file.create_group("scalars", track_order=True)
    names = texts(list(description.parameters))
    group.attrs["field_names"] = file.attrs["simulation_parameters"] = names
    for name, parameter in description.parameters.items():
        file.attrs[name] = float(parameter.value)
        set_varying(group.create_dataset(name, data=np.float64(parameter.value)))


def _write_fields(file: h5py.File, description: Description, fields: Mapping[str, Array]) -> None:
    for rank in range(3):
        group = file.create_group(f"t{rank}_fields", track_order=True)
        group.attrs["field_names"] = texts(description.field_names if rank == 0 else [])
    stored = []
    for name in description.field_names:
        # No shuffle filter: it only helps a compressor, and without one it only costs time.
        values, chunks = fields[name], chunk_shape(description)
        field = file["t0_fields"].create_dataset(
            name, values.shape, values.dtype, chunks=chunks, fletcher32=True, track_times=False
        )
        set_varying(field, sample=True, time=bool(description.times))
        field.attrs["dim_varying"] = np.ones(description.domain.num_dims, dtype=bool)
        field.attrs["unit"] = description.units[name]
        target = "state" if description.times else "target"
        field.attrs["role"] = "input" if name in description.input_names else target
        stored.append((field, values))
    lead = len(description.sample_shape) - len(description.shape) + 1
    # All fields of a sample side by side, so that one read fetches them together.
    for index in np.ndindex(stored[0][1].shape[:lead]):
        for field, values in stored:
            field[index] = values[index]


def chunk_shape(description: Description) -> tuple[int, ...]:
    """One sample, at one time."""
    return (1, 1, *description.shape) if description.times else (1, *description.shape)


def set_varying(item: h5py.Dataset | h5py.Group, *, sample: bool = False, time: bool = False) -> None:
    """The flags that say which leading axes an array has."""
    item.attrs["sample_varying"], item.attrs["time_varying"] = sample, time


def _json(content: Mapping[str, Any]) -> np.bytes_:
    """Text of fixed length, which lies inside a checksummed table; see :data:`LIBRARY_VERSIONS`."""
    return np.bytes_(json.dumps(content))


def texts(names: Sequence[str]) -> NDArray[Any]:
    """A list of strings with a type of its own, which an empty list would lose."""
    return np.array(list(names), dtype=h5py.string_dtype())


def _check_fields(description: Description, fields: Mapping[str, Array]) -> int:
    if set(fields) != set(description.field_names):
        raise ShapeError(f"expected fields {description.field_names}, got {tuple(fields)}; give one array for each")
    num_samples = len(fields[description.field_names[0]])
    expected = (num_samples, *description.sample_shape)
    for name, values in fields.items():
        if values.shape != expected or values.dtype.name != description.dtype:
            raise ShapeError(
                f"expected {description.dtype} values of shape {expected} for {name!r}, "
                f"got {values.dtype} {values.shape}; cast or reshape them"
            )
    return num_samples
