"""The fields of an experiment, checked before anything is computed.

An experiment's `get_config(arg)` starts from `default_config()` and fills it in. Sections that belong to one component
('world', 'model', 'evaluate', the names under 'train.weights') are open here: the component that receives them checks.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from typing import Any

import ml_collections

from worldmodels import remat
from worldmodels.world_model import PARTS

OPEN = ('world', 'model', 'evaluate', 'train.weights')
"""Sections whose fields are checked by the component that receives them."""

MOST = 1 << 31
"""Steps and sizes are counted in int32."""


def default_config() -> ml_collections.ConfigDict:
    """Every field of an experiment with its default value."""
    return ml_collections.ConfigDict(
        {
            'seed': 0,
            'world': {'name': ''},
            'data': {
                'path': '',
                'batch_size': 16,
                'segment_length': 32,
                'consecutive': False,
                # Share of consecutive segments that begin with nothing remembered, so that a model meets an unknown past.
                'forget': 0.0,
                # Every `long_every`-th batch has segments of `long_length`; 0 and 0: all have `segment_length`.
                'long_length': 0,
                'long_every': 0,
                # Decoded episodes kept in memory. What is not there is decompressed again, episode by episode, at every read.
                'cache_mb': 1024,
            },
            'model': {},
            'train': {
                'steps': 1000,
                'parts': PARTS,
                'weights': {},
                'dtype': 'auto',  # of activations: 'float32', 'bfloat16', or 'auto': bfloat16 except on CPU
                'corruption': 0.0,  # of what the model goes on from, against drift (`heart.corruption`); 0: none
                'remat': 'none',  # what is kept for the gradient: 'none', 'dots', 'blocks' or 'all' (`worldmodels.remat`)
                'ema': 0.0,  # decay of the slow copy of the trained parameters; 0 keeps none
                'log_every': 10,
                'evaluate_every': 0,  # loss on validation episodes every so many steps; 0 never
                'evaluate_batches': 8,
                'checkpoint_every': 500,
                'keep': 2,
                'max_bad_steps': 5,
                'init_from': {'path': '', 'parts': ()},
            },
            'optimizer': {
                'kind': 'adamw',  # 'adamw' or 'laprop'
                'learning_rate': 3e-4,
                'warmup': 0,
                'schedule': 'constant',  # 'constant' or 'cosine' (to zero at train.steps)
                'clip_norm': 1.0,  # of the whole gradient; 0 for none
                'agc': 0.0,  # adaptive clipping of each tensor by the norm of its parameter; 0 for none
                'weight_decay': 0.0,  # of tensors with two or more axes
                'b1': 0.9,
                'b2': 0.999,
                'eps': 1e-8,
            },
            'watch': {  # signatures of failure: `worldmodels.training.signatures`
                'context_rank': 1.2,  # told where below
                'context_usage': 0.1,
                'state_norm': 30.0,  # told where above
                'state_bytes': 1e9,
                'nll_spike': 20.0,
                'window': 64,  # steps of the running median
                'after': 100,  # steps of which nothing is told
                'patience': 10,  # steps in range until it is over
            },
            'evaluate': {'starts': 200, 'context': 8, 'horizon': 15},
        }
    )


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What the training step must know: hashable, so that a step is compiled once for it."""

    seed: int
    parts: tuple[str, ...]
    weights: tuple[tuple[str, float], ...]
    ema: float
    corruption: float = 0.0
    remat: str = 'none'


def check_fields(given: dict, allowed: Any, where: str) -> None:
    """Raise ValueError for a field that is not allowed, naming the nearest one that is."""
    for name in given:
        if name not in allowed:
            near = difflib.get_close_matches(name, list(allowed), n=1)
            hint = f'did you mean "{near[0]}"?' if near else f'the fields are {", ".join(sorted(allowed)) or "none"}.'
            raise ValueError(f'Unknown field "{where}{name}" in the config: {hint}')


def validate(config: ml_collections.ConfigDict) -> None:
    """Check names, types and ranges of every field that is not in an open section.

    Raises ValueError: one sentence with the field, what was given and what is expected.
    """
    _compare(config, default_config(), '')
    data, train = config.data, config.train
    for field, value, least in (
        ('seed', config.seed, 0),
        ('data.batch_size', data.batch_size, 1),
        ('data.segment_length', data.segment_length, 1),
        ('train.steps', train.steps, 1),
        ('train.log_every', train.log_every, 1),
        ('train.evaluate_every', train.evaluate_every, 0),
        ('train.evaluate_batches', train.evaluate_batches, 1),
        ('train.checkpoint_every', train.checkpoint_every, 1),
        ('train.keep', train.keep, 1),
        ('train.max_bad_steps', train.max_bad_steps, 1),
        ('data.long_length', data.long_length, 0),
        ('data.long_every', data.long_every, 0),
        ('data.cache_mb', data.cache_mb, 0),
        ('watch.window', config.watch.window, 4),
        ('watch.after', config.watch.after, 0),
        ('watch.patience', config.watch.patience, 1),
        ('optimizer.warmup', config.optimizer.warmup, 0),
    ):
        if not least <= value < MOST:
            expected = f'{least} or more' if value < least else f'less than {MOST}'
            raise ValueError(f'config.{field} is {value}, expected {expected}.')
    one_length = (data.long_length, data.long_every) == (0, 0)
    if not one_length and (data.long_length <= data.segment_length or data.long_every < 2):
        raise ValueError(
            f'config.data.long_length is {data.long_length} and long_every {data.long_every}, expected more than '
            f'segment_length ({data.segment_length}) and at least 2, or 0 and 0 for segments of one length.'
        )
    if not 0 <= data.forget < 1 or (data.forget and not data.consecutive):
        raise ValueError(
            f'config.data.forget is {data.forget}, expected a share of at least 0 and below 1, and 0 without data.consecutive, '
            'where every segment begins with nothing remembered.'
        )
    for field in ('context_rank', 'context_usage', 'state_norm', 'state_bytes', 'nll_spike'):
        if config.watch[field] < 0:
            raise ValueError(f'config.watch.{field} is {config.watch[field]}, expected a limit of at least 0.')
    if not 0 <= train.ema < 1:
        raise ValueError(f'config.train.ema is {train.ema}, expected a decay of at least 0 and below 1.')
    if not 0 <= train.corruption <= 1:
        raise ValueError(f'config.train.corruption is {train.corruption}, expected a rate from 0 to 1.')
    if train.dtype not in ('auto', 'float32', 'bfloat16'):
        raise ValueError(f'config.train.dtype is "{train.dtype}", expected "auto", "float32" or "bfloat16".')
    if train.remat not in remat.POLICIES:
        raise ValueError(f'config.train.remat is "{train.remat}", expected one of {", ".join(remat.POLICIES)}.')
    if not train.parts:
        raise ValueError(f'config.train.parts is empty: name the parts to train, among {", ".join(PARTS)}.')
    for field, parts in (('train.parts', train.parts), ('train.init_from.parts', train.init_from.parts)):
        for part in parts:
            if part not in PARTS:
                raise ValueError(f'config.{field} names "{part}", expected names among {", ".join(PARTS)}.')
    if not train.weights:
        raise ValueError('config.train.weights is empty: give each loss its weight, such as reconstruction = 1.0.')
    for name, weight in train.weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ValueError(f'config.train.weights.{name} is {weight!r}, expected a finite number.')
    if train.init_from.parts and not train.init_from.path:
        raise ValueError('config.train.init_from.parts is given without init_from.path, the workdir to start from.')


def step_config(config: ml_collections.ConfigDict) -> StepConfig:
    """The values derived from a validated config that the training step needs. The only place they are derived."""
    return StepConfig(
        seed=int(config.seed),
        parts=tuple(p for p in PARTS if p in config.train.parts),
        weights=tuple(sorted((k, float(w)) for k, w in config.train.weights.items())),
        ema=float(config.train.ema),
        corruption=float(config.train.corruption),
        remat=config.train.remat,
    )


def fingerprint(config: ml_collections.ConfigDict, spec_json: dict, dataset: str) -> dict[str, Any]:
    """The fields that decide what is learned, by dotted name: model, data, optimizer, seed, not paths or cadence.

    `dataset` identifies what lies at the path. The length of a run counts only where the learning rate depends on it.
    """
    train = {k: config.train[k] for k in ('parts', 'weights', 'dtype', 'ema')}
    if config.train.corruption:  # workdirs of before it was a field go on
        train['corruption'] = config.train.corruption
    later = ('long_length', 'long_every', 'forget')
    data = {k: v for k, v in config.data.items() if k not in ('path', 'cache_mb') and (v or k not in later)}
    chosen = {
        'seed': config.seed,
        'spec': spec_json,
        'data': {'dataset': dataset, **data},
        'model': config.model,
        'train': {**train, 'init_from': {'parts': config.train.init_from.parts}},
        'optimizer': config.optimizer,
    }
    if config.optimizer.schedule != 'constant':
        chosen['train']['steps'] = config.train.steps
    return dotted(chosen)


def to_json(config: Any) -> str:
    """A config, or any mixture of dicts, sequences and plain values, as JSON text with sorted names."""

    def plain(x):
        if isinstance(x, ml_collections.ConfigDict):
            x = x.to_dict()
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        return [plain(v) for v in x] if isinstance(x, (list, tuple)) else x

    return json.dumps(plain(config), indent=2, sort_keys=True)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The config written by `to_json`; sequences come back as tuples, as experiments write them."""

    def plain(x):
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        return tuple(plain(v) for v in x) if isinstance(x, list) else x

    return ml_collections.ConfigDict(plain(json.loads(text)))


def dotted(config: Any) -> dict[str, Any]:
    """The fields of a config by dotted name, as they are in JSON."""
    return dict(_dotted(json.loads(to_json(config)), ''))


def _dotted(x: Any, name: str):
    if isinstance(x, dict):
        for k, v in x.items():
            yield from _dotted(v, f'{name}.{k}' if name else k)
    else:
        yield name, x


def _compare(given: Any, default: Any, where: str) -> None:
    check_fields(given, default, where)
    for name, expected in default.items():
        path = where + name
        if name not in given:
            raise ValueError(f'Field "{path}" is missing from the config: start from `default_config()`.')
        value = given[name]
        if isinstance(expected, ml_collections.ConfigDict):
            if not isinstance(value, ml_collections.ConfigDict):
                raise ValueError(f'config.{path} is {value!r}, expected a section with fields of its own.')
            if path not in OPEN:
                _compare(value, expected, path + '.')
            continue
        kinds = {float: (int, float), tuple: (tuple, list)}.get(type(expected), (type(expected),))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f'config.{path} is {value!r}, expected a value of type {type(expected).__name__}.')
        if isinstance(expected, float) and not (-sys.float_info.max <= value <= sys.float_info.max):
            raise ValueError(f'config.{path} is {value!r}, expected a finite number.')
