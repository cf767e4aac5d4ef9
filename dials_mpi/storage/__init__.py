"""What is kept on disk: the run file, checkpoints, dumps of faults; the only place for h5py."""
