"""Neural operators and physics-constrained PDE learning in PyTorch.

Domain            where a function lives; every layer, solver, loss and data file speaks of space through it
layers            building blocks on fields ``(batch, channel, *space)``
models            operators ready to train
convert           any torch network becomes an operator
constraints       layers that obey physics exactly
neural_ode        neural differential equations that learn to be cheap to solve
optim             optimizers for operators and residuals
training          losses, trainer, checkpoints
solvers           numerics without learned parameters
datasets          fields on disk
NeuralopKitError  base of every error raised on purpose

Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralop_kit.solvers.domain import Domain
    from neuralop_kit.solvers.errors import NeuralopKitError

__version__ = "0.1.0"
_SUBPACKAGES = ("constraints", "convert", "datasets", "layers", "models", "neural_ode", "optim", "solvers", "training")
__all__ = ["Domain", "NeuralopKitError", *_SUBPACKAGES]

_ATTRIBUTES = {"Domain": "neuralop_kit.solvers.domain", "NeuralopKitError": "neuralop_kit.solvers.errors"}


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        return getattr(import_module(_ATTRIBUTES[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"neuralop_kit.{name}")
    raise AttributeError(f"module 'neuralop_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
