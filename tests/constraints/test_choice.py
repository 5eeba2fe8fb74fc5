"""One field here, another there: by rule exactly, learned towards the better one."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    AtStart,
    ConservationConstraint,
    ExpertChoice,
    LeastSquaresConstraint,
    MixtureOfExperts,
    Overlap,
    Partition,
)
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

LINE = Domain.box((2.0,), boundary="dirichlet", nodes="vertex")
HALVES = Partition(LINE, (2,))


def candidates():
    """The solution of an equation on one side, a field of known mass on the other."""
    x = LINE.coordinates((65,), dtype=torch.float64)
    decay = LeastSquaresConstraint(lambda u, u_x: u_x + u, LINE, conditions=[AtStart("start", 0, target=1.0)])
    basis = torch.stack([x**k for k in range(6)], dim=1)
    solved, _ = MixtureOfExperts(decay, HALVES, global_conditions=True)(basis)
    conserved, _ = ConservationConstraint(LINE)(torch.cos(x)[None], torch.ones(1, 1, dtype=torch.float64))
    return x, solved, conserved


def test_a_rule_is_exact():
    _, solved, conserved = candidates()
    u, shares = ExpertChoice(HALVES, 2, rule=(0, 1))(solved, conserved)
    assert shares.tolist() == [[1, 0], [0, 1]]
    left, right = HALVES.split(u)
    assert torch.equal(left, HALVES.split(solved)[0])
    assert torch.equal(right, HALVES.split(conserved)[1])


def test_overlaps_blend_without_a_jump():
    _, solved, conserved = candidates()
    jumps = []
    for options in ({}, {"interface": Overlap((0.8,))}):
        u, _ = ExpertChoice(HALVES, 2, rule=(0, 1), **options)(solved, conserved)
        jumps.append(u.diff(dim=-1).abs().max())
    assert jumps[1] < jumps[0] / 4


def test_learned_choices_find_the_better_field_on_each_part():
    x, solved, conserved = candidates()
    target = torch.where(x < 1, solved, conserved)
    choice = ExpertChoice(HALVES, 2).double()
    optimizer = torch.optim.Adam(choice.parameters(), lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        (choice(solved.detach(), conserved)[0] - target.detach()).square().mean().backward()
        optimizer.step()
    shares = choice.shares(x)
    assert shares[0, 0] > 0.9
    assert shares[1, 1] > 0.9


def test_a_mixture_keeps_a_linear_constraint():
    layer, total = ConservationConstraint(LINE), torch.ones(2, 1, dtype=torch.float64)
    fields = [layer(torch.randn(2, 1, 33, dtype=torch.float64), total)[0] for _ in range(2)]
    one_part = ExpertChoice(Partition(LINE, (1,)), 2).double()
    u, _ = one_part(*fields)
    assert (layer.integral(u) - total).abs().max() < 1e-14


def test_refusals():
    with pytest.raises(ArgumentError, match="rule"):
        ExpertChoice(HALVES, 2, rule=(0, 2))
    with pytest.raises(ShapeError, match="one shape"):
        ExpertChoice(HALVES, 2)(torch.zeros(1, 1, 8), torch.zeros(1, 1, 9))
