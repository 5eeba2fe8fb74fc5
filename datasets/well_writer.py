"""Writing any readable file in The Well's layout, block by block: it may be larger than memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.layout import (
    LIBRARY_VERSIONS,
    OUR_ATTRIBUTES,
    WELL_ATTRIBUTES,
    set_varying,
    texts,
    write_boundaries,
    write_dimensions,
)
from neuralop_kit.datasets.readers.contents import SPACE_LETTERS, Contents, Variable
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.well import DOMAIN_ATTRIBUTE
from neuralop_kit.datasets.task_dataset import TaskDataset, blocks
from neuralop_kit.solvers.atomic import explained, fsync_file, replace, temporary_name
from neuralop_kit.solvers.errors import ArgumentError, DataError
from neuralop_kit.solvers.sphere import SphereDomain

BLOCK_BYTES = 2**26


def write_well(data: TaskDataset, path: str | Path) -> Path:
    """Write the samples of a dataset as one file in The Well's layout.

    Scalars go to ``t0_fields``, vectors to ``t1_fields``, tensors to ``t2_fields``, one chunk per sample and time with
    a checksum; a field that is constant in a direction is stored without it. Names, values, times and domain survive.
    The file appears whole or not at all.

    Args:
        data: from :func:`open_dataset`, of one file.
        path: does not exist yet; its folder does.

    Raises:
        ArgumentError: ``path`` exists, the data come from several files, or a parameter is named like an attribute of
            the layout.
        DataError: the source is damaged, or the target cannot be written.

    Source: The Well 1.2, scripts/check_thewell_formatting.py and docs/data_format.md.

    >>> import tempfile
    >>> from neuralop_kit.datasets import check_file, open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/u.npy", np.ones((3, 5, 8, 6), dtype=np.float32))
    ...     path = write_well(open_dataset(f"{folder}/u.npy", axes="ntxy"), f"{folder}/u.hdf5")
    ...     check_file(path), len(open_dataset(path).trajectories)
    ([], 3)
    """
    path = Path(path)
    if len(data.files) != 1:
        raise ArgumentError(f"expected data from one file, got {len(data.files)}; write them one by one")
    if path.exists():
        raise ArgumentError(f"expected a new path, got {path}, which exists; remove it or choose another one")
    source, samples = data.files[0], data.samples[0]
    temporary = temporary_name(path)
    try:
        with explained(DataError, f"to write {path}"):
            with h5py.File(temporary, "w-", libver=LIBRARY_VERSIONS) as file:
                _write(file, source, samples)
                file.attrs["complete"] = True
            fsync_file(temporary)
            replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(file: h5py.File, source: FieldFile, samples: range) -> None:
    contents = source.contents
    _write_root(file, contents, len(samples), source.container.path.name)
    times = np.zeros(1) if contents.times is None else np.asarray(contents.times, dtype=np.float64)
    write_dimensions(file, contents.domain, contents.shape, times=times[samples] if times.ndim == 2 else times)
    write_boundaries(file, contents.domain, contents.shape)
    _write_scalars(file, contents, samples)
    fields = [field for variable in contents.variables for field in _fields_of(variable, contents)]
    for rank in range(3):
        group = file.create_group(f"t{rank}_fields", track_order=True)
        group.attrs["field_names"] = texts([name for name, r, _ in fields if r == rank])
    for variable in contents.variables:
        _write_variable(file, source, variable, samples)


def _write_root(file: h5py.File, contents: Contents, num_samples: int, origin: str) -> None:
    reserved = {*WELL_ATTRIBUTES, *OUR_ATTRIBUTES, DOMAIN_ATTRIBUTE, "equation", "origin"}
    taken = sorted(set(contents.parameters) & reserved)
    if taken:
        raise ArgumentError(f"expected parameters not named like attributes of the layout, got {taken}; rename them")
    file.attrs["dataset_name"] = contents.name
    file.attrs["grid_type"] = "spherical" if isinstance(contents.domain, SphereDomain) else "cartesian"
    file.attrs["n_spatial_dims"], file.attrs["n_trajectories"] = contents.domain.num_dims, num_samples
    file.attrs["equation"] = contents.equation
    file.attrs[DOMAIN_ATTRIBUTE] = np.bytes_(json.dumps(contents.domain.to_json()))
    notes = {"assumptions": contents.assumptions, "defects": contents.defects}
    file.attrs["origin"] = np.bytes_(json.dumps({"file": origin, "layout": contents.layout, **notes}))


def _write_scalars(file: h5py.File, contents: Contents, samples: range) -> None:
    group = file.create_group("scalars", track_order=True)
    group.attrs["field_names"] = texts([*contents.parameters, *contents.sample_parameters])
    file.attrs["simulation_parameters"] = texts(list(contents.parameters))
    for name, parameter in contents.parameters.items():
        file.attrs[name] = float(parameter.value)
        set_varying(group.create_dataset(name, data=np.float64(parameter.value)))
    for name, values in contents.sample_parameters.items():
        set_varying(group.create_dataset(name, data=np.asarray(values, dtype=np.float64)[samples]), sample=True)


def _fields_of(variable: Variable, contents: Contents) -> Iterator[tuple[str, int, slice]]:
    """Name, rank and components of each field that a variable becomes."""
    if variable.rank and variable.num_components == contents.domain.num_dims**variable.rank:
        yield variable.name, variable.rank, slice(None)
        return
    for k, channel in enumerate(variable.channels(contents.domain.num_dims)):
        yield channel, 0, slice(k, k + 1)


def _write_variable(file: h5py.File, source: FieldFile, variable: Variable, samples: range) -> None:
    contents, dims = source.contents, source.contents.domain.num_dims
    in_sample = "n" in variable.axes or len(variable.places) > 1
    in_time = contents.num_frames is not None and ("t" in variable.axes or variable.initial is not None)
    in_space = [letter in variable.axes for letter in SPACE_LETTERS[:dims]]
    lead = ([len(samples)] if in_sample else []) + ([source.num_frames] if in_time else [])
    space = [n for n, varies in zip(contents.shape, in_space, strict=True) if varies]
    for name, rank, components in _fields_of(variable, contents):
        shape = (*lead, *space, *(dims,) * rank)
        chunks = (*(1 for _ in lead), *space, *(dims,) * rank)
        field = file[f"t{rank}_fields"].create_dataset(
            name, shape, contents.dtype, chunks=chunks if shape else None, fletcher32=bool(shape), track_times=False
        )
        set_varying(field, sample=in_sample, time=in_time)
        field.attrs["dim_varying"] = np.array(in_space)
        field.attrs["unit"], field.attrs["role"] = variable.unit, variable.role
        if rank == 2:
            field.attrs["symmetric"] = field.attrs["antisymmetric"] = False
        for some, frames in blocks(source, samples if in_sample else samples[:1], max_bytes=BLOCK_BYTES):
            if frames.start and not in_time:
                continue
            values = source.read_variable(variable, some, frames if in_time else range(1))[:, :, components]
            first = some.start - samples.start
            place: tuple[Any, ...] = (slice(first, first + len(some)),) if in_sample else ()
            place += (slice(frames.start, frames.stop),) if in_time else ()
            part = (*(len(some) for _ in range(in_sample)), *(len(frames) for _ in range(in_time)), *space)
            # Components come last in this layout, and one index of a tensor each.
            field[place or ...] = np.moveaxis(values, 2, -1).reshape((*part, *(dims,) * rank))
