"""SUMO, for the domains that need it: the only package that imports libsumo, traci and sumolib."""
