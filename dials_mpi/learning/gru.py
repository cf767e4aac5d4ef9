"""A gated recurrent unit along whole sequences: forward, and its gradient by hand.

The cell is torch's own (gate order reset, update, new; Cho et al., 2014). What is ours is the order of the
work: all input products in one call before the loop over time, all weight gradients in two large products
after it, written straight into the network's gradient vector. The loop itself holds one matrix product and
a few element-wise operations per step, on views that are made once per shape: at 4 sequences of 8 steps
slicing and allocating would take as long as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


class Workspace:
    """Room for one forward and backward pass over [S, B] steps of H units, and its views by step.

    states, entering: the state after and before each step; new: the candidate state; gates: reset and
    update; recurrent: the state's products, before the gates. d_...: gradients.
    """

    def __init__(self, steps: int, batch: int, size: int) -> None:
        def room(width: int) -> Tensor:
            return torch.empty(steps, batch, width)

        self.from_input, self.recurrent = room(3 * size), room(3 * size)
        self.gates = room(2 * size)
        self.entering, self.new, self.states = (room(size) for _ in range(3))
        # A backward pass overwrites what it needs no more: a hundred ranks share a machine's memory.
        self.d_recurrent, self.factors, self.d_new = self.from_input, self.recurrent, self.new
        self.spare = torch.empty(2, batch, size)
        self.reset, self.update = self.gates.split(size, -1)
        self.new_factor, self.update_factor, self.reset_factor = self.factors.split(size, -1)
        forward = (
            self.entering,
            self.recurrent,
            *self.from_input.split((2 * size, size), -1),
            *self.recurrent.split((2 * size, size), -1),
            *(self.gates, self.reset, self.update),
            *(self.new, self.states),
        )
        backward = (
            *(self.d_recurrent, *self.d_recurrent.split(size, -1), self.d_new),
            *(self.new_factor, self.update_factor, self.reset_factor, self.reset, self.update),
        )
        self.forward_steps = list(zip(*(part.unbind() for part in forward), strict=True))
        self.backward_steps = list(zip(*(part.unbind() for part in backward), strict=True))

    def prepare_factors(self) -> None:
        """The factors of the backward pass that do not depend on its gradient, for all steps at once.

        (1 - update) (1 - new^2), (entering - new) update (1 - update), recurrent_new reset (1 - reset).
        """
        spare = self.d_recurrent[..., : self.new.shape[-1]]
        torch.sub(1, self.reset, out=spare)
        self.reset_factor.mul_(self.reset).mul_(spare)  # in the place of recurrent_new
        torch.sub(1, self.update, out=spare)
        torch.mul(self.new, self.new, out=self.new_factor)
        torch.sub(1, self.new_factor, out=self.new_factor).mul_(spare)
        torch.sub(self.entering, self.new, out=self.update_factor).mul_(self.update).mul_(spare)


@lru_cache(maxsize=16)
def workspace(steps: int, batch: int, size: int) -> Workspace:
    """The one workspace of this shape: networks share it, so a backward pass follows its own forward pass."""
    return Workspace(steps, batch, size)


def gru_step(x: Tensor, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """One step: x [B, I], h [B, H] -> new state [B, H]; weights as in gru_forward."""
    w_ih, w_hh, b_ih, b_hh = weights
    size = h.shape[1]
    input_gates, input_new = torch.addmm(b_ih, x, w_ih.t()).split((2 * size, size), 1)
    state_gates, state_new = torch.addmm(b_hh, h, w_hh.t()).split((2 * size, size), 1)
    reset, update = input_gates.add_(state_gates).sigmoid_().split(size, 1)
    new = torch.addcmul(input_new, reset, state_new).tanh_()
    return torch.lerp(new, h, update)


def gru_forward(x: Tensor, h0: Tensor, keep: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    """The states [S, B, H] along sequences x [S, B, I] from h0 [B, H]; valid until the next pass.

    keep [S, B] or None: 0 where a new episode begins at that step, so that the state entering it is zero.
    weights: w_ih [3H, I], w_hh [3H, H], b_ih [3H], b_hh [3H].
    """
    w_ih, w_hh, b_ih, b_hh = weights
    steps, batch = x.shape[:2]
    work = workspace(steps, batch, h0.shape[1])
    torch.addmm(b_ih, x.flatten(0, 1), w_ih.t(), out=work.from_input.flatten(0, 1))
    cuts, h, transposed = cut_steps(keep, steps), h0, w_hh.t()
    for s, views in enumerate(work.forward_steps):
        before, products, input_gates, input_new, state_gates, state_new, gates, reset, update, new, after = (
            views
        )
        if cuts[s]:
            torch.mul(h, keep[s].unsqueeze(1), out=before)
        else:
            before.copy_(h)
        torch.addmm(b_hh, before, transposed, out=products)
        torch.add(input_gates, state_gates, out=gates).sigmoid_()
        torch.addcmul(input_new, reset, state_new, out=new).tanh_()
        h = torch.lerp(new, before, update, out=after)
    return work.states


def gru_backward(
    x: Tensor, d_states: Tensor, keep: Tensor | None, w_hh: Tensor, gradients: Sequence[Tensor]
) -> None:
    """From the gradient of all states [S, B, H] to that of the weights, written into ``gradients``.

    x, keep: as in the forward pass just before. h0 is a constant (truncated back-propagation: a stored
    state of the acting policy), and so is x.
    """
    steps, batch, size = d_states.shape
    work = workspace(steps, batch, size)
    work.prepare_factors()
    cuts, incoming, d_h = cut_steps(keep, steps), d_states.unbind(), d_states[-1]
    for s in range(steps - 1, -1, -1):
        (
            products,
            d_reset,
            d_update,
            d_scaled,
            d_new,
            new_factor,
            update_factor,
            reset_factor,
            reset,
            update,
        ) = work.backward_steps[s]
        torch.mul(d_h, new_factor, out=d_new)
        torch.mul(d_new, reset_factor, out=d_reset)
        torch.mul(d_h, update_factor, out=d_update)
        torch.mul(d_new, reset, out=d_scaled)
        if s == 0:
            break
        spare = work.spare[s % 2]
        if cuts[s]:
            torch.addmm(d_h * update, products, w_hh, out=spare).mul_(keep[s].unsqueeze(1))
            d_h = spare.add_(incoming[s - 1])
        else:
            d_h = torch.addcmul(incoming[s - 1], d_h, update, out=spare).addmm_(products, w_hh)
    d_w_ih, d_w_hh, d_b_ih, d_b_hh = gradients
    rows = work.d_recurrent.flatten(0, 1)
    torch.mm(rows.t(), work.entering.flatten(0, 1), out=d_w_hh)
    torch.sum(rows, 0, out=d_b_hh)
    # The input's side differs only in the new gate, where the state's product is scaled by reset.
    rows[:, 2 * size :] = work.d_new.flatten(0, 1)
    torch.mm(rows.t(), x.flatten(0, 1), out=d_w_ih)
    torch.sum(rows, 0, out=d_b_ih)


def cut_steps(keep: Tensor | None, steps: int) -> list[bool]:
    """Whether an episode begins in some sequence, step by step."""
    return [False] * steps if keep is None else (keep < 1).any(dim=1).tolist()
