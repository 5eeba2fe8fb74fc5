"""Dataset cards: words and pictures of any file; converting on the command line."""

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from neuralop_kit.datasets import check_file, estimate_statistics, open_dataset
from neuralop_kit.datasets.__main__ import main
from neuralop_kit.datasets.cards import draw_card
from neuralop_kit.datasets.describe import describe
from neuralop_kit.datasets.survey import survey
from tests.datasets import foreign, tiny
from tests.datasets.test_hostile_readers import VICTIMS

pytestmark = pytest.mark.filterwarnings("ignore::neuralop_kit.datasets.DataWarning")


@pytest.mark.parametrize("name", VICTIMS)
def test_words_for_every_layout(tmp_path, name):
    VICTIMS[name](tmp_path / "file")
    axes = "ntx" if name == "numpy" else None
    text = describe(tmp_path / "file", axes=axes)
    contents = open_dataset(tmp_path / "file", axes=axes).contents
    for word in (contents.layout, contents.equation, repr(contents.domain), str(contents.shape), *contents.parameters):
        assert word in text
    assert all(f"defect       {defect}" in text for defect in contents.defects)
    assert all(f" {channel} " in text for channel in contents.units)


def test_a_defect_is_said_once(tmp_path, capsys):
    foreign.burgers(tmp_path / "file")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["describe", str(tmp_path / "file"), "--no-pictures"]) == 0
    assert capsys.readouterr().out.count("t-coordinate has") == 1


def test_statistics_are_those_of_numpy(tmp_path):
    fields = foreign.well(tmp_path / "file")
    found = survey(open_dataset(tmp_path / "file"))["density"]
    weights = np.broadcast_to(np.array([0.5, 1, 1, 1, 1, 1, 0.5]), fields["density"].shape)  # y has walls
    mean = np.average(fields["density"], weights=weights)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.std == pytest.approx(np.sqrt(np.average((fields["density"] - mean) ** 2, weights=weights)), rel=1e-6)
    assert found.maximum == fields["density"].max()


def test_estimated_statistics_are_of_the_channels_of_a_pair(tmp_path):
    fields = foreign.well(tmp_path / "file")
    statistics = estimate_statistics(open_dataset(tmp_path / "file"))
    assert statistics.input.mean[2] == pytest.approx(fields["velocity"][:, :-1, ..., 0].mean(), abs=1e-6)
    assert statistics.input.std[-1] == pytest.approx(fields["obstacle"].std(), rel=1e-6)
    assert statistics.target.std[0] == pytest.approx(fields["density"][:, 1:].std(), rel=1e-6)


def inks(path) -> float:
    """Share of the picture that is not white."""
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


@pytest.mark.parametrize(
    ("make", "suffixes"),
    [
        (foreign.advection, [".png", ".gif"]),
        (foreign.maxwell, [".png", ".gif"]),
        (foreign.darcy, [".png"]),
        (lambda path: foreign.pt(path, x=foreign.numbers(3, 9), y=foreign.numbers(3, 9)), [".png"]),
    ],
)
def test_pictures(tmp_path, make, suffixes):
    make(tmp_path / "file")
    data = open_dataset(tmp_path / "file")
    pictures = [path for path in draw_card(data, tmp_path / "new", name="card") if path.suffix != ".mp4"]
    assert [path.suffix for path in pictures] == suffixes
    assert all(inks(path) > 0.01 for path in pictures)
    if ".gif" in suffixes:
        with Image.open(tmp_path / "new" / "card.gif") as film:
            assert film.n_frames == data.contents.num_frames
            first = np.asarray(film.convert("L"), dtype=float)
            film.seek(film.n_frames - 1)
            assert np.abs(np.asarray(film.convert("L"), dtype=float) - first).max() > 50  # something moves


def test_picture_of_ours(tmp_path):
    folder = tiny.make(tmp_path / "data")
    (sheet,) = draw_card(open_dataset(folder), tmp_path, name="card")
    assert inks(sheet) > 0.1


def test_commands(capsys, tmp_path, monkeypatch):
    np.save(tmp_path / "u.npy", foreign.numbers(3, 4, 5, 7))
    monkeypatch.chdir(tmp_path)
    assert main(["describe", "u.npy"]) == 2
    assert "expected axes=" in capsys.readouterr().err
    assert main(["describe", "u.npy", "--axes", "ntxy"]) == 0
    assert "picture      u-card.gif" in capsys.readouterr().out
    assert (tmp_path / "u-card.png").exists()
    assert main(["convert", "u.npy", "u.hdf5", "--axes", "ntxy"]) == 0
    assert main(["check", "u.hdf5"]) == 0
    assert check_file("u.hdf5") == []
    assert main(["convert", "u.npy", "u.hdf5", "--axes", "ntxy"]) == 2
    assert "which exists" in capsys.readouterr().err
    folder = tiny.make(tmp_path / "data")
    assert main(["convert", str(folder), "again.hdf5"]) == 2
    assert "already" in capsys.readouterr().err


def test_words_without_matplotlib(capsys, tmp_path, monkeypatch):
    foreign.darcy(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "matplotlib.animation", None)
    assert main(["describe", str(tmp_path / "file"), "--pictures", str(tmp_path / "cards")]) == 0
    captured = capsys.readouterr()
    assert "darcy" in captured.out
    assert "pip install" in captured.err
    assert not (tmp_path / "cards").exists()


def test_pictures_need_a_folder(capsys, tmp_path):
    foreign.darcy(tmp_path / "file")
    assert main(["describe", str(tmp_path / "file"), "--pictures", str(tmp_path / "file")]) == 2
    assert "expected to make the folder" in capsys.readouterr().err
