"""What a run records, and where: the run file, the console, CSV, TensorBoard, or a class from outside."""

from dials_mpi.run.sinks.base import SegmentEnd, Session, Sink, Sinks

__all__ = ["SegmentEnd", "Session", "Sink", "Sinks"]
