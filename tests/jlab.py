"""JupyterLab on 127.0.0.1 and a headless Chromium in front of it, for tests of what a person sees.

    with lab(root) as url, browser() as page:
        nb = open_notebook(page, url, 'panel.ipynb'); assert nb.run_all() == []
"""
from __future__ import annotations
import contextlib, importlib.util, json, os, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

NAMES = os.environ.get('CHROMIUM'), 'chromium', 'chromium-browser', 'google-chrome'
CHROMIUM = next(filter(None, map(shutil.which, filter(None, NAMES))), None)
missing = ''
if not CHROMIUM:
    missing = 'no Chromium was found: install it (Debian: apt-get install chromium) or name it in the variable CHROMIUM'
elif not importlib.util.find_spec('playwright'): missing = 'playwright is not installed: pip install -e .[dev]'
SHOTS = Path(os.environ.get('DISTILL_SHOTS', Path(__file__).parent/'shots'))    # screenshots to look at after a run
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required']


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def lab(root: Path, timeout: float = 60):
    "A JupyterLab serving `root`, with its own config and no token; stopped by its process group at the end."
    tmp = Path(tempfile.mkdtemp(prefix='jlab'))
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'MPLBACKEND')}
    folders = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_RUNTIME_DIR='runtime', JUPYTER_DATA_DIR='data',
                   IPYTHONDIR='ipython', JUPYTERLAB_SETTINGS_DIR='user-settings',
                   JUPYTERLAB_WORKSPACES_DIR='workspaces')
    env |= {name: str(tmp/folder) for name, folder in folders.items()}
    settings = {
        'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False),  # both would use the network
        'notebook-extension/tracker': dict(windowingMode='none')}                           # hidden cells stay
    for name, v in settings.items():
        f = tmp/'user-settings'/'@jupyterlab'/f'{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True)
        f.write_text(json.dumps(v))
    port = free_port()
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', f'--port={port}',
           '--ServerApp.port_retries=0', '--IdentityProvider.token=', '--ServerApp.password=',
           '--ServerApp.disable_check_xsrf=True', '--allow-root',
           f'--ServerApp.root_dir={root}', '--expose-app-in-browser', '--LabApp.extension_manager=readonly',
           '--ServerApp.terminals_enabled=False', '--KernelManager.transport=ipc']
    log = open(tmp/'log', 'w')
    p = subprocess.Popen(cmd, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    url = f'http://127.0.0.1:{port}'
    try:
        t = time.time()
        while True:
            try:
                urllib.request.urlopen(url + '/api/status', timeout=2)
                break
            except OSError:
                ended = p.poll() is not None or time.time() - t > timeout
                if ended: raise RuntimeError((tmp/'log').read_text()[-3000:]) from None
                time.sleep(.3)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGTERM)
        try: p.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGKILL)
        log.close()
        shutil.rmtree(tmp, ignore_errors=True)


@contextlib.contextmanager
def browser(width=1280, height=1000, dark=False):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        scheme = 'dark' if dark else 'light'
        page = b.new_context(viewport=dict(width=width, height=height), color_scheme=scheme).new_page()
        page.set_default_timeout(90_000)
        page.errors = []
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        try: yield page
        finally: b.close()


class Notebook:
    def __init__(self, page): self.page = page

    def cmd(self, name: str, **kw):
        "Run a JupyterLab command, as a menu entry does"
        return self.page.evaluate('([n,a]) => window.jupyterapp.commands.execute(n, a).then(()=>null)', [name, kw])

    def _state(self):
        return self.page.evaluate('''() => {
            const page = window.jupyterapp.shell.currentWidget, session = page?.sessionContext;
            const isBusy = cell => cell.model.type === 'code' && cell.model.executionState === 'running';
            return {ready: !!session?.isReady, status: session?.session?.kernel?.status,
                    busy: page ? page.content.widgets.filter(isBusy).length : -1}; }''')

    def wait_idle(self, timeout=60):
        t, calm = time.time(), 0
        while calm < 3:
            s = self._state()
            calm = calm+1 if s['ready'] and s['status'] == 'idle' and not s['busy'] else 0
            if time.time() - t > timeout: raise TimeoutError(f'the kernel did not come to rest: {s}')
            self.page.wait_for_timeout(150)

    def run_all(self, timeout=120):
        self.wait_idle()
        self.cmd('notebook:run-all-cells')
        self.wait_idle(timeout)
        kind = 'data-mime-type="application/vnd.jupyter'
        errs = self.page.locator(f'.jp-OutputArea-output[{kind}.stderr"], .jp-RenderedText[{kind}.error"]')
        return [errs.nth(i).inner_text() for i in range(errs.count())]


def open_notebook(page, url: str, name: str) -> Notebook:
    page.goto(f'{url}/doc/tree/{name}?reset')
    page.wait_for_selector('.jp-NotebookPanel .jp-Cell')
    page.wait_for_function('() => window.jupyterapp?.shell.currentWidget?.sessionContext')
    nb = Notebook(page)
    nb.wait_idle()
    return nb
