"""A file that holds named arrays, whatever its format: opened late, once per process, read slice by slice."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.errors import DataError, NeuralopKitError


class StoredArray(Protocol):
    """An array in a file; a slice of it is read when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Type of its numbers."""

    def __getitem__(self, index: tuple[slice | int, ...]) -> Any:
        """A part of it, in memory."""


class Container(ABC):
    """A file of one format. What is open belongs to the process that opened it.

    Args:
        path: the file.
    """

    format: ClassVar[str]
    # Whether a part of an array is memory of its own, not a view of what the container keeps.
    copies: ClassVar[bool] = False
    # What the libraries for this format raise on a damaged file.
    damage: ClassVar[tuple[type[Exception], ...]] = (
        OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError, OverflowError,
        EOFError,
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Any = None
        self._owner = -1
        # Which file it was when it was opened.
        self.stamp: tuple[int, int, int] | None = None

    @classmethod
    @abstractmethod
    def recognizes(cls, head: bytes) -> bool:
        """Whether a file that begins with ``head`` (up to 1024 bytes) is of this format."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names at the top of the file, in alphabetical order."""

    @abstractmethod
    def array(self, place: str) -> StoredArray:
        """The array at ``place``; a :class:`DataError` when there is none, or it is unsafe to read."""

    @abstractmethod
    def _open(self) -> Any:
        """Open the file."""

    def values(self, place: str) -> Any:
        """All of a small array, in memory."""
        array = self.array(place)
        with self.explained():
            return np.asarray(array[(slice(None),) * len(array.shape)])

    @property
    def opened(self) -> Any:
        """The open file."""
        if not self._is_open:
            with explained(DataError, f"to read {self.path}"), self.explained():
                self._opened, self._owner = self._open(), os.getpid()
                self.stamp = self._stamp()
        return self._opened

    @property
    def _is_open(self) -> bool:
        """Whether this process has opened it."""
        return self._opened is not None and self._owner == os.getpid()

    def _stamp(self) -> tuple[int, int, int] | None:
        """What tells a file from another one of the same name; None for what is in memory only."""
        if not self.path.exists():
            return None
        status = self.path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def explained(self) -> "_Explained":
        """A block in which damage becomes a :class:`DataError`."""
        return _Explained(self)

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._owner == os.getpid() and hasattr(self._opened, "close"):
            self._opened.close()
        self._opened = None

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_opened": None, "_owner": -1}


class _Explained:
    def __init__(self, container: Container) -> None:
        self._container = container

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._container.damage) and not isinstance(error, NeuralopKitError):
            text = " ".join(str(error).split())[:300]
            raise DataError(
                f"expected an intact {self._container.format} file, got damage in {self._container.path} "
                f"({type(error).__name__}: {text}); fetch it again"
            ) from error
