"""Policies for use without this package: ``python -m dials_mpi.export DIR --region I --out FILE.pt``.

describe.py describes a policy's inputs and outputs; arrays.py writes all policies as plain arrays;
learning/torchscript.py writes one policy as a program that needs only PyTorch, or as an ONNX model.
program.py writes all policies with a program that controls the same city in SUMO: a copy of traci_program.py.
"""
