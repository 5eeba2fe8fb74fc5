"""Files from strangers: every one is read right or refused with our error, quickly and in little memory."""

import json
import os
import resource
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from neuralop_kit import NeuralopKitError
from neuralop_kit.datasets import check_file, open_dataset
from neuralop_kit.datasets.describe import describe
from neuralop_kit.solvers.errors import DataError, NonFiniteError
from tests.datasets import tiny

SECRET = b"the content of another file" * 100


@pytest.fixture
def shard(whole, tmp_path) -> Path:
    """A good file to spoil."""
    path = tmp_path / "one.hdf5"
    path.write_bytes((whole / "data/train/train-00000.hdf5").read_bytes())
    return path


def read_all(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    data = open_dataset(path)
    return data.read(range(len(data)))


def spoil(path: Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def recreate(file: h5py.File, name: str, **options) -> h5py.Dataset:
    """Replace a dataset by another one with the same attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    data = file.create_dataset(name, **options)
    data.attrs.update(attributes)
    return data


def external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(SECRET)
    recreate(file, "t0_fields/force", shape=(4, 5, 7), dtype="f4", external=[(str(secret), 0, 560)])


def external_link(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.hdf5")
    with h5py.File(other, "w") as stranger:
        stranger["force"] = np.zeros((4, 5, 7), dtype=np.float32)
    del file["t0_fields/force"]
    file["t0_fields/force"] = h5py.ExternalLink(str(other), "force")


def external_link_elsewhere(file: h5py.File) -> None:
    file["more"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(file: h5py.File) -> None:
    file.move("t0_fields/force", "hidden")
    file["t0_fields/force"] = h5py.SoftLink("/hidden")


def dangling_link(file: h5py.File) -> None:
    file["t0_fields/nowhere"] = h5py.SoftLink("/no/such/place")


def virtual_dataset(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.hdf5")
    with h5py.File(other, "w") as stranger:
        stranger["force"] = np.zeros((4, 5, 7), dtype=np.float32)
    layout = h5py.VirtualLayout((4, 5, 7), "f4")
    layout[...] = h5py.VirtualSource(str(other), "force", shape=(4, 5, 7))
    del file["t0_fields/force"]
    file.create_virtual_dataset("t0_fields/force", layout)


def declares_275_gigabytes(file: h5py.File) -> None:
    recreate(file, "t0_fields/force", shape=(2**20, 2**16), dtype="f4", chunks=(1, 2**16), fletcher32=True)
    file.attrs["n_trajectories"] = 2**20


def compression_bomb(file: h5py.File) -> None:
    data = recreate(
        file, "t0_fields/force", shape=(2**15, 2**14), dtype="f4", chunks=(2**10, 2**14), compression="gzip"
    )
    data[: 2**10] = 0.0


def chunk_never_written(file: h5py.File) -> None:
    data = recreate(file, "t0_fields/force", shape=(4, 5, 7), dtype="f4", chunks=(1, 5, 7), fletcher32=True)
    data[:3] = 1.0


def without_checksum(file: h5py.File) -> None:
    recreate(file, "t0_fields/force", data=file["t0_fields/force"][...], chunks=(1, 5, 7))


def not_a_number(file: h5py.File) -> None:
    file["t0_fields/slope"][2, 0, 0] = np.nan


def infinite(file: h5py.File) -> None:
    file["t0_fields/force"][0, 4, 6] = -np.inf


def other_dtype(dtype: str):
    def change(file: h5py.File) -> None:
        values = file["t0_fields/force"][...].astype(dtype)
        recreate(file, "t0_fields/force", data=values, chunks=(1, 5, 7), fletcher32=True)

    return change


def other_rank(file: h5py.File) -> None:
    values = file["t0_fields/force"][...].reshape(4, 35)
    recreate(file, "t0_fields/force", data=values, chunks=(1, 35), fletcher32=True)


def swapped_axes(file: h5py.File) -> None:
    values = file["t0_fields/force"][...].swapaxes(1, 2)
    recreate(file, "t0_fields/force", data=values, chunks=(1, 7, 5), fletcher32=True)


def other_chunks(file: h5py.File) -> None:
    recreate(file, "t0_fields/force", data=file["t0_fields/force"][...], chunks=(2, 5, 7), fletcher32=True)


def text_for_numbers(file: h5py.File) -> None:
    recreate(file, "t0_fields/force", data=np.array(["one"] * 4, dtype=object), dtype=h5py.string_dtype())


def pickled_object(file: h5py.File) -> None:
    file.create_dataset("opaque", data=np.void(b"cos\nsystem\n(S'true'\ntR."))


def renamed_field(file: h5py.File) -> None:
    file.move("t0_fields/force", "t0_fields/farce")


def group_for_dataset(file: h5py.File) -> None:
    del file["t0_fields/force"]
    file.create_group("t0_fields/force")


def attribute(name: str, value):
    return lambda file: file.attrs.__setitem__(name, value)


def without(name: str):
    return lambda file: file.attrs.__delitem__(name)


def edited(name: str, **changes):
    """A JSON attribute with other entries."""

    def change(file: h5py.File) -> None:
        file.attrs[name] = np.bytes_(json.dumps({**json.loads(file.attrs[name]), **changes}))

    return change


HOSTILE = {
    "external storage": external_storage,
    "external link": external_link,
    "external link elsewhere": external_link_elsewhere,
    "soft link": soft_link,
    "dangling link": dangling_link,
    "virtual dataset": virtual_dataset,
    "declares 275 GB": declares_275_gigabytes,
    "compression bomb": compression_bomb,
    "chunk never written": chunk_never_written,
    "without checksum": without_checksum,
    "NaN": not_a_number,
    "infinite": infinite,
    "float64": other_dtype("f8"),
    "big-endian": other_dtype(">f4"),
    "int32": other_dtype("i4"),
    "other rank": other_rank,
    "swapped axes": swapped_axes,
    "other chunks": other_chunks,
    "text": text_for_numbers,
    "pickled object": pickled_object,
    "renamed field": renamed_field,
    "group for dataset": group_for_dataset,
    "incomplete": attribute("complete", False),
    "never completed": without("complete"),
    "complete in words": attribute("complete", "yes"),
    "other format": attribute("format", "another"),
    "future version": attribute("format_version", 2),
    "no description": without("description"),
    "description no JSON": attribute("description", np.bytes_("{")),
    "description a list": attribute("description", np.bytes_("[1]")),
    "description nested": attribute("description", np.bytes_("[" * 60_000)),
    "description too long": attribute("description", np.bytes_(" " * 2**21)),
    "description of variable length": attribute("description", "{}"),
    "description binary": attribute("description", np.void(b"\xff\x00")),
    "description no text": attribute("description", np.bytes_(b"\xff\xfe{}")),
    "other shape": edited("description", shape=[7, 5]),
    "huge shape": edited("description", shape=[2**40, 2**40]),
    "swapped keys": edited("description", input_names=["slope"], target_names=["potential", "force"]),
    "unknown field": edited("description", input_names=["farce"]),
    "no domain": edited("description", domain={"type": "klein bottle"}),
    "statistics of others": edited("statistics", more={}),
    "statistics of words": edited("statistics", force={"mean": "much"}),
    "more samples": attribute("n_trajectories", 5),
    "fewer samples": attribute("n_trajectories", 3),
    "negative samples": attribute("n_trajectories", -4),
    "samples in words": attribute("n_trajectories", "four"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_with_our_error(shard, name):
    expected = read_all(shard)
    spoil(shard, HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "swapped keys":
        # The names are all there: another reading of the same data, and a consistent one.
        inputs, targets = read_all(shard)
        assert torch.equal(inputs, expected[1][:, 1:])
        assert torch.equal(targets[:, 1:], expected[0])
        return
    with pytest.raises(NonFiniteError if name in ("NaN", "infinite") else DataError, match="expected"):
        read_all(shard)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


@pytest.mark.parametrize(
    "name", ["external storage", "external link", "virtual dataset", "declares 275 GB", "soft link"]
)
@pytest.mark.parametrize("tool", [check_file, describe])
def test_tools_refuse_them_too(shard, name, tool):
    spoil(shard, HOSTILE[name])
    with pytest.raises(DataError, match="expected"):
        tool(shard)


def test_plain_h5py_would_have_read_another_file(shard):
    # Negative control: what the refusals above prevent.
    spoil(shard, external_storage)
    with h5py.File(shard) as file:
        assert file["t0_fields/force"][...].tobytes() == SECRET[:560]


def test_hostile_shard_inside_a_dataset_is_refused(tmp_path):
    folder = tiny.make(tmp_path / "data")
    path = folder / "data/train/train-00000.hdf5"
    size = path.stat().st_size
    spoil(path, attribute("complete", False))
    assert path.stat().st_size == size  # the manifest sees nothing
    with pytest.raises(DataError, match="interrupted writer"):
        open_dataset(folder)[0]


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.3, 0.9, -1])
def test_truncated_file_is_refused(shard, keep):
    content = shard.read_bytes()
    shard.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match="expected"):
        read_all(shard)


@pytest.mark.parametrize(
    "content", [b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 5000, b"PK\x03\x04", b"x" * 999]
)
def test_other_content_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    for tool in (open_dataset, check_file, describe):
        with pytest.raises(DataError, match="expected"):
            tool(tmp_path / "file")


def test_every_flipped_byte_of_a_sample_is_found(shard):
    content = shard.read_bytes()
    value = open_dataset(shard)[1][1][0].numpy().tobytes()
    start = content.find(value)
    for k in range(0, len(value) + 4, 3):
        flipped = bytearray(content)
        flipped[start + k] ^= 0x10
        shard.write_bytes(flipped)
        with pytest.raises(DataError, match=r"wrong checksums of samples \[1\]"):
            read_all(shard)


def test_cycle_of_groups_does_not_hang(shard):
    def change(file: h5py.File) -> None:
        file["scalars/again"] = file["/"]

    spoil(shard, change)
    assert len(read_all(shard)[0]) == 4


def test_deep_and_many_objects_are_bounded(shard):
    def change(file: h5py.File) -> None:
        group = file
        for _ in range(300):
            group = group.create_group("deeper")

    spoil(shard, change)
    assert len(read_all(shard)[0]) == 4


@st.composite
def mutations(draw, size: int) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["flip", "set", "zero", "copy", "cut", "swap"])
    places = st.one_of(st.integers(0, size - 1), st.integers(0, min(size - 1, 4096)))
    return draw(st.lists(st.tuples(kinds, places, st.integers(0, 255)), min_size=1, max_size=4))


# Nothing is shrunk: what fails here has often used up the little memory that it was given.
FUZZING = settings(
    database=None, deadline=5000, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    derandomize="NEURALOP_KIT_TEST_SEED" not in os.environ,
)  # fmt: skip


def mutate(content: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    mutated = bytearray(content)
    for kind, place, value in steps:
        place = min(place, len(mutated) - 1) if mutated else 0
        end = place + 1 + value
        if kind == "cut":
            del mutated[place + 1 :]
        elif kind == "zero":
            mutated[place:end] = bytes(len(mutated[place:end]))
        elif kind == "copy":
            mutated[place:end] = mutated[: len(mutated[place:end])]
        elif kind == "swap":
            first, second = mutated[:value], mutated[place : place + value]
            if len(first) == len(second) and place >= value:
                mutated[:value], mutated[place : place + value] = second, first
        elif mutated:
            mutated[place] = value if kind == "set" else mutated[place] ^ (1 << value % 8)
    return bytes(mutated)


def fuzz(path: Path, verdict: Path) -> None:
    """Open mutated files with little memory to spare; the verdict names the first that is neither right nor refused."""
    content, description = path.read_bytes(), open_dataset(path).description
    expected = read_all(path)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, in_use + 2**28))
    right = refused = 0

    @settings(FUZZING, max_examples=400)
    @given(mutations(len(content)))
    def attempt(steps: list[tuple[str, int, int]]) -> None:
        nonlocal right, refused
        path.write_bytes(mutate(content, steps))
        try:
            found = read_all(path)
            assert open_dataset(path).description == description
        except NeuralopKitError:
            refused += 1
            return
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        right += 1

    try:
        attempt()
        verdict.write_text(f"{right} {refused}")
    except BaseException as error:
        verdict.write_text(f"failed: {type(error).__name__}: {error}\n{getattr(error, '__notes__', '')}")
    sys.stdout.flush()
    os._exit(0)


def test_mutated_files_are_read_right_or_refused(shard, tmp_path):
    verdict = tmp_path / "verdict"
    assert tiny.run_child(fuzz, shard, verdict, timeout=200) == 0, verdict.read_text() if verdict.exists() else "died"
    text = verdict.read_text()
    assert not text.startswith("failed"), text
    right, refused = map(int, text.split())
    # Negative control: both must happen, or the mutations were all harmless or all gross.
    assert right > 10
    assert refused > 100
