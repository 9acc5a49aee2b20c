"""The package, what it needs, and the extras. `make env` installs `.[worlds,data,dev]` into .venv."""

import pathlib

from setuptools import find_namespace_packages, setup

# Upper ends are the next release that is allowed to break us; BUILD_NOTES.md names the versions tested.
REQUIRES = [
    'absl-py>=2.1,<3',
    'array_record>=0.8,<0.9',
    'chex>=0.1.90,<0.2',
    'flax>=0.12,<0.13',
    'grain>=0.2.15,<0.3',
    'jax>=0.10,<0.12',
    'jinja2>=3.1,<4',
    'matplotlib>=3.10,<4',
    'ml_collections>=1.1,<2',
    'numpy>=2.2,<3',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12,<0.13',
    'pillow>=11,<14',
    'rich>=14,<16',
    'scipy>=1.14,<2',
    'tensorboardX>=2.6.4,<3',
    'tensorflow-datasets>=4.9.10,<5',
]

EXTRAS = {
    'worlds': [
        'ale-py>=0.11,<0.13',
        'craftax>=1.6,<2',
        'crafter>=1.8,<2',
        'gymnasium>=1.1,<2',
        'gymnax>=1.0,<2',
        'navix>=0.7.4,<0.8',  # the next release, 4.0, is for Python 3.12 and later only
        'xminigrid>=0.9,<1',
    ],
    'data': ['av>=14,<17', 'minari[hdf5]>=0.5.3,<0.6'],  # videos; Minari's datasets, which lie in HDF5
    'gpu': ['jax[cuda12]>=0.10,<0.12'],
    'tpu': ['jax[tpu]>=0.10,<0.12'],
    'dev': ['hypothesis>=6.140,<7', 'pdoc>=15,<17', 'pytest>=8.4,<10', 'pytest-xdist>=3.8,<4', 'ruff>=0.14,<0.18'],
}

setup(
    name='worldmodels',
    version='0.1.0',
    description='Train, run and examine world models, in JAX and Flax',
    long_description=(pathlib.Path(__file__).parent / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=find_namespace_packages(include=['worldmodels', 'worldmodels.*', 'experiments', 'launch']),
    package_data={'worldmodels.evaluation': ['*.html', '*.j2', '*.css', '*.js']},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
