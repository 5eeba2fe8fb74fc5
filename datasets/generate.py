"""Generating a dataset: resumable after a kill at any moment, with the same bytes whatever the number of workers."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from neuralop_kit import __version__
from neuralop_kit.datasets import workers as worker_pool
from neuralop_kit.datasets.manifest import MANIFEST, Manifest, ShardEntry
from neuralop_kit.datasets.plan import Plan, ShardPlan, make_plan
from neuralop_kit.datasets.problems import PROBLEMS, Problem
from neuralop_kit.datasets.statistics import Array, FieldStatistics, merge_fields
from neuralop_kit.datasets.store import UNFINISHED, ShardWriter, finished_shard, shard_identity
from neuralop_kit.solvers.atomic import clean_up, exclusive_lock, explained, reached, write_bytes
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, DataError, NonFiniteError, ShapeError

REQUEST = "request.json"
LIBRARIES = ("torch", "numpy", "scipy", "h5py")


def generate(
    name: str | Problem,
    out: str | Path,
    *,
    samples: int,
    resolution: int | Sequence[int],
    settings: str | None = None,
    seed: int = 0,
    splits: Mapping[str, float] | None = None,
    workers: int = 1,
    dtype: str = "float32",
    progress: bool = False,
) -> Path:
    """Generate a dataset: a folder of HDF5 shards in The Well's layout and a manifest, ``dataset.json``.

    A process killed at any moment loses at most the batch it was solving (16 samples of 128 x 128 points, fewer of
    finer grids); the same call goes on where it stopped and ends with the same bytes. A call for a dataset that is
    complete returns at once.

    Sample ``i`` depends on ``seed`` and ``i`` only, neither on ``workers`` nor on ``samples``, and is the same function
    at every resolution. Samples are numbered through test, validation and training set in this order, so the test set
    keeps its functions when the training set grows, and ``splits={"test": 1.0}`` at another resolution gives just them.

    Args:
        name: of a problem in ``PROBLEMS``, or a :class:`Problem`.
        out: the folder, made if missing; one dataset each.
        samples: in all splits together.
        resolution: points per axis, one number for all axes or one each.
        settings: whose numbers: ``"fno"``, ``"pdebench"``, ``"apebench"``, ``"mgno"``; needed where ``name`` alone is
            no problem, as in ``generate("shallow-water", settings="pdebench", ...)``.
        seed: of the dataset, >= 0.
        splits: sizes of ``train``, ``valid``, ``test`` relative to each other; by default 0.8, 0.1, 0.1.
        workers: processes, each with one thread. More than one needs ``if __name__ == "__main__":`` around the call.
        dtype: ``"float32"`` or ``"float64"``, of the stored numbers; solvers compute in float64.
        progress: show a progress bar.

    Returns:
        ``out``, for :func:`open_dataset`.

    Raises:
        RegistryError: there is no problem of this name with these settings, or more than one.
        ArgumentError: an argument is out of range.
        DataError: the folder holds another dataset, cannot be written, is being written, or the disk is full.
        ConvergenceError, NonFiniteError: a solver failed; what was stored until then is kept.

    >>> import tempfile
    >>> from neuralop_kit.datasets import open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = open_dataset(generate("darcy", folder, samples=10, resolution=16))
    ...     len(data), data[0][0].shape
    (8, torch.Size([1, 16, 16]))
    """
    problem = _chosen(name, settings)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ArgumentError(f"expected at least one worker, got {workers}; try {os.cpu_count()}")
    description = problem.describe(problem.shape(resolution), dtype=dtype)
    plan = make_plan(description, samples=samples, seed=seed, splits=splits)
    folder = Path(out)
    if _is_finished(folder, plan) and not (folder / UNFINISHED).exists():
        return folder  # without a lock, so that finished data on read-only media can be asked for
    with explained(DataError, f"to make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, error=DataError):
        if not _is_finished(folder, plan):
            _begin(folder, plan)
            _generate(folder, plan, problem, workers=workers, progress=progress)
        # Also what a process killed behind the last step left.
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return folder


def _chosen(name: str | Problem, settings: str | None) -> Problem:
    if isinstance(name, Problem):
        return name
    return PROBLEMS[name] if settings is None else PROBLEMS.choose(name, settings)


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to know about one shard."""

    folder: Path
    plan: Plan
    shard: ShardPlan
    problem: Problem


def write_shard(task: ShardTask, on_progress: worker_pool.Progress) -> tuple[ShardEntry, dict[str, FieldStatistics]]:
    """Generate one shard, or what is missing of it; returns its entry and statistics."""
    plan, shard = task.plan, task.shard
    generator = {**plan.to_json(), "split": shard.split, "first_sample": shard.first}
    identity = shard_identity(plan.description, shard.samples, generator)
    finished = finished_shard(task.folder, shard.file, identity)
    if finished is not None:
        on_progress(shard.samples)
        return finished
    with ShardWriter(
        task.folder, shard.file, plan.description, num_samples=shard.samples, generator=generator, notes=_versions()
    ) as writer:
        on_progress(writer.num_done)
        while writer.num_done < shard.samples:
            # Batches begin at fixed places: the last bits of a sample may depend on its neighbours in the batch.
            start = writer.num_done - writer.num_done % plan.batch
            batch = _solve(task, start, min(start + plan.batch, shard.samples))
            done = writer.num_done
            for sample in batch[done - start :]:
                writer.append(sample)
            on_progress(writer.num_done - done)
        return writer.finish()


def _solve(task: ShardTask, start: int, stop: int) -> Array:
    """Samples ``start ... stop - 1`` of a shard, ``(batch, field, [time,] *space)``, checked, in the file's dtype."""
    description, first = task.plan.description, task.shard.first + start
    drawn = task.problem.sample(task.plan.generators(first, stop - start), description.shape)
    failed = (~drawn.converged).nonzero().flatten().tolist()
    if failed:
        raise ConvergenceError(
            f"expected every sample of {description.name!r} to converge, got a failure for samples "
            f"{[first + k for k in failed]} of seed {task.plan.seed}; nothing of this batch was stored"
        )
    fields = drawn.target if drawn.input is None else torch.cat([drawn.input, drawn.target], dim=1)
    expected = (stop - start, len(description.field_names), *description.sample_shape)
    if tuple(fields.shape) != expected:
        raise ShapeError(f"expected samples of shape {expected} from {description.name!r}, got {tuple(fields.shape)}")
    stored: Array = fields.detach().cpu().to(getattr(torch, description.dtype)).numpy()
    bad = np.flatnonzero(~np.isfinite(stored.reshape(len(stored), -1)).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"expected finite numbers in {description.dtype}, got NaN or infinity in samples "
            f"{[first + int(k) for k in bad]} of {description.name!r}, seed {task.plan.seed}; nothing of this batch "
            "was stored"
        )
    return stored


def _is_finished(folder: Path, plan: Plan) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    manifest = Manifest.load(folder)
    found = {**manifest.description.to_json(), **{k: manifest.generation.get(k) for k in plan.to_json()}}
    _same_request(folder, found, plan)
    try:
        for entries in manifest.splits.values():
            for entry in entries:
                entry.check_size(folder)
    except DataError:
        return False
    return True


def _begin(folder: Path, plan: Plan) -> None:
    """Note down the request, or compare it with the one that was interrupted here."""
    unfinished = folder / UNFINISHED
    with explained(DataError, f"to write {unfinished / REQUEST}"):
        if (unfinished / REQUEST).exists():
            _same_request(folder, json.loads((unfinished / REQUEST).read_bytes()), plan)
        unfinished.mkdir(exist_ok=True)
        write_bytes(unfinished / REQUEST, json.dumps(_request(plan), indent=1).encode())
        for place in (folder, unfinished, *folder.glob("data/*")):
            clean_up(place)
    # What is journalled or stored already needs no more room; a little more than the rest must be free.
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = max(0, plan.samples * plan.description.sample_bytes - present)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"expected {needed / 1e9:.2f} GB of free space for {folder}, got {free / 1e9:.2f} GB; take another disk, "
            "fewer samples or a lower resolution"
        )


def _generate(folder: Path, plan: Plan, problem: Problem, *, workers: int, progress: bool) -> None:
    shards = plan.shards()
    tasks = [ShardTask(folder, plan, shard, problem) for shard in shards]
    with tqdm(total=plan.samples, desc=plan.description.name, unit="sample", disable=not progress) as bar:
        results = worker_pool.run(write_shard, tasks, workers=workers, on_progress=bar.update)
    made = list(zip(shards, results, strict=True))
    manifest = Manifest(
        description=plan.description,
        generation={**plan.to_json(), **_versions()},
        splits={name: tuple(entry for shard, (entry, _) in made if shard.split == name) for name in plan.counts},
        statistics=merge_fields(statistics for shard, (_, statistics) in made if shard.split == "train"),
    )
    with explained(DataError, f"to write {folder / MANIFEST}"):
        manifest.save(folder)
        reached("manifest in place")


def _request(plan: Plan) -> dict[str, Any]:
    return {**plan.description.to_json(), **plan.to_json()}


def _same_request(folder: Path, found: Mapping[str, Any], plan: Plan) -> None:
    wanted = json.loads(json.dumps(_request(plan)))
    different = [key for key in wanted if found.get(key) != wanted[key]]
    if different:
        listed = "; ".join(f"{key} {found.get(key)} instead of {wanted[key]}" for key in different)
        raise DataError(
            f"expected in {folder} the dataset that was asked for, got another one ({listed}); choose another folder, "
            "or repeat the call that began this one"
        )


def _versions() -> dict[str, Any]:
    """For the reader of a file; they do not identify it."""
    return {"versions": {"neuralop_kit": __version__, **{name: version(name) for name in LIBRARIES}}}
