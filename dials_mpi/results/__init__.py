"""A run read back: its configuration, series, policies and predictors."""
