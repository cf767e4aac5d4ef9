#!/bin/bash
# Train without a scheduler, on RANKS ranks (default: the number of cores plus one, or fewer if the run cannot use
# them). The same command again continues the run.
#
#   RANKS=5 jobs/laptop.sh --config configs/warehouse/4.yaml --output runs/mine
#
# With --walltime the run is started again each time it stops, until it is finished. Ctrl-C stops it at once;
# SIGUSR1 to this script stops it at the next checkpoint.
set -euo pipefail

export OMP_NUM_THREADS=1
: "${RANKS:=$(python -m dials_mpi.train --print-ranks "$@")}"
trap 'stopped=yes waiting=yes; kill -TERM "$mpirun" || true' INT TERM
trap 'stopped=yes waiting=yes; kill -USR1 "$mpirun" || true' USR1
stopped='' code=75
while [[ $code -eq 75 && -z $stopped ]]; do
    mpirun -n "$RANKS" python -m dials_mpi.train --resume "$@" &
    mpirun=$!
    waiting=yes
    while [[ $waiting ]]; do # a trap interrupts the wait
        waiting='' code=0
        wait "$mpirun" || code=$?
    done
    [[ $* == *--walltime* ]] || break
done
exit "$code"
