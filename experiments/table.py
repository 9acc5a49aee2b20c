"""A table of runs: what each row runs, one command after the other, and which numbers of its report the row keeps.

A table is a file with `get_table(workdir)` that returns its rows; `launch/sweep.py` runs them. It may have `draw(rows)`, from
the rows of the CSV, dicts of str, to a matplotlib figure, and `summary(rows)`, from the same to a table in Markdown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """
    name      of the row, unique in its table
    about     what it is: the first columns
    stages    (title, command after the interpreter), run in order; each goes on where it was
    report    the report.json that the stages end with
    measures  ((modality, metric, horizons), ...): the numbers kept, of the model and of copying the last frame; beside
              them stand the report's own `columns`, where it has any
    """

    name: str
    about: Mapping[str, Any]
    stages: tuple[tuple[str, tuple[str, ...]], ...]
    report: str
    measures: tuple[tuple[str, str, tuple[int, ...]], ...]


def measured(report: Mapping[str, Any], measures: tuple[tuple[str, str, tuple[int, ...]], ...]) -> dict[str, Any]:
    """The columns of a row from its report.

    '<metric>_<horizon>' of the model, 'copy_...' of copying the last frame, 'redrawn_...' of real frames redrawn (what the
    heart can draw), and '<metric>_above_copy': at how many of all horizons the model is above copying, as '10/10'.

    Raises:
      ValueError: the report lacks a modality, a metric or a horizon.
    """
    by_role = {world['role']: world for world in reversed(report.get('worlds', ()))}
    columns: dict[str, Any] = dict(report.get('columns', {}))
    for modality, metric, horizons in measures:
        for role, prefix in (('model', ''), ('copy', 'copy_'), ('redrawn', 'redrawn_')):
            scores = by_role[role]['scores'].get(modality, {})
            if metric not in scores or max(horizons) > len(scores[metric]['value']):
                raise ValueError(
                    f"The report has no '{metric}' of '{modality}' up to horizon {max(horizons)} for {role}: "
                    "mend the table's measures."
                )
            for horizon in horizons:
                columns[f'{prefix}{metric}_{horizon}'] = scores[metric]['value'][horizon - 1]
        above = by_role['model']['above_copy'][modality][metric]['value']
        columns[f'{metric}_above_copy'] = f'{sum(v is not None and v > 0 for v in above)}/{len(above)}'
    return columns


def markdown(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    columns = tuple(columns)
    return '\n'.join(f'| {" | ".join(line)} |' for line in (columns, ('---',) * len(columns), *lines))


def number(row: Mapping[str, str], column: str, form: str = '.2f', times: float = 1.0) -> str:
    """A number of a CSV's row as a table of Markdown shows it, – where the row has none."""
    return f'{times * float(row[column]):{form}}' if column in row else '–'
