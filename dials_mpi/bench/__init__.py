"""How fast this machine trains, beside what it could do, and how fast many more would: ``python -m
dials_mpi.bench``.

Every figure that the pages quote about speed comes from here, as a ratio to a floor that was measured in
the same run on the same cores: absolute figures drift with the machine and with what else runs on it.
Where not said otherwise seconds are CPU seconds, so that they mean the same when a hundred ranks share two
cores.
"""

import os

# One thread per rank, as in training. It must be said before numpy is loaded, and holds for its products too.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
