"""Any city: a road network of SUMO, cut into regions around its signals."""
