"""Genie's recipe: a world learned from silent video, with actions found in it, that can be played.

A tokenizer, latent actions, and a masked transition over a window of frames, each trained on frames alone. The data below have
actions, which no model here looks at; they serve to see what was found. Seven codes, as the world has seven actions; three of
them change the frame of an empty room (rotate_ccw, rotate_cw, forward), seven that of a room with a key and a door.

python launch/collect.py --world=navix/DoorKey-Random-8x8 --policy=random --path=runs/genie/data
python launch/train.py --config=experiments/genie.py:tokenizer --workdir=runs/genie/tokenizer
python launch/train.py --config=experiments/genie.py:actions --workdir=runs/genie/actions
python launch/train.py --config=experiments/genie.py:dynamics --workdir=runs/genie/dynamics
python launch/actions.py --workdir=runs/genie/dynamics --steps=300
python launch/evaluate.py --workdir=runs/genie/dynamics

On one core of an AMD EPYC, with other programs running beside, the three trainings took 1.5, 24 and 15 minutes. On held-out
episodes, 1,523 of whose ticks have an action that changed the frame: adjusted mutual information of latent and true actions
0.97 (rotations and forward each have a code of their own; a key picked up shares that of going forward), and a difference of
19.5 dB (18.6 to 20.4) between dreams of 4 ticks under the actions found and under others (Genie's controllability). Of 200
held-out starts, whole frames right 1, 8 and 15 ticks ahead:

    under the latent actions found in the real frames      100, 100, 99%
    played: real actions, mapped from 300 labelled steps    98, 93, 87%
    copying the last frame                                  58, 13, 5%

The sizes are options, the same road at each: `tokenizer,size=tiny` and so on are for tests; `size=accelerator` is Genie's on
CoinRun in shape (Bruce et al., 2024, arXiv 2402.15391: patches of 4, 1,024 codes, 16 frames), for one GPU and about as many
frames as there are to collect:

python launch/collect.py --world=navix/DoorKey-Random-16x16 --policy=random --steps=2000000 --path=runs/genie/large
python launch/train.py --config=experiments/genie.py:tokenizer,size=accelerator --workdir=runs/genie/large_tokenizer
    --config.data.path=runs/genie/large
python launch/train.py --config=experiments/genie.py:actions,size=accelerator --workdir=runs/genie/large_actions
    --config.data.path=runs/genie/large --config.train.init_from.path=runs/genie/large_tokenizer
python launch/train.py --config=experiments/genie.py:dynamics,size=accelerator --workdir=runs/genie/large_dynamics
    --config.data.path=runs/genie/large --config.train.init_from.path=runs/genie/large_actions

Video of one's own, without actions, takes the same road (launch/convert.py, then --config.data.path); `turns=false` where the
world is not seen from above.
"""

from __future__ import annotations

import ml_collections

from experiments.arguments import parse
from worldmodels.build import complete
from worldmodels.training.config import default_config

VARIANTS = ('tokenizer', 'actions', 'dynamics')
LEARNS = {'tokenizer': ('heart',), 'actions': ('action',), 'dynamics': ('filter', 'transition', 'memory', 'outcome')}
WEIGHTS = {
    'tokenizer': {'reconstruction': 1.0, 'saturation': 10.0},
    'actions': {'latent_action': 1.0, 'action_code': 1.0, 'action_prior': 1.0},
    'dynamics': {'transition': 1.0, 'reward': 0.1, 'discount': 0.1},
}
SIZES = {
    # patch, levels; width, hidden and heads of the networks; depth of tokenizer, actions, transition and window; frames
    'tiny': {'patch': 8, 'levels': (3, 3), 'width': 16, 'hidden': 16, 'heads': 2, 'depths': (1, 1, 1, 1), 'length': 3},
    'laptop': {
        **{'patch': 8, 'levels': (4, 4, 4, 4), 'width': 64, 'hidden': 192, 'heads': 4},
        **{'depths': (1, 1, 2, 2), 'length': 8},
    },
    'accelerator': {
        **{'patch': 4, 'levels': (4, 4, 4, 4, 4), 'width': 512, 'hidden': 2048, 'heads': 8},
        **{'depths': (8, 4, 4, 8), 'length': 16},
    },
}
STEPS = {
    'tiny': dict.fromkeys(VARIANTS, 20),
    'laptop': {'tokenizer': 2000, 'actions': 1200, 'dynamics': 800},
    'accelerator': {'tokenizer': 100_000, 'actions': 100_000, 'dynamics': 125_000},
}
BATCH = {
    # batch size, segment length
    'tiny': {'tokenizer': (4, 1), 'actions': (4, 4), 'dynamics': (4, 4)},
    'laptop': {'tokenizer': (16, 1), 'actions': (6, 9), 'dynamics': (8, 16)},
    'accelerator': {'tokenizer': (64, 1), 'actions': (16, 16), 'dynamics': (36, 16)},
}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: tokenizer; actions, on the tokenizer's run; dynamics, on the actions' run.

    Options: size (tiny, laptop, accelerator), codes (latent actions), turns (turns=false: the world looks different from
    each side).
    """
    variant, options = parse(arg, VARIANTS, size='laptop', codes=7, turns=True)
    if options['size'] not in SIZES:
        raise ValueError(f"size '{options['size']}' is not one of {', '.join(SIZES)}.")
    size = options['size']
    config = default_config()
    config.world = {'name': 'navix/DoorKey-Random-8x8'}
    config.data.path = 'runs/genie/data'
    config.data.batch_size, config.data.segment_length = BATCH[size][variant]
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 15}
    config.model = complete(_model(SIZES[size], options['codes'], options['turns']))
    config.optimizer.update(
        {'learning_rate': 3e-3, 'warmup': 50, 'schedule': 'cosine', 'weight_decay': 1e-2, 'b2': 0.99}
    )
    config.train.update({'steps': STEPS[size][variant], 'parts': LEARNS[variant], 'weights': WEIGHTS[variant]})
    config.train.log_every = 100
    if size == 'tiny':
        config.train.log_every, config.optimizer.warmup = 10, 5
    if variant == 'tokenizer':
        config.optimizer.learning_rate = 5e-3
    elif variant == 'actions':
        config.optimizer.learning_rate = 2e-3
        config.train.init_from = {'path': 'runs/genie/tokenizer', 'parts': ('heart',)}
    else:
        config.train.ema = 0.98
        config.train.init_from = {'path': 'runs/genie/actions', 'parts': ('heart', 'action')}
    if size == 'accelerator':
        config.optimizer.update({'learning_rate': 3e-4, 'warmup': 1000})
        config.train.update({'ema': 0.999, 'checkpoint_every': 5000})
    return config


def _model(size: dict, codes: int, turns: bool) -> dict:
    tokenizer, action, transition, window = size['depths']
    network = {'width': size['width'], 'hidden': size['hidden'], 'heads': size['heads']}
    encoder = tokenizer if tokenizer > 1 else 0  # a small one codes every patch by itself
    # Finding actions takes less than drawing what they do: half as wide.
    half = {'width': size['width'] // 2, 'hidden': max(16, size['hidden'] // 3), 'heads': size['heads']}
    return {
        'heart': {
            **{'kind': 'tokens', 'levels': size['levels'], 'patch': size['patch'], 'hide': 0.1, **network},
            **{'encoder_depth': encoder, 'decoder_depth': tokenizer},
        },
        'action': {
            **{'kind': 'latent', 'codes': codes, 'patch': 2 * size['patch'] if encoder else size['patch']},
            **{'turns': turns, 'depth': action, **half},
        },
        'filter': {'reads': 'frame'},
        'transition': {
            **{'kind': 'masked', 'mask': 'upper_half', 'depth': transition, 'neighbours': True, **network},
            **{'steps': 25 if encoder else 4, 'temperature': 0.5},
        },
        'memory': {'kind': 'window', 'length': size['length'], 'depth': window, 'neighbours': True, **network},
        'outcome': {'reads': 'departure', 'units': size['width']},
        'context_to': ('transition', 'outcome'),
    }
