"""Which samples form which batch: a function of (seed, epoch) alone, so that any run can be continued anywhere."""

import hashlib
import multiprocessing
import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from neuralop_kit.solvers.errors import ArgumentError, NonFiniteError, ShapeError
from neuralop_kit.training import distributed

# Items are pairs (input, target); a dataset may also offer ``read(indices) -> (inputs, targets)``, one access.
PairDataset = Dataset[Any]
EVALUATION_EPOCH = -1


def stream_seed(*keys: int) -> int:
    """A 63-bit seed from whole numbers; different keys give independent streams."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_order(sizes: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> list[tuple[int, Tensor]]:
    """The batches of one epoch: pairs (dataset, sample indices), every sample once, each batch from one dataset.

    Datasets of several resolutions are mixed by shuffling their batches. Only the last batch of a dataset may be
    smaller than ``batch_size``.

    >>> [(which, len(samples)) for which, samples in epoch_order([4, 3], batch_size=2, seed=0, epoch=EVALUATION_EPOCH)]
    [(0, 2), (0, 2), (1, 2), (1, 1)]
    """
    if epoch == EVALUATION_EPOCH:
        return [(i, part) for i, size in enumerate(sizes) for part in torch.arange(size).split(batch_size)]
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    shuffled = [torch.randperm(size, generator=generator) for size in sizes]
    batches = [(i, part) for i, order in enumerate(shuffled) for part in order.split(batch_size)]
    return [batches[int(i)] for i in torch.randperm(len(batches), generator=generator)]


class Batches(Dataset[tuple[Tensor, Tensor, int, int]]):
    """One epoch as a dataset whose items are whole batches: ``(input, target, num_samples, num_joined)``.

    Under ``torchrun`` each process gets its part of every batch: ``num_samples`` of the ``num_joined``. Random
    augmentation inside a dataset draws from streams seeded by (seed, epoch, batch, rank), hence is the same with any
    number of workers.
    """

    def __init__(self, datasets: Sequence[PairDataset], *, batch_size: int, seed: int, epoch: int) -> None:
        self.datasets = datasets
        self.seed, self.epoch = seed, epoch
        sizes = [len(cast(Sized, dataset)) for dataset in datasets]
        self.order = epoch_order(sizes, batch_size=batch_size, seed=seed, epoch=epoch)
        # Asked here, because a worker process of the loader does not belong to the group.
        self.rank, self.world_size = distributed.rank(), distributed.world_size()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, int]:
        which, samples = self.order[index]
        # Contiguous parts whose lengths differ by at most one.
        mine = samples.tensor_split(self.world_size)[self.rank]
        # A process without samples takes part with one of no weight: all must meet in the same collectives.
        wanted = mine if len(mine) else samples[:1]
        source, target = _read(self.datasets[which], wanted, seed=stream_seed(self.seed, self.epoch, index, self.rank))
        if not source.is_cuda:  # data kept on a GPU were checked before training; to ask again would stall it
            check_finite(source, target, samples=wanted, name=str(which))
        return source, target, len(mine), len(samples)

    def loader(self, *, start: int = 0, num_workers: int = 0, pin_memory: bool = False) -> Iterable[Any]:
        """The batches from number ``start`` on, read ahead by ``num_workers`` processes."""
        in_memory = [tensor for data in self.datasets if isinstance(data, TensorDataset) for tensor in data.tensors]
        pin_memory = pin_memory and not any(tensor.is_cuda for tensor in in_memory)
        # Without a generator of its own a loader would draw from the global one, once per start.
        generator = torch.Generator().manual_seed(stream_seed(self.seed, self.epoch))
        return DataLoader(
            self, batch_size=None, sampler=range(start, len(self)), num_workers=num_workers,
            pin_memory=pin_memory, generator=generator, worker_init_fn=_end_with_parent,
        )  # fmt: skip


def as_datasets(data: PairDataset | Sequence[PairDataset]) -> tuple[PairDataset, ...]:
    """One dataset or several, as a tuple; each must have a length and items ``(input, target)``.

    Raises:
        ArgumentError: a loader or an iterable was given, or a dataset is empty.
    """
    datasets = tuple(data) if isinstance(data, list | tuple) else (data,)
    for dataset in datasets:
        if isinstance(dataset, DataLoader):
            raise ArgumentError("expected a dataset, got a DataLoader; pass loader.dataset, and batch_size to fit")
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise ArgumentError(f"expected a dataset with a length and items, got {type(dataset).__name__}")
        if len(cast(Sized, dataset)) == 0:
            raise ArgumentError("expected at least one sample in every dataset, got an empty one; leave it out")
    if not datasets:
        raise ArgumentError("expected at least one dataset, got none; pass one or a list of them")
    return datasets


def check_named(datasets: Mapping[str, PairDataset]) -> Mapping[str, PairDataset]:
    """Raise an :class:`ArgumentError` unless the datasets have names."""
    if not isinstance(datasets, Mapping):
        raise ArgumentError(f'expected datasets by name, got {type(datasets).__name__}; write {{"valid": dataset}}')
    return datasets


def _read(dataset: PairDataset, samples: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """The samples as one batch, in one access where the dataset offers it; its random draws start from ``seed``."""
    if isinstance(dataset, TensorDataset):
        batch: Any = tuple(tensor[samples] for tensor in dataset.tensors)
    else:
        with _seeded(seed):
            batch = _ask(dataset, samples.tolist())
    if not isinstance(batch, list | tuple) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise ShapeError(
            f"expected items (input, target) of two tensors, got {type(batch).__name__}; "
            "wrap the dataset so that each item is such a pair"
        )
    return batch[0], batch[1]


def _ask(dataset: PairDataset, indices: list[int]) -> Any:
    if hasattr(dataset, "read"):
        return dataset.read(indices)
    if hasattr(dataset, "__getitems__"):
        return default_collate(dataset.__getitems__(indices))
    return default_collate([dataset[index] for index in indices])


def check_finite(*fields: Tensor, samples: Tensor, name: str) -> None:
    """Raise a :class:`NonFiniteError` that names the bad samples of this dataset; ``fields`` are input and target."""
    for field, side in zip(fields, ("input", "target"), strict=False):
        if torch.isfinite(field.sum()):
            continue  # one cheap pass; a sum that overflows is looked at more closely
        good = torch.isfinite(field).flatten(start_dim=1).all(dim=1).cpu()
        if not good.all():
            raise NonFiniteError(
                f"expected finite data, got NaN or infinity in the {side} of samples {samples[~good][:5].tolist()} "
                f"of dataset {name!r}; repair or remove them"
            )


def _end_with_parent(worker: int) -> None:
    """Let this worker end when the process that trains is killed.

    torch's own worker may not notice, or wait for ever to hand over batches that nobody takes, with all its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: Any) -> None:
    process.join()
    os._exit(1)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global random streams start from ``seed`` inside the block and are untouched after it."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
