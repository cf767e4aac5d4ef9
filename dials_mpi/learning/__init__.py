"""Everything that knows torch: networks, PPO, influence predictors."""
