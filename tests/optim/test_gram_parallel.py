"""Gram steps on two and three gloo ranks are the steps of one process."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralop_kit.optim import BatchedVJP, DataParallel, GaussNewton, Ghost, Halving, Sharded, Sven
from tests.training.test_distributed import run_ranks

ENGINES = {"ghost": Ghost, "vjp": BatchedVJP}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(13, 2, generator=generator).double(), torch.rand(5, 2, generator=generator).double()


def residual(network: nn.Module, interior: Tensor, boundary: Tensor) -> dict[str, Tensor]:
    inner = network(interior).squeeze(1) - interior.prod(dim=1)
    return {"interior": inner, "boundary": network(boundary).squeeze(1)}


def steps(network: nn.Module, make: Any, interior: Tensor, boundary: Tensor, count: int = 3) -> list[float]:
    optimizer = make(network.parameters())
    return [float(optimizer.step(lambda: residual(network, interior, boundary))) for _ in range(count)]


def optimizers(engine: Any) -> dict[str, Any]:
    weights = {"interior": 1.0, "boundary": 3.0}
    return {
        "sven": lambda p: Sven(p, lr=1.0, rtol=1e-4, engine=engine, weights=weights),
        "gauss_newton": lambda p: GaussNewton(p, lr=1.0, engine=engine, weights=weights, max_norm=0.5),
    }


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def share(tensor: Tensor) -> Tensor:
    """Uneven parts: rank 0 has one point more than it should."""
    rank, size = dist.get_rank(), dist.get_world_size()
    cuts = [0] + [1 + (len(tensor) * (k + 1)) // size for k in range(size - 1)] + [len(tensor)]
    return tensor[cuts[rank] : cuts[rank + 1]]


def data_parallel(folder: Path, kind: str, engine: str) -> dict[str, Any]:
    network = model()
    interior, boundary = points()
    wrapped = DataParallel(ENGINES[engine]())
    losses = steps(network, optimizers(wrapped)[kind], share(interior), share(boundary))
    return {"weights": flat(network), "losses": losses}


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("kind", ["sven", "gauss_newton"])
def test_data_parallel_steps_are_those_of_one_process(tmp_path, kind, world_size):
    for engine in ENGINES:
        network = model()
        losses = steps(network, optimizers(ENGINES[engine]())[kind], *points())
        results = run_ranks(data_parallel, tmp_path, kind, engine, world_size=world_size)
        for result in results:
            # The loss before each step includes that after the one before.
            torch.testing.assert_close(torch.tensor(result["losses"]), torch.tensor(losses), rtol=1e-9, atol=0)
            torch.testing.assert_close(result["weights"], flat(network), rtol=0, atol=1e-8)
            assert torch.equal(result["weights"], results[0]["weights"])


def averaged(folder: Path) -> dict[str, Any]:
    """What a naive data-parallel step would do: every rank its own, then the mean."""
    network = model()
    interior, boundary = points()
    steps(network, optimizers(Ghost())["sven"], share(interior), share(boundary), count=1)
    mean = flat(network)
    dist.all_reduce(mean)
    return {"weights": mean / dist.get_world_size()}


def test_the_mean_of_the_ranks_own_steps_is_another_step(tmp_path):
    network = model()
    start = flat(network)
    steps(network, optimizers(Ghost())["sven"], *points(), count=1)
    (result, _) = run_ranks(averaged, tmp_path)
    assert (result["weights"] - flat(network)).norm() > 0.1 * (start - flat(network)).norm()


def one_rank_diverges(folder: Path) -> dict[str, Any]:
    network = model()
    before = flat(network)
    interior, boundary = points()
    scale = float("nan") if dist.get_rank() == 1 else 1.0
    optimizer = Sven(network.parameters(), engine=DataParallel())
    optimizer.step(lambda: {k: scale * v for k, v in residual(network, interior, boundary).items()})
    return {"status": optimizer.info.status, "stayed": torch.equal(before, flat(network))}


def test_a_residual_that_is_not_finite_on_one_rank_is_refused_on_all(tmp_path):
    for result in run_ranks(one_rank_diverges, tmp_path):
        assert result == {"status": "refused", "stayed": True}


class SumOverRanks(torch.autograd.Function):
    """Sum forward, identity backward: the derivative with respect to each rank's own part, counted once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        raise NotImplementedError


def hidden_units() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(24, 2, generator=generator).double(), torch.randn(24, generator=generator).double() / 5


# Gauss-Newton keeps its damping here: ranks have only the Gram matrix, and its rounding, divided by the dampings that
# an adaptive control comes down to, would be all that is compared. Sven divides by as little as rtol^2 = 1e-8.
SHARDED = {
    "sven": functools.partial(Sven, rtol=1e-4),
    "gn": functools.partial(GaussNewton, max_norm=0.5, control=Halving()),
    "gn on parabolas": functools.partial(GaussNewton, control=Halving(geodesic_acceleration=True)),
}
# Second differences lose two digits more.
CLOSE = {"sven": 1e-7, "gn": 1e-11, "gn on parabolas": 1e-10}


def sharded(folder: Path, kind: str) -> dict[str, Any]:
    rank, size = dist.get_rank(), dist.get_world_size()
    inner, outer = (nn.Parameter(t.chunk(size)[rank].clone()) for t in hidden_units())
    interior, _ = points()
    options = {"lr": 1.0, "engine": Sharded(BatchedVJP())}
    optimizer = SHARDED[kind]([inner, outer], **options)
    for _ in range(3):
        loss = optimizer.step(lambda: SumOverRanks.apply(torch.tanh(interior @ inner.T) @ outer) - interior.prod(dim=1))
    return {"weights": torch.cat([inner.detach(), outer.detach()[:, None]], dim=1), "loss": float(loss)}


@pytest.mark.parametrize("kind", list(SHARDED))
def test_sharded_parameters_move_as_they_would_together(tmp_path, kind):
    inner, outer = (nn.Parameter(t.clone()) for t in hidden_units())
    interior, _ = points()
    optimizer = SHARDED[kind]([inner, outer], engine=BatchedVJP())
    for _ in range(3):
        loss = optimizer.step(lambda: torch.tanh(interior @ inner.T) @ outer - interior.prod(dim=1))
    expected = torch.cat([inner.detach(), outer.detach()[:, None]], dim=1)
    results = run_ranks(sharded, tmp_path, kind)
    torch.testing.assert_close(torch.cat([r["weights"] for r in results]), expected, rtol=0, atol=CLOSE[kind])
    assert results[0]["loss"] == pytest.approx(float(loss), rel=max(CLOSE[kind], 1e-8))
