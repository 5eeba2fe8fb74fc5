"""Fields on disk: generate them, store them so that nothing is lost, read them fast.

generate         solve a problem for many random inputs and store the result; resumes after a kill
PROBLEMS         what can be generated, by name
Problem          base class for your own problem; Samples is what it returns
open_dataset     one split of a dataset, for torch's data loaders
FieldDataset     what open_dataset returns: pairs (input, target) with domain, names, units and statistics
Description      what a dataset is about, with a Parameter for each number of its equation
ShardWriter      stores your own samples
check_file       whether an HDF5 file is in The Well's layout

On the command line: ``python -m neuralop_kit.datasets --help``.
"""

from neuralop_kit.datasets.check import check_file
from neuralop_kit.datasets.description import Description, Parameter
from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.generate import generate
from neuralop_kit.datasets.problems import PROBLEMS, Problem, Samples
from neuralop_kit.datasets.reader import open_dataset
from neuralop_kit.datasets.store import ShardWriter

__all__ = [
    "generate",
    "PROBLEMS",
    "Problem",
    "Samples",
    "open_dataset",
    "FieldDataset",
    "Description",
    "Parameter",
    "ShardWriter",
    "check_file",
]
