"""The write protocol: whole or absent under SIGKILL, verified when read, never executed, never half replaced."""

import json
import os
import pickle
import random
import resource
import signal
import tempfile
import time
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.solvers import atomic
from neuralop_kit.solvers.errors import CheckpointError, NonFiniteError
from neuralop_kit.training import CheckpointFolder, Snapshot, files, random_state
from neuralop_kit.training.optimizer_state import load_optimizer_state
from tests.conftest import SEED
from tests.training.runs import PROCESSES, assert_same, die_at, run_child

POINTS = [
    "weights written", "state written", "folder filled", "files synced", "old folder aside", "renamed", "folder synced",
    "checkpoint in place", "temporary opened", "temporary written", "temporary synced", "latest moved", "best moved",
    "old checkpoint renamed",
]  # fmt: skip


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(3000, generator=generator)
    return Snapshot(model={"weight": weights}, train_state={"momentum": 2 * weights}, state={"step": step})


def check(folder: CheckpointFolder) -> int:
    """Step of what ``load`` gives, after a comparison of every byte."""
    loaded = folder.load()
    step = loaded.state["step"]
    assert_same(loaded.model, snapshot(step).model)
    assert_same(loaded.train_state, snapshot(step).train_state)
    return step


def save(path: Path, *steps: int, best: bool = False) -> CheckpointFolder:
    folder = CheckpointFolder(path)
    with folder.writing():
        for step in steps:
            folder.save(step, snapshot(step), best=best)
    return folder


def save_and_die(path: Path, point: str) -> None:
    die_at(point)
    folder = CheckpointFolder(path)
    with folder.writing():
        folder.save(2, snapshot(2), best=True)
        folder.save(3, snapshot(3))
        folder.save(4, snapshot(4))


def save_for_ever(path: Path, started) -> None:
    torch.set_num_threads(1)
    folder = CheckpointFolder(path)
    with folder.writing():
        started.set()
        step = folder.load().state["step"]
        while True:
            step += 1
            folder.save(step, snapshot(step), best=step % 3 == 0)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


class TestKill:
    @pytest.mark.parametrize("point", POINTS)
    def test_at_every_point_leaves_the_previous_state_or_the_new_one(self, tmp_path, point):
        save(tmp_path, 1)
        if point == "old folder aside":
            save(tmp_path, 2)  # a step that is written once more
        assert run_child(save_and_die, tmp_path, point) == -signal.SIGKILL
        folder = CheckpointFolder(tmp_path)
        before = check(folder) if point != "old folder aside" else 1
        with folder.writing():
            after = check(folder)
            folder.save(7, snapshot(7))
        assert before <= after <= before + 1
        assert check(folder) == 7
        assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name or ".trash" in p.name]

    def test_between_the_folder_and_its_pointer_is_taken_up(self, tmp_path):
        save(tmp_path, 1)
        assert run_child(save_and_die, tmp_path, "checkpoint in place") == -signal.SIGKILL
        folder = CheckpointFolder(tmp_path)
        assert folder.path_of("latest").name == "step_00000001"
        with folder.writing():
            assert folder.path_of("latest").name == folder.path_of("best").name == "step_00000002"

    def test_points_are_all_reached(self, tmp_path, monkeypatch):
        # Negative control: a misspelt point would kill nobody.
        seen: list[str] = []
        monkeypatch.setattr(atomic, "observer", seen.append)
        save(tmp_path, 1, 1, 2, 3, 4, best=True)
        assert set(seen) == set(POINTS)

    def test_at_twenty_random_moments(self, tmp_path):
        began = time.monotonic()
        save(tmp_path, 1)
        # Moments within the first three saves, however slow this machine is today.
        duration = time.monotonic() - began
        draw, reached = random.Random(SEED), 1
        for _ in range(20):
            started = PROCESSES.Event()
            child = PROCESSES.Process(target=save_for_ever, args=(tmp_path, started))
            child.start()
            assert started.wait(60)
            time.sleep(draw.uniform(0.0, 3 * duration))
            child.kill()
            child.join(60)
            folder = CheckpointFolder(tmp_path)
            assert check(folder) >= reached
            reached = check(folder)
            with folder.writing():
                assert check(folder) >= reached
        assert reached > 1


class TestOrder:
    def test_files_are_synced_before_the_folder_gets_its_name_and_the_pointer_moves_last(self, tmp_path, monkeypatch):
        calls: list[str] = []
        fsync, rename = os.fsync, os.replace

        def recorded_fsync(descriptor: int) -> None:
            calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".tmp-")[0])
            fsync(descriptor)

        def recorded_rename(source, target) -> None:
            calls.append("name " + Path(target).name)
            rename(source, target)

        folder = CheckpointFolder(tmp_path)
        with folder.writing():
            monkeypatch.setattr(os, "fsync", recorded_fsync)
            monkeypatch.setattr(os, "replace", recorded_rename)
            folder.save(1, snapshot(1), best=True)
        step, parent = "step_00000001", f"sync {tmp_path.name}"
        contents = {f"sync {name}" for name in (files.WEIGHTS, "train_state.pt", "state.json", files.MANIFEST)}
        assert set(calls[:4]) == contents
        pointers = ["sync latest", "name latest", parent, "sync best", "name best", parent]
        assert calls[4:] == [f"sync {step}", f"name {step}", parent, *pointers]

    def test_the_last_ones_and_the_best_stay(self, tmp_path):
        folder = CheckpointFolder(tmp_path, keep=2)
        with folder.writing():
            for step in range(1, 8):
                folder.save(step, snapshot(step), best=step == 3)
        assert [p.name for p in folder.paths()] == ["step_00000007", "step_00000006", "step_00000003"]
        assert folder.load("best").state["step"] == 3

    def test_steps_that_a_run_went_back_from_are_forgotten(self, tmp_path):
        save(tmp_path, 5, 6)
        folder = save(tmp_path, 5)
        assert [p.name for p in folder.paths()] == ["step_00000005"]
        assert check(folder) == 5


class TestDamage:
    @pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "missing"])
    @pytest.mark.parametrize("name", [files.WEIGHTS, "train_state.pt", "state.json", files.MANIFEST])
    def test_falls_back_to_the_one_before_with_a_warning(self, tmp_path, name, how):
        folder = save(tmp_path, 1, 2)
        damage(tmp_path / "step_00000002" / name, how)
        with pytest.warns(UserWarning, match="fell back to step_00000001, as step_00000002"):
            assert check(folder) == 1
        with folder.writing():  # and goes on from there
            folder.save(2, snapshot(2))
        assert check(folder) == 2

    def test_without_the_manifest_a_flipped_bit_would_go_unseen(self, tmp_path):
        # Negative control: the formats themselves do not notice.
        folder = save(tmp_path, 1)
        for name in (files.WEIGHTS, "train_state.pt"):
            damage(tmp_path / "step_00000001" / name, "flipped")
        weights = files.read_weights(tmp_path / "step_00000001" / files.WEIGHTS)
        assert not torch.equal(weights["weight"], snapshot(1).model["weight"])
        with pytest.raises(CheckpointError, match="another content"):
            folder.load()

    def test_when_none_is_whole_each_is_named_with_its_reason(self, tmp_path):
        folder = save(tmp_path, 1, 2)
        damage(tmp_path / "step_00000001" / files.WEIGHTS, "flipped")
        damage(tmp_path / "step_00000002" / "state.json", "missing")
        with pytest.raises(CheckpointError, match=r"step_00000002: .*lists.*step_00000001: .*another content"):
            folder.load()

    def test_an_empty_folder_says_so(self, tmp_path):
        with pytest.raises(CheckpointError, match="got none"):
            CheckpointFolder(tmp_path).load()

    @pytest.mark.parametrize("pointer", ["../../etc", "step_00000009", "", "\x00", "/tmp"])
    def test_a_tampered_pointer_leads_nowhere(self, tmp_path, pointer):
        folder = save(tmp_path, 1)
        (tmp_path / "latest").write_text(pointer)
        assert folder.path_of("latest") is None
        assert check(folder) == 1

    def test_a_file_that_would_run_code_does_not(self, tmp_path):
        folder = save(tmp_path, 1)
        path = tmp_path / "step_00000001"
        torch.save({"optimizer": Bomb(tmp_path / "exploded")}, path / "train_state.pt")
        (path / files.MANIFEST).unlink()
        files.write_manifest(path)  # the attacker can do that too
        with pytest.raises(CheckpointError, match="training state"):
            folder.load()
        assert not (tmp_path / "exploded").exists()
        with (path / "train_state.pt").open("rb") as file:  # negative control
            pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
            assert file.read(2) == b"PK"
        assert (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class TestNothingGoodIsLost:
    def test_when_the_disk_is_full(self, tmp_path):
        folder = save(tmp_path, 1)
        assert run_child(save_beyond_limit, tmp_path) == 7
        assert check(folder) == 1
        assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]
        assert check(save(tmp_path, 2)) == 2

    def test_when_the_folder_is_read_only(self):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "run"
            folder = save(path, 1)
            Path(name).chmod(0o755)
            path.chmod(0o555)
            assert run_child(save_without_rights, path) == 7
            assert check(folder) == 1
            path.chmod(0o755)

    def test_when_a_weight_is_not_finite(self, tmp_path):
        folder = save(tmp_path, 1)
        bad = snapshot(2)
        bad.model["weight"][17] = torch.inf
        with folder.writing(), pytest.raises(NonFiniteError, match="'weight'"):
            folder.save(2, bad)
        assert check(folder) == 1

    @pytest.mark.parametrize("value", [object(), np.zeros(3), nn.Linear(1, 1), {1, 2}, torch.zeros])
    def test_when_a_state_cannot_be_read_back_safely(self, tmp_path, value):
        folder = save(tmp_path, 1)
        bad = Snapshot(model={}, train_state={"optimizer": {"state": [1, value]}})
        with folder.writing(), pytest.raises(CheckpointError, match=r"at optimizer\.state\[1\]"):
            folder.save(2, bad)
        assert check(folder) == 1


def save_beyond_limit(path: Path) -> None:
    # Weights take 12 kB, the training state a little more: the last limit lets the first of them pass.
    for size in (100, 2000, 12_500):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with pytest.raises(CheckpointError, match="free space"):
            save(path, 2)
    os._exit(7)


def save_without_rights(path: Path) -> None:
    if os.geteuid() == 0:  # rights do not bind root
        os.seteuid(65534)
    try:
        save(path, 2)
    except CheckpointError as error:
        os._exit(7 if "rights" in str(error) else 1)


class TestContent:
    @pytest.mark.parametrize(
        "dtype",
        [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128, torch.int64,
         torch.uint8, torch.bool],
    )  # fmt: skip
    def test_weights_of_every_dtype(self, tmp_path, dtype):
        value = torch.randn(3, 4, dtype=dtype if dtype.is_complex else torch.float64).mul(3).to(dtype)
        files.write_weights(tmp_path / "w", {"a": value, "scalar": value[0, 0]})
        assert_same(files.read_weights(tmp_path / "w"), {"a": value, "scalar": value[0, 0]})

    def test_shared_strided_and_conjugated_weights(self, tmp_path):
        base = torch.randn(4, 6, dtype=torch.complex64)
        state = {"whole": base, "again": base, "row": base[1], "turned": base.T, "conjugate": base.conj()}
        files.write_weights(tmp_path / "w", state)
        assert_same(files.read_weights(tmp_path / "w"), {k: v.resolve_conj().contiguous() for k, v in state.items()})

    def test_state_of_every_kind(self, tmp_path):
        tensors = [torch.randn(2, dtype=torch.complex128), torch.ones(3).bfloat16(), torch.tensor(1, dtype=torch.uint8)]
        plain = (None, True, 3, 0.1, 1j, "text", b"bytes", (1, (2,)))
        state = {"tensors": tensors, "plain": plain, 7: {"int key": 1}, "counter": Counter("aab")}
        files.write_state(tmp_path / "s", state | {"ordered": OrderedDict(a=1)})
        assert_same(files.read_state(tmp_path / "s"), state | {"ordered": {"a": 1}})

    def test_a_view_is_written_without_the_storage_behind_it(self, tmp_path):
        files.write_state(tmp_path / "s", {"small": torch.zeros(10**6)[:3]})
        assert (tmp_path / "s").stat().st_size < 10_000

    def test_random_streams(self):
        streams = [
            torch.Generator().manual_seed(1),
            np.random.default_rng(2),
            np.random.Generator(np.random.MT19937(3)),
        ]

        def draw() -> list[float]:
            ours = [float(torch.rand(1, generator=streams[0])), streams[1].random(), streams[2].random()]
            return [*ours, random.gauss(0, 1), np.random.normal(), float(torch.rand(1))]

        draw()  # leaves a cached second normal number in python's and numpy's streams
        with tempfile.TemporaryDirectory() as name:
            files.write_state(Path(name) / "s", random_state.capture(torch.device("cpu"), streams))
            expected = draw()
            random_state.restore(files.read_state(Path(name) / "s"), torch.device("cpu"), streams)
        assert draw() == expected

    def test_state_json_is_for_people(self, tmp_path):
        save(tmp_path, 3)
        assert json.loads((tmp_path / "step_00000003" / "state.json").read_text()) == {"step": 3, "is_best": False}


class Spectral(torch.optim.Optimizer):
    """A stand-in with states of dtypes that torch's own ``load_state_dict`` casts away."""

    def __init__(self, params) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.state[p] = {
                "spectrum": torch.fft.rfft(p.detach()), "low": p.detach().bfloat16(), "high": p.detach().double(),
                "seed": torch.arange(4, dtype=torch.uint8), "nested": [torch.fft.rfft(p.detach()), {"a": 1}], "step": 3,
            }  # fmt: skip


def test_optimizer_states_keep_their_dtype(tmp_path):
    old, new = (Spectral([nn.Parameter(torch.randn(8))]) for _ in range(2))
    old.step()
    files.write_state(tmp_path / "s", old.state_dict())
    saved = files.read_state(tmp_path / "s")
    load_optimizer_state(new, saved)
    assert_same(new.state_dict()["state"], old.state_dict()["state"])
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        new.load_state_dict(saved)  # negative control: torch alone casts
    assert not new.state_dict()["state"][0]["spectrum"].is_complex()
