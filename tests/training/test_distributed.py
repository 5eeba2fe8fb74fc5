"""Two gloo processes train as one does on the joined batch; one that dies takes the other with it, in time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

from neuralop_kit.optim import NVRM
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.training import CheckpointFolder, RelativeL2, Trainer, vrmse
from neuralop_kit.training.logs import JsonLines
from tests.training.runs import PROCESSES, assert_same, assert_same_run
from tests.training.runs import fit as fit_everything
from tests.training.runs import make_trainer as make_everything

Task = Callable[..., dict[str, Any]]
TIMEOUT = 30.0


def run_ranks(task: Task, folder: Path, *arguments: Any, world_size: int = 2) -> list[dict[str, Any] | None]:
    """What ``task`` returned in each process; None for one that was killed."""
    folder.mkdir(exist_ok=True)
    rendezvous = folder / f"rendezvous-{time.monotonic_ns()}"
    children = [
        PROCESSES.Process(target=_rank, args=(task, rank, world_size, rendezvous, folder, *arguments))
        for rank in range(world_size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(2 * TIMEOUT)
    hanging = [child.kill() for child in children if child.exitcode is None]
    assert not hanging, "a process hangs"
    verdicts = [folder / f"verdict-{rank}" for rank in range(world_size)]
    results = [torch.load(v, weights_only=True) if v.exists() else None for v in verdicts]
    for verdict in verdicts:
        verdict.unlink(missing_ok=True)
    return results


def _rank(task: Task, rank: int, world_size: int, rendezvous: Path, folder: Path, *arguments: Any) -> None:
    """One process; it leaves its result in a file and ends at once, as gloo sometimes aborts in an orderly exit."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT),
    )  # fmt: skip
    try:
        result = task(folder, *arguments)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    torch.save(result, folder / f"verdict-{rank}.part")
    (folder / f"verdict-{rank}.part").replace(folder / f"verdict-{rank}")
    if "error" not in result:
        dist.barrier()
    os._exit(0)


def fields(num_samples: int, num_points: int, dtype: torch.dtype) -> TensorDataset:
    generator = torch.Generator().manual_seed(num_points)
    u = torch.randn(num_samples, 1, num_points, generator=generator, dtype=torch.float64).to(dtype)
    return TensorDataset(u, 0.5 * u.roll(1, -1))


def small_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 6, 3, padding=1), nn.GELU(), nn.Conv1d(6, 1, 3, padding=1)).to(dtype)


def one_gradient(folder: Path | None, num_samples: int, dtype: torch.dtype) -> dict[str, Any]:
    """Gradients that the trainer forms of one joined batch."""
    model = small_model(dtype)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.0), loss=RelativeL2())
    history = trainer.fit(fields(num_samples, 16, dtype), epochs=1, batch_size=num_samples)
    return {"gradients": [p.grad for p in model.parameters()], "loss": history[0]["train_loss"]}


def several_epochs(folder: Path | None, kind: str = "adam") -> dict[str, Any]:
    """A run at two resolutions whose batches and validation sets do not divide evenly."""
    model = small_model(torch.float64)
    parameters = model.parameters()
    if kind == "adam":
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
    else:
        optimizer = torch.optim.LBFGS(parameters, lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    name = None if folder is None else folder / "run"
    if dist.is_initialized() and dist.get_rank() > 0:
        # Whoever writes outside rank 0 fails here.
        CheckpointFolder.writing = CheckpointFolder.save = JsonLines.__call__ = JsonLines.rewind = None
    trainer = Trainer(model, optimizer, loss=RelativeL2(), metrics={"vrmse": vrmse}, folder=name)
    data = [fields(11, 16, torch.float64), fields(6, 24, torch.float64)]
    history = trainer.fit(data, epochs=2, batch_size=5, valid={"v": fields(7, 32, torch.float64)})
    return {"weights": dict(model.state_dict()), "history": history}


def without_weighting(folder: Path) -> dict[str, Any]:
    """The negative control: what DDP alone makes of uneven parts."""
    from neuralop_kit.training.steps import BatchObjective

    BatchObjective.share = 1.0
    return one_gradient(folder, 5, torch.float64)


def residual_optimizer(folder: Path) -> dict[str, Any]:
    model = small_model(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_kind = "residual"
    try:
        Trainer(model, optimizer)
    except ArgumentError as error:
        return {"refused": str(error)}
    return {}


def noisy(model: nn.Module) -> torch.optim.Optimizer:
    return NVRM(torch.optim.Adam(model.parameters(), lr=1e-2), b=0.02, generator=torch.Generator().manual_seed(4))


def everything(folder: Path, name: str, last_step: int | None, num_epochs: int) -> dict[str, Any]:
    """The run of the resume tests, on two processes with random streams of their own."""
    trainer = make_everything(folder / name, optimizer=noisy)
    torch.manual_seed(100 + dist.get_rank())
    trainer.last_step = last_step
    fit_everything(trainer, epochs=num_epochs)
    return {"weights": dict(trainer.model.state_dict()), "random": torch.get_rng_state()}


def one_dies(folder: Path) -> dict[str, Any]:
    """Rank 1 is killed before its third step."""
    trainer = make_everything(folder / "run")
    trainer.last_step = 2 if dist.get_rank() == 1 else None
    fit_everything(trainer)
    return {}


class TestEqualsOneProcess:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
    @pytest.mark.parametrize("num_samples", [6, 5, 1], ids=["even", "uneven", "one rank without samples"])
    def test_gradients(self, tmp_path, num_samples, dtype, tolerance):
        expected = one_gradient(None, num_samples, dtype)
        for result in run_ranks(one_gradient, tmp_path, num_samples, dtype):
            assert result["loss"] == pytest.approx(expected["loss"], rel=tolerance)
            for ours, theirs in zip(result["gradients"], expected["gradients"], strict=True):
                assert ((ours - theirs).norm() / theirs.norm()).item() < tolerance

    def test_without_weighting_uneven_parts_would_be_wrong(self, tmp_path):
        expected = one_gradient(None, 5, torch.float64)
        result = run_ranks(without_weighting, tmp_path)[0]
        errors = [(a - b).norm() / b.norm() for a, b in zip(result["gradients"], expected["gradients"], strict=True)]
        assert max(errors) > 1e-3

    @pytest.mark.parametrize("kind", ["adam", "lbfgs"])
    def test_whole_runs_with_metrics_and_a_single_writer(self, tmp_path, kind):
        expected = several_epochs(None, kind)
        first, second = run_ranks(several_epochs, tmp_path, kind)
        assert_same(first, second)
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(first["weights"][name], weight, rtol=1e-9, atol=1e-11)
        for ours, theirs in zip(first["history"], expected["history"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9)
        assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


class TestFailure:
    def test_a_dead_rank_ends_the_other_within_the_timeout(self, tmp_path):
        began = time.monotonic()
        first, second = run_ranks(one_dies, tmp_path)
        assert time.monotonic() - began < TIMEOUT + 15
        assert second is None
        assert "error" in first

    def test_killed_and_resumed_runs_end_with_the_same_bits(self, tmp_path):
        whole = run_ranks(everything, tmp_path, "whole", None, 2)
        assert run_ranks(everything, tmp_path, "killed", 11, 2) == [None, None]
        resumed = run_ranks(everything, tmp_path, "killed", None, 2)
        assert_same(resumed, whole)
        assert not torch.equal(whole[0]["random"], whole[1]["random"])
        assert_same_run(tmp_path / "killed", tmp_path / "whole")

    def test_residual_optimizers_say_that_they_cannot(self, tmp_path):
        assert all("several processes" in result["refused"] for result in run_ranks(residual_optimizer, tmp_path))


SCRIPT = """
import os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from neuralop_kit.training import process_group
from tests.training.test_distributed import one_gradient
with process_group(timeout_seconds=60) as device:
    result = one_gradient(None, 5, torch.float64)
    assert device.type in ("cpu", "cuda")
    torch.save(result, Path(sys.argv[1]) / f"rank-{os.environ['RANK']}")
    torch.distributed.barrier()
    os._exit(0)
"""


@pytest.mark.slow
def test_torchrun(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = one_gradient(None, 5, torch.float64)
    for rank in (0, 1):
        result = torch.load(tmp_path / f"rank-{rank}", weights_only=True)
        for ours, theirs in zip(result["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
