"""Ours against the peers, in one process, with the error beside every time: ``python -m benchmarks --list``.

Comparison      what is timed: ours, a peer, a case, what to measure, how accuracy is checked
Study           long-running evidence that is not a ratio of times: tables over resolutions, seeds, epochs
FieldCase       a random field of a given size
Forward, ForwardBackward, TrainingStep, Call                    what one repetition does
AgainstFloat64, AgainstPeer, AgainstReference, ErrorFunction    how wrong the answer is

Entries live in ``benchmarks/entries/*.py``; ``README.md`` beside this file says how to read the tables and how to add
one.
"""

from benchmarks.accuracy import Accuracy, AgainstFloat64, AgainstPeer, AgainstReference, ErrorFunction
from benchmarks.cases import Case, FieldCase
from benchmarks.entry import Comparison, Entry, Study
from benchmarks.measures import Call, Forward, ForwardBackward, Measure, TrainingStep
from benchmarks.settings import Setting

__all__ = [
    "Comparison",
    "Study",
    "Entry",
    "Setting",
    "Case",
    "FieldCase",
    "Measure",
    "Forward",
    "ForwardBackward",
    "TrainingStep",
    "Call",
    "Accuracy",
    "AgainstFloat64",
    "AgainstPeer",
    "AgainstReference",
    "ErrorFunction",
]
