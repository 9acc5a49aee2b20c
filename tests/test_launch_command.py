"""How commands end: one sentence, a status, and the traceback where it was asked for; fields set on the command line."""

import errno
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import doorkey
from worldmodels.training import experiment

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = """
import errno, os, sys
from absl import flags
from launch import command
flags.DEFINE_string('workdir', None, 'Where.')
def main(argv):
    {body}
command.run(main, 'testing'{options})
"""


def end(body, *arguments, options='', **kwargs):
    """(status, stderr) of a command with this body."""
    script = SCRIPT.format(body=body, options=options)
    done = subprocess.run(
        [sys.executable, '-c', script, *arguments], capture_output=True, text=True, check=False, **kwargs
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ('body', 'status', 'says'),
    [
        ("raise ValueError('size is 3, expected 4: give 4.')", 1, 'error: size is 3, expected 4: give 4.'),
        ("raise FloatingPointError('two\\nlines')", 1, 'error: two lines'),
        ('raise KeyboardInterrupt', 130, 'error: stopped by Ctrl-C while testing.'),
        ("raise OSError(errno.ENOSPC, 'full', '/x')", 1, 'error: /x: No space left on device; free some space and'),
        ("open('/', 'w')", 1, 'error: /: Is a directory; name a file'),
        ('raise MemoryError', 1, 'error: out of memory (MemoryError): give a smaller model'),
        ("raise KeyError('x')", 1, "error: unexpected KeyError while testing: 'x' (its traceback is in "),
        ("int('x')", 1, 'error: invalid literal'),
        ("import json; json.loads('x')", 1, 'error: unexpected JSONDecodeError while testing: Expecting value'),
        ("sys.exit('error: as it was')", 1, 'error: as it was'),
        ('print(1)', 0, ''),
    ],
)
def test_an_end_is_one_line_and_a_status(body, status, says):
    got, stderr = end(body)
    assert got == status
    assert stderr.startswith(says)
    assert stderr.count('\n') == bool(says)


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--workdr=x'], 'error: there is no flag --workdr: did you mean --workdir? (--help lists the flags).\n'),
        (['word'], 'error: unexpected arguments word: everything is given as --flag=value (--help lists the flags).\n'),
        (['--debug=maybe'], 'error: --debug=maybe: '),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, says):
    status, stderr = end('pass', *arguments)
    assert status == 1
    assert stderr.startswith(says)
    assert stderr.count('\n') == 1


def test_the_traceback_of_a_fault_is_kept_beside_the_run_and_shown_on_demand(tmp_path):
    _, stderr = end("{}['x']", f'--workdir={tmp_path}')
    (file,) = tmp_path.iterdir()
    assert str(file) in stderr
    assert 'Traceback' not in stderr
    assert "KeyError: 'x'" in file.read_text()
    for body in ("{}['x']", "raise ValueError('a sentence.')", 'raise KeyboardInterrupt'):
        _, stderr = end(body, '--debug', f'--workdir={tmp_path}')
        assert 'Traceback' in stderr
        assert stderr.splitlines()[-1].startswith('error: ')
    assert list(tmp_path.iterdir()) == [file]


def test_nobody_reading_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    script = SCRIPT.format(body="print('x' * 10, flush=True)", options='')
    done = subprocess.run([sys.executable, '-c', script], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, '')


def test_every_known_error_of_the_disk_has_advice():
    from launch import command

    for number in (errno.ENOSPC, errno.EROFS, errno.EACCES):
        sentence = command.sentence_of(OSError(number, 'x', '/y'))
        assert sentence.startswith('/y: ')
        assert sentence.endswith('.')
    assert command.sentence_of(OSError(errno.ECHILD, 'x')) is None


# -- fields on the command line ----------------------------------------------------------------------------------------


def overridden(*words):
    rest, overrides = experiment.take(['train.py', '--workdir=x', *words])
    assert rest == ['train.py', '--workdir=x']
    return experiment.override(doorkey.get_config('masked'), overrides)


def test_fields_take_values_of_their_type():
    config = overridden(
        '--config.data.batch_size=32', '--config.optimizer.learning_rate=1', '--config.data.path=a=b',
        '--config.train.parts=filter,memory', '--config.model.heart.levels=(3, 3)', '-config.data.consecutive',
        '--config.train.weights.reward=0.5', "--config.train.weights={'reward': 2.0}", '--noconfig.data.consecutive',
        '--config.train.dtype=none',
    )  # fmt: skip
    assert (config.data.batch_size, config.data.path, config.data.consecutive) == (32, 'a=b', False)
    assert type(config.optimizer.learning_rate) is float
    assert (config.train.parts, config.model.heart.levels) == (('filter', 'memory'), (3, 3))
    assert (config.train.weights.to_dict(), config.train.dtype) == ({'reward': 2.0}, 'none')


@pytest.mark.parametrize(
    ('word', 'says'),
    [
        ('--config.data.bach_size=3', 'no field "data.bach_size": did you mean "data.batch_size"'),
        ('--config.batch_size=3', 'no field "batch_size": did you mean "data.batch_size"'),
        ('--config.qqq=3', 'no field "qqq": its sections are data,'),
        ('--config.seed.x=3', 'no field "seed.x"'),
        ('--config.=3', 'no field ""'),
        ('--config.seed=3.5', "--config.seed was given '3.5', and takes a value of type int, such as 0."),
        ('--config.seed=' + '9' * 5000, 'takes a value of type int'),
        ('--config.seed', '--config.seed was given no value: write --config.seed=VALUE'),
        ('--noconfig.seed', '--config.seed was given'),
        ('--config.train.ema=much', "was given 'much', and takes a value of type float"),
        ('--config.data.consecutive=maybe', 'takes true or false'),
        ('--config.data=3', 'is a section: give one of its fields (batch_size,'),
        ("--config.train.weights={3: 'x'}", 'is a section: give one of'),
        ('--config.train.parts=f()', 'takes a value of type tuple'),
    ],
)
def test_what_no_field_takes_is_one_sentence(word, says):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        overridden(word)
    assert says in str(raised.value)


def test_an_override_leaves_what_it_was_made_from():
    config = doorkey.get_config('masked')
    experiment.override(config, [('data.batch_size', '3')])
    assert config.to_dict() == doorkey.get_config('masked').to_dict()


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        (None, "There is no experiment .*other.py': did you mean .*others.py"),
        ('x = 1', 'has no function get_config'),
        ('def get_config(arg):\n    return 1 / 0', 'other.py.*, line 2 raises ZeroDivisionError: division by zero'),
        ('def get_config(arg)', 'line 1 raises SyntaxError'),
        ('def get_config(arg):\n    return {}', 'returns a dict: expected a ConfigDict'),
        ('def get_config():\n    return {}', 'raises TypeError'),
    ],
)
def test_an_experiment_that_is_none_is_one_sentence(tmp_path, text, says):
    (tmp_path / 'others.py').write_text('')
    if text:
        (tmp_path / 'other.py').write_text(text)
    with pytest.raises(ValueError, match=says):
        experiment.load(f'{tmp_path}/other.py:arg')


@pytest.mark.parametrize('script', ['collect', 'convert', 'dataset'])
def test_tfds_is_imported_before_a_progress_bar_has_its_thread(script, tmp_path):
    """While TFDS is imported Python's own import is another, in which imports of a second thread fail."""
    probe = (
        'import runpy, sys; from rich.progress import Progress\n'
        'def start(self): raise ValueError("tensorflow_datasets" in sys.modules and "it is there." or "it is not.")\n'
        'Progress.start = start; script, sys.argv = sys.argv[1], sys.argv[1:]\n'
        'runpy.run_path(script, run_name="__main__")'
    )
    frames = np.zeros((9, 8, 8, 3), np.uint8)
    (tmp_path / 'in').mkdir()
    for name in ('a', 'b'):
        np.savez(tmp_path / 'in' / f'{name}.npz', image=frames, action=np.arange(9) % 2)
    arguments = {'convert': [f'--source=npz:{tmp_path}/in', '--set=validation=0.5']}.get(script, [])
    done = subprocess.run(
        [sys.executable, '-c', probe, f'{ROOT}/launch/{script}.py', f'--path={tmp_path}/out', *arguments],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.rstrip() == 'error: it is there.', done.stderr
