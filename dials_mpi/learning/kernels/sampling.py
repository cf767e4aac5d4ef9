"""Actions and influence sources, drawn from a network's outputs by given uniform numbers."""

from __future__ import annotations

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.kernels.activations import exp_double, log

COUPLING_SCALE = np.float32(32)
"""A coupling times this is added to an output.

Adam moves each parameter by about the learning rate. A network moves an output faster than that, with many
weights; without the scale the couplings would be far behind it at the end of a fit.
"""


@compiled
def log_sum_exp(logits):
    """The logarithm of the sum of e^logits [A], in double precision."""
    largest = np.float64(logits.max())
    total = 0.0
    for logit in logits:
        total += exp_double(logit - largest)
    return largest + log(total)


@compiled
def draw(logits, total, uniform):
    """A class, by a uniform number in [0, 1); total: the ``log_sum_exp`` of the logits."""
    drawn, cumulative = 0, exp_double(logits[0] - total)
    while drawn < logits.size - 1 and uniform >= cumulative:
        drawn += 1
        cumulative += exp_double(logits[drawn] - total)
    return drawn


@compiled
def draw_actions(outputs, uniforms):
    """Actions int64 [B], their log-probabilities [B] and the values [B].

    outputs float32 [B, A + 1]: one logit per action, and the value; uniforms float32 [B].
    """
    batch, count = outputs.shape[0], outputs.shape[1] - 1
    actions = np.empty(batch, np.int64)
    log_probabilities = np.empty(batch, np.float32)
    for b in range(batch):
        logits = outputs[b, :count]
        total = log_sum_exp(logits)
        actions[b] = draw(logits, total, uniforms[b])
        log_probabilities[b] = logits[actions[b]] - total
    return actions, log_probabilities, outputs[:, count].copy()


@compiled
def source_logits(outputs, count, start):
    """The logits of one source, one per class, in one row of outputs [K]."""
    if count > 2:
        return outputs[start : start + count].copy()
    logits = np.zeros(2, outputs.dtype)
    logits[1] = outputs[start]
    return logits


@compiled
def draw_sources(outputs, uniforms, counts, starts):
    """Sources int64 [B, M] from outputs float32 [B, K], uniforms float32 [B, M].

    counts, starts [M]: each source's number of classes and first output.
    """
    sources = np.empty(uniforms.shape, np.int64)
    for b in range(uniforms.shape[0]):
        for m in range(counts.size):
            logits = source_logits(outputs[b], counts[m], starts[m])
            sources[b, m] = draw(logits, log_sum_exp(logits), uniforms[b, m])
    return sources


@compiled
def draw_coupled_sources(outputs, uniforms, counts, starts, couplings, places, widths):
    """``draw_sources``, where each source depends on those before it.

    couplings, places, widths: as in ``add_coupling``.
    """
    sources, row = np.empty(uniforms.shape, np.int64), np.empty_like(outputs[0])
    for b in range(uniforms.shape[0]):
        row[:] = outputs[b]
        for m in range(counts.size):
            logits = source_logits(row, counts[m], starts[m])
            sources[b, m] = draw(logits, log_sum_exp(logits), uniforms[b, m])
            add_coupling(row, sources[b, m], couplings, places[m], widths[m])
    return sources


@compiled
def add_coupling(row, value, couplings, place, width):
    """Add what the class of one source adds to the outputs of the sources after it, the last of a row [K].

    value: the class; class 0 adds nothing. place: where the source's part of couplings [N] begins; it has
    ``width`` numbers for each class but the first.
    """
    if value:
        added, last = place + (value - 1) * width, row.size - width
        for k in range(width):
            row[last + k] += COUPLING_SCALE * couplings[added + k]
