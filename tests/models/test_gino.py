"""GINO: clouds of points in and out; only the function counts, not how it is sampled."""

import itertools

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.models import GINO
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError

DOMAIN = Domain.box((1.0, 1.0))


def make(**changes):
    torch.manual_seed(0)
    options = {"radius": 0.25, "grid": (9, 9), "width": 6, "num_layers": 2, "modes": 4} | changes
    return GINO(2, 3, domain=DOMAIN, **options).double()


def values(points):
    x, y = points.unbind(-1)
    return torch.stack((torch.exp(x) * torch.cos(3 * y), torch.sin(2 * x - y)))


def cloud(n):
    """Graded points of a rule, and its weights: dense at one corner."""
    line = Domain.box((1.0,)).coordinates((n,), dtype=torch.float64)[0]
    weights = Domain.box((1.0,)).weights((n,), dtype=torch.float64) * 2 * line
    points = torch.stack(torch.meshgrid(line**2, line**2, indexing="ij"), dim=-1).flatten(0, 1)
    return points, torch.outer(weights, weights).flatten()


QUERIES = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def errors_and_drift(weighted):
    model, outputs = make(), []
    for n in (17, 33, 65, 129):
        points, weights = cloud(n)
        outputs.append(model(values(points)[None], points, QUERIES, weights=weights if weighted else None))
    steps = [(a - b).norm().item() / b.norm().item() for a, b in itertools.pairwise(outputs)]
    return steps, ((outputs[-1] - outputs[0]).norm() / outputs[0].norm()).item(), outputs[-1]


def test_converges_as_a_graded_cloud_is_refined():
    steps, drift, limit = errors_and_drift(weighted=True)
    assert drift < 0.05
    assert steps[2] < steps[0] / 8
    # Negative control: equal weights tend to another operator, that of the density of the points.
    assert ((errors_and_drift(weighted=False)[2] - limit).norm() / limit.norm()).item() > 5 * drift


def test_converges_as_the_grid_of_a_call_is_refined():
    model, (points, weights) = make(), cloud(33)
    u = values(points)[None]
    on = {n: model(u, points, QUERIES, weights=weights, grid=(n, n)) for n in (9, 17, 33, 65)}
    assert torch.equal(on[9], model(u, points, QUERIES, weights=weights))
    # Relative to what changes from query to query; biases are most of an untrained output.
    size = on[65].std(dim=2).norm() * len(QUERIES) ** 0.5
    steps = [((a - b).norm() / size).item() for a, b in itertools.pairwise(on.values())]
    assert steps[2] < steps[0] / 8, steps
    oblong = model(u, points, QUERIES, weights=weights, grid=(65, 33))
    assert ((on[65] - oblong).norm() / size).item() < 3 * steps[1]
    # Negative control: balls that shrink with the spacing, as a number of pixels would.
    shrunk = []
    for n in (33, 65):
        model.decode.radius = model.encode.radius = 0.25 * 8 / (n - 1)
        shrunk.append(model(u, points, QUERIES, weights=weights, grid=(n, n)))
    assert ((shrunk[1] - shrunk[0]).norm() / size).item() > 20 * steps[2]


def test_a_point_split_in_two_changes_nothing():
    model, (points, weights) = make(), cloud(17)
    twice = torch.cat((points, points)), torch.cat((weights / 2, weights / 2))
    torch.testing.assert_close(
        model(values(twice[0])[None], twice[0], QUERIES, weights=twice[1]),
        model(values(points)[None], points, QUERIES, weights=weights),
        rtol=0,
        atol=1e-12,
    )
    order = torch.randperm(len(points))
    torch.testing.assert_close(
        model(values(points[order])[None], points[order], QUERIES, weights=weights[order]),
        model(values(points)[None], points, QUERIES, weights=weights),
        rtol=0,
        atol=1e-12,
    )


def test_a_cloud_for_every_item_is_a_loop():
    model = make()
    points = torch.rand(3, 200, 2, dtype=torch.float64)
    u = torch.stack([values(p) for p in points])
    expected = torch.cat([model(u[i : i + 1], points[i]) for i in range(3)])
    torch.testing.assert_close(model(u, points), expected, rtol=0, atol=1e-12)


def test_gradients_are_right():
    model = make(width=2, num_layers=1, modes=2)
    points = torch.rand(12, 2, dtype=torch.float64)
    u = torch.randn(1, 2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: model(v, points, QUERIES[:3]), (u,))
    assert all(g is not None for g in torch.autograd.grad(model(u, points).sum(), list(model.parameters())))


def test_float32_and_config():
    model = make().float()
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    points, weights = cloud(17)
    u = values(points)[None]
    out = twin(u.float(), points.float(), QUERIES.float(), weights=weights.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), model.double()(u, points, QUERIES, weights=weights), rtol=0, atol=1e-4)


def test_bad_arguments_are_refused():
    with pytest.raises(DomainError, match="finer than the radius"):
        make(radius=0.1)
    with pytest.raises(DomainError, match="finer than the radius"):
        make()(torch.ones(1, 2, 5).double(), torch.rand(5, 2).double(), grid=(3, 9))
    with pytest.raises(ArgumentError, match="expected"):
        make(width=0)
    with pytest.raises(ShapeError, match="expected"):
        make()(torch.ones(1, 3, 5).double(), torch.rand(5, 2).double())
