"""A trained model in, a report out: held-out windows, every dreamer over them, numbers, films, page."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from worldmodels.build import build_model, dials_of, read_dials
from worldmodels.control.translated import ActionMap
from worldmodels.data import episodes, pipeline
from worldmodels.evaluation import actions, dreams, health, judge, report, starts, tiles
from worldmodels.evaluation.frames import align, check_tile, judged
from worldmodels.evaluation.machine import machine
from worldmodels.evaluation.settings import Settings
from worldmodels.evaluation.speeds import speeds
from worldmodels.training import checkpoint
from worldmodels.types import PyTree, Spec, Ticks
from worldmodels.world_model import WorldModel

TRAINING_EPISODES, FRAMES_OF_EACH = 512, 48  # from which the tiles of the world are collected
FILMS = 6
VERSIONS = ('jax', 'flax', 'numpy')


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model as it lies in a workdir."""

    name: str
    model: WorldModel
    variables: PyTree
    config: Any
    step: int

    @classmethod
    def load(cls, workdir: str) -> Trained:
        """Raises ValueError with one sentence where there is no checkpoint or it does not fit."""
        config, spec, variables, step = checkpoint.load(workdir)
        dtype = None if config.train.dtype == 'auto' else config.train.dtype
        model = build_model(config.model.to_dict(), spec, dtype)
        return cls(Path(workdir).resolve().name, model, variables, config, step)

    def dials(self, settings: Settings) -> dict[str, Any]:
        """The dials of an evaluation that this model has."""
        known = dials_of(self.config.model)
        return {name: value for name, value in settings.dials.items() if name in known}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything an examination needs, loaded and checked; nothing dreamed yet."""

    workdir: str
    trained: Trained
    others: list[Trained]
    settings: Settings
    path: str
    windows: Ticks
    episode_B: np.ndarray
    question: judge.Question


def prepare(workdir: str, baselines: Sequence[str] = (), *, data: str = '', **overrides: Any) -> Plan:
    """Loads models and held-out windows, and says what does not fit before anything is computed.

    Args:
      workdir: of the run to examine.
      baselines: workdirs of runs to compare with on the same starts.
      data: dataset; default: the one the model was trained on.
      **overrides: fields of `Settings`, above config.evaluate; dials as values or as text. Other models turn those of the
        dials that they have.

    Raises:
      ValueError: no checkpoint, a spec that differs between models and data, or settings that cannot be.
    """
    trained = Trained.load(workdir)
    others = [Trained.load(path) for path in baselines]
    settings = Settings.of(trained.config.evaluate, **overrides)
    dials = read_dials(trained.config.model, trained.model.spec, settings.dials)
    settings = dataclasses.replace(settings, dials=dials)
    path = data or trained.config.data.path
    spec = _spec_of_data(trained.model, path)
    _same_spec(trained, others)
    for _, modality in spec.observation:
        check_tile(modality, settings.tile)
    held_out = pipeline.Episodes(path, 'validation', spec)
    windows, episode_B = starts.draw(held_out, settings.starts, settings.context, settings.horizon, trained.config.seed)
    training = pipeline.Episodes(path, 'train', spec)
    dictionaries = judge.tile_dictionaries(lambda: _some_frames(training, trained.config.seed), spec, settings.tile)
    question = judge.Question(spec, settings.context, settings.horizon, settings.tile, dictionaries)
    return Plan(workdir, trained, others, settings, path, windows, episode_B, question)


def run(plan: Plan, *, out: str = '', command: str = '') -> tuple[Path, dict]:
    """Dreams, judges, writes `out` (default: workdir/evaluation); returns the path of the page and the numbers."""
    clock, trained = _Clock(), plan.trained
    subjects = _judge_all(plan, clock)
    results = report.numbers(subjects, plan.windows, plan.question, plan.settings.seeds, plan.episode_B)
    results['coverage'] = _coverage(plan.windows, plan.question)
    results['actions'] = _actions(plan)
    clock.lap('actions')
    given = (trained.model, trained.variables, plan.windows, plan.settings.context, trained.config.watch.to_dict())
    results['signatures'] = health.along(*given, **plan.settings.dials)
    clock.lap('signatures')
    world = trained.config.world.get('name', '')
    facts = {'workdir': str(plan.workdir), 'step': trained.step, 'dataset': str(plan.path), 'split': 'validation'}
    about = {
        'title': f'{trained.name}: dreams of {world}' if world else trained.name,
        'command': command,
        'facts': facts | {f'baseline {o.name}': f'step {o.step}' for o in plan.others},
        'hardware': machine()['hardware'],
        'versions': {'python': platform.python_version(), **{name: version(name) for name in VERSIONS}},
        'dials': dict(plan.settings.dials),
        'config': trained.config.to_dict(),
        'seconds': clock.laps,
    }
    folder = Path(out or Path(plan.workdir) / 'evaluation')
    return report.write(folder, results, subjects[0].verdict, plan.question, about), results


def _spec_of_data(model: WorldModel, path: str) -> Spec:
    """The model's, but for the actions where it has found its own: it may be examined on any that others recorded."""
    if not model.action.latent:
        return model.spec
    there = Spec.from_json(episodes.read_metadata(path)['spec'])
    return dataclasses.replace(model.spec, action=there.action)


def _actions(plan: Plan) -> dict[str, Any]:
    """Whether the dream listens to what it is told, and what latent actions are like."""
    model, variables, settings = plan.trained.model, plan.trained.variables, plan.settings
    tick = min(actions.TICK, settings.horizon)
    size = dreams.batch_size(plan.question.spec, settings.starts, settings.context + tick)
    told = {'tick': tick, 'batch': size, 'group_B': plan.episode_B, **settings.dials}
    out = {'delta_psnr': actions.delta_psnr(model, variables, plan.windows, settings.context, **told)}
    if model.action.latent:
        out['latent'] = actions.found(model, variables, plan.windows, plan.question.spec.action)
    return out


def _judge_all(plan: Plan, clock: _Clock) -> list[report.Subject]:
    trained, others, settings = plan.trained, plan.others, plan.settings
    windows, question = plan.windows, plan.question
    size = dreams.batch_size(question.spec, settings.starts, settings.context + settings.horizon)
    span = (settings.context, settings.horizon)
    seeds = range(settings.seeds)
    action_map = _map_for(plan)
    total = settings.starts * (settings.seeds * (1 + len(others)) + 2 + (action_map is not None))
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    subjects = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('dreaming', total=total)

        def judged_by(
            name: str, role: str, dreamer: dreams.Dreamer, owner: Trained | None = None, **options: Any
        ) -> None:
            progress.update(task, description=f'dreaming: {name}')
            verdict = judge.judge(
                dreamer, windows, question, batch=size, advance=lambda n: progress.advance(task, n), **options
            )
            fast = None
            if owner is not None:
                first, _ = next(dreams.batches(windows, size))
                fast = speeds(owner.model, owner.variables, first, *span, **owner.dials(settings))
            subjects.append(report.Subject(name, role, verdict, fast))
            clock.lap(name)

        for one in (trained, *others):
            role = 'model' if one is trained else 'baseline'
            dreamer = dreams.imagined(one.model, one.variables, *span, **one.dials(settings))
            options = {
                'seeds': seeds,
                'read': dreams.reader(one.model, one.variables),
                'show': FILMS if one is trained else 0,
            }
            judged_by(one.name, role, dreamer, one, **options)
            if one is trained:
                judged_by('copy of the last frame', 'copy', dreams.copy_last(*span))
                if action_map is not None:
                    judged_by(
                        f'{one.name}, played',
                        'played',
                        dreams.played(one.model, one.variables, action_map, *span, **settings.dials),
                    )
                judged_by('real frames redrawn', 'redrawn', dreams.redrawn(one.model, one.variables, *span))
    return subjects


def _map_for(plan: Plan) -> ActionMap | None:
    """The workdir's map from real to latent actions, where the data have the actions it knows."""
    found = ActionMap.load(plan.workdir) if plan.trained.model.action.latent else None
    return found if found is not None and found.space == plan.question.spec.action else None


def _some_frames(episodes: pipeline.Episodes, seed: int) -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    for i in random.permutation(len(episodes))[:TRAINING_EPISODES]:
        frames = episodes[int(i)]['observation']
        pick = np.sort(random.permutation(int(episodes.lengths[i]))[:FRAMES_OF_EACH])
        yield {name: x[pick] for name, x in frames.items()}


def _same_spec(trained: Trained, others: Sequence[Trained]) -> None:
    for other in others:
        if other.model.spec != trained.model.spec:
            raise ValueError(
                f"The baseline '{other.name}' knows another world than '{trained.name}': {other.model.spec.to_json()} "
                f'against {trained.model.spec.to_json()}; give one of the same observations, actions and outcomes.'
            )


def _coverage(windows, question: judge.Question) -> dict[str, float | None]:
    valid_BH = judged(windows.is_first, windows.is_last, question.context, question.horizon)
    out: dict[str, float | None] = {}
    for name, table in question.dictionaries.items():
        _, true_BH = align(windows.observation[name], question.context, question.horizon)
        out[name] = None if table is None else tiles.coverage(np.asarray(true_BH)[valid_BH], question.tile, table)
    return out


def table(results: dict, metrics: tuple[str, ...] = ('exact', 'changed', 'changed_psnr', 'error')) -> Table:
    """A terminal table of some horizons."""
    horizons = report.some_horizons(len(results['setup']['horizons']), 5)
    out = Table(*('', 'ticks dreamed', *(str(k) for k in horizons)), title='on held-out starts')
    for metric in metrics:
        for world in results['worlds']:
            for scores in world['scores'].values():
                if metric in scores:
                    values = (report.show(scores[metric]['value'], metric, k) for k in horizons)
                    out.add_row(report.METRICS[metric].label, world['name'], *values)
        out.add_section()
    return out


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now
