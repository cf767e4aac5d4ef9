"""Tables as LaTeX, for a paper; they need no package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dials_mpi.report.tables import Row, cell

SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


def write_latex(file: Path, tables: Mapping[str, Sequence[Row]]) -> Path:
    """Write each table as one to \\input; the title is its caption. NaN is an empty cell."""
    file.write_text("\n".join(_table(title, rows) for title, rows in tables.items()), encoding="utf-8")
    return file


def _table(title: str, rows: Sequence[Row]) -> str:
    columns = "".join("l" if any(isinstance(row[key], str) for row in rows) else "r" for key in rows[0])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        _line(rows[0]),
        r"\hline",
        *(_line(cell(value, 4) for value in row.values()) for row in rows),
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Any) -> str:
    return " & ".join(escaped(str(one)) for one in cells) + r" \\"


def escaped(text: str) -> str:
    """Text in which no character is a command of LaTeX."""
    return "".join(SPECIAL.get(character, character) for character in text)
