"""Everything this package raises on purpose: one base, short leaves, each also the builtin that fits."""


class NeuralopKitError(Exception):
    """Base of every error of this package: ``except NeuralopKitError`` catches them all."""


class ArgumentError(NeuralopKitError, ValueError):
    """An argument has a value outside its valid range."""


class DomainError(NeuralopKitError, ValueError):
    """A domain was described inconsistently, or cannot carry the grid that was asked for."""


class ShapeError(NeuralopKitError, ValueError):
    """A tensor has the wrong rank, channel count or size."""


class NonFiniteError(NeuralopKitError, ValueError):
    """Data contain NaN or infinity where numbers are needed."""


class DataError(NeuralopKitError, OSError):
    """A file is damaged, incomplete, unsafe to read, or not of a known layout."""


class CheckpointError(NeuralopKitError, RuntimeError):
    """No usable checkpoint was found, or one cannot be written."""


class ConvergenceError(NeuralopKitError, RuntimeError):
    """An iteration did not reach its tolerance, and the caller asked for an error rather than a status."""


class RegistryError(NeuralopKitError, KeyError):
    """A name is not registered, or is registered already."""

    def __str__(self) -> str:
        # KeyError would print its message in quotes, with escapes.
        return str(self.args[0]) if self.args else ""


class MissingExtraError(NeuralopKitError, ImportError):
    """An optional dependency is not installed, or does not load beside the installed torch."""
