"""A trained operator as one folder: weights, constructor arguments, statistics. Anyone can load it, nothing is run.

darcy-fno/
    config.json           {"model": "fno", "arguments": {...}, "versions": {...}}
    model.safetensors
    MANIFEST.json         size and sha256 of both
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import CheckpointError, NeuralopKitError
from neuralop_kit.training import files
from neuralop_kit.training.run_state import versions
from neuralop_kit.training.wrapping import unwrapped


def save_model(folder: str | os.PathLike[str], model: nn.Module) -> None:
    """Write a registered model to a folder, whole or not at all; an earlier model there is replaced.

    Statistics are saved when they are part of the model: ``save_model(folder, Normalized(fno, ...))``.

    Args:
        folder: its parent is created when absent.
        model: of a class decorated with ``register_model``; compiled and distributed models are unwrapped.

    Raises:
        RegistryError: the model's class is not registered, or an argument cannot be written as JSON.
        CheckpointError: the folder cannot be written, or holds something else than a saved model.
        NonFiniteError: a weight is NaN or infinite.

    >>> import tempfile
    >>> from neuralop_kit.models import FNO
    >>> from neuralop_kit.solvers import Domain
    >>> model = FNO(1, 1, domain=Domain.periodic((1.0,)), width=8, num_layers=1, modes=(4,)).eval()
    >>> folder = tempfile.mkdtemp() + "/burgers"
    >>> save_model(folder, model)
    >>> u = torch.randn(2, 1, 32)
    >>> torch.equal(load_model(folder)(u), model(u))
    True
    """
    path = Path(folder)
    model = unwrapped(model)
    content = {"model": name_of(model), "arguments": config_of(model), "versions": versions()}
    if path.exists() and not (path / files.MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"expected a saved model or nothing at {path}, got other files; choose another folder")
    with files.write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_folder(path) as temporary:
            files.write_weights(temporary / files.WEIGHTS, model.state_dict())
            files.write_json(temporary / "config.json", content)
            files.write_manifest(temporary)


def load_model(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> nn.Module:
    """The model that :func:`save_model` wrote, in evaluation mode, in the dtype in which it was saved.

    Only registered classes are built and only tensors are read: an untrusted folder can fail, not run code.

    Args:
        folder: written by :func:`save_model`.
        device: where the model goes.

    Raises:
        CheckpointError: a file is missing, damaged or altered, or the weights do not fit the arguments.
        RegistryError: the model's name is not registered here; import the module that registers it.

    >>> import tempfile
    >>> from neuralop_kit.models import FNO
    >>> from neuralop_kit.solvers import Domain
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(f"{folder}/fno", FNO(1, 1, domain=Domain.periodic((1.0,)), width=8, num_layers=1, modes=4))
    ...     model = load_model(f"{folder}/fno")
    >>> type(model).__name__, model.training
    ('FNO', False)
    """
    path = Path(folder)
    if not (path / files.MANIFEST).exists():
        found = "a folder of other files" if path.is_dir() else "a file" if path.exists() else "nothing"
        raise CheckpointError(f"expected a saved model at {path}, got {found}; give the folder that save_model wrote")
    try:
        files.verify_manifest(path)
    except OSError as error:
        raise CheckpointError(
            f"expected a saved model at {path}, got {error}; was it written by save_model?"
        ) from error
    content = files.read_json(path / "config.json")
    weights = files.read_weights(path / files.WEIGHTS)
    model = _build(content)
    _check_fit(model.state_dict(), weights)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in weights:
            tensor.data = tensor.data.to(weights[name].dtype)
    model.load_state_dict(weights)
    return model.to(device).eval()


def _build(content: dict[str, Any]) -> nn.Module:
    name, arguments = content.get("model"), content.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise CheckpointError(f"expected a model name and its arguments in config.json, got {sorted(content)}")
    try:
        return build_model(name, arguments)
    except NeuralopKitError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(
            f"expected arguments that build {name!r}, got {error}; is config.json damaged?"
        ) from error


def _check_fit(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = {name: tuple(tensor.shape) for name, tensor in got.items()}
    different = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
    if different:
        first = different[0]
        raise CheckpointError(
            f"expected weights that fit the arguments, got {len(different)} that do not: {first!r} has shape "
            f"{found.get(first)}, the model wants {shapes.get(first)}; was another version saved?"
        )
