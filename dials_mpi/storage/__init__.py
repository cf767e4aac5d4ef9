"""Files of a run: the run file, checkpoints, datasets, dumps after errors; only this package uses h5py."""
