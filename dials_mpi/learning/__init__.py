"""Networks, PPO and influence predictors, with their inner loops compiled by numba."""
