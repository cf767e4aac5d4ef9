"""Check that a domain keeps its contract: ``python -m dials_mpi.check my_package.my_module:MyDomain``.

contract.py checks shapes, ranges, the time limit and seeds, and arrays.py who owns arrays; replay.py plays
local simulators under the true influence sources (Definition 3), with the recorded random numbers of draws.py
or by the tests of chance.py; influence.py measures returns under other sources, also those sampled from a
run's predictors; speed.py measures both simulators. play.py plays and records episodes, gaps.py has
differences of returns, findings.py the results of checks. network.py and learner.py check networks and
trainers.
"""
