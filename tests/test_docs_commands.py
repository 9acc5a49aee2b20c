"""Every command that a document or the docstring of a command or experiment prints can be given: flags and config are read."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from test_docs_howto import DOCUMENTS, LINKED, files_of

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = [ROOT / 'README.md', ROOT / 'BUILD_NOTES.md', *sorted((ROOT / 'docs').rglob('*.md'))]
SOURCES += [p for d in ('launch', 'experiments') for p in sorted((ROOT / d).glob('*.py'))]

# Reads commands as the script would, and stops where it would begin to work. Says what each was refused for.
PROBE = """
import importlib, json, shlex, sys
script, commands = sys.argv[1], json.load(sys.stdin)
sys.argv = [script]
from absl import flags
from worldmodels import worlds
from worldmodels.evaluation import worlds as listing
from worldmodels.training import config as configs, experiment
from worldmodels.worlds.options import parse
module = importlib.import_module('launch.' + script)
refused = {}
for command in commands:
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        argv, overrides = experiment.take(shlex.split(command))
        words = flags.FLAGS([script, *argv])[1:]
        if script == 'collect':
            worlds.chosen(flags.FLAGS.world, parse(flags.FLAGS.option))
        if script == 'worlds':
            listing.find(words)
            continue
        named = [flags.FLAGS.config] if 'config' in flags.FLAGS else words
        for name in named:
            if 'NAME' in name:
                continue
            if script == 'benchmark':
                module.find(name)
            elif '.py' in name:
                configs.validate(experiment.override(experiment.load(name)[0], overrides))
            else:
                raise ValueError(f'{name} is not expected')
    except Exception as error:
        refused[command] = f'{type(error).__name__}: {error}'
print(json.dumps(refused))
"""


def text_of(path: pathlib.Path) -> str:
    text = path.read_text()
    return text if path.suffix == '.md' else ast.get_docstring(ast.parse(text)) or ''


def commands_in(text: str) -> list[tuple[str, str]]:
    """(script, arguments) of every `python launch/SCRIPT.py ARGUMENTS` that begins a line.

    A command goes on in the next line after a backslash, or where that line is indented further and begins with a flag. What
    stands after two spaces explains it, what follows > or | is the shell's; [brackets] hold what may be left out.
    """
    text = re.sub(r'\\\n\s*', '', text)
    text = re.sub(r'\n\s+(?=--)', ' ', text)
    found = []
    for script, words in re.findall(r'^\s*(?:\$ )?python3? launch/(\w+)\.py(.*)$', text, re.MULTILINE):
        words = re.split(r'  |\s[#>|]', words.strip(), maxsplit=1)[0]
        found.append((script, re.sub(r'[\[\]]|\.\.\.', '', words)))
    return found


def printed() -> dict[str, list[str]]:
    """Arguments by script."""
    out: dict[str, list[str]] = {}
    for path in SOURCES:
        for script, words in commands_in(text_of(path)):
            out.setdefault(script, []).append(words)
    return out


def refused(script: str, commands: list[str], here: pathlib.Path) -> dict[str, str]:
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', PROBE, script],
        cwd=here,
        env=env,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def here(tmp_path):
    """A folder where all that the how-tos write lies, beside what is in the repository."""
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    for document in DOCUMENTS:
        for name, text in files_of(document.name).items():
            (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize('script', sorted(printed()))
def test_commands_are_understood(script, here):
    commands = [c for c in printed()[script] if c]
    if script == 'environment':  # reads no flags
        assert not commands
        return
    assert refused(script, commands, here) == {}


def test_the_probe_sees_what_is_wrong(here):
    wrong = [
        '--config=experiments/doorkey.py:maskd --workdir=x',
        '--config=experiments/doorkey.py --wrkdir=x',
        '--config=experiments/doorkey.py --workdir=x --config.train.stepz=3',
        '--config=experiments/doorkey.py',
    ]
    right = '--config=experiments/doorkey.py --workdir=x --config.train.steps=3'
    assert set(refused('train', [*wrong, right], here)) == set(wrong)
    wrong = ['--path=x --world=navix/DoorKey', '--path=x --option view=partly', '--path=x --view=partial']
    assert set(refused('collect', [*wrong, '--path=x --option view=partial'], here)) == set(wrong)


def test_commands_are_found():
    text = 'Do:\n\n    python launch/train.py --config=a.py [--config.x=2 ...]\n        --workdir=b   explained\n'
    text += '$ python launch/a.py --one \\\n  --two  # why\n'
    assert commands_in(text) == [('train', '--config=a.py --config.x=2  --workdir=b'), ('a', '--one --two')]
    assert {'collect', 'train', 'evaluate', 'benchmark', 'demo'} <= set(printed())
