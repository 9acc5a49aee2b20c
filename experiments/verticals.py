"""The two world models that the experiments on real worlds compare, with nothing in common but the contracts.

masked      a tokenizer trained first, then a masked transition over its tokens with a memory beside it
recurrent   DreamerV3's world model, trained jointly
"""

from __future__ import annotations

import ml_collections

from worldmodels.build import complete
from worldmodels.imports import FORM, is_path
from worldmodels.sizes import dreamer

VARIANTS = ('tokenizer', 'masked', 'recurrent')
OPTIONS = {'memory': 'window', 'transition': 'masked', 'size': '1m', 'tiny': False}
"""What every experiment with these variants can be told, for `arguments.parse`."""


def fill(
    config: ml_collections.ConfigDict,
    variant: str,
    options: dict,
    *,
    heart: dict,
    tokenizer: str = '',
    costs: tuple[str, ...] = (),
    recurrent_steps: int = 3500,
    wider: dict[str, dict] | None = None,
    **sizes: int | bool,
) -> None:
    """Fill in a variant of VARIANTS.

    Args:
      options: values of OPTIONS.
      heart, tokenizer, costs: see `masked`; a recurrent model has a heart of its own.
      recurrent_steps: for which the recurrent model is trained.
      wider: fields of the recurrent model's parts, by part, that are not those of its size.
      sizes: of the masked variant, its steps and what else `masked` takes.
    """
    if variant == 'recurrent':
        recurrent(config, options['size'], recurrent_steps, costs, wider)
    else:
        masked(config, variant, options, tokenizer=tokenizer, heart=heart, costs=costs, **sizes)
    if options['tiny']:
        config.train.update({'steps': 20, 'log_every': 10})
        config.optimizer.warmup = 5


def masked(
    config: ml_collections.ConfigDict,
    variant: str,
    options: dict,
    *,
    tokenizer: str,
    heart: dict,
    costs: tuple[str, ...] = (),
    length: int = 8,
    width: int = 64,
    depth: int = 2,
    hidden: int = 192,
    steps: int = 400,
    moves: bool = False,
) -> None:
    """Fill in the variant 'tokenizer' or 'masked'.

    Args:
      options: memory (window, recurrent, none, compressive, retrieval, state_space or masked) and transition (masked), or
        import paths of one's own.
      tokenizer: workdir from which the masked variant takes the heart.
      heart: fields of the heart, with its kind; 'palette' needs no tokenizer trained before.
      costs: what the world pays out beside reward and discount.
      length: of the window, in ticks.
      width, depth, hidden: of the transition's and the window's transformers.
      steps: for which the variant 'masked' is trained.
      moves: whether the masked transition can point at the tokens around a cell.

    Raises:
      ValueError: a memory or transition that is not known here.
    """
    transformer = {'width': width, 'depth': depth, 'heads': 4, 'hidden': hidden, 'neighbours': True}
    memories = {
        'window': {'kind': 'window', 'length': length, **transformer},
        'recurrent': {'kind': 'recurrent', 'deter': 8 * width, 'hidden': 2 * width},
        'none': {'kind': 'none'},
        'compressive': {'kind': 'compressive', 'length': length, 'rate': 4, 'levels': 5, **transformer},
        'retrieval': {'kind': 'retrieval', 'width': 2 * width, 'entry': 2 * width},
        'state_space': {'kind': 'state_space', 'width': 2 * width, 'depth': depth, 'heads': 4, 'hidden': 2 * hidden},
        'masked': {'kind': 'masked', 'width': 2 * width, 'heads': 4, 'hidden': 2 * hidden},
    }
    transitions = {'masked': {'kind': 'masked', 'steps': 4, 'temperature': 0.5, 'moves': moves, **transformer}}
    config.model = complete(
        {
            'heart': heart,
            'filter': {'reads': 'frame'},
            'transition': _chosen('transition', transitions, options),
            'memory': _chosen('memory', memories, options),
            'outcome': {'reads': 'departure', 'units': 64},
            'context_to': ('transition', 'outcome'),
        }
    )
    config.optimizer.update(
        {'learning_rate': 3e-3, 'warmup': 50, 'schedule': 'cosine', 'weight_decay': 1e-2, 'b2': 0.99}
    )
    if variant == 'tokenizer':
        config.data.update({'batch_size': 16, 'segment_length': 1})
        config.optimizer.learning_rate = 5e-3
        config.train.update({'steps': 2000, 'parts': ('heart',), 'log_every': 200})
        config.train.weights = {'reconstruction': 1.0, 'saturation': 10.0}
        return
    config.data.update({'batch_size': 8, 'segment_length': 16})
    config.train.update(
        {
            'steps': steps,
            'log_every': 20,
            'parts': ('filter', 'transition', 'memory', 'outcome'),
            'weights': {'transition': 1.0, **dict.fromkeys(('reward', 'discount', *costs), 0.1)},
            'ema': 0.98,
        }
    )
    if options['memory'] == 'masked':
        config.train.weights.recall = 0.3
    if heart['kind'] != 'palette':
        config.train.init_from = {'path': tokenizer, 'parts': ('heart',)}


def _chosen(part: str, known: dict, options: dict) -> dict:
    """The fields of a part by its option: those known here, or the defaults of one's own part."""
    name = options[part]
    if is_path(name):
        return {'kind': name}
    if name not in known:
        raise ValueError(f"{part} '{name}' is not one of {', '.join(known)}, nor of the form {FORM}.")
    return known[name]


def recurrent(
    config: ml_collections.ConfigDict,
    size: str,
    steps: int,
    costs: tuple[str, ...],
    wider: dict[str, dict] | None = None,
) -> None:
    """Fill in the variant 'recurrent': DreamerV3's world model at a size of `worldmodels.sizes`, trained for so many steps.

    `costs` is what the world pays out beside reward and discount, `wider` what differs from the size, by part.
    """
    fields = dreamer(size)
    config.model = complete({**fields, **{part: {**fields[part], **own} for part, own in (wider or {}).items()}})
    config.data.update({'batch_size': 16, 'segment_length': 16})
    config.optimizer.update(
        {'kind': 'laprop', 'learning_rate': 1e-3, 'warmup': 200, 'clip_norm': 0.0, 'agc': 0.3, 'eps': 1e-20}
    )
    config.optimizer.schedule = 'cosine'
    config.train.update(
        {
            'steps': steps,
            'log_every': 50,
            'weights': {
                'reconstruction': 1.0,
                'dynamics': 1.0,
                'representation': 0.1,
                **dict.fromkeys(('reward', 'discount', *costs), 1.0),
            },
        }
    )
