"""Building blocks on fields ``(batch, channel, *space)``, each an ordinary ``nn.Module``.

SpectralConv          global convolution, learned per Fourier mode; any resolution in, any resolution out
BoundedSpectralConv   the same between walls: continues the field beyond them by one of the next three
ZeroPadding           zero behind the walls: a convolution over the box alone
ReflectionPadding     mirror images: continuous, never larger than the field
FourierContinuation   polynomials fitted next to the walls: smooth, for smooth fields
Extended              applies any operator for periodic functions to functions on a box, through one of these
IntegralConv          local convolution: a kernel of fixed size in space, made of one of the next three bases
PiecewiseLinear       hats along the radius, times angular harmonics
Zernike               orthogonal polynomials on the ball
Morlet                waves along the radius under a window
KernelBasis           base class of the three
DifferentialConv      derivatives in learned directions, of first or second order
SphericalConv         global convolution on the sphere, learned per degree of its harmonics
MultigridOperator     global linear operator as one learned multigrid cycle; exact walls, any resolution
FunctionAttention     attention as a ratio of integrals: self, cross, windowed; grids, spheres and points
GraphKernel           mean over balls of a cloud of points, weighed by a learned kernel
find_neighbourhoods   which points lie within a radius of which queries
Neighbourhoods        its answer: pairs of indices
FunctionNorm          mean zero, variance one over the domain, by quadrature
CoordinateEmbedding   appends functions of position, without a jump where an axis is periodic
PointwiseLinear       one matrix at every point
Resample              the same function on another grid, by one of the next five on each axis
Trigonometric         Fourier series, on periodic axes: exact for what both grids carry
Cubic, Linear         polynomials through the nearest points, on any axis
CosineSeries          for functions with zero slope at the walls
SineSeries            for functions that vanish at the walls
Interpolation         base class of these, as Padding is of the three continuations: for leaves of your own
"""

from neuralop_kit.layers.bounded_spectral_conv import BoundedSpectralConv
from neuralop_kit.layers.coordinate_embedding import CoordinateEmbedding
from neuralop_kit.layers.differential_conv import DifferentialConv
from neuralop_kit.layers.extended import Extended
from neuralop_kit.layers.fourier_continuation import FourierContinuation
from neuralop_kit.layers.function_attention import FunctionAttention
from neuralop_kit.layers.function_norm import FunctionNorm
from neuralop_kit.layers.graph_kernel import GraphKernel
from neuralop_kit.layers.integral_conv import IntegralConv
from neuralop_kit.layers.interpolation import CosineSeries, Cubic, Interpolation, Linear, SineSeries, Trigonometric
from neuralop_kit.layers.kernel_bases import KernelBasis, Morlet, PiecewiseLinear, Zernike
from neuralop_kit.layers.multigrid import MultigridOperator
from neuralop_kit.layers.neighbourhoods import Neighbourhoods, find_neighbourhoods
from neuralop_kit.layers.padding import Padding, ReflectionPadding, ZeroPadding
from neuralop_kit.layers.pointwise import PointwiseLinear
from neuralop_kit.layers.resample import Resample
from neuralop_kit.layers.spectral_conv import SpectralConv
from neuralop_kit.layers.spherical_conv import SphericalConv

__all__ = [
    "SpectralConv",
    "BoundedSpectralConv",
    "Padding",
    "ZeroPadding",
    "ReflectionPadding",
    "FourierContinuation",
    "Extended",
    "IntegralConv",
    "KernelBasis",
    "PiecewiseLinear",
    "Zernike",
    "Morlet",
    "DifferentialConv",
    "SphericalConv",
    "MultigridOperator",
    "FunctionAttention",
    "GraphKernel",
    "Neighbourhoods",
    "find_neighbourhoods",
    "FunctionNorm",
    "CoordinateEmbedding",
    "PointwiseLinear",
    "Resample",
    "Interpolation",
    "Trigonometric",
    "Cubic",
    "Linear",
    "CosineSeries",
    "SineSeries",
]
