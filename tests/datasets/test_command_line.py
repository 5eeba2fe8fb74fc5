"""The command line: what it prints, what it writes, and its exit codes."""

import subprocess
import sys

import pytest

from neuralop_kit.datasets import PROBLEMS, open_dataset
from neuralop_kit.datasets.__main__ import main
from tests.datasets import tiny


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as leave:
        code = leave.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_generate_describe_check(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go there
    folder = tmp_path / "darcy"
    options = ["--samples", 12, "--resolution", 16, "--workers", 1, "--splits", "train=3", "test=1", "--seed", 2]
    code, out, err = run(capsys, "generate", "darcy", *options, "--out", folder)
    assert code == 0
    assert "9 samples of permeability -> pressure on (16, 16)" in out
    assert "12/12" in err  # the progress bar
    data = open_dataset(folder, "test")
    assert len(data) == 3

    code, out, _ = run(capsys, "describe", folder)
    assert code == 0
    for word in (
        "-div(a grad u) = f",
        "(16, 16), float32",
        "train 9 in 1 files",
        "seed         2",
        "mean",
        "high = 12",
    ):
        assert word in out
    shard = next(folder.glob("data/train/*"))
    code, out, _ = run(capsys, "describe", shard)
    assert code == 0
    assert "samples      9" in out

    assert run(capsys, "check", folder)[:2] == (0, f"{folder}: 2 files in The Well's layout, no fault found\n")
    assert run(capsys, "check", shard)[0] == 0
    assert run(capsys, "generate", "darcy", *options, "--out", folder)[0] == 0


def test_list_names_every_problem_and_its_equation(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for name, problem in PROBLEMS.items():
        assert f"{name} " in out
        assert problem.equation in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["generate", "stokes", "--samples", 4, "--resolution", 8], "expected a problem among"),
        (["generate", "darcy", "--samples", 0, "--resolution", 8], "samples, got 0"),
        (["generate", "darcy", "--samples", 4, "--resolution", -8], "points per axis"),
        (["generate", "darcy", "--samples", 4, "--resolution", 8, 8, 8], "one size per space axis"),
        (["generate", "darcy", "--samples", 4, "--resolution", 8, "--workers", 0], "at least one worker"),
        (["generate", "darcy", "--samples", 4, "--resolution", 8, "--splits", "train"], "expected NAME=SIZE"),
        (["generate", "darcy", "--samples", 4, "--resolution", 8, "--splits", "holdout=1"], "expected sizes"),
        (
            ["generate", "darcy", "--samples", 4, "--resolution", 8, "--splits", "train=1", "train=2"],
            "expected one size",
        ),
        (["generate", "darcy", "--samples", "many", "--resolution", 8], "invalid int value"),
        (["generate", "darcy", "--resolution", 8], "--samples"),
    ],
)
def test_bad_input_is_exit_code_two_and_writes_nothing(capsys, tmp_path, arguments, word):
    code, out, err = run(capsys, *arguments, "--out", tmp_path / "data")
    assert code == 2
    assert word in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["describe", "check"])
def test_nothing_to_read_is_exit_code_two(capsys, tmp_path, command):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "missing.hdf5"):
        code, out, err = run(capsys, command, path)
        assert (code, out) == (2, "")
        assert err.startswith("error: expected")


def test_check_finds_faults(capsys, tmp_path):
    folder = tiny.make(tmp_path / "data")
    shard = next(folder.glob("data/train/*"))
    import h5py

    with h5py.File(shard, "r+") as file:
        del file["dimensions/x"].attrs["time_varying"]
    code, out, _ = run(capsys, "check", shard)
    assert code == 1
    assert "/dimensions/x has no attribute 'time_varying'" in out
    # In its folder the manifest notices the change first.
    code, _, err = run(capsys, "check", folder)
    assert code == 2
    assert "sha256" in err or "bytes in" in err


def test_interruption_is_exit_code_130_and_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("neuralop_kit.datasets.__main__.generate", interrupted)
    code, _, err = run(capsys, "generate", "darcy", "--samples", 4, "--resolution", 8, "--out", tmp_path)
    assert code == 130
    assert "same command goes on" in err


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "neuralop_kit.datasets"]
    done = subprocess.run([*command, "list"], capture_output=True, text=True, timeout=120, check=True)
    assert "darcy-rough" in done.stdout
