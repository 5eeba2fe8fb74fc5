"""Building blocks on fields ``(batch, channel, *space)``, each an ordinary ``nn.Module``.

SpectralConv          global convolution, learned per Fourier mode; any resolution in, any resolution out
FunctionNorm          mean zero, variance one over the domain, by quadrature
CoordinateEmbedding   appends functions of position, without a jump where an axis is periodic
"""

from neuralop_kit.layers.coordinate_embedding import CoordinateEmbedding
from neuralop_kit.layers.function_norm import FunctionNorm
from neuralop_kit.layers.spectral_conv import SpectralConv

__all__ = ["SpectralConv", "FunctionNorm", "CoordinateEmbedding"]
