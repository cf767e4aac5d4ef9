"""A gated recurrent unit along whole sequences: forward, and its gradient by hand.

The cell is torch's own (gate order reset, update, new; Cho et al., 2014). What is ours is the order of the
work: all input products in one call before the loop over time, all weight gradients in two large products
after it, written straight into the network's gradient vector. The loop itself holds one matrix product and
a few element-wise operations per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Tape(NamedTuple):
    """What the backward pass needs of a forward pass over [S, B] steps with H units.

    states, entering, new: [S, B, H] after and before each step, and the candidate state; gates: reset and
    update [S, B, 2H]; recurrent: the state's products [S, B, 3H]; keep, cuts: where episodes begin.
    """

    x: Tensor
    states: Tensor
    entering: Tensor
    new: Tensor
    gates: Tensor
    recurrent: Tensor
    keep: Tensor | None
    cuts: list[bool]


def gru_step(x: Tensor, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """One step: x [B, I], h [B, H] -> new state [B, H]; weights as in gru_forward."""
    w_ih, w_hh, b_ih, b_hh = weights
    size = h.shape[1]
    from_input = torch.addmm(b_ih, x, w_ih.t())
    from_state = torch.addmm(b_hh, h, w_hh.t())
    gates = (from_input[:, : 2 * size] + from_state[:, : 2 * size]).sigmoid_()
    new = torch.addcmul(from_input[:, 2 * size :], gates[:, :size], from_state[:, 2 * size :]).tanh_()
    return torch.lerp(new, h, gates[:, size:])


def gru_forward(x: Tensor, h0: Tensor, keep: Tensor | None, weights: Sequence[Tensor]) -> Tape:
    """The states along sequences x [S, B, I] from h0 [B, H], with all that the gradient needs.

    keep [S, B] or None: 0 where a new episode begins at that step, so that the state entering it is zero.
    weights: w_ih [3H, I], w_hh [3H, H], b_ih [3H], b_hh [3H].
    """
    w_ih, w_hh, b_ih, b_hh = weights
    steps, batch, size = x.shape[0], x.shape[1], h0.shape[1]
    from_input = torch.addmm(b_ih, x.flatten(0, 1), w_ih.t()).view(steps, batch, 3 * size)
    tape = Tape(
        x,
        states=x.new_empty(steps, batch, size),
        entering=x.new_empty(steps, batch, size),
        new=x.new_empty(steps, batch, size),
        gates=x.new_empty(steps, batch, 2 * size),
        recurrent=x.new_empty(steps, batch, 3 * size),
        keep=keep,
        cuts=[False] * steps if keep is None else (keep < 1).any(dim=1).tolist(),
    )
    input_gates, input_new = from_input.split((2 * size, size), -1)
    recurrent_gates, recurrent_new = tape.recurrent.split((2 * size, size), -1)
    reset, update = tape.gates.split(size, -1)
    h, transposed = h0, w_hh.t()
    for s in range(steps):
        before = tape.entering[s]
        if tape.cuts[s]:
            torch.mul(h, keep[s].unsqueeze(1), out=before)
        else:
            before.copy_(h)
        torch.addmm(b_hh, before, transposed, out=tape.recurrent[s])
        torch.add(input_gates[s], recurrent_gates[s], out=tape.gates[s]).sigmoid_()
        torch.addcmul(input_new[s], reset[s], recurrent_new[s], out=tape.new[s]).tanh_()
        h = torch.lerp(tape.new[s], before, update[s], out=tape.states[s])
    return tape


def gru_backward(tape: Tape, grad_states: Tensor, w_hh: Tensor, gradients: Sequence[Tensor]) -> None:
    """From the gradient of all states [S, B, H] to that of the weights, written into ``gradients``.

    h0 is a constant (truncated back-propagation: the stored state of an earlier policy), and so is x.
    """
    steps, batch, size = tape.new.shape
    reset, update = tape.gates.split(size, -1)
    # The factors that do not depend on the incoming gradient, for all steps at once.
    new_factor = (1 - update) * (1 - tape.new.square())
    update_factor = (tape.entering - tape.new) * update * (1 - update)
    reset_factor = tape.recurrent[..., 2 * size :] * reset * (1 - reset)
    grad_recurrent = torch.empty_like(tape.recurrent)
    d_reset, d_update, d_scaled = grad_recurrent.split(size, -1)
    d_new = torch.empty_like(tape.new)
    grad_h = grad_states[-1]
    for s in range(steps - 1, -1, -1):
        torch.mul(grad_h, new_factor[s], out=d_new[s])
        torch.mul(d_new[s], reset_factor[s], out=d_reset[s])
        torch.mul(grad_h, update_factor[s], out=d_update[s])
        torch.mul(d_new[s], reset[s], out=d_scaled[s])
        if s:
            grad_h = torch.addmm(grad_h * update[s], grad_recurrent[s], w_hh)
            if tape.cuts[s]:
                grad_h.mul_(tape.keep[s].unsqueeze(1))
            grad_h.add_(grad_states[s - 1])
    grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh = gradients
    rows = grad_recurrent.view(steps * batch, 3 * size)
    torch.mm(rows.t(), tape.entering.view(steps * batch, size), out=grad_w_hh)
    torch.sum(rows, 0, out=grad_b_hh)
    # The input's side differs only in the new gate, where the state's product is scaled by reset.
    grad_recurrent[..., 2 * size :] = d_new
    torch.mm(rows.t(), tape.x.flatten(0, 1), out=grad_w_ih)
    torch.sum(rows, 0, out=grad_b_ih)
