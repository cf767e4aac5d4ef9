"""A policy as an ONNX model, which other runtimes load, such as onnxruntime.

Why torch's exporter that traces, and not the one that uses torch.export: for these networks it needs half a
second in place of ten, and the package onnx alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dials_mpi.core.errors import BadInput

try:
    import onnx
    from onnx.reference import ReferenceEvaluator
except ImportError as missing:
    raise BadInput(
        f"exporting as .onnx needs the package onnx ({missing}): pip install 'dials_mpi[onnx]', or choose a "
        "name that ends with .pt"
    ) from missing

INPUTS, OUTPUTS = ("observation", "state"), ("logits", "value", "next_state")
"""The names of ``describe.describe_policy``."""


def save(
    module: nn.Module, example: tuple[torch.Tensor, ...], buffer: io.BytesIO, extra: dict[str, str]
) -> None:
    """Write a policy's module as a model whose batch size is free; extra: its metadata, by name."""
    traced = io.BytesIO()
    axes = {name: {0: "B"} for name in INPUTS + OUTPUTS}
    torch.onnx.export(
        module,
        example,
        traced,  # type: ignore[arg-type]  # a file in memory is allowed
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_axes=axes,
        dynamo=False,
    )
    model = onnx.load_from_string(traced.getvalue())
    onnx.helper.set_model_props(model, extra)
    onnx.checker.check_model(model)
    buffer.write(model.SerializeToString())


def load(buffer: io.BytesIO) -> Callable[..., Any]:
    """The model in a file as a function of tensors, computed by the package onnx itself."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(buffer.getvalue()))

    def run(*tensors: torch.Tensor) -> Any:
        return evaluator.run(None, dict(zip(INPUTS, (one.numpy() for one in tensors), strict=True)))

    return run
