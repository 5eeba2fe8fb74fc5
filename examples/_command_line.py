"""From a command line to a run, the same in all examples; what cannot be is refused before it costs any time."""

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tyro

from neuralop_kit import NeuralopKitError

# All other numbers are positive.
MAY_BE_ZERO = {
    "seed", "seeds", "skip", "weight", "penalty", "error_weight", "local_weight", "stiffness_weight",
}  # fmt: skip


def run_example(main: Callable[[Any], None], kind: type[Any], description: str | None) -> None:
    """Read the settings, check them, run; errors that explain themselves are shown without a traceback."""
    settings = tyro.cli(kind, description=description)
    try:
        check(settings)
        main(settings)
    except NeuralopKitError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    except KeyboardInterrupt:
        print("\ninterrupted; every file that is there is whole", file=sys.stderr)
        raise SystemExit(130) from None


def shorter(settings: Any, **values: Any) -> Any:
    """The settings of ``--quick``; what was chosen by hand stays as it was chosen."""
    usual = type(settings)()
    left = {name: value for name, value in values.items() if getattr(settings, name) == getattr(usual, name)}
    return replace(settings, **left)


def check(settings: Any) -> None:
    """Refuse numbers that are too small, and a folder of results that cannot be written."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        option = "--" + field.name.replace("_", "-")
        if isinstance(value, tuple) and not value:
            raise SystemExit(f"expected at least one value for {option}, got none; leave the option out for the usual")
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, bool) and isinstance(number, int | float):
                _check_number(option, number, may_be_zero=field.name in MAY_BE_ZERO)
    if settings.out is not None:
        writable(settings.out)


def _check_number(option: str, number: float, *, may_be_zero: bool) -> None:
    if not math.isfinite(number) or number < 0 or (number == 0 and not may_be_zero):
        wanted = "zero or a positive number" if may_be_zero else "a positive number"
        raise SystemExit(f"expected {wanted} for {option}, got {number}; --help tells what it means")


def writable(folder: Path) -> None:
    """Make a folder of results, or say at the beginning what would otherwise be found at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SystemExit(
            f"expected a folder that can be written, got {folder}: {error.strerror}; choose another"
        ) from None
