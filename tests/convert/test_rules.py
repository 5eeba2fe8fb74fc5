"""Single rules: one module between pointwise layers equals its conversion at the reference, and runs on finer grids."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit import Domain
from neuralop_kit.convert import to_operator

# Enough points for the widest window below, few enough for 3-D.
POINTS = {1: 16, 2: 12, 3: 8}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NODES = ("left", "vertex", "cell", "interior")


def domain_of(nodes: str, num_dims: int) -> Domain:
    """A torus, or a box with its nodes on, next to or inside of the walls."""
    if nodes == "left":
        return Domain.periodic((1.0,) * num_dims)
    return Domain.box((1.0,) * num_dims, boundary="dirichlet" if nodes == "interior" else "neumann", nodes=nodes)


@dataclass(frozen=True)
class Rule:
    """A module for four channels, and where it is tried."""

    name: str
    make: Callable[[], nn.Module]
    num_dims: int = 2
    nodes: str = "left"
    keeps_space: bool = True

    def __str__(self) -> str:
        return f"{self.name}, {self.num_dims}-D, {self.nodes}"


class Points(nn.Module):
    """Points as tokens: ``(batch, channel, *space)`` to ``(batch, points, channel)`` and back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, u: Tensor) -> Tensor:
        v = self.inner(u.flatten(2).transpose(1, 2))
        return v.transpose(1, 2).reshape(u.shape)


class SelfAttention(nn.Module):
    """Torch's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


class DotProduct(nn.Module):
    """Torch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        return functional.scaled_dot_product_attention(query, key, value)


class ByMatrixTranspose(nn.Module):
    """The last two dimensions exchanged, which for three dimensions is not the same as all of them."""

    def forward(self, u: Tensor) -> Tensor:
        return functional.softmax(u.flatten(2).mT, dim=-1).transpose(1, 2).reshape(u.shape)


class ChannelsLast(nn.Module):
    """A layer that finds channels in the last dimension."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(u.movedim(1, -1)).movedim(-1, 1)


class Embedded(nn.Module):
    """A learned value for each place."""

    def __init__(self, *space: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 4, *space))
        self.register_buffer("scale", torch.full((1,), 0.5), persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        return u + self.scale * self.positions


class EmbeddedTokens(nn.Module):
    """A learned value for each token."""

    def __init__(self, num_points: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, num_points, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.positions


class SoftmaxModule(nn.Module):
    """Attention whose softmax is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.Softmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attend(tokens @ tokens.transpose(1, 2)) @ tokens


class Bounded(nn.Module):
    """A bound that is a table over places."""

    def __init__(self, *space: int) -> None:
        super().__init__()
        self.least = nn.Parameter(torch.randn(4, *space))

    def forward(self, u: Tensor) -> Tensor:
        return u.clamp(min=self.least)


class Constants(nn.Module):
    """Tensors that the code makes on each call."""

    def forward(self, u: Tensor) -> Tensor:
        return u * torch.linspace(0, 1, u.shape[1]).reshape(4, 1, 1) + torch.linspace(1, 2, 12)


class Down(nn.Module):
    """A size that is found by the call itself."""

    def forward(self, u: Tensor) -> Tensor:
        return functional.interpolate(functional.avg_pool2d(u, 2), size=u.shape[2:], mode="bilinear")


def conv(num_dims: int, *, mode: str = "zeros", **options: int) -> Callable[[], nn.Module]:
    settings = {"kernel_size": 3, "padding": 1} | options
    return lambda: CONVS[num_dims](4, 4, padding_mode=mode, **settings)


def transposed(num_dims: int, **options: int) -> Callable[[], nn.Module]:
    settings = {"kernel_size": 4, "stride": 2, "padding": 1} | options
    return lambda: nn.Sequential(CONVS[num_dims](4, 4, 2, stride=2), TRANSPOSED[num_dims](4, 4, **settings))


def on_tokens(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Points(make())


def between(down: Callable[[], nn.Module], up: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(down(), up())


def flattened(num_points: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * num_points, 3))


RULES = [
    *(
        Rule(f"convolution {mode}", conv(dims, mode=mode), dims, nodes)
        for dims in (1, 2, 3)
        for mode in ("zeros", "circular", "reflect", "replicate")
        for nodes in (("left",) if mode == "circular" else ("vertex", "cell", "interior"))
    ),
    *(
        Rule(f"convolution {name}", conv(dims, **options), dims, nodes)
        for dims in (1, 2, 3)
        for nodes in ("left", "cell")
        for name, options in {
            "stride 2": {"stride": 2},
            "dilation 2": {"dilation": 2, "padding": 2},
            "groups": {"groups": 2},
            "depthwise, stride 2": {"groups": 4, "stride": 2},
            "unpadded": {"padding": 0},
        }.items()
    ),
    *(
        Rule(f"transposed {name}", transposed(dims, **options), dims, nodes)
        for dims in (1, 2, 3)
        for nodes in ("left", "cell")
        for name, options in {
            "4 taps": {},
            "2 taps": {"kernel_size": 2, "padding": 0},
            "3 taps": {"kernel_size": 3, "output_padding": 1},
            "groups": {"groups": 2},
        }.items()
    ),
    *(
        Rule(name, make, dims, nodes)
        for nodes in ("left", "cell")
        for dims, name, make in (
            (1, "average pool", lambda: nn.AvgPool1d(2)),
            (2, "average pool", lambda: nn.AvgPool2d(2)),
            (3, "average pool", lambda: nn.AvgPool3d(2)),
            (2, "average pool, overlapping", lambda: nn.AvgPool2d(3, stride=2, padding=1)),
            (1, "max pool", lambda: nn.MaxPool1d(2)),
            (2, "max pool", lambda: nn.MaxPool2d(2)),
            (3, "max pool", lambda: nn.MaxPool3d(2)),
            (2, "max pool, overlapping", lambda: nn.MaxPool2d(3, stride=2, padding=1)),
            (1, "nearest", between(lambda: nn.AvgPool1d(2), lambda: nn.Upsample(scale_factor=2))),
            (2, "nearest", between(lambda: nn.AvgPool2d(2), lambda: nn.Upsample(scale_factor=2))),
            (3, "nearest", between(lambda: nn.AvgPool3d(2), lambda: nn.Upsample(scale_factor=2))),
            (2, "bilinear", between(lambda: nn.AvgPool2d(2), lambda: nn.Upsample(scale_factor=2, mode="bilinear"))),
            (1, "linear", between(lambda: nn.AvgPool1d(2), lambda: nn.Upsample(scale_factor=2, mode="linear"))),
            (3, "trilinear", between(lambda: nn.AvgPool3d(2), lambda: nn.Upsample(scale_factor=2, mode="trilinear"))),
            (2, "to the size of the input", Down),
        )
    ),
    *(
        Rule(name, make, dims, nodes, keeps_space=False)
        for nodes in ("left", "vertex")
        for dims, name, make in (
            (1, "adaptive average pool", lambda: nn.AdaptiveAvgPool1d(1)),
            (2, "adaptive average pool", lambda: nn.AdaptiveAvgPool2d(1)),
            (3, "adaptive average pool", lambda: nn.AdaptiveAvgPool3d(1)),
            (2, "adaptive max pool", lambda: nn.AdaptiveMaxPool2d(1)),
            (1, "flatten, linear", flattened(16)),
            (2, "flatten, linear", flattened(144)),
            (3, "flatten, linear", flattened(512)),
        )
    ),
    *(
        Rule(name, make, dims, nodes)
        for nodes in ("left", "vertex")
        for dims, name, make in (
            (1, "batch norm", lambda: nn.BatchNorm1d(4)),
            (2, "batch norm", lambda: nn.BatchNorm2d(4)),
            (3, "batch norm", lambda: nn.BatchNorm3d(4)),
            (1, "instance norm", lambda: nn.InstanceNorm1d(4, affine=True)),
            (2, "instance norm", lambda: nn.InstanceNorm2d(4, affine=True)),
            (3, "instance norm", lambda: nn.InstanceNorm3d(4, affine=True)),
            *((d, "group norm", lambda: nn.GroupNorm(2, 4)) for d in (1, 2, 3)),
            *((d, "layer norm over channels", lambda: ChannelsLast(nn.LayerNorm(4))) for d in (1, 2, 3)),
            (2, "layer norm over all", lambda: nn.LayerNorm((4, 12, 12))),
            *((d, "linear over channels", lambda: ChannelsLast(nn.Linear(4, 4))) for d in (1, 2, 3)),
            *((d, "multihead attention", on_tokens(SelfAttention)) for d in (1, 2)),
            *((d, "dot product attention", on_tokens(DotProduct)) for d in (1, 2)),
            *((d, "attention by a module", on_tokens(SoftmaxModule)) for d in (1, 2)),
            (2, "bounds from a table", lambda: Bounded(12, 12)),
            *((d, "matrix transpose", ByMatrixTranspose) for d in (1, 2, 3)),
            (2, "constants of the code", Constants),
            (1, "embedding of places", lambda: Embedded(16)),
            (2, "embedding of places", lambda: Embedded(12, 12)),
            (1, "embedding of tokens", on_tokens(lambda: EmbeddedTokens(16))),
            (2, "embedding of tokens", on_tokens(lambda: EmbeddedTokens(144))),
            *((2, type(a).__name__, lambda a=a: a) for a in (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.ELU(),
                                                             nn.LeakyReLU(), nn.Softplus(), nn.Dropout(0.5),
                                                             nn.Softmax(dim=1))),
        )
    ),
]  # fmt: skip


def network(rule: Rule) -> nn.Sequential:
    """Pointwise layers around it make channels out of a field, and all of them alive."""
    torch.manual_seed(0)
    lift, inner = CONVS[rule.num_dims](1, 4, 1), rule.make()
    head = (CONVS[rule.num_dims](4, 2, 1),) if rule.keeps_space else ()
    net = nn.Sequential(lift, inner, *head).double()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_equals_the_module_at_the_reference_and_runs_beyond(rule):
    domain, shape = domain_of(rule.nodes, rule.num_dims), (POINTS[rule.num_dims],) * rule.num_dims
    net = network(rule)
    operator = to_operator(net, domain, resolution=shape)
    u = torch.randn(2, 1, *shape, dtype=torch.float64)
    trained = net(u)
    assert (operator(u) - trained).abs().max() <= 1e-10 * trained.abs().max()
    fine = domain.refine(shape, 2)
    v = operator(torch.randn(2, 1, *fine, dtype=torch.float64))
    assert v.shape[:2] == trained.shape[:2]
    assert v.ndim == trained.ndim
    if rule.keeps_space and trained.shape[2:] == shape:
        assert v.shape[2:] == fine
    assert v.isfinite().all()
    assert operator.state_dict().keys() == net.state_dict().keys()
    assert not operator.report().kept


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_alias_free_activations(num_dims):
    # Products of waves that the grid still carries are exact; the square of a wave beyond half of it aliases.
    domain, n = domain_of("left", num_dims), POINTS[num_dims]
    net = network(Rule("activation", nn.GELU, num_dims))
    operator = to_operator(net, domain, resolution=(n,) * num_dims, alias_free=True)
    assert not operator.report().is_exact

    def difference(wave: int) -> float:
        x = domain.coordinates((n,) * num_dims, dtype=torch.float64)
        u = torch.sin(2 * math.pi * wave * x[0] + 0.4)[None, None]
        return ((operator(u) - net(u)).norm() / net(u).norm()).item()

    assert difference(0) <= 1e-12
    assert difference(1) < 0.3 * difference(n // 2 - 1)
    assert operator(torch.randn(2, 1, *(2 * n,) * num_dims, dtype=torch.float64)).shape[2:] == (2 * n,) * num_dims


def test_state_leaves_out_what_the_network_leaves_out():
    # Buffers that are not saved stay so, also those of the network itself, and constants of its code are no state.
    class Scaled(Constants):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Conv2d(1, 4, 1)
            self.register_buffer("scale", torch.full((1,), 0.5), persistent=False)

        def forward(self, u: Tensor) -> Tensor:
            return self.scale * super().forward(self.lift(u))

    net = Scaled().double()
    names = set(net._non_persistent_buffers_set)
    operator = to_operator(net, domain_of("left", 2), resolution=(12, 12))
    assert list(operator.state_dict()) == list(net.state_dict()) == ["lift.weight", "lift.bias"]
    assert net._non_persistent_buffers_set == names
    assert dict(operator.named_buffers())["scale"] is net.scale
