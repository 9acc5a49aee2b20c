"""The package's declarations, and the script that makes the environment on a bare machine."""

import ast
import hashlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import urllib.error

import pytest

from launch import environment

ROOT = pathlib.Path(__file__).parent.parent


def requirements() -> dict[str, list[str]]:
    """What setup.py asks for: 'core', and each extra."""
    values = {}
    for node in ast.parse((ROOT / 'setup.py').read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ('REQUIRES', 'EXTRAS'):
            values[node.targets[0].id] = ast.literal_eval(node.value)
    return {'core': values['REQUIRES'], **values['EXTRAS']}


def declared(*lists: str) -> set[str]:
    """Names of the distributions in these lists of setup.py."""
    return {plain(re.split(r'[\[<>=]', r)[0]) for name in lists for r in requirements()[name]}


def plain(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def third_party(folder: str) -> set[frozenset[str]]:
    """What the files of a folder import, each as the distributions that bring it."""
    owners = importlib.metadata.packages_distributions()
    found = set()
    for path in (ROOT / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            tops = {name.split('.')[0] for name in names} - set(sys.stdlib_module_names)
            found |= {frozenset(map(plain, owners.get(top, [top]))) for top in tops}
    local = {'worldmodels', 'experiments', 'launch', 'tests', *(plain(p.stem) for p in (ROOT / 'tests').glob('*.py'))}
    return {owner for owner in found if not owner & local}


@pytest.mark.parametrize(
    ('folder', 'lists'),
    [
        ('worldmodels', ('core', 'worlds', 'data')),
        ('experiments', ('core',)),
        ('launch', ('core',)),
        ('tests', ('core', 'worlds', 'data', 'dev')),
    ],
)
def test_what_is_imported_is_declared(folder, lists):
    missing = [sorted(owners) for owners in third_party(folder) if not owners & declared(*lists)]
    assert not missing


def test_package_is_installed_as_declared():
    installed = importlib.metadata.distribution('worldmodels')
    assert installed.metadata['Requires-Python'] == '>=3.11'
    assert set(installed.metadata.get_all('Provides-Extra')) == {'worlds', 'data', 'gpu', 'tpu', 'dev'}
    names = {plain(re.split(r'[\[<>=; ]', r)[0]) for r in installed.requires if 'extra ==' not in r}
    assert names == declared('core')


def test_every_requirement_has_both_ends():
    for name, asked in requirements().items():
        for requirement in asked:
            assert re.search(r'>=[\d.]+,<[\d.]+$', requirement), f'{name}: {requirement}'


def test_newest_final_pip_is_chosen():
    digest = 'a' * 64
    page = f"""
        <a href="../../packages/pip-9.0.1-py3-none-any.whl#sha256={digest}">old</a>
        <a href="../../packages/pip-26.3-py3-none-any.whl#sha256={digest}" data-requires-python="&gt;=3.10">newest</a>
        <a href="../../packages/pip-27.0b1-py3-none-any.whl#sha256={digest}">not final</a>
        <a href="../../packages/pip-26.3.tar.gz#sha256={digest}">not a wheel</a>"""
    address, found = environment.pip_wheel_url(page, 'https://index.example/simple/pip/')
    assert address == 'https://index.example/packages/pip-26.3-py3-none-any.whl'
    assert found == digest


def test_index_without_pip_is_one_sentence():
    with pytest.raises(environment.Failed, match=r'no pip wheel was found at https://index\.example/'):
        environment.pip_wheel_url('<html></html>', 'https://index.example/')


def test_broken_python_has_no_version(tmp_path):
    shim = tmp_path / 'python3.12'
    shim.write_text('#!/bin/sh\nexit 127\n')
    shim.chmod(0o755)
    assert environment.version_of(shim) is None
    assert environment.version_of(tmp_path / 'missing') is None
    assert environment.version_of(sys.executable) == sys.version_info[:2]


def test_old_python_looks_for_a_newer_one(monkeypatch):
    monkeypatch.setattr(environment.sys, 'version_info', (3, 9, 2))
    monkeypatch.setattr(environment.shutil, 'which', lambda name: f'/bin/{name}' if name == 'python3.11' else None)
    monkeypatch.setattr(environment, 'version_of', lambda path: (3, 11))
    assert environment.find_python() == '/bin/python3.11'
    monkeypatch.setattr(environment, 'version_of', lambda path: None)
    with pytest.raises(environment.Failed, match=r'Python 3\.11 or later is needed, and this machine has 3\.9\.2'):
        environment.find_python()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The script's paths, in an empty folder."""
    venv = tmp_path / '.venv'
    for name, value in {'VENV': venv, 'PYTHON': venv / 'bin' / 'python', 'STAMP': venv / 'installed.txt'}.items():
        monkeypatch.setattr(environment, name, value)
    return venv


def test_second_run_does_nothing_until_what_is_wanted_changes(elsewhere, monkeypatch):
    calls = []

    def make(python):
        (elsewhere / 'bin').mkdir(parents=True)
        (elsewhere / 'bin' / 'python').symlink_to(python)
        calls.append('make')

    monkeypatch.setattr(environment, 'make_venv', make)
    monkeypatch.setattr(environment, 'install', lambda: calls.append('install'))
    assert environment.main() == 0
    assert environment.main() == 0
    assert calls == ['make', 'install']
    monkeypatch.setattr(environment, 'EXTRAS', 'dev')
    assert environment.main() == 0
    assert calls == ['make', 'install', 'install']


def test_failed_install_leaves_no_stamp(elsewhere, monkeypatch, capsys):
    def fail():
        raise environment.Failed('the index is away.')

    monkeypatch.setattr(environment, 'make_venv', lambda python: elsewhere.mkdir())
    monkeypatch.setattr(environment, 'install', fail)
    assert environment.main() == 1
    assert capsys.readouterr().err == 'environment: the index is away.\n'
    assert not environment.STAMP.exists()


def no_pip_in_python(command, **_):
    """As on Debian: neither ensurepip nor a venv with pip in it."""
    bare = '--without-pip' in command
    return subprocess.CompletedProcess(command, 0 if bare else 1)


def test_python_without_ensurepip_gets_pip_from_the_index(elsewhere, monkeypatch):
    fetched = []
    monkeypatch.setattr(environment.subprocess, 'run', no_pip_in_python)
    monkeypatch.setattr(environment, 'fetch_pip', lambda: fetched.append(True))
    environment.make_venv(sys.executable)
    assert fetched


def test_no_pip_anywhere_names_the_package_to_install(elsewhere, monkeypatch):
    def away():
        raise urllib.error.URLError('no route')

    monkeypatch.setattr(environment.subprocess, 'run', no_pip_in_python)
    monkeypatch.setattr(environment, 'fetch_pip', away)
    monkeypatch.setattr(environment, 'version_of', lambda python: (3, 11))
    monkeypatch.setattr(environment.shutil, 'which', lambda name: None)
    with pytest.raises(environment.Failed, match=r'no route.*sudo apt-get install python3\.11-venv'):
        environment.make_venv('/usr/bin/python3')


class Answer:
    def __init__(self, content):
        self.content = content

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def read(self):
        return self.content


def test_pip_with_another_checksum_is_refused(elsewhere, monkeypatch):
    page = f'<a href="pip-26.3-py3-none-any.whl#sha256={hashlib.sha256(b"right").hexdigest()}">'
    answers = iter([Answer(page.encode()), Answer(b'wrong')])
    monkeypatch.setattr(environment.urllib.request, 'urlopen', lambda *_, **__: next(answers))
    with pytest.raises(environment.Failed, match='does not have the checksum'):
        environment.fetch_pip()
