"""Everything that knows torch: networks, PPO, influence predictors."""

import torch

# One thread per rank: there are as many ranks as cores, or more, and results would depend on the number.
torch.set_num_threads(1)
# A weight that no input ever reaches has moments that decay for ever; arithmetic with denormal numbers
# is many times slower.
torch.set_flush_denormal(True)
