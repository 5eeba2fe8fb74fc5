"""The order of the data: a function of seed and epoch alone, every sample once, one dataset per batch."""

from itertools import chain, pairwise

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from neuralop_kit.solvers.errors import ArgumentError, NonFiniteError, ShapeError
from neuralop_kit.training.data_order import EVALUATION_EPOCH, Batches, as_datasets, epoch_order, stream_seed
from tests.training.runs import Shifted


def order(*sizes: int, batch_size: int = 4, seed: int = 0, epoch: int = 0) -> list[tuple[int, list[int]]]:
    batches = epoch_order(sizes, batch_size=batch_size, seed=seed, epoch=epoch)
    return [(which, samples.tolist()) for which, samples in batches]


def read(datasets, *, epoch: int = 0, **options) -> list[tuple]:
    return list(Batches(datasets, batch_size=4, seed=1, epoch=epoch).loader(**options))


class TestOrder:
    def test_every_sample_once_and_batches_are_full_but_for_the_last(self):
        batches = order(22, 9)
        for which, size in ((0, 22), (1, 9)):
            mine = [samples for i, samples in batches if i == which]
            assert sorted(chain.from_iterable(mine)) == list(range(size))
            assert sorted(map(len, mine)) == sorted([size % 4] + [4] * (size // 4))

    def test_depends_on_seed_and_epoch_and_on_nothing_else(self):
        torch.manual_seed(1)
        first = order(22, 9)
        torch.manual_seed(2)
        assert order(22, 9) == first
        assert len({str(order(22, 9, seed=s, epoch=e)) for s in range(3) for e in range(3)}) == 9

    def test_resolutions_are_mixed(self):
        kinds = [which for which, _ in order(400, 400)]
        changes = sum(a != b for a, b in pairwise(kinds))
        assert 70 < changes < 130  # 199 * 1/2 +- 4 sigma for a fair mix; 1 when one follows the other

    def test_position_of_a_sample_is_uniform(self):
        epochs = ([i for _, samples in order(8, epoch=e) for i in samples] for e in range(2000))
        places = torch.tensor([samples.index(0) for samples in epochs])
        counts = torch.bincount(places, minlength=8).double()
        assert ((counts - 250).square() / 250).sum() < 26  # chi-squared with 7 degrees of freedom: 0.1 %

    def test_evaluation_reads_in_order(self):
        assert order(6, epoch=EVALUATION_EPOCH) == [(0, [0, 1, 2, 3]), (0, [4, 5])]

    def test_streams_are_independent(self):
        assert len({stream_seed(*keys) for keys in [(0,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0)]}) == 6
        assert all(0 <= stream_seed(seed) < 2**63 for seed in (-1, 0, 2**80))


class TestReading:
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_starting_later_gives_the_same_batches(self, num_workers):
        data = [Shifted(10, 8, noise=1.0), Shifted(6, 16, noise=1.0)]
        whole, later = read(data), read(data, start=2, num_workers=num_workers)
        assert len(later) == len(whole) - 2
        for a, b in zip(whole[2:], later, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[:2], b[:2], strict=True))

    def test_augmentation_differs_between_epochs_and_leaves_the_global_streams_alone(self):
        data, state = [Shifted(4, 8, noise=1.0)], torch.get_rng_state()
        first, second = (read(data, epoch=e)[0][0].sort(dim=0).values for e in (0, 1))
        assert not torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), state)

    def test_memory_batch_access_and_single_items_agree(self):
        class Listed(Shifted):
            def __getitems__(self, indices):
                return [self[i] for i in indices]

        class Read(Shifted):
            def read(self, indices):
                return self.fields[indices], 0.5 * self.fields[indices].roll(1, -1)

        batches = [read([d]) for d in (Shifted(10, 8), Shifted(10, 8).in_memory(), Listed(10, 8), Read(10, 8))]
        for same in zip(*batches, strict=True):
            for other in same[1:]:
                assert torch.equal(same[0][0], other[0])
                assert torch.equal(same[0][1], other[1])

    def test_damaged_samples_are_named_when_they_are_read(self):
        data = Shifted(10, 8)
        data.fields[7, 0, 3] = torch.nan
        with pytest.raises(NonFiniteError, match=r"input of samples \[7\] of dataset '0'"):
            read([data])
        with pytest.raises(NonFiniteError, match=r"samples \[7\]"):
            read([data], num_workers=1)


class TestRefusals:
    def test_loader(self):
        with pytest.raises(ArgumentError, match=r"loader\.dataset"):
            as_datasets(DataLoader(Shifted(4, 8)))

    def test_iterable(self):
        class Stream(IterableDataset):
            def __iter__(self):
                yield 1

        with pytest.raises(ArgumentError, match="length"):
            as_datasets(Stream())

    @pytest.mark.parametrize("empty", [[], TensorDataset(torch.zeros(0, 1, 4), torch.zeros(0, 1, 4))])
    def test_nothing(self, empty):
        with pytest.raises(ArgumentError, match="at least one"):
            as_datasets(empty)

    def test_items_that_are_no_pairs(self):
        with pytest.raises(ShapeError, match="pair"):
            read([TensorDataset(torch.zeros(4, 1, 4))])
