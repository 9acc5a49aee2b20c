"""Curves of training runs as one picture: what they learn, how fast they go, and what they hold in memory."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodels.training.metrics import FILE, TIMES

COLUMNS = 3
Points = tuple[list[float], list[float]]


def read(workdir: str) -> dict[str, Points]:
    """{metric: (steps, values)} of a run, from metrics.jsonl and times.jsonl; values that are not finite are gaps.

    Raises:
      ValueError: no run has written its metrics there.
    """
    out: dict[str, Points] = {}
    for name in (FILE, TIMES):
        path = pathlib.Path(workdir) / name
        if not path.exists():
            raise ValueError(f'{workdir} holds no {name}: give the workdir of a run that launch/train.py has begun.')
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                break  # the line that is being written
            step = values.pop('step')
            for metric, value in values.items():
                steps, numbers = out.setdefault(metric, ([], []))
                steps.append(step)
                numbers.append(float(value) if isinstance(value, int | float) else math.nan)
    return out


def draw(runs: Mapping[str, Mapping[str, Points]], path: pathlib.Path, only: Sequence[str] = ()) -> list[str]:
    """Write a picture (its form by the suffix of `path`) with a panel for every metric, a line for every run.

    Args:
      runs: {name: what `read` gave}.
      only: metrics to show, all when empty.

    Returns:
      the metrics shown.

    Raises:
      ValueError: a metric that no run has.
    """
    known = list(dict.fromkeys(metric for run in runs.values() for metric in run))
    for metric in only:
        if metric not in known:
            raise ValueError(f"No run has the metric '{metric}'; they have {', '.join(known)}.")
    shown = list(only) or known
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for metric, panel in zip(shown, panels):
        for number, (name, run) in enumerate(runs.items()):
            if metric in run:
                panel.plot(*run[metric], color=f'C{number}', linewidth=1.4, label=name)
        panel.set_title(metric, loc='left', fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.grid(axis='y', linewidth=0.5, alpha=0.6)
        panel.spines[['top', 'right']].set_visible(False)
        panel.margins(x=0.01)
        if metric in ('rss_mb', 'data_wait', 'steps_per_second'):
            panel.set_ylim(bottom=0)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(shown) - columns) : len(shown)]:
        panel.set_xlabel('step')
    if len(runs) > 1:
        panels[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return shown
