"""Residuals of a differential equation: what the Gram family is for, and the example that shows it."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import GaussNewton, Sven

EXAMPLES = Path(__file__).parents[2] / "examples"


def poisson(seed: int = 0):
    """-Laplace u = 2 pi^2 sin(pi x) sin(pi y), u = 0 on the boundary: network, residual and relative L2 error."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    x = torch.rand(900, 2, dtype=torch.float64, requires_grad=True)
    t, zero, one = torch.rand(30, dtype=torch.float64), torch.zeros(30).double(), torch.ones(30).double()
    edge = torch.cat([torch.stack(side, dim=1) for side in ((zero, t), (one, t), (t, zero), (t, one))])
    test = torch.rand(2000, 2, dtype=torch.float64)

    def exact(points: Tensor) -> Tensor:
        return torch.sin(math.pi * points).prod(dim=1)

    def residual() -> dict[str, Tensor]:
        u = model(x)
        (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        seconds = [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2)]
        return {"pde": sum(seconds) + 2 * math.pi**2 * exact(x.detach()), "boundary": model(edge).squeeze(1)}

    def error() -> float:
        with torch.no_grad():
            return ((model(test).squeeze(1) - exact(test)).norm() / exact(test).norm()).item()

    return model, residual, error


@pytest.mark.parametrize("make", [GaussNewton, lambda p: Sven(p, rtol=1e-8)], ids=["gauss_newton", "sven"])
def test_poisson_is_solved_to_a_millionth(make):
    # The literature needs some hundred steps for an error of 1e-7; Adam is at 1e-1 after a thousand.
    model, residual, error = poisson(seed=3)
    optimizer = make(model.parameters())
    for _ in range(80):
        optimizer.step(residual)
        if error() < 1e-6:
            break
    assert error() < 1e-6
    assert optimizer.info.num_rows == 1020
    assert optimizer.info.num_parameters == 257


def test_adam_does_not_get_there():
    # Negative control: the same number of steps, at the best of several rates.
    model, residual, error = poisson(seed=3)
    optimizer = torch.optim.Adam(model.parameters(), 3e-2)
    for _ in range(100):
        optimizer.zero_grad()
        sum(block.square().mean() for block in residual().values()).backward()
        optimizer.step()
    assert error() > 1e-2


def test_heat_equation_is_solved():
    # u_t = u_xx / 4 on [0, 1], u = sin(pi x) at first, 0 at the ends; u = exp(-pi^2 t / 4) sin(pi x).
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1)).double()
    x = torch.rand(300, 2, dtype=torch.float64, requires_grad=True)
    line, zero, one = torch.rand(40, dtype=torch.float64), torch.zeros(40).double(), torch.ones(40).double()
    start = torch.stack([line, zero], dim=1)
    ends = torch.cat([torch.stack([zero, line], dim=1), torch.stack([one, line], dim=1)])

    def residual() -> dict[str, Tensor]:
        u = model(x)
        (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient[:, 0].sum(), x, create_graph=True)
        return {
            "pde": gradient[:, 1] - second[:, 0] / 4,
            "initial": model(start).squeeze(1) - torch.sin(math.pi * line),
            "boundary": model(ends).squeeze(1),
        }

    optimizer = GaussNewton(model.parameters(), weights={"pde": 1.0, "initial": 2.0, "boundary": 2.0})
    for _ in range(100):
        optimizer.step(residual)
    test = torch.rand(500, 2, dtype=torch.float64)
    exact = torch.exp(-(math.pi**2) * test[:, 1] / 4) * torch.sin(math.pi * test[:, 0])
    error = (model(test).squeeze(1) - exact).norm() / exact.norm()
    # On lines, without geodesic acceleration, it is 3e-4.
    assert error < 1e-4


def test_example_writes_its_results(tmp_path, monkeypatch):
    pytest.importorskip("tyro")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("pinn_poisson", EXAMPLES / "pinn_poisson.py")
    example = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    monkeypatch.setitem(sys.modules, "pinn_poisson", example)
    spec.loader.exec_module(example)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for problem, name in (("poisson", "gauss_newton"), ("poisson", "adam"), ("poisson5d", "ssbroyden")):
        path = tmp_path / f"{name}.json"
        settings = example.Settings(problem=problem, optimizer=name, seconds=0.3, json=path, out=tmp_path / "out")
        example.main(settings)
        result = json.loads(path.read_text())
        assert 0 < result["relative_l2"] < 10
        assert result["rows"][0]["steps"] > 0
        assert result["published"]["Adam"] > result["published"]["ENGD"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"convergence.png", "results.json", "results.md"}
