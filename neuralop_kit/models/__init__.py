"""Operators ready to train.

FNO                   Fourier neural operator: global convolutions in Fourier space
SFNO                  the same on a sphere, by spherical harmonics
LocalNO               FNO with local integrals and derivatives
UNO                   FNO blocks in the shape of a U, on coarser and finer grids
TransformerOperator   attention as a ratio of integrals, on boxes and spheres
GINO                  from points to points, through an FNO on a grid
DeepONet              sums of learned functions; reads integrals, so it takes any grid
MgNO                  multigrid neural operator: layers of learned multigrid cycles
ReferenceMgNO         the released MgNO in its published configurations, to compare with
ReferenceHelmholtzMgNO  the same for the Helmholtz equation
"""

from neuralop_kit.models.deeponet import DeepONet
from neuralop_kit.models.fno import FNO
from neuralop_kit.models.gino import GINO
from neuralop_kit.models.local_no import LocalNO
from neuralop_kit.models.mgno import MgNO
from neuralop_kit.models.reference_helmholtz import ReferenceHelmholtzMgNO
from neuralop_kit.models.reference_mgno import ReferenceMgNO
from neuralop_kit.models.sfno import SFNO
from neuralop_kit.models.transformer import TransformerOperator
from neuralop_kit.models.uno import UNO

__all__ = [
    "FNO",
    "SFNO",
    "LocalNO",
    "UNO",
    "TransformerOperator",
    "GINO",
    "DeepONet",
    "MgNO",
    "ReferenceMgNO",
    "ReferenceHelmholtzMgNO",
]
