"""Curves over the horizon, and histograms, as inline SVG that takes its colours from the page, so that one picture suits
light and dark.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Matplotlib knows colours, not CSS variables: it draws with stand-ins, which are replaced in the text of the SVG.
INK, LINES = '#010101', '#010102'
SERIES = tuple(f'#0102{i:02x}' for i in range(16))


class Curve(NamedTuple):
    """One world's numbers in a figure; `slot` chooses the colour, var(--c0) and so on; None leaves a gap."""

    values: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]
    slot: int
    dashed: bool = False


def curves(named: Sequence[Curve], *, percent: bool, unit: str = '', name: str) -> str:
    """An <svg> of value against horizon 1, 2, ... with 95 percent bands. `name` keeps ids apart from other figures'."""
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name, 'font.size': 10}):
        figure = Figure(figsize=(5.2, 3.1), layout='constrained')
        axes = figure.add_subplot()
        for curve in reversed(named):
            x = range(1, len(curve.values) + 1)
            y, low, high = ([float('nan') if v is None else v for v in c] for c in curve[:3])
            colour = SERIES[curve.slot % len(SERIES)]
            if not curve.dashed:
                axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                x, y, color=colour, linewidth=1.2 if curve.dashed else 2.2, linestyle='--' if curve.dashed else '-'
            )
        axes.set_xlabel('ticks dreamed', color=INK)
        axes.set_ylabel(unit, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        if percent:
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis='y', color=LINES, linewidth=0.8)
        axes.tick_params(colors=INK, length=0)
        axes.spines[:].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
    return _for_page(out.getvalue(), name)


def bars(edges: Sequence[float], counts: Sequence[int], *, unit: str, name: str, labels: Sequence[str] = ()) -> str:
    """An <svg> of how often values fell between neighbouring edges, or, with `labels`, of how often each was chosen."""
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name, 'font.size': 10}):
        figure = Figure(figsize=(5.2, 2.6), layout='constrained')
        axes = figure.add_subplot()
        if labels:
            axes.barh(range(len(labels)), counts, color=SERIES[0], height=0.7)
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
            axes.set_xlabel(unit, color=INK)
        else:
            widths = [b - a for a, b in itertools.pairwise(edges)]
            axes.bar(edges[:-1], counts, widths, align='edge', color=SERIES[0])
            axes.set_xlabel(unit, color=INK)
        axes.grid(axis='x' if labels else 'y', color=LINES, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, length=0)
        axes.spines[:].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
    return _for_page(out.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Only the <svg> element, sized by the page, without metadata and addresses of standards, ids made its own."""
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', '', svg)
    svg = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{name}-', svg)
    svg = svg.replace(INK, 'var(--soft)').replace(LINES, 'var(--line)')
    for i, colour in enumerate(SERIES):
        svg = svg.replace(colour, f'var(--c{i % 6})')
    return re.sub(r'font: ([\d.]+px) [^;\"]*', r'font-size: \1', svg)
