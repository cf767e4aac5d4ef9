"""From recorded data to the inputs of a network."""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled


@compiled
def by_time(episodes, chosen):
    """Some episodes of a dataset [K, T, W], copied with time first: [T, len(chosen), W]."""
    steps, width = episodes.shape[1:]
    picked = np.empty((steps, chosen.size, width), episodes.dtype)
    for t in range(steps):
        for k in range(chosen.size):
            picked[t, k] = episodes[chosen[k], t]
    return picked


@compiled
def scaled(inputs):
    """A predictor's inputs as float32: bits (uint8) become -1 and +1, float32 numbers stay as they are."""
    x = inputs.astype(np.float32)
    if inputs.itemsize == 1:
        flat = x.reshape(-1)
        for k in range(flat.size):
            flat[k] = flat[k] + flat[k] - np.float32(1)
    return x
