"""What is held out for validation: openings that never begin a training episode, or whole episodes.

Where a world has many openings, a hash of what is really there (the whole grid, not the view) says to which split each
belongs. Where it has one or a few there is nothing to hold out: then validation is played with random numbers of its
own, from the openings there are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from worldmodels import interaction, rng
from worldmodels.worlds.host import Host

SPLITS = ('auto', 'openings', 'episodes')
POOL = 1024  # openings drawn for every chunk
HELD_OUT = 0.2  # share of openings kept for validation
ENOUGH = 36  # different openings from which on they are split


def decide(world: Any, name: str, asked: str, seed: int) -> dict[str, Any]:
    """How to split: {'by': 'openings' | 'episodes', 'openings': how many different ones were seen, 'why': a sentence}.

    `asked` is one of SPLITS; 'auto' is by openings where there are ENOUGH different ones.
    """
    if asked == 'episodes':
        return {'by': asked, 'openings': None, 'why': f'{name}: whole episodes are held out, as asked for.'}
    if isinstance(world, Host) and world.openings == math.inf:
        return {'by': 'openings', 'openings': None, 'why': f'{name}: every episode has an opening of its own.'}
    seen: set[bytes] = set()
    drawn = 0
    for drawn, opening in enumerate(_drawn(world, seed), 1):  # noqa: B007 - how many is what is wanted
        seen.add(opening)
        if isinstance(world, Host) and len(seen) >= ENOUGH:
            break
    found = f'{name}: {len(seen):,} different openings among {drawn:,}'
    if asked == 'openings' or len(seen) >= ENOUGH:
        why = f'{found}; some are held out, and begin no episode of the other split.'
        return {'by': 'openings', 'openings': len(seen), 'why': why}
    why = f'{found}, too few to hold some out; instead whole episodes are held out, played with other random numbers.'
    return {'by': 'episodes', 'openings': len(seen), 'why': why}


def _drawn(world: Any, seed: int) -> Iterator[bytes]:
    key = rng.stream(seed, 'collect/openings')
    if not isinstance(world, Host):
        yield from fingerprints(interaction.prepare(world, key, POOL))
        return
    # Outside JAX an opening may take long, so that fewer must do.
    for observation in world.draw(key, 4 * ENOUGH):
        yield from fingerprints({'truth': {}, 'observation': observation})


def fingerprints(pool: Any) -> list[bytes]:
    """The bytes of each opening of a pool {'truth', 'observation'}: of the truth's codes where there are any."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(pool['truth'].get('codes', pool['observation']))]
    return [b''.join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]


def is_held_out(seed: int, opening: bytes) -> bool:
    """Whether an opening belongs to the validation split."""
    digest = hashlib.blake2b(opening, digest_size=8, salt=seed.to_bytes(8, 'little')).digest()
    return int.from_bytes(digest, 'little') < HELD_OUT * 2**64


def keep(pool: Any, split: str, name: str, seed: int) -> tuple[Any, int]:
    """The pool with the other split's openings replaced by this one's, and how many they were.

    Raises ValueError where none is left.
    """
    held = np.array([is_held_out(seed, opening) for opening in fingerprints(pool)])
    mine = np.flatnonzero(held == (split == 'validation'))
    if not len(mine):
        raise ValueError(too_few(name, f'of {len(held)} none was left for {split}'))
    # As many as before, so that nothing is compiled anew.
    return jax.tree.map(lambda x: x[np.resize(mine, len(held))], pool), len(held) - len(mine)


def keeper(split: str, seed: int) -> Any:
    """The same for worlds outside JAX: says of one lane's opening whether it is of this split."""

    def mine(observation: dict[str, np.ndarray]) -> bool:
        opening = b''.join(leaf.tobytes() for leaf in jax.tree.leaves(observation))
        return is_held_out(seed, opening) == (split == 'validation')

    return mine


def too_few(name: str, found: str) -> str:
    """The sentence for a world whose openings cannot be split."""
    return (
        f'{name} has too few different openings to hold some out for validation ({found}): set --split=episodes, which '
        'holds out whole episodes, or choose a world with random layouts.'
    )
