"""The loop: it learns, with every kind of optimizer; it refuses bad data first; it never spoils what was good."""

import json
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuralop_kit import Domain
from neuralop_kit.layers import SpectralConv
from neuralop_kit.optim import NVRM, Sven
from neuralop_kit.solvers.errors import ArgumentError, CheckpointError, MissingExtraError, NonFiniteError, ShapeError
from neuralop_kit.training import (
    CheckpointFolder,
    Checkpoints,
    EarlyStopping,
    PerStep,
    RelativeH1,
    RelativeL2,
    TensorBoardLog,
    Trainer,
    relative_l2,
    vrmse,
)
from tests.training.runs import Shifted, assert_same

DOMAIN = Domain.periodic((2 * math.pi,))


def derivatives(num_samples: int, num_points: int, seed: int = 0) -> TensorDataset:
    """Random band-limited periodic functions and their derivatives: a linear operator that one SpectralConv can be."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.arange(1, 6)
    x = DOMAIN.coordinates((num_points,))[0]
    a, b = torch.randn(2, num_samples, 5, 1, generator=generator)
    u = (a * torch.sin(k[:, None] * x) + b * torch.cos(k[:, None] * x)).sum(dim=1, keepdim=True)
    v = (k[:, None] * (a * torch.cos(k[:, None] * x) - b * torch.sin(k[:, None] * x))).sum(dim=1, keepdim=True)
    return TensorDataset(u, v)


def spectral_model(width: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return SpectralConv(1, width, (12,))


def line_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")


class GaussNewton(torch.optim.Optimizer):
    """The textbook method, to stand for all that take residual vectors."""

    step_kind = "residual"

    def __init__(self, params) -> None:
        super().__init__(params, {"lr": 1.0})

    def step(self, residual_fn):
        parameters = self.param_groups[0]["params"]
        residual = residual_fn()
        eye = torch.eye(len(residual), dtype=residual.dtype)
        rows = torch.autograd.grad(residual, parameters, eye, is_grads_batched=True)
        jacobian = torch.cat([row.flatten(start_dim=1) for row in rows], dim=1)
        delta = torch.linalg.lstsq(jacobian.double(), residual.detach().double()[:, None], driver="gelsd").solution[
            :, 0
        ]
        with torch.no_grad():
            torch._foreach_sub_(parameters, [d.reshape(p.shape).to(p.dtype) for p, d in zip(
                parameters, delta.split([p.numel() for p in parameters]), strict=True)])  # fmt: skip
        return 0.5 * residual.detach().square().sum()


class RandomSearch(torch.optim.Optimizer):
    """Keeps a random step when the loss falls: needs values only, and checks that nothing else is computed."""

    step_kind = "value"

    def __init__(self, params) -> None:
        super().__init__(params, {"lr": 0.05})

    @torch.no_grad()
    def step(self, loss_fn):
        parameters = self.param_groups[0]["params"]
        before = loss_fn()
        assert not before.requires_grad
        steps = [0.05 * torch.randn_like(p) for p in parameters]
        torch._foreach_add_(parameters, steps)
        if not loss_fn() < before:
            torch._foreach_sub_(parameters, steps)
        return before


class TestLearning:
    def test_spectral_convolution_learns_a_derivative_at_two_resolutions_and_knows_a_third(self):
        model = spectral_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
        trainer = Trainer(model, optimizer, loss=RelativeL2(DOMAIN), scheduler=schedule)
        valid = {"48": derivatives(20, 48, seed=9), "97": derivatives(20, 97, seed=9)}
        history = trainer.fit([derivatives(64, 32), derivatives(40, 25, seed=1)], epochs=30, batch_size=8, valid=valid)
        assert len(history) == 30
        assert history[0]["48/loss"] > 0.3
        assert history[-1]["48/loss"] < 0.01
        # The functions are band-limited, so only rounding in fp32 can tell the two resolutions apart.
        assert history[-1]["97/loss"] == pytest.approx(history[-1]["48/loss"], abs=1e-6)

    @pytest.mark.parametrize(
        ("make", "epochs", "bound"),
        [
            (lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=15, line_search_fn="strong_wolfe"), 5, 1e-3),
            (GaussNewton, 1, 1e-5),
            (lambda p: Sven(p, lr=1.0), 3, 1e-4),
            (RandomSearch, 60, 0.9),
        ],
        ids=["closure", "residual", "our residual", "value"],
    )
    def test_other_kinds_of_step(self, make, epochs, bound):
        data, model = derivatives(8, 16), spectral_model()
        trainer = Trainer(model, make(model.parameters()), loss=RelativeL2(DOMAIN), metrics={"vrmse": vrmse})
        history = trainer.fit(data, epochs=epochs, batch_size=8, valid={"16": data})
        assert history[0]["train_loss"] > 0.5
        assert history[-1]["16/loss"] < bound * history[0]["train_loss"]
        assert history[-1]["16/vrmse"] > 0

    def test_reported_loss_is_the_one_before_the_step_for_every_kind(self):
        data = derivatives(6, 16)
        for make in (lambda p: torch.optim.SGD(p, 0.1), torch.optim.LBFGS, GaussNewton, RandomSearch):
            model = spectral_model()
            expected = relative_l2(model(data.tensors[0]), data.tensors[1]).item()
            history = Trainer(model, make(model.parameters()), loss=RelativeL2()).fit(data, epochs=1, batch_size=6)
            assert history[0]["train_loss"] == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("kind", ["closure", "residual", "value"])
    def test_every_call_within_a_step_sees_the_same_random_numbers(self, kind):
        class Calling(torch.optim.SGD):
            step_kind = kind

            def step(self, function):
                values, own = zip(*[(function(), torch.rand(1)) for _ in range(3)], strict=True)
                assert all(torch.equal(value, values[0]) for value in values)
                assert len(set(own)) == 3  # while the optimizer's own draws go on
                return values[0].sum()

        model = nn.Sequential(spectral_model(8), nn.Dropout(0.5), nn.Conv1d(8, 1, 1))
        trainer = Trainer(model, Calling(model.parameters(), lr=0.0), loss=RelativeL2(DOMAIN))
        history = trainer.fit(derivatives(8, 16), epochs=3, batch_size=8)
        assert len({record["train_loss"] for record in history}) == 3  # and the next step sees others

    def test_autocast(self):
        model = nn.Sequential(spectral_model(4), nn.Conv1d(4, 1, 1))
        seen = []
        model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        trainer = Trainer(
            model, torch.optim.Adam(model.parameters(), lr=0.05), loss=RelativeH1(DOMAIN), autocast=torch.bfloat16
        )
        history = trainer.fit(derivatives(32, 32), epochs=10, batch_size=8)
        assert set(seen[1:]) == {torch.bfloat16}
        assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]
        assert {p.dtype for p in model.parameters()} == {torch.float32}

    def test_compiled_model_ends_where_the_plain_one_does(self):
        results = []
        for wrap in (lambda m: m, lambda m: torch.compile(m, backend="aot_eager")):
            model = line_model()
            trainer = Trainer(wrap(model), torch.optim.SGD(model.parameters(), lr=0.05))
            trainer.fit(derivatives(12, 16), epochs=2, batch_size=4)
            assert trainer.model is model
            results.append(model.weight.detach().clone())
        torch.testing.assert_close(*results)

    def test_batches_follow_the_model_in_dtype(self):
        model = line_model().double()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.01))
        assert trainer.fit(derivatives(4, 16), epochs=1, batch_size=2)[0]["train_loss"] > 0

    def test_clipping_bounds_the_step(self):
        model = line_model()
        before = [p.detach().clone() for p in model.parameters()]
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=1.0), clip_gradient=1e-3)
        trainer.fit(derivatives(4, 16), epochs=1, batch_size=4)
        moved = math.sqrt(sum((p - q).square().sum().item() for p, q in zip(model.parameters(), before, strict=True)))
        assert moved == pytest.approx(1e-3, rel=1e-3)

    def test_overridden_loss(self):
        class Penalised(Trainer):
            def training_loss(self, source: Tensor, target: Tensor) -> Tensor:
                return self.network(source).square().mean()

        model = line_model()
        trainer = Penalised(model, torch.optim.Adam(model.parameters(), lr=0.05))
        trainer.fit(derivatives(16, 16), epochs=40, batch_size=16)
        assert model.weight.abs().max() < 0.05


class TestSchedules:
    def test_per_epoch_and_per_step(self):
        rates = {}
        for name, wrap in (("epoch", lambda s: s), ("step", PerStep)):
            model = line_model()
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
            trainer = Trainer(model, optimizer, scheduler=wrap(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)))
            history = trainer.fit(derivatives(12, 16), epochs=3, batch_size=4)
            rates[name] = [record["learning_rate"] for record in history]
        assert rates["epoch"] == pytest.approx([1e-2, 5e-3, 2.5e-3])
        assert rates["step"] == pytest.approx([1e-2 * 0.5 ** (3 * n) for n in (1, 2, 3)])

    def test_plateau_sees_the_monitored_loss(self):
        model = line_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, min_lr=0.0)
        optimizer.param_groups[0]["lr"] = 1e-6  # too small to improve anything
        history = Trainer(model, optimizer, scheduler=schedule).fit(derivatives(4, 16), epochs=3, batch_size=4)
        assert history[-1]["learning_rate"] == pytest.approx(5e-7)

    def test_early_stopping_and_best_weights(self, tmp_path):
        model = line_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        # Grows by half every epoch: improves at first, then overshoots for ever.
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.5)
        data = derivatives(8, 16)
        trainer = Trainer(
            model, optimizer, scheduler=schedule, folder=tmp_path, early_stopping=EarlyStopping(patience=3)
        )
        history = trainer.fit(data, epochs=60, batch_size=8, valid={"v": data})
        losses = [record["v/loss"] for record in history]
        assert 4 < len(losses) < 60
        assert losses.index(min(losses)) == len(losses) - 4
        assert trainer.evaluate({"v": data})["v"]["loss"] == pytest.approx(losses[-1], rel=1e-6)
        trainer.load_best()
        assert trainer.evaluate({"v": data})["v"]["loss"] == pytest.approx(min(losses), rel=1e-6)

    def test_improvement_smaller_than_asked_for_does_not_count(self):
        model = line_model()
        trainer = Trainer(
            model, torch.optim.SGD(model.parameters(), lr=1e-6), early_stopping=EarlyStopping(2, min_improvement=0.5)
        )
        assert len(trainer.fit(derivatives(4, 16), epochs=20, batch_size=4)) == 3


class TestEvaluation:
    def test_means_over_samples_whatever_the_batch_size(self):
        model = line_model().double()
        u = torch.randn(7, 1, 16, dtype=torch.float64)
        data = TensorDataset(u, torch.randn_like(u))
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), metrics={"vrmse": vrmse})
        exact = relative_l2(model(u), data.tensors[1]).item()
        for batch_size in (1, 3, 7, 50):
            values = trainer.evaluate({"a": data, "b": data}, batch_size=batch_size)
            assert values["a"] == values["b"]
            assert values["a"]["loss"] == pytest.approx(exact, rel=1e-13)
        assert set(values["a"]) == {"loss", "vrmse"}

    def test_evaluation_mode_and_back(self):
        model = nn.Sequential(line_model(), nn.Dropout(0.5))
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1))
        model.train()
        data = derivatives(4, 16)
        assert trainer.evaluate({"a": data}) == trainer.evaluate({"a": data})
        assert model.training

    def test_noisy_weights_are_neither_evaluated_nor_kept(self, tmp_path):
        model = line_model()
        optimizer = NVRM(torch.optim.SGD(model.parameters(), lr=0.1), b=0.5)
        data = derivatives(8, 16)
        trainer = Trainer(model, optimizer, folder=tmp_path)
        history = trainer.fit(data, epochs=2, batch_size=8, valid={"v": data})
        assert trainer.evaluate({"v": data})["v"]["loss"] == pytest.approx(history[-1]["v/loss"], rel=1e-6)
        assert_same(dict(model.state_dict()), CheckpointFolder(tmp_path).load().model)


class TestRecords:
    def test_log_and_callbacks(self, tmp_path):
        seen = []
        model = line_model()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), folder=tmp_path, callbacks=[seen.append])
        history = trainer.fit(derivatives(8, 16), epochs=3, batch_size=4)
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert lines == seen
        assert [{k: v for k, v in line.items() if k != "seconds"} for line in lines] == history
        assert [record["step"] for record in history] == [2, 4, 6]

    def test_log_forgets_what_a_resumed_run_writes_again(self, tmp_path):
        model = line_model()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), folder=tmp_path)
        trainer.fit(derivatives(8, 16), epochs=2, batch_size=4)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 3, "step": 6}\n{"epoch": 4, "st')  # then came the kill
        trainer.fit(derivatives(8, 16), epochs=3, batch_size=4, resume=True)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
        assert "seconds" in lines[2]

    def test_tensorboard(self, monkeypatch):
        # The real package may be absent; a stand-in with its interface takes the calls.
        seen = []

        class SummaryWriter:
            def __init__(self, folder):
                seen.append(folder)

            def add_scalar(self, name, value, step):
                seen.append((name, value, step))

            def flush(self):
                seen.append("flush")

        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
        TensorBoardLog("runs/a")({"step": 2, "epoch": 1, "train_loss": 0.5, "note": "text"})
        assert seen == ["runs/a", ("train_loss", 0.5, 2), "flush"]

    def test_tensorboard_that_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtraError, match="pip install tensorboard"):
            TensorBoardLog("runs/a")

    def test_no_folder_writes_nothing_and_prints_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        model = line_model()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1))
        trainer.fit(derivatives(4, 16), epochs=1, batch_size=4)
        assert list(tmp_path.iterdir()) == []
        assert capsys.readouterr() == ("", "")
        with pytest.raises(CheckpointError, match="folder"):
            trainer.load_best()

    def test_a_bar_when_asked_for(self, capsys):
        model = line_model()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), progress=True)
        trainer.fit(derivatives(4, 16), epochs=2, batch_size=4)
        assert "2/2" in capsys.readouterr().err


def train(data, *, valid=None, model: nn.Module | None = None, lr: float = 0.1, folder: Path | None = None, **options):
    model = model or line_model()
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=lr), folder=folder)
    return trainer.fit(data, valid=valid, **{"epochs": 1, "batch_size": 4, **options})


class TestRefusals:
    """Before the first step, and before anything is written."""

    @pytest.mark.parametrize("side", [0, 1])
    def test_nan_in_memory(self, tmp_path, side):
        data = derivatives(40, 16)
        data.tensors[side][33, 0, 2] = torch.nan
        with pytest.raises(NonFiniteError, match=r"samples \[33\] of dataset 'valid x'"):
            train(derivatives(8, 16), valid={"x": data}, folder=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_wrong_input_channels(self):
        with pytest.raises(ShapeError, match=r"\(1, 2, 16\) from dataset 'train 1'"):
            train([derivatives(4, 16), TensorDataset(torch.zeros(4, 2, 16), torch.zeros(4, 1, 16))])

    def test_wrong_target_shape_would_broadcast(self):
        data = TensorDataset(torch.ones(4, 1, 16), torch.ones(4, 2, 16))
        with pytest.raises(ShapeError, match="check channels and resolution"):
            train(data)

    def test_validation_data_without_a_name(self):
        with pytest.raises(ArgumentError, match=r'write \{"valid": dataset\}'):
            train(derivatives(4, 16), valid=derivatives(4, 16))

    @pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
    def test_counts(self, options):
        with pytest.raises(ArgumentError, match=">= 1"):
            train(derivatives(4, 16), **options)

    def test_settings_that_a_kind_of_step_cannot_honour(self):
        model = line_model()
        with pytest.raises(ArgumentError, match="clip_gradient"):
            Trainer(model, GaussNewton(model.parameters()), clip_gradient=1.0)
        with pytest.raises(ArgumentError, match="fp16"):
            Trainer(model, torch.optim.LBFGS(model.parameters()), autocast=torch.float16)
        with pytest.raises(ArgumentError, match="clip_gradient > 0"):
            Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), clip_gradient=0.0)

    def test_residual_optimizer_with_a_bare_function_as_loss(self):
        model = line_model()
        trainer = Trainer(model, GaussNewton(model.parameters()), loss=relative_l2)
        with pytest.raises(ArgumentError, match="RelativeL2"):
            trainer.fit(derivatives(4, 16), epochs=1, batch_size=4)

    def test_unknown_kind_of_step(self):
        model = line_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.step_kind = "telepathy"
        with pytest.raises(ArgumentError, match="residual"):
            Trainer(model, optimizer)

    def test_optimizer_of_another_model(self):
        with pytest.raises(ArgumentError, match="optimizer of the model's parameters"):
            Trainer(line_model(), torch.optim.SGD(line_model().parameters(), lr=0.1))
        model, loss_weight = line_model(), torch.zeros(1, requires_grad=True)
        Trainer(model, torch.optim.SGD([loss_weight, *model.parameters()], lr=0.1))

    def test_nothing_to_resume_from(self):
        model = line_model()
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1))
        with pytest.raises(ArgumentError, match="expected a folder to resume from"):
            trainer.fit(derivatives(4, 16), epochs=1, batch_size=4, resume=True)

    def test_model_without_parameters(self):
        with pytest.raises(ArgumentError, match="parameters"):
            Trainer(nn.Identity(), torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))

    @pytest.mark.parametrize("arguments", [{"patience": 0}, {"min_improvement": 1.0}])
    def test_early_stopping(self, arguments):
        with pytest.raises(ArgumentError):
            EarlyStopping(**arguments)

    @pytest.mark.parametrize("arguments", [{"keep": 0}, {"every_steps": 0}])
    def test_checkpoints(self, arguments):
        with pytest.raises(ArgumentError):
            Checkpoints(**arguments)


class TestNonFinite:
    def test_diverging_loss_names_the_step_and_the_last_good_checkpoint(self, tmp_path):
        train(derivatives(8, 16), folder=tmp_path)
        good = CheckpointFolder(tmp_path).load()

        class Explosive(Trainer):
            def training_loss(self, source: Tensor, target: Tensor) -> Tensor:
                return super().training_loss(source, target) * (1e39 if self.state.step == 4 else 1.0)

        model = line_model()
        trainer = Explosive(model, torch.optim.SGD(model.parameters(), lr=0.1), folder=tmp_path)
        with pytest.raises(NonFiniteError, match=r"epoch 3, step 5;.*step_00000004"):
            trainer.fit(derivatives(8, 16), epochs=9, batch_size=4, resume=True)
        after = CheckpointFolder(tmp_path).load()
        assert after.state["step"] == 4
        assert_same(after.state["history"][:1], good.state["history"])
        assert all(w.isfinite().all() for w in after.model.values())

    def test_weights_that_broke_at_the_last_step_are_not_saved(self, tmp_path):
        class Poisoned(torch.optim.SGD):
            def step(self, closure=None):
                super().step(closure)
                self.param_groups[0]["params"][0].data[0] = torch.nan

        model = line_model()
        trainer = Trainer(model, Poisoned(model.parameters(), lr=0.1), folder=tmp_path)
        with pytest.raises(NonFiniteError, match=r"'weight' in epoch 1, step 1;.*checkpoint: none"):
            trainer.fit(derivatives(4, 16), epochs=1, batch_size=4)
        assert CheckpointFolder(tmp_path).paths() == []

    def test_validation_that_is_not_finite(self):
        data = TensorDataset(torch.ones(2, 1, 16), torch.zeros(2, 1, 16))  # relative to nothing
        with pytest.raises(NonFiniteError, match="zero/loss, got inf in epoch 1"):
            train(derivatives(4, 16), valid={"zero": data})

    def test_damaged_sample_of_a_lazy_dataset_stops_before_its_step(self, tmp_path):
        data = Shifted(40, 16)
        data.fields[33, 0, 2] = torch.inf
        with pytest.raises(NonFiniteError, match=r"samples \[33\]"):
            train(data, folder=tmp_path)


def test_nothing_is_logged_to_the_root_logger(caplog):
    with caplog.at_level(logging.DEBUG):
        train(derivatives(4, 16))
    assert [r for r in caplog.records if r.name.startswith("neuralop_kit")] == []
