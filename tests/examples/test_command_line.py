"""What the examples refuse, and that they do so before any work is done."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("[!_]*.py"))


@pytest.fixture
def shared(monkeypatch):
    pytest.importorskip("tyro")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("_command_line")


@dataclass(frozen=True)
class Settings:
    """Like those of an example."""

    steps: int = 100
    width: int = 32
    rate: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    seed: int = 0
    out: Path = Path("results")
    quick: bool = False


def refusal(shared, settings) -> str:
    with pytest.raises(SystemExit) as caught:
        shared.check(settings)
    return str(caught.value)


def test_numbers_that_cannot_be_are_refused_by_the_name_of_their_option(shared, tmp_path):
    shared.check(Settings(out=tmp_path))
    for wrong in ({"steps": 0}, {"steps": -3}, {"rate": 0.0}, {"rate": float("nan")}, {"sizes": (4, -1)}, {"seed": -1}):
        (name,) = wrong
        assert f"for --{name}, got " in refusal(shared, Settings(out=tmp_path, **wrong))
    assert "at least one value for --sizes" in refusal(shared, Settings(out=tmp_path, sizes=()))


def test_a_folder_of_results_that_cannot_be_is_found_at_the_beginning(shared, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert f"expected a folder that can be written, got {out}" in refusal(shared, Settings(out=out))
    shared.check(Settings(out=tmp_path / "made" / "when missing"))
    assert not list((tmp_path / "made" / "when missing").iterdir())


def test_quick_leaves_alone_what_was_chosen(shared):
    settings = shared.shorter(Settings(steps=7), steps=30, width=8)
    assert (settings.steps, settings.width) == (7, 8)


def test_errors_of_ours_are_shown_as_a_sentence_and_others_as_they_are(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["example", "--out", str(tmp_path)])

    def failing(error: BaseException):
        def main(settings):
            raise error

        return main

    ours = importlib.import_module("neuralop_kit.solvers.errors").ShapeError("expected this, got that; do so")
    with pytest.raises(SystemExit, match=r"^ShapeError: expected this, got that; do so$"):
        shared.run_example(failing(ours), Settings, "")
    with pytest.raises(ZeroDivisionError):
        shared.run_example(failing(ZeroDivisionError()), Settings, "")
    with pytest.raises(SystemExit, match="130"):
        shared.run_example(failing(KeyboardInterrupt()), Settings, "")
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_example_begins_the_shared_way(name):
    text = (EXAMPLES / f"{name}.py").read_text()
    assert "run_example(main, Settings, __doc__)" in text
    assert "settings = shorter(" in text
    # Neither can be left half-written.
    assert "savefig" not in text
    assert "write_text" not in text


def test_pictures_and_tables_are_whole_or_not_there(shared, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    figures, tables = (importlib.import_module(name) for name in ("_figures", "_tables"))
    atomic = importlib.import_module("neuralop_kit.solvers.atomic")

    def stop(point: str) -> None:
        if point == "temporary written":
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "observer", stop)
    with pytest.raises(KeyboardInterrupt):
        figures.save(figures.plt.figure(), tmp_path / "picture.png")
    with pytest.raises(KeyboardInterrupt):
        tables.save_table(tmp_path, [{"a": 1}], settings={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("conservative_burgers", {"cells": 3}, "at least 7 --cells"),
        ("convert_unet", {"resolution": 7}, "--resolution that both networks can quarter"),
        ("learned_dynamics_burgers", {"resolution": 60}, "--resolution that divides 128"),
        ("optimizer_character", {"optimizers": ("adam", "magic")}, "got magic"),
    ],
)
def test_what_an_example_alone_can_know_is_refused_before_it_works(name, wrong, said, monkeypatch):
    pytest.importorskip("tyro")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    example = importlib.import_module(name)
    with pytest.raises(SystemExit, match=said):
        example.main(example.Settings(**wrong))


def test_a_solve_that_fails_ends_an_example(monkeypatch):
    pytest.importorskip("tyro")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("neural_ode_classification")
    errors = importlib.import_module("neuralop_kit.solvers.errors")
    with pytest.raises(errors.ConvergenceError):
        example.train("circles", "none", example.Settings(tolerance=1e-30, steps=1))
