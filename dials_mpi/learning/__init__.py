"""Everything that knows torch: networks, PPO, influence predictors."""


def set_up_torch() -> None:
    """Settings of torch for this process; every program that trains or evaluates calls it first.

    One thread: there are as many ranks as cores, or more, and results would depend on the number.
    Denormal numbers are flushed to zero: the moments of a weight that no input ever reaches decay for
    ever, and arithmetic with denormal numbers is many times slower.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
