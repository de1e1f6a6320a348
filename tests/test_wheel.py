"""What a user gets: the wheel, built from the source distribution, with its dependencies alone, and its types.

Installing torch again would take gigabytes, so the environment is new and the dependencies in it are links: exactly
those packages that the wheel requires, and what they require, from the environment that runs the tests.
(test_install.py installs them for real.)
"""
import json, os, re, shutil, subprocess, sys, tarfile, venv, zipfile
from functools import partial
from importlib import metadata
from pathlib import Path
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SITE = 'https://github.com/distill-audio/distill'


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


BUILD = """
import os, tarfile
from pathlib import Path
from setuptools import build_meta
sdist = build_meta.build_sdist('..')
os.chdir('..')
with tarfile.open(sdist) as t: t.extractall(filter='data')
os.chdir(sdist.removesuffix('.tar.gz'))
build_meta.build_wheel('..')
"""

def build(folder):
    "Build a source distribution, and from it a wheel; what was said"
    source = folder/'src'
    shutil.copytree(ROOT/'distill', source/'distill', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE'): shutil.copy(ROOT/f, source)
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}     # a warning tells of it
    command = [sys.executable, '-W', 'default', '-c', BUILD]
    r = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout + r.stderr


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A folder with the source distribution and the wheel"
    folder = tmp_path_factory.mktemp('wheel')
    said = build(folder)
    assert not re.findall(r'.*(?:[Ww]arning|deprecated).*', said)
    return folder


@pytest.fixture(scope='module')
def wheel(built): return next(built.glob('*.whl'))


def described(wheel):
    "The metadata of a wheel: the lines of its head, and its description"
    with zipfile.ZipFile(wheel) as z:
        name = next(n for n in z.namelist() if n.endswith('/METADATA'))
        head, _, text = z.read(name).decode().partition('\n\n')
    return head.splitlines(), text


def requirements(wheel):
    "What a wheel requires, without extras"
    needs = [line.partition(': ')[2] for line in described(wheel)[0] if line.startswith('Requires-Dist:')]
    return [n for n in needs if 'extra ==' not in n]


@pytest.fixture(scope='module')
def place(wheel, tmp_path_factory):
    "Runs a command from an empty folder, in an environment with the wheel and links to what it requires"
    d = tmp_path_factory.mktemp('empty')
    venv.create(d/'env', with_pip=False)
    python = d/'env'/'bin'/'python'
    site = next((d/'env').glob('lib/python*/site-packages'))
    for dist in required(requirements(wheel)).values():
        for top in {f.parts[0] for f in dist.files or [] if f.parts[0] not in ('..', '__pycache__')}:
            if not (site/top).exists(): os.symlink(dist.locate_file(top), site/top)
    pip = [sys.executable, '-m', 'pip', '-q', '--python', python]
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', wheel], check=True, capture_output=True)
    home = d/'home'
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'DISTILL'))} | dict(HOME=str(home))
    run = partial(subprocess.run, cwd=home, capture_output=True, text=True, timeout=300)
    return lambda name, *arguments, **more: run([d/'env'/'bin'/name, *arguments], env=env | more)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split('/')[0].split('-')[0] for n in names} == {'distill'}
    assert 'distill/py.typed' in names
    modules = {f.relative_to(ROOT).as_posix() for f in (ROOT/'distill').rglob('*.py')}
    assert modules <= set(names)


def test_the_source_distribution_holds_what_it_is_built_from(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert {'pyproject.toml', 'setup.py', 'README.md', 'LICENSE', 'distill/py.typed'} <= names
    assert not [n for n in names if n.startswith(('nbs', 'tests'))]


def test_the_links_of_the_readme_resolve_outside_the_repository(wheel):
    "On a package index there is no folder around it: every link names a site, and those to ours a file that exists"
    text = described(wheel)[1]
    assert text.lstrip().startswith('<!--') and '# Distill' in text
    links = re.findall(r'\]\(([^)\s]+)\)', text)
    assert len(links) > 20 and all(link.startswith('https://') for link in links)
    ours = [link.removeprefix(f'{SITE}/').split('/', 2) for link in links if link.startswith(f'{SITE}/')]
    assert {kind for kind, _, _ in ours} == {'blob', 'raw'}
    assert not [file for _, _, file in ours if not (ROOT/file.partition('#')[0]).is_file()]


def test_no_developer_tool_is_needed(place):
    code = '''import importlib, importlib.util, pkgutil, distill
tools = 'nbdev execnb pytest jupyterlab smalldocs playwright mypy pyright accelerate av'.split()
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


def test_a_missing_extra_is_named_when_it_is_needed(place):
    r = place('distill', 'demo', '--steps', '1', WORLD_SIZE='2', RANK='0')
    assert r.returncode == 1 and "pip install 'distill[devices]'" in r.stderr, r.stderr

# --- types

RIGHT = '''
from pathlib import Path
from typing import assert_type
import distill
from distill import Corpus, History, Model, ModelLibrary, Recipe, Sound, TrainConfig, UserError
from distill import blend, generate, load_model, morph, reconstruct, report, train_model
from distill.library import ModelEntry
from distill.models.persistence import LoadedModel

def make(folder: Path) -> Sound:
    model = load_model('rain', device='cpu')
    assert_type(model, Model)
    loaded: LoadedModel = model
    lib = ModelLibrary(folder)
    found = lib.search('rain', tags=['wet'])
    assert_type(found, list[ModelEntry])
    print(found[0].name.upper(), loaded.metadata.name.upper(), len(lib.df()))
    sound = generate(model, {'brightness': 5}, seconds=3, seed=7)
    assert_type(sound, Sound)
    sound.save(folder/'rain.wav')
    print(model.generate(Recipe(seconds=2.)).seconds, reconstruct(model, 'a.wav').rate, model.sliders.df())
    return sound

def look(folder: Path) -> None:
    corpus = Corpus(folder)
    print(corpus.df().head(), corpus.seconds + 1, len(corpus))
    history = History()
    print(history.df('rain').head())
    try: train_model(corpus, name='rain', cfg=TrainConfig(seed=1))
    except UserError as e: print(str(e).upper())
    print(report('rain', corpus), morph('rain', 'a.wav', 'b.wav'), blend([('rain', 1.), ('wind', .5)]))

panel = distill.ui.LibraryPanel()
'''

WRONG = {
    "generate('rain', seconds='long')": 'arg-type|reportArgumentType',
    "generate('rain', loudness=3)": 'call-arg|reportCallIssue',
    "load_model('rain').no_such_thing": 'attr-defined|reportAttributeAccessIssue',
    "ModelLibrary('models').search('rain')[0].no_such_thing": 'attr-defined|reportAttributeAccessIssue',
    "Corpus('.').seconds.upper()": 'attr-defined|reportAttributeAccessIssue',
    'Recipe(seed=[])': 'arg-type|reportArgumentType',
}
HEAD = 'from distill import Corpus, ModelLibrary, Recipe, generate, load_model\n'


def test_the_package_has_no_type_errors():
    r = subprocess.run([sys.executable, '-m', 'mypy'], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def mypy(python, *files):
    options = ['--strict', '--config-file=', '--cache-dir', ROOT/'.mypy_cache', '--python-executable', python]
    return [sys.executable, '-m', 'mypy', *options, *files]

def pyright(python, *files): return [sys.executable, '-m', 'pyright', '--pythonpath', python, *files]

needs_node = pytest.mark.skipif(not shutil.which('node'), reason='pyright needs node')
CHECKERS = [mypy, pytest.param(pyright, marks=needs_node)]


@pytest.mark.parametrize('checker', CHECKERS, ids=['mypy', 'pyright'])
@pytest.mark.parametrize('how', ['editable', 'wheel'])
def test_a_users_script_is_understood(how, checker, place, tmp_path):
    "A script that uses the library as it should be used has no errors, and each wrong use has one, at its line"
    python = sys.executable
    if how == 'wheel': python = place('python', '-c', 'import sys; print(sys.executable)').stdout.strip()
    (tmp_path/'right.py').write_text(RIGHT)
    (tmp_path/'wrong.py').write_text(HEAD + '\n'.join(WRONG) + '\n')
    r = subprocess.run(checker(python, 'right.py', 'wrong.py'), cwd=tmp_path, capture_output=True, text=True)
    errors = re.findall(r'(\w+)\.py:(\d+):.*error.*', r.stdout)
    assert errors == [('wrong', str(line)) for line in range(2, 2 + len(WRONG))], r.stdout + r.stderr
    found = re.split(r'wrong\.py:\d+:', r.stdout.replace('wrong.py:3: note', ''))[1:]
    for text, kind in zip(found, WRONG.values()): assert re.search(kind, text)
