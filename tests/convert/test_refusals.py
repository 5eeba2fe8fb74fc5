"""What can not be converted is refused, with the path and a reason; nothing of the user's is touched."""

import copy
import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks import PoolingUNet, ResNet
from neuralop_kit import Domain
from neuralop_kit.convert import (
    CoarseGridWarning,
    Conversion,
    ConversionError,
    Refusal,
    convergence_report,
    register_rule,
    to_operator,
)
from neuralop_kit.solvers.errors import ArgumentError, DomainError, RegistryError, ShapeError
from tests.convert.cases import TORUS, waves

BOX = Domain.box((1.0, 1.0), boundary="neumann", nodes="cell")


class HardCoded(nn.Module):
    """A number of points in the code."""

    def forward(self, u: Tensor) -> Tensor:
        return u.view(-1, 2, 256).mul(2).view(-1, 2, 16, 16)


class Mixing(nn.Module):
    """Points and channels in one dimension."""

    def forward(self, u: Tensor) -> Tensor:
        return u.reshape(u.shape[0], 64, 8).flip(1).reshape(u.shape)


class WritesByIndex(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        v = u.clone()
        v[:, :, 0] = 0
        return v


class InPlace(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return u.clone().mul_(2)


class LooksAtValues(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return u if u.mean() > 0 else -u


class LooksAtSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, u: Tensor) -> Tensor:
        return self.conv(u) if u.shape[-1] > 20 else u


class Neighbours(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return u.topk(3, dim=-1).values.mean(-1, keepdim=True) + u


class RowsAsChannels(nn.Module):
    """A module with one number, or one row of weights, for each row of points."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(u.transpose(1, 2)).transpose(1, 2)


class Cropping(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return nn.functional.pad(u, (-1, 1, -1, 1))


class MoreKeys(nn.Module):
    """Attention with a key that belongs to no point."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True, add_bias_kv=True)

    def forward(self, u: Tensor) -> Tensor:
        tokens = u.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(u.shape)


class Folding(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return nn.functional.fold(nn.functional.unfold(u, 2, stride=2), u.shape[2:], 2, stride=2)


class Sorting(torch.autograd.Function):
    """An operation of the user's own whose derivative is not that of its code."""

    @staticmethod
    def forward(ctx, u):
        return 2 * u

    @staticmethod
    def backward(ctx, g):
        return g


class IteratesOverItems(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return torch.stack([2 * item for item in u]).topk(16, dim=-1).values


@torch.library.custom_op("tests_convert::double_", mutates_args={"u"})
def double_(u: Tensor) -> None:
    """An operation of the user's own that changes its argument."""
    u.mul_(2)


class CustomInPlace(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        v = u.clone()
        torch.ops.tests_convert.double_(v)
        return v


class CustomFunction(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return Sorting.apply(u)


BAD = [
    (HardCoded, "1.view", "written into a view"),
    (Mixing, "1.reshape", "mixes points and channels|regroups|cuts"),
    (WritesByIndex, "1", r"writes into a tensor by index \(line \d+ of test_refusals.py\)"),
    (InPlace, "1.mul_", "in place"),
    (CustomInPlace, "1.double_", "double_ changes a tensor in place"),
    (LooksAtValues, "1", r"control flow .* \(line \d+ of test_refusals.py\)"),
    (LooksAtSize, "1", "control flow"),
    (IteratesOverItems, "1", "iterates over a tensor .* name the parts"),
    (Neighbours, "1.topk", "no integral"),
    (Folding, "1.unfold", "no rule"),
    (Cropping, "1.pad", "cuts points off"),
    (MoreKeys, "1.attention", "appends keys"),
    *(
        (partial(RowsAsChannels, inner), "1.inner", "numbers for each point")
        for inner in (
            nn.BatchNorm2d(16),
            nn.PReLU(16),
            nn.GroupNorm(2, 16),
            nn.InstanceNorm2d(16, affine=True),
            nn.Conv2d(16, 16, 1),
            nn.ConvTranspose2d(16, 16, 1),
        )
    ),
]


def around(bad: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), bad, nn.Conv2d(2, 1, 1)).double()


@pytest.mark.parametrize(("bad", "path", "reason"), BAD, ids=lambda x: getattr(x, "__name__", None))
def test_bad_parts_are_refused_by_path_and_reason(bad, path, reason):
    with pytest.raises(ConversionError, match=reason) as caught:
        to_operator(around(bad()), BOX, resolution=(16, 16))
    assert path in [where for where, _ in caught.value.reasons]


@pytest.mark.parametrize(("bad", "path", "reason"), BAD, ids=lambda x: getattr(x, "__name__", None))
def test_or_kept_at_the_reference_resolution(bad, path, reason):
    net = around(bad())
    operator = to_operator(net, BOX, resolution=(16, 16), strict=False)
    u = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(operator(u), net(u), rtol=0, atol=1e-12)
    assert [record.path for record in operator.report().kept] == [path]
    assert "kept at the reference" in str(operator.report())
    assert operator(torch.randn(2, 1, 40, 32, dtype=torch.float64)).shape == (2, 1, 40, 32)


def test_a_network_that_can_not_be_followed_at_all_is_kept_as_a_whole():
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, u: Tensor) -> Tensor:
            return self.conv(u) if bool((u > 0).any()) else u

    with pytest.raises(ConversionError, match="values of a tensor"):
        to_operator(Loud(), BOX, resolution=(16, 16))
    operator = to_operator(Loud(), BOX, resolution=(16, 16), strict=False)
    assert operator(torch.randn(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert operator.report().kept


def test_one_reason_does_not_bring_others():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, u: Tensor) -> Tensor:
            while u.mean() > 1e6:
                u = u / 2
            return self.conv(u.topk(16, dim=-1).values)

    with pytest.raises(ConversionError) as caught:
        to_operator(Loop(), BOX, resolution=(16, 16))
    assert {path for path, _ in caught.value.reasons} == {"", "topk"}


def test_attributes_are_named_by_the_module_that_reads_them():
    class Data(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u.data

    with pytest.raises(ConversionError, match="attribute 'data'") as caught:
        to_operator(around(Data()), BOX, resolution=(16, 16))
    assert [path for path, _ in caught.value.reasons] == ["1.getattr"]


def test_code_that_can_not_be_traced_may_still_be_converted():
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")
            self.last = nn.Conv2d(3, 1, 3, padding=1, padding_mode="circular")

        def forward(self, u: Tensor) -> Tensor:
            if u.ndim != 4 or u.shape[1] != 1:
                raise ValueError("expected one channel")
            for _ in range(int(u.shape[1])):
                u = torch.tanh(self.first(u))
            return self.last(u)

    net = Checked().double()
    operator = to_operator(net, TORUS, resolution=(16, 16))
    assert operator.report().records[0].rule == "convolution, hat"
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(u), net(u))
    assert convergence_report(operator, TORUS, waves, [16, 32, 64, 128]).fitted_order > 1.8
    assert dict(operator.named_parameters())["first.weight"] is net.first.weight


@pytest.mark.parametrize("container", [nn.ModuleList, lambda parts: nn.ModuleDict(zip("ab", parts, strict=True))])
def test_code_that_can_not_be_traced_may_hold_its_modules_in_a_container(container):
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = container([nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)])

        def forward(self, u: Tensor) -> Tensor:
            for block in self.blocks.values() if isinstance(self.blocks, nn.ModuleDict) else self.blocks:
                u = torch.cat([torch.tanh(part) for part in block(u).chunk(2, dim=1)], dim=1)
            return u

    net = Looped().double()
    operator = to_operator(net, BOX, resolution=(16, 16))
    assert [record.rule for record in operator.report().records].count("convolution, hat") == 2
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(u), net(u))
    assert convergence_report(operator, BOX, lambda x: torch.cos(3 * x[0]) * x[1], [16, 32, 64]).drift[-1] < 0.1


def test_a_derivative_that_is_not_that_of_the_code_is_noticed():
    with pytest.raises(ConversionError, match="gradient"):
        to_operator(around(CustomFunction()), BOX, resolution=(16, 16))


def test_a_rule_that_is_wrong_is_noticed():
    class Doubled(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return 2 * u

    @register_rule(Doubled)
    def wrong(call):
        return Conversion(call.field.layout, "wrong", target=lambda u: 3 * u)

    with pytest.raises(ConversionError, match="relative difference"):
        to_operator(around(Doubled()), BOX, resolution=(16, 16))


def test_rules_of_the_users_own():
    class Clever(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(u)).real

    with pytest.raises(ConversionError, match="no rule for fft_fft2"):
        to_operator(around(Clever()), BOX, resolution=(16, 16))

    @register_rule(Clever)
    def identity(call):
        if call.field.shape[1] > 3:
            raise Refusal("too many channels")
        return Conversion(call.field.layout, "there and back")

    operator = to_operator(around(Clever()), BOX, resolution=(16, 16))
    assert "there and back" in str(operator.report())
    with pytest.raises(RegistryError, match="expected module classes"):
        register_rule("Clever")


def test_the_network_is_left_as_it_was():
    net = ResNet().train()
    calls = []
    net.head.register_forward_hook(lambda *_: calls.append(1))
    net.stages[0].eval()
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    random = torch.get_rng_state()
    children = [id(module) for module in net.modules()]
    operator = to_operator(net, TORUS, resolution=(16, 16))
    assert [module.training for module in net.modules()] == modes
    assert [id(module) for module in net.modules()] == children
    assert torch.equal(torch.get_rng_state(), random)
    assert not calls
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert operator.training
    assert not dict(operator.named_modules())["stages.0.bn1"].training


def test_computed_weights_are_refused():
    net = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 2, 3, padding=1)))
    with pytest.raises(ConversionError, match="parametrization"):
        to_operator(net, BOX, resolution=(16, 16))


def test_one_module_on_two_grids_is_refused_and_on_one_is_not():
    class Shared(nn.Module):
        def __init__(self, pool: nn.Module) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 1, 3, padding=1), pool

        def forward(self, u: Tensor) -> Tensor:
            return self.conv(self.pool(self.conv(u)))

    with pytest.raises(ConversionError, match="two different grids"):
        to_operator(Shared(nn.AvgPool2d(2)), BOX, resolution=(16, 16))
    net = Shared(nn.ReLU()).double()
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(to_operator(net, BOX, resolution=(16, 16))(u), net(u))


def test_arguments():
    net = PoolingUNet()
    with pytest.raises(ArgumentError, match="latent"):
        to_operator(net, TORUS, resolution=(16, 16), latent="free")
    with pytest.raises(ArgumentError, match="one field"):
        to_operator(nn.Bilinear(2, 2, 2), TORUS, resolution=(16, 16))
    with pytest.raises(ArgumentError, match="channels"):
        to_operator(nn.ReLU(), TORUS, resolution=(16, 16))
    operator = to_operator(net, TORUS, resolution=(16, 16))
    for wrong in (torch.randn(1, 2, 16, 16), torch.randn(1, 16, 16), torch.randn(1, 1, 16, 16, 16)):
        with pytest.raises(ShapeError, match="expected a field"):
            operator(wrong)


def test_coarser_than_the_reference_is_said_aloud():
    net = PoolingUNet().double()
    operator = to_operator(net, TORUS, resolution=(32, 32))
    with pytest.warns(CoarseGridWarning, match="coarser than the reference"):
        v = operator(waves(TORUS.coordinates((16, 16), dtype=torch.float64))[None, None])
    # The reference resolves the function: interpolated there, all of it is as if it had been sampled there.
    fine = net(waves(TORUS.coordinates((32, 32), dtype=torch.float64))[None, None])
    assert (v - fine[..., ::2, ::2]).norm() / v.norm() < 0.02
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator(torch.randn(1, 1, 32, 48, dtype=torch.float64))


def test_spheres_are_refused():
    with pytest.raises(DomainError, match="expected a box"):
        to_operator(nn.Conv2d(1, 1, 3, padding=1), Domain.sphere(), resolution=(9, 16))
