"""SUMO: the only place that imports libsumo, traci and sumolib."""
