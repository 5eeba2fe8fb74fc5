"""Relative errors of fields, weighted by quadrature so that they mean the same at every resolution."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.sphere import SphereDomain


class RelativeLoss(ABC):
    """A norm of the error over the same norm of the target, per sample, then averaged over the batch.

    Leaves say which linear :meth:`features` of a field the Euclidean norm is taken of. The same features give the
    signed residual vector that least-squares optimizers need.

    Args:
        domain: where the fields live; its quadrature weights make the value independent of the resolution. ``None``
            counts every point alike.
    """

    def __init__(self, domain: Domain | None = None) -> None:
        self.domain = domain

    @abstractmethod
    def features(self, u: Tensor, roots: Tensor | None) -> Tensor:
        """Linear in ``u``, ``(batch, num_features)``: the Euclidean norm is that of the sample, up to a constant.

        ``roots`` are the square roots of the quadrature weights, or None when all weights are equal.
        """

    def per_sample(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``|prediction - target| / |target|`` of each sample, shape ``(batch,)``; a target of zero gives infinity."""
        prediction, target = comparable(prediction, target)
        # vector_norm has the subgradient zero at zero, where the square root of a sum has none.
        roots = root_weights(target, self.domain)
        error = torch.linalg.vector_norm(self.features(prediction - target, roots), dim=1)
        return error / torch.linalg.vector_norm(self.features(target, roots), dim=1)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of :meth:`per_sample`, a scalar."""
        return self.per_sample(prediction, target).mean()

    def residual(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Signed real vector; its squared norm is the mean over the batch of the *squared* relative errors."""
        prediction, target = comparable(prediction, target)
        roots = root_weights(target, self.domain)
        size = torch.linalg.vector_norm(self.features(target, roots), dim=1, keepdim=True) * target.shape[0] ** 0.5
        scaled = self.features(prediction - target, roots) / size
        return (torch.view_as_real(scaled) if scaled.is_complex() else scaled).reshape(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.domain is None else self.domain})"


class RelativeL2(RelativeLoss):
    """Relative L2 error as an object, for :class:`Trainer`; see :func:`relative_l2`.

    Args:
        domain: gives the quadrature weights; ``None`` counts every point alike.

    >>> loss = RelativeL2(Domain.box((1.0, 1.0)))
    >>> target = torch.ones(4, 1, 9, 9)
    >>> round(loss(1.25 * target, target).item(), 6), loss.residual(1.25 * target, target).shape
    (0.25, torch.Size([324]))
    """

    def features(self, u: Tensor, roots: Tensor | None) -> Tensor:
        """``sqrt(weight) * u`` at every point."""
        return (u if roots is None else u * roots).flatten(start_dim=1)


class RelativeH1(RelativeLoss):
    """Relative H1 error as an object, for :class:`Trainer`; see :func:`relative_h1`.

    Args:
        domain: gives spacing and quadrature weights.

    >>> loss = RelativeH1(Domain.box((1.0, 1.0)))
    >>> target = torch.rand(4, 1, 9, 9)
    >>> round(loss(1.25 * target, target).item(), 6)
    0.25
    """

    def __init__(self, domain: Domain) -> None:
        if isinstance(domain, SphereDomain):
            raise DomainError("expected a box, got a sphere, where relative_h1 has no gradient; use relative_l2")
        super().__init__(domain)
        self.box = domain

    def features(self, u: Tensor, roots: Tensor | None) -> Tensor:
        """``sqrt(weight)`` times the values and every first derivative."""
        parts = [u, *(derivative(u, self.box, axis) for axis in range(self.box.num_dims))]
        return torch.cat([(p if roots is None else p * roots).flatten(start_dim=1) for p in parts], dim=1)


def relative_l2(prediction: Tensor, target: Tensor, *, domain: Domain | None = None, reduction: str = "mean") -> Tensor:
    """Relative L2 error of fields: the measure in which neural operators are usually compared.

        |p - t| / |t|,   |u|^2 = sum over channels and points of  weight(x) u(x)^2

    Per sample first, then the reduction, so that nothing depends on the batch size. With equal weights this is the
    error of the FNO paper; a trajectory gives one ratio for all its times together. Half precision is computed in fp32.

    Args:
        prediction, target: ``(batch, channel, *space)`` or ``(batch, time, channel, *space)``, equal shapes.
        domain: gives the quadrature weights; ``None`` counts every point alike.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (shape ``(batch,)``) over samples.

    A target that vanishes identically gives infinity, or NaN when the prediction vanishes too: no hidden epsilon.

    Raises:
        ShapeError: the shapes differ. DomainError: the domain has another number of axes.

    Source: Li et al. (2021), arXiv 2010.08895, section 5.

    >>> domain = Domain.periodic((1.0,))
    >>> target = torch.sin(2 * torch.pi * domain.coordinates((32,))).unsqueeze(0)
    >>> round(relative_l2(1.1 * target, target, domain=domain).item(), 6)
    0.1
    """
    return reduced(RelativeL2(domain).per_sample(prediction, target), reduction)


def relative_h1(prediction: Tensor, target: Tensor, *, domain: Domain, reduction: str = "mean") -> Tensor:
    """Relative H1 error: values and first derivatives together, so that oscillating errors cost what they should.

        |p - t| / |t|,   |u|^2 = integral of  u^2 + |grad u|^2

    Derivatives are spectral along periodic axes (exact for band-limited fields; the Nyquist mode of an even axis has
    none) and second-order differences along the others, one-sided at the walls. The error of the value itself is thus
    O(h^2) unless all axes are periodic.

    Args:
        prediction, target: ``(batch, channel, *space)`` or ``(batch, time, channel, *space)``, equal shapes.
        domain: gives spacing, boundaries and weights; not a sphere. Non-periodic axes carry at least three points.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (shape ``(batch,)``) over samples.

    Raises:
        ShapeError: the shapes differ. DomainError: the domain is a sphere, or has another number of axes.

    >>> domain = Domain.periodic((2 * torch.pi,))
    >>> x = domain.coordinates((32,)).unsqueeze(0)
    >>> error = relative_h1(torch.sin(x) + 0.1 * torch.sin(3 * x), torch.sin(x), domain=domain)
    >>> round(error.item(), 6) == round(0.1 * (10 / 2) ** 0.5, 6)
    True
    """
    return reduced(RelativeH1(domain).per_sample(prediction, target), reduction)


def derivative(u: Tensor, domain: Domain, axis: int) -> Tensor:
    """First derivative along one space axis: spectral where periodic, second-order differences elsewhere."""
    shape = u.shape[-domain.num_dims :]
    dim = u.ndim - domain.num_dims + axis
    num_points = shape[axis]
    if not domain.axes[axis].is_periodic:
        spacing = domain.spacing(shape)[axis]
        return torch.gradient(u, spacing=spacing, dim=dim, edge_order=2)[0]
    angular = torch.fft.fftfreq(num_points, d=1.0 / num_points, dtype=torch.float64, device=u.device)
    angular *= 2 * torch.pi / domain.axes[axis].length
    if num_points % 2 == 0:
        # The slope of the sawtooth mode vanishes at every point of the grid.
        angular[num_points // 2] = 0.0
    symbol = torch.complex(torch.zeros_like(angular), angular).to(torch.promote_types(u.dtype, torch.complex32))
    symbol = symbol.reshape(-1, *[1] * (u.ndim - 1 - dim))
    if u.is_complex():
        return torch.fft.ifft(torch.fft.fft(u, dim=dim) * symbol, dim=dim)
    half = symbol[: num_points // 2 + 1]
    return torch.fft.irfft(torch.fft.rfft(u, dim=dim) * half, n=num_points, dim=dim)


def comparable(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors, checked to have one shape (nothing broadcasts by accident), in at least fp32."""
    if prediction.shape != target.shape:
        raise ShapeError(
            f"expected prediction and target of one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}; "
            "check the model's output channels and resolution"
        )
    if prediction.ndim < 2:
        raise ShapeError(f"expected (batch, channel, *space), got {tuple(prediction.shape)}; add the missing axes")
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype), target.to(dtype)


def root_weights(u: Tensor, domain: Domain | None) -> Tensor | None:
    """Square roots of the quadrature weights, up to a constant, which no ratio of norms sees; None if all are equal."""
    if domain is None:
        return None
    shape = u.shape[-domain.num_dims :]
    if u.ndim < 2 + domain.num_dims:
        raise DomainError(
            f"expected fields with {domain.num_dims} space axes behind batch and channel, got {tuple(u.shape)}; "
            "give the domain on which they live"
        )
    domain.check_shape(shape)
    axes = zip(domain.axes, shape, strict=True)
    if not isinstance(domain, SphereDomain) and all(axis.placement.end_weights(n) == (1.0, 1.0) for axis, n in axes):
        return None
    roots = torch.ones((), dtype=u.real.dtype if u.is_complex() else u.dtype, device=u.device)
    for i, n in enumerate(shape):
        roots = roots.unsqueeze(-1) * domain.axis_weights(i, n, device=u.device).sqrt().to(roots.dtype)
    return roots


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Mean, sum or all of the values over samples (axis 0)."""
    if reduction == "mean":
        return values.mean(dim=0)
    if reduction == "sum":
        return values.sum(dim=0)
    if reduction == "none":
        return values
    raise ArgumentError(f"expected a reduction among 'mean', 'sum', 'none', got {reduction!r}; take one of these")
