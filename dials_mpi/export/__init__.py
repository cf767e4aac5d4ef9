"""Policies for use without this package: ``python -m dials_mpi.export DIR --region I --out FILE.pt``.

describe.py describes a policy's inputs and outputs; torchscript.py writes one policy as a program that needs
only PyTorch, or with onnx_model.py as an ONNX model; arrays.py writes all policies as plain arrays.
program.py writes them with a program that controls the same city in SUMO: a copy of traci_program.py.
"""
