"""A killed run, resumed in a new process, ends with the same bits as one that was never interrupted."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from neuralop_kit.optim import NVRM, Lion, Sven
from neuralop_kit.solvers.errors import CheckpointError
from neuralop_kit.training import CheckpointFolder
from tests.conftest import SEED
from tests.training.runs import (
    NUM_EPOCHS,
    STEPS_PER_EPOCH,
    Optimizers,
    Shifted,
    adamw,
    assert_same,
    assert_same_run,
    die_at,
    fit,
    latest,
    make_trainer,
    run_child,
)

TOTAL = NUM_EPOCHS * STEPS_PER_EPOCH
# In the order in which one save meets them.
POINTS = [
    "weights written", "state written", "folder filled", "files synced", "renamed", "folder synced",
    "checkpoint in place", "temporary opened", "temporary written", "temporary synced", "latest moved",
    "best moved", "old checkpoint renamed",
]  # fmt: skip


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True)


def lbfgs(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, line_search_fn="strong_wolfe")


def lion(model: torch.nn.Module) -> torch.optim.Optimizer:
    return Lion(model.parameters(), lr=1e-3)


def sven(model: torch.nn.Module) -> torch.optim.Optimizer:
    # Batch normalisation counts the calls of a residual, of which there are more when a process begins.
    model[1] = torch.nn.Identity()
    return Sven(model.parameters(), lr=0.1)


def noisy(model: torch.nn.Module) -> torch.optim.Optimizer:
    return NVRM(torch.optim.Adam(model.parameters(), lr=1e-2), b=0.02, generator=torch.Generator().manual_seed(4))


def run(
    folder: Path,
    last_step: int | None = None,
    optimizer: Optimizers = adamw,
    num_workers: int = 0,
    epochs: int = NUM_EPOCHS,
) -> None:
    trainer = make_trainer(folder, optimizer=optimizer)
    trainer.last_step = last_step
    fit(trainer, num_workers=num_workers, epochs=epochs)


def run_and_die_at(folder: Path, point: str) -> None:
    die_at(point)
    run(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_child(run, folder) == 0
    return folder


def test_killed_at_random_steps_again_and_again(tmp_path, uninterrupted):
    draw, step, kills = random.Random(SEED), 0, 0
    while (step := step + draw.randint(2, 9)) < TOTAL:
        assert run_child(run, tmp_path, step) == -signal.SIGKILL
        kills += 1
    assert run_child(run, tmp_path) == 0
    assert kills >= 3
    assert_same_run(tmp_path, uninterrupted)


def test_killed_at_every_point_of_a_save(tmp_path, uninterrupted):
    for point in POINTS:
        before = (tmp_path / "latest").read_text() if (tmp_path / "latest").exists() else None
        assert run_child(run_and_die_at, tmp_path, point) == -signal.SIGKILL, point
        if before is not None:
            # Whole and verified: the checkpoint before, or a later one.
            assert CheckpointFolder(tmp_path).load().state["step"] >= int(before.removeprefix("step_")), point
    assert run_child(run, tmp_path) == 0
    assert_same_run(tmp_path, uninterrupted)


def test_the_points_are_those_that_a_save_reaches(tmp_path, monkeypatch):
    # Negative control: a misspelt point would kill nobody.
    seen = []
    monkeypatch.setattr("neuralop_kit.solvers.atomic.observer", seen.append)
    fit(make_trainer(tmp_path), epochs=2)
    assert set(POINTS) == set(seen)


def test_reading_ahead_changes_nothing_and_leaves_no_lock(tmp_path):
    # Two worker processes, killed mid-epoch; their parent's lock must not survive in them.
    assert run_child(run, tmp_path / "killed", 5, adamw, 2, 2) == -signal.SIGKILL
    workers = json.loads((tmp_path / "killed" / "workers").read_text())
    assert len(workers) == 2
    assert_gone(workers)
    (tmp_path / "killed" / "workers").unlink()
    assert run_child(run, tmp_path / "killed", None, adamw, 2, 2) == 0
    assert run_child(run, tmp_path / "alone", None, adamw, 0, 2) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "alone")


def assert_gone(processes: list[int]) -> None:
    """No worker outlives its trainer: torch alone leaves them waiting for ever, with all their memory."""
    deadline = time.monotonic() + 20
    while alive := [p for p in processes if is_running(p)]:
        assert time.monotonic() < deadline, f"left behind: {alive}"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("optimizer", [sgd, lbfgs, lion, sven, noisy])
def test_other_optimizers(tmp_path, optimizer):
    assert run_child(run, tmp_path / "whole", None, optimizer) == 0
    assert run_child(run, tmp_path / "killed", 15, optimizer) == -signal.SIGKILL
    assert run_child(run, tmp_path / "killed", None, optimizer) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_forgetting_the_random_streams_would_be_seen(tmp_path, uninterrupted):
    # Negative control: the same resume, with the streams put anywhere else.
    assert run_child(run, tmp_path, 14) == -signal.SIGKILL
    assert run_child(resume_with_other_streams, tmp_path) == 0
    with pytest.raises(AssertionError):
        assert_same(latest(tmp_path).model, latest(uninterrupted).model)


def resume_with_other_streams(folder: Path) -> None:
    from neuralop_kit.training import random_state

    random_state.restore = lambda *arguments: None
    run(folder)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    fit(make_trainer(tmp_path), epochs=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    trainer = make_trainer(tmp_path)
    history = fit(trainer, epochs=1)
    assert len(history) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"} == before
    assert_same(dict(trainer.model.state_dict()), latest(tmp_path).model)


def test_a_finished_run_can_be_prolonged(tmp_path, uninterrupted):
    fit(make_trainer(tmp_path), epochs=1)
    history = fit(make_trainer(tmp_path))
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert_same_run(tmp_path, uninterrupted)


def test_a_folder_with_a_run_is_not_taken_over_silently(tmp_path):
    fit(make_trainer(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match="resume=True"):
        fit(make_trainer(tmp_path), resume=False)


@pytest.mark.parametrize(("changed", "message"), [({"seed": 6}, "seed=5"), ({"batch_size": 3}, "batch_size=4")])
def test_other_data_order_is_refused(tmp_path, changed, message):
    data = [Shifted(22, 16, noise=0.1), Shifted(9, 32, noise=0.1)]
    fit(make_trainer(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match=message):
        make_trainer(tmp_path).fit(data, **{"epochs": 2, "batch_size": 4, "seed": 5, "resume": True, **changed})


def test_another_model_or_optimizer_is_refused(tmp_path):
    fit(make_trainer(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match="as the run did"):
        fit(make_trainer(tmp_path, optimizer=lbfgs))


def test_two_writers(tmp_path):
    trainer = make_trainer(tmp_path)
    with trainer.store.writing():
        assert run_child(expect_refusal, tmp_path) == 7
    assert run_child(expect_refusal, tmp_path) == 0


def expect_refusal(folder: Path) -> None:
    try:
        fit(make_trainer(folder), epochs=1)
    except CheckpointError as error:
        os._exit(7 if "only writer" in str(error) else 1)
