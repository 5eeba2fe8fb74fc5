"""Operators ready to train.

FNO                   Fourier neural operator: global convolutions in Fourier space
SFNO                  the same on a sphere, by spherical harmonics
MgNO                  multigrid neural operator: layers of learned multigrid cycles
ReferenceMgNO         the released MgNO in its published configurations, to compare with
ReferenceHelmholtzMgNO  the same for the Helmholtz equation
"""

from neuralop_kit.models.fno import FNO
from neuralop_kit.models.mgno import MgNO
from neuralop_kit.models.reference_helmholtz import ReferenceHelmholtzMgNO
from neuralop_kit.models.reference_mgno import ReferenceMgNO
from neuralop_kit.models.sfno import SFNO

__all__ = ["FNO", "SFNO", "MgNO", "ReferenceMgNO", "ReferenceHelmholtzMgNO"]
