"""Which layout is this file? By its content, never by its name."""

import warnings
from pathlib import Path

from neuralop_kit.datasets.readers.container import Container
from neuralop_kit.datasets.readers.contents import DataWarning
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.fno_mat import FnoMat, FnoMat73
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints, Layout
from neuralop_kit.datasets.readers.matlab import MatlabContainer
from neuralop_kit.datasets.readers.neuraloperator_pt import NeuraloperatorPt
from neuralop_kit.datasets.readers.numpy_arrays import NumpyArray
from neuralop_kit.datasets.readers.numpy_file import NumpyContainer
from neuralop_kit.datasets.readers.pdearena import PDEArena
from neuralop_kit.datasets.readers.pdebench_arrays import PDEBenchArrays
from neuralop_kit.datasets.readers.pdebench_groups import PDEBenchGroups
from neuralop_kit.datasets.readers.pdebench_incompressible import PDEBenchIncompressible
from neuralop_kit.datasets.readers.torch_file import TorchContainer
from neuralop_kit.datasets.readers.well import TheWell
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.errors import ArgumentError, DataError, NeuralopKitError

CONTAINERS: tuple[type[Container], ...] = (Hdf5Container, MatlabContainer, TorchContainer, NumpyContainer)
# The first one that matches reads the file.
LAYOUTS: tuple[Layout, ...] = (
    TheWell(), FnoMat73(), PDEBenchArrays(), PDEBenchIncompressible(), PDEArena(), PDEBenchGroups(), FnoMat(),
    NeuraloperatorPt(), NumpyArray(),
)  # fmt: skip
HEAD_BYTES = 1024


def read_file(path: str | Path, *, hints: Hints | None = None) -> FieldFile:
    """Look into a file of any known layout; its defects are warned of, its numbers are not read yet.

    Args:
        path: of the file.
        hints: what you know and the file does not say.

    Raises:
        DataError: there is no file, or it is damaged, unsafe, or of no known layout; the message names what is in it.
        ArgumentError: the hints do not go with the file.
    """
    path, hints = Path(path), hints or Hints()
    container = _container(path)
    layout = _layout(container)
    if hints.axes is not None and not isinstance(layout, NumpyArray):
        raise ArgumentError(f"expected axes= only for .npy files, got it for {path}; its axes are known, leave it out")
    try:
        contents = layout.contents(container, hints)
        file = FieldFile(container, contents)
        file.check_lengths()
    except (NeuralopKitError, Warning):
        raise
    except Container.damage as error:
        text = f"{type(error).__name__}: {error}"
        raise DataError(f"expected a file in the layout of {layout.name}, got damage in {path} ({text})") from error
    for defect in contents.defects:
        warnings.warn(f"{path.name} ({layout.name}): {defect}", DataWarning, stacklevel=3)
    return file


def _container(path: Path) -> Container:
    with explained(DataError, f"to read {path}"):
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device or pipe" if path.exists() else "nothing"
            raise DataError(f"expected a file at {path}, got {what}; check the path")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        for kind in CONTAINERS:
            if kind.recognizes(head):
                return kind(path)
    raise DataError(
        f"expected one of {[kind.format for kind in CONTAINERS]}, got a file that begins with {head[:16]!r} at {path}; "
        "it may be cut, or has to be converted first"
    )


def _layout(container: Container) -> Layout:
    tried = [layout for layout in LAYOUTS if isinstance(container, layout.container)]
    for layout in tried:
        if layout.matches(container):
            return layout
    raise DataError(
        f"expected one of the layouts {[layout.name for layout in tried]}, got {list(container.names())[:12]} in "
        f"{container.path}; write a Layout for it"
    )
