"""The examples that train operators take an optimizer by name, the same names everywhere."""

import ast
import importlib
import warnings
from pathlib import Path
from typing import get_args

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.datasets import DataWarning
from neuralop_kit.models import FNO
from neuralop_kit.training import Trainer
from tests.datasets import foreign

EXAMPLES = Path(__file__).parents[2] / "examples"
OPERATORS = (
    "darcy", "burgers", "navier_stokes", "shallow_water_sphere", "convert_unet", "train_on_your_file",
    "learned_dynamics_burgers", "conservative_burgers", "positivity_and_mass", "diffusion_sorption_experts",
    "navier_stokes_experts", "all_together",
)  # fmt: skip


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("_optimizers")


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_example_makes_its_optimizer_the_shared_way(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    options = {n.target.id: ast.unparse(n.annotation) for n in ast.walk(tree) if isinstance(n, ast.AnnAssign)}
    assert "make_optimizer" in calls
    assert options["optimizer"] == "OptimizerName"
    assert "torch.optim.Adam" not in ast.unparse(tree)


def test_names_are_those_of_the_command_line(shared, capsys):
    tyro = pytest.importorskip("tyro")
    assert set(get_args(shared.OptimizerName)) == set(shared.OPTIMIZERS)
    with pytest.raises(SystemExit):
        tyro.cli(shared.OptimizerName, args=["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in shared.OPTIMIZERS)


def pairs() -> tuple[FNO, torch.utils.data.TensorDataset]:
    torch.manual_seed(0)
    domain = Domain.periodic((1.0,))
    # Fields that the kept modes hold: Gauss-Newton steps assume that errors can become zero.
    u = torch.fft.irfft(torch.randn(16, 1, 4, dtype=torch.complex64), n=16, norm="forward")
    return FNO(1, 1, domain=domain, width=6, num_layers=2, modes=4), torch.utils.data.TensorDataset(u, u.roll(1, -1))


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "muon", "soap", "m3", "nvrm", "sven", "gauss_newton"])
def test_every_one_of_them_trains_an_operator_with_its_own_rate(shared, name):
    model, data = pairs()
    loss = shared.SampleErrors(Domain.periodic((1.0,)))
    optimizer = shared.make_optimizer(name, model, gives_residuals=True)
    trainer = Trainer(model, optimizer, loss=loss, progress=False)
    before = trainer.evaluate({"all": data})["all"]["loss"]
    trainer.fit(data, epochs=8, batch_size=8)
    assert trainer.evaluate({"all": data})["all"]["loss"] < before


@pytest.mark.parametrize("name", ["sven", "gauss_newton"])
def test_an_optimizer_that_does_not_fit_is_refused_with_those_that_do(shared, name):
    model, _ = pairs()
    with pytest.raises(SystemExit, match=f"got {name}, which needs one; choose among adamw, adam"):
        shared.make_optimizer(name, model)


def test_rates_are_scaled_by_the_pace_unless_they_are_given(shared):
    model, _ = pairs()
    rate = lambda *args, **options: shared.make_optimizer("adam", model, *args, **options).param_groups[0]["lr"]  # noqa: E731
    assert rate(pace=1.5) == pytest.approx(3e-3)
    assert rate(0.1, pace=1.5) == 0.1
    assert rate(0.0) == 0.0


def test_rows_are_samples_and_their_squares_the_loss(shared):
    loss = shared.SampleErrors()
    prediction, target = torch.randn(5, 1, 8), torch.randn(5, 1, 8)
    rows = loss.residual(prediction, target)
    assert rows.shape == (5,)
    plain = super(type(loss), loss).residual(prediction, target)
    torch.testing.assert_close(rows.square().sum(), plain.square().sum())


@pytest.mark.parametrize("name", ["adam", "nvrm", "muon"])
def test_a_loop_by_hand_steps_with_any_optimizer_from_gradients(shared, name):
    pytest.importorskip("tyro")
    example = importlib.import_module("positivity_and_mass")
    runs = [
        example.train(example.Settings(resolution=16, steps=steps, optimizer=name), is_constrained=True, penalty=0.0)
        for steps in (0, 2)
    ]
    before, after = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in runs)
    assert after.isfinite().all()
    assert not torch.equal(before, after)


def test_a_loop_by_hand_refuses_optimizers_of_residuals(shared):
    pytest.importorskip("tyro")
    example = importlib.import_module("positivity_and_mass")
    with pytest.raises(SystemExit, match="no vector of residuals"):
        example.train(example.Settings(resolution=16, steps=1, optimizer="sven"), is_constrained=True, penalty=0.0)


def test_what_is_wrong_with_your_file_is_said_once(shared, tmp_path, capsys):
    pytest.importorskip("tyro")
    example = importlib.import_module("train_on_your_file")
    foreign.burgers(tmp_path / "burgers.hdf5")
    settings = {"epochs": 1, "pairs": 4, "width": 4, "modes": 2, "out": tmp_path / "out"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        example.main(example.Settings(file=tmp_path / "burgers.hdf5", **settings))
    assert capsys.readouterr().out.count("t-coordinate has") == 1
    assert (tmp_path / "out" / "predictions.png").exists()


def test_noise_is_gone_after_the_last_step_of_a_loop_by_hand(shared):
    model, _ = pairs()
    clean = [p.detach().clone() for p in model.parameters()]
    optimizer = shared.make_optimizer("nvrm", model, 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    noisy = [p.detach().clone() for p in model.parameters()]
    shared.finish(optimizer)
    assert any(not torch.equal(a, b) for a, b in zip(clean, noisy, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(clean, model.parameters(), strict=True))
