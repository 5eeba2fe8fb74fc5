"""1, 2 and 4 gloo processes give one loss and one gradient; conserve one mass; fail together."""

import os
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from neuralop_kit import Domain
from neuralop_kit.constraints import Coupled, FluxForm, MixtureOfExperts, Overlap, Partition, Raise, Separate
from neuralop_kit.constraints.expert_parallel import ExpertParallel, average_gradients
from neuralop_kit.constraints.ranks import OneRank
from neuralop_kit.constraints.shared_faces import with_next_face
from neuralop_kit.solvers.errors import ArgumentError
from tests.constraints.problems import DOMAIN, arguments, constraint, functions
from tests.training.test_distributed import TIMEOUT, run_ranks

PARTITION = Partition(DOMAIN, (2, (0.7,)))


class Model(nn.Module):
    """Basis functions with parameters, experts, and a loss that uses basis, field and residual."""

    def __init__(self, ranks=None, interface=None) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(6, dtype=torch.float64) + 0.05)
        self.experts = MixtureOfExperts(
            constraint(ridge=1e-4), PARTITION, interface=interface or Separate(), ranks=ranks or OneRank()
        )

    def forward(self, items: slice) -> Tensor:
        basis = torch.einsum("nk,bktx->bntx", self.mix, functions()[items])
        given = {kind: {k: v[items] for k, v in values.items()} for kind, values in arguments().items()}
        solution = self.experts.solve(basis, **given)
        solution.info.raise_if_failed()
        u = solution.field()
        return (solution.residual().square() + u**2).flatten(1).mean(dim=1).mean() + 0.1 * basis.square().mean()


def step(model: nn.Module, items: slice = slice(None)) -> dict[str, Any]:
    loss = model(items)
    loss.backward()
    (parameter,) = model.parameters()
    return {"loss": loss.detach(), "gradient": parameter.grad.clone()}


def every_recipe(folder=None) -> dict[str, Any]:
    """The same step, alone and in all the ways that several processes may do it."""
    if not dist.is_initialized():
        return step(Model())
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    results = {}
    for name, shares in (("even", None), ("uneven", (3, 1) if size == 2 else (1, 1, 1, 1))):
        model = Model(ExpertParallel(mesh, shares=shares))
        results[name] = step(model)
        if name == "even":
            summed = results[name]["gradient"].clone()
            dist.all_reduce(summed)
            results["summed"] = {"gradient": summed}
        average_gradients(model.parameters())
        results[name]["gradient"] = model.mix.grad.clone()
    results["overlap"] = step(Model(ExpertParallel(mesh), Overlap((0.2, 0.2))))
    results["ddp"] = step(DistributedDataParallel(Model(ExpertParallel(mesh))))
    if size == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("batch", "experts"))
        item = square.get_local_rank("batch")
        model = DistributedDataParallel(Model(ExpertParallel(square, dimension="experts")))
        results["batch and experts"] = step(model, slice(item, item + 1))
    else:
        item = dist.get_rank()
        results["batch"] = step(DistributedDataParallel(Model()), slice(item, item + 1))
    for name in ("batch", "batch and experts"):
        if name in results:
            dist.all_reduce(results[name]["loss"])
            results[name]["loss"] /= size
    try:
        Model(ExpertParallel(mesh), Coupled(1.0))(slice(None))
    except ArgumentError as error:
        results["coupled"] = str(error)
    return results


def one_step_of_flow(folder=None, steps: int = 50) -> dict[str, Any]:
    """A conservation law with a flux of the state, cut over processes; 64 cells on a circle."""
    torch.manual_seed(0)
    size, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    number = 64 // size
    u = (1 + torch.rand(1, 1, 64, dtype=torch.float64))[..., rank * number : (rank + 1) * number]
    speed = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    whole = size == 1
    layer = FluxForm(Domain.periodic((1.0,), nodes="cell") if whole else Domain.box((1 / size,), nodes="cell"))
    mesh = None if whole else init_device_mesh("cpu", (size,))
    before = u.sum()
    for _ in range(steps):
        flux = speed * _left_states(u, mesh) ** 2 / 2
        if mesh is not None:
            flux = with_next_face(flux, mesh, dim=2, is_periodic=True)
        u, info = layer(u, [flux], dt=0.004)
        assert info.converged.all()
    totals = torch.stack([before, u.sum()]).detach()
    (u**2).sum().backward()
    gradient = speed.grad.clone()
    if not whole:
        dist.all_reduce(totals)
        dist.all_reduce(gradient)
    return {"totals": totals, "gradient": gradient, "u": u.detach()}


def _left_states(u: Tensor, mesh) -> Tensor:
    """Upwind: the state to the left of every face; across processes, it travels as a face does."""
    if mesh is None:
        return u.roll(1, 2)
    # The state of the process before, as the next face of the mirrored problem: gather and pick.
    from neuralop_kit.constraints.expert_parallel import gather_slices

    group, size = mesh.get_group(), mesh.size()
    last = gather_slices(u[..., -1:].movedim(2, 1), (1,) * size, dist.get_rank(), group)
    return torch.cat([last[:, (dist.get_rank() - 1) % size].unsqueeze(1).movedim(1, 2), u[..., :-1]], dim=2)


def one_is_killed(folder) -> dict[str, Any]:
    model = Model(ExpertParallel(init_device_mesh("cpu", (2,))))
    for number in range(50):
        if number == 2 and dist.get_rank() == 1:
            os._exit(1)
        step(model)
    return {}


def one_raises(folder) -> dict[str, Any]:
    """NaN at points of the last expert, which only the last process solves."""
    mixture = MixtureOfExperts(
        constraint(policy=Raise()), PARTITION, ranks=ExpertParallel(init_device_mesh("cpu", (2,)))
    )
    nu = torch.full((2, 1, 13, 17), 0.1, dtype=torch.float64)
    nu[0, 0, -1, -1] = torch.nan
    mixture(functions(), coefficients={"nu": nu}, targets=arguments()["targets"])
    return {}


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture(scope="module")
def alone():
    return every_recipe()


class TestRankInvariance:
    @pytest.mark.parametrize("size", [2, 4])
    def test_loss_and_gradient(self, tmp_path, alone, size):
        results = run_ranks(every_recipe, tmp_path, world_size=size)
        overlap = step(Model(interface=Overlap((0.2, 0.2))))
        for result in results:
            assert result is not None
            assert "error" not in result, result
            assert "independent" in result.pop("coupled")
            summed = result.pop("summed")["gradient"]
            for name, got in result.items():
                expected = overlap if name == "overlap" else alone
                assert abs(got["loss"] / expected["loss"] - 1) < 1e-12, name
                if name != "overlap":
                    assert relative(got["gradient"], expected["gradient"]) < 1e-9, name
            # The classical error: with a sum in place of the mean the gradient is the number of processes too large.
            scale = (summed * alone["gradient"]).sum() / alone["gradient"].square().sum()
            assert abs(scale / size - 1) < 1e-9
        assert len({tuple(r["even"]["gradient"].flatten().tolist()) for r in results}) == 1

    def test_conservation_over_processes(self, tmp_path):
        alone = one_step_of_flow()
        for size in (2, 4):
            results = run_ranks(one_step_of_flow, tmp_path, world_size=size)
            for result in results:
                assert "error" not in result, result
                before, after = result["totals"]
                assert abs(after / before - 1) < 1e-12
                assert relative(result["gradient"], alone["gradient"]) < 1e-9
            joined = torch.cat([r["u"] for r in results], dim=2)
            assert (joined - alone["u"]).abs().max() < 1e-12


class TestFailure:
    def test_a_killed_process_is_an_error_on_the_other(self, tmp_path):
        began = time.monotonic()
        first, second = run_ranks(one_is_killed, tmp_path)
        assert time.monotonic() - began < TIMEOUT + 15
        assert second is None
        assert "error" in first

    def test_a_failed_solve_is_an_error_on_all(self, tmp_path):
        began = time.monotonic()
        first, second = run_ranks(one_raises, tmp_path)
        assert time.monotonic() - began < TIMEOUT
        assert "ConvergenceError" in first["error"]
        assert "other" in first["error"]
        assert "INVALID_INPUT" in second["error"]

    def test_refusals(self, tmp_path):
        results = run_ranks(too_few_experts, tmp_path)
        assert all("at least one expert" in result["refused"] for result in results)


def too_few_experts(folder) -> dict[str, Any]:
    ranks = ExpertParallel(init_device_mesh("cpu", (2,)))
    try:
        ranks.own(1, torch.device("cpu"))
    except ArgumentError as error:
        return {"refused": str(error)}
    return {}
