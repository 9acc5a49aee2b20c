"""The shape of the repository: arrows between its parts, sizes of its files, what its documents promise."""

import ast
import functools
import importlib.util
import pathlib
import re
import sys
import tomllib

import pytest

from worldmodels.training import config as configs

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(p for d in ('worldmodels', 'experiments', 'launch', 'tests') for p in (ROOT / d).rglob('*.py'))
EXPERIMENTS = [p for p in sorted((ROOT / 'experiments').glob('*.py')) if 'def get_config(' in p.read_text()]

PARTS = {'heart', 'action', 'transition', 'memory', 'filter', 'outcome', 'control'}
BASE = {'types', 'rng'}
MODEL = BASE | PARTS | {'nn', 'remat', 'world_model', 'build', 'rollout', 'sizes'}
# Who may import whom, inside the package. A transition is scored against the filter's posterior, latent actions are found in
# the heart's patches; no other part looks sideways.
ARROWS = {
    'types': set(),
    'rng': BASE,
    'remat': {'types'},
    'nn': BASE | {'remat'},
    **dict.fromkeys(PARTS, BASE | {'nn', 'remat'}),
    'transition': BASE | {'nn', 'remat', 'filter'},
    'action': BASE | {'nn', 'remat', 'heart'},
    'sizes': set(),
    'imports': set(),
    'lock': set(),
    'ranges': set(),
    'world_model': BASE | PARTS,
    'build': BASE | PARTS | {'nn', 'world_model', 'imports', 'ranges'},
    'interaction': BASE,
    'rollout': BASE | PARTS | {'remat', 'world_model', 'interaction'},
    'worlds': BASE | {'imports'},
    'data': BASE | {'worlds', 'control', 'interaction', 'lock'},
    'training': MODEL | {'data', 'worlds', 'lock'},
    'evaluation': MODEL | {'data', 'worlds', 'training', 'interaction'},
}
# The one world that is a model.
EXCEPTIONS = {'worlds/dream.py': MODEL}


def imports_of(path: pathlib.Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def part_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / 'worldmodels').with_suffix('').parts[0]


@pytest.mark.parametrize('part', sorted(ARROWS))
def test_parts_import_along_the_arrows(part):
    for path in SOURCES:
        if not path.is_relative_to(ROOT / 'worldmodels') or part_of(path) != part:
            continue
        name = str(path.relative_to(ROOT / 'worldmodels'))
        allowed = ARROWS[part] | EXCEPTIONS.get(name, set()) | {part}
        used = {i.split('.')[1] for i in imports_of(path) if i.startswith('worldmodels.')}
        assert used <= allowed, f'{name} imports {sorted(used - allowed)}'


def test_every_part_has_its_arrows():
    parts = {part_of(p) for p in SOURCES if p.is_relative_to(ROOT / 'worldmodels')}
    assert parts - {'__init__'} <= set(ARROWS)


def test_package_imports_neither_experiments_nor_launch_and_nobody_imports_launch():
    for path in SOURCES:
        tops = {name.split('.')[0] for name in imports_of(path)}
        if path.is_relative_to(ROOT / 'worldmodels'):
            assert not tops & {'experiments', 'launch', 'tests'}, path
        elif not path.is_relative_to(ROOT / 'tests'):
            mine = {'launch.command', 'launch.progress', 'launch.stages'} if path.parent.name == 'launch' else set()
            assert {n for n in imports_of(path) if n.split('.')[0] == 'launch'} <= mine, path


def test_every_command_ends_in_the_one_way():
    for path in (ROOT / 'launch').glob('*.py'):
        text = path.read_text()
        if '__main__' in text and path.name != 'environment.py':  # which an older Python must be able to read
            assert 'command.run(main, ' in text, path
        if path.name != 'command.py':
            assert 'app.run' not in text, path


def test_only_one_file_maps_over_devices():
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if name.startswith('worldmodels/') and re.search(r'jax\.(pmap|shard_map)', path.read_text()):
            assert name == 'worldmodels/training/parallel.py', name


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_explained_and_named_for_what_they_hold(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert path.stem not in ('utils', 'util', 'helpers', 'common', 'misc')
    assert not re.search(r'\b(TODO|FIXME|XXX)\b', text) or path == pathlib.Path(__file__)
    if not path.is_relative_to(ROOT / 'tests'):
        assert text.startswith(('"""', 'r"""')), 'a file opens by saying what it is'


@functools.cache
def module_of(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(f'experiment_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_gives_a_valid_config(path):
    module = module_of(path)
    configs.validate(module.get_config())
    assert 'python launch/' in module.__doc__, 'an experiment names its command'


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_refuses_an_argument_it_does_not_know(path):
    with pytest.raises(ValueError, match='nonsense'):
        module_of(path).get_config('nonsense')


def test_readme_names_two_commands_and_the_makefile_has_them():
    readme, makefile = (ROOT / 'README.md').read_text(), (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'^([a-z]+):', makefile, flags=re.MULTILINE))
    named = re.findall(r'^\s*make ([a-z]+)', readme, flags=re.MULTILINE)
    assert named == ['demo', 'test']
    assert set(named) <= targets
    for target in targets - {'help'}:
        assert f'make {target}' in makefile, f'make help does not tell of {target}'


@pytest.mark.parametrize('document', ['README.md', 'BUILD_NOTES.md'])
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text()
    named = set(re.findall(r'\b(?:worldmodels|experiments|launch|tests|docs)/[\w./-]*\w/?', text))
    upper = {n for n in named if 'NAME' in n}
    assert named - upper, 'a document that names no file'
    for name in named - upper:
        assert (ROOT / name).exists(), f'{document} names {name}'


def test_continuous_integration_runs_the_command_of_the_readme():
    script = ROOT / '.ci' / 'run'
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith('make --no-print-directory test')


def test_style_is_configured_for_the_oldest_python():
    style = tomllib.loads((ROOT / 'ruff.toml').read_text())
    assert style['target-version'] == 'py311'
    assert sys.version_info >= (3, 11)
