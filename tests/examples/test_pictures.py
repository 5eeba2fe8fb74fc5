"""Every picture is drawn from tensors of the shapes that the examples have, without a warning of what will break."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from neuralop_kit import Domain

EXAMPLES = Path(__file__).parents[2] / "examples"
SQUARE, CIRCLE = Domain.box((1.0, 1.0)), Domain.periodic((1.0,))


def field(*shape: int) -> torch.Tensor:
    return torch.linspace(0.1, 1.0, steps=torch.Size(shape).numel()).view(shape)


def run_of(kind: str) -> dict:
    """What the trainings of two examples return."""
    paths = field(30, 7, 2)
    return {
        "row": {"regularizer": kind, "evaluations": 20, "data": "circles"}, "paths": paths, "t": field(20),
        "seen": field(3, 20, 2), "shown": field(3, 20, 2) > 0.5, "prediction": field(3, 20, 2),
        "inputs": field(5, 3), "labels": torch.arange(5) % 2,
        "node": lambda u, t: SimpleNamespace(ys=field(len(t), len(u), 3)),
    }  # fmt: skip


class Pairs(list):
    """A dataset in one dimension, as the example of Burgers reads it."""

    domain, shape = CIRCLE, (16,)

    def read(self, items: range) -> tuple[torch.Tensor, torch.Tensor]:
        return field(3, 1, 16), field(3, 1, 16)


PROBLEM = SimpleNamespace(test_points=lambda: field(9, 2), exact=lambda x: x[:, 0])
COURSE = SimpleNamespace(errors=[(0.1, 1.0), (0.2, 0.1)], error=0.1, network=lambda x: x[:, 1:])
FITTED = {"optimizer": "adam", "error": 0.1} | dict.fromkeys(
    ("sharpness", "rank of features", "error of tone 8", "forgetting of A"), 2.0
)
SOLVED = [{"resolution": n, "preconditioner": "ours", "iterations (mean)": 9.0} for n in (7, 15)]
MOMENTS = (field(30, 2), field(30, 2))
DRAWN = {
    "all_together": lambda m, p: m.draw(p, {"start": field(8, 8), "truth": field(8, 8)}),
    "burgers": lambda m, p: m.draw(p, Pairs(range(3)), torch.nn.Identity()),
    "conservative_burgers": lambda m, p: m.draw(p, field(3, 1, 1, 16), {"flux": field(1, 1, 16)}),
    "convert_unet": lambda m, p: m.draw_errors(p, {"plain": {8: 0.1, 16: 0.2}, "plain, tuned": {8: 0.1, 16: 0.1}},
                                               trained_at=(8,)),
    "darcy": lambda m, p: m.draw_predictions(p, coefficient=field(8, 8), truth=field(8, 8),
                                             predictions={"FNO": 2 * field(8, 8)}, extent=m.extent_of(SQUARE)),
    "diffusion_sorption_experts": lambda m, p: m.draw(p, field(5, 8), {"soft": field(5, 8)}),
    "latent_ode": lambda m, p: m.draw(p, [run_of("none"), run_of("error")]),
    "learned_dynamics_burgers": lambda m, p: m.draw(p, field(len(m.TEST_TIMES), 1, 1, 256),
                                                    field(len(m.TEST_TIMES), 1, 1, 32)),
    "multigrid_preconditioner": lambda m, p: m.draw(p, field(7, 7), field(7, 7), [1.0, 0.5], SOLVED),
    "navier_stokes": lambda m, p: m.draw(p, field(2, 4, 1, 8, 8), field(2, 4, 1, 8, 8), {"FNO": field(4)}, SQUARE),
    "navier_stokes_experts": lambda m, p: m.draw(p, {"start": field(8, 8), "experts": field(8, 8)}),
    "neural_ode_classification": lambda m, p: m.draw(p, [run_of("none")]),
    "neural_sde_spiral": lambda m, p: m.draw(p, MOMENTS, [run_of("none")]),
    "optimizer_character": lambda m, p: m.draw(p, [FITTED], {"adam": field(128)}, error=0.2),
    "pinn_poisson": lambda m, p: m.draw(p, PROBLEM, {"adam": COURSE}),
    "positivity_and_mass": lambda m, p: m.draw(p, {"truth": field(1, 1, 8, 8), "free": field(1, 1, 8, 8)}),
    "shallow_water_sphere": lambda m, p: m.draw(p, {"truth": field(4, 8), "error": field(4, 8)}, {"SFNO": field(3)},
                                                domain=Domain.sphere(), hours=3),
    "train_on_your_file": lambda m, p: (m.draw_rollout(p, field(4, 1, 8, 8), field(4, 1, 8, 8), {"FNO": field(3)}),
                                        m.draw_pair(p, field(1, 8, 8), field(1, 8, 8), field(1, 8, 8)),
                                        m.draw_pair(p, field(1, 8), field(1, 8), field(1, 8))),
}  # fmt: skip


def test_no_example_is_forgotten():
    assert {path.stem for path in EXAMPLES.glob("[!_]*.py")} == set(DRAWN)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DRAWN)
def test_pictures(name, tmp_path, monkeypatch):
    pytest.importorskip("tyro")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    DRAWN[name](importlib.import_module(name), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1
