"""Small files in the layouts of others, written to their published schemas with shapes that tell the axes apart."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch

TEXT = h5py.string_dtype()
RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def centres(n: int, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
    h = (stop - start) / n
    return (start + h * (np.arange(n) + 0.5)).astype("f4")


def advection(
    path: Path, *, beta: float = 0.4, speed: float | None = None, leading: bool = False, samples: int = 20
) -> np.ndarray:
    """PDEBench A: a travelling wave, 6 frames of 16 points."""
    x, t = centres(16), 0.05 * np.arange(7)
    phases = RNG.uniform(0, 6, (samples, 1, 1))
    moved = x - (beta if speed is None else speed) * t[:6, None]
    u = np.sin(2 * np.pi * moved + phases).astype("f4")
    with h5py.File(path, "w") as file:
        file["tensor"] = u[None] if leading else u
        file["x-coordinate"], file["t-coordinate"] = x, t.astype("f4")
        file.attrs["beta"] = beta
    return u


def burgers(path: Path, *, start: float = 0.0) -> np.ndarray:
    u = numbers(10, 6, 16)
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"] = u, centres(16, start)
        file["t-coordinate"] = np.arange(7, dtype="f4") / 100
        file.attrs["Nu"] = 0.01
    return u


def reaction(path: Path) -> np.ndarray:
    u = numbers(10, 4, 16)
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = u, centres(16), np.arange(5, dtype="f4")
        file.attrs["Nu"], file.attrs["rho"] = 0.5, 2.0
    return u


def flow(path: Path, *, samples: bool = True) -> dict[str, np.ndarray]:
    fields = {name: numbers(*([3] if samples else []), 4, 5, 7) for name in ("density", "pressure", "Vx", "Vy")}
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
        file["x-coordinate"], file["y-coordinate"] = centres(5), centres(7)
        file["t-coordinate"] = np.linspace(0, 1, 5, dtype="f4")
        file.attrs.update({"eta": 0.1, "zeta": 0.1, "M": 1.0})
    return fields


def darcy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    nu, u = numbers(10, 5, 7), numbers(10, 1, 5, 7)
    with h5py.File(path, "w") as file:
        file["nu"], file["tensor"], file["x-coordinate"], file["y-coordinate"] = nu, u, centres(5), centres(7)
        file.attrs["beta"] = 0.01
    return nu, u


def groups(path: Path, problem: str) -> np.ndarray:
    """PDEBench B: seeds with a gap. Returns ``(sample, time, channel, *space)`` as it should be read."""
    nx, ny = 5, 7
    shapes = {"sorption": (4, nx, 1), "reaction": (4, ny, nx, 2), "dam": (4, nx, ny, 1)}
    stored = []
    with h5py.File(path, "w") as file:
        for seed in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
            data = numbers(*shapes[problem])
            if problem == "sorption":
                data[0] = data[0, 0]
            group = file.create_group(f"{seed:04d}")
            group.create_dataset("data", data=data, compression=None if problem == "dam" else "lzf")
            group["grid/x"], group["grid/t"] = centres(nx, -1.0), np.linspace(0, 1, 4, dtype="f4")
            if problem != "sorption":
                group["grid/y"] = centres(ny, -1.0)
            group.attrs["config"] = (
                f"sim:\n  Du: 1e-3\n  xdim: {nx}\n  seed: {seed}\n  target: !!python/object:os.system\n"
            )
            stored.append(data)
    data = np.stack(stored)
    order = {"sorption": (0, 1, 3, 2), "reaction": (0, 1, 4, 3, 2), "dam": (0, 1, 4, 2, 3)}[problem]
    return data.transpose(order)


def incompressible(path: Path, *, latest: int = 2) -> dict[str, np.ndarray]:
    fields = {"velocity": numbers(2, 4, 5, 7, 2), "particles": numbers(2, 4, 5, 7, 1), "force": numbers(2, 5, 7, 2)}
    fields["velocity"][:, latest + 1 :] = fields["particles"][:, latest + 1 :] = 0
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file.create_dataset(
                name, data=values, chunks=(1,) * (values.ndim - 3) + values.shape[-3:], compression="lzf", shuffle=True
            )
        file["t"] = np.tile(np.arange(4, dtype="f4"), (2, 1))
        file.attrs["latestIndex"], file.attrs["config"] = latest, "NU: 0.01\ndomain_size: [1, 1]\n"
    return fields


def smoke(path: Path, *, splits: tuple[str, ...] = ("train",)) -> dict[str, np.ndarray]:
    fields = {name: numbers(3, 4, 5, 7, dtype="f8") for name in ("u", "vx", "vy")}
    with h5py.File(path, "w") as file:
        for split in splits:
            group = file.create_group(split)
            for name, values in fields.items():
                group[name] = values
            group["t"] = np.tile(np.linspace(18, 102, 4), (3, 1))
            group["x"], group["y"] = np.tile(np.linspace(0, 32, 5), (3, 1)), np.tile(np.linspace(0, 16, 7), (3, 1))
            group["dt"], group["dx"], group["dy"] = np.full(3, 6.0), np.full(3, 8.0), np.full(3, 16 / 6)
            group["buo_y"] = np.array([0.2, 0.3, 0.4])
    return fields


def maxwell(path: Path) -> dict[str, np.ndarray]:
    fields = {"d_field": numbers(2, 3, 4, 5, 6, 3), "h_field": numbers(2, 3, 4, 5, 6, 3)}
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[f"valid/{name}"] = values
    return fields


def well(
    path: Path, *, time: str = "shared", bare_text: bool = False, empty_mask: bool = False, constant: bool = False
) -> dict[str, np.ndarray]:
    """The Well: 3 trajectories, 4 times, 5 x 7 points; scalar, vector, tensor, and two that are constant somewhere."""
    fields = {
        "t0_fields/density": (numbers(3, 4, 5, 7), True, True, (True, True)),
        "t0_fields/profile": (numbers(3, 4, 7), True, True, (False, True)),
        "t0_fields/obstacle": (numbers(5, 7), False, False, (True, True)),
        "t1_fields/velocity": (numbers(3, 4, 5, 7, 2), True, True, (True, True)),
        "t2_fields/stress": (numbers(3, 4, 5, 7, 2, 2), True, True, (True, True)),
    }
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "flow", "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": 3})
        file.attrs["simulation_parameters"] = np.array(["Re"], dtype=TEXT)
        file.attrs["Re"] = 100.0
        for group in ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"):
            file.create_group(group)
        file["dimensions"].attrs["spatial_dims"] = np.array(["x", "y"], dtype=TEXT)
        times = np.array([0.0, 0.1, 0.2, 0.3], dtype="f4")
        varying = {"sample_varying": False, "time_varying": False}
        file["dimensions/time"] = times if time == "shared" else np.stack([times, 2 * times, 3 * times])
        file["dimensions/time"].attrs.update({"sample_varying": time != "shared", "time_varying": True})
        for name, x in (("x", np.arange(5, dtype="f4") / 5), ("y", np.linspace(0, 2, 7, dtype="f4"))):
            file[f"dimensions/{name}"] = x
            file[f"dimensions/{name}"].attrs.update(varying)
        for name, kind, n in (("x", "PERIODIC", 5), ("y", "wall", 7)):
            group = file.create_group(f"boundary_conditions/{name}_{kind.lower()}")
            group.attrs.update({"bc_type": kind, **varying, "associated_fields": np.array([], dtype=TEXT)})
            group.attrs["associated_dims"] = name if bare_text else np.array([name], dtype=TEXT)
            mask = np.zeros(n, dtype=bool)
            mask[[0, -1]] = not empty_mask
            group["mask"] = mask
        file["scalars"].attrs["field_names"] = np.array(["Re"], dtype=TEXT)
        file["scalars/Re"] = np.float32(100.0)
        file["scalars/Re"].attrs.update(varying)
        names: dict[str, list[str]] = {f"t{rank}_fields": [] for rank in range(3)}
        for place, (values, in_sample, in_time, in_space) in fields.items():
            if constant and place != "t0_fields/density":
                continue
            file[place] = values
            file[place].attrs.update({"sample_varying": in_sample, "time_varying": in_time})
            file[place].attrs["dim_varying"] = np.array(in_space)
            if place.startswith("t2"):
                file[place].attrs.update({"symmetric": False, "antisymmetric": False})
            names[place.split("/")[0]].append(place.split("/")[1])
        for group, found in names.items():
            # What h5py makes of an empty list, as in real files: an array of numbers without numbers.
            file[group].attrs["field_names"] = np.array(found, dtype=TEXT) if found else np.array([])
    return {place.split("/")[1]: values for place, (values, *_) in fields.items()}


def mat5(path: Path, **variables: np.ndarray) -> None:
    scipy.io.savemat(path, variables, do_compression=True)


def mat73(path: Path, **variables: np.ndarray) -> None:
    """As MATLAB writes it: a block of text in front, all axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            # MATLAB's matrices have two axes at least.
            values = np.atleast_2d(values)
            file.create_dataset(name, data=values.T, chunks=True, compression="gzip").attrs["MATLAB_class"] = np.bytes_(
                "double"
            )
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def pt(path: Path, **tensors: np.ndarray) -> None:
    torch.save({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()}, path)
