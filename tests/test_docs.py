"Docstrings list every parameter; what a tutorial shows is what its code gives, to the byte: text, images and sounds."
import importlib, inspect, os, pkgutil, shutil, subprocess, sys
from dataclasses import is_dataclass
from pathlib import Path
import distill
from conftest import ELSEWHERE
from distill._docs import parameter_help, parameters
from docstrings import documented

ROOT = Path(__file__).resolve().parent.parent

PAGE = '''
@dataclass(frozen=True)
class Config:
    "Settings"
    rate: int = 48_000   # Hz
    # a text that is too long for the line
    # of its parameter
    names: list[str] = field(default_factory=list)
    _own: int = 0        # not for users

    def load(
        self,
        x: Tensor,       # (b,t)
        *parts: str,     # such as "a\\n"
    ) -> Path:           # where it is
        return Path()

def shape(x): # (b,t) -> (b,f)
    "One line"
'''

MODULE = r'''
@dataclass(frozen=True)
class Config:
    """Settings

    Parameters
    ----------
    rate : int
        Hz
    names : list[str]
        a text that is too long for the line of its parameter
    """
    rate: int = 48_000
    names: list[str] = field(default_factory=list)
    _own: int = 0        # not for users

    def load(
        self,
        x: Tensor,       # (b,t)
        *parts: str,
    ) -> Path:
        """Parameters
        ----------
        x : Tensor
            (b,t)
        *parts : str
            such as "a\\n"

        Returns
        -------
        Path
            where it is
        """
        return Path()

def shape(x): # (b,t) -> (b,f)
    "One line"
'''


def test_comments_beside_parameters_move_into_docstrings():
    assert documented(PAGE) == MODULE.rstrip('\n')


def public():
    "Every function, class and method of the package that says what its parameters mean"
    for m in pkgutil.walk_packages(distill.__path__, 'distill.'):
        if m.name.rpartition('.')[2].startswith('_'): continue
        mod = importlib.import_module(m.name)
        mine = [x for x in vars(mod).values() if getattr(x, '__module__', '') == m.name]
        for x in mine + [f for c in mine if inspect.isclass(c) for f in vars(c).values() if inspect.isfunction(f)]:
            if '\nParameters\n---' in (inspect.getdoc(x) or '') and not x.__name__.startswith('_'): yield m.name, x


def test_docstrings_list_the_parameters_there_are():
    "All of them, in their order; a dataclass made from another lists the fields that it adds"
    found = list(public())
    assert len(found) > 100
    for module, x in found:
        taken = [p for p in inspect.signature(x).parameters if p not in ('self', 'cls')]
        named = [p.lstrip('*') for p in parameters(inspect.getdoc(x)) if p != 'return']
        inherits = is_dataclass(x) and is_dataclass(x.__base__)
        assert named == (taken[-len(named):] if inherits else taken), f'{module}.{x.__qualname__}'


def test_parameter_help_reads_what_help_shows_without_importing():
    for module, x in public():
        if '<locals>' in x.__qualname__: continue
        assert parameter_help(f'{module}.{x.__qualname__}') == parameters(inspect.getdoc(x))
    code = """import sys
from distill._docs import parameter_help
print(parameter_help('distill.generation.sounds.generate')['seed'], 'torch' in sys.modules)"""
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert r.stdout.endswith(' False\n') and len(r.stdout) > 20


def test_help_and_a_question_mark_say_what_the_package_is_and_every_parameter():
    doc = inspect.getdoc(distill)
    for name in ('train_model', 'generate', 'load_model', 'LibraryPanel', 'UserError'): assert name in doc
    assert all(parameter_help('distill.generation.sounds.generate').values())
    for lazy in ('generate', 'Model', 'Recipe', 'train_model'): assert inspect.getdoc(getattr(distill, lazy))


def run_again(page, folder):
    "The bytes of a page, executed anew by the tool that made it, in another folder"
    folder.mkdir()
    f = shutil.copy(ROOT/'nbs'/page, folder)
    env = {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'}
    env |= dict(IN_TEST='1', OMP_NUM_THREADS='1')
    env |= dict(DISTILL_MODELS=str(folder/'models'), DISTILL_CACHE=str(folder/'cache'))
    command = [sys.executable, ROOT/'tools'/'run_nbs.py', '--one', f]
    r = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert r.returncode == 0, r.stderr
    return Path(f).read_bytes()


def test_a_tutorial_repeats_to_the_byte(tmp_path, record_property):
    "On a machine like the one that made it, one run gives the page itself; elsewhere (other arithmetic) two runs agree"
    page, = ELSEWHERE
    once = run_again(page, tmp_path/'once')
    assert b'image/webp' in once and b'<audio' in once
    as_kept = once == (ROOT/'nbs'/page).read_bytes()
    how = 'equal to the one in the repository' if as_kept else 'other digits than in the repository; two runs compared'
    record_property('figure', f'{page}: {how}')
    assert as_kept or once == run_again(page, tmp_path/'again')
