"""The built wheel in an empty environment with only its runtime dependencies: what a user gets, and nothing a developer has.

Installing torch again would take 5 GB, so the environment is new and the dependencies in it are links: exactly those packages
that the wheel requires, and what they require, from the environment that runs the tests. nbdev, pytest and the others are not there.
"""
import json, os, subprocess, sys, venv, zipfile
from importlib import metadata
from pathlib import Path
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def required(names, known=None):
    "The distributions that some need, and what these need, without extras"
    known = {} if known is None else known
    for n in names:
        r = Requirement(n)
        if r.marker and not any(r.marker.evaluate(dict(extra=e)) for e in r.extras | {''}): continue
        key = r.name.lower().replace('_', '-')
        if key in known: continue
        known[key] = d = metadata.distribution(r.name)
        required(d.requires or [], known)
    return known


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    import shutil
    d = tmp_path_factory.mktemp('wheel')
    shutil.copytree(ROOT/'distill', d/'src'/'distill', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/f, d/'src')
    r = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', d, d/'src'], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return next(d.glob('*.whl'))


@pytest.fixture(scope='module')
def place(wheel, tmp_path_factory):
    "An environment with the wheel and links to what it requires: a function that runs a command in it, from an empty folder"
    d = tmp_path_factory.mktemp('empty')
    venv.create(d/'env', with_pip=False)
    python = d/'env'/'bin'/'python'
    site = Path(subprocess.run([python, '-c', 'import site; print(site.getsitepackages()[0])'], capture_output=True, text=True, check=True).stdout.strip())
    with zipfile.ZipFile(wheel) as z: needs = [l.partition(': ')[2] for l in z.read(next(n for n in z.namelist() if n.endswith('/METADATA'))).decode().splitlines() if l.startswith('Requires-Dist:')]
    for dist in required([n for n in needs if 'extra ==' not in n]).values():
        for top in {f.parts[0] for f in dist.files or [] if f.parts[0] not in ('..', '__pycache__')}:
            if not (site/top).exists(): os.symlink(dist.locate_file(top), site/top)
    subprocess.run([sys.executable, '-m', 'pip', '-q', '--python', python, 'install', '--no-deps', '--no-index', wheel], check=True, capture_output=True)
    (d/'home').mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'DISTILL'))} | dict(HOME=str(d/'home'))
    return lambda *cmd: subprocess.run([d/'env'/'bin'/cmd[0], *cmd[1:]], cwd=d/'home', env=env, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split('/')[0].split('-')[0] for n in names} == {'distill'}
    assert 'distill/py.typed' in names
    modules = {f.relative_to(ROOT).as_posix() for f in (ROOT/'distill').rglob('*.py')}
    assert modules <= set(names)


def test_no_developer_tool_is_needed(place):
    code = '''import importlib.util, pkgutil, distill
assert not [m for m in ('nbdev', 'execnb', 'pytest', 'jupyterlab', 'smalldocs', 'playwright', 'mypy') if importlib.util.find_spec(m)]
import importlib
for m in pkgutil.walk_packages(distill.__path__, 'distill.'): importlib.import_module(m.name)
for n in distill.__all__: getattr(distill, n)
print('imported')'''
    r = place('python', '-c', code)
    assert r.returncode == 0 and r.stdout == 'imported\n', r.stdout + r.stderr


def test_the_command_works(place):
    assert 'First steps' in place('distill', '--help').stdout
    r = place('distill', 'doctor', '--json')                # trains, saves, loads, generates and writes
    assert r.returncode == 0 and json.loads(r.stdout)['wrong'] == [], r.stdout + r.stderr
    assert place('distill', 'docs').stdout.startswith('https://')
