"""The city domain: the signals of any road network that SUMO can simulate.

net.py says what a network file contains.
signals.py changes the lights second by second; approaches.py reads the lanes around signals, and rewards.py
pays for them; global_simulator.py simulates the whole city, outputs.py names the files that SUMO writes, and
statistics.py reads them; controllers.py has the hand-coded policies.
"""
