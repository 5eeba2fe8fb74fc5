"""Boxes, windows and points: split and merge are inverse, windows sum to one, nobody is forgotten."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.constraints.collocation import AllPoints, EqualPoints, ProportionalPoints
from neuralop_kit.constraints.partition import Partition, RandomAssignment
from neuralop_kit.constraints.windows import Windows
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError

BOX = Domain.box((2.0, 1.0), boundary=("dirichlet", "periodic"))
PARTITIONS = {
    "even": Partition(BOX, (4, 2)),
    "uneven": Partition(BOX, ((0.2, 0.5, 1.7), (0.3,))),
    "one": Partition(BOX, (1, 1)),
    "three axes": Partition(Domain.periodic((1.0, 1.0, 1.0), nodes="cell"), (2, (0.1, 0.6), 3)),
}


@pytest.mark.parametrize("name", PARTITIONS)
class TestPartition:
    def shape(self, name):
        return (21, 13, 17)[: PARTITIONS[name].domain.num_dims]

    def test_merge_is_the_inverse_of_split(self, name, generator):
        partition = PARTITIONS[name]
        u = torch.randn(2, 3, *self.shape(name), generator=generator)
        parts = partition.split(u)
        assert len(parts) == partition.num_experts
        assert torch.equal(partition.merge(parts), u)

    def test_labels_and_split_agree(self, name):
        partition = PARTITIONS[name]
        for k, part in enumerate(partition.split(partition.labels(self.shape(name)))):
            assert (part == k).all()

    def test_labels_agree_with_coordinates(self, name):
        partition, shape = PARTITIONS[name], self.shape(name)
        x = partition.domain.coordinates(shape, dtype=torch.float64)
        expected = torch.zeros(shape, dtype=torch.int64)
        for line, cuts, count in zip(x, partition.cuts, partition.counts, strict=True):
            expected = expected * count + sum((line >= c - 1e-9).long() for c in cuts)
        assert torch.equal(partition.labels(shape), expected)

    def test_windows_sum_to_one(self, name):
        partition, shape = PARTITIONS[name], self.shape(name)
        windows = Windows(partition, width=(0.2, 0.1, 0.1)[: len(shape)])
        values = windows(shape, orders=(0,) * len(shape))
        assert values.shape == (partition.num_experts, *shape)
        assert (values.sum(dim=0) - 1).abs().max() < 1e-13
        assert values.min() >= 0
        for axis in range(len(shape)):
            orders = tuple(int(i == axis) for i in range(len(shape)))
            slope = windows(shape, orders=orders)
            assert slope.sum(dim=0).abs().max() < 1e-10
            assert slope.abs().max() > 1 or partition.counts[axis] == 1
        # The largest window of a point is that of the expert whose box holds it.
        own = values.gather(0, partition.labels(shape)[None])
        assert (own >= values - 1e-12).all()


class TestWindows:
    @pytest.mark.parametrize("smoothness", [1, 2])
    @pytest.mark.parametrize("domain", [Domain.periodic((1.0,)), Domain.box((1.0,))], ids=["circle", "line"])
    def test_derivatives_are_those_of_the_windows(self, domain, smoothness):
        windows = Windows(Partition(domain, ((0.3, 0.8),)), width=(0.2,), smoothness=smoothness)
        n = 4001
        (h,) = domain.spacing((n,))
        for order in range(1, smoothness + 1):
            lower, upper = (windows((n,), orders=(k,)) for k in (order - 1, order))
            difference = (lower[:, 2:] - lower[:, :-2]) / (2 * h)
            # The highest derivative has kinks, where differences are first order: 60 h / 2 width^3 at most.
            assert (difference - upper[:, 1:-1]).abs().max() < 6 * h / 0.2 * upper.abs().max()

    def test_only_so_smooth(self):
        line = Partition(Domain.box((1.0,)), (2,))
        for smoothness in (1, 2):
            windows = Windows(line, width=(0.5,), smoothness=smoothness)
            values = [windows((100001,), orders=(k,)) for k in range(smoothness + 2)]
            jumps = [v.diff(dim=1).abs().max() / v.abs().max() for v in values]
            assert max(jumps[:-1]) < 1e-3
            assert jumps[-1] > 0.1

    def test_refusals(self):
        line = Partition(Domain.box((1.0,)), ((0.1,),))
        with pytest.raises(DomainError, match="overlap"):
            Windows(line, width=(0.2,))
        with pytest.raises(ArgumentError, match="smoothness"):
            Windows(line, width=(0.1,), smoothness=3)


class TestInterfaces:
    def test_a_line_between_two_boxes(self):
        meets = Partition(Domain.box((1.0, 1.0), nodes="cell"), (2, 1)).interfaces((4, 3))
        assert sorted(meets.points.tolist()) == [3, 4, 5, 6, 7, 8]
        assert meets.first.unique().tolist() == [0]
        assert meets.second.unique().tolist() == [1]
        assert sorted(zip(meets.points.tolist(), meets.partners.tolist(), strict=True))[0] == (3, 6)
        assert meets.distances.tolist() == [0.25] * 6

    def test_periodic_ends_meet(self):
        for domain, number in ((Domain.periodic((1.0,)), 4), (Domain.box((1.0,)), 2)):
            assert len(Partition(domain, (2,)).interfaces((8,)).points) == number

    def test_one_expert_meets_nobody(self):
        assert len(Partition(BOX, (1, 1)).interfaces((8, 8)).points) == 0


class TestRandomAssignment:
    def test_balanced_scattered_and_repeatable(self):
        control = RandomAssignment(BOX, 4)
        labels = control.labels((20, 30))
        assert torch.equal(labels, control.labels((20, 30)))
        assert torch.bincount(labels.flatten()).tolist() == [150] * 4
        # Neighbours have different experts about three times out of four.
        assert 0.65 < len(control.interfaces((20, 30)).points) / (2 * (19 * 30 + 20 * 30)) < 0.85


class TestCollocation:
    def members(self):
        labels = Partition(BOX, ((0.2, 0.5), (0.3,))).labels((30, 20)).flatten()
        return labels == torch.arange(6)[:, None]

    @pytest.mark.parametrize("rule", [AllPoints(), EqualPoints(7), EqualPoints(50), ProportionalPoints(100)])
    def test_points_are_distinct_and_belong_to_their_expert(self, rule, generator):
        members = self.members()
        points, is_real = rule.choose(members, generator=generator)
        assert members.gather(1, points).all()
        for own, real, member in zip(points, is_real, members, strict=True):
            assert len(own[real].unique()) == real.sum()
            assert real.sum() <= member.sum()

    def test_numbers(self, generator):
        members = self.members()
        sizes = members.sum(dim=1)
        assert torch.equal(AllPoints().choose(members)[1].sum(dim=1), sizes)
        assert EqualPoints(7).choose(members)[1].sum(dim=1).tolist() == [7] * 6
        shared = ProportionalPoints(100).choose(members)[1].sum(dim=1)
        assert (shared - 100 * sizes / sizes.sum()).abs().max() <= 1

    def test_same_seed_same_points_and_every_point_has_its_chance(self):
        members = self.members()
        draws = [EqualPoints(3).choose(members, generator=torch.Generator().manual_seed(i))[0] for i in (0, 0, 1)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        generator = torch.Generator().manual_seed(0)
        seen = torch.cat([EqualPoints(3).choose(members, generator=generator)[0] for _ in range(300)], dim=1)
        assert len(seen[0].unique()) == members[0].sum()


def test_refusals():
    with pytest.raises(DomainError, match="splits"):
        Partition(BOX, (2,))
    with pytest.raises(DomainError, match="increasing"):
        Partition(BOX, ((0.5, 0.3), 1))
    with pytest.raises(DomainError, match="part"):
        Partition(BOX, (0, 1))
    with pytest.raises(DomainError, match="finer"):
        Partition(BOX, (8, 1)).labels((5, 5))
    with pytest.raises(ShapeError, match="parts"):
        PARTITIONS["even"].merge([torch.zeros(3, 3)])
    with pytest.raises(ArgumentError, match="point"):
        EqualPoints(0)
    with pytest.raises(ArgumentError, match="every expert"):
        AllPoints().choose(torch.tensor([[True], [False]]))
