"""The bar of commands that take minutes: how much is done, since when, and how long it will still take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def bar(console: Console, unit: str = '') -> Progress:
    """A context that shows its tasks as done / total `unit`, with time elapsed and ETA."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.completed:,.0f} / {task.total}' + f' {unit}'.rstrip()),
        TimeElapsedColumn(),
        TextColumn('ETA'),
        TimeRemainingColumn(),
        console=console,
    )
