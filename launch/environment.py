"""Makes the project's own environment: a virtual environment in .venv with everything in it.

Needs nothing but Python 3.11 or later and a package index: where Python comes without the pip that venv installs (as on
Debian and Ubuntu), pip is fetched from the index. Does nothing when .venv is already what setup.py asks for.

    python3 launch/environment.py
"""

# Standard library only, and syntax that an older Python can read: it must live to say that it is too old.
import hashlib
import html
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STAMP = VENV / 'installed.txt'
EXTRAS = 'worlds,data,dev'
OLDEST = (3, 11)
INDEX = 'https://pypi.org/simple'


class Failed(Exception):
    """One sentence for the person at the terminal."""


def version_of(python):
    """(major, minor) of an interpreter, or None when it does not run (a broken link, a shim with nothing behind it)."""
    try:
        command = [str(python), '-c', 'import sys; print(*sys.version_info[:2])']
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(word) for word in words)


def find_python():
    """The interpreter to build on: the one running, else the first new enough one on the path."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for name in ('python3.12', 'python3.11', 'python3.13', 'python3.14'):
        path = shutil.which(name)
        version = version_of(path) if path else None
        if version and version >= OLDEST:
            return path
    given = '.'.join(map(str, sys.version_info[:3]))
    raise Failed(
        f'Python 3.11 or later is needed, and this machine has {given}; install it (on Debian and Ubuntu: '
        'apt-get install python3.11, or python3.12).'
    )


def pip_wheel_url(page, base):
    """Address and sha256 (or '') of the newest final pip on an index page of the 'simple' kind."""
    best = None
    for href in re.findall(r'href\s*=\s*["\']([^"\']+)["\']', page):
        address = urllib.parse.urljoin(base, html.unescape(href))
        found = re.search(r'/pip-(\d+(?:\.\d+)*)-py3-none-any\.whl(?:#sha256=([0-9a-f]{64}))?$', address)
        if found:
            version = tuple(map(int, found.group(1).split('.')))
            best = max(best or (version, '', ''), (version, address.split('#')[0], found.group(2) or ''))
    if best is None or not best[1]:
        raise Failed(f'no pip wheel was found at {base}; set PIP_INDEX_URL to a Python package index.')
    return best[1], best[2]


def fetch_pip():
    """Put pip into .venv from the package index; a wheel is a zip file that Python runs in place."""
    base = os.environ.get('PIP_INDEX_URL', INDEX).rstrip('/') + '/pip/'
    with urllib.request.urlopen(base, timeout=60) as answer:
        page = answer.read().decode()
    address, digest = pip_wheel_url(page, base)
    with urllib.request.urlopen(address, timeout=120) as answer:
        wheel = answer.read()
    if digest and hashlib.sha256(wheel).hexdigest() != digest:
        raise Failed(f'the pip wheel from {address} does not have the checksum that the index names.')
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / address.rsplit('/', 1)[1]
        path.write_bytes(wheel)
        pip = [str(PYTHON), str(path / 'pip'), 'install', '--quiet', '--no-deps', str(path)]
        subprocess.run(pip, check=True)


def make_venv(python):
    """A virtual environment with pip in it, by the first way that works here."""
    if VENV.exists():
        shutil.rmtree(VENV)
    if subprocess.run([python, '-c', 'import ensurepip, venv'], capture_output=True).returncode == 0:
        if subprocess.run([python, '-m', 'venv', str(VENV)], capture_output=True).returncode == 0:
            return
        shutil.rmtree(VENV, ignore_errors=True)
    problem = 'Python comes without its venv module'
    if subprocess.run([python, '-m', 'venv', '--without-pip', str(VENV)], capture_output=True).returncode == 0:
        try:
            return fetch_pip()
        except (Failed, OSError, subprocess.CalledProcessError) as error:
            problem = str(error)
            shutil.rmtree(VENV, ignore_errors=True)
    package = 'python{}.{}-venv'.format(*version_of(python))
    if hasattr(os, 'geteuid') and os.geteuid() == 0 and shutil.which('apt-get'):
        print(f'environment: installing {package} with apt-get ...', flush=True)
        quiet = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
        subprocess.run(['apt-get', 'update', '-qq'], env=quiet, stdout=subprocess.DEVNULL)
        subprocess.run(['apt-get', 'install', '-y', '-qq', package], env=quiet, stdout=subprocess.DEVNULL)
        if subprocess.run([python, '-m', 'venv', str(VENV)], capture_output=True).returncode == 0:
            return
    raise Failed(f'no pip could be had ({problem}); install it by: sudo apt-get install {package}')


def install():
    """Resolve and install once. pip's long log is shown only when it failed."""
    command = [
        str(PYTHON),
        '-m',
        'pip',
        'install',
        '--disable-pip-version-check',
        '--prefer-binary',
        '--progress-bar',
        'off',
    ]
    command += ['--editable', f'{ROOT}[{EXTRAS}]']
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise Failed('pip could not install the project; its last words are above. The same command tries again.')


def wanted():
    """What the stamp must say for .venv to be up to date: what is asked for, and where."""
    asked = hashlib.sha256((ROOT / 'setup.py').read_bytes() + EXTRAS.encode()).hexdigest()
    return f'{asked}\n{ROOT}\n'


def main():
    """Returns the exit status."""
    if STAMP.exists() and STAMP.read_text() == wanted() and PYTHON.exists():
        return 0
    start = time.time()
    try:
        have = version_of(PYTHON) if PYTHON.exists() else None
        if not have or have < OLDEST:
            python = find_python()
            print(f'environment: making .venv with {python} ...', flush=True)
            make_venv(python)
        print('environment: installing the packages named in setup.py (about 1.5 GB) ...', flush=True)
        install()
    except Failed as error:
        print(f'environment: {error}', file=sys.stderr)
        return 1
    STAMP.write_text(wanted())
    print(f'environment: ready after {time.time() - start:.0f} s.', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
