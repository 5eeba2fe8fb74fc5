"""Order conditions: every tableau satisfies its own, and no companion satisfies those of the solution."""

import numpy as np
import pytest
from scipy.optimize import brentq

from neuralop_kit.solvers.ode.dopri8 import DOPRI8
from neuralop_kit.solvers.ode.tableau import ExplicitTableau
from neuralop_kit.solvers.ode.tableaux import BOSH3, DOPRI5, EULER, HEUN, RK4, TSIT5
from tests.solvers.ode.trees import residual, trees

PAIRS = {"tsit5": TSIT5, "dopri5": DOPRI5, "bosh3": BOSH3, "dopri8": DOPRI8, "heun": HEUN}
ALL = {**PAIRS, "rk4": RK4, "euler": EULER}


def matrix(tableau: ExplicitTableau) -> np.ndarray:
    a = np.zeros((tableau.num_stages, tableau.num_stages))
    for i, row in enumerate(tableau.a):
        a[i + 1, : len(row)] = row
    return a


def test_numbers_of_trees():
    # Cayley's sequence.
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("tableau", ALL.values(), ids=ALL)
def test_solution_has_its_order_and_no_more(tableau):
    a, b = matrix(tableau), np.asarray(tableau.b)
    for order in range(1, tableau.order + 1):
        assert residual(b, a, order) < 1e-14 * max(1.0, np.abs(a).max())
    assert residual(b, a, tableau.order + 1) > 1e-6


@pytest.mark.parametrize("tableau", PAIRS.values(), ids=PAIRS)
def test_companion_has_one_order_less_and_no_more(tableau):
    """A companion of the same order would estimate nothing; swapped weights would make the solution fail above."""
    a, companion = matrix(tableau), np.asarray(tableau.b) + np.asarray(tableau.error)
    for order in range(1, tableau.order):
        assert residual(companion, a, order) < 1e-14 * max(1.0, np.abs(a).max())
    assert residual(companion, a, tableau.order) > 1e-5


def test_embedded_weights_of_tsit5_violate_order_five():
    """The weights that a peer takes for the solution: their residual is what theory says, far from rounding."""
    companion = np.asarray(TSIT5.b) + np.asarray(TSIT5.error)
    assert residual(companion, matrix(TSIT5), 5) == pytest.approx(8.67e-4, rel=0.01)


@pytest.mark.parametrize("tableau", ALL.values(), ids=ALL)
def test_stages_sit_where_their_rows_say(tableau):
    assert np.abs(matrix(tableau).sum(axis=1) - np.asarray(tableau.c)).max() < 1e-14
    assert tableau.c[-1] == 1.0


@pytest.mark.parametrize(
    ("name", "order"), [("tsit5", 4), ("dopri5", 4), ("dopri8", 4), ("bosh3", 3), ("heun", 2), ("rk4", 3), ("euler", 1)]
)
def test_dense_output_has_its_order(name, order):
    tableau = ALL[name]
    a, rows = matrix(tableau), np.asarray(tableau.dense)
    violations = []
    for theta in (0.25, 0.5, 0.75):
        b = theta ** np.arange(1, len(rows) + 1) @ rows
        for nodes in range(1, order + 1):
            assert residual(b, a, nodes, theta=theta) < 2e-14 * max(1.0, np.abs(a).max())
        violations.append(residual(b, a, order + 1, theta=theta))
    assert max(violations) > 1e-5


@pytest.mark.parametrize("tableau", ALL.values(), ids=ALL)
def test_dense_output_joins_smoothly(tableau):
    rows, s = np.asarray(tableau.dense), tableau.num_stages
    assert np.abs(rows.sum(axis=0) - np.asarray(tableau.b)).max() < 1e-13
    assert np.abs(rows[0] - np.eye(s)[0]).max() < 1e-13
    assert np.abs(np.arange(1, len(rows) + 1) @ rows - np.eye(s)[-1]).max() < 5e-13


def amplification(tableau: ExplicitTableau, z: float) -> float:
    """R(z): what a step makes of y' = z y."""
    a = matrix(tableau)
    return 1 + z * np.asarray(tableau.b) @ np.linalg.solve(np.eye(len(a)) - z * a, np.ones(len(a)))


@pytest.mark.parametrize("tableau", ALL.values(), ids=ALL)
def test_stability_sizes(tableau):
    limit = tableau.stability_size
    root = brentq(lambda x: abs(amplification(tableau, -x)) - 1, 0.97 * limit, 1.03 * limit)
    assert root == pytest.approx(limit, abs=1e-3)
