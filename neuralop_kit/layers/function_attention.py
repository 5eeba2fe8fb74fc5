"""FunctionAttention: attention between functions, as a ratio of integrals."""

import operator

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from neuralop_kit.layers.attention_window import AttentionWindow, window_on
from neuralop_kit.layers.checks import check_dtype, check_field
from neuralop_kit.layers.quadrature import log_weights
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


class FunctionAttention(nn.Module):
    """Softmax attention whose sums over points are integrals, so that it has a limit on every kind of grid.

        v(x) = O  integral e^(q(x).k(y) / sqrt(d)) w(x, y) V(y) dy  /  integral e^(q(x).k(y) / sqrt(d)) w(x, y) dy

    for each head, with ``q = Q u`` and ``k, V = K c, V c`` from the field itself or from a second one, the context. The
    *logarithm* of the quadrature weight of each key is added to its logit: a point that is split in two, with half the
    weight each, changes nothing. Where all weights are equal they cancel, and no mask is built.

    The domain's weights make the integrals O(h^2) accurate where walls are nodes, and spectrally on periodic axes and
    spheres. Equal weights would be O(h), and would not converge at all on graded points.

    Args:
        in_channels, out_channels: channels of the field.
        num_heads: attention heads.
        domain: of the field, box or sphere; ``None`` for points without a grid, fields ``(batch, channel, points)``.
        head_width: channels ``d`` of a head, by default ``out_channels / num_heads`` or above; multiples of 8 are fast.
        context_channels: of the context, by default ``in_channels``.
        context_domain: of the context, by default ``domain``; ``None`` with ``points_as_context``.
        points_as_context: the context is on points without a grid.
        window: only what is nearer than this length is seen, weighed by ``w = (1 - |x - y|^2 / window^2)^2``; on a
            sphere, the length of the great circle. By default everything is seen and ``w = 1``.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution.
    Cost: ``4 n_queries n_keys num_heads head_width`` operations; with a window on a box, ``n_keys`` is about
    ``(3 window / h)^d``, in tiles of queries with what they see around them. On a sphere the window saves nothing.
    Second and forward-mode derivatives: under ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Raises:
        ArgumentError: a size is below 1, or the window is not positive or without a domain.
        ShapeError: a field has another rank or channel count, or the weights do not fit the keys.

    Source: attention as in Vaswani et al. (2017), quadrature at the keys as in Berner et al. (2025), arXiv 2506.10973.

    >>> attention = FunctionAttention(3, 8, 2, domain=Domain.box((1.0, 2.0)))
    >>> attention(torch.randn(2, 3, 17, 33)).shape
    torch.Size([2, 8, 17, 33])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int,
        *,
        domain: Domain | None,
        head_width: int | None = None,
        context_channels: int | None = None,
        context_domain: Domain | None = None,
        points_as_context: bool = False,
        window: float | None = None,
    ) -> None:
        super().__init__()
        self.context_channels = in_channels if context_channels is None else context_channels
        sizes = (in_channels, out_channels, num_heads, self.context_channels, 1 if head_width is None else head_width)
        if min(sizes) < 1:
            raise ArgumentError(f"expected channels, heads and widths of at least 1, got {sizes}; enlarge the smallest")
        self.head_width = -(-out_channels // num_heads) if head_width is None else head_width
        self.in_channels, self.out_channels, self.num_heads = in_channels, out_channels, num_heads
        self.domain = domain
        self.context_domain = None if points_as_context else (context_domain or domain)
        self.window: AttentionWindow | None = None
        if window is not None:
            if domain is None or self.context_domain != domain:
                raise ArgumentError(
                    f"expected a window on one domain for queries and keys, got {domain} and {self.context_domain}; "
                    "use GraphKernel for neighbourhoods of points"
                )
            self.window = window_on(domain, window)
        width = num_heads * self.head_width
        self.query = nn.Linear(in_channels, width)
        self.key_value = nn.Linear(self.context_channels, 2 * width)
        self.read_out = nn.Linear(width, out_channels)

    def forward(self, u: Tensor, context: Tensor | None = None, *, weights: Tensor | None = None) -> Tensor:
        """Attend from every point of ``u`` to every point of ``context``, by default of ``u`` itself.

        ``weights`` replaces the quadrature weights of the keys: shape ``(*space)`` or ``(batch, *space)`` of the keys,
        not negative, any scale.
        """
        self._check(u, self.in_channels, self.domain)
        source = u if context is None else context
        self._check(source, self.context_channels, self.context_domain)
        check_dtype(u, self.query.weight)
        check_dtype(source, self.key_value.weight)
        shape, source_shape = (tuple(operator.index(n) for n in x.shape[2:]) for x in (u, source))
        query = self._heads(self.query(u.flatten(2).mT))
        key, value = (self._heads(part) for part in self.key_value(source.flatten(2).mT).chunk(2, dim=-1))
        log_weight = self._log_weights(source, source_shape, weights)
        if self.window is None:
            mask = None if log_weight is None else log_weight.flatten(1)[:, None, None]
            mixed = scaled_dot_product_attention(query, key, value, mask)
        else:
            self.window.check(shape, source_shape)
            mixed = self.window(query, key, value, log_weight, shape)
        rows = mixed.transpose(1, 2).flatten(2)
        v = torch.matmul(self.read_out.weight, rows.mT) + self.read_out.bias[:, None]
        return v.unflatten(2, shape)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"num_heads={self.num_heads}, head_width={self.head_width}, window={self.window}, domain={self.domain}"

    def _heads(self, rows: Tensor) -> Tensor:
        """``(batch, points, heads * width) -> (batch, heads, points, width)``, without a copy."""
        return rows.unflatten(2, (self.num_heads, self.head_width)).transpose(1, 2)

    def _log_weights(self, source: Tensor, shape: tuple[int, ...], weights: Tensor | None) -> Tensor | None:
        """Up to a constant, ``(1 or batch, *space)``; ``None`` if all are equal."""
        if weights is None:
            domain = self.context_domain
            return None if domain is None else log_weights(domain, shape, source.dtype, source.device)
        if tuple(weights.shape) not in (shape, (source.shape[0], *shape)):
            raise ShapeError(
                f"expected weights of shape {shape} or {(source.shape[0], *shape)}, got {tuple(weights.shape)}; "
                "give one weight per key"
            )
        logarithm = weights.to(source.dtype).log()
        return logarithm if weights.ndim > len(shape) else logarithm[None]

    @staticmethod
    def _check(u: Tensor, channels: int, domain: Domain | None) -> None:
        check_field(u, channels, 1 if domain is None else domain.num_dims)
