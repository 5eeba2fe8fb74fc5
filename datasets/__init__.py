"""Fields on disk: generate them, store them so that nothing is lost, read them fast.

generate         solve a problem for many random inputs and store the result; resumes after a kill
PROBLEMS         what can be generated, by name
Problem          base class for your own problem; Samples is what it returns
open_dataset     a dataset of ours or of others (PDEBench, The Well, ...), for torch's data loaders
FieldDataset     what open_dataset returns: pairs (input, target) with domain, names, units and statistics
Description      what a dataset is about, with a Parameter for each number of its equation
Steps, FinalTime, Task   which frames of a trajectory are given and which are asked for
TaskDataset, TrajectoryDataset   what files of others give: pairs, and whole trajectories ``(time, channel, *space)``
DataWarning      a known defect of a file, and what was done about it
ShardWriter      stores your own samples
estimate_statistics   means and deviations of a dataset that brings none along
write_well       a dataset of others as a file in The Well's layout
to_xarray        a dataset as an xarray.Dataset
check_file       whether an HDF5 file is in The Well's layout

On the command line: ``python -m neuralop_kit.datasets --help``.
"""

from neuralop_kit.datasets.check import check_file
from neuralop_kit.datasets.description import Description, Parameter
from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.generate import generate
from neuralop_kit.datasets.opening import open_dataset
from neuralop_kit.datasets.problems import PROBLEMS, Problem, Samples
from neuralop_kit.datasets.readers.contents import DataWarning
from neuralop_kit.datasets.store import ShardWriter
from neuralop_kit.datasets.survey import estimate_statistics
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.tasks import FinalTime, Steps, Task
from neuralop_kit.datasets.trajectories import TrajectoryDataset
from neuralop_kit.datasets.well_writer import write_well
from neuralop_kit.datasets.xarray_export import to_xarray

__all__ = [
    "generate",
    "PROBLEMS",
    "Problem",
    "Samples",
    "open_dataset",
    "FieldDataset",
    "Steps",
    "FinalTime",
    "Task",
    "TaskDataset",
    "TrajectoryDataset",
    "DataWarning",
    "Description",
    "Parameter",
    "ShardWriter",
    "estimate_statistics",
    "write_well",
    "to_xarray",
    "check_file",
]
