"""Compiled code gives the same bits on all x86-64 processors with AVX2 and FMA; see target_digests.py."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import target_digests
from conftest import SMALL

from dials_mpi.core.jit import PACKAGE, features, processor
from dials_mpi.core.provenance import FUSED

PROGRAM = Path(__file__).with_name("target_digests.py")
OLDER = "AVX512F AVX512CD AVX512_SKX AVX512_ICL AVX512_SPR X86_V4"  # names of numpy's, of several versions
TARGETS = {
    "haswell": "+avx2,+fma",
    "skylake-avx512": "+avx512f,+avx2,+fma",
    "icelake-server": "+avx512f,+avx2,+fma",
    "sapphirerapids": "+avx512f,+avx2,+fma",
    "znver4": "+avx512f,+avx2,+fma,-sse4a,-clzero,-wbnoinvd,-rdpru,-mwaitx",  # without AMD's own
}
"""Processors by LLVM's names, and the instructions: the name brings the others."""
NEEDED = {"haswell": {"avx2", "fma"}, "skylake-avx512": {"avx512vl"}, "icelake-server": {"avx512vbmi2"}}
NEEDED |= {"sapphirerapids": {"avx512fp16"}, "znver4": {"avx512bf16"}}

RUNS = {
    "warehouse with memory": ("--config", "warehouse/fast", *SMALL, "ppo.max_gradient_norm=0.5"),
    "warehouse without": ("--config", "warehouse/fast", *SMALL, "policy.architecture=fnn"),
    "traffic": (
        *("--config", "traffic/fast", "total_steps=256", "evaluate_every=128", "retrain_every=128"),
        *("dataset_size=600", "evaluation_episodes=1", "influence.epochs=3"),
    ),
}


def digests(*arguments, target=None):
    """What the program prints, with code for this processor or another one; for Haswell also numpy's."""
    environment = {**os.environ}
    if target:
        environment |= {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": TARGETS[target]}
    if target == "haswell":
        environment |= {"NPY_DISABLE_CPU_FEATURES": numpys(), "OPENBLAS_CORETYPE": "Haswell"}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("digest ")]


def numpys():
    """The instructions after AVX2 that this numpy can choose at its start."""
    from numpy._core import _multiarray_umath as umath

    return " ".join(name for name in OLDER.split() if name in umath.__cpu_dispatch__)


def needs(target):
    if not NEEDED[target] <= features():
        pytest.skip(f"this processor cannot run the code of {target}")


def test_a_processor_of_2013_gives_the_same_bits():
    needs("haswell")
    assert digests("small", target="haswell") == target_digests.lines("small")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_all_learning_functions_give_the_same_bits(target):
    needs(target)
    here = digests("learning")
    assert len(here) > 30 and digests("learning", target=target) == here


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_runs_give_the_same_bits(settings, target, tmp_path):
    needs(target)
    here = digests("run", tmp_path / "here", *settings)
    assert len(here) > 20 and digests("run", tmp_path / "there", *settings, target=target) == here


def test_compiled_code_calls_no_functions_of_the_c_library():
    """Their last bits depend on its version; ``kernels/activations.py`` has the package's own."""
    calls = re.compile(r"\b(?:np|math)\.(?:exp|log|tanh|power|sin|cos)")
    for file in (PACKAGE / "learning").rglob("*.py"):
        source = file.read_text()
        bodies = [ast.unparse(one) for one in ast.walk(ast.parse(source)) if is_compiled(one)]
        assert not [body for body in bodies if calls.search(body)], file


def is_compiled(node):
    return "compiled" in [ast.unparse(one) for one in getattr(node, "decorator_list", ())]


def test_this_processor_is_one_of_those_with_equal_results():
    assert ("fma" in features()) == processor().endswith(FUSED)
