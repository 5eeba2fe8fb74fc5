"""The three files of a checkpoint or a saved model, and the manifest that vouches for them.

model.safetensors     weights; complex tensors as real pairs, their dtype in the header
train_state.pt        tensors and primitives only, read with ``weights_only=True``
*.json                everything that a person may want to read
MANIFEST.json         size and sha256 of each of the others; written last
"""

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuralop_kit.solvers.errors import CheckpointError, NonFiniteError

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
WEIGHTS = "model.safetensors"
_PRIMITIVES = (bool, int, float, complex, str, bytes)


def write_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors: on the CPU, contiguous, shared storage apart, complex as real pairs.

    Raises:
        NonFiniteError: a weight is NaN or infinite; nothing good is overwritten by it.
        CheckpointError: an entry is not a tensor.
    """
    if bad := first_not_finite(state_dict):
        raise NonFiniteError(f"expected finite weights, got NaN or infinity in {bad!r}; load good ones first")
    tensors, dtypes = {}, {}
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"expected tensors in the state dict, got {type(value).__name__} at {name!r}; drop get_extra_state"
            )
        value = value.detach().cpu()
        if value.is_complex():
            dtypes[name] = str(value.dtype).removeprefix("torch.")
            value = torch.view_as_real(value.resolve_conj())
        # The copy also separates tensors that share storage, which the format forbids.
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    save_file(tensors, path, metadata={"complex": json.dumps(dtypes)})


def first_not_finite(state_dict: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor that contains NaN or infinity, if there is one."""
    for name, value in state_dict.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            return name
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Inverse of :func:`write_weights`.

    Raises:
        CheckpointError: not a readable safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            complex_names = json.loads((file.metadata() or {}).get("complex", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: torch.view_as_complex(value) if name in complex_names else value for name, value in tensors.items()
        }
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"expected a safetensors file, got {path.name}: {error}; is it damaged?") from error


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a tree of tensors and primitives; anything else is refused, as a safe load could not read it."""
    torch.save(_on_cpu(dict(state), ""), path)


def read_state(path: Path) -> dict[str, Any]:
    """Inverse of :func:`write_state`; never runs code from the file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        raise CheckpointError(f"expected a training state, got {path.name}: {error}; is it damaged?") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable, strict JSON: NaN is refused."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: absent, unreadable, or not an object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"expected a JSON file, got {path.name}: {error}; is it damaged?") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a JSON object in {path.name}, got {type(content).__name__}; is it damaged?")
    return content


def write_manifest(folder: Path) -> None:
    """List size and sha256 of every file in ``folder``."""
    files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})


def verify_manifest(folder: Path) -> None:
    """Compare ``folder`` with its manifest.

    Raises:
        CheckpointError: a file is missing, too many, of another size, or of another content.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"expected format version {FORMAT_VERSION}, got {manifest.get('format_version')!r} in {folder.name}; "
            "it was written by another version of neuralop_kit"
        )
    listed = manifest.get("files")
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if not isinstance(listed, dict) or set(listed) != present:
        raise CheckpointError(f"expected the files that {MANIFEST} lists, got {sorted(present)} in {folder.name}")
    for name, expected in listed.items():
        if _fingerprint(folder / name) != expected:
            raise CheckpointError(f"expected {name} as {MANIFEST} describes it, got another content; it is damaged")


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Tell every way in which writing fails (full disk, no rights) as one error of ours."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"expected to write {target}, got {error}; check free space and rights. What was there before is intact"
        ) from error


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _on_cpu(value: Any, path: str) -> Any:
    """A copy on the CPU of a tree of tensors and primitives; the path of anything else is reported."""
    if isinstance(value, Tensor):
        # A view would be written together with the whole storage behind it.
        return value.detach().cpu().clone()
    if value is None or isinstance(value, _PRIMITIVES):
        return value
    if type(value) in (list, tuple):
        return type(value)(_on_cpu(item, f"{path}[{index}]") for index, item in enumerate(value))
    if type(value) in (dict, OrderedDict, Counter) or isinstance(value, Mapping):
        copied = {key: _on_cpu(item, f"{path}.{key}") for key, item in value.items()}
        return Counter(copied) if isinstance(value, Counter) else copied
    raise CheckpointError(
        f"expected tensors and primitives in the training state, got {type(value).__name__} at {path.lstrip('.')}; "
        "give the optimizer or scheduler a state_dict of these"
    )
