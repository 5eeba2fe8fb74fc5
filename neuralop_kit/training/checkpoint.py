"""Checkpoints of a run: whole or absent, verified when read, whatever moment the process is killed at.

    runs/darcy/
        step_00000400/   model.safetensors, train_state.pt, state.json, MANIFEST.json
        step_00000500/
        latest           "step_00000500"
        best             "step_00000400"
        .lock            held while a process writes here

Order of a save: fill a temporary folder, manifest last; fsync every file; rename the folder; move the pointers; only
then delete what is no longer kept. A process killed anywhere leaves the previous state or the new one.
"""

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import ArgumentError, CheckpointError
from neuralop_kit.training import files

_NAME = re.compile(r"step_\d{8,}")


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written and how many stay: at the end of every epoch, and within epochs if asked for.

    Args:
        every_steps: also after each multiple of so many optimizer steps; ``None`` only at the ends of epochs.
        keep: how many of the latest stay, at least 1; the best one stays besides.

    Given to :class:`Trainer`: ``Trainer(model, optimizer, folder="runs/a", checkpoints=Checkpoints(every_steps=500))``.
    """

    every_steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 1 or (self.every_steps is not None and self.every_steps < 1):
            raise ArgumentError(f"expected keep >= 1 and every_steps >= 1 or None, got {self}; raise them")


@dataclass
class Snapshot:
    """Everything a run needs to go on as if it had never stopped.

    Args:
        model: the state dict.
        train_state: optimizer, scheduler, scaler, random streams: tensors and primitives.
        state: what a person may want to read: step, epoch, history, versions; JSON.
    """

    model: dict[str, Tensor]
    train_state: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints in one run folder.

    Args:
        folder: created when the first run starts in it.
        keep: how many of the latest stay.

    >>> import tempfile, torch
    >>> run = CheckpointFolder(tempfile.mkdtemp())
    >>> with run.writing():
    ...     path = run.save(1, Snapshot(model={"weight": torch.ones(2)}), best=True)
    >>> run.load().model["weight"]
    tensor([1., 1.])
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = keep

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer; what killed writers left behind is removed, what they had completed is taken up.

        Raises:
            CheckpointError: another process writes here, or the folder cannot be written.
        """
        with files.write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with atomic.exclusive_lock(self.folder, error=CheckpointError):
            with files.write_errors(self.folder):
                atomic.clean_up(self.folder)
                self._take_up_newest()
            yield

    def save(self, step: int, snapshot: Snapshot, *, best: bool = False) -> Path:
        """Write the checkpoint of this step; call it under :meth:`writing`.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are intact.
            NonFiniteError: a weight is NaN or infinite; nothing was written.
        """
        path = self.folder / f"step_{step:08d}"
        with files.write_errors(path):
            with atomic.atomic_folder(path) as temporary:
                files.write_weights(temporary / files.WEIGHTS, snapshot.model)
                atomic.reached("weights written")
                files.write_state(temporary / "train_state.pt", snapshot.train_state)
                files.write_json(temporary / "state.json", {**snapshot.state, "is_best": best})
                atomic.reached("state written")
                files.write_manifest(temporary)
            atomic.reached("checkpoint in place")
            self._point("latest", path)
            atomic.reached("latest moved")
            if best:
                self._point("best", path)
                atomic.reached("best moved")
            self._retire(path)
        return path

    def load(self, pointer: str = "latest") -> Snapshot:
        """The checkpoint that ``latest`` or ``best`` names; a damaged one is passed over with a warning.

        Raises:
            CheckpointError: there is none, or none is whole; each is named with its reason.
        """
        problems = []
        for path in self._candidates(pointer):
            try:
                snapshot = read_checkpoint(path)
            except CheckpointError as error:
                problems.append(f"{path.name}: {error}")
                continue
            if problems:
                warnings.warn(f"fell back to {path.name}, as {'; '.join(problems)}", stacklevel=2)
            return snapshot
        raise CheckpointError(
            f"expected a whole checkpoint in {self.folder}, got {'; '.join(problems) or 'none'}; start a new run"
        )

    def path_of(self, pointer: str) -> Path | None:
        """Where ``latest`` or ``best`` points; ``None`` when it points nowhere."""
        try:
            name = (self.folder / pointer).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        # Nothing but a name of ours: a tampered pointer must not lead out of the folder.
        return self.folder / name if _NAME.fullmatch(name) and (self.folder / name).is_dir() else None

    def paths(self) -> list[Path]:
        """All checkpoints, newest first."""
        found = [path for path in self.folder.glob("step_*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=_step_of, reverse=True)

    def _candidates(self, pointer: str) -> list[Path]:
        """What the pointer names, then, unless the best one is asked for, the others from the newest."""
        first = self.path_of(pointer)
        if pointer != "latest":
            return [first] if first else []
        return [*([first] if first else []), *(path for path in self.paths() if path != first)]

    def _point(self, pointer: str, path: Path) -> None:
        atomic.write_bytes(self.folder / pointer, path.name.encode())

    def _take_up_newest(self) -> None:
        """Finish for a writer that was killed between completing a checkpoint and moving the pointers to it."""
        latest = self.path_of("latest")
        newest = next((path for path in self.paths() if path == latest or _is_whole(path)), None)
        if newest is None:
            return
        if newest != latest:
            self._point("latest", newest)
        if _was_best(newest) and self.path_of("best") != newest:
            self._point("best", newest)

    def _retire(self, current: Path) -> None:
        """Delete all but the current one, its ``keep - 1`` predecessors and the best; also futures gone back from."""
        before = [path for path in self.paths() if _step_of(path) < _step_of(current)]
        kept = {current, *before[: self.keep - 1], self.path_of("best")}
        for path in self.paths():
            if path not in kept:
                # Renamed first, so that a half-deleted folder never bears the name of a checkpoint.
                doomed = path.rename(atomic.temporary_name(path))
                atomic.reached("old checkpoint renamed")
                shutil.rmtree(doomed)


def read_checkpoint(path: Path) -> Snapshot:
    """One checkpoint, compared with its manifest first.

    Raises:
        CheckpointError: it is damaged, incomplete, or of another version.
    """
    try:
        files.verify_manifest(path)
    except OSError as error:
        raise CheckpointError(f"expected a readable checkpoint, got {error}; is it complete?") from error
    return Snapshot(
        model=files.read_weights(path / files.WEIGHTS),
        train_state=files.read_state(path / "train_state.pt"),
        state=files.read_json(path / "state.json"),
    )


def _is_whole(path: Path) -> bool:
    try:
        files.verify_manifest(path)
    except (CheckpointError, OSError):
        return False
    return True


def _was_best(path: Path) -> bool:
    try:
        return files.read_json(path / "state.json").get("is_best") is True
    except CheckpointError:
        return False


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
