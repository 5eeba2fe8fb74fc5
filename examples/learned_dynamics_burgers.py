"""Learn the right-hand side of Burgers' equation from its solutions: an operator inside a neural ODE.

    python examples/learned_dynamics_burgers.py
    python examples/learned_dynamics_burgers.py --steps 1000 --samples 200

u_t + u u_x = nu u_xx on a periodic interval. An FNO maps u to u_t; the method of lines and an adaptive solver make a
solution of it, which is compared with the truth at a few times. The trained model answers at times between those of the
training, and at twice the resolution. Leaves table and picture in ``results/learned_dynamics_burgers``.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _command_line import run_example, shorter
from _figures import save
from _optimizers import OptimizerName, make_optimizer
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor
from tqdm import trange

from neuralop_kit import Domain
from neuralop_kit.models import FNO
from neuralop_kit.neural_ode import Autonomous, ErrorRegularizer, NeuralODE
from neuralop_kit.solvers import GaussianRandomField, odeint
from neuralop_kit.training import relative_l2
from neuralop_kit.training.steps import training_weights


@dataclass(frozen=True)
class Settings:
    """What to train, on what, for how long.

    Args:
        viscosity: nu; the interval has length 1, the fields are of size 1.
        resolution: points of the training data.
        samples: initial states for training; 32 more are for testing.
        steps: of the optimizer.
        batch_size: solutions per step.
        optimizer: its name; one that steps from gradients.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        tolerance: of the solver in training.
        weight: of the regularizer on its error; 0 leaves it out. It damps fast components: small here, where the
            dynamics themselves are wanted.
        seed: of data and weights.
        out: where results go.
        quick: a minute on one core, too short for a good fit: errors stay at a half.
    """

    viscosity: float = 0.01
    resolution: int = 64
    samples: int = 128
    steps: int = 400
    batch_size: int = 16
    optimizer: OptimizerName = "adam"
    learning_rate: float | None = None
    tolerance: float = 1e-3
    weight: float = 0.0
    seed: int = 0
    out: Path = Path("results/learned_dynamics_burgers")
    quick: bool = False


DOMAIN = Domain.periodic((1.0,))
# The network's clock: in this time a wave changes by about itself, so that a fresh network has rates of the right size.
TIME_UNIT = 0.1
TRAINING_TIMES = torch.linspace(0, 0.4, 5)
TEST_TIMES = torch.linspace(0, 0.4, 9)


def burgers(u: Tensor, viscosity: float) -> Tensor:
    """-(u^2 / 2)_x + nu u_xx by Fourier series, ``(batch, 1, num_points)``; the upper third of the flux is cut off."""
    n = u.shape[-1]
    k = 2 * math.pi * torch.arange(n // 2 + 1, dtype=u.dtype)
    flux = torch.fft.rfft(u**2 / 2) * (torch.arange(n // 2 + 1) <= n // 3)
    return torch.fft.irfft(-1j * k * flux - viscosity * k**2 * torch.fft.rfft(u), n)


def solutions(settings: Settings, count: int, seed: int) -> Tensor:
    """Of the equation, at the test times, on 256 points, ``(num_times, count, 1, 256)``; in float64 to 1e-8."""
    field = GaussianRandomField(DOMAIN, alpha=3.0, tau=5.0, sigma=125.0, bandwidth=8)
    u0 = field.sample(count, (256,), generator=torch.Generator().manual_seed(seed)).double()
    u0 = u0 / u0.std(dim=-1, keepdim=True)
    equation = lambda t, u: burgers(u, settings.viscosity)  # noqa: E731
    solution = odeint(equation, u0, TEST_TIMES.double(), rtol=1e-8, atol=1e-8, control="joint", raise_on_failure=True)
    return solution.ys.float()


def train(trajectories: Tensor, settings: Settings) -> tuple[NeuralODE, float]:
    """The trained node, and the seconds that training took."""
    torch.manual_seed(settings.seed)
    operator = FNO(1, 1, domain=DOMAIN, width=24, num_layers=3, modes=32)
    tolerance = {"rtol": settings.tolerance, "atol": settings.tolerance}
    node = NeuralODE(Autonomous(operator), **tolerance, control="joint", raise_on_failure=True)
    optimizer = make_optimizer(settings.optimizer, node, settings.learning_rate, pace=1.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    regularizer = ErrorRegularizer(settings.weight)
    began = time.perf_counter()
    with training_weights(optimizer):
        for _ in (bar := trange(settings.steps, leave=False)):
            batch = torch.randint(settings.samples, (settings.batch_size,))
            # Short pieces from anywhere on the way: the first times of the network are not its best.
            first = int(torch.randint(len(TRAINING_TIMES) - 1, ()))
            piece = trajectories[2 * first : 2 * first + 3 : 2, batch]
            solution = node(piece[0], (TRAINING_TIMES[first : first + 2] - TRAINING_TIMES[first]) / TIME_UNIT)
            loss = relative_l2(solution.ys[-1], piece[1], domain=DOMAIN)
            optimizer.zero_grad()
            (loss + regularizer(solution.stats)).backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(error=f"{loss.item():.3g}", evaluations=int(solution.stats.num_evaluations[0]))
    return node, time.perf_counter() - began


@torch.no_grad()
def evaluate(node: NeuralODE, truth: Tensor, num_points: int) -> tuple[list[float], Tensor, int]:
    """Relative errors at the test times but the first, the solution, and the evaluations that it took."""
    coarse = truth[..., :: truth.shape[-1] // num_points]
    solution = node(coarse[0], TEST_TIMES / TIME_UNIT)
    pairs = zip(solution.ys[1:], coarse[1:], strict=True)
    errors = [relative_l2(found, wanted, domain=DOMAIN).item() for found, wanted in pairs]
    return errors, solution.ys, int(solution.stats.num_evaluations[0])


def draw(path: Path, truth: Tensor, prediction: Tensor) -> None:
    """One test solution."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for k in range(0, len(TEST_TIMES), 2):
        axis.plot(torch.arange(256) / 256, truth[k, 0, 0], color=f"C{k // 2}", label=f"t = {TEST_TIMES[k]:.1f}")
        x = torch.arange(prediction.shape[-1]) / prediction.shape[-1]
        axis.plot(x, prediction[k, 0, 0], "o", ms=3, color=f"C{k // 2}", mec="black", mew=0.4)
    title = "lines: Burgers' equation, points: learned right-hand side at twice the resolution"
    axis.set(xlabel="x", ylabel="u", title=title)
    axis.legend()
    save(figure, path)


def main(settings: Settings) -> None:
    """Generate, train, test, draw."""
    torch.set_num_threads(1)
    if settings.quick:
        settings = shorter(settings, steps=100, samples=64)
    if 128 % settings.resolution:
        raise SystemExit(f"expected a --resolution that divides 128, half of the data's, got {settings.resolution}")
    data, truth = solutions(settings, settings.samples, settings.seed), solutions(settings, 32, settings.seed + 1)
    stride = data.shape[-1] // settings.resolution
    node, seconds = train(data[..., ::stride], settings)
    rows = []
    for num_points in (settings.resolution, 2 * settings.resolution):
        errors, prediction, evaluations = evaluate(node, truth, num_points)
        rows.append(
            {
                "points": num_points, "relative L2 at t = 0.05 (between)": errors[0], "at t = 0.1": errors[1],
                "at t = 0.4": errors[-1], "evaluations": evaluations, "training seconds": seconds,
            }
        )  # fmt: skip
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "solution.png", truth, prediction)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
