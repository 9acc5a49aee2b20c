"""A Minari dataset on this machine, by folder, or by id below MINARI_DATASETS_PATH. Nothing is downloaded or built.

Fields: observations (and their parts, 'observations/image'), actions, rewards, terminations, truncations, infos/...
https://minari.farama.org/main/content/dataset_standards/
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels.data.sources import Declared, Unreadable, numbers


class Files:
    """The episodes of a Minari dataset."""

    kind = 'minari'
    stands = {'action_at': 'departure', 'outcomes_at': 'departure', 'terminal_at': 'departure'}  # noqa: RUF012

    def __init__(self, path: str):
        self.path = path
        data = path if os.path.exists(os.path.join(path, 'metadata.json')) else os.path.join(path, 'data')
        self._metadata = os.path.join(data, 'metadata.json')
        if not os.path.exists(self._metadata):
            raise ValueError(
                f'There is no Minari dataset at {path!r}, whose data/metadata.json is missing: give the folder of one '
                'dataset and version, as in minari:FOLDER/cartpole/random-v0.'
            )
        with open(self._metadata) as file:
            metadata = json.load(file)
        for name in ('observation_space', 'action_space'):
            if name not in metadata:  # Minari would then build the environment, which is to run what the file names
                raise ValueError(
                    f'The Minari dataset at {path!r} has no {name!r} in its metadata: write it again with a newer Minari.'
                )
        try:
            from minari.dataset.minari_storage import MinariStorage
        except ImportError as error:
            raise ValueError(
                f"Minari's datasets need packages that are not here ({error}): pip install -e '.[data]'"
            ) from None
        try:
            self._storage = MinariStorage.read(data)
        except (NotImplementedError, KeyError, OSError) as error:
            raise ValueError(f'The Minari dataset at {path!r} cannot be opened ({error}).') from None
        self.splits = {'all': int(self._storage.total_episodes)}
        self.frames = int(self._storage.total_steps) + self.splits['all']
        self.nbytes = sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(data) for n in names)
        self.declared = {
            **dict(_declared('observations', self._storage.observation_space)),
            **dict(_declared('actions', self._storage.action_space)),
        }

    def label(self, split: str, number: int) -> str:
        return f'episode {number}'

    def identity(self) -> str:
        with open(self._metadata, 'rb') as file:
            return hashlib.blake2b(file.read(), digest_size=8).hexdigest()

    def read(self, split: str, number: int, most: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        try:
            (episode,) = self._storage.get_episodes([number])
        except (OSError, KeyError, ValueError) as error:
            raise Unreadable(f'episode {number} cannot be read ({error}): write the dataset again.') from None
        names = ('observations', 'actions', 'rewards', 'terminations', 'truncations', 'infos')
        yield numbers({name: episode[name] for name in names})


def _declared(name: str, space: Any) -> Iterator[tuple[str, Declared]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _declared(f'{name}/{key}', part)
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from _declared(f'{name}/{i}', part)
    elif isinstance(space, spaces.Discrete):
        yield name, Declared(size=int(space.n), start=int(space.start))
    elif isinstance(space, spaces.Box) and space.is_bounded():
        yield name, Declared(low=float(space.low.min()), high=float(space.high.max()))
