"""Idioms of code that asks about sizes are followed, as far as the answers do not depend on the resolution."""

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.convert import ConversionError, convergence_report, to_operator
from tests.convert.cases import TORUS, assert_trained_size, waves


class Idiom(nn.Module):
    """Two layers, with something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
        self.middle = nn.Linear(4, 4)
        self.point = nn.Conv2d(4, 4, 1)
        self.line = nn.Conv1d(4, 4, 1)
        self.last = nn.Conv2d(4, 1, 3, padding=1, padding_mode="circular")
        self.register_buffer("mean", torch.full((4,), 0.1))

    def forward(self, u: Tensor) -> Tensor:
        return self.last(torch.tanh(self.between(torch.tanh(self.first(u)), u)))


class UnpacksShape(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        batch, _, *space = u.shape
        return self.middle(v.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(batch, -1, *space)


class IteratesOverParts(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return torch.cat([torch.sin(part) for part in v.chunk(2, dim=1)], dim=1)


class Asserts(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        assert_trained_size(u)
        return v if len(u.shape) == u.dim() else u


class ComparesShapes(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        w = nn.functional.avg_pool2d(v, 2)
        if w.shape[-2:] != u.shape[-2:]:
            w = nn.functional.interpolate(w, size=u.shape[-2:], mode="bilinear")
        return w


class SubtractsBuffer(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return v - self.mean[None, :, None, None]


class Squeezes(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return v * torch.sigmoid(self.point(v.mean((2, 3), keepdim=True)))


class PointwiseOverFlattened(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return v + self.line(v.view(v.shape[0], 4, -1)).view(v.shape[0], 4, v.shape[2], v.shape[3])


IDIOMS = [
    UnpacksShape, IteratesOverParts, Asserts, ComparesShapes, SubtractsBuffer, Squeezes, PointwiseOverFlattened,
]  # fmt: skip


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms_are_converted(idiom):
    torch.manual_seed(0)
    net = idiom().double()
    operator = to_operator(net, TORUS, resolution=(16, 16))
    assert not operator.report().kept
    u = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(u), net(u))
    assert convergence_report(operator, TORUS, waves, [32, 64, 128]).fitted_order > 1.7


def test_a_new_state_reaches_what_code_makes_of_buffers():
    net = SubtractsBuffer().double()
    operator = to_operator(net, TORUS, resolution=(16, 16))
    operator.load_state_dict({**net.state_dict(), "mean": torch.ones(4, dtype=torch.float64)})
    u = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(u), net(u))
    assert net.mean.eq(1).all()


class BranchesOnBatch(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return v if len(u) == 2 else v.topk(4, dim=1).values


class BranchesOnDtype(Idiom):
    def between(self, v: Tensor, u: Tensor) -> Tensor:
        return torch.sin(v) if v.dtype == torch.float64 else v.topk(16, dim=-1).values


@pytest.mark.parametrize("idiom", [BranchesOnBatch, BranchesOnDtype])
def test_answers_that_may_change_do_not_decide(idiom):
    net = idiom().double()
    try:
        operator = to_operator(net, TORUS, resolution=(16, 16))
    except ConversionError:
        return
    # Its code runs as it is then.
    for dtype, batch in ((torch.float64, 2), (torch.float64, 1), (torch.float32, 2)):
        u = torch.randn(batch, 1, 16, 16, dtype=dtype)
        torch.testing.assert_close(operator.to(dtype)(u), net.to(dtype)(u))
