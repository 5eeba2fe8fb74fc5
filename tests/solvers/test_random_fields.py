"""Random fields: the covariance that is written down, and the same function on every grid."""

import math

import pytest
import scipy.fft
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.domain import BOUNDARIES
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.trigonometric import trigonometric_basis

KINDS = [(boundary, nodes) for boundary, placements in BOUNDARIES.items() for nodes in placements]

# Eigenvalue sums: pointwise for periodic boxes, the space average on the Neumann box.
VORTICITY = GaussianRandomField(Domain.periodic((1.0, 1.0)), alpha=2.5, tau=7.0)
BURGERS = GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=5.0, sigma=25.0)
DARCY = GaussianRandomField(Domain.box((1.0, 1.0), boundary="neumann", nodes="cell"), alpha=2.0, tau=3.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(field: GaussianRandomField, batch: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return field.sample(batch, shape, generator=seeded(seed), dtype=torch.float64)


def eigenfunctions(domain: Domain, num_modes: int, num_points: int) -> Tensor:
    """phi_m at the points of a one-dimensional domain, from their formulas, shape (num_modes, num_points)."""
    (axis,) = domain.axes
    x = domain.coordinates((num_points,), dtype=torch.float64)[0] - axis.start
    constant = torch.full_like(x, axis.length**-0.5)
    root = math.sqrt(2 / axis.length)
    rows = []
    for m in range(num_modes):
        if axis.boundary == "dirichlet":
            rows.append(root * torch.sin((m + 1) * math.pi * x / axis.length))
        elif m == 0:
            rows.append(constant)
        elif axis.boundary == "neumann":
            rows.append(root * torch.cos(m * math.pi * x / axis.length))
        else:
            wave = 2 * math.pi * ((m + 1) // 2) * x / axis.length
            rows.append(root * (torch.cos(wave) if m % 2 else torch.sin(wave)))
    return torch.stack(rows)


# ---- eigenfunctions


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@pytest.mark.parametrize("num_points", [4, 5, 16, 33])
def test_eigenfunctions_are_evaluated_exactly_also_on_grids_too_coarse_for_them(boundary, nodes, num_points):
    domain = Domain.box((1.7,), boundary=boundary, nodes=nodes, origin=(0.4,))
    basis = trigonometric_basis(domain.axes[0])
    num_modes = basis.num_modes(11)
    exact = eigenfunctions(domain, num_modes, num_points)
    computed = basis.evaluate(torch.eye(num_modes, dtype=torch.float64), num_points, dim=1)
    torch.testing.assert_close(computed, exact, rtol=0, atol=1e-13)
    weights = torch.rand(num_modes, dtype=torch.float64)
    torch.testing.assert_close(basis.evaluate_squares(weights, num_points, dim=0), weights @ exact**2)


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
def test_eigenfunctions_are_orthonormal_and_belong_to_their_wavenumbers(boundary, nodes):
    domain = Domain.box((0.6,), boundary=boundary, nodes=nodes)
    basis = trigonometric_basis(domain.axes[0])
    num_modes = basis.num_modes(5)
    phi = basis.evaluate(torch.eye(num_modes, dtype=torch.float64), 401, dim=1)
    weights = domain.weights((401,), dtype=torch.float64)
    gram = (phi * weights) @ phi.mT
    torch.testing.assert_close(gram, torch.eye(num_modes, dtype=torch.float64), rtol=0, atol=2e-2)
    (h,) = domain.spacing((401,))
    second = -(phi[:, 2:] - 2 * phi[:, 1:-1] + phi[:, :-2]) / h**2
    squared = (basis.wavenumbers(num_modes) ** 2)[:, None]
    torch.testing.assert_close(second, squared * phi[:, 1:-1], rtol=0, atol=1e-3 * squared.max().item())


# ---- variance


@pytest.mark.parametrize(
    ("field", "shape", "variance"),
    [(VORTICITY, (256, 256), 0.1852**2), (BURGERS, (8192,), 0.5936**2), (DARCY, (421, 421), 0.0853)],
)
def test_variances_of_the_reference_problems(field, shape, variance):
    assert field.average_variance(shape) == pytest.approx(variance, rel=1e-3)
    assert field.variance(shape).mean().item() == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize(
    ("field", "shape", "batch"), [(VORTICITY, (64, 64), 2000), (BURGERS, (128,), 20000), (DARCY, (48, 48), 4000)]
)
def test_empirical_variance_is_the_sum_of_eigenvalues(field, shape, batch):
    samples = draw(field, batch, shape)
    energy = (field.domain.weights(shape, dtype=torch.float64) * samples.square()).flatten(1).sum(1).mean().item()
    eigenvalues = field.eigenvalues(shape)
    exact = eigenvalues.sum().item()
    # The energy is a weighted sum of chi-squares: its standard deviation is known.
    deviation = math.sqrt(2 * eigenvalues.square().sum().item() / batch) / exact
    assert deviation < 0.02, "too few samples to tell"
    assert abs(energy / exact - 1) < 4 * deviation


def test_pointwise_variance_near_walls():
    # Twice as large at an edge, four times at a corner, as all cosines are extreme there.
    variance = DARCY.variance((32, 32))
    samples = draw(DARCY, 6000, (32, 32))[:, 0]
    ratio = samples.square().mean(dim=0) / variance
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 6000)
    assert variance[0, 0] > 3 * variance.mean() / 2
    dirichlet = GaussianRandomField(Domain.box((1.0,), nodes="vertex"), alpha=1.0, tau=2.0).variance((17,))
    assert dirichlet[[0, -1]].abs().max() < 1e-14


@pytest.mark.parametrize("num_dims", [1, 2])
def test_large_boxes_have_the_variance_of_the_whole_space(num_dims):
    # Matern's variance: sigma^2 Gamma(alpha - d/2) / ((4 pi)^(d/2) Gamma(alpha)) tau^(d - 2 alpha).
    alpha, tau, sigma = 3.0, 2.0, 1.5
    field = GaussianRandomField(Domain.periodic((20.0,) * num_dims), alpha=alpha, tau=tau, sigma=sigma, zero_mean=False)
    exact = sigma**2 * math.gamma(alpha - num_dims / 2) / ((4 * math.pi) ** (num_dims / 2) * math.gamma(alpha))
    exact *= tau ** (num_dims - 2 * alpha)
    assert field.average_variance((512,) * num_dims) == pytest.approx(exact, rel=1e-5)


def test_the_sampler_of_2020_is_larger_by_the_square_root_of_two():
    old = GaussianRandomField(VORTICITY.domain, alpha=2.5, tau=7.0, amplitude="fno2020")
    assert math.sqrt(old.average_variance((256, 256))) == pytest.approx(0.2620, abs=1e-4)
    torch.testing.assert_close(
        draw(old, 2, (32, 32)), math.sqrt(2) * draw(VORTICITY, 2, (32, 32)), rtol=1e-12, atol=1e-12
    )


def test_plain_fft_sampler_has_the_same_law():
    # The sampler of the FNO paper as it was corrected in 2021, on the same grid: an independent draw of the same law.
    n, batch = 64, 2000
    k = 2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    squared = k[:, None] ** 2 + k**2
    root = 7.0**1.5 * (squared + 49) ** -1.25
    root[0, 0] = 0
    noise = torch.randn(batch, n, n, dtype=torch.complex128, generator=seeded(1))
    theirs = (math.sqrt(2) * n**2 * torch.fft.ifft2(root * noise)).real
    assert theirs.square().mean().item() == pytest.approx(VORTICITY.average_variance((n, n)), rel=0.05)


# ---- the zero mode


@pytest.mark.parametrize("field", [VORTICITY, DARCY], ids=["periodic", "neumann"])
def test_zero_mode_is_exactly_zero(field):
    assert field.eigenvalues((32, 32))[0, 0] == 0
    samples = draw(field, 4, (32, 32))
    assert samples.mean(dim=(-2, -1)).abs().max() < 1e-15


def test_constant_mode_can_be_kept():
    field = GaussianRandomField(DARCY.domain, alpha=2.0, tau=3.0, zero_mean=False)
    assert field.eigenvalues((8, 8))[0, 0].item() == pytest.approx(9 / 81)
    difference = draw(field, 4, (8, 8)) - draw(DARCY, 4, (8, 8))
    assert difference.std(dim=(-2, -1)).max() < 1e-14
    assert difference.abs().min() > 1e-4


# ---- the same function on every grid


def test_low_modes_are_equal_on_two_grids():
    coarse, fine = draw(DARCY, 3, (24, 36)).numpy(), draw(DARCY, 3, (97, 51)).numpy()
    low_coarse = scipy.fft.dctn(coarse, axes=(2, 3), norm="forward")[..., :24, :36]
    low_fine = scipy.fft.dctn(fine, axes=(2, 3), norm="forward")[..., :24, :36]
    assert abs(low_coarse - low_fine).max() < 1e-14
    periodic = [torch.fft.rfft(draw(BURGERS, 2, (n,)), norm="forward")[..., :20] for n in (40, 301)]
    torch.testing.assert_close(*periodic, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "domain",
    [
        Domain.box((1.0, 3.0), boundary=("periodic", "neumann")),
        Domain.box((2.0, 0.5), boundary=("dirichlet", "neumann"), nodes=("interior", "cell")),
        Domain.box((1.0, 1.0, 2.0), boundary=("periodic", "neumann", "dirichlet"), nodes=("left", "vertex", "vertex")),
    ],
)
def test_a_bandwidth_fixes_the_function(domain):
    # The coarsest grid cannot resolve it, and samples it all the same.
    field = GaussianRandomField(domain, alpha=1.5, tau=3.0, bandwidth=5)
    coarse = (5, 6, 7)[: domain.num_dims]
    values = draw(field, 2, coarse)
    for factor in (3, 9) if domain.num_dims < 3 else (3,):
        fine = domain.refine(coarse, factor)
        common = domain.common_nodes(coarse, fine)
        torch.testing.assert_close(draw(field, 2, fine)[(..., *common)], values, rtol=0, atol=1e-13)


def test_without_a_bandwidth_a_coarse_grid_does_not_alias():
    # The coarse field is the projection of the fine one: the missing energy is that of the modes it cannot hold.
    coarse, fine = draw(BURGERS, 400, (16,)), draw(BURGERS, 400, (64,))
    spectrum = torch.fft.rfft(fine, norm="forward")
    kept = torch.fft.irfft(spectrum[..., :8], n=16, norm="forward")
    torch.testing.assert_close(coarse, kept, rtol=0, atol=1e-13)


def test_dtype_does_not_change_the_function():
    single = VORTICITY.sample(2, (48, 48), generator=seeded(), dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), draw(VORTICITY, 2, (48, 48)), rtol=0, atol=1e-6)
    assert VORTICITY.sample(1, (8, 8), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_one_generator_per_sample_makes_samples_independent_of_their_neighbours():
    batch = DARCY.sample(3, (20, 20), generator=[seeded(s) for s in (4, 5, 6)])
    alone = DARCY.sample(1, (20, 20), generator=seeded(5))
    other = DARCY.sample(2, (20, 20), generator=[seeded(9), seeded(5)])
    assert torch.equal(batch[1:2], alone)
    assert torch.equal(other[1:], alone)
    assert not torch.equal(batch[0], batch[1])


def test_same_seed_gives_the_same_bits():
    assert torch.equal(draw(VORTICITY, 2, (17, 18)), draw(VORTICITY, 2, (17, 18)))
    torch.manual_seed(3)
    first = VORTICITY.sample(1, (8, 8))
    torch.manual_seed(3)
    assert torch.equal(VORTICITY.sample(1, (8, 8)), first)


def test_boundary_can_differ_from_the_domain():
    walls = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    field = GaussianRandomField(walls, alpha=2.0, tau=3.0, boundary="neumann")
    assert torch.equal(draw(field, 2, (20, 20)), draw(DARCY, 2, (20, 20)))
    inner = GaussianRandomField(
        Domain.box((1.0,), nodes="interior"), alpha=2.0, tau=3.0, boundary="neumann", bandwidth=5
    )
    outer = GaussianRandomField(Domain.box((1.0,), boundary="neumann"), alpha=2.0, tau=3.0, bandwidth=5)
    torch.testing.assert_close(draw(inner, 2, (15,)), draw(outer, 2, (17,))[..., 1:-1], rtol=0, atol=1e-14)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_any_device():
    on_cuda = VORTICITY.sample(2, (32, 32), generator=seeded(), dtype=torch.float64, device="cuda")
    assert on_cuda.is_cuda
    torch.testing.assert_close(on_cuda.cpu(), draw(VORTICITY, 2, (32, 32)), rtol=0, atol=1e-12)
    own = [torch.Generator("cuda").manual_seed(1) for _ in range(2)]
    low = [
        torch.fft.rfft2(VORTICITY.sample(1, (n, n), generator=g, dtype=torch.float64), norm="forward")[..., :8, :8]
        for n, g in zip((32, 100), own, strict=True)
    ]
    torch.testing.assert_close(*low, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=-1.0, tau=1.0),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=-1.0),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=0.0),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=0.0, sigma=1.0, zero_mean=False),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=1.0, amplitude="fno"),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=1.0, bandwidth=0),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=1.0, bandwidth=(3, 3)),
        lambda: BURGERS.sample(0, (8,)),
        lambda: BURGERS.sample(2, (8,), generator=[seeded()]),
    ],
)
def test_bad_arguments_are_refused(attempt):
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        attempt()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: GaussianRandomField(Domain.sphere(), alpha=2.0, tau=1.0),
        lambda: GaussianRandomField(Domain.periodic((1.0,)), alpha=2.0, tau=1.0, boundary="neumann"),
        lambda: GaussianRandomField(Domain.box((1.0,)), alpha=2.0, tau=1.0, boundary="robin"),
        lambda: BURGERS.sample(2, (8, 8)),
    ],
)
def test_unfitting_domains_are_refused(attempt):
    with pytest.raises(DomainError, match=r"expected .*, got .*; "):
        attempt()
