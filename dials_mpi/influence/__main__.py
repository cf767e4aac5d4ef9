"""The command ``influence``: can the influence of a system be learnt, and with which predictor?

``python -m dials_mpi.influence DIR`` fits predictors to the data that the run has kept, without any training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.table import Table

from dials_mpi.algorithm.dataset import Dataset
from dials_mpi.cli import Parser, add_unchecked, integer, word
from dials_mpi.config import Config, load_changed
from dials_mpi.core.console import BestEffortConsole, PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.influence.fits import Data, Fitted, fit
from dials_mpi.influence.variants import PREFIX, variants
from dials_mpi.results.run import Run
from dials_mpi.results.style import STILLS, style
from dials_mpi.storage.datasets import DatasetFile, choose
from dials_mpi.storage.files import output_file, write_json

EXAMPLES = """examples:
  python -m dials_mpi.influence runs/warehouse-4-dials-seed0
  python -m dials_mpi.influence runs/warehouse-4-dials-seed0 --vary samples=1000,4000,all
  python -m dials_mpi.influence DIR influence.architecture=gru --vary history=1,8,all --out history.png
  python -m dials_mpi.influence DIR --vary influence.hidden=[16,16],[64,64] influence.epochs=50

KEY of --vary is a setting of the predictors, samples (per region), or history (steps that they see)."""

DEFAULT = f"{PREFIX}architecture=fnn,gru"
FEW = 4
"""Regions that are fitted unless --regions says otherwise."""

USEFUL, MUCH = 0.98, 0.9
"""Predictors that leave more than the first share of the cross-entropy of class frequencies have learnt
nothing, and between the two hardly anything."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("influence", "Fit influence predictors to the kept data of a run.", EXAMPLES)
    parser.add_argument("directory", metavar="DIR", help="a run with datasets: last or all")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, such as influence.epochs=50"
    )
    parser.add_argument(
        "--vary",
        action="append",
        metavar="KEY=V,V",
        type=word,
        help=f"compare these values; several: all combinations; default: {DEFAULT}",
    )
    parser.add_argument(
        "--steps", type=integer, metavar="N", help="of the dataset, if the run has kept several"
    )
    parser.add_argument(
        "--regions", type=integer, nargs="+", metavar="K", help=f"fit these; default: {FEW} spread over all"
    )
    parser.add_argument("--out", metavar="FILE", type=word, help="also draw a picture (extra: report)")
    parser.add_argument("--json", metavar="FILE", type=word, help="also write the results to FILE")
    add_unchecked(parser)
    options = parser.parse_intermixed_args(argv)
    try:
        _compare(options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(0)


def _compare(options: argparse.Namespace) -> None:
    """BadInput: the options or the run do not allow it."""
    if options.out and Path(options.out).suffix.lower() not in STILLS:
        raise BadInput(f"--out is {printable(options.out)}: choose a name that ends with {', '.join(STILLS)}")
    run = Run.open(options.directory, unchecked=options.unchecked)
    config = load_changed(run.config, options.overrides)
    compared = variants(config, options.vary or [DEFAULT])
    file = choose(options.directory) if options.steps is None else run.datasets[options.steps].file
    data = _data(run, file, options.regions)
    if options.out:
        with style(), output_file(Path(options.out)) as picture:
            fitted = _fit_all(compared, data, config, file)
            _draw(fitted, picture, options.out)
    else:
        fitted = _fit_all(compared, data, config, file)
    if options.json:
        _write_json(options.json, fitted, data)
    _print(fitted, data, len(run.domain.regions), int(file.attributes["env_steps"]))


def _data(run: Run, file: DatasetFile, wanted: Sequence[int] | None) -> Data:
    """The datasets of the regions to fit. BadInput: there is no such region."""
    number = file.regions
    numbers = sorted(set(wanted or np.linspace(0, number - 1, min(FEW, number)).round().astype(int).tolist()))
    for k in numbers:
        if not 0 <= k < number:
            raise BadInput(f"--regions has {k}: there are 0 to {number - 1}")
    kept = [file.region(k) for k in numbers]
    return Data(
        numbers,
        [run.domain.regions[k] for k in numbers],
        [Dataset(one.inputs, one.sources) for one in kept],
    )


def _fit_all(compared: Sequence[Any], data: Data, config: Config, file: DatasetFile) -> list[Fitted]:
    """Fit one variant after another, with a line of progress on stderr."""
    console, fitted = BestEffortConsole(stderr=True, soft_wrap=True), []
    for number, variant in enumerate(compared, 1):
        for done in fit(variant, data, config.seed, int(file.attributes["segment"])):
            if isinstance(done, Fitted):
                fitted.append(done)
                console.print(f"{number} of {len(compared)}: {variant.name} ({done.seconds:.1f} s)")
    return fitted


def _print(fitted: Sequence[Fitted], data: Data, regions: int, steps: int) -> None:
    table = Table()
    for name in fitted[0].variant.varied:
        table.add_column(name.removeprefix(PREFIX))
    for name in ("cross-entropy", "worst region", "class frequencies", "left", "calibration error"):
        table.add_column(name, justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("seconds", justify="right")
    for one in fitted:
        table.add_row(
            *one.variant.varied.values(),
            f"{one.loss:.4f}",
            f"{max(own.after for own in one.fits):.4f}",
            f"{one.baseline:.4f}",
            f"{one.loss / one.baseline:.0%}",
            f"{one.calibration_error:.4f}",
            f"{one.parameters:,}",
            f"{one.seconds:.1f}",
        )
    console = PlainConsole()
    console.width = max(console.width, 120)
    console.print(table)
    episodes = len(data.datasets[0].inputs)
    which = ", ".join(map(str, data.numbers))
    print(
        f"Means over {len(data.numbers)} of {regions} regions ({which}), on the held-out ones of {episodes} "
        "episodes; nats per source."
    )
    print(f"The episodes are those of the refit at {steps:,} steps, of the policies at that time.")
    print(verdict(fitted))


def verdict(fitted: Sequence[Fitted]) -> str:
    """One sentence: whether the influence was learnt, and by which variant."""
    best = min(fitted, key=lambda one: one.loss / one.baseline)
    left, name = best.loss / best.baseline, best.variant.name or "as configured"
    if left > USEFUL:
        return (
            f"Not learnt: the best predictor ({name}) leaves {left:.0%} of the cross-entropy of class "
            "frequencies, which need no input. Give more samples or epochs, or the sources do not depend on "
            "the history."
        )
    learnt = "Learnt" if left <= MUCH else "Hardly learnt"
    return (
        f"{learnt}: the best predictor ({name}) leaves {left:.0%} of the cross-entropy of class frequencies."
    )


def _draw(fitted: Sequence[Fitted], file: Path, name: str) -> None:
    from dials_mpi.influence.picture import draw
    from dials_mpi.results.frame import save

    save(draw(fitted), file.with_suffix(Path(name).suffix))


def _write_json(file: str, fitted: Sequence[Fitted], data: Data) -> None:
    rows = [
        {
            **one.variant.varied,
            "cross_entropy": one.loss,
            "class_frequencies": one.baseline,
            "calibration_error": one.calibration_error,
            "parameters": one.parameters,
            "seconds": one.seconds,
            "by_region": {str(k): own._asdict() for k, own in zip(data.numbers, one.fits, strict=True)},
        }
        for one in fitted
    ]
    write_json(file, rows)


if __name__ == "__main__":
    main()
