"""Numbers that are none are refused when a solver is made, before it fills fields with NaN."""

import math
from collections.abc import Callable

import pytest

from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde import Advection, CompressibleNavierStokes, NavierStokes2D, ReactionDiffusion

LINE, SQUARE = Domain.periodic((1.0,)), Domain.periodic((1.0, 1.0))

MAKERS: dict[str, Callable[[float], object]] = {
    "viscosity": lambda x: NavierStokes2D(SQUARE, viscosity=x, dt=0.1),
    "drag": lambda x: NavierStokes2D(SQUARE, viscosity=0.1, drag=x, dt=0.1),
    "shear": lambda x: CompressibleNavierStokes(SQUARE, shear_viscosity=x, bulk_viscosity=0.1, dt=0.1),
    "diffusivities": lambda x: ReactionDiffusion(SQUARE, diffusivities=(x, 0.1), dt=0.1),
    "velocity": lambda x: Advection(LINE, velocity=(x,), dt=0.1),
    "sigma": lambda x: GaussianRandomField(LINE, alpha=2.0, tau=1.0, sigma=x),
}


@pytest.mark.parametrize("name", MAKERS)
def test_nan_and_infinity_are_refused(name):
    MAKERS[name](0.5)
    for wrong in (math.nan, math.inf):
        with pytest.raises(ArgumentError, match=f"expected .*got .*{wrong}"):
            MAKERS[name](wrong)
