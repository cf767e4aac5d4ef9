"""The accuracy of local simulators given true influence: ``python -m dials_mpi.fidelity``.

comparison.py says what a domain's comparison provides; traffic.py and city.py are the two there are.
"""
