"""Batched least squares, quadratic programs and projections, with a status for every item."""
