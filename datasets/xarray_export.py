"""Any dataset as an :class:`xarray.Dataset`, with named axes, coordinates and units."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.layout import dimension_names
from neuralop_kit.datasets.readers.contents import Role
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.solvers.errors import MissingExtraError


def to_xarray(data: FieldDataset, samples: Sequence[int] | None = None) -> Any:
    """Load samples into an :class:`xarray.Dataset`: one variable per channel, on ``(sample, [time,] *space)``.

    Args:
        data: from :func:`open_dataset`; of files of others whole trajectories are taken, whatever the task.
        samples: which ones, by default all; they must fit into memory.

    Raises:
        MissingExtraError: xarray is not installed.

    >>> import tempfile
    >>> from neuralop_kit.datasets import open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/u.npy", np.ones((3, 5, 8, 6), dtype=np.float32))
    ...     frame = to_xarray(open_dataset(f"{folder}/u.npy", axes="ntxy"))
    >>> dict(frame.sizes)
    {'sample': 3, 'time': 5, 'x': 8, 'y': 6}
    """
    try:
        import xarray
    except ImportError as error:
        raise MissingExtraError("expected xarray, got none; pip install 'neuralop-kit[xarray]'") from error
    space = dimension_names(data.domain)
    axes = enumerate(zip(space, data.shape, strict=True))
    coordinates: dict[str, Any] = {name: data.domain.axis_coordinates(i, n).numpy() for i, (name, n) in axes}
    fields, times = _of_files(data, samples) if isinstance(data, TaskDataset) else (_of_pairs(data, samples), None)
    dims = ("sample", "time", *space) if times is not None else ("sample", *space)
    if times is not None and times.ndim == 2:
        coordinates["times"] = (("sample", "time"), times)
    elif times is not None:
        coordinates["time"] = times
    variables = {name: (dims, values, {"units": data.units.get(name, "1")}) for name, values in fields.items()}
    return xarray.Dataset(variables, coords=coordinates, attrs=_attributes(data))


def _of_pairs(data: FieldDataset, samples: Sequence[int] | None) -> dict[str, Any]:
    inputs, targets = data.read(range(len(data)) if samples is None else samples)
    channels = [*inputs.numpy().swapaxes(0, 1), *targets.numpy().swapaxes(0, 1)]
    return dict(zip((*data.input_names, *data.target_names), channels, strict=True))


def _of_files(data: TaskDataset, samples: Sequence[int] | None) -> tuple[dict[str, Any], Any]:
    """Channels ``(sample, [time,] *space)``, and times or None."""
    roles: tuple[Role, ...] = ("state", "input", "target")
    places = [(file, one) for file, some in zip(data.files, data.samples, strict=True) for one in some]
    chosen = places if samples is None else [places[i] for i in samples]
    blocks = [file.read(range(one, one + 1), range(file.num_frames), roles) for file, one in chosen]
    values = np.concatenate(blocks)
    names = [c for role in roles for c in data.contents.channels(role)]
    ordered = [c for v in data.contents.of_role(*roles) for c in v.channels(data.domain.num_dims)]
    channels = {name: values[:, :, ordered.index(name)] for name in names}
    if data.contents.times is None:
        return {name: field[:, 0] for name, field in channels.items()}, None
    every = [(file.contents.times, one) for file, one in chosen]
    rows = [times if times.ndim == 1 else times[one] for times, one in every if times is not None]
    alike = all(np.array_equal(row, rows[0]) for row in rows)
    return channels, rows[0] if alike else np.stack(rows)


def _attributes(data: FieldDataset) -> dict[str, Any]:
    about = data.contents if isinstance(data, TaskDataset) else getattr(data, "description", None)
    if about is None:
        return {}
    parameters = {name: parameter.value for name, parameter in about.parameters.items()}
    return {"name": about.name, "equation": about.equation, "domain": repr(data.domain), **parameters}
