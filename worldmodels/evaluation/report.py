"""The report: numbers into report.json, and numbers, curves and films into one self-contained report.html."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.evaluation import figures, films, outcomes, page
from worldmodels.evaluation.frames import align, judged
from worldmodels.evaluation.judge import Film, Question, Verdict
from worldmodels.types import Array, Modality, Ticks

TEMPLATE = 'report.html.j2'


@dataclasses.dataclass(frozen=True)
class Metric:
    label: str
    meaning: str
    percent: bool = True
    unit: str = ''
    digits: int = 1


METRICS = {
    'exact': Metric('Whole frame right', 'Share of dreamed frames in which every single cell is right.'),
    'changed': Metric(
        'Changed cells right',
        'Share of right cells among those that changed in the real world at that tick. Most of a picture stands still, '
        'so this is the number that tells whether the world moves as it should.',
    ),
    'cells': Metric('Cells right', 'Share of all cells that are right. High even for a dream in which nothing moves.'),
    'tokens': Metric('Tokens right', 'Share of dreamed tokens equal to those the heart gives to the real frame.'),
    'psnr': Metric(
        'PSNR',
        'Peak signal-to-noise ratio of the raw pixels, of the mean squared error over all frames; 100 is exact.',
        percent=False,
        unit='dB',
    ),
    'ssim': Metric('SSIM', 'Structural similarity of raw pixels; 1 is the same picture.', percent=False, digits=3),
    'changed_pixels': Metric(
        'Changed pixels right',
        'Share of pixels within 8 of 255 levels, among those that changed since the tick before.',
    ),
    'changed_psnr': Metric(
        'PSNR of changed pixels',
        'Over the pixels that changed in the real world at that tick. Copying the last frame is wrong on nearly all of them.',
        percent=False,
        unit='dB',
    ),
    'error': Metric('Mean absolute error', 'Of each number of a vector observation.', percent=False, digits=3),
    'strict_exact': Metric('Whole frame right, strict', 'Every pixel within 8 of 255 levels; no snapping.'),
    'strict_changed': Metric('Changed cells right, strict', 'The same for the cells that changed.'),
    'strict_cells': Metric('Cells right, strict', 'The same for all cells.'),
}
FIGURES = ('exact', 'changed', 'changed_pixels', 'changed_psnr', 'cells', 'tokens', 'psnr', 'ssim', 'error')
COMPARED = ('exact', 'changed', 'changed_pixels', 'changed_psnr')  # with copying the last frame, start by start
ROLES = {
    'model': 'the world model under examination',
    'copy': 'repeats the last frame it saw: a world in which nothing happens',
    'redrawn': 'the real frames, encoded and drawn again by the model: what a perfect dream of it would look like',
    'played': 'the model under the real actions, translated into those it found in frames',
    'baseline': 'another trained model on the same starts',
}


@dataclasses.dataclass
class Subject:
    """A judged dreamer: its name, its role (a key of ROLES), its verdict, and its speeds where it is a model."""

    name: str
    role: str
    verdict: Verdict
    speeds: dict[str, float] | None = None


def numbers(
    subjects: list[Subject], windows: Ticks, question: Question, seeds: int, group_B: Array | None = None
) -> dict:
    """Everything measured, ready for JSON. The copy-last-frame subject must be among the subjects."""
    valid_BH = judged(windows.is_first, windows.is_last, question.context, question.horizon)
    copy = next(s for s in subjects if s.role == 'copy').verdict
    worlds = []
    for subject in subjects:
        verdict = subject.verdict
        names = [m for m in (*question.spec.modalities, 'tokens') if m in verdict.sums]
        scores = {m: {k: verdict.estimate(m, k, group_B).to_json() for k in verdict.sums[m]} for m in names}
        entry: dict[str, Any] = {'name': subject.name, 'role': subject.role, 'scores': scores, 'speeds': subject.speeds}
        if subject.role != 'copy':
            entry['above_copy'] = {
                m: {k: verdict.above(copy, m, k, group_B).to_json() for k in COMPARED if k in scores[m]}
                for m in scores
                if 'exact' in scores[m]
            }
        if verdict.outcomes:
            entry['outcomes'] = _outcomes(verdict, windows, question, valid_BH, seeds, group_B)
        worlds.append(entry)
    return {
        'setup': {
            'starts': int(valid_BH.shape[0]),
            'independent_groups': len(np.unique(group_B)) if group_B is not None else int(valid_BH.shape[0]),
            'seeds': seeds,
            'context': question.context,
            'horizons': list(range(1, question.horizon + 1)),
            'judged_per_horizon': valid_BH.sum(0).tolist(),
            'tile': question.tile,
            'tiles_known': {k: None if d is None else len(d) for k, d in question.dictionaries.items()},
        },
        'worlds': worlds,
    }


def _outcomes(verdict: Verdict, windows: Ticks, question: Question, valid_BH: Array, seeds: int, group_B) -> dict:
    out = {}
    for name, said_SBH in verdict.outcomes.items():
        _, true_BH = align(np.asarray(windows.outcomes[name]), question.context, question.horizon)
        if name == 'discount':
            _, ended_BH = align(np.asarray(windows.is_terminal), question.context, question.horizon)
            counts = outcomes.termination_events(ended_BH, said_SBH, valid_BH)
            out['termination'] = outcomes.summary(counts, seeds, group_B)
        else:
            threshold = outcomes.reward_threshold(true_BH, valid_BH)
            counts = outcomes.reward_events(true_BH, said_SBH, valid_BH, threshold)
            error, silence = outcomes.absolute_error(true_BH, said_SBH, valid_BH)
            out[name] = outcomes.summary(counts, seeds, group_B) | {
                'threshold': threshold, 'absolute_error': error, 'absolute_error_of_silence': silence,
            }  # fmt: skip
    return out


def headlines(results: dict) -> list[dict[str, str]]:
    """What to read first: [{label, value, detail}]."""
    model = next(w for w in results['worlds'] if w['role'] == 'model')
    copy = next(w for w in results['worlds'] if w['role'] == 'copy')
    last = results['setup']['horizons'][-1]
    out = []
    for modality, scores in model['scores'].items():
        if 'exact' not in scores:
            continue
        whole = tiled(results, modality)
        shown = (
            (('changed', 1), ('exact', 1), ('exact', last)) if whole else (('changed_psnr', 1), ('changed_psnr', last))
        )
        for metric, k in shown:
            ahead = 'one tick ahead' if k == 1 else f'{k} ticks ahead'
            ours, low, high = (show(scores[metric][f], metric, k) for f in ('value', 'low', 'high'))
            theirs = show(copy['scores'][modality][metric]['value'], metric, k)
            detail = f'{low} to {high} · copying the last frame: {theirs}'
            out.append({'label': f'{METRICS[metric].label}, {ahead}', 'value': ours, 'detail': detail})
        break
    out += _told(results.get('actions', {}))
    if model['speeds']:
        speed, single = model['speeds']['dreamed_frames_per_second'], model['speeds']['single_frame_ms']
        detail = f'{model["speeds"]["batch"]} dreams at once · one alone: {single:.1f} ms a frame'
        out.append({'label': 'Frames dreamed per second', 'value': f'{speed:,.0f}', 'detail': detail})
    return out


def _told(actions: dict[str, Any]) -> list[dict[str, str]]:
    """The headlines on actions: how far the dream listens, where they were found in frames."""
    latent = actions.get('latent')
    if latent is None:
        return []
    out = []
    if latent.get('agreement') is not None:
        detail = f'adjusted mutual information, {latent["changed_ticks"]:,} ticks whose frame changed'
        out.append({'label': 'Actions found in frames', 'value': f'{latent["agreement"]:.3f}', 'detail': detail})
    gain = next((v for v in actions['delta_psnr'].values() if isinstance(v, dict) and v['value'] is not None), None)
    if gain:
        detail = f'{gain["low"]:.1f} to {gain["high"]:.1f} · against random actions'
        label = f'Δ PSNR, {actions["delta_psnr"]["tick"]} ticks ahead'
        out.append({'label': label, 'value': f'{gain["value"]:.1f} dB', 'detail': detail})
    return out


def tiled(results: dict, modality: str) -> bool:
    """Whether whole frames can be right or wrong: symbols, and pictures made of tiles. Others are told by changed pixels."""
    return results['setup']['tiles_known'].get(modality, 0) is not None


def sentence(results: dict) -> str:
    """One sentence on the dream against copying the last frame."""
    model = next(w for w in results['worlds'] if w['role'] == 'model')
    modality = next(iter(model.get('above_copy', {})), None)
    if modality is None:
        return ''
    whole = tiled(results, modality)
    above = model['above_copy'][modality]['exact' if whole else 'changed_psnr']
    what = 'get more whole frames right' if whole else 'come closer to the pixels that change'
    horizons = results['setup']['horizons']
    won = [k for k, v in zip(horizons, above['value']) if v is not None and v > 0]
    sure = [k for k, v in zip(horizons, above['low']) if v is not None and v > 0]
    if not won:
        return f'At no horizon does the dream {what} than copying the last frame.'
    at = f'every horizon from 1 to {horizons[-1]}' if won == horizons else f'{len(won)} of {len(horizons)} horizons'
    does = what.replace('get', 'gets').replace('come', 'comes')
    return (
        f'The dream {does} than copying the last frame at {at}; at {len(sure)} of them the 95 percent interval of the '
        'difference stays above zero.'
    )


def show(values: list[float | None], metric: str, horizon: int) -> str:
    """The number at a horizon as text; a dash where nothing was counted."""
    value, kind = values[horizon - 1], METRICS[metric]
    if value is None:
        return '–'
    return f'{100 * value:.{kind.digits}f}%' if kind.percent else f'{value:.{kind.digits}f}'


def some_horizons(horizon: int, most: int = 8) -> list[int]:
    """At most `most` of 1..horizon, close together at first."""
    return sorted({round(k) for k in np.geomspace(1, horizon, most)} | {1, horizon})


def draw(results: dict) -> dict[str, list[dict]]:
    """Curves by modality: [{metric, svg}]."""
    out: dict[str, list[dict]] = {}
    modalities = dict.fromkeys(m for w in results['worlds'] for m in w['scores'])
    for modality in modalities:
        for metric in FIGURES:
            curves = []
            for slot, world in enumerate(results['worlds']):
                scores = world['scores'].get(modality, {})
                if metric in scores:
                    e = scores[metric]
                    curves.append(figures.Curve(e['value'], e['low'], e['high'], slot))
                if world['role'] == 'model' and f'strict_{metric}' in scores:
                    e = scores[f'strict_{metric}']
                    curves.append(figures.Curve(e['value'], e['low'], e['high'], slot, dashed=True))
            if curves:
                kind, name = METRICS[metric], f'{modality}-{metric}'
                svg = figures.curves(curves, percent=kind.percent, unit=kind.unit, name=name)
                out.setdefault(modality, []).append({'metric': metric, 'svg': svg})
    return out


def show_films(verdict: Verdict, question: Question, horizons: list[int]) -> list[dict]:
    """[{title, animation, strip}] of the films a verdict kept, first modality that is a picture."""
    out = []
    for film in verdict.films:
        name = next(iter(film.true))
        modality: Modality = question.spec.modalities[name]
        title = f'Start {film.start + 1}: {100 * film.cells_right:.1f}% of cells right'
        animation = films.animation(film, name, modality, question.context)
        out.append(
            {'title': title, 'animation': animation, 'strip': films.data_uri([_strip(film, name, question, horizons)])}
        )
    return out


def _poster(verdict: Verdict, question: Question) -> np.ndarray:
    """The film whose dream moves most: what happened above what one seed dreamed, for documents and talks."""
    name = next(iter(question.spec.modalities))
    moves = lambda film: float(np.abs(np.diff(film.dreamed[name][0].astype(np.float32), axis=0)).sum())
    film = max(verdict.films, key=lambda f: (int(f.judged_H.sum()), moves(f)))
    film = dataclasses.replace(film, dreamed={k: x[:1] for k, x in film.dreamed.items()})
    return _strip(film, name, question, some_horizons(int(film.judged_H.sum())))


def _strip(film: Film, name: str, question: Question, horizons: list[int]) -> np.ndarray:
    modality = question.spec.modalities[name]
    cell = question.tile if modality.kind == 'image' else films.GRID_PIXELS
    return films.strip(film, name, modality, question.context, horizons, cell)


def write(out: Path, results: dict, verdict: Verdict, question: Question, about: dict) -> Path:
    """Writes report.json, report.html and a picture, dream.png, into `out`; returns the path of the page.

    `about`: title, command, config, hardware, versions, seconds and whatever else the JSON shall keep; only text and
    numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    record = {**about, 'sentence': sentence(results), 'headlines': headlines(results), **results}
    (out / 'report.json').write_text(json.dumps(record, indent=1, allow_nan=False) + '\n')
    horizons = some_horizons(question.horizon)
    text = page.render(
        TEMPLATE,
        record=record,
        horizons=horizons,
        figures=draw(results),
        films=show_films(verdict, question, horizons),
        metrics=METRICS,
        roles=ROLES,
        show=show,
        config=json.dumps(about['config'], indent=1, default=str),
    )
    if verdict.films:
        Image.fromarray(_poster(verdict, question)).save(out / 'dream.png', optimize=True)
    path = out / 'report.html'
    path.write_text(text)
    return path
