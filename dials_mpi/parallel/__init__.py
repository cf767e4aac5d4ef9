"""MPI: the ranks of a run, what travels between them, and how they start and end."""
