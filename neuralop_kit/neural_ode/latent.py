"""Latent ODE: irregular time series through a recurrent encoder, a neural ODE in a latent space, and a decoder."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuralop_kit.neural_ode.node import NeuralODE
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.ode.solution import Solution


class RecurrentEncoder(nn.Module):
    """Read a series backwards in time with a gated recurrent unit; say where the latent path begins, and how surely.

    The unit is fed with values, mask and the time to the observation read before. At times without any observation
    nothing happens: such times may be put in or left out.

    Args:
        in_channels: of the series.
        latent_channels: of the initial state.
        hidden_channels: of the unit.

    Shape: values and mask ``(batch, time, in_channels)``, times ``(time,)`` or ``(batch, time)``, increasing, to mean
    and logarithm of the variance, ``(batch, latent_channels)`` each.

    Raises:
        ShapeError: values, mask or times do not fit together.

    Source: Chen et al. (2018), arXiv 1806.07366, section 5; Rubanova et al. (2019), arXiv 1907.03907.

    >>> encoder = RecurrentEncoder(3, 4, hidden_channels=16)
    >>> mean, log_variance = encoder(torch.randn(2, 10, 3), torch.ones(2, 10, 3), torch.linspace(0, 1, 10))
    >>> mean.shape, log_variance.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, in_channels: int, latent_channels: int, *, hidden_channels: int = 32) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.cell = nn.GRUCell(2 * in_channels + 1, hidden_channels)
        self.head = nn.Sequential(
            nn.Linear(hidden_channels, hidden_channels), nn.Tanh(), nn.Linear(hidden_channels, 2 * latent_channels)
        )

    def forward(self, values: Tensor, mask: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the state at the first time."""
        self._check(values, mask, t)
        known = mask.to(values.dtype)
        # Unobserved entries may hold anything, NaN included.
        seen = torch.where(known > 0, values, 0.0)
        observed = (known > 0).any(dim=-1, keepdim=True)
        times = t.to(values.dtype).expand(values.shape[:2])
        hidden = values.new_zeros(len(values), self.cell.hidden_size)
        later = times[:, -1:]
        for k in reversed(range(values.shape[1])):
            now = times[:, k : k + 1]
            proposal = self.cell(torch.cat([seen[:, k], known[:, k], later - now], dim=1), hidden)
            hidden = torch.where(observed[:, k], proposal, hidden)
            later = torch.where(observed[:, k], now, later)
        mean, log_variance = self.head(hidden).chunk(2, dim=1)
        return mean, log_variance

    def _check(self, values: Tensor, mask: Tensor, t: Tensor) -> None:
        if values.ndim != 3 or values.shape[2] != self.in_channels or mask.shape != values.shape:
            raise ShapeError(
                f"expected values and mask of shape (batch, time, {self.in_channels}), "
                f"got {tuple(values.shape)} and {tuple(mask.shape)}; a single channel still needs its axis"
            )
        if t.shape not in (values.shape[1:2], values.shape[:2]):
            raise ShapeError(f"expected times of shape (time,) or (batch, time), got {tuple(t.shape)}")


class LatentPath(NamedTuple):
    """What a latent ODE says about a series.

    Args:
        prediction: ``(batch, num_times, channel)``.
        mean, log_variance: of the initial latent state, ``(batch, latent)``.
        solution: of the differential equation; its statistics go to a regularizer.
    """

    prediction: Tensor
    mean: Tensor
    log_variance: Tensor
    solution: Solution


class LatentODE(nn.Module):
    """A variational autoencoder of time series whose latent state follows a neural ODE.

    Args:
        encoder: ``(values, mask, t) -> mean, log_variance``, such as :class:`RecurrentEncoder`.
        node: acts on latent states ``(batch, latent)``.
        decoder: latent states to channels, on the last axis.

    In training the initial state is drawn from the encoder's law; in evaluation it is the mean, unless a generator is
    given.

    Source: Chen et al. (2018), arXiv 1806.07366, section 5.

    >>> from neuralop_kit.neural_ode import Autonomous
    >>> model = LatentODE(RecurrentEncoder(3, 4), NeuralODE(Autonomous(nn.Linear(4, 4))), nn.Linear(4, 3))
    >>> path = model(torch.randn(2, 10, 3), torch.ones(2, 10, 3), torch.linspace(0, 1, 10))
    >>> path.prediction.shape
    torch.Size([2, 10, 3])
    """

    def __init__(self, encoder: nn.Module, node: NeuralODE, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.node, self.decoder = encoder, node, decoder

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        t: Tensor,
        *,
        query: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentPath:
        """Encode what was seen at ``t``; predict at ``query``, of one of the shapes of ``t``, by default at ``t``.

        The latent path begins at the first time of ``t``; ``query`` must not be earlier, and may be later.
        """
        mean, log_variance = self.encoder(values, mask, t)
        start = self.sample(mean, log_variance, generator)
        solution = self.node(start, by_time(t)) if query is None else self._continued(start, t, query)
        return LatentPath(self.decoder(solution.ys).transpose(0, 1), mean, log_variance, solution)

    def _continued(self, start: Tensor, t: Tensor, query: Tensor) -> Solution:
        """The latent path at the times of ``query``, from the first of ``t`` on."""
        times, first = by_time(query), by_time(t[..., :1]).to(query)
        if times.ndim < first.ndim:
            times = times[:, None].expand(-1, first.shape[1])
        solution = self.node(start, torch.cat([first.expand(1, *times.shape[1:]), times]))
        return replace(solution, ts=times, ys=solution.ys[1:])

    def sample(self, mean: Tensor, log_variance: Tensor, generator: torch.Generator | None) -> Tensor:
        """A state of that law; the mean itself in evaluation without a generator."""
        if not self.training and generator is None:
            return mean
        device = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype).to(mean.device)
        return mean + noise * (log_variance / 2).exp()


def by_time(t: Tensor) -> Tensor:
    """Times as a solver wants them, ``(num_times,)`` or ``(num_times, batch)``."""
    return t.T if t.ndim == 2 else t


def masked_mean_square(prediction: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the squared differences where something was observed, a number.

    >>> masked_mean_square(torch.zeros(1, 2, 1), torch.tensor([[[2.0], [float("nan")]]]), torch.tensor([[[1], [0]]]))
    tensor(4.)
    """
    observed = mask > 0
    difference = torch.where(observed, prediction - torch.where(observed, values, 0.0), 0.0)
    return difference.square().sum() / observed.sum().clamp_min(1)


def negative_evidence(
    path: LatentPath, values: Tensor, mask: Tensor, *, sigma: float, kl_weight: float = 1.0
) -> Tensor:
    """Negative evidence lower bound, up to a constant: squares over ``2 sigma^2`` and ``KL(law, N(0, 1))``.

    A number, the mean over the samples of the batch.

    Args:
        path: of the model.
        values, mask: what was observed at the times of the prediction, ``(batch, num_times, channel)``.
        sigma: standard deviation of the noise of an observation, positive.
        kl_weight: share of the second term, 0 to 1; usually begins with 0.

    >>> from neuralop_kit.neural_ode import Autonomous
    >>> model = LatentODE(RecurrentEncoder(3, 4), NeuralODE(Autonomous(nn.Linear(4, 4))), nn.Linear(4, 3))
    >>> values, mask = torch.randn(2, 10, 3), torch.ones(2, 10, 3)
    >>> path = model(values, mask, torch.linspace(0, 1, 10))
    >>> negative_evidence(path, values, mask, sigma=0.1).ndim
    0
    """
    num_observed = (mask > 0).sum().clamp_min(1)
    squares = masked_mean_square(path.prediction, values, mask) * num_observed / len(values)
    kl = (path.mean.square() + path.log_variance.exp() - path.log_variance - 1).sum(dim=1).mean() / 2
    return squares / (2 * sigma**2) + kl_weight * kl
