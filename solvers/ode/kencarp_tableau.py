"""Coefficients of KenCarp4's implicit part: Kennedy and Carpenter (2003), Appl. Numer. Math. 44, ESDIRK4(3)6L[2]SA."""

from neuralop_kit.solvers.ode.tableau import Row

GAMMA = 0.25

B: Row = (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, GAMMA)

COMPANION: Row = (
    4586570599 / 29645900160,
    0.0,
    178811875 / 945068544,
    814220225 / 1159782912,
    -3700637 / 11593932,
    61727 / 225920,
)

# Rows 2 .. 6 without the diagonal, which is gamma; the first stage is explicit, and the last row holds the weights.
A: tuple[Row, ...] = (
    (GAMMA,),
    (8611 / 62500, -1743 / 31250),
    (5012029 / 34652500, -654441 / 2922500, 174375 / 388108),
    (15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768, 2285395 / 8070912),
    B[:-1],
)

TIMES: Row = (1 / 2, 83 / 250, 31 / 50, 17 / 20, 1.0)
