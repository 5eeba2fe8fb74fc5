"""The base of all readers: whether a file is in a layout, and what it then holds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from neuralop_kit.datasets.readers.container import Container
from neuralop_kit.datasets.readers.contents import Contents


@dataclass(frozen=True)
class Hints:
    """What the user says beyond the path.

    Args:
        split: the split that is wanted; for files that hold several.
        axes: letters of the axes, for arrays without any description.
    """

    split: str | None = None
    axes: str | None = None


class Layout(ABC):
    """A public layout of fields in a file: one leaf each, no state."""

    name: ClassVar[str]
    container: ClassVar[type[Container]]

    @abstractmethod
    def matches(self, file: Any) -> bool:
        """Whether the content of a container, of the class that this layout wants, is in this layout."""

    @abstractmethod
    def contents(self, file: Any, hints: Hints) -> Contents:
        """What the file holds; reads names, shapes, attributes and coordinates, and a sample where a defect shows."""
