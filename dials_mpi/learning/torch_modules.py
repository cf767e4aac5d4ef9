"""Modules of PyTorch that a configuration names: found, built, and tried once before a run begins.

A module is built as ``Module(inputs, outputs, description, **arguments)``; docs/networks.md has its contract.
Only what builds such a network imports this file, and with it torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import NETWORKS, import_subclass, located
from dials_mpi.core.text import printable, shown, told
from dials_mpi.learning.devices import Device
from dials_mpi.learning.tables import NetworkConfig, Table

if TYPE_CHECKING:
    from dials_mpi.domains.base import Description

# Where arrays lie in memory must not change the last bits of a product. Read at the first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

try:
    import torch
    from torch import nn

    from dials_mpi.learning.torch_twins import TWINS
except ImportError as missing:
    raise BadInput(
        f"a network in PyTorch needs torch ({printable(str(missing))}): pip install 'dials_mpi[torch]', or "
        "set the architecture to gru or fnn"
    ) from missing

torch.set_num_threads(1)  # each rank has one core
torch.set_deterministic_debug_mode(
    "error"
)  # use_deterministic_algorithms imports inductor, which takes seconds

TRIAL = 3
"""Sequences of the trial pass of a new module."""

CPU = torch.device("cpu")


class Memory(NamedTuple):
    """How a module's state lies in a row of H numbers.

    shapes: of its tensors, without the batch axis; () if it has no state. single: it is a tensor, not a tuple
    of tensors.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    single: bool = False

    @classmethod
    def of(cls, state: Any) -> Memory:
        """That of a state, a tensor or a tuple of tensors [B, ...]; None: there is none."""
        tensors = tensors_of(state)
        return cls(tuple(tuple(tensor.shape[1:]) for tensor in tensors), isinstance(state, torch.Tensor))

    @property
    def size(self) -> int:
        """H."""
        return sum(map(prod, self.shapes))

    def pack(self, state: Any) -> torch.Tensor:
        """A new tensor [B, H]."""
        return torch.cat([tensor.flatten(1) for tensor in tensors_of(state)], 1)

    def unpack(self, rows: torch.Tensor) -> Any:
        """The state in rows [B, H]; None: the module has none."""
        parts = rows.split([prod(shape) for shape in self.shapes], 1) if self.shapes else ()
        state = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True))
        return state[0] if self.single else state or None


class Contents(NamedTuple):
    """What a module of one configuration holds: its parameters' names and shapes, and its state."""

    table: Table
    memory: Memory


def device(chosen: Device) -> torch.device:
    """A rank's device. BadInput: it is not there."""
    name, place = chosen
    if not name.startswith("cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        raise BadInput(f"learning.device is {name}, and PyTorch finds no CUDA device: set it to cpu")
    return torch.device("cuda", place % torch.cuda.device_count() if name == "cuda:auto" else 0)


def find(config: NetworkConfig) -> Callable[..., nn.Module]:
    """The class of the configured architecture. BadInput: there is none, or it is no torch.nn.Module."""
    name = config.architecture
    if name in TWINS:
        return TWINS[name]
    place = located(name, NETWORKS)
    found: type[nn.Module] = import_subclass(
        f"{config.key}.architecture", place, nn.Module, "torch.nn.Module"
    )
    return found


def build(
    config: NetworkConfig, inputs: int, outputs: int, description: Description, seed: int = 0
) -> nn.Module:
    """The module, whose constructor draws from torch's generator under a seed. BadInput: it cannot be built.

    Its buffers are always those of seed 0: so are those of a module that is built again to be used.
    """
    kind = find(config)
    arguments = {"hidden": config.hidden} if config.architecture in TWINS else {}
    arguments |= config.arguments
    with _seeded(seed), _refused(config, _call(kind, inputs, outputs, arguments)):
        module = kind(inputs, outputs, description, **arguments)
    return module


@lru_cache(maxsize=4096)
def contents(config: NetworkConfig, inputs: int, outputs: int, description: Description) -> Contents:
    """What a module holds, after a trial pass. BadInput: it does not fulfil the contract."""
    module = build(config, inputs, outputs, description)
    table = tuple((name, tuple(part.shape)) for name, part in module.named_parameters())
    if not table:
        raise _refusal(config, "it has no parameters: give it some")
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise _refusal(config, f"its parameter {printable(name)} is {_type(parameter)}: make it float32")
    state = _initial_state(config, module)
    with _seeded(0):
        before, buffers = torch.get_rng_state(), _copies(module)
        with _refused(config, "forward"):
            result = module(torch.zeros(TRIAL, inputs), state)
        drawn = not torch.equal(before, torch.get_rng_state())
    memory = Memory.of(state)
    _require_step(config, result, outputs, memory)
    _require_constant(config, module, buffers, drawn)
    _require_sequence(config, module, memory, inputs, outputs)
    return Contents(table, memory)


def _initial_state(config: NetworkConfig, module: Any) -> Any:
    """The state of TRIAL sequences, None without ``initial_state``. BadInput: it is not as it must be."""
    if not hasattr(module, "initial_state"):
        return None
    with _refused(config, "initial_state"):
        state = module.initial_state(TRIAL)
    tensors = tensors_of(state)
    if not tensors or not all(
        isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and tensor.shape[:1] == (TRIAL,)
        for tensor in tensors
    ):
        raise _refusal(
            config,
            "its initial_state(batch) gives something else: return a float32 tensor [batch, ...] or a tuple "
            "of them",
        )
    if any(tensor.detach().any() for tensor in tensors):
        raise _refusal(
            config, "its initial_state(batch) is not zero: return zeros, and add a learnt start in forward"
        )
    return state


def _require_step(config: NetworkConfig, result: Any, outputs: int, memory: Memory) -> None:
    """BadInput: what ``forward`` returned for TRIAL rows is not (outputs, state)."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise _refusal(
            config,
            "its forward returns something else than (outputs, state): return both, None without a state",
        )
    _require_outputs(config, "forward", result[0], (TRIAL, outputs))
    after, wanted = result[1], [(TRIAL, *shape) for shape in memory.shapes]
    tensors = tensors_of(after) if wanted else ()
    found = [
        tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        for tensor in tensors
    ]
    if found != wanted or (bool(wanted) and isinstance(after, torch.Tensor) != memory.single):
        raise _refusal(
            config,
            f"its forward returns a state of shapes {_shapes(found)}: return {_shapes(wanted)}, as of "
            "initial_state",
        )
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        raise _refusal(config, "its forward returns a state that is not float32: convert it")


def _require_outputs(config: NetworkConfig, method: str, outputs: Any, shape: tuple[int, ...]) -> None:
    found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if found != shape:
        raise _refusal(config, f"its {method} returns outputs of shape {found}: return {shape}")
    if outputs.dtype != torch.float32:
        raise _refusal(config, f"its {method} returns outputs of type {_type(outputs)}: return float32")
    if not outputs.requires_grad:
        raise _refusal(
            config, f"the outputs of its {method} do not depend on its parameters: nothing could be learnt"
        )


def _require_constant(
    config: NetworkConfig, module: nn.Module, buffers: Mapping[str, torch.Tensor], drawn: bool
) -> None:
    """BadInput: a forward pass changed a buffer, which no file would keep, or drew random numbers."""
    for name, buffer in module.named_buffers():
        if not torch.equal(buffer, buffers.get(name, buffer[:0] if buffer.dim() else buffer + 1)):
            raise _refusal(
                config,
                f"its buffer {printable(name)} changes in forward, and no checkpoint keeps it: use a layer "
                "without running statistics, such as LayerNorm",
            )
    if drawn:
        raise _refusal(config, "its forward draws random numbers: remove dropout and noise")


def _require_sequence(config: NetworkConfig, module: Any, memory: Memory, inputs: int, outputs: int) -> None:
    """BadInput: ``sequence`` fails, or its outputs have another shape."""
    if memory.size and hasattr(module, "sequence"):
        rows, keep = torch.zeros(TRIAL, memory.size), torch.ones(2, TRIAL)
        with _refused(config, "sequence"):
            found = module.sequence(torch.zeros(2, TRIAL, inputs), memory.unpack(rows), keep)
        _require_outputs(config, "sequence", found, (2, TRIAL, outputs))


def tensors_of(state: Any) -> tuple[Any, ...]:
    """The tensors of a state."""
    if state is None:
        return ()
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def _copies(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's generator begins at a seed inside; afterwards it is where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _refused(config: NetworkConfig, what: str) -> Iterator[None]:
    """BadInput in place of any exception of the user's code; what: was called."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # the module may raise anything
        raise _refusal(config, f"{what} fails: {told(error)}") from error


def _refusal(config: NetworkConfig, why: str) -> BadInput:
    return BadInput(f"{config.key}.architecture is {shown(config.architecture)}, but {why}")


def _call(kind: Callable[..., nn.Module], inputs: int, outputs: int, arguments: Mapping[str, Any]) -> str:
    """The constructor's call, for a message."""
    given = "".join(f", {name}={shown(value)}" for name, value in arguments.items())
    return f"{getattr(kind, '__name__', 'Module')}({inputs}, {outputs}, description{given})"


def _shapes(found: Sequence[Any]) -> str:
    return ", ".join(map(str, found)) or "none"


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
