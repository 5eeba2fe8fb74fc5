"""Files of others that are damaged or malicious: an error of ours or finite numbers, never a crash, a hang, a bomb."""

import io
import os
import pickle
import resource
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings

from neuralop_kit import NeuralopKitError
from neuralop_kit.datasets import check_file, open_dataset
from neuralop_kit.solvers.errors import DataError
from tests.datasets import foreign, tiny
from tests.datasets.test_hostile import FUZZING, SECRET, mutate, mutations

pytestmark = pytest.mark.filterwarnings("ignore::neuralop_kit.datasets.DataWarning")


def read_all(path: Path, **options) -> tuple[np.ndarray, np.ndarray]:
    data = open_dataset(path, **options)
    return tuple(part.numpy() for part in data.read(range(len(data))))


def external_link(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.hdf5")
    with h5py.File(other, "w") as stranger:
        stranger["u"] = file["tensor"][...]
    del file["tensor"]
    file["tensor"] = h5py.ExternalLink(str(other), "u")


def soft_link_out_of_the_file(file: h5py.File) -> None:
    external_link(file)
    file.move("tensor", "elsewhere")
    file["tensor"] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(SECRET)
    del file["tensor"]
    file.create_dataset("tensor", shape=(2, 6, 16), dtype="f4", external=[(str(secret), 0, 768)])


def virtual_dataset(file: h5py.File) -> None:
    external_link(file)
    layout = h5py.VirtualLayout((20, 6, 16), "f4")
    layout[...] = h5py.VirtualSource(str(Path(file.filename).with_name("other.hdf5")), "u", shape=(20, 6, 16))
    del file["tensor"]
    file.create_virtual_dataset("tensor", layout)


def declares_terabytes(file: h5py.File) -> None:
    del file["tensor"]
    file.create_dataset("tensor", shape=(2**24, 6, 2**14), dtype="f4", chunks=(1, 6, 16))


def huge_chunk(file: h5py.File) -> None:
    del file["tensor"]
    data = file.create_dataset("tensor", (20, 6, 2**22), "f4", chunks=(20, 6, 2**22), compression="gzip")
    # Enough bytes for the size that is declared, so that only the chunk itself is too much.
    data.id.write_direct_chunk((0, 0, 0), bytes(2**21))


def compression_bomb(file: h5py.File) -> None:
    del file["tensor"]
    file.create_dataset("tensor", (2**13, 6, 2**14), "f4", chunks=(2**4, 6, 2**14), compression="gzip")[:64] = 0.0


def python_objects(file: h5py.File) -> None:
    del file["tensor"]
    file.create_dataset("tensor", data=np.array(["x"] * 20, dtype=object), dtype=h5py.string_dtype())


def opaque(file: h5py.File) -> None:
    del file["tensor"]
    file["tensor"] = np.void(b"cos\nsystem\n(S'true'\ntR.")


def complex_numbers(file: h5py.File) -> None:
    values = file["tensor"][...].astype("c8")
    del file["tensor"]
    file["tensor"] = values


def coordinates_without_end(file: h5py.File) -> None:
    del file["x-coordinate"]
    file.create_dataset("x-coordinate", (2**40,), "f4", chunks=(1024,))


def coordinates_of_nan(file: h5py.File) -> None:
    file["x-coordinate"][...] = np.nan


def too_few_times(file: h5py.File) -> None:
    del file["t-coordinate"]
    file["t-coordinate"] = np.arange(3, dtype="f4")


def other_length_of_space(file: h5py.File) -> None:
    del file["x-coordinate"]
    file["x-coordinate"] = foreign.centres(4)


def no_samples(file: h5py.File) -> None:
    del file["tensor"]
    file["tensor"] = np.zeros((0, 6, 16), dtype="f4")


HOSTILE = [
    external_link, soft_link_out_of_the_file, external_storage, virtual_dataset, declares_terabytes, huge_chunk,
    compression_bomb, python_objects, opaque, complex_numbers, coordinates_without_end, coordinates_of_nan,
    too_few_times, other_length_of_space, no_samples,
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_hostile_hdf5_is_refused(tmp_path, change):
    path = tmp_path / "f.hdf5"
    foreign.advection(path)
    with h5py.File(path, "r+") as file:
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NeuralopKitError, match="expected"):
        read_all(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


@pytest.mark.parametrize("constant", [False, True], ids=["longer than the fields", "no field varies"])
def test_number_of_samples_that_lies_is_refused_when_opened(tmp_path, constant):
    path = tmp_path / "f.hdf5"
    foreign.well(path)
    with h5py.File(path, "r+") as file:
        file.attrs["n_trajectories"] = 2**23
        if constant:
            for group in ("t0_fields", "t1_fields", "t2_fields"):
                for name in file[group]:
                    values, attributes = file[group][name][...], dict(file[group][name].attrs)
                    values = values[0] if attributes["sample_varying"] else values
                    del file[group][name]
                    file[group][name] = values
                    file[group][name].attrs.update(attributes | {"sample_varying": False})
    with pytest.raises(DataError, match="differ between" if constant else "parts do not go together"):
        open_dataset(path)


def test_damaged_text_heap_does_not_hang(tmp_path):
    path = tmp_path / "f.hdf5"
    foreign.well(path)
    content = bytearray(path.read_bytes())
    place = content.find(b"GCOL") + 16
    content[place : place + 16] = bytes(16)  # free space of length zero, at which HDF5 2.0 stands still
    path.write_bytes(content)
    for tool in (open_dataset, check_file):
        with pytest.raises(DataError, match="damaged heap"):
            tool(path)
    assert tiny.run_child(plain_h5py_attribute, path, timeout=20) == -14  # negative control: SIGALRM ends the loop


def plain_h5py_attribute(path: Path) -> None:
    import signal

    signal.alarm(1)
    with h5py.File(path) as file:
        dict(file.attrs)


TRACE = "unpickled"


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def npy_of_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(path.parent / TRACE)], dtype=object), allow_pickle=True)


def npy_that_lies(path: Path) -> None:
    with path.open("wb") as file:  # given a name, numpy would append a suffix to it
        np.save(file, np.zeros((3, 4, 5)))
    path.write_bytes(path.read_bytes().replace(b"(3, 4, 5)", b"(9, 9, 9)"))


def npy_with_a_long_header(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 2**20 + b")}\n"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header)


def pt_pickle(path: Path) -> None:
    torch.save({"x": Evil(path.parent / TRACE), "y": torch.zeros(3, 4)}, path)


def pt_of_samples(path: Path) -> None:
    torch.save([{"x": torch.zeros(3)}], path)


def pt_expanded(path: Path) -> None:
    torch.save({"x": torch.zeros(1, 1, 1).expand(2**10, 2**15, 2**15), "y": torch.zeros(3)}, path)


def pt_sparse(path: Path) -> None:
    torch.save({"x": torch.eye(4).to_sparse(), "y": torch.eye(4)}, path)


def pt_compressed(path: Path) -> None:
    plain = io.BytesIO()
    torch.save({"x": torch.zeros(2**22), "y": torch.zeros(2**22)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


def plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({"x": Evil(path.parent / TRACE)}))


def mat_cell(path: Path) -> None:
    scipy.io.savemat(path, {"coeff": np.array([1, "two"], dtype=object), "sol": np.zeros((3, 4))})


def mat_function_handle(path: Path) -> None:
    foreign.mat73(path, coeff=np.zeros((3, 4, 5)), sol=np.zeros((3, 4, 5)))
    with h5py.File(path, "r+") as file:
        file["coeff"].attrs["MATLAB_class"] = np.bytes_("function_handle")


def mat_bomb(path: Path) -> None:
    """A compressed variable that says it is 64 GB."""
    matrix = (
        struct.pack("<IIIIII", 6, 8, 6, 0, 5, 8)
        + struct.pack("<ii", 2**17, 2**16)
        + struct.pack("<HH4s", 1, 1, b"a\0\0\0")
    )
    matrix = struct.pack("<II", 14, len(matrix) + 8) + matrix + struct.pack("<II", 9, 2**32 - 8)
    packed = zlib.compress(matrix)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    both = [packed, zlib.compress(matrix.replace(b"a\0\0\0", b"u\0\0\0"))]
    path.write_bytes(head + b"".join(struct.pack("<II", 15, len(one)) + one for one in both))


OTHERS = [
    npy_of_objects, npy_that_lies, npy_with_a_long_header, pt_pickle, pt_of_samples, pt_expanded, pt_sparse,
    pt_compressed, plain_zip, mat_cell, mat_function_handle, mat_bomb,
]  # fmt: skip


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
def test_other_hostile_files_are_refused(tmp_path, make):
    path = tmp_path / "file"
    make(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="expected"):
        read_all(path, axes="nxy" if "npy" in make.__name__ else None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert not (tmp_path / TRACE).exists()


@pytest.mark.parametrize("make", [npy_of_objects, npy_that_lies, pt_pickle])
def test_they_are_hostile(tmp_path, make):
    """Negative control: numpy and torch, when they trust a file, do what it says, or fail on what it lies about."""
    path = tmp_path / "file"
    make(path)
    if make is npy_of_objects:
        np.load(path, allow_pickle=True)
    elif make is pt_pickle:
        torch.load(path, weights_only=False)
    else:
        with pytest.raises(ValueError, match="could only read 60 elements"):
            np.load(path)
    assert (tmp_path / TRACE).exists() == (make is not npy_that_lies)


def save_mat(path: Path, save=foreign.mat5) -> None:
    save(path, a=foreign.numbers(3, 4, 5), u=foreign.numbers(3, 4, 5, 3), t=np.arange(3.0))


VICTIMS = {
    "pdebench arrays": lambda path: foreign.advection(path, samples=3),
    "pdebench groups": lambda path: foreign.groups(path, "sorption"),
    "pdebench incompressible": foreign.incompressible,
    "pdearena": foreign.smoke,
    "the well": foreign.well,
    "mat 5": save_mat,
    "mat 7.3": lambda path: save_mat(path, foreign.mat73),
    "torch": lambda path: foreign.pt(path, x=foreign.numbers(3, 5, 7), y=foreign.numbers(3, 5, 7)),
    "numpy": lambda path: np.save(path.open("wb"), foreign.numbers(3, 5, 7)),
}


def fuzz(folder: Path, verdict: Path) -> None:
    """Read mutated files with little memory to spare; the verdict counts what was read and what was refused."""
    warnings.simplefilter("ignore")
    counts = {}
    try:
        for name, make in VICTIMS.items():
            path = folder / "file"
            path.unlink(missing_ok=True)
            make(path)
            counts[name] = fuzz_one(path, axes="nxy" if name == "numpy" else None)
        verdict.write_text(repr(counts))
    except BaseException as error:
        verdict.write_text(f"failed: {name}: {type(error).__name__}: {error}\n{getattr(error, '__notes__', '')}")
    os._exit(0)


def fuzz_one(path: Path, axes: str | None) -> tuple[int, int]:
    content, expected = path.read_bytes(), read_all(path, axes=axes)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, resource.RLIM_INFINITY))
    read = refused = 0

    @settings(FUZZING, max_examples=60)
    @given(mutations(len(content)))
    def attempt(steps: list[tuple[str, int, int]]) -> None:
        nonlocal read, refused
        path.write_bytes(mutate(content, steps))
        try:
            found = read_all(path, axes=axes)
        except NeuralopKitError:
            refused += 1
            return
        # Without checksums a flipped bit of a number is another number, but finite; a cut is always noticed.
        assert all(np.isfinite(part).all() for part in found)
        if all(kind == "cut" for kind, _, _ in steps):
            assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
        read += 1

    attempt()
    return read, refused


def test_mutated_files_are_read_or_refused(tmp_path):
    verdict = tmp_path / "verdict"
    assert tiny.run_child(fuzz, tmp_path, verdict, timeout=200) == 0, (
        verdict.read_text() if verdict.exists() else "died"
    )
    text = verdict.read_text()
    assert not text.startswith("failed"), text
    counts = eval(text)
    assert set(counts) == set(VICTIMS)
    # Negative control: both must happen, or the mutations were all harmless or all gross.
    assert all(refused > 5 for _, refused in counts.values()), counts
    assert sum(read for read, _ in counts.values()) > 50, counts
