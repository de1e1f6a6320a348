"What a user's type checker sees, in the wheel and in an editable install: whole classes, explicit exports, no Any."
import re, shutil, subprocess, sys, venv
from pathlib import Path
import pytest
import torch
from test_wheel import wheel  # noqa: F401 (a fixture)

ROOT = Path(__file__).resolve().parent.parent

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


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "The Python of an environment that has the wheel, and all else from the environment that runs the tests"
    env = tmp_path_factory.mktemp('installed')/'env'
    venv.create(env, with_pip=False)
    pip = [sys.executable, '-m', 'pip', '-q', '--python', env/'bin'/'python', 'install', '--no-deps', '--no-index']
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    site = next(env.glob('lib/python*/site-packages'))
    (site/'others.pth').write_text(str(Path(torch.__file__).parent.parent))
    return env/'bin'/'python'


def mypy(python, *files):
    options = ['--strict', '--config-file=', '--cache-dir', ROOT/'.mypy_cache', '--python-executable', python]
    return [sys.executable, '-m', 'mypy', *options, *files]

def pyright(python, *files): return [sys.executable, '-m', 'pyright', '--pythonpath', python, *files]

needs_node = pytest.mark.skipif(not shutil.which('node'), reason='pyright needs node')
CHECKERS = [mypy, pytest.param(pyright, marks=needs_node)]


@pytest.mark.parametrize('checker', CHECKERS, ids=['mypy', 'pyright'])
@pytest.mark.parametrize('how', ['editable', 'wheel'])
def test_a_users_script_is_understood(how, checker, request, tmp_path):
    "A script that uses the library as it should be used has no errors, and each wrong use has one, at its line"
    python = Path(sys.executable) if how == 'editable' else request.getfixturevalue('installed')
    (tmp_path/'right.py').write_text(RIGHT)
    (tmp_path/'wrong.py').write_text(HEAD + '\n'.join(WRONG) + '\n')
    r = subprocess.run(checker(python, 'right.py', 'wrong.py'), cwd=tmp_path, capture_output=True, text=True)
    errors = re.findall(r'(\w+)\.py:(\d+):.*error.*', r.stdout)
    assert errors == [('wrong', str(line)) for line in range(2, 2 + len(WRONG))], r.stdout + r.stderr
    found = re.split(r'wrong\.py:\d+:', r.stdout.replace('wrong.py:3: note', ''))[1:]
    for text, kind in zip(found, WRONG.values()): assert re.search(kind, text)
