"""Assigning units: hashing, holdouts, layers, experiments, each assignment with its probability."""

from experiments.assignment import Assignment
from experiments.buckets import UnitRange, bucket, in_units, parse_units
from experiments.design import Design, assign, changed_faults
from experiments.errors import ExperimentError, Fault
from experiments.experiment import Experiment, Holdout, Pin, State, UsePolicy, Variant
from experiments.power import Comparison

__all__ = [
    "Assignment",
    "Comparison",
    "Design",
    "Experiment",
    "ExperimentError",
    "Fault",
    "Holdout",
    "Pin",
    "State",
    "UnitRange",
    "UsePolicy",
    "Variant",
    "assign",
    "bucket",
    "changed_faults",
    "in_units",
    "parse_units",
]
