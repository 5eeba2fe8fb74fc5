"""What every layer promises. Inherit :class:`LayerContract` in a test class, say how to make the layer, get the tests.

class TestSpectralConv(LayerContract):
    domain = Domain.periodic((1.0, 2.0))
    shapes = ((16, 12), (15, 9))
    order = SPECTRAL

    def make(self):
        return SpectralConv(self.in_channels, 3, (6, 4))
"""

import copy
import math

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, jvp, vjp, vmap

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.convergence import Convergence, measure_convergence

SPECTRAL = math.inf


class LayerContract:
    """The tests every layer inherits; a subclass sets the attributes that differ and defines :meth:`make`.

    Layers here map one field to one field. Where ``forward`` takes or returns more, override :meth:`apply`.
    """

    domain: Domain = Domain.periodic((1.0, 2.0))
    in_channels: int = 2
    # At least one even and one odd grid; small ones, every test runs on all of them.
    shapes: tuple[tuple[int, ...], ...] = ((12, 8), (9, 7))
    # Gradients are compared with finite differences, one by one: keep this as small as the layer allows.
    tiny_shape: tuple[int, ...] = (4, 5)

    # The order in the spacing that the docstring promises, or SPECTRAL, on num_grids grids from reference_shape on.
    order: float = 2.0
    order_tolerance: float = 0.3
    reference_shape: tuple[int, ...] = (12, 16)
    num_grids: int = 4
    # How far, relatively, the output on the finest grid may be from that on the coarsest, at the same points.
    max_drift: float = 0.05

    # Relative error of two ways to compute the same thing; for float32, against float64.
    float32_tolerance: float = 1e-5
    float64_tolerance: float = 1e-12
    # Layers that have no channel count of their own set this.
    accepts_any_channels: bool = False
    # Layers without parameters may move complex fields as well.
    takes_complex: bool = False
    # A reason why there is no second derivative; the test then checks that asking for one is an error.
    no_double_backward: str = ""

    def make(self) -> nn.Module:
        """The layer, in the default dtype; random weights from torch's global generator."""
        raise NotImplementedError

    def make_tiny(self) -> nn.Module:
        """The layer for gradient checks; override where :meth:`make` has more than a few hundred parameters."""
        return self.make()

    def apply(self, layer: nn.Module, u: Tensor) -> Tensor:
        """One field in, one field out; override to pass further inputs or to pick one of several outputs."""
        return layer(u)

    def function(self, x: Tensor, phase: float) -> Tensor:
        """A smooth function that fits the domain: coordinates ``(num_dims, *shape)`` to values ``(*shape)``."""
        value = torch.ones_like(x[0])
        for axis, line in zip(self.domain.axes, x, strict=True):
            scaled = (line - axis.start) / axis.length
            if axis.is_periodic:
                value = value * torch.exp(torch.sin(2 * math.pi * scaled + phase) / 2)
            else:
                value = value * torch.exp(scaled / 2) * torch.cos(2 * scaled + phase)
        return value

    def field(self, shape: tuple[int, ...], *, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        """:meth:`function` with a phase of its own for each item and channel: the same functions on every grid."""
        x = self.domain.coordinates(shape, dtype=torch.float64)
        rows = [self.function(x, 0.4 + 0.7 * i) for i in range(batch * self.in_channels)]
        return torch.stack(rows).reshape(batch, self.in_channels, *shape).to(dtype)

    def layer(self, dtype: torch.dtype = torch.float64, *, tiny: bool = False) -> nn.Module:
        """The layer with the same weights every time, in ``dtype``."""
        torch.manual_seed(1)
        return (self.make_tiny() if tiny else self.make()).to(dtype)

    # ---- values

    def test_output_is_a_field_of_the_input_dtype(self):
        assert any(n % 2 for shape in self.shapes for n in shape), "list an odd size in `shapes`"
        for dtype in (torch.float32, torch.float64):
            layer = self.layer(dtype)
            for shape in self.shapes:
                out = self.apply(layer, self.field(shape, dtype=dtype))
                assert out.dtype == dtype
                assert out.shape[0] == 2
                assert out.ndim == 2 + self.domain.num_dims
                assert out.isfinite().all()

    def test_float32_agrees_with_float64(self):
        for shape in self.shapes:
            single = self.apply(self.layer(torch.float32), self.field(shape, dtype=torch.float32))
            double = self.apply(self.layer(torch.float64), self.field(shape, dtype=torch.float32).double())
            self.assert_same(single.double(), double, torch.float32)

    def test_batch_is_a_loop_over_its_items(self):
        layer = self.layer()
        for shape in self.shapes:
            u = self.field(shape, batch=3)
            one_by_one = torch.cat([self.apply(layer, u[i : i + 1]) for i in range(3)])
            self.assert_same(self.apply(layer, u), one_by_one)

    def test_an_empty_batch_stays_one(self):
        # As the last of several processes may hold it: its parameters need a gradient like everybody's.
        layer = self.layer()
        some = self.field(self.shapes[0])
        none = some[:0].requires_grad_()
        out = self.apply(layer, none)
        assert out.shape == (0, *self.apply(layer, some).shape[1:])
        assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), (none, *layer.parameters())))

    def test_memory_layout_of_the_input_does_not_matter(self):
        layer = self.layer()
        for shape in self.shapes:
            u = self.field(shape)
            strided = u.movedim(1, -1).contiguous().movedim(-1, 1)
            assert self.in_channels == 1 or not strided.is_contiguous()
            self.assert_same(self.apply(layer, strided), self.apply(layer, u))
            spread = torch.stack([u, u], dim=-1).flatten(-2)[..., ::2]
            self.assert_same(self.apply(layer, spread), self.apply(layer, u))

    def test_input_is_not_modified(self):
        u = self.field(self.shapes[0])
        before = u.clone()
        self.apply(self.layer(), u)
        assert torch.equal(u, before)

    def test_same_seed_gives_the_same_bits(self):
        u = self.field(self.shapes[0], dtype=torch.float32)
        layer = self.layer(torch.float32)
        first = self.apply(layer, u)
        assert torch.equal(self.apply(layer, u), first)
        assert torch.equal(self.apply(self.layer(torch.float32), u), first)

    def test_nan_stays_in_its_own_item(self):
        layer = self.layer()
        u = self.field(self.shapes[0], batch=3)
        spoiled = u.clone()
        spoiled[1].flatten()[0] = math.nan
        out = self.apply(layer, spoiled)
        assert out[1].isnan().any(), "a NaN must not be hidden"
        self.assert_same(out[[0, 2]], self.apply(layer, u)[[0, 2]])

    # ---- it acts on functions, not on pixels

    def test_converges_under_refinement(self):
        self.check_convergence()

    def check_convergence(
        self, *, layer: nn.Module | None = None, domain: Domain | None = None, order: float | None = None
    ) -> Convergence:
        """Assert order and drift of ``layer`` on nested grids of ``domain``; what is not given is the class's."""
        layer = layer or self.layer()
        order = self.order if order is None else order
        case = copy.copy(self)
        case.domain = domain = domain or self.domain
        # Cell centres are nested under odd factors only.
        factor = 3 if any(axis.nodes == "cell" for axis in domain.axes) else 2
        shapes = [domain.refine(self.reference_shape, factor**k) for k in range(self.num_grids)]
        measured = measure_convergence(
            lambda shape: case.apply(layer, case.field(shape)), domain, shapes, factor=factor
        )
        if order == SPECTRAL:
            assert measured.is_spectral, f"expected spectral convergence, got\n{measured}"
        else:
            assert abs(measured.order - order) <= self.order_tolerance, f"expected order {order}, got\n{measured}"
        assert max(measured.drift) <= self.max_drift, f"expected a drift of at most {self.max_drift}, got\n{measured}"
        return measured

    # ---- gradients

    def test_gradients_are_right(self):
        function, inputs = self._function_of_everything()
        assert gradcheck(function, inputs)

    def test_second_derivatives_are_right(self):
        function, inputs = self._function_of_everything()
        if self.no_double_backward:
            gradients = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
            with pytest.raises(RuntimeError):
                torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs)
        else:
            assert gradgradcheck(function, inputs, gen_non_contig_grad_outputs=True, fast_mode=True)

    def test_forward_and_reverse_derivative_agree(self):
        # <v, J t> = <J^T v, t>, for the input and the parameters together.
        function, inputs = self._function_of_everything()
        inputs = tuple(x.detach() for x in inputs)
        tangents = tuple(torch.randn_like(x) for x in inputs)
        out, forward = jvp(function, inputs, tangents)
        cotangent = torch.randn_like(out)
        backward = vjp(function, *inputs)[1](cotangent)
        paired = sum((b * t).sum() for b, t in zip(backward, tangents, strict=True))
        self.assert_same(paired, (cotangent * forward).sum())

    def test_vmap_over_a_further_axis(self):
        layer = self.layer()
        for shape in self.shapes:
            fields = torch.stack([self.field(shape), self.field(shape).flip(-1), self.field(shape).square()])
            mapped = vmap(lambda u: self.apply(layer, u))(fields)
            self.assert_same(mapped, torch.stack([self.apply(layer, u) for u in fields]))

    # ---- compilers

    def test_compiles_without_graph_break(self):
        self.check_compile("aot_eager")

    def check_compile(self, backend: str, *, tiny: bool = False) -> None:
        """Compile to one graph, run at every shape, compare value and gradients with eager mode.

        With ``backend="inductor"`` this takes many seconds per shape; ``tiny`` takes the tiny layer and one shape.
        """
        layer = self.layer(tiny=tiny)
        compiled = torch.compile(layer, fullgraph=True, backend=backend)
        for shape in self.shapes[:1] if tiny else self.shapes:
            u = self.field(shape).requires_grad_()
            inputs = (u, *layer.parameters())
            expected, actual = self.apply(layer, u), self.apply(compiled, u)
            self.assert_same(actual, expected)
            wanted = torch.autograd.grad(expected.square().sum(), inputs)
            for got, want in zip(torch.autograd.grad(actual.square().sum(), inputs), wanted, strict=True):
                self.assert_same(got, want)

    def test_exports(self):
        layer, u = self.layer(), self.field(self.shapes[0])
        program = torch.export.export(_Applied(self, layer), (u,))
        self.assert_same(program.module()(u), self.apply(layer, u))

    # ---- persistence

    def test_parameters_and_buffers_are_real(self):
        # Straight from make(): converting a module to float64 silently drops imaginary parts.
        for name, tensor in self.make().state_dict().items():
            assert not tensor.is_complex(), f"store {name} as a real tensor with a trailing axis of 2"

    def test_state_survives_safetensors(self):
        layer, u = self.layer(), self.field(self.shapes[0])
        names = set(layer.state_dict())
        expected = self.apply(layer, u)
        assert set(layer.state_dict()) == names, "calling a layer must not change what it saves"
        stored = safetensors.torch.load(safetensors.torch.save(layer.state_dict()))
        other = self.layer()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.normal_()
        other.load_state_dict(stored)
        assert torch.equal(self.apply(other, u), expected)

    def test_copies_are_equal_and_independent(self):
        layer, u = self.layer(), self.field(self.shapes[0])
        expected = self.apply(layer, u)
        twin = copy.deepcopy(layer)
        assert torch.equal(self.apply(twin, u), expected)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1.0)
        assert torch.equal(self.apply(layer, u), expected)

    # ---- refusals

    def test_wrong_shapes_are_refused(self):
        layer = self.layer()
        for bad in self.wrong_fields(self.field(self.shapes[0])):
            with pytest.raises(ShapeError, match="expected"):
                self.apply(layer, bad)

    def wrong_fields(self, u: Tensor) -> list[Tensor]:
        """Fields the layer must refuse: a space axis too few or too many, channels doubled or missing."""
        wrong = [u[0], u.unsqueeze(-1)]
        return wrong if self.accepts_any_channels else [*wrong, torch.cat([u, u], dim=1), u[:, :0]]

    def test_complex_numbers_and_integers_are_refused(self):
        layer, u = self.layer(), self.field(self.shapes[0])
        for dtype in (torch.int64, torch.bool) if self.takes_complex else (torch.int64, torch.bool, torch.complex128):
            with pytest.raises(ArgumentError, match=f"got {dtype}; give complex numbers as two channels"):
                self.apply(layer, u.to(dtype))

    # ---- devices

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    def test_cuda_agrees_with_cpu(self):
        for dtype in (torch.float32, torch.float64):
            layer, on_cuda = self.layer(dtype), self.layer(dtype).cuda()
            for shape in self.shapes:
                u = self.field(shape, dtype=dtype).requires_grad_()
                v = u.detach().cuda().requires_grad_()
                out, same = self.apply(layer, u), self.apply(on_cuda, v)
                assert same.is_cuda
                self.assert_same(same.cpu(), out, dtype)
                wanted = torch.autograd.grad(out.square().sum(), (u, *layer.parameters()))
                got = torch.autograd.grad(same.square().sum(), (v, *on_cuda.parameters()))
                for a, b in zip(got, wanted, strict=True):
                    self.assert_same(a.cpu(), b, dtype, factor=10)

    # ---- helpers

    def assert_same(
        self, actual: Tensor, expected: Tensor, dtype: torch.dtype = torch.float64, *, factor: float = 1.0
    ) -> None:
        """Equal up to ``factor`` times the tolerance of ``dtype``, relative to the largest entry."""
        assert actual.shape == expected.shape
        assert actual.isfinite().all()
        if expected.numel():
            tolerance = self.float32_tolerance if dtype == torch.float32 else self.float64_tolerance
            scale = expected.abs().max().clamp_min(1e-30)
            error = ((actual - expected).abs().max() / scale).item()
            assert error <= factor * tolerance, f"relative error {error:.2e}"

    def _function_of_everything(self):
        """The tiny layer as a function of its input and its parameters, and where to evaluate it."""
        layer = self.layer(tiny=True)
        names = [name for name, _ in layer.named_parameters()]
        wrapped = _Applied(self, layer)

        def function(u, *values):
            replaced = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
            return functional_call(wrapped, replaced, (u,))

        inputs = (self.field(self.tiny_shape), *(p.detach().clone() for p in layer.parameters()))
        return function, tuple(x.requires_grad_() for x in inputs)


class _Applied(nn.Module):
    """A layer called through its contract's :meth:`LayerContract.apply`."""

    def __init__(self, contract: LayerContract, layer: nn.Module) -> None:
        super().__init__()
        self.contract = contract
        self.layer = layer

    def forward(self, u: Tensor) -> Tensor:
        return self.contract.apply(self.layer, u)
