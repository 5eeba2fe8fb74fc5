"""Parameters sharded by FSDP2 over two gloo ranks: the step of one process, or an error that names the optimizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from neuralop_kit import optim
from neuralop_kit.optim import (
    BFGS,
    HIG,
    M3,
    NVRM,
    SOAP,
    SPRING,
    SPSA,
    SSBFGS,
    DeepMomentum,
    DeltaGD,
    DeltaMomentum,
    EvolutionStrategy,
    ForwardGradient,
    GaussNewton,
    GramOptimizer,
    KitOptimizer,
    Lion,
    MultiFrequency,
    Muon,
    NodePerturbation,
    PowerProp,
    PowerPropSGD,
    QuasiNewton,
    SSBroyden,
    Sven,
    ZerothOrder,
)
from neuralop_kit.solvers.errors import ArgumentError
from tests.training.test_distributed import run_ranks


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def two_groups(model: nn.Module) -> torch.optim.Optimizer:
    first, *rest = model.parameters()
    return torch.optim.Adam([{"params": [first]}, {"params": rest}], lr=1e-2)


SUPPORTED: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "Lion": lambda m: Lion(m.parameters(), lr=1e-2, weight_decay=0.1),
    "cautious Lion": lambda m: Lion(m.parameters(), lr=1e-2, cautious=True, foreach=False),
    "PowerPropSGD": lambda m: PowerPropSGD(m.parameters(), lr=1e-2, weight_decay=0.1),
    "DeltaMomentum": lambda m: DeltaMomentum(m.parameters(), lr=1e-2, weight_decay=0.1),
    "DeltaGD": lambda m: DeltaGD(m, lr=0.1, weight_decay=0.1),
    "explicit DeltaGD": lambda m: DeltaGD(m, lr=0.1, decay_coef=0.1),
    "NVRM": lambda m: NVRM(torch.optim.Adam(m.parameters(), lr=1e-2), b=0.05, generator=generator()),
    "MultiFrequency": lambda m: MultiFrequency(two_groups(m), (1, 2)),
    "PowerProp": lambda m: PowerProp(torch.optim.Adam(m.parameters(), lr=1e-2), alpha=1.5),
    "SPSA": lambda m: SPSA(m.parameters(), lr=1e-2, weight_decay=0.1, generator=generator()),
    "EvolutionStrategy": lambda m: EvolutionStrategy(m.parameters(), lr=1e-2, num_samples=4, generator=generator()),
}
WHOLE = {
    "Muon": Muon, "SOAP": SOAP, "M3": M3, "DeepMomentum": DeepMomentum, "ForwardGradient": ForwardGradient,
    "NodePerturbation": NodePerturbation, "SSBroyden": SSBroyden, "SSBFGS": SSBFGS, "BFGS": BFGS, "Sven": Sven,
    "GaussNewton": GaussNewton, "SPRING": SPRING, "HIG": HIG,
}  # fmt: skip


def test_every_optimizer_is_in_the_table():
    kinds = [kind for name in optim.__all__ if issubclass(kind := getattr(optim, name), torch.optim.Optimizer)]
    bases = {KitOptimizer, GramOptimizer, QuasiNewton, ZerothOrder}
    assert {kind.__name__ for kind in kinds if kind not in bases} == {*SUPPORTED, *WHOLE} - {
        "cautious Lion", "explicit DeltaGD",
    }  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def batch() -> tuple[Tensor, Tensor]:
    draws = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return draws[:, :3], draws[:, 3]


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, *, inner: nn.Module | None = None) -> Tensor:
    """Weights after five steps, with a checkpoint after the second."""
    optimizer = SUPPORTED[name](inner or model)
    for i in range(5):
        if i == 2:
            getattr(optimizer, "eval", lambda: None)()
            saved = optimizer.state_dict()
            getattr(optimizer, "close", lambda: None)()
            optimizer = SUPPORTED[name](inner or model)
            optimizer.load_state_dict(saved)
            getattr(optimizer, "train", lambda: None)()
        if getattr(optimizer, "step_kind", "gradient") == "value":
            optimizer.step(lambda: joined((model(x).squeeze(1) - y).square().mean()))
        else:
            optimizer.zero_grad()
            (model(x).squeeze(1) - y).square().mean().backward()
            optimizer.step()
    getattr(optimizer, "eval", lambda: None)()
    return torch.cat([whole(p).flatten() for p in model.parameters()])


def whole(parameter: Tensor) -> Tensor:
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach()


def joined(loss: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(loss)
        loss = loss / dist.get_world_size()
    return loss


def sharded_network() -> nn.Module:
    model, mesh = network(), init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def on_ranks(folder: Path) -> dict[str, Any]:
    """Each rank with its half of the batch."""
    x, y = (part.chunk(dist.get_world_size())[dist.get_rank()] for part in batch())
    ends = {name: run(name, sharded_network(), x, y) for name in SUPPORTED}
    model = network()
    ends["DeltaGD under DDP"] = run("DeltaGD", DistributedDataParallel(model), x, y, inner=model)
    refusals = {}
    for name, make in WHOLE.items():
        try:
            make(sharded_network().parameters())
        except ArgumentError as error:
            refusals[name] = str(error)
    columns = nn.Linear(4, 2).double()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    columns.weight = nn.Parameter(distribute_tensor(columns.weight.detach(), mesh, [Shard(1)]))
    optimizer = DeltaGD(columns)
    optimizer._inputs[columns.weight] = _moment()
    columns.weight.grad = columns.weight.detach().clone()
    try:
        optimizer.step()
    except ArgumentError as error:
        refusals["DeltaGD by columns"] = str(error)
    return {"ends": ends, "refusals": refusals}


def _moment() -> Any:
    from neuralop_kit.optim.delta_gd import _SecondMoment

    moment = _SecondMoment()
    moment.add(torch.ones(3, 4), torch.float64)
    return moment


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, Any]]:
    results = run_ranks(on_ranks, tmp_path_factory.mktemp("sharded"))
    assert all("error" not in result for result in results), results
    return results


@pytest.mark.parametrize("name", [*SUPPORTED, "DeltaGD under DDP"])
def test_sharded_steps_are_those_of_one_process(results, name):
    expected = run(name.removesuffix(" under DDP"), network(), *batch())
    for result in results:
        torch.testing.assert_close(result["ends"][name], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_who_needs_whole_tensors_says_so(results, name):
    for result in results:
        message = result["refusals"][name]
        assert name in message
        assert WHOLE[name].needs_whole in message
        assert "DTensor with placements (Shard(dim=0),)" in message
        assert WHOLE[name].instead in message


def test_rows_of_linear_layers_must_be_whole_for_delta_gd(results):
    assert "whole rows" in results[0]["refusals"]["DeltaGD by columns"]
