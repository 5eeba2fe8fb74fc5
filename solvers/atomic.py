"""Files and folders that appear whole or not at all, whenever the process that writes them is killed.

write_bytes         one file: the old content or the new, never half of it
atomic_folder       one folder of files that belong together
exclusive_lock      one writer at a time in a folder
clean_up            remove what a killed writer left behind
explained           an operating-system error, told in this package's words

Each follows the same steps: write under a temporary name beside the target, fsync the file, rename, fsync the folder.
A rename within one folder is atomic, and the second fsync makes it outlast a loss of power.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralop_kit.solvers.errors import NeuralopKitError

# Locks of this process. A forked child inherits them with their descriptors, and a loader's worker that outlives its
# killed parent for some seconds would keep the folder locked; so a child lets go of them first of all.
_held: set[int] = set()


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

# Tests put a function here; it is told the name of every point between two steps, and may kill the process there.
observer: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Name the point a write has reached; does nothing outside tests."""
    if observer is not None:
        observer(point)


def fsync_file(path: str | Path) -> None:
    """Wait until the content of ``path`` is on the disk."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(path: str | Path) -> None:
    """Wait until the names inside the folder ``path`` are on the disk: without it a rename may be lost."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def replace(source: str | Path, target: str | Path) -> None:
    """Rename ``source`` to ``target`` in the same folder, over an existing file, and make the new name last."""
    Path(source).replace(target)
    reached("renamed")
    fsync_folder(Path(target).parent)
    reached("folder synced")


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write one file so that a reader sees the old content or the new, never anything between.

    Args:
        path: the file; its folder exists.
        content: all of it.

    Raises:
        OSError: as the system reports it (disk full, read-only folder); ``path`` is then as it was. Wrap the call in
            :func:`explained` to turn it into an error of this package.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(f"{folder}/note", b"whole")
    ...     Path(f"{folder}/note").read_bytes()
    b'whole'
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            reached("temporary opened")
            file.write(content)
            file.flush()
            reached("temporary written")
            os.fsync(file.fileno())
        reached("temporary synced")
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; at the end of the block it becomes ``path``, with every file in it synced.

    An existing folder ``path`` is moved aside first and deleted afterwards, because no system renames a folder over a
    full one. A process killed between these two renames leaves the old folder as ``<name>.trash-<pid>``, from where
    :func:`clean_up` puts it back.

    Raises:
        OSError: as the system reports it; ``path`` is then as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with atomic_folder(f"{parent}/model") as folder:
    ...         _ = (folder / "weights").write_bytes(b"1")
    ...     sorted(p.name for p in Path(parent).rglob("*"))
    ['model', 'weights']
    """
    path = Path(path)
    temporary, trash = temporary_name(path), path.with_name(f"{path.name}.trash-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    moved = False
    try:
        yield temporary
        reached("folder filled")
        _fsync_tree(temporary)
        reached("files synced")
        if path.exists():
            shutil.rmtree(trash, ignore_errors=True)
            path.replace(trash)
            moved = True
            reached("old folder aside")
        replace(temporary, path)
    except BaseException:
        if moved and not path.exists():
            trash.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def exclusive_lock(folder: str | Path, *, error: type[NeuralopKitError]) -> Iterator[None]:
    """Keep other writers out of ``folder`` during the block; a killed process releases its lock by itself.

    The lock is held on the file ``.lock``, which stays behind, empty: deleting it would let two writers lock two files.
    On network file systems without ``flock`` the lock is refused by the system, and so by us.

    Raises:
        error: another process holds the lock, or the folder cannot be written.
    """
    import fcntl  # here, so that reading works where this module does not exist

    path = Path(folder) / ".lock"
    with explained(error, f"to write into {folder}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            raise error(
                f"expected to be the only writer of {folder}, got a lock held by another process ({reason.strerror}); "
                "wait for it, or choose another folder"
            ) from reason
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def clean_up(folder: str | Path) -> None:
    """Remove temporaries of killed writers from ``folder``, and put back what :func:`atomic_folder` had moved aside.

    Call it only under :func:`exclusive_lock`: it cannot tell a killed writer from a living one.
    """
    folder = Path(folder)
    for aside in folder.glob("*.trash-*"):
        original = aside.with_name(aside.name.rpartition(".trash-")[0])
        if original.exists():
            _remove(aside)
        else:
            replace(aside, original)
    for leftover in folder.glob("*.tmp-*"):
        _remove(leftover)


@contextmanager
def explained(error: type[NeuralopKitError], action: str) -> Iterator[None]:
    """Turn an :class:`OSError` of the block into ``error``, which says what was attempted and what to do.

    >>> from neuralop_kit.solvers.errors import DataError
    >>> with explained(DataError, "to read it"):
    ...     open("/no/such/file")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuralop_kit.solvers.errors.DataError: expected to read it, got No such file or directory ...
    """
    try:
        yield
    except NeuralopKitError:
        raise
    except OSError as reason:
        where = f" ({reason.filename})" if reason.filename else ""
        message = f"expected {action}, got {reason.strerror or reason}{where}; check path, rights and free space"
        raise error(message) from reason


def temporary_name(path: Path) -> Path:
    """Where this process writes what will be ``path``: the same folder, as renames do not cross file systems."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}")


def _fsync(path: str | Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_tree(folder: Path) -> None:
    """Every file below ``folder``, then every folder, from the leaves up."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_file(Path(place) / name)
        fsync_folder(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
