"""Distributed influence-augmented local simulators (DIALS) as an MPI application."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # Started as `python -m dials_mpi.NAME`: the working folder, which Python has put first, comes last, so
    # that no file in it, such as a numpy.py or a sumo.py, is imported in place of a library.
    sys.path.append(sys.path.pop(0))
