"""SpectralConv: what it computes, on every pair of grids, against two independent ways to compute the same."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralop_kit import Domain
from neuralop_kit.layers import SpectralConv, fourier
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract


@pytest.fixture
def _by_fft(monkeypatch):
    monkeypatch.setattr(fourier, "dense_is_cheaper", lambda line, rest: False)


@pytest.fixture
def _rounded_products():
    """The user allows float32 products in lower precision."""
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    yield
    backend.fp32_precision = before


class TestSpectralConv(LayerContract):
    order = SPECTRAL

    def make(self):
        return SpectralConv(self.in_channels, 3, (6, 4))


@pytest.mark.usefixtures("_by_fft")
class TestSpectralConvByFFT(TestSpectralConv):
    """The same promises where every axis takes the FFT."""


def test_compiles_with_inductor():
    TestSpectralConv().check_compile("inductor")


class TestSpectralConvOneDimension(LayerContract):
    domain = Domain.periodic((2.0,), nodes="cell")
    shapes = ((12,), (9,), (5,))
    tiny_shape = (6,)
    reference_shape = (16,)
    order = SPECTRAL

    def make(self):
        return SpectralConv(self.in_channels, 3, (7,), domain=self.domain)


class TestSpectralConvThreeDimensions(LayerContract):
    domain = Domain.periodic((2.0, 1.0, 1.0))
    shapes = ((8, 6, 7), (3, 9, 4))
    tiny_shape = (4, 2, 3)
    reference_shape = (10, 10, 10)
    num_grids = 3
    order = SPECTRAL

    def make(self):
        return SpectralConv(self.in_channels, 1, (4, 2, 3))


# ---- two other ways to compute it


def matrices(layer):
    """``{k: R_k}`` for both signs, as the docstring defines them."""
    lattice = list(itertools.product(*(range(-m, m + 1) for m in (count // 2 for count in layer.modes))))
    stored = torch.view_as_complex(layer.weight.detach().double())
    found = {}
    for k, matrix in zip(lattice[len(lattice) // 2 :], stored, strict=True):
        found[k] = matrix
        found[tuple(-i for i in k)] = matrix.conj()
    zero = (0,) * len(layer.modes)
    found[zero] = 2 * found[zero].real + 0j
    return found


def by_fft_of_everything(layer, u, output_shape):
    """Complex FFTs over all axes and both signs, mode by mode."""
    dims = tuple(range(2, u.ndim))
    shape = u.shape[2:]
    spectrum = torch.fft.fftn(u.to(torch.complex128), dim=dims, norm="forward")
    result = torch.zeros(len(u), layer.out_channels, *output_shape, dtype=torch.complex128)
    for k, matrix in matrices(layer).items():
        if all(2 * abs(i) <= min(n, o) for i, n, o in zip(k, shape, output_shape, strict=True)):
            old, new = ((..., *(i % n for i, n in zip(k, grid, strict=True))) for grid in (shape, output_shape))
            share = math.prod([0.5 if 2 * abs(i) == n else 1.0 for i, n in zip(k, shape, strict=True)])
            result[new] += share * spectrum[old] @ matrix
    values = torch.fft.ifftn(result, dim=dims, norm="forward")
    assert values.imag.abs().max() < 1e-12 * values.real.abs().max(), "the operator must be real"
    return values.real


def by_explicit_sums(layer, u, output_shape):
    """The definition: a sum over all points for each coefficient, a sum over all modes for each point."""
    unit = Domain.periodic((1.0,) * len(layer.modes))
    x = unit.coordinates(u.shape[2:], dtype=torch.float64).flatten(1)
    y = unit.coordinates(output_shape, dtype=torch.float64).flatten(1)
    values = u.flatten(2).to(torch.complex128)
    result = torch.zeros(len(u), layer.out_channels, y.shape[1], dtype=torch.complex128)
    for k, matrix in matrices(layer).items():
        wave = torch.tensor(k, dtype=torch.float64)
        coefficient = (values * torch.exp(-2j * math.pi * (wave @ x))).mean(dim=-1)
        result += torch.einsum("bi,io,y->boy", coefficient, matrix, torch.exp(2j * math.pi * (wave @ y)))
    return result.real.unflatten(2, output_shape)


CASES = [
    ((5,), (11,), (16,)),
    ((8,), (8,), (8,)),
    ((6, 4), (12, 9), (12, 9)),
    ((6, 5), (6, 4), (10, 8)),
    ((6, 4), (9, 10), (4, 3)),
    ((4, 2, 5), (6, 5, 8), (4, 7, 4)),
]


@pytest.mark.parametrize(("modes", "shape", "output_shape"), CASES)
def test_equals_the_full_complex_fft(modes, shape, output_shape):
    layer = SpectralConv(2, 3, modes).double()
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    expected = by_fft_of_everything(layer, u, output_shape)
    torch.testing.assert_close(layer(u, output_shape=output_shape), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("modes", "shape", "output_shape"), [c for c in CASES if min(c[1]) > max(c[0])])
def test_equals_the_definition(modes, shape, output_shape):
    layer = SpectralConv(2, 3, modes).double()
    shape, output_shape = tuple(n + 1 for n in shape), tuple(max(modes) + n for n in output_shape)
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    expected = by_explicit_sums(layer, u, output_shape)
    torch.testing.assert_close(layer(u, output_shape=output_shape), expected, rtol=0, atol=1e-12)


# ---- resolution


def identity(num_dims, modes, dtype=torch.float64, **options):
    """The layer that lets every kept mode pass."""
    layer = SpectralConv(1, 1, (modes,) * num_dims, **options).to(dtype)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[..., 0] = 1.0
        layer.weight[0] /= 2
    return layer


def waves(domain, shape, highest, *, seed=0):
    """A function with all modes up to ``highest``, independent of the grid, of size about one."""
    generator = torch.Generator().manual_seed(seed)
    x = domain.coordinates(shape, dtype=torch.float64)
    value = torch.zeros(shape, dtype=torch.float64)
    lattice = list(itertools.product(*(range(-highest, highest + 1) for _ in shape)))
    for k in lattice[len(lattice) // 2 :]:
        amplitude, phase = torch.rand(2, generator=generator, dtype=torch.float64)
        angle = sum(2 * math.pi * i * line / axis.length for i, line, axis in zip(k, x, domain.axes, strict=True))
        value += amplitude * torch.cos(angle + 2 * math.pi * phase)
    return value[None, None] / len(lattice) ** 0.5


@given(sizes=st.tuples(*[st.integers(1, 24)] * 4), highest=st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_resampling_is_exact_for_every_pair_of_grids(sizes, highest):
    domain = Domain.periodic((1.0, 2.0))
    highest = min(highest, (min(sizes) - 1) // 2)
    old, new = sizes[:2], sizes[2:]
    out = identity(2, 12)(waves(domain, old, highest), output_shape=new)
    torch.testing.assert_close(out, waves(domain, new, highest), rtol=0, atol=1e-12)


def check_single_precision():
    domain = Domain.periodic((1.0, 1.0))
    for old, new in (((64, 64), (128, 128)), ((128, 96), (48, 65)), ((33, 50), (64, 35))):
        u, v = waves(domain, old, 8), waves(domain, new, 8)
        out = identity(2, 16, torch.float32)(u.float(), output_shape=new).double()
        assert (out - v).norm() / v.norm() < 1e-6


def test_resampling_in_single_precision():
    check_single_precision()


@pytest.mark.usefixtures("_by_fft")
def test_resampling_in_single_precision_by_fft():
    check_single_precision()


def test_cell_centres_do_not_shift():
    for domain, exact in ((Domain.periodic((1.0, 1.0), nodes="cell"), True), (None, False)):
        cells = Domain.periodic((1.0, 1.0), nodes="cell")
        out = identity(2, 8, domain=domain)(waves(cells, (12, 15), 4), output_shape=(20, 9))
        error = (out - waves(cells, (20, 9), 4)).abs().max()
        # Negative control: without the domain the layer takes the first points of both grids for the same.
        assert (error < 1e-12) == exact


def test_same_values_at_common_points_on_every_grid():
    layer = SpectralConv(2, 3, (8, 8)).double()
    domain = Domain.periodic((1.0, 1.0))
    grids = [(9 * f, 10 * g) for f, g in ((1, 1), (2, 1), (3, 5), (4, 7))]
    fields = [torch.cat([waves(domain, shape, 4, seed=s) for s in range(2)], dim=1) for shape in grids]
    first = layer(fields[0])
    for shape, u in zip(grids[1:], fields[1:], strict=True):
        picked = layer(u)[(..., *domain.common_nodes(grids[0], shape))]
        torch.testing.assert_close(picked, first, rtol=0, atol=1e-12)


def test_more_modes_than_points_is_the_same_as_as_many_as_fit():
    few, many = SpectralConv(2, 3, (4, 5)).double(), SpectralConv(2, 3, (20, 30)).double()
    shape = (5, 5)
    inside = [k for k in itertools.product(range(-10, 11), range(-15, 16)) if k >= (0, 0)]
    kept = [max(map(abs, k)) <= 2 for k in inside]
    with torch.no_grad():
        few.weight.copy_(many.weight[torch.tensor(kept)])
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    torch.testing.assert_close(many(u), few(u), rtol=0, atol=1e-13)
    many(u).sum().backward()
    assert many.weight.grad[~torch.tensor(kept)].abs().max() == 0


# ---- the Nyquist mode


def test_full_band_input_does_not_jump_between_resolutions():
    """All modes of a grid of 16, its Nyquist mode included, seen on 16 and on 32 points."""
    layer = SpectralConv(1, 1, (16, 16)).double()
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    fine = identity(2, 16)(u, output_shape=(32, 32))
    torch.testing.assert_close(fine[..., ::2, ::2], u, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(fine)[..., ::2, ::2], layer(u), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(fine), layer(u, output_shape=(32, 32)), rtol=0, atol=1e-12)


def test_counting_the_nyquist_mode_twice_would_jump(monkeypatch):
    # Negative control: the share of the Nyquist mode is what the test above depends on.
    class Careless(fourier.Line):
        def analysis(self):
            return self._waves().conj() / self.num_points

    monkeypatch.setattr(fourier, "Line", Careless)
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    fine = identity(2, 16)(u, output_shape=(32, 32))
    assert (fine[..., ::2, ::2] - u).abs().max() > 0.1


@pytest.mark.parametrize("axis", [0, 1])
def test_nyquist_mode_keeps_its_amplitude(axis):
    coarse, fine = [6, 6], [6, 6]
    coarse[axis], fine[axis] = 8, 16
    x = torch.cos(8 * math.pi * Domain.periodic((1.0, 1.0)).coordinates(coarse, dtype=torch.float64)[axis])[None, None]
    y = torch.cos(8 * math.pi * Domain.periodic((1.0, 1.0)).coordinates(fine, dtype=torch.float64)[axis])[None, None]
    layer = identity(2, 12)
    torch.testing.assert_close(layer(x, output_shape=fine), y, rtol=0, atol=1e-13)
    torch.testing.assert_close(layer(y, output_shape=coarse), x, rtol=0, atol=1e-13)


# ---- structure


@pytest.mark.parametrize("shape", [(12, 9), (6, 4), (5, 16)])
def test_commutes_with_translations(shape):
    layer = SpectralConv(2, 3, (6, 5)).double()
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    shifted = layer(u.roll((2, 3), dims=(2, 3)))
    torch.testing.assert_close(shifted, layer(u).roll((2, 3), dims=(2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("modes", "count"), [((16,), 9), ((17,), 9), ((16, 16), 145), ((3, 5, 1), 8)])
def test_one_complex_number_per_pair_of_modes_and_channels(modes, count):
    layer = SpectralConv(2, 3, modes).double()
    assert layer.weight.shape == (count, 2, 3, 2)
    # None is redundant: each changes the output, but for the imaginary part of the mean's matrix.
    shape = tuple(2 * m for m in modes)
    out = layer(torch.randn(1, 2, *shape, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(out, layer.weight, torch.randn_like(out))
    assert (gradient.abs() < 1e-12).sum() == 6
    assert gradient[0, ..., 1].abs().max() < 1e-12


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_initial_weights_keep_the_variance(num_dims, generator):
    # A field made of kept modes, independent channels; the mean over many outputs is within four standard errors.
    modes = (8, 8, 4)[:num_dims]
    shape = tuple(2 * m + 1 for m in modes)
    low_pass = identity(num_dims, min(modes))
    ratios = []
    for _ in range(40):
        layer = SpectralConv(16, 16, modes, generator=generator).double()
        u = low_pass(torch.randn(16, 1, *shape, generator=generator, dtype=torch.float64)).transpose(0, 1)
        ratios.append((layer(u).square().mean() / u.square().mean()).item())
    ratios = torch.tensor(ratios)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / len(ratios) ** 0.5 + 1e-3
    assert ratios.std() < 0.5


def test_same_generator_same_weights():
    first, second = (SpectralConv(2, 3, (4, 4), generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)


# ---- precision


@pytest.mark.parametrize(("dtype", "num_products"), [(torch.float32, 0), (torch.float64, 4)])
@pytest.mark.usefixtures("_rounded_products")
def test_no_transform_uses_a_rounded_product(dtype, num_products, monkeypatch):
    seen = []
    multiply = fourier.left_multiply
    monkeypatch.setattr(fourier, "left_multiply", lambda *args: seen.append(args) or multiply(*args))
    layer, u = SpectralConv(2, 3, (6, 4)).to(dtype), torch.randn(2, 2, 12, 9, dtype=dtype)
    expected = by_fft_of_everything(layer, u, (12, 9))
    torch.testing.assert_close(layer(u).double(), expected, rtol=0, atol=1e-5)
    assert len(seen) == num_products


def test_few_modes_take_matrices_and_many_take_the_fft():
    points = torch.ones(1)

    def kinds(shape, highest):
        return [type(t).__name__ for t in fourier.plan(shape, highest, (0.0,) * len(shape), points)]

    assert kinds((64, 64), (8, 8)) == ["DenseDFT", "DenseDFT"]
    assert kinds((256, 256), (16, 16)) == ["DenseDFT", "DenseDFT"]
    assert kinds((1024,), (256,)) == ["FastDFT"]
    assert kinds((512, 512), (128, 128)) == ["FastDFT", "FastDFT"]


def test_half_precision_is_computed_in_single():
    layer, u = SpectralConv(2, 3, (6, 4)), torch.randn(2, 2, 12, 9).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, from_single = layer(u), layer(u.float())
    assert out.dtype == torch.bfloat16
    assert from_single.dtype == torch.float32
    assert torch.equal(from_single, layer(u.float()))
    assert torch.equal(out, layer(u.float()).bfloat16())


# ---- refusals


def test_bad_arguments_are_refused():
    for modes in ((), (4, 4, 4, 4), (0,), 16):
        with pytest.raises(ArgumentError, match="expected"):
            SpectralConv(1, 1, modes)
    with pytest.raises(ArgumentError, match="expected"):
        SpectralConv(0, 1, (4,))
    for domain in (Domain.box((1.0,)), Domain.periodic((1.0, 1.0))):
        with pytest.raises(DomainError, match="expected"):
            SpectralConv(1, 1, (4,), domain=domain)
    for output_shape in ((4,), (4, 0), (4, 4, 4)):
        with pytest.raises(ShapeError, match="expected"):
            SpectralConv(1, 1, (4, 4))(torch.ones(1, 1, 8, 8), output_shape=output_shape)
