"""Studies: a grid of systems, methods and seeds, one run after another: ``python -m dials_mpi.study FILE``.

plan.py turns a study file into the list of its runs, state.py says from their files how far these are,
launch.py and process.py run each as a program of its own, series.py takes up one after the other, board.py
shows it, reporting.py has them reported.
"""
