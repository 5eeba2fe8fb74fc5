"""Methods by name."""

from neuralop_kit.solvers.ode.auto_switch import AutoSwitch
from neuralop_kit.solvers.ode.esdirk import KenCarp4
from neuralop_kit.solvers.ode.explicit import RK4, Bosh3, Dopri5, Dopri8, Euler, Heun, Tsit5
from neuralop_kit.solvers.ode.method import Method
from neuralop_kit.solvers.ode.rosenbrock import Rodas5P, Rosenbrock23

METHODS: dict[str, type[Method]] = {
    "tsit5": Tsit5,
    "dopri5": Dopri5,
    "bosh3": Bosh3,
    "dopri8": Dopri8,
    "heun": Heun,
    "rk4": RK4,
    "euler": Euler,
    "rosenbrock23": Rosenbrock23,
    "rodas5p": Rodas5P,
    "kencarp4": KenCarp4,
    "auto": AutoSwitch,
}
