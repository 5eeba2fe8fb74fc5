"""One door to every dataset: our own folders and files, and public ones in any layout that is known."""

from pathlib import Path

from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.manifest import MANIFEST
from neuralop_kit.datasets.reader import open_folder, open_shard
from neuralop_kit.datasets.readers.detection import HEAD_BYTES, read_file
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.readers.layout import Hints
from neuralop_kit.datasets.readers.well_statistics import FILE as WELL_STATISTICS
from neuralop_kit.datasets.readers.well_statistics import channel_statistics
from neuralop_kit.datasets.statistics import ChannelStatistics
from neuralop_kit.datasets.store import UNFINISHED
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.tasks import Steps, Task
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DataError

SUFFIXES = (".hdf5", ".h5")
NOTHING = ChannelStatistics((), ())


def open_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    task: Task | None = None,
    axes: str | None = None,
    domain: Domain | None = None,
) -> FieldDataset:
    """Open a dataset for torch's data loaders: ours, PDEBench, The Well, neuraloperator, FNO, PINO, MgNO, PDEArena.

    What a file is shows in its content. What it says about itself is often wrong: known defects are mended where that
    is possible, and named in a :class:`DataWarning`; what had to be assumed is in ``data.contents.assumptions``.

    Args:
        path: a folder that :func:`generate` made, a folder in The Well's layout, or a file.
        split: ``"train"``, ``"valid"`` or ``"test"``; for a folder the first is the default. For a file of others, None
            takes all samples, and a name takes the split that its authors published, if they did. Our own files have no
            splits.
        task: which frames of a trajectory are given and which are asked for; by default the next from one, ``Steps()``.
            It has no meaning for a steady problem. ``data.trajectories`` has them whole.
        axes: of a ``.npy`` file, which says nothing about itself: one letter each, n sample, t time, c channel, x y z.
        domain: where the functions live, if you know better than the file.

    Raises:
        DataError: there is nothing, or it is unfinished, damaged, unsafe, or not of a known layout.
        ArgumentError: there is no such split, the task does not fit, or an argument does not go with the file.
        DomainError: ``domain`` cannot carry the grid.
        MissingExtraError: the format needs a package that is not installed.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/u.npy", np.random.rand(3, 5, 8, 6).astype(np.float32))
    ...     data = open_dataset(f"{folder}/u.npy", axes="ntxy", task=Steps(history=2))
    ...     u, v = data[0]
    ...     trajectory = data.trajectories[0]
    >>> len(data), u.shape, v.shape, trajectory.shape
    (9, torch.Size([2, 8, 6]), torch.Size([1, 8, 6]), torch.Size([5, 1, 8, 6]))
    """
    path = Path(path)
    # A folder in the making is ours too, although its finished shards look like The Well's.
    ours = any((path / name).exists() for name in (MANIFEST, UNFINISHED)) if path.is_dir() else _is_ours(path)
    if ours:
        if axes is not None or domain is not None:
            raise ArgumentError(
                f"expected path, split and task only for {path}, a dataset of ours, got more; leave it out"
            )
        return open_folder(path, split or "train", task) if path.is_dir() else open_shard(path, task)
    if path.is_dir():
        folder = _split_folder(path, split or "train")
        files = [read_file(file) for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
        statistics = _well_statistics(folder, files[0])
    else:
        files, statistics = [read_file(path, hints=Hints(split=split, axes=axes))], None
    if domain is not None:
        files = [FieldFile(file.container, file.contents.with_domain(domain)) for file in files]
    samples = [_samples(file, None if path.is_dir() else split) for file in files]
    return TaskDataset(files, samples, task=task or Steps(), statistics=statistics)


def _is_ours(path: Path) -> bool:
    """Whether a file carries our mark."""
    if not path.is_file():
        return False
    with explained(DataError, f"to read {path}"), path.open("rb") as file:
        if not Hdf5Container.recognizes(file.read(HEAD_BYTES)):
            return False
    container = Hdf5Container(path)
    with container.explained():
        return "format" in container.opened.attrs


def _split_folder(path: Path, split: str) -> Path:
    """Where The Well keeps a split."""
    for folder in (path / "data" / split, path / split):
        if folder.is_dir() and any(file.suffix in SUFFIXES for file in folder.iterdir()):
            return folder
    if any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json")):
        raise DataError(f"expected HDF5 files, got a zarr store at {path}; convert it, for example with xarray")
    splits = sorted({file.parent.name for suffix in SUFFIXES for file in path.glob(f"**/*{suffix}")})
    raise DataError(
        f"expected a finished dataset with a {MANIFEST} in {path}, or data/{split}/*.hdf5, got HDF5 files in "
        f"{splits[:8]}; name a folder above such a split, or one file"
    )


def _samples(file: FieldFile, split: str | None) -> range:
    contents = file.contents
    if split is None:
        return range(contents.num_samples)
    if split not in contents.splits:
        raise ArgumentError(
            f"expected a published split of {file.container.path}, {list(contents.splits)}, got {split!r}; leave it "
            "out and take the samples you want with torch.utils.data.Subset"
        )
    return contents.splits[split]


def _well_statistics(folder: Path, file: FieldFile) -> tuple[ChannelStatistics, ChannelStatistics] | None:
    """Of the states, and of the inputs, from the file beside the splits."""
    for place in (folder.parent.parent, folder.parent):
        states = channel_statistics(place / WELL_STATISTICS, file.contents.of_role("state"))
        inputs = channel_statistics(place / WELL_STATISTICS, file.contents.of_role("input"))
        if states is not None and inputs is not None:
            return states, inputs
    return None
