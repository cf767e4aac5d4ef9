"""The city domain: the signals of any road network that SUMO can simulate.

net.py says what a network file contains.
"""
