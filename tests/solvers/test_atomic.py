"""Atomic writes: whole or absent under SIGKILL at every point, synced before renamed, one writer at a time."""

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import DataError, NeuralopKitError

# Children come from a server that has imported everything once and runs no threads, so that each costs milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
FILE_POINTS = ["temporary opened", "temporary written", "temporary synced", "renamed", "folder synced"]
FOLDER_POINTS = ["folder filled", "files synced", "old folder aside", "renamed", "folder synced"]


def run_child(task, *arguments) -> int:
    child = PROCESSES.Process(target=task, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode is not None, "child hangs"
    return child.exitcode


def die_at(point: str) -> None:
    """From now on this process kills itself when a write reaches ``point``."""

    def observer(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic.observer = observer


def write_file_and_die(path: Path, point: str) -> None:
    die_at(point)
    atomic.write_bytes(path, b"new" * 1000)


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    (folder / "a").write_text(text)
    (folder / "inner" / "b").write_text(text)


def write_folder_and_die(path: Path, point: str) -> None:
    die_at(point)
    with atomic.atomic_folder(path) as folder:
        fill(folder, "new")


def hold_lock(folder: Path, ready, release) -> None:
    with atomic.exclusive_lock(folder, error=DataError):
        ready.set()
        release.wait(60)


def write_beyond_limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with atomic.explained(DataError, "to write"):
            atomic.write_bytes(path, b"x" * 5000)
    except DataError as error:
        os._exit(7 if "check path, rights and free space" in str(error) else 1)


def record_calls(monkeypatch) -> list[tuple[str, str]]:
    """The order of fsync and rename, with the name of what they act on."""
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".tmp-")[0]))
        fsync(descriptor)

    def recorded_rename(source, target) -> None:
        calls.append(("rename", Path(target).name.partition(".trash-")[0]))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_rename)
    return calls


@pytest.mark.parametrize("point", FILE_POINTS)
def test_killed_file_is_old_or_new(tmp_path, point):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert run_child(write_file_and_die, path, point) == -signal.SIGKILL
    assert path.read_bytes() == (b"new" * 1000 if point in ("renamed", "folder synced") else b"old")
    atomic.clean_up(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    atomic.write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize(
    ("point", "exists"),
    [(point, exists) for point in FOLDER_POINTS for exists in (False, True) if exists or point != "old folder aside"],
)
def test_killed_folder_is_old_or_new_after_clean_up(tmp_path, point, exists):
    path = tmp_path / "folder"
    if exists:
        path.mkdir()
        fill(path, "old")
    assert run_child(write_folder_and_die, path, point) == -signal.SIGKILL
    atomic.clean_up(tmp_path)
    done = point in ("renamed", "folder synced")
    assert [p.name for p in tmp_path.iterdir()] == (["folder"] if done or exists else [])
    if done or exists:
        assert {(path / name).read_text() for name in ("a", "inner/b")} == {"new" if done else "old"}
    with atomic.atomic_folder(path) as folder:
        fill(folder, "newer")
    assert (path / "a").read_text() == "newer"


def test_points_are_all_reached(tmp_path, monkeypatch):
    # Negative control of the two tests above: a misspelt point would kill nobody.
    seen: list[str] = []
    monkeypatch.setattr(atomic, "observer", seen.append)
    atomic.write_bytes(tmp_path / "file", b"")
    assert seen == FILE_POINTS
    seen.clear()
    for _ in range(2):
        with atomic.atomic_folder(tmp_path / "folder") as folder:
            fill(folder, "x")
    assert set(seen) == set(FOLDER_POINTS)


def test_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls = record_calls(monkeypatch)
    atomic.write_bytes(tmp_path / "file", b"content")
    assert calls == [("fsync", "file"), ("rename", "file"), ("fsync", tmp_path.name)]


def test_folder_is_synced_from_the_leaves_up(tmp_path, monkeypatch):
    calls = record_calls(monkeypatch)
    with atomic.atomic_folder(tmp_path / "folder") as folder:
        fill(folder, "x")
    order = [("fsync", "b"), ("fsync", "inner"), ("fsync", "a"), ("fsync", "folder"), ("rename", "folder")]
    assert calls == [*order, ("fsync", tmp_path.name)]


def test_failed_block_leaves_no_trace(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    fill(path, "old")

    def attempt() -> None:
        with atomic.atomic_folder(path) as folder:
            fill(folder, "new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (path / "a").read_text() == "old"


def test_full_disk_is_our_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert run_child(write_beyond_limit, path) == 7
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_second_writer_is_refused_until_the_first_is_killed(tmp_path):
    ready, release = PROCESSES.Event(), PROCESSES.Event()
    holder = PROCESSES.Process(target=hold_lock, args=(tmp_path, ready, release))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="expected to be the only writer"), lock(tmp_path):
        pass
    holder.kill()
    holder.join(60)
    with lock(tmp_path):
        pass


def test_lock_in_a_missing_folder_is_our_error(tmp_path):
    with pytest.raises(NeuralopKitError, match="No such file"), lock(tmp_path / "missing"):
        pass


def lock(folder: Path):
    return atomic.exclusive_lock(folder, error=DataError)
