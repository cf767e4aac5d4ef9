"""Training speed compared with the machine's limits, and projections to more ranks.

``python -m dials_mpi.bench``. All figures of the pages about speed come from here, as ratios to limits that
were measured in the same run on the same cores, since absolute figures depend on the machine and its load.
Unless stated otherwise, seconds are CPU seconds, which do not change when many ranks share a core.
"""

import os

# One thread per rank, as in training, also for matrix products. It must be set before numpy is loaded.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
