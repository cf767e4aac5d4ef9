"""Distributed influence-augmented local simulators (DIALS) as an MPI application."""

__version__ = "0.1.0"
