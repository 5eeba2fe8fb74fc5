"""A problem: random inputs, a solver for their targets, and what both mean."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.datasets.description import Description, Parameter
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, RegistryError


@dataclass(frozen=True)
class Samples:
    """What a problem returns for a batch of seeds.

    Args:
        input: ``(batch, in_channels, *space)``; None where the target is a trajectory.
        target: ``(batch, out_channels, *space)``, or ``(batch, channels, time, *space)``.
        converged: booleans ``(batch,)``; a sample whose solver did not converge is never stored.
    """

    input: Tensor | None
    target: Tensor
    converged: Tensor


class Problem(ABC):
    """Random input functions and the solution operator that an operator network shall learn.

    A leaf states what it is about as attributes and draws a batch in :meth:`sample`.

    Attributes:
        name: how users choose it; lower case, words joined by hyphens.
        equation: in plain symbols, with boundary conditions.
        source: whose settings these are, and what differs from theirs.
        domain: where the functions live.
        input_names, target_names: one name per channel.
        units: unit of each field, ``"1"`` where it has none.
        parameters: numbers of the equation and of the distribution of its inputs.
        setting: who published these numbers, such as ``"fno"`` or ``"pdebench"``; empty for our own.
        times: of the frames of a trajectory; empty for a steady problem, or from a state to a later one.
    """

    name: str
    equation: str
    source: str
    domain: Domain
    input_names: tuple[str, ...]
    target_names: tuple[str, ...]
    units: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    setting: str = ""
    times: tuple[float, ...] = ()

    @abstractmethod
    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw and solve one sample per generator on a grid of ``shape``, in float64.

        Sample ``i`` depends on ``generators[i]`` only. The same generators on a finer grid give the same functions.
        """

    def shape(self, resolution: int | Sequence[int]) -> tuple[int, ...]:
        """Points per axis: ``resolution`` for every axis, or one number each.

        Raises:
            ArgumentError: ``resolution`` is not positive.
            DomainError: the domain cannot carry it.
        """
        sizes = tuple(resolution) if isinstance(resolution, Sequence) else (resolution,) * self.domain.num_dims
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
            raise ArgumentError(f"expected a positive whole number of points per axis, got {resolution}; try 64")
        self.domain.check_shape(sizes)
        return sizes

    def difficulty(self, shape: Sequence[int]) -> dict[str, float]:
        """How hard it is on this grid, in numbers without units; empty where no such numbers are known."""
        return {}

    def describe(self, shape: Sequence[int], *, dtype: str = "float32") -> Description:
        """What a dataset of this problem says about itself, its difficulty on this grid included."""
        difficulty = {
            name: Parameter(value, "1", "difficulty on this grid") for name, value in self.difficulty(shape).items()
        }
        return Description(
            name=self.name,
            equation=self.equation,
            source=self.source,
            domain=self.domain,
            shape=tuple(shape),
            dtype=dtype,
            input_names=self.input_names,
            target_names=self.target_names,
            units=self.units,
            parameters={**self.parameters, **difficulty},
            times=self.times,
        )


class ProblemRegistry(Mapping[str, Problem]):
    """Problems by name; an unknown name is an error that lists the known ones."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}

    def register(self, problem: Problem) -> Problem:
        """Make a problem known by its name; a :class:`RegistryError` when the name is taken."""
        if problem.name in self._problems:
            raise RegistryError(f"expected a new name, got {problem.name!r}, which is registered; choose another")
        self._problems[problem.name] = problem
        return problem

    def __getitem__(self, name: str) -> Problem:
        if name not in self._problems:
            close = difflib.get_close_matches(name, self._problems, n=3, cutoff=0.6)
            advice = f"did you mean {' or '.join(close)}?" if close else "take one of these"
            raise RegistryError(f"expected a problem among {sorted(self._problems)}, got {name!r}; {advice}")
        return self._problems[name]

    def choose(self, name: str, settings: str) -> Problem:
        """The problem ``name``, or the one whose name begins so, with the numbers that ``settings`` published.

        Raises:
            RegistryError: there is none, or there are several; the message lists them.
        """
        found = [p for p in self._problems.values() if p.setting == settings and f"{p.name}-".startswith(f"{name}-")]
        exact = [p for p in found if p.name == name]
        if len(found) != 1 and not exact:
            known = sorted(p.name for p in found or self._problems.values() if p.setting == settings)
            raise RegistryError(
                f"expected one problem {name!r} with settings {settings!r}, got {len(found)}; take one of these names: "
                f"{known or sorted({p.setting for p in self._problems.values()} - {''})}"
            )
        return (exact or found)[0]

    def __contains__(self, name: object) -> bool:
        return name in self._problems

    def __iter__(self) -> Iterator[str]:
        return iter(self._problems)

    def __len__(self) -> int:
        return len(self._problems)
