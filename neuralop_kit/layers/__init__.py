"""Building blocks on fields ``(batch, channel, *space)``, each an ordinary ``nn.Module``.

SpectralConv      global convolution, learned per Fourier mode; any resolution in, any resolution out
"""

from neuralop_kit.layers.spectral_conv import SpectralConv

__all__ = ["SpectralConv"]
