"""The page on a dataset: what `data.statistics` found, as one self-contained HTML file, and as a short table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from worldmodels.data.statistics import Film
from worldmodels.evaluation import figures, films, page
from worldmodels.types import ActionSpace, Spec

TEMPLATE = 'dataset.html.j2'
MOST_ACTIONS = 24  # with a bar each; what is taken less often is joined


def write(out: Path, numbers: dict[str, Any], shown: list[Film], title: str, command: str) -> Path:
    """Writes the page to `out`, a file, and the numbers beside it as JSON; returns the page's path."""
    spec = Spec.from_json(numbers['spec'])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix('.json').write_text(json.dumps(numbers, indent=1, allow_nan=False) + '\n')
    text = page.render(
        TEMPLATE,
        title=title,
        command=command,
        numbers=numbers,
        spec=spec,
        figures={split: draw(split, found, spec) for split, found in numbers['splits'].items()},
        films=[{'title': describe(film), 'at': film.at, 'picture': strip(film, spec)} for film in shown],
        provenance=json.dumps(numbers['provenance'], indent=1, default=str),
        amount=amount,
    )
    out.write_text(text)
    return out


def draw(split: str, found: dict[str, Any], spec: Spec) -> list[dict[str, str]]:
    """[{title, caption, svg}] of a split."""
    drawn = []

    def add(title: str, caption: str, histogram: dict[str, Any], unit: str) -> None:
        if histogram['number']:
            name = f'{split}-{title}'.replace(' ', '-').replace('/', '-')
            svg = figures.bars(histogram['edges'], histogram['counts'], unit=unit, name=name)
            drawn.append({'title': title, 'caption': caption, 'svg': svg})

    add('Length', summary(found['lengths'], 'frames'), found['lengths'], 'frames of an episode')
    add('Return', summary(found['returns']), found['returns'], 'sum of rewards of an episode')
    if spec.action.kind == 'discrete':
        labels, counts = actions(spec.action, found['actions'])
        svg = figures.bars((), counts, unit='times taken', name=f'{split}-actions', labels=labels)
        drawn.append({'title': 'Actions', 'caption': f'{sum(counts):,} taken', 'svg': svg})
    else:
        for i, histogram in enumerate(found['actions'][:MOST_ACTIONS]):
            name = spec.action.names[i] if spec.action.names else str(i)
            add(f'Action {name}', summary(histogram), histogram, f'{spec.action.low:g} to {spec.action.high:g}')
    for name, histogram in found['outcomes'].items():
        add(name.capitalize(), f'{summary(histogram)}; {_share(histogram)} are zero', histogram, name)
    for name, histogram in found['vectors'].items():
        add(f'Observation {name}', summary(histogram), histogram, 'all its numbers together')
    return drawn


def actions(space: ActionSpace, counts: list[int]) -> tuple[list[str], list[int]]:
    """Names and counts of actions; of many, the most frequent ones and the rest together."""
    names = [f'{i} {space.names[i]}' if space.names else str(i) for i in range(space.size)]
    if space.size <= MOST_ACTIONS:
        return names, list(counts)
    kept = sorted(np.argsort(-np.asarray(counts), kind='stable')[:MOST_ACTIONS].tolist())
    rest = sum(counts) - sum(counts[i] for i in kept)
    return [*(names[i] for i in kept), f'{space.size - MOST_ACTIONS} others'], [*(counts[i] for i in kept), rest]


def summary(histogram: dict[str, Any], unit: str = '') -> str:
    """Mean and range in a few words."""
    if not histogram['number']:
        return 'none'
    least, mean, most = (f'{histogram[key]:,.4g}' for key in ('least', 'mean', 'most'))
    return f'mean {mean}{" " + unit if unit else ""}, from {least} to {most}'


def _share(histogram: dict[str, Any]) -> str:
    return f'{100 * histogram["zeros"] / max(histogram["number"], 1):.1f}%'


def describe(film: Film) -> str:
    return f'{film.split}, episode {film.episode}: {film.length:,} frames, return {film.total:.4g}'


def strip(film: Film, spec: Spec) -> str:
    """The frames of a film side by side, as a data URI."""
    frames = films.picture(film.frames, spec.modalities[film.frames_of])
    scale = max(1, -(-films.STRIP_SIDE // max(frames.shape[1:3])))
    frames = np.repeat(np.repeat(frames, scale, 1), scale, 2)
    count, height, width, _ = frames.shape
    page = np.zeros((height, count * (width + films.GAP) - films.GAP, 4), np.uint8)
    for i, frame in enumerate(frames):
        left = i * (width + films.GAP)
        page[:, left : left + width, :3], page[:, left : left + width, 3] = frame, 255
    return films.data_uri([page])


def amount(count: float) -> str:
    """Bytes as people say them."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if count < 1000:
            return f'{count:.3g} {unit}'
        count /= 1000
    return f'{count:.3g} TB'


def table(numbers: dict[str, Any]) -> Table:
    """For the terminal."""
    shown = Table('split', 'episodes', 'frames', 'length', 'return', 'reward', 'ended', title_justify='left')
    for split, found in numbers['splits'].items():
        ended = f'{100 * found["terminal"] / max(found["episodes_read"], 1):.0f}%'
        cells = (summary(found[key]) for key in ('lengths', 'returns'))
        reward = summary(found['outcomes']['reward'])
        shown.add_row(split, f'{found["episodes"]:,}', f'{found["frames"]:,}', *cells, reward, ended)
    return shown
