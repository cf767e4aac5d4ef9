"""What the tests of the traffic domain have in common: names, SUMO's own answers, a way to act."""

WEST, SOUTH, EAST, NORTH = range(4)
SIDES = ("west", "south", "east", "north")
CYCLE = ("GrGr", "yryr", "rGrG", "ryry")


def api(simulator):
    """SUMO's own answers about the running simulation."""
    return simulator.junctions.simulation._api


def random_actions(rng, *shape):
    """Switch every ten seconds or so."""
    return (rng.random(shape) < 0.1).astype(int)
