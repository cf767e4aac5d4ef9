#!/bin/bash
# The same without a scheduler, on RANKS ranks (the cores and one more, as far as they can be used).
# The same line again goes on where it stopped.
#
#   RANKS=5 jobs/laptop.sh --config configs/warehouse/4.yaml --output runs/mine
#
# With --walltime it starts anew whenever that is over, until the run is done; Ctrl-C stops it at once, and
# SIGUSR1 to this script at the next checkpoint.
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
    while [[ $waiting ]]; do # a trap ends the wait
        waiting='' code=0
        wait "$mpirun" || code=$?
    done
    [[ $* == *--walltime* ]] || break
done
exit "$code"
