"""Policies for use without this package: ``python -m dials_mpi.export DIR --region I --out FILE.pt``.

describe.py says in words and numbers what a policy takes and gives; torchscript.py writes one policy as a
program that PyTorch alone runs, arrays.py all of them as plain arrays.
"""
