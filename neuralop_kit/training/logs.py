"""What a run tells about itself: one JSON line per epoch, and TensorBoard where it is installed."""

import json
from pathlib import Path
from typing import Any

from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import CheckpointError, MissingExtraError

Record = dict[str, Any]


class JsonLines:
    """Append records to a file, one JSON object per line; readable while the run goes on.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, record: Record) -> None:
        """Append one record."""
        with atomic.explained(CheckpointError, "to append to the log"), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what lies behind ``step``, as a resumed run will write it again; also a line cut short by a kill."""
        if not self.path.exists():
            return
        content = self.path.read_text()
        kept = "".join(line + "\n" for line in content.splitlines() if _step_of(line) <= step)
        if kept != content:
            with atomic.explained(CheckpointError, "to rewrite the log"):
                atomic.write_bytes(self.path, kept.encode())


class TensorBoardLog:
    """A callback that writes every number of a record as a scalar over the step.

    Args:
        folder: for TensorBoard's event files.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("expected tensorboard, got none; do: pip install tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def __call__(self, record: Record) -> None:
        """Write one record."""
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ("step", "epoch"):
                self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
