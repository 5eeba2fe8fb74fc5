"""Operators ready to train.

FNO                   Fourier neural operator: global convolutions in Fourier space
"""

from neuralop_kit.models.fno import FNO

__all__ = ["FNO"]
