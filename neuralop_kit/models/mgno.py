"""MgNO: the multigrid neural operator."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers import MultigridOperator, PointwiseLinear
from neuralop_kit.layers.multigrid import Initialization, SphericalMultigrid
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.sphere import SphereDomain

Activation = Callable[[Tensor], Tensor]


class MgNOLayer(nn.Module):
    """A layer of operator-valued neurons: a global linear operator, a pointwise one, a bias, an activation.

        v = g(L u + W u + b)

    Args:
        operator: ``L``, from ``in_channels`` to ``out_channels`` channels.
        activation: ``g``.
        pointwise_branch: whether there are ``W`` and ``b``.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``. With a ``mask`` of an irregular domain,
    which only a :class:`MultigridOperator` takes, ``L`` acts inside of it.
    """

    def __init__(
        self,
        operator: nn.Module,
        in_channels: int,
        out_channels: int,
        *,
        activation: Activation,
        pointwise_branch: bool = True,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.pointwise = PointwiseSum(in_channels, out_channels) if pointwise_branch else None
        self.activation = activation

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the layer."""
        v = self.operator(u) if mask is None else self.operator(u, mask)
        if self.pointwise is not None:
            v = self.pointwise(u, plus=v)
        return self.activation(v)


class PointwiseSum(PointwiseLinear):
    """:class:`PointwiseLinear` for fields whose channels are adjacent in memory, as those of multigrid operators are.

    ``v + W u + b`` is one matrix product; a sum into its transposed result would have a costly gradient.
    """

    def forward(self, u: Tensor, *, plus: Tensor | None = None) -> Tensor:
        """``W u + b``, and ``plus`` on top of it."""
        rows = u.movedim(1, -1)
        if plus is None:
            return nn.functional.linear(rows, self.weight, self.bias).movedim(-1, 1)
        sums = plus.movedim(1, -1)
        flat = torch.addmm(sums.flatten(end_dim=-2), rows.flatten(end_dim=-2), self.weight.mT)
        if self.bias is not None:
            flat = flat.add_(self.bias)
        return flat.view(sums.shape).movedim(-1, 1)


@register_model("mgno")
class MgNO(nn.Module):
    """Multigrid neural operator: layers of learned multigrid cycles, without lifting or projection.

        u_0 = u,      u_i = g(L_i u_{i-1} + W_i u_{i-1} + b_i),      v = Q u_n

    ``L_i`` is a :class:`MultigridOperator` from all channels to all channels, ``W_i``, ``b_i`` and ``Q`` are pointwise;
    the first layer takes the input's channels directly to ``width``. No coordinates are needed: walls act through the
    boundary conditions of ``L_i``.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box of one to three dimensions, or a sphere, for which operators are :class:`SphericalMultigrid` and
            ``fine_levels`` and ``recompute`` have no meaning.
        width: channels of the hidden fields.
        num_layers: number of layers before the head.
        levels, cycle, pre_smoothing, post_smoothing, coarsest, fine_levels, recompute, initialization: of each
            operator. Choose ``coarsest * 2^(levels - 1)`` about the number of intervals per axis of the training data.
        activation: pointwise function.
        generator: for the initial weights of the operators.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any size from the coarsest grid on. An
    irregular domain inside the box is given as ``mask``, 1 inside and 0 outside, of shape ``(*space)`` or
    ``(batch, 1, *space)``: every ``L_i`` has a Dirichlet wall along its border, values outside are not used, and the
    result vanishes there.
    Parameters: about ``3^(d+1) * levels * num_layers * width^2`` for one sweep before and one after.
    Good values: width 24, 4 layers, 5 levels for 64 points; inputs and targets scaled to variance about 1, Adam at 1e-3
    with a one-cycle schedule.

    Raises:
        ArgumentError: a size is below 1.
        ShapeError: a field has another rank or channel count, or too few points; or a mask does not fit it.
        DomainError: a mask on a sphere.

    Source: He, Liu and Xu (2024), arXiv 2310.19809; :class:`ReferenceMgNO` is their released model.

    >>> model = MgNO(1, 1, domain=Domain.box((1.0, 1.0), nodes="cell"), width=8, num_layers=2, levels=3)
    >>> model(torch.randn(4, 1, 32, 32)).shape, model(torch.randn(4, 1, 85, 64)).shape
    (torch.Size([4, 1, 32, 32]), torch.Size([4, 1, 85, 64]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 24,
        num_layers: int = 4,
        levels: int = 5,
        cycle: str = "V",
        pre_smoothing: int = 1,
        post_smoothing: int = 1,
        coarsest: int | Sequence[int] = 4,
        fine_levels: str = "detail",
        recompute: bool = False,
        initialization: Initialization | None = None,
        activation: Activation = nn.functional.gelu,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(width, num_layers) < 1:
            raise ArgumentError(f"expected at least one channel and one layer, got width {width}, {num_layers} layers")
        self.domain = domain
        self.layers = nn.Sequential()
        for index in range(num_layers):
            num_in = width if index else in_channels
            if isinstance(domain, SphereDomain):
                operator: nn.Module = SphericalMultigrid(
                    num_in,
                    width,
                    levels,
                    domain=domain,
                    cycle=cycle,
                    pre_smoothing=pre_smoothing,
                    post_smoothing=post_smoothing,
                    coarsest=coarsest if isinstance(coarsest, int) else coarsest[0],
                    initialization=initialization,
                    generator=generator,
                )
            else:
                operator = MultigridOperator(
                    num_in,
                    width,
                    levels,
                    domain=domain,
                    cycle=cycle,
                    pre_smoothing=pre_smoothing,
                    post_smoothing=post_smoothing,
                    coarsest=coarsest,
                    fine_levels=fine_levels,
                    recompute=recompute,
                    initialization=initialization,
                    generator=generator,
                )
            self.layers.append(MgNOLayer(operator, num_in, width, activation=activation))
        self.head = PointwiseSum(width, out_channels, bias=False)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """The operator applied to ``u``, inside ``mask`` if there is one."""
        if mask is not None and isinstance(self.domain, SphereDomain):
            raise DomainError(f"expected no mask on {self.domain}; multiply the input by it, or take a box")
        for layer in self.layers:
            u = layer(u, mask=mask)
        v = self.head(u)
        return v if mask is None else v * mask.to(v.dtype)
