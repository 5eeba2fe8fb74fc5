"""DeepONet: the output as a sum of learned functions, with coefficients that depend on the input."""

import itertools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers import CoordinateEmbedding, PointwiseLinear
from neuralop_kit.layers.checks import check_field
from neuralop_kit.models.lifted import Activation
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


class FunctionsOfPosition(nn.Module):
    """Learned functions on a domain, as a network of the coordinates: ``(number, *shape)`` on any grid.

    Args:
        number: of functions.
        domain: where they live.
        width: of the two hidden layers.
        num_frequencies: harmonics per periodic axis that the network is given.
        activation: a smooth pointwise function.
    """

    def __init__(
        self, number: int, *, domain: Domain, width: int, num_frequencies: int, activation: Activation
    ) -> None:
        super().__init__()
        self.embed = CoordinateEmbedding(domain=domain, num_frequencies=num_frequencies)
        sizes = (self.embed.num_features, width, width)
        self.hidden = nn.ModuleList(PointwiseLinear(a, b) for a, b in itertools.pairwise(sizes))
        self.last, self.activation = PointwiseLinear(width, number), activation

    def forward(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Values on a grid, in the dtype and on the device of ``like``."""
        values = self.embed.features(shape, dtype=like.dtype, device=like.device)[None]
        for layer in self.hidden:
            values = self.activation(layer(values))
        functions: Tensor = self.last(values)[0]
        return functions


@register_model("deeponet")
class DeepONet(nn.Module):
    """Deep operator network, without sensors: it reads integrals of its input, and so takes any grid.

        G(u)(y) = sum_k c_k(m) t_k(y) + b,      m_ij = 1/|D| integral_D s_j(x) u_i(x) dx

    ``t_k`` (the trunk) and ``s_j`` are learned functions of position, ``c`` (the branch) is a network. With point
    evaluations for ``s_j`` it is the original DeepONet, which is tied to its sensors; quadrature lets the grid go.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box or a sphere.
        width: of all networks.
        num_layers: hidden layers of the branch.
        num_moments: number of ``s_j``.
        num_functions: number of ``t_k``: the output lies in their span, for each channel on its own.
        num_frequencies: harmonics per periodic axis that the functions of position are made of.
        activation: a smooth pointwise function.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *output_shape)``, any resolution. Under refinement
    errors fall like O(h^2) between walls and spectrally on periodic axes and spheres, as the quadrature does.
    Good values: 64 to 128 moments and functions, width 128. Where waves travel or shocks form, no fixed span is good.

    Raises:
        ArgumentError: a size is below 1.
        ShapeError: a field has another rank or channel count, or the output shape another length.

    Source: Lu et al. (2021), arXiv 1910.03193, eq. 2; integrals for sensors after Berner et al. (2025), 2506.10973.

    >>> model = DeepONet(1, 1, domain=Domain.box((1.0, 1.0)), width=16, num_moments=8, num_functions=8)
    >>> model(torch.randn(4, 1, 33, 33)).shape, model(torch.randn(4, 1, 65, 50), output_shape=(9, 9)).shape
    (torch.Size([4, 1, 33, 33]), torch.Size([4, 1, 9, 9]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 128,
        num_layers: int = 2,
        num_moments: int = 64,
        num_functions: int = 64,
        num_frequencies: int = 4,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        super().__init__()
        sizes = (in_channels, out_channels, width, num_layers, num_moments, num_functions)
        if min(sizes) < 1:
            raise ArgumentError(
                f"expected channels, widths and counts of at least 1, got {sizes}; enlarge the smallest"
            )
        self.in_channels, self.out_channels, self.domain = in_channels, out_channels, domain
        self.activation = activation
        self.read = FunctionsOfPosition(
            num_moments, domain=domain, width=width, num_frequencies=num_frequencies, activation=activation
        )
        self.trunk = FunctionsOfPosition(
            num_functions, domain=domain, width=width, num_frequencies=num_frequencies, activation=activation
        )
        widths = (in_channels * num_moments, *[width] * num_layers)
        self.branch = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.coefficients = nn.Linear(width, out_channels * num_functions)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, u: Tensor, *, output_shape: Sequence[int] | None = None) -> Tensor:
        """The operator applied to ``u``, sampled on a grid of ``output_shape``, by default that of ``u``."""
        num_dims = self.domain.num_dims
        check_field(u, self.in_channels, num_dims)
        shape = tuple(operator.index(n) for n in u.shape[2:])
        new = shape if output_shape is None else tuple(operator.index(n) for n in output_shape)
        if len(new) != num_dims:
            raise ShapeError(f"expected an output shape of {num_dims} sizes, got {new}; pass the space axes only")
        weights = self.domain.weights(shape, dtype=u.dtype, device=u.device) / self.domain.measure
        reading = (self.read(shape, u) * weights).flatten(1)
        hidden = torch.matmul(u.flatten(2), reading.mT).flatten(1)
        for layer in self.branch:
            hidden = self.activation(layer(hidden))
        coefficients = self.coefficients(hidden).unflatten(1, (self.out_channels, -1))
        values = torch.matmul(coefficients, self.trunk(new, u).flatten(1)) + self.bias[:, None]
        return values.unflatten(2, new)
