"""FunctionNorm: normalisation with the mean and variance of a function, not of an array."""

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError


@register_component("function_norm")
class FunctionNorm(nn.Module):
    """Shift and scale every channel to mean zero and variance one over the domain, then by learned numbers.

        v_c(x) = a_c (u_c(x) - m_c) / sqrt(s_c + epsilon) + b_c
        m_c = 1/|D| integral_D u_c(x) dx,      s_c = 1/|D| integral_D (u_c(x) - m_c)^2 dx

    for each item of the batch. The integrals use the domain's quadrature weights, so the statistics converge like
    O(h^2) on every placement of nodes, and spectrally on periodic axes; the plain means of ``nn.InstanceNorm`` are only
    O(h) accurate where the walls are nodes. With equal weights (periodic axes, cell centres) both are the same.

    Args:
        channels: channels of the field.
        domain: gives the weights; boxes and spheres.
        num_groups: mean and variance are shared by ``channels / num_groups`` channels in a row; by default every
            channel is its own group. 1 is a layer norm over channels and space.
        epsilon: added to the variance, in the squared unit of the field; positive.
        affine: learn ``a`` (from 1) and ``b`` (from 0).

    Shape: ``(batch, channels, *space) -> (batch, channels, *space)``, any resolution. Half precision input is reduced
    in float32.

    Raises:
        ArgumentError: ``num_groups`` does not divide ``channels``, or ``epsilon`` is not positive.
        ShapeError: the field has another rank or channel count.

    Source: instance and group normalisation of Ulyanov et al. (2016) and Wu and He (2018), with integrals for sums.

    >>> norm = FunctionNorm(3, domain=Domain.box((1.0, 2.0), boundary="neumann"))
    >>> norm(torch.randn(8, 3, 33, 17)).shape
    torch.Size([8, 3, 33, 17])
    """

    def __init__(
        self,
        channels: int,
        *,
        domain: Domain,
        num_groups: int | None = None,
        epsilon: float = 1e-5,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = channels if num_groups is None else num_groups
        if channels < 1 or self.num_groups < 1 or channels % self.num_groups:
            raise ArgumentError(
                f"expected a number of groups that divides {channels} channels, got {self.num_groups}; take a divisor"
            )
        if not epsilon > 0:
            raise ArgumentError(f"expected a positive epsilon, got {epsilon}; constant fields would give NaN")
        self.channels, self.domain, self.epsilon = channels, domain, epsilon
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, u: Tensor) -> Tensor:
        """Normalise every item of ``u`` by itself."""
        check_field(u, self.channels, self.domain.num_dims)
        grouped = u.to(torch.promote_types(u.dtype, torch.float32)).unflatten(1, (self.num_groups, -1))
        centred = grouped - self._mean(grouped)
        # Two passes: the mean of squares minus the squared mean cancels in float32 where the mean is large.
        normalised = (centred * (self._mean(centred.square()) + self.epsilon).rsqrt()).flatten(1, 2)
        if self.weight is not None and self.bias is not None:
            ones = (1,) * self.domain.num_dims
            normalised = torch.addcmul(self.bias.view(-1, *ones), normalised, self.weight.view(-1, *ones))
        return normalised.to(u.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.channels}, num_groups={self.num_groups}, domain={self.domain}"

    def _mean(self, grouped: Tensor) -> Tensor:
        """Mean over the channels of a group and over the domain, ``(batch, group, 1, *ones)``."""
        mean = grouped
        # The weights are a product over the axes: one matrix-vector product per axis, from the last one on.
        for index in reversed(range(self.domain.num_dims)):
            weights = self.domain.axis_weights(index, mean.shape[-1], device=mean.device)
            mean = mean @ (weights / weights.sum()).to(mean.dtype)
        return mean.mean(dim=-1)[(..., None, *[None] * self.domain.num_dims)]
