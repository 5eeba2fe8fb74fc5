"""Any torch network becomes a neural operator.

to_operator         the network, at any resolution: exact at its own, convergent on finer grids
Operator            what it returns; ``report()`` says how each part is read
Hat, Cubic          what lies between the taps of a convolution: order 2 and 4,
Spectral, Dilated   a Fourier series, or nothing: exact at common points
Kernel              base class of these, for leaves of your own
Report, Record      the table, and one line of it
ConversionError     a part has no rule; its ``reasons`` are pairs of path and reason
CoarseGridWarning   an input is coarser than the reference
convergence_report  one function on many grids: error against the finest, drift from the reference, orders
ConvergenceReport   its table and its picture
register_rule       teach the converter a module or a function
Call, Conversion    what a rule gets, and what it returns
Edge, Line, Size    a tensor inside of the network, and what its dimensions are
Refusal             raised by a rule, with the reason
adopt               a module of another class with the same parameters
message_passing     a rule for graph layers called as ``layer(x, edge_index)``
"""

from neuralop_kit.convert.arrival import CoarseGridWarning
from neuralop_kit.convert.checking import ConversionError
from neuralop_kit.convert.convergence import ConvergenceReport, convergence_report
from neuralop_kit.convert.converter import Record
from neuralop_kit.convert.grid import Line, Size
from neuralop_kit.convert.kernels import Cubic, Dilated, Hat, Kernel, Spectral
from neuralop_kit.convert.operator import Operator, to_operator
from neuralop_kit.convert.registry import Call, Conversion, Edge, Refusal, adopt, register_rule
from neuralop_kit.convert.report import Report
from neuralop_kit.convert.rules.messages import message_passing

__all__ = [
    "to_operator",
    "Operator",
    "Hat",
    "Cubic",
    "Spectral",
    "Dilated",
    "Kernel",
    "Report",
    "Record",
    "ConversionError",
    "CoarseGridWarning",
    "convergence_report",
    "ConvergenceReport",
    "register_rule",
    "Call",
    "Conversion",
    "Edge",
    "Line",
    "Size",
    "Refusal",
    "adopt",
    "message_passing",
]
