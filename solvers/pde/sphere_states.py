"""Test cases of shallow water on the sphere."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.pde.shallow_water_sphere import EARTH_GRAVITY, ShallowWaterSphere

JET_SPEED, JET_SOUTH = 80.0, math.pi / 7
JET_NORTH = math.pi / 2 - JET_SOUTH
BUMP_HEIGHT, BUMP_LATITUDE, BUMP_LENGTH, BUMP_WIDTH = 120.0, math.pi / 4, 1 / 3, 1 / 15


def steady_zonal_flow(stepper: ShallowWaterSphere, shape: Sequence[int], *, speed: float) -> Tensor:
    """Solid-body rotation, an exact steady state: ``(1, 3, *shape)``, float64.

    u = speed cos(latitude),   Phi = const - (radius rotation speed + speed^2/2) sin^2(latitude)

    The mean of Phi is the layer's. Source: Williamson et al. (1992), test case 2 (there ``speed`` is 38.6 m/s).
    """
    colatitude, _ = stepper.domain.coordinates(shape, dtype=torch.float64)
    sine, radius = torch.cos(colatitude), stepper.domain.radius
    # The mean of sin^2 over the sphere is 1/3.
    geopotential = stepper.mean_geopotential - (radius * stepper.rotation * speed + speed**2 / 2) * (sine**2 - 1 / 3)
    return torch.stack([geopotential, 2 * speed / radius * sine, torch.zeros_like(sine)]).unsqueeze(0)


def unstable_jet(stepper: ShallowWaterSphere, shape: Sequence[int], *, perturbed: bool = True) -> Tensor:
    """A jet at 45 degrees north in balance, and a small bump that makes it break up in five days: float64.

    For :meth:`ShallowWaterSphere.earth`, in SI units, ``(1, 3, *shape)``. Use 128 latitudes or more.
    Source: Galewsky, Scott and Polvani (2004), eq. 2 and 4.
    """
    colatitude, longitude = stepper.domain.coordinates(shape, dtype=torch.float64)
    latitude = math.pi / 2 - colatitude
    inside = (latitude > JET_SOUTH) & (latitude < JET_NORTH)
    product = torch.where(inside, (latitude - JET_SOUTH) * (latitude - JET_NORTH), -1.0)
    normalisation = math.exp(-4 / (JET_NORTH - JET_SOUTH) ** 2)
    eastward = torch.where(inside, JET_SPEED / normalisation * torch.exp(1 / product), 0.0)
    state = stepper.balanced(torch.stack([eastward, torch.zeros_like(eastward)]).unsqueeze(0))
    if perturbed:
        from_meridian = torch.remainder(longitude + math.pi, 2 * math.pi) - math.pi
        shape_of_bump = -((from_meridian / BUMP_LENGTH) ** 2) - ((BUMP_LATITUDE - latitude) / BUMP_WIDTH) ** 2
        state[:, 0] += EARTH_GRAVITY * BUMP_HEIGHT * torch.cos(latitude) * torch.exp(shape_of_bump)
    return state
