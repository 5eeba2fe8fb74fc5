"""Order conditions of the stochastic Runge-Kutta tableaux."""

import numpy as np
import pytest

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.sde import SOSRI
from neuralop_kit.solvers.sde.rossler import SOSRI2_TABLEAU, SOSRI_TABLEAU

TABLEAUX = pytest.mark.parametrize("tableau", [SOSRI_TABLEAU, SOSRI2_TABLEAU], ids=["SOSRI", "SOSRI2"])


def square(rows):
    matrix = np.zeros((4, 4))
    for i, row in enumerate(rows):
        matrix[i + 1, : len(row)] = row
    return matrix


@TABLEAUX
def test_conditions_for_strong_order_three_halves(tableau):
    """Rossler (2010), theorem 6.1; the right sides are those of the four multiple integrals."""
    a0, b0 = square(tableau.drift_drift), square(tableau.drift_noise)
    a1, b1 = square(tableau.noise_drift), square(tableau.noise_noise)
    alpha = np.array(tableau.alpha)
    beta = np.array([tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4])
    one = np.ones(4)
    assert np.allclose([alpha @ one, alpha @ a0 @ one], [1, 1 / 2], rtol=0, atol=1e-14)
    assert np.allclose([alpha @ b0 @ one, alpha @ (b0 @ one) ** 2], [1, 3 / 2], rtol=0, atol=1e-14)
    for vector, expected in (
        (one, (1, 0, 0, 0)),
        (b1 @ one, (0, 1, 0, 0)),
        (a1 @ one, (1, 0, -1, 0)),
        ((b1 @ one) ** 2, (1, 0, -1, 2)),
        (b1 @ b1 @ one, (0, 0, 0, 1)),
    ):
        assert np.allclose(beta @ vector, expected, rtol=0, atol=1e-14)
    # The coefficients of SOSRI2 are published with as many digits as leave 1.2e-13 here.
    mixed = beta[0] @ a1 @ (b0 @ one) / 2 + beta[2] @ a1 @ (b0 @ one) / 3
    assert abs(mixed) < 2e-13


@TABLEAUX
def test_rows_sum_to_the_times_of_the_stages(tableau):
    for rows, times in ((tableau.drift_drift, tableau.drift_times), (tableau.noise_drift, tableau.noise_times)):
        assert np.allclose([sum(row) for row in rows], times[1:], rtol=0, atol=1e-14)


def test_delta_must_not_be_negative():
    with pytest.raises(ArgumentError, match="delta"):
        SOSRI(delta=-1.0)
