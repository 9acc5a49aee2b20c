"""The index of the documentation: every part has a page, a formula that its docstring states, and a source."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from worldmodels import worlds

ROOT = pathlib.Path(__file__).parent.parent
INDEX = ROOT / 'docs' / 'README.md'
PACKAGES = ('heart', 'action', 'transition', 'memory', 'control')
ALONE = ('world_model', 'filter', 'outcome', 'rollout', 'nn/infill', 'training/losses', 'evaluation/frames')


def rows() -> list[tuple[str, str, str, str]]:
    """(name of the page, its file, formula, source) of every row of the index; a family of worlds has no formula."""
    row = r'^\| .+? \| \[(.+?)\]\((.+?)\) \| (?:\$(.+?)\$ \| )?(.+?) \|$'
    found = re.findall(row, INDEX.read_text(), re.MULTILINE)
    assert len(found) == INDEX.read_text().count('](../worldmodels/'), 'every row is read'
    return found


def docstring(path: pathlib.Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ''


def plain(formula: str) -> str:
    """A formula without what only spaces or escapes it."""
    return re.sub(r'\\,|\s', '', formula).replace('\\|', '|')


@pytest.mark.parametrize('row', rows(), ids=lambda row: row[0])
def test_a_page_states_the_formula_and_the_source_of_its_row(row):
    name, file, formula, source = row
    path = (INDEX.parent / file).resolve()
    assert path.is_file()
    assert name == str(path.relative_to(ROOT / 'worldmodels').with_suffix('')).replace('/', '.').removesuffix(
        '.__init__'
    )
    said = docstring(path)
    assert plain(formula) in plain(said), f'{name} does not state {formula}'
    named = re.findall(r'\d{4}\.\d{4,5}|\b1[6-9]\d\d\b|\b20[0-2]\d\b', source)
    assert named, 'a source is an arXiv number or a year'
    for word in named:
        assert word in said, f'{name} does not name {word}'


def test_every_part_has_its_row():
    files = [p for package in PACKAGES for p in (ROOT / 'worldmodels' / package).glob('*.py')]
    files += [ROOT / 'worldmodels' / f'{name}.py' for name in ALONE]
    assert len(files) > 20
    families = [ROOT / f'{module.replace(".", "/")}.py' for module in worlds.FAMILIES.values()]
    assert all(formula for _, file, formula, _ in rows() if (INDEX.parent / file).resolve() not in families)
    files += families
    listed = {(INDEX.parent / file).resolve() for _, file, _, _ in rows()}
    assert {str(p.relative_to(ROOT)) for p in files} <= {str(p.relative_to(ROOT)) for p in listed}


def test_every_howto_is_linked_and_every_link_leads_somewhere():
    howtos = {f'howto/{p.name}' for p in (ROOT / 'docs' / 'howto').glob('*.md')}
    assert howtos
    for document, prefix in ((INDEX, ''), (ROOT / 'README.md', 'docs/')):
        links = set(re.findall(r'\]\(([^)#:]+)\)', document.read_text()))
        assert {prefix + name for name in howtos} <= links
        for link in links:
            assert (document.parent / link).exists(), f'{document.name} links {link}'


def test_pages_are_built_without_warnings(tmp_path):
    """By the very command of `make docs`, for somebody who never drew a figure before."""
    recipe = re.search(r'^docs: env\n\t@(.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1]
    assert ' -o docs/api ' in recipe
    command = recipe.replace('$(PYTHON)', f'{sys.executable} -W error::UserWarning').replace('docs/api', str(tmp_path))
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'MPLCONFIGDIR': str(tmp_path / 'fonts')}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'Warn' not in done.stdout + done.stderr, done.stderr
    for name, file, formula, _ in rows():
        page = tmp_path / 'worldmodels' / f'{name.replace(".", "/")}.html'
        assert page.is_file(), f'{file} has no page'
        text = page.read_text().replace('&#x27;', "'").replace('&gt;', '>').replace('&amp;', '&')
        assert plain(formula) in plain(text), f'the page of {name} does not show {formula}'
