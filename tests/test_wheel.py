"""The built wheel in an empty environment with its runtime dependencies: what a user gets, and no developer's tool.

Installing torch again would take 5 GB, so the environment is new and the dependencies in it are links: exactly those
packages that the wheel requires, and what they require, from the environment that runs the tests.
"""
import json, os, shutil, subprocess, sys, venv, zipfile
from functools import partial
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
    d = tmp_path_factory.mktemp('wheel')
    shutil.copytree(ROOT/'distill', d/'src'/'distill', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/f, d/'src')
    options = ['-q', '--no-deps', '--no-build-isolation', '-w', d]
    r = subprocess.run([sys.executable, '-m', 'pip', 'wheel', *options, d/'src'], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return next(d.glob('*.whl'))


def requirements(wheel):
    "What a wheel requires, without extras"
    with zipfile.ZipFile(wheel) as z:
        name = next(n for n in z.namelist() if n.endswith('/METADATA'))
        lines = z.read(name).decode().splitlines()
    needs = [line.partition(': ')[2] for line in lines if line.startswith('Requires-Dist:')]
    return [n for n in needs if 'extra ==' not in n]


@pytest.fixture(scope='module')
def place(wheel, tmp_path_factory):
    "Runs a command from an empty folder, in an environment with the wheel and links to what it requires"
    d = tmp_path_factory.mktemp('empty')
    venv.create(d/'env', with_pip=False)
    python = d/'env'/'bin'/'python'
    code = 'import site; print(site.getsitepackages()[0])'
    site = Path(subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip())
    for dist in required(requirements(wheel)).values():
        for top in {f.parts[0] for f in dist.files or [] if f.parts[0] not in ('..', '__pycache__')}:
            if not (site/top).exists(): os.symlink(dist.locate_file(top), site/top)
    pip = [sys.executable, '-m', 'pip', '-q', '--python', python]
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', wheel], check=True, capture_output=True)
    home = d/'home'
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'DISTILL'))} | dict(HOME=str(home))
    run = partial(subprocess.run, cwd=home, env=env, capture_output=True, text=True, timeout=300)
    return lambda name, *arguments: run([d/'env'/'bin'/name, *arguments])


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split('/')[0].split('-')[0] for n in names} == {'distill'}
    assert 'distill/py.typed' in names
    modules = {f.relative_to(ROOT).as_posix() for f in (ROOT/'distill').rglob('*.py')}
    assert modules <= set(names)


def test_no_developer_tool_is_needed(place):
    code = '''import importlib, importlib.util, pkgutil, distill
tools = 'nbdev execnb pytest jupyterlab smalldocs playwright mypy pyright'.split()
assert not [m for m in tools if importlib.util.find_spec(m)]
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
