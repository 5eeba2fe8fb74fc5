"""Whether an HDF5 file is in The Well's layout: the rules of its own checker and of its loader."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.safety import open_safely

BOUNDARY_TYPES = ("periodic", "wall", "open")
GRID_TYPES = ("cartesian", "spherical")


def check_file(path: str | Path) -> list[str]:
    """Everything in which an HDF5 file departs from The Well's layout; empty when it conforms.

    The rules are those of The Well 1.2's own checker (attributes, their types, shapes) and those that its loader relies
    on without checking (boundary types, masks that mark something, numbers in the fields).

    Args:
        path: of the file.

    Raises:
        DataError: the file is no HDF5 file, damaged or unsafe to read.

    Source: The Well 1.2, scripts/check_thewell_formatting.py and docs/data_format.md.
    """
    with open_safely(path) as file:
        return list(_Checker(file).faults())


class _Checker:
    """Walks through a file and yields a sentence per fault."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.dims: list[str] = []

    def faults(self) -> Iterator[str]:
        yield from self._root()
        groups = ["dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"]
        missing = [name for name in groups if not isinstance(self.file.get(name), h5py.Group)]
        if missing:
            # The rest is stated in terms of these groups.
            yield f"expected the groups {groups}, missing are {missing}"
            return
        yield from self._dimensions()
        yield from self._scalars()
        yield from self._boundaries()
        for rank in range(3):
            yield from self._fields(rank)

    def _root(self) -> Iterator[str]:
        attributes = self.file.attrs
        yield from _expect(attributes, "/", "dataset_name", _is_text)
        yield from _expect(attributes, "/", "grid_type", _is_text)
        yield from _expect(attributes, "/", "n_spatial_dims", _is_integer)
        yield from _expect(attributes, "/", "n_trajectories", _is_integer)
        yield from _expect(attributes, "/", "simulation_parameters", _is_texts)
        if attributes.get("grid_type") not in GRID_TYPES:
            yield f"expected grid_type among {GRID_TYPES}, got {attributes.get('grid_type')!r}"
        scalars = self.file.get("scalars", {})
        for name in _texts(attributes.get("simulation_parameters")):
            if name not in attributes:
                yield f"simulation parameter {name!r} is no attribute of /"
            if name not in scalars:
                yield f"simulation parameter {name!r} is no dataset in /scalars"

    def _dimensions(self) -> Iterator[str]:
        group = self.file["dimensions"]
        yield from _expect(group.attrs, group.name, "spatial_dims", _is_texts)
        self.dims = _texts(group.attrs.get("spatial_dims"))
        if len(self.dims) != self.file.attrs.get("n_spatial_dims"):
            yield f"expected n_spatial_dims names in spatial_dims, got {self.dims}"
        yield from self._dataset(group, "time")
        for name in self.dims:
            # A coordinate array has one axis of its own behind those that its flags announce.
            yield from self._dataset(group, name, trailing=1)

    def _scalars(self) -> Iterator[str]:
        group = self.file["scalars"]
        yield from _expect(group.attrs, group.name, "field_names", _is_texts)
        for name in _texts(group.attrs.get("field_names")):
            yield from self._dataset(group, name)

    def _fields(self, rank: int) -> Iterator[str]:
        group = self.file[f"t{rank}_fields"]
        yield from _expect(group.attrs, group.name, "field_names", _is_texts)
        names = _texts(group.attrs.get("field_names"))
        for name in names:
            yield from self._dataset(group, name, rank=rank)
        extra = sorted(set(group) - set(names))
        if extra:
            yield f"datasets {extra} in {group.name} are not among its field_names"

    def _boundaries(self) -> Iterator[str]:
        for name, condition in self.file["boundary_conditions"].items():
            where = f"/boundary_conditions/{name}"
            if not isinstance(condition, h5py.Group):
                yield f"{where} is no group"
                continue
            yield from _expect(condition.attrs, where, "bc_type", _is_text)
            yield from _expect(condition.attrs, where, "associated_dims", _is_texts)
            yield from _expect(condition.attrs, where, "associated_fields", _is_texts)
            yield from _expect_flags(condition.attrs, where)
            kind = str(condition.attrs.get("bc_type")).lower()
            if kind not in BOUNDARY_TYPES:
                yield f"expected bc_type of {where} among {BOUNDARY_TYPES}, got {kind!r}"
            yield from self._mask(condition, where)

    def _mask(self, condition: h5py.Group, where: str) -> Iterator[str]:
        dims = _texts(condition.attrs.get("associated_dims"))
        yield from (
            f"associated dim {dim!r} of {where} is not among {self.dims}" for dim in dims if dim not in self.dims
        )
        mask = condition.get("mask")
        if not isinstance(mask, h5py.Dataset):
            yield f"{where} has no mask"
            return
        expected = (*self._leading(condition.attrs), *(self._length(dim) for dim in self.dims if dim in dims))
        if mask.shape != expected:
            yield f"expected the mask of {where} with shape {expected}, got {mask.shape}"
        elif mask.dtype != np.bool_ or not mask[...].any():
            yield f"the mask of {where} marks nothing"

    def _dataset(self, group: h5py.Group, name: str, *, rank: int | None = None, trailing: int = 0) -> Iterator[str]:
        data = group.get(name)
        where = f"{group.name}/{name}"
        if not isinstance(data, h5py.Dataset):
            yield f"{where} is missing"
            return
        flags = list(_expect_flags(data.attrs, where))
        yield from flags
        expected = self._leading(data.attrs)
        if rank is not None:
            flags = list(_expect(data.attrs, where, "dim_varying", self._is_flag_per_dim))
            yield from flags
            if not flags:
                varying = zip(self.dims, data.attrs["dim_varying"], strict=True)
                expected += tuple(self._length(dim) for dim, varies in varying if varies)
            expected += (len(self.dims),) * rank
        found = data.shape[: len(data.shape) - trailing]
        if not flags and found != expected:
            yield f"expected {where} with shape {expected}, got {found}"
        if data.dtype.kind not in "biuf":
            yield f"expected numbers in {where}, got {data.dtype}"

    def _leading(self, attributes: h5py.AttributeManager) -> tuple[int, ...]:
        """Sizes of the axes that exist only if a flag says so."""
        leading: tuple[int, ...] = ()
        if attributes.get("sample_varying"):
            leading += (int(self.file.attrs.get("n_trajectories", -1)),)
        if attributes.get("time_varying"):
            leading += (self._length("time"),)
        return leading

    def _length(self, dim: str) -> int:
        data = self.file["dimensions"].get(dim)
        return data.shape[-1] if isinstance(data, h5py.Dataset) and data.shape else -1

    def _is_flag_per_dim(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.shape == (len(self.dims),)


def _expect(attributes: h5py.AttributeManager, where: str, name: str, kind: Callable[[Any], bool]) -> Iterator[str]:
    if name not in attributes:
        yield f"{where} has no attribute {name!r}"
    elif not kind(attributes[name]):
        yield f"attribute {name!r} of {where} has the wrong type, {type(attributes[name]).__name__}"


def _expect_flags(attributes: h5py.AttributeManager, where: str) -> Iterator[str]:
    for name in ("sample_varying", "time_varying"):
        yield from _expect(attributes, where, name, lambda value: isinstance(value, bool | np.bool_))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    # An empty list comes back from h5py as an array without strings in it.
    return isinstance(value, np.ndarray) and all(isinstance(text, str) for text in value.ravel().tolist())


def _texts(value: Any) -> list[str]:
    return [text for text in np.ravel(value).tolist() if isinstance(text, str)] if _is_texts(value) else []
