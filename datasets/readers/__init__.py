"""Public dataset formats of the field, one reader each.

read_file        what a file holds, whatever its layout: detected by its content
LAYOUTS          the layouts that are known, in the order in which they are tried
Layout, Hints    base of a reader of your own, and what a user may say beyond the path
FieldFile        blocks ``(sample, time, channel, *space)`` of a file
Contents, Variable   what a file holds, in the words of this package
DataWarning      a known defect of a file, and what was done about it
"""

from neuralop_kit.datasets.readers.contents import Contents, DataWarning, Variable
from neuralop_kit.datasets.readers.detection import LAYOUTS, read_file
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.layout import Hints, Layout

__all__ = ["read_file", "LAYOUTS", "Layout", "Hints", "FieldFile", "Contents", "Variable", "DataWarning"]
