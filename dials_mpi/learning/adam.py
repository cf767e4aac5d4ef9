"""Adam (Kingma and Ba, 2015) on one flat parameter vector."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """One optimiser of one network: two moment vectors and a count.

    torch.optim is not used because constructing one of its optimisers imports torch's compiler: about
    70 MB and a second of CPU time in every rank. The step is the same fused kernel.
    """

    beta1 = 0.9
    beta2 = 0.999

    def __init__(self, parameters: Tensor, gradient: Tensor, epsilon: float) -> None:
        self.parameters, self.gradient, self.epsilon = parameters, gradient, epsilon
        self.first_moment = torch.zeros_like(parameters)
        self.second_moment = torch.zeros_like(parameters)
        self.steps = torch.zeros(())

    def state(self) -> dict[str, Tensor]:
        """All that the network has learnt and the optimiser remembers, not copied: float32 [P], steps []."""
        return {
            "parameters": self.parameters,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "adam_steps": self.steps,
        }

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the parameters [P] against the gradient [P]."""
        self.steps += 1
        torch._fused_adam_(
            [self.parameters],
            [self.gradient],
            [self.first_moment],
            [self.second_moment],
            [],
            [self.steps],
            lr=learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )
