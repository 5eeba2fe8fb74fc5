"""A saved operator is one folder: loads bit for bit, refuses damage, never runs what it reads."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralop_kit.registry import register_model
from neuralop_kit.solvers.errors import CheckpointError, NeuralopKitError, NonFiniteError, RegistryError
from neuralop_kit.training import ChannelStatistics, Normalized, files, load_model, save_model
from tests.training.runs import run_child
from tests.training.test_checkpoint import Bomb, damage, die_at


@register_model("test_saved_net")
class Net(nn.Module):
    """Weights of every kind: tied, complex stored real, half precision, a buffer of whole numbers."""

    def __init__(self, width: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 3, padding=1, dtype=dtype)
        self.second = nn.Conv1d(width, 1, 3, padding=1, dtype=dtype)
        self.tied = self.second
        self.spectrum = nn.Parameter(torch.randn(width, 2))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("phase", torch.randn(2, dtype=torch.complex128))

    def forward(self, u: Tensor) -> Tensor:
        return self.tied(torch.tanh(self.first(u)) * torch.view_as_complex(self.spectrum).abs()[:, None].to(u.dtype))


STATISTICS = {
    "input_statistics": ChannelStatistics(mean=(3.0,), std=(0.25,)),
    "target_statistics": ChannelStatistics(mean=(-1.0,), std=(2.0,)),
}


def reseal(folder: Path) -> None:
    """What an attacker, or a careless editor, can always do: make the manifest fit."""
    (folder / files.MANIFEST).unlink()
    files.write_manifest(folder)


@pytest.fixture
def saved(tmp_path) -> Path:
    save_model(tmp_path / "model", Net(4))
    return tmp_path / "model"


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_every_bit_comes_back_with_its_dtype(self, tmp_path, dtype):
        model = Net(4, dtype=dtype)
        save_model(tmp_path / "m", model)
        again = load_model(tmp_path / "m")
        assert not again.training
        assert again.tied is again.second
        for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert a.dtype == b.dtype, name
            assert torch.equal(a, b), name

    def test_statistics_travel_with_the_model(self, tmp_path):
        model = Normalized(Net(4), **STATISTICS).eval()
        save_model(tmp_path / "m", model)
        u = torch.randn(2, 1, 16)
        again = load_model(tmp_path / "m")
        assert torch.equal(again(u), model(u))
        torch.testing.assert_close(again(u), 2 * model.model((u - 3) / 0.25) - 1)
        assert "channel_statistics" in (tmp_path / "m" / "config.json").read_text()

    def test_compiled_model_is_saved_as_the_model_inside(self, tmp_path):
        model = Net(4)
        save_model(tmp_path / "m", torch.compile(model, backend="eager"))
        assert torch.equal(load_model(tmp_path / "m").first.weight, model.first.weight)

    def test_saving_again_replaces(self, saved):
        other = Net(5)
        save_model(saved, other)
        assert load_model(saved).first.weight.shape == (5, 1, 3)
        assert [p.name for p in saved.parent.iterdir()] == ["model"]

    def test_our_own_models(self, tmp_path):
        from neuralop_kit import Domain
        from neuralop_kit.models import FNO

        fno = FNO(1, 1, domain=Domain.box((1.0, 1.0)), width=4, num_layers=1, modes=4)
        model = Normalized(fno, **STATISTICS).eval()
        save_model(tmp_path / "deep" / "er", model)
        u = torch.randn(2, 1, 9, 12)
        assert torch.equal(load_model(tmp_path / "deep" / "er")(u), model(u))


class TestKill:
    @pytest.mark.parametrize("point", ["folder filled", "files synced", "renamed", "folder synced"])
    def test_old_or_new_or_absent(self, tmp_path, point):
        code = run_child(save_and_die, tmp_path / "m", point)
        assert code == -9
        if point in ("renamed", "folder synced"):
            assert load_model(tmp_path / "m").first.weight.shape == (7, 1, 3)
        else:
            with pytest.raises(CheckpointError):
                load_model(tmp_path / "m")
        save_model(tmp_path / "m", Net(3))
        assert load_model(tmp_path / "m").first.weight.shape == (3, 1, 3)


def save_and_die(path: Path, point: str) -> None:
    die_at(point)
    save_model(path, Net(7))


class TestRefusals:
    @pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "missing"])
    @pytest.mark.parametrize("name", [files.WEIGHTS, "config.json", files.MANIFEST])
    def test_damage(self, saved, name, how):
        damage(saved / name, how)
        with pytest.raises(CheckpointError):
            load_model(saved)

    def test_foreign_file(self, saved):
        (saved / "code.py").write_text("print('hello')")
        with pytest.raises(CheckpointError, match=re.escape("code.py")):
            load_model(saved)

    def test_what_is_no_saved_model_is_said(self, tmp_path):
        (tmp_path / "file").touch()
        for name, found in (("nothing", "nothing"), ("file", "a file"), (".", "a folder of other files")):
            with pytest.raises(CheckpointError, match=rf"expected a saved model at .*, got {found}; give the folder"):
                load_model(tmp_path / name)

    def test_pickle_in_the_place_of_weights(self, saved, tmp_path):
        (saved / files.WEIGHTS).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        reseal(saved)
        with pytest.raises(CheckpointError, match="safetensors"):
            load_model(saved)
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"model": "os.system"}, RegistryError, "registered model"),
            ({"model": None}, CheckpointError, "model name"),
            ({"arguments": {"width": 5}}, CheckpointError, "fit the arguments"),
            ({"arguments": {"height": 5}}, RegistryError, "another version"),
            ({"arguments": {"width": "wide"}}, CheckpointError, "build"),
            ({"arguments": {"width": -1}}, CheckpointError, "build"),
            ({"arguments": {"width": 10**15}}, CheckpointError, "build"),
            ({"arguments": {"width": {"$object": "subprocess.Popen", "arguments": {}}}}, RegistryError, "component"),
            ({"arguments": []}, CheckpointError, "arguments"),
        ],
    )
    def test_tampered_config(self, saved, change, error, message):
        path = saved / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        reseal(saved)
        with pytest.raises(error, match=message):
            load_model(saved)

    def test_manifest_of_another_version(self, saved):
        path = saved / files.MANIFEST
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
        with pytest.raises(CheckpointError, match="format version 1, got 2"):
            load_model(saved)

    def test_class_that_is_not_registered(self, tmp_path):
        with pytest.raises(RegistryError, match="register_model"):
            save_model(tmp_path / "m", nn.Linear(1, 1))
        assert list(tmp_path.iterdir()) == []

    def test_weights_that_are_not_finite(self, tmp_path):
        model = Net(4)
        model.first.weight.data[0] = torch.nan
        with pytest.raises(NonFiniteError, match=re.escape("'first.weight'")):
            save_model(tmp_path / "m", model)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_not_replaced(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(CheckpointError, match="got other files; choose another folder"):
            save_model(tmp_path / "file", Net(3))
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_with_other_things_in_it_is_not_replaced(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(CheckpointError, match="other files"):
            save_model(tmp_path, Net(4))
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_whatever_is_changed_the_answer_is_an_error_of_ours_or_the_right_model(self, tmp_path, data):
        model = Net(2)
        save_model(tmp_path / "m", model)
        path = tmp_path / "m" / data.draw(st.sampled_from([files.WEIGHTS, "config.json", files.MANIFEST]))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        if data.draw(st.booleans()) and path.name != files.MANIFEST:
            reseal(tmp_path / "m")
        try:
            again = load_model(tmp_path / "m")
        except NeuralopKitError:
            return
        assert type(again) is Net


class TestNormalized:
    def test_constant_channel_is_shifted_only(self):
        statistics = ChannelStatistics(mean=(2.0, 1.0), std=(0.0, 4.0))
        model = Normalized(nn.Identity(), input_statistics=statistics, target_statistics=statistics)
        u = torch.randn(3, 2, 5)
        torch.testing.assert_close(model(u), u)
        assert model.input_std.tolist() == [1.0, 4.0]

    def test_statistics_of_data_normalise_them(self):
        u = torch.randn(50, 2, 6, 7) * torch.tensor([3.0, 0.1])[:, None, None] + 5
        s = ChannelStatistics.of(u)
        neutral = ChannelStatistics(mean=(0.0, 0.0), std=(1.0, 1.0))
        v = Normalized(nn.Identity(), input_statistics=s, target_statistics=neutral)(u)
        assert v.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert (v.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3

    def test_works_at_every_resolution_and_in_double(self):
        model = Normalized(Net(4), **STATISTICS).double()
        assert [model(torch.randn(1, 1, n).double()).shape[-1] for n in (5, 64)] == [5, 64]
        assert model(torch.randn(1, 1, 8).double()).dtype == torch.float64

    def test_wrong_channels(self):
        with pytest.raises(NeuralopKitError, match="input statistics"):
            Normalized(Net(4), **STATISTICS)(torch.randn(1, 2, 8))

    @pytest.mark.parametrize(("mean", "std"), [((1.0,), ()), ((1.0,), (-1.0,)), ((float("nan"),), (1.0,))])
    def test_impossible_statistics(self, mean, std):
        with pytest.raises(NeuralopKitError, match="expected"):
            ChannelStatistics(mean=mean, std=std)
