"""What all that makes datasets shares: files that appear whole, when a dataset is already there, where it came from."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from importlib import metadata
from typing import Any

from worldmodels import lock
from worldmodels.data import episodes


def is_complete(path: str, settings: dict[str, Any], made: str) -> bool:
    """Whether the dataset that `settings` (JSON) ask for stands at `path`; its parts, in `path + '.parts'`, are then removed.

    Raises ValueError where another one, finished or begun, stands there; `made` says how: 'collected'.
    """
    if os.path.exists(os.path.join(path, 'dataset_info.json')):
        refuse_other(path, episodes.read_metadata(path).get('settings', {}), settings, made)
        shutil.rmtree(path + '.parts', ignore_errors=True)
        return True
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise ValueError(f'{path!r} holds something that is not a dataset: give a path that does not exist yet.')
    begun = os.path.join(path + '.parts', 'settings.json')
    if os.path.exists(begun):
        with open(begun) as file:
            refuse_other(path, json.load(file), settings, made, f', or delete {path}.parts to begin anew')
    return False


def begin(path: str, settings: dict[str, Any]) -> str:
    """Makes the folder of parts, with the settings in it, and returns its name. It is this process's until it ends.

    Raises ValueError where another process makes the dataset.
    """
    parts = path + '.parts'
    lock.hold(parts)
    with whole(os.path.join(parts, 'settings.json')) as temporary, open(temporary, 'w') as file:
        json.dump(settings, file)
    return parts


def refuse_other(path: str, found: dict, wanted: dict, made: str, way: str = '') -> None:
    """Raises ValueError naming the settings that differ."""
    wanted = json.loads(json.dumps(wanted))
    keys = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if keys:
        differing = '; '.join(f'{key} is {found.get(key)} there, {wanted.get(key)} here' for key in keys)
        raise ValueError(f'{path!r} was {made} otherwise ({differing}): give another path, or the same settings{way}.')


def provenance(packages: tuple[str, ...]) -> dict[str, Any]:
    """Versions of packages, those that are here, and the git commit of this code: kept with the data."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {'versions': versions, 'git_commit': git('rev-parse', 'HEAD') or 'unknown'}


def git(*words: str) -> str:
    """What git says of this code; '' where there is no git, or no repository."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(['git', *words], cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return ''
    return done.stdout.strip()


class whole:
    """A file that appears at once: `with whole(name) as temporary` renames when the block ends well."""

    def __init__(self, name: str):
        self.name, self.temporary = name, name + '.tmp'

    def __enter__(self) -> str:
        return self.temporary

    def __exit__(self, kind, value, trace) -> None:
        if kind is None:
            with open(self.temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.rename(self.temporary, self.name)
