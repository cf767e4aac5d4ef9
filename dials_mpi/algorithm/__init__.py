"""The paper: Algorithms 1 to 3 without files and without MPI."""
