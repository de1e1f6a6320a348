"""One `pytest` for both kinds of test: tests/test_*.py, and every notebook under nbs/.

    pytest -n 2                 all of it, over two processes
    pytest nbs/200_features.mel.ipynb     one page;  pytest -k persistence works too
    pytest --nb-flags "slow"    also run cells marked `#| slow` (settings.ini: tst_flags)
    pytest --nb-cells           run exported cells as written, as nbdev_test does

A page runs as `nbdev_test` runs it, but for one thing: its exported cells are not run again; the
names come from the module they were exported to. So what is tested is the package as shipped, a page
that was not exported shows up, and `--cov=distill` counts what the pages exercise.
Every page and every test has folders of its own for models and cache: none touches the user's.
"""
from __future__ import annotations
import atexit, contextlib, json, os, sys, tempfile, traceback
from pathlib import Path
import pytest

ROOT = Path(__file__).parent
NBS = ROOT/'nbs'


@contextlib.contextmanager
def own_folders(**env):
    "Temporary folders for models, cache and IPython's profile; the environment is as before at the end"
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as tmp:
        own = dict(DISTILL_MODELS=f'{tmp}/models', DISTILL_CACHE=f'{tmp}/cache', IPYTHONDIR=f'{tmp}/ipython')
        os.environ.update(env, **own)
        try: yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(autouse=True, scope='module')
def _own_folders():
    with own_folders(): yield


@pytest.fixture
def unnamed(monkeypatch):
    "Sliders without names, for tests of something else: naming takes longer than a short training"
    monkeypatch.setattr('distill.pipeline.name_sliders', lambda model, **_: model.analysis)


def pytest_addoption(parser):
    g = parser.getgroup('notebooks')
    g.addoption('--nb-flags', default='', help='test flags to run that settings.ini skips, e.g. "slow gpu"')
    g.addoption('--nb-cells', action='store_true', help='run exported cells themselves, not the exported module')


def pytest_terminal_summary(terminalreporter):
    "What tests measured (`record_property('figure', ...)`), and what could not run"
    import jlab
    reports = [r for rs in terminalreporter.stats.values() for r in rs]
    properties = [p for r in reports for p in getattr(r, 'user_properties', ())]
    for figure in sorted({v for k, v in properties if k == 'figure'}): terminalreporter.write_line(figure)
    if jlab.missing: terminalreporter.write_line(f'The browser tests did not run: {jlab.missing}', yellow=True)


# A page that a test runs from top to bottom: it runs as a page of its own only where it is asked for
ELSEWHERE = {'tutorials/your_first_model.ipynb': 'tests/test_docs.py'}


def pytest_collect_file(parent, file_path):
    if file_path.suffix != '.ipynb' or NBS not in file_path.parents: return None
    page = file_path.relative_to(NBS)
    if any(p[0] in '_.' for p in page.parts): return None
    asked = {Path(a.partition('::')[0]).absolute() for a in parent.config.args}
    if page.as_posix() in ELSEWHERE and file_path not in asked: return None
    return NotebookFile.from_parent(parent, path=file_path)


def pytest_collection_modifyitems(items):
    "Pages from the last to the first: the early ones are short, so processes that share the work end together"
    pages = [i for i in items if isinstance(i, NotebookItem)]
    items[:] = [i for i in items if not isinstance(i, NotebookItem)] + pages[::-1]


class NotebookFile(pytest.File):
    def collect(self): yield NotebookItem.from_parent(self, name='notebook')


class CellError(Exception):
    "A cell that failed: its notebook, number and source"


# Instead of a page's first exported cell; the others are passed over
LOAD = """import importlib as _il; _m = _il.import_module({!r})
globals().update({{k: v for k, v in vars(_m).items() if not k.startswith('__')}})"""


class NotebookItem(pytest.Item):
    def runtest(self):
        with own_folders(IN_TEST='1'): self.run_cells()    # IN_TEST: an nbdev_export() in a page does nothing

    def run_cells(self):
        from execnb.shell import CaptureShell
        from fastcore.xtras import working_directory
        from nbdev.config import get_config
        from run_nbs import directives, group

        with working_directory(ROOT): cfg = get_config()
        flags = set(cfg.tst_flags.split())
        want = {'plain', *self.config.getoption('--nb-flags').split()}
        nb = json.loads(self.path.read_text(encoding='utf-8'))
        cells = [(i, ''.join(c['source'])) for i, c in enumerate(nb['cells'], 1) if c['cell_type'] == 'code']
        exp = next((d.split()[1] for _, src in cells for d in directives(src) if d.startswith('default_exp')), None)
        load = '' if not exp or self.config.getoption('--nb-cells') else LOAD.format(f'{cfg.lib_path.name}.{exp}')
        if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
        sh = CaptureShell(self.path)
        atexit.unregister(sh.atexit_operations)            # it would write a history into a folder that is gone by then
        with working_directory(self.path.parent):
            for i, src in cells:
                if group(src, flags) not in want: continue
                is_exported = {'export', 'exports', 'exporti'} & {d.split()[0] for d in directives(src)}
                if load and is_exported: src, load = load, 'pass'
                sh.run(src)
                if sh.exc:
                    tb = ''.join(traceback.format_exception(type(sh.exc), sh.exc, sh.exc.__traceback__))
                    raise CellError(f'{self.path.relative_to(ROOT)}, cell {i}:\n\n{src}\n\n{tb}')

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, CellError) else super().repr_failure(excinfo)

    def reportinfo(self): return self.path, 0, str(self.path.relative_to(ROOT))
