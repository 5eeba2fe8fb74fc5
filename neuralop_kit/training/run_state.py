"""What a checkpoint of a trainer holds, and how it is put back."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from neuralop_kit.registry import config_of, name_of
from neuralop_kit.solvers.errors import CheckpointError, RegistryError
from neuralop_kit.training import distributed, random_state
from neuralop_kit.training.checkpoint import Snapshot
from neuralop_kit.training.optimizer_state import load_optimizer_state
from neuralop_kit.training.progress import Progress

if TYPE_CHECKING:
    from neuralop_kit.training.trainer import Trainer


@contextmanager
def opened(trainer: "Trainer", fresh: Progress, *, resume: bool) -> Iterator[Progress]:
    """Be the only run in the trainer's folder; yields the state to go on from: the last one there, or the fresh one.

    Every process reads the checkpoint, so the folder must be visible to all; rank 0 alone writes.

    Raises:
        CheckpointError: the folder is in use, holds a run that is not to be resumed, or one of other data.
    """
    store = trainer.store
    if store is None:
        yield fresh
        return
    with ExitStack() as stack:
        if distributed.rank() == 0:
            stack.enter_context(store.writing())
        distributed.barrier()
        state = fresh
        if store.paths():
            if not resume:
                raise CheckpointError(
                    f"expected an empty run folder, got checkpoints in {store.folder}; "
                    "pass resume=True to go on from the last one, or choose another folder"
                )
            snapshot = store.load()
            Progress.from_json(snapshot.state).check_same_order(fresh)
            state = restore(trainer, snapshot)
        if distributed.rank() == 0 and trainer.log is not None:
            trainer.log.rewind(state.step)
        yield state


def capture(trainer: "Trainer") -> Snapshot:
    """Everything that the next step depends on; every process must call it, as each has streams of its own."""
    own = random_state.capture(trainer.device, trainer.generators)
    return Snapshot(
        model=trainer.model.state_dict(),
        train_state={
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": None if trainer.schedule is None else trainer.schedule.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "running": trainer.running.state(),
            "random": distributed.gather(own),
        },
        state={**trainer.state.to_json(), **_parts(trainer), "versions": versions()},
    )


def restore(trainer: "Trainer", snapshot: Snapshot) -> Progress:
    """Put a snapshot back into the trainer's parts; returns how far it had come.

    Raises:
        CheckpointError: it belongs to another model, optimizer or schedule.
    """
    state, saved = snapshot.state, snapshot.train_state
    for part, own in _parts(trainer).items():
        if state.get(part) != own:
            raise CheckpointError(
                f"expected a checkpoint of {part} {own}, got one of {state.get(part)}; "
                f"build the {part} as the run did, or choose another folder"
            )
    try:
        trainer.model.load_state_dict(snapshot.model)
        load_optimizer_state(trainer.optimizer, saved["optimizer"])
        if trainer.schedule is not None:
            trainer.schedule.load_state_dict(saved["schedule"])
        trainer.scaler.load_state_dict(saved["scaler"])
        trainer.running.load(saved["running"])
        if distributed.rank() < len(saved["random"]):
            random_state.restore(saved["random"][distributed.rank()], trainer.device, trainer.generators)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"expected the model, optimizer and schedule that the run began with, got {error}; "
            "build them as the run did, or choose another folder"
        ) from error
    return Progress.from_json(state)


def _parts(trainer: "Trainer") -> dict[str, Any]:
    """What the run is made of; states of other parts would load, and fail or mislead later."""
    try:
        model: Any = {"name": name_of(trainer.model), "arguments": config_of(trainer.model)}
    except RegistryError:
        model = type(trainer.model).__name__
    schedule = None if trainer.schedule is None else type(trainer.schedule.scheduler).__name__
    return {"model": model, "optimizer": type(trainer.optimizer).__name__, "schedule": schedule}


def versions() -> dict[str, str]:
    """What wrote a file, for whoever reads it later."""
    try:
        ours = version("neuralop-kit")
    except PackageNotFoundError:
        ours = "unknown"
    return {"neuralop_kit": ours, "torch": torch.__version__, "python": platform.python_version()}
