"""Studies: a grid of systems, methods and seeds, one run after another: ``python -m dials_mpi.study FILE``.

plan.py reads a study file into the list of its runs; state.py reads their progress from their files and
estimates the remaining time; launch.py makes the command line of each run, process.py runs it, series.py does
so for one run after another; board.py prints progress; reporting.py starts ``report`` at the end.
"""
