"""Stencils at walls: all axes at once give what one axis after the other gives."""

from itertools import product

import pytest
import torch
from torch.nn import functional

from neuralop_kit.layers.multigrid.extensions import EXTENSIONS, EvenAboutFace, OddAboutFace
from neuralop_kit.layers.multigrid.stencils import convolve

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_every_mixture_of_walls_equals_ghost_values_axis_by_axis(num_dims):
    kernel = torch.randn(2, 3, *(3,) * num_dims, dtype=torch.float64)
    for shape in ((4, 5, 3)[:num_dims], (2,) * num_dims):
        u = torch.randn(2, 3, *shape, dtype=torch.float64)
        for rules in product(EXTENSIONS.values(), repeat=num_dims):
            extended = u
            for dim, rule in enumerate(rules, start=2):
                extended = rule.extend(extended, dim)
            expected = CONVOLUTIONS[num_dims](extended, kernel)
            torch.testing.assert_close(convolve(u, kernel, rules), expected, rtol=0, atol=1e-13)


def test_signs_matter_in_corners():
    # Negative control of the above: odd about both walls is even about the corner, and odd about neither.
    corner = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    corner[..., 0, 0] = 1.0
    u = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    odd, even = OddAboutFace(), EvenAboutFace()
    values = [convolve(u, corner, rules)[0, 0, 0, 0] for rules in ((odd, odd), (odd, even), (even, odd), (even, even))]
    assert values == [1, -1, -1, 1]


def test_gradients_at_walls():
    u = torch.randn(1, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    for rules in ((OddAboutFace(), EvenAboutFace()), (OddAboutFace(),) * 2):
        check = lambda u, k, rules=rules: convolve(u, k, rules)  # noqa: E731
        assert torch.autograd.gradcheck(check, (u, kernel), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(check, (u, kernel))
