"""What a dataset is about: everything in it that is not numbers on a grid."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DataError, NeuralopKitError

DTYPES = ("float32", "float64")
# One read of the system returns no more, and a chunk of HDF5 holds little more.
MAX_FIELD_BYTES = 2**31 - 2**13


@dataclass(frozen=True)
class Parameter:
    """One number of an equation: its value, its unit (``"1"`` where it has none) and what it means."""

    value: float
    unit: str
    meaning: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ArgumentError(f"expected a finite parameter, got {self.value} ({self.meaning}); correct it")


@dataclass(frozen=True)
class Description:
    """What a dataset is about: the equation, where its functions live, their names and units, and the grid.

    Args:
        name: of the problem, such as ``"darcy"``.
        equation: in plain symbols, with boundary conditions.
        source: whose settings these are.
        domain: where the functions live.
        shape: points per axis of ``domain``.
        dtype: of the stored numbers, ``"float32"`` or ``"float64"``.
        input_names, target_names: one name per channel; each is a field of its own in the file.
        units: unit of each field by name, ``"1"`` where it has none.
        parameters: of the equation, by name.
        times: of the frames of a trajectory, increasing; the fields are then states, each at all these times, and there
            are no inputs. Empty for a steady problem.

    Raises:
        ArgumentError: a name is used twice or cannot name a field, a unit is missing, or a field is too large.
        DomainError: ``shape`` does not go with ``domain``.
    """

    name: str
    equation: str
    domain: Domain
    shape: tuple[int, ...]
    input_names: tuple[str, ...]
    target_names: tuple[str, ...]
    units: Mapping[str, str]
    source: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    dtype: str = "float32"
    times: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self.domain.check_shape(self.shape)
        if self.dtype not in DTYPES:
            raise ArgumentError(f"expected a dtype among {list(DTYPES)}, got {self.dtype!r}; take one of these")
        if self.field_bytes > MAX_FIELD_BYTES:
            raise ArgumentError(
                f"expected at most {MAX_FIELD_BYTES} bytes per field, got {self.field_bytes}; use fewer points"
            )
        if not self.target_names or bool(self.input_names) == bool(self.times):
            raise ArgumentError(
                f"expected inputs and targets, or targets and times, got inputs {self.input_names}, targets "
                f"{self.target_names} and {len(self.times)} times; name every channel"
            )
        if not all(a < b for a, b in zip(self.times, self.times[1:], strict=False)) or not all(
            map(math.isfinite, self.times)
        ):
            raise ArgumentError(f"expected finite, increasing times, got {self.times[:8]}; correct them")
        for name in (*self.field_names, *self.parameters):
            _check_name(name)
        if len(set(self.field_names)) < len(self.field_names):
            raise ArgumentError(f"expected different names for all fields, got {self.field_names}; rename one")
        if set(self.units) != set(self.field_names):
            raise ArgumentError(
                f"expected a unit for each of {self.field_names}, got {dict(self.units)}; use '1' for numbers without"
            )

    @property
    def field_names(self) -> tuple[str, ...]:
        """Inputs, then targets."""
        return (*self.input_names, *self.target_names)

    @property
    def num_frames(self) -> int:
        """Times per sample; 1 for a steady problem."""
        return max(1, len(self.times))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one field of one sample, ``([time,] *space)``."""
        return (len(self.times), *self.shape) if self.times else self.shape

    @property
    def field_bytes(self) -> int:
        """Bytes of one field at one time."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, all its fields at all times."""
        return self.field_bytes * len(self.field_names) * self.num_frames

    def to_json(self) -> dict[str, Any]:
        """A description of plain numbers and strings."""
        return {
            "name": self.name,
            "equation": self.equation,
            "source": self.source,
            "domain": self.domain.to_json(),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "input_names": list(self.input_names),
            "target_names": list(self.target_names),
            "units": dict(self.units),
            "parameters": {name: vars(parameter) for name, parameter in self.parameters.items()},
            # Left out for steady problems, whose identity it would change.
            **({"times": list(self.times)} if self.times else {}),
        }

    @classmethod
    def from_json(cls, content: Any) -> "Description":
        """Inverse of :meth:`to_json`; a :class:`DataError` when ``content`` comes from elsewhere."""
        try:
            return cls(
                name=_text(content["name"]),
                equation=_text(content["equation"]),
                source=_text(content["source"]),
                domain=Domain.from_json(content["domain"]),
                shape=tuple(_count(n) for n in content["shape"]),
                dtype=_text(content["dtype"]),
                input_names=tuple(_text(name) for name in content["input_names"]),
                target_names=tuple(_text(name) for name in content["target_names"]),
                units={_text(name): _text(unit) for name, unit in content["units"].items()},
                parameters={
                    _text(name): Parameter(float(p["value"]), _text(p["unit"]), _text(p["meaning"]))
                    for name, p in content["parameters"].items()
                },
                times=tuple(float(time) for time in content.get("times", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, NeuralopKitError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"expected the description of a dataset, got one that does not fit ({reason})") from error


def _check_name(name: str) -> None:
    """Names become names of HDF5 objects and attributes, and words in messages."""
    if not name or name.strip() != name or name in (".", "..") or any(c == "/" or not c.isprintable() for c in name):
        raise ArgumentError(f"expected a name of printable characters without '/', got {name!r}; rename it")
    if len(name.encode("utf-8", "surrogatepass")) > 255:
        raise ArgumentError(f"expected a name of at most 255 bytes, got {len(name)} characters; shorten it")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"expected a positive integer, got {value!r}")
    return value
