"""The first command of the README, whole: agents learn. Minutes long, so marked slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import train

from dials_mpi.runfile import RunFile

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_at_least_triples_the_random_return(tmp_path):
    done = train("--config", str(QUICKSTART), "--output", str(tmp_path / "run"), ranks=3, timeout=1700)
    assert (done.code, done.stderr) == (0, "")
    run = RunFile.open(str(tmp_path / "run"))
    returns, random = run.read("evaluation/returns"), run.read("reference/random")
    assert returns[-1].mean() > 3 * random.mean()
    # Every region learnt, not only some.
    assert np.all(returns[-1].mean(axis=0) > 1.5 * random.mean())
    assert "trained" in done.stdout and "oldest" in done.stdout
