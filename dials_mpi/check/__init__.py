"""Check that a domain keeps its contract: ``python -m dials_mpi.check my_package.my_module:MyDomain``.

contract.py checks shapes, ranges, the time limit and seeds; replay.py plays local simulators under the true
influence sources (Definition 3); influence.py measures returns under other sources, also those sampled from a
run's predictors; speed.py measures both simulators. play.py plays and records episodes, findings.py has the
results of checks.
"""
