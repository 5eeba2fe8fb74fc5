"""FunctionNorm: statistics of the function, on every placement of nodes."""

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import FunctionNorm
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestFunctionNorm(LayerContract):
    domain = Domain.box((1.0, 2.0), boundary="neumann", nodes=("vertex", "cell"))
    in_channels = 3
    order = 2.0
    reference_shape = (17, 16)

    def make(self) -> nn.Module:
        norm = FunctionNorm(self.in_channels, domain=self.domain)
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        return norm

    @pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
    def test_second_order_on_every_placement(self, nodes):
        domain = Domain.box((1.0, 2.0), boundary="dirichlet", nodes=nodes)
        self.check_convergence(layer=FunctionNorm(3, domain=domain), domain=domain)

    def test_spectral_on_periodic_axes(self):
        domain = Domain.periodic((1.0, 2.0))
        self.check_convergence(layer=FunctionNorm(3, domain=domain), domain=domain, order=SPECTRAL)

    @pytest.mark.parametrize("nodes", ["vertex", "interior"])
    def test_plain_instance_norm_loses_an_order(self, nodes):
        # Negative control: equal weights for all points, walls included or half cells at the walls forgotten.
        domain = Domain.box((1.0, 2.0), boundary="dirichlet", nodes=nodes)
        case = TestFunctionNorm()
        case.reference_shape = (33, 33)
        case.check_convergence(layer=nn.InstanceNorm2d(3), domain=domain, order=1.0)
        with pytest.raises(AssertionError, match="expected order 2"):
            case.check_convergence(layer=nn.InstanceNorm2d(3), domain=domain, order=2.0)

    def test_statistics_of_the_output_are_zero_and_one(self):
        domain = Domain.box((1.0, 2.0))
        out = FunctionNorm(3, domain=domain, epsilon=1e-12)(5 + 3 * torch.randn(4, 3, 17, 33, dtype=torch.float64))
        weights = domain.weights((17, 33), dtype=torch.float64) / domain.measure
        assert (weights * out).sum(dim=(-2, -1)).abs().max() < 1e-12
        assert (weights * out.square()).sum(dim=(-2, -1)).sub(1).abs().max() < 1e-10

    def test_equal_weights_give_torch_instance_and_group_norm(self):
        u = torch.randn(2, 6, 8, 9, dtype=torch.float64)
        domain = Domain.periodic((1.0, 1.0))
        torch.testing.assert_close(
            FunctionNorm(6, domain=domain, affine=False)(u), nn.functional.instance_norm(u, eps=1e-5)
        )
        torch.testing.assert_close(
            FunctionNorm(6, domain=domain, num_groups=2, affine=False)(u), nn.functional.group_norm(u, 2, eps=1e-5)
        )

    def test_a_large_mean_does_not_cancel(self):
        u = 1e4 + torch.randn(2, 1, 33, 33)
        norm = FunctionNorm(1, domain=Domain.box((1.0, 1.0)))
        assert (norm(u).double() - norm(u.double())).abs().max() < 5e-3

    def test_constant_field_gives_the_bias(self):
        norm = FunctionNorm(2, domain=Domain.box((1.0,)))
        assert norm(torch.full((1, 2, 9), 3.0)).abs().max() < 1e-3

    def test_sphere(self):
        sphere = Domain.sphere()
        out = FunctionNorm(1, domain=sphere, epsilon=1e-12)(torch.randn(1, 1, 17, 32, dtype=torch.float64))
        assert (sphere.weights((17, 32), dtype=torch.float64) * out).sum().abs() < 1e-12

    def test_bfloat16_keeps_its_dtype(self):
        norm = FunctionNorm(2, domain=Domain.periodic((1.0,)))
        u = torch.randn(2, 2, 64)
        assert norm(u.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(norm(u.bfloat16()).float(), norm(u), atol=3e-2, rtol=0)

    @pytest.mark.parametrize(("channels", "options"), [(6, {"num_groups": 4}), (6, {"epsilon": 0.0}), (0, {})])
    def test_bad_arguments_are_refused(self, channels, options):
        with pytest.raises(ArgumentError, match="expected"):
            FunctionNorm(channels, domain=self.domain, **options)
