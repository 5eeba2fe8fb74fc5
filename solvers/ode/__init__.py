"""Ordinary differential equations: adaptive Runge-Kutta and stiff integrators, with differentiable statistics."""
