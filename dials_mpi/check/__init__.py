"""A domain put to the test: ``python -m dials_mpi.check my_package.my_module:MyDomain``.

contract.py: shapes, ranges, time, seeds. replay.py: Definition 3, true sources fed to local simulators.
influence.py: what becomes of a region under other sources, those of a run's predictors among them. speed.py:
what both simulators cost, and whether local ones pay.
"""
