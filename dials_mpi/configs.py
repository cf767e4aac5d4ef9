"""The command ``configs``: the configurations, studies and trained runs that come with the package.

``python -m dials_mpi.configs`` lists them; ``python -m dials_mpi.configs NAME`` copies one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dials_mpi.cli import Parser, word
from dials_mpi.config.presets import Preset, presets
from dials_mpi.core.console import BestEffortConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable, shown
from dials_mpi.storage import shipped

EXAMPLES = """examples:
  python -m dials_mpi.configs                                    a list
  python -m dials_mpi.configs warehouse/fast --out mine.yaml     a copy, to change
  python -m dials_mpi.train --config warehouse/fast              used as it is
  python -m dials_mpi.study studies/figure-3-warehouse-small
  python -m dials_mpi.evaluate trained/warehouse                 policies that come with the package"""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("configs", "List the configurations that come with the package, or copy one.", EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", type=word, help="the configuration to copy")
    parser.add_argument(
        "--out", metavar="FILE", type=word, help="where to; default: its own name, in this folder"
    )
    options = parser.parse_args(argv)
    try:
        if options.name:
            print(f"{printable(str(copy(options.name, options.out)))} written")
        elif options.out:
            raise BadInput("--out is given without a name: name the configuration to copy")
        else:
            _list([*presets(), *map(_trained, shipped.names())])
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(0)


def copy(name: str, out: str | None = None) -> Path:
    """Copy a configuration to a file, by default of its own name in this folder; the file.

    BadInput: there is no such configuration, or the file exists or cannot be written.
    """
    found = {preset.name: preset for preset in presets()}
    preset = found.get(name.removesuffix(".yaml"))
    if preset is None:
        raise BadInput(
            f"there is no configuration {shown(name)} in the package: python -m dials_mpi.configs lists all"
        )
    target = Path(out) if out else Path(f"{preset.name.replace('/', '-')}.yaml")
    try:
        with target.open("xb") as stream:
            stream.write(preset.path.read_bytes())
    except FileExistsError:
        raise BadInput(f"{printable(str(target))} exists: name another file with --out") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{printable(str(target))} cannot be written ({reason}): name another file") from None
    return target


def _trained(name: str) -> Preset:
    about = "A trained run: evaluate, watch, check and export take this name in place of DIR."
    return Preset(name, about, shipped.located(name))


def _list(found: Sequence[Preset]) -> None:
    """Print a line for each; BadInput: there are none."""
    if not found:
        raise BadInput("this installation has no configurations: install the wheel, or work in a checkout")
    width = max(len(preset.name) for preset in found)
    out = BestEffortConsole()
    for preset in found:
        out.print(f"{preset.name:{width}}  {preset.first}", soft_wrap=True)


if __name__ == "__main__":
    main()
