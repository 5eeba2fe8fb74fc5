"""One file per family of modules and functions; importing this package fills the table of rules.

shapes         views, permutations, slices, sizes
pointwise      activations, dropout, batch norm
joins          sums, products, concatenations; tables of positions
convolution    convolutions, transposed ones, padding layers
pooling        averages and maxima over windows
resizing       upsampling
normalization  norms over space and over channels
linear         matrices over channels and over points
products       matrix products, einsum
reductions     sums and means
attention      softmax, attention, transformers
recurrent      GRU, LSTM, RNN along an axis
messages       message passing; a rule to be registered for the user's own class
"""

from neuralop_kit.convert.rules import (
    attention,
    convolution,
    joins,
    linear,
    messages,
    normalization,
    pointwise,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
)

__all__ = [
    "shapes",
    "pointwise",
    "joins",
    "convolution",
    "pooling",
    "resizing",
    "normalization",
    "linear",
    "products",
    "reductions",
    "attention",
    "recurrent",
    "messages",
]
