"""Stochastic Runge-Kutta methods of strong order 3/2 for diagonal noise, with an embedded error estimate."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.weighted_sum import add_up
from neuralop_kit.solvers.sde.method import Coefficient, Noise, StochasticMethod, TrialStep

Row = tuple[float, ...]


@dataclass(frozen=True)
class RosslerTableau:
    """Coefficients of four stages in the form of Rossler (2010), section 6.1.

    Args:
        drift_drift, drift_noise: drift stages from earlier drift and noise stages; rows 2, 3, 4.
        noise_drift, noise_noise: noise stages, likewise.
        drift_times, noise_times: where in the step the stages are.
        alpha: weights of the drift stages.
        beta1, beta2, beta3, beta4: weights of the noise stages with I1, I11/sqrt(h), I10/h and I111/h.
    """

    drift_drift: tuple[Row, Row, Row]
    drift_noise: tuple[Row, Row, Row]
    noise_drift: tuple[Row, Row, Row]
    noise_noise: tuple[Row, Row, Row]
    drift_times: Row
    noise_times: Row
    alpha: Row
    beta1: Row
    beta2: Row
    beta3: Row
    beta4: Row


SOSRI_TABLEAU = RosslerTableau(
    drift_drift=(
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    drift_noise=(
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    noise_drift=(
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    noise_noise=(
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    drift_times=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    noise_times=(0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta1=(-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    beta2=(0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    beta3=(2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    beta4=(0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
)

SOSRI2_TABLEAU = RosslerTableau(
    drift_drift=(
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    drift_noise=(
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    noise_drift=(
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    noise_noise=(
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    drift_times=(0.0, 0.13804532298278663, 0.9999999999999992, 0.9999999999999994),
    noise_times=(0.0, 0.45605532163856893, 0.999999999999996, 0.9999999999999962),
    alpha=(-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    beta1=(-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
    beta2=(-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
    beta3=(1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
    beta4=(-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
)


@dataclass(frozen=True)
class _Rossler(StochasticMethod):
    """The step of both methods.

        H0_i = u + h sum_j a0_ij f_j + chi2 sum_j b0_ij g_j,      f_i = f(t + c0_i h, H0_i)
        H1_i = u + h sum_j a1_ij f_j + sqrt(h) sum_j b1_ij g_j,   g_i = g(t + c1_i h, H1_i)
        v    = u + h sum alpha f + W sum beta1 g + chi1 sum beta2 g + chi2 sum beta3 g + chi3 sum beta4 g

    with ``chi1 = (W^2 - h) / (2 sqrt h)``, ``chi2 = W/2 + H``, ``chi3 = (W^3 - 3 W h) / (6 h)``. Local error:
    ``delta |h (f_1 + f_2 + f_3 + f_4)| + |chi2 sum beta3 g + chi3 sum beta4 g|``.
    """

    strong_order: ClassVar[float] = 1.5
    weak_order: ClassVar[float] = 1.5
    has_error: ClassVar[bool] = True
    num_stages: ClassVar[int] = 4
    measures_stiffness: ClassVar[bool] = False

    delta: float = 1.0
    tableau: RosslerTableau = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.delta >= 0:
            raise ArgumentError(f"expected delta >= 0, got {self.delta}; 1 is usual, 0 trusts the drift")

    def step(
        self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise
    ) -> TrialStep:
        """One step."""
        tableau, root = self.tableau, h.sqrt()
        w, chi2 = noise.value, noise.value / 2 + noise.area
        f, g, point = [drift(t, y)], [diffusion(t, y)], y
        for i in range(3):
            before = point
            point = y + h * add_up(None, tableau.drift_drift[i], f) + chi2 * add_up(None, tableau.drift_noise[i], g)
            noisy = y + h * add_up(None, tableau.noise_drift[i], f) + root * add_up(None, tableau.noise_noise[i], g)
            f.append(drift(t + tableau.drift_times[i + 1] * h, point))
            g.append(diffusion(t + tableau.noise_times[i + 1] * h, noisy))
        chi1, chi3 = (w**2 - h) / (2 * root), (w**2 - 3 * h) * w / (6 * h)
        small = chi2 * add_up(None, tableau.beta3, g) + chi3 * add_up(None, tableau.beta4, g)
        large = (
            h * add_up(None, tableau.alpha, f)
            + w * add_up(None, tableau.beta1, g)
            + chi1 * add_up(None, tableau.beta2, g)
        )
        error = self.delta * (h * (f[0] + f[1] + f[2] + f[3])).abs() + small.abs()
        if not self.measures_stiffness:
            return TrialStep(y + large + small, error)
        return TrialStep(y + large + small, error, slopes=f[3] - f[2], points=point - before)


@dataclass(frozen=True)
class SOSRI(_Rossler):
    """Strong order 3/2 for diagonal noise, four stages, stable for larger steps than Rossler's own; Ito.

    Args:
        delta: share of the drift in the error estimate, >= 0. The drift's part is no difference of two methods but
            ``h`` times a sum: with 1 it bounds how far a step may drift, and steps are short; 1/6 or 0 asks less.

    Weak order 3/2. No estimate of stiffness: the two last stages are at different times. Stages reach outside of the
    step, to ``t - 0.04 h`` and ``t + 3.75 h``; coefficients that depend on time must be defined there.
    Source: Rackauckas and Nie (2018), arXiv 1804.04344; the form is that of Rossler (2010), SIAM J. Numer. Anal. 48.
    """

    tableau: RosslerTableau = field(default=SOSRI_TABLEAU, init=False, repr=False)


@dataclass(frozen=True)
class SOSRI2(_Rossler):
    """As :class:`SOSRI`, with all stages inside the step and an estimate of stiffness; stable to ``h lambda = -10.6``.

    Args:
        delta: as in :class:`SOSRI`.
    """

    measures_stiffness: ClassVar[bool] = True
    tableau: RosslerTableau = field(default=SOSRI2_TABLEAU, init=False, repr=False)
