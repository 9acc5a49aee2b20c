"""A table of rows: run once each, resumed where stopped, written row by row."""

from __future__ import annotations

import csv
import pathlib
import subprocess
import sys

import pytest

from experiments.table import measured

ROOT = pathlib.Path(__file__).parent.parent
TABLE = """
from experiments.table import Row

SCRIPT = {script!r}

def get_table(workdir):
    measures = (('image', 'exact', (1, 2)),)
    row = lambda name, *words: Row(
        name,
        {{'letter': name}},
        (('first', (SCRIPT, workdir, name, 'one')), ('second', (SCRIPT, workdir, name, 'two', *words))),
        f'{{workdir}}/{{name}}.json',
        measures,
    )
    return [row('a'), row('b', *{extra!r}), row('c')]
"""
# Counts how often it ran; fails while a file named after the row says so.
SCRIPT = """
import json, pathlib, sys
workdir, name, stage = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with (workdir / 'ran.txt').open('a') as file:
    file.write(f'{name} {stage}\\n')
if stage == 'two' and (workdir / f'{name}.broken').exists():
    sys.exit('this stage is broken')
score = lambda *values: {'image': {'exact': {'value': list(values)}}}
(workdir / f'{name}.json').write_text(json.dumps({
    'hardware': 'an abacus', 'versions': {'jax': '0'},
    'worlds': [
        {'role': 'model', 'scores': score(0.75, 0.5), 'above_copy': score(0.5, -0.25)},
        {'role': 'copy', 'scores': score(0.25, 0.75)},
        {'role': 'redrawn', 'scores': score(1.0, 1.0)},
    ],
}))
"""


@pytest.fixture
def sweep(tmp_path):
    """(run the sweep with flags, folder)."""
    (tmp_path / 'work').mkdir()
    script = tmp_path / 'stage.py'
    script.write_text(SCRIPT)

    def run(*flags: str, extra: tuple = (), work: str = 'work'):
        (tmp_path / 'table.py').write_text(TABLE.format(script=str(script), extra=extra))
        words = ['launch/sweep.py', f'--table={tmp_path / "table.py"}', f'--workdir={tmp_path / work}', *flags]
        return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)

    return run, tmp_path


def ran(folder: pathlib.Path) -> list[str]:
    return (folder / 'work' / 'ran.txt').read_text().splitlines()


def test_rows_are_run_once_and_a_failed_one_is_taken_up_where_it_failed(sweep):
    run, folder = sweep
    (folder / 'work' / 'b.broken').touch()
    done = run()
    assert done.returncode == 1
    assert '1 of 3 rows failed (b)' in done.stderr
    assert 'Traceback' not in done.stderr
    rows = list(csv.DictReader((folder / 'table.csv').open()))
    assert [row['name'] for row in rows] == ['a', 'c']
    assert rows[0]['letter'] == 'a'
    assert (rows[0]['exact_1'], rows[0]['copy_exact_2'], rows[0]['redrawn_exact_1']) == ('0.75', '0.75', '1')
    assert rows[0]['exact_above_copy'] == '1/2'
    assert rows[0]['hardware'] == 'an abacus'
    assert rows[0]['commit']
    assert float(rows[0]['seconds']) >= 0

    (folder / 'work' / 'b.broken').unlink()
    done = run()
    assert done.returncode == 0
    assert 'redrawn_exact_2' in done.stdout, 'wider than a terminal, and not cut'
    assert [row['name'] for row in csv.DictReader((folder / 'table.csv').open())] == ['a', 'b', 'c']
    assert ran(folder) == ['a one', 'a two', 'b one', 'b two', 'c one', 'c two', 'b two']

    done = run('--list')
    assert done.stdout.split() == ['done', 'a', 'done', 'b', 'done', 'c']
    assert len(ran(folder)) == 7


def test_a_row_runs_alone_and_again_and_is_not_mixed_with_another(sweep):
    run, folder = sweep
    assert run('--only=b').returncode == 0
    assert ran(folder) == ['b one', 'b two']
    done = run('--only=b', extra=('other',))
    assert done.returncode == 1
    assert "The row 'b'" in done.stderr
    assert '--again' in done.stderr
    assert run('--only=b', '--again', extra=('other',)).returncode == 0
    assert ran(folder) == ['b one', 'b two'] * 2
    done = run('--only=bb')
    assert done.returncode == 1
    assert 'did you mean b?' in done.stderr


def test_rows_are_done_wherever_they_were_run(sweep):
    run, folder = sweep
    assert run('--only=a').returncode == 0
    done = run('--only=a', work='elsewhere')
    assert done.returncode == 0, done.stderr
    assert ran(folder) == ['a one', 'a two']


def test_measures_that_the_report_lacks_are_refused():
    scores = {'image': {'exact': {'value': [0.5]}}}
    report = {'worlds': [{'role': role, 'scores': scores} for role in ('model', 'copy', 'redrawn')]}
    with pytest.raises(ValueError, match="no 'psnr' of 'image'"):
        measured(report, (('image', 'psnr', (1,)),))
    with pytest.raises(ValueError, match='up to horizon 2'):
        measured(report, (('image', 'exact', (1, 2)),))


def test_a_table_is_drawn_from_its_csv(sweep):
    run, folder = sweep
    picture = folder / 'rows.png'
    done = run(f'--picture={picture}')
    assert done.returncode == 1
    assert 'has no draw(rows)' in done.stderr
    words = ['launch/sweep.py', '--table=experiments/memory_table.py', '--workdir=unused', f'--picture={picture}']
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b'\x89PNG')
    words.append(f'--csv={folder / "none.csv"}')
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'has no rows to show' in done.stderr


@pytest.mark.parametrize(
    ('table', 'document'),
    [
        ('memory_table', 'README.md'),
        ('memory_anchoring', 'BUILD_NOTES.md'),
        ('drift', 'BUILD_NOTES.md'),
        ('masked_memory', 'BUILD_NOTES.md'),
    ],
)
def test_the_documents_have_what_the_tables_measured(table, document):
    words = ['launch/sweep.py', f'--table=experiments/{table}.py', '--workdir=unused', '--summary']
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('\n') >= 10
    assert done.stdout in (ROOT / document).read_text(), f'{" ".join(words)} prints another table than {document} has'
