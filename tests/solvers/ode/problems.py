"""Problems with known solutions, shared by the tests of the integrators."""

import math

import torch
from torch import Tensor, nn

F64 = torch.float64


class VanDerPol(nn.Module):
    """x' = v, v' = mu (1 - x^2) v - x + force sin(3 t): nonlinear, and with a force not autonomous."""

    def __init__(self, mu: float = 2.0, force: float = 0.0) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu, dtype=F64))
        self.force = force

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        x, v = y[:, :1], y[:, 1:]
        return torch.cat([v, self.mu * (1 - x * x) * v - x + self.force * torch.sin(3 * t)], dim=1)


# The reference values of mu = 2 from this state at t = 10, by scipy's DOP853 at 1e-13.
START = torch.tensor([[1.3, -0.4]], dtype=F64)
END = torch.tensor([[-1.9668151, 0.2792748]], dtype=F64)
END_BY_MU = torch.tensor([[-0.2826519, -0.4345155]], dtype=F64)


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def several_starts(batch: int) -> Tensor:
    """Every sample another state, in a ring around the origin."""
    angle = torch.arange(batch, dtype=F64) * (2 * math.pi / batch) + 0.3
    return torch.stack([(1 + 0.1 * angle) * torch.cos(angle), 1.5 * torch.sin(angle)], dim=1)


class Network(nn.Module):
    """A small vector field with parameters, which depends on time."""

    def __init__(self, size: int = 2, width: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(size + 1, width, dtype=F64), nn.Linear(width, size, dtype=F64)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=F64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        t = t.expand(len(y), 1) if t.ndim == 0 else t
        return self.second(torch.tanh(self.first(torch.cat([y, t], dim=1))))
