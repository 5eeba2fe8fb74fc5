"""SFNO: an operator between functions on a sphere."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import FunctionNorm
from neuralop_kit.models import FNO, SFNO
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.convergence import measure_convergence
from tests.contracts.layer import SPECTRAL, LayerContract


class TestSFNO(LayerContract):
    domain = Domain.sphere()
    tiny_shape = (4, 5)
    reference_shape = (13, 24)
    num_grids = 3
    order = SPECTRAL

    def function(self, x, phase):
        # Smooth at the poles too.
        theta, phi = x
        return torch.exp(theta.sin() * torch.cos(phi + phase) / 2) * (1 + theta.cos() / 2)

    def make(self):
        return SFNO(self.in_channels, 3, domain=self.domain, width=6, num_layers=2, num_degrees=5, norm=FunctionNorm)

    def make_tiny(self):
        return SFNO(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, num_degrees=3)

    def test_an_fno_on_the_rectangle_does_not_converge_like_this(self):
        # Negative control: poles are walls for it, and its output jumps there.
        ours = self.check_convergence()
        rectangle = Domain.box(self.domain.lengths, boundary=("neumann", "periodic"))
        plain = FNO(2, 3, domain=rectangle, width=6, num_layers=2, modes=5).double()
        theirs = measure_convergence(lambda s: plain(self.field(s)), self.domain, [(13, 24), (25, 48), (49, 96)])
        assert theirs.error[1] > 1e3 * ours.error[1]
        assert plain(self.field((13, 24)))[..., 0, :].std(dim=-1).max() > 1e-4
        assert self.layer()(self.field((13, 24)))[..., 0, :].std(dim=-1).max() < 1e-12


def test_turns_with_its_field_but_for_its_position():
    # Without the position among its features, an isotropic operator commutes with all rotations: here by a quarter
    # turn about the x axis, which takes the north pole to the equator, of a field known in closed form.
    model = SFNO(1, 1, domain=Domain.sphere(), width=8, num_layers=2, num_degrees=6, isotropic=True).double()
    with torch.no_grad():
        model.lift[1].weight[:, 1:] = 0.0
    theta, phi = Domain.sphere().coordinates((25, 48), dtype=torch.float64)
    x, y, z = theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()
    u, turned = (torch.exp(x * a - b**2 + a * b)[None, None] for a, b in ((y, z), (z, -y)))
    out, of_turned = model(u)[0, 0], model(turned)[0, 0]
    # The points (x, y, z) -> (x, z, -y) of the grid that are again on the grid: those of the two great circles.
    assert abs(of_turned[0, 0] - out[12, 12]) < 1e-10
    assert abs(of_turned[12, 12] - out[24, 0]) < 1e-10
    assert abs(of_turned[6, 12] - out[18, 12]) < 1e-10
    assert (out[0, 0] - out[12, 12]).abs() > 1e-3


def test_config_rebuilds_the_model():
    model = SFNO(1, 2, domain=Domain.sphere(grid="gauss"), width=4, num_layers=2, num_degrees=4, norm=FunctionNorm)
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 8, 15)
    assert torch.equal(twin(u), model(u))


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="expected"):
        SFNO(1, 1, domain=Domain.sphere(), num_layers=0)
    with pytest.raises(ArgumentError, match="degree"):
        SFNO(1, 1, domain=Domain.sphere(), num_degrees=0)
    with pytest.raises(DomainError, match="sphere"):
        SFNO(1, 1, domain=Domain.periodic((1.0, 1.0)))
