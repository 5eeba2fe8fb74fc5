"""Networks that no conversion could follow are told so before it begins."""

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.convert import ConversionError, to_operator
from neuralop_kit.solvers.errors import ArgumentError

BOX = Domain.box((1.0, 1.0), boundary="neumann", nodes="cell")


def test_a_network_that_does_not_run_itself_is_told_so():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 3)))
    with pytest.raises(ArgumentError, match=r"\(2, 1, 16, 16\), got RuntimeError in module '1.1': .*; give the resol"):
        to_operator(net, BOX, resolution=(16, 16))
    assert to_operator(net, BOX, resolution=(8, 8))(torch.randn(1, 1, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_weights_from_hooks_are_refused(strict):
    net = nn.Sequential(nn.Identity(), torch.nn.utils.weight_norm(nn.Conv2d(1, 2, 3, padding=1)))
    with pytest.raises(ConversionError, match=r"hooks in \['1'\]"):
        to_operator(net, BOX, resolution=(16, 16), strict=strict)
    torch.nn.utils.remove_weight_norm(net[1])
    assert to_operator(net, BOX, resolution=(16, 16)).report().is_exact


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is not supported")
def test_torchscript_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), torch.jit.script(nn.ReLU()))
    with pytest.raises(ArgumentError, match="got TorchScript in 1"):
        to_operator(net, BOX, resolution=(16, 16))
