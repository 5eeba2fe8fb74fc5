"""Ordinary differential equations: adaptive Runge-Kutta and stiff integrators, with differentiable statistics.

Solution      the trajectory, and how it was found
Statistics    what it cost: counts and status per sample, error and stiffness estimates per step
"""

from neuralop_kit.solvers.ode.solution import Solution, Statistics

__all__ = ["Solution", "Statistics"]
