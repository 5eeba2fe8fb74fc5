"""What a file of a public layout holds, in the words of this package; no numbers on a grid are read for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.solvers.domain import Domain

# Letters of the axes of a stored array: sample, time, component, second component, space; "1" is an axis to drop.
SPACE_LETTERS = "xyzw"
AXIS_LETTERS = "ntcd" + SPACE_LETTERS
ONE = "1"

Role = Literal["state", "input", "target"]
Numbers = NDArray[Any]


class DataWarning(UserWarning):
    """A file has a known defect; the message names it and says what was done about it."""


@dataclass(frozen=True)
class Variable:
    """One stored quantity and what the axes of its array mean.

    Args:
        name: of the quantity; with several components the channels are ``name_x, name_y, ...``.
        axes: one letter per axis of the array as it is stored, for example ``"ntxyc"``; see ``AXIS_LETTERS``. Where
            ``n``, ``t`` or a space axis is missing, the quantity is constant along it.
        places: where the container has the array: one with all samples, or one per sample.
        role: ``"state"`` evolves, ``"input"`` is given, ``"target"`` is what a steady problem asks for.
        unit: ``"1"`` where it has none.
        num_components: product of the lengths of its component axes.
        rank: 0 scalar, 1 vector, 2 tensor.
        skip: leading frames that are left out.
        initial: a quantity without time that is the first frame.
        names: of the components, where they are no vector or tensor.
    """

    name: str
    axes: str
    places: tuple[str, ...]
    role: Role = "state"
    unit: str = "1"
    num_components: int = 1
    rank: int = 0
    skip: int = 0
    initial: "Variable | None" = None
    names: tuple[str, ...] = ()

    def channels(self, num_dims: int) -> tuple[str, ...]:
        """Names of its channels."""
        letters = SPACE_LETTERS[:num_dims]
        if self.names:
            return self.names
        if self.rank == 1 and self.num_components == num_dims:
            return tuple(f"{self.name}_{a}" for a in letters)
        if self.rank == 2 and self.num_components == num_dims**2:
            return tuple(f"{self.name}_{a}{b}" for a in letters for b in letters)
        if self.num_components == 1:
            return (self.name,)
        return tuple(f"{self.name}_{k}" for k in range(self.num_components))


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        layout: whose layout it is.
        name: of the problem.
        equation: in plain symbols, as far as the layout defines it.
        domain, shape: where the functions live, points per axis.
        variables: in the order of the channels.
        num_samples: how many functions or trajectories.
        num_frames: times per trajectory; None for a steady problem.
        times: ``(num_frames,)``, or ``(num_samples, num_frames)`` where samples differ; None for a steady problem.
        dtype: of what is read, ``"float32"`` or ``"float64"``.
        parameters: numbers that hold for all samples.
        sample_parameters: numbers that differ, ``(num_samples,)`` each.
        splits: splits that the authors of the layout published, by name.
        assumptions: what the file does not say and the reader supposed.
        defects: in what the file departs from its own description, and what was done.
    """

    layout: str
    name: str
    domain: Domain
    shape: tuple[int, ...]
    variables: tuple[Variable, ...]
    num_samples: int
    num_frames: int | None = None
    times: Numbers | None = None
    dtype: str = "float32"
    equation: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    sample_parameters: Mapping[str, Numbers] = field(default_factory=dict)
    splits: Mapping[str, range] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()

    def of_role(self, *roles: Role) -> tuple[Variable, ...]:
        """Its variables with one of these roles."""
        return tuple(variable for variable in self.variables if variable.role in roles)

    def channels(self, *roles: Role) -> tuple[str, ...]:
        """Names of the channels with one of these roles."""
        dims = self.domain.num_dims
        return tuple(channel for variable in self.of_role(*roles) for channel in variable.channels(dims))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each channel by name."""
        return {c: v.unit for v in self.variables for c in v.channels(self.domain.num_dims)}

    def with_domain(self, domain: Domain) -> "Contents":
        """The same on a domain that the user states, which is then no assumption any more."""
        domain.check_shape(self.shape)
        return replace(self, domain=domain, assumptions=tuple(a for a in self.assumptions if not a.startswith("grid")))


def common_dtype(*dtypes: "np.dtype[Any]") -> str:
    """``"float32"`` when it holds all of them exactly, else ``"float64"``."""
    wide = np.result_type(np.float32, *dtypes)
    return "float32" if wide == np.float32 else "float64"
