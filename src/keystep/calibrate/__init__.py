"""Measuring a model once, for methods whose schedules are made offline."""

from keystep.calibrate.generation import count_evaluations
from keystep.calibrate.record import Record
from keystep.calibrate.residuals import measure_ratios
from keystep.calibrate.segments import edges_of, measure_segments

__all__ = ["Record", "count_evaluations", "edges_of", "measure_ratios", "measure_segments"]
