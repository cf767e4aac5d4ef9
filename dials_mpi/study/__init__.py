"""Studies: a grid of systems, methods and seeds, one run after another: ``python -m dials_mpi.study FILE``.

plan.py reads a study file into the list of its runs; state.py reads their progress from their files and
estimates the remaining time; launch.py makes the command line of each run, process.py runs it, series.py does
so for one run after another; board.py prints progress; reporting.py starts ``report`` at the end.

A sweep, with ``--sampler``, is a search for good settings: ranges.py and sweep_plan.py read its file;
sampling.py asks optuna for the values of each trial; trials.py reads evaluations from run files and decides
which trials are pruned; sweep.py runs one after another; ranking.py writes the results.
"""
