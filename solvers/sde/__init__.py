"""Stochastic differential equations: integrators and the Brownian motion under them."""
