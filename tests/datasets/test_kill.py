"""Generation under SIGKILL: nothing safe is lost, nothing half is read, and the end is the same to the last byte."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralop_kit.datasets import generate, open_dataset
from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import DataError
from tests.datasets import tiny


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> list[str]:
    """Every point between two steps of the protocol, in the order in which generation passes them."""
    passed: list[str] = []
    atomic.observer = passed.append
    try:
        tiny.make(tmp_path_factory.mktemp("points") / "data")
    finally:
        atomic.observer = None
    return passed


def num_safe(folder: Path) -> int:
    """Samples in finished shards and in journals, counted from the sizes of the files."""
    shards = {f"data-{path.parent.name}-{path.stem}": path for path in folder.glob("data/*/*.hdf5")}
    counts = {name: len(open_dataset(path)) for name, path in shards.items()}
    record = 3 * 5 * 7 * 4 + 32
    for journal in folder.glob("unfinished/*.journal"):
        counts.setdefault(journal.stem, (journal.stat().st_size - 32) // record)
    return sum(counts.values())


def test_protocol_passes_every_kind_of_point(points):
    # Negative control: without these names the next test would kill nobody.
    assert set(points) == {
        "temporary opened", "temporary written", "temporary synced", "renamed", "folder synced",
        "record half written", "record written", "image complete", "shard in place", "manifest in place",
    }  # fmt: skip
    assert points.count("record written") == tiny.SAMPLES


def test_killed_at_every_point_of_the_protocol(tmp_path, whole, points):
    expected = tiny.content(whole)
    passages = {point: [k for k, name in enumerate(points) if name == point] for point in points}
    # The first, second and last time that each kind of point is passed: request, records, shards, manifest.
    for fatal in sorted({k for passed in passages.values() for k in (*passed[:2], passed[-1])}):
        point = points[fatal]
        folder, log = tmp_path / f"data{fatal}", tmp_path / f"log{fatal}"
        assert tiny.run_child(tiny.generate_until, folder, fatal, log) == tiny.DIED, point
        written = log.stat().st_size if log.exists() else 0
        assert num_safe(folder) >= written, f"a finished sample was lost at {fatal}: {point}"
        if (folder / "dataset.json").exists():
            open_dataset(folder).verify()
        else:
            with pytest.raises(DataError, match="expected to find a finished dataset"):
                open_dataset(folder)
        problem = tiny.Tiny()
        tiny.make(folder, problem=problem)
        assert tiny.content(folder) == expected, f"other content after a kill at {fatal}: {point}"
        # One batch of two may be solved twice, no more.
        assert problem.solved <= tiny.SAMPLES - written + 1, point


def test_killed_at_random_moments(tmp_path, whole):
    expected, dice = tiny.content(whole), random.Random(0)
    unfinished = 0
    for trial in range(20):
        folder = tmp_path / f"data{trial}"
        while True:
            child = tiny.PROCESSES.Process(target=tiny.generate_slowly, args=(folder, 0.01))
            child.start()
            child.join(dice.uniform(0.02, 0.15))
            child.kill()
            child.join()
            unfinished += not (folder / "dataset.json").exists()
            if dice.random() < 0.6:
                break
        tiny.make(folder)
        assert tiny.content(folder) == expected
    # Negative control: most of these kills must have hit a writer at work.
    assert unfinished >= 10


def test_torn_and_damaged_journals_are_continued_behind_their_last_whole_record(tmp_path, whole, points):
    expected = tiny.content(whole)
    third_training_sample = [k for k, point in enumerate(points) if point == "record written"][4]
    for trial, damage in enumerate((b"torn", None, b"")):
        folder, log = tmp_path / f"data{trial}", tmp_path / f"log{trial}"
        tiny.run_child(tiny.generate_until, folder, third_training_sample, log)
        (journal,) = folder.glob("unfinished/*.journal")
        before = journal.read_bytes()
        assert len(before) == 32 + 3 * 452
        if damage is None:
            flipped = bytearray(before)
            flipped[32 + 452 + 7] ^= 1  # in the second record
            journal.write_bytes(flipped)
        else:
            journal.write_bytes(before + damage if damage else b"")
        tiny.make(folder)
        assert tiny.content(folder) == expected


def test_damaged_shard_of_an_unfinished_dataset_is_made_again(tmp_path, whole, points):
    fatal = [k for k, point in enumerate(points) if point == "shard in place"][1]
    folder = tmp_path / "data"
    tiny.run_child(tiny.generate_until, folder, fatal, tmp_path / "log")
    shard = sorted(folder.glob("data/*/*.hdf5"))[0]
    damaged = bytearray(shard.read_bytes())
    value = open_dataset(shard)[0][0].numpy().tobytes()
    damaged[damaged.find(value) + 3] ^= 0x01
    shard.write_bytes(damaged)
    tiny.make(folder)
    assert tiny.content(folder) == tiny.content(whole)


def test_missing_shard_of_a_finished_dataset_is_made_again(tmp_path, whole):
    folder = tiny.make(tmp_path / "data")
    next(folder.glob("data/train/*.hdf5")).unlink()
    with pytest.raises(DataError, match="No such file"):
        open_dataset(folder)
    tiny.make(folder)
    assert tiny.content(folder) == tiny.content(whole)


def test_finished_dataset_is_left_alone(tmp_path):
    folder = tiny.make(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    problem = tiny.Tiny()
    tiny.make(folder, problem=problem)
    assert problem.solved == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def descendants(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_killed_command_with_two_workers(tmp_path):
    # The real thing: the command line of the README, real flow, real workers, killed from outside, run again.
    folder = tmp_path / "data"
    arguments = [
        "darcy",
        "--samples",
        "150",
        "--resolution",
        "48",
        "--out",
        str(folder),
        "--workers",
        "2",
        "--seed",
        "1",
    ]
    command = [sys.executable, "-m", "neuralop_kit.datasets", "generate", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(folder.glob("unfinished/*.journal")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = descendants(process.pid)
    process.kill()
    process.wait()
    assert not (folder / "dataset.json").exists()
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers)), "workers outlive their parent"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    alone = tmp_path / "alone"
    generate("darcy", alone, samples=150, resolution=48, seed=1)
    assert tiny.content(folder) == tiny.content(alone)
