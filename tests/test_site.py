"The docs site builds with no broken link, and its pages work from a file path, offline, light and dark."
import os, re, shutil, subprocess, sys
from pathlib import Path
from urllib.parse import unquote, urlparse
import pytest
import jlab

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site, made from a copy of the repository so that nothing is left in it"
    d = tmp_path_factory.mktemp('site')/'repo'
    shutil.copytree(ROOT, d, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', '__pycache__', '.ipynb_checkpoints', '_docs', '_proc', '_site_src', 'shots', 'distill-demo'))
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    r = subprocess.run([sys.executable, d/'tools'/'docs.py', '--engine', 'smalldocs', '--strict'], env=env, capture_output=True, text=True)
    assert not r.returncode, r.stdout + r.stderr
    return d/'_docs'

def test_every_page_is_there(site):
    pages = [f for f in (ROOT/'nbs').rglob('*.ipynb') if not any(p[0] in '._' for p in f.relative_to(ROOT/'nbs').parts)]
    assert len(list(site.rglob('*.html'))) >= len(pages)
    assert (site/'index.html').exists()

def test_no_link_is_broken(site):
    "Every link and picture within the site leads to a file, and to an anchor that the file has"
    pages = {f: f.read_text(encoding='utf-8') for f in site.rglob('*.html')}
    ids = {f: set(re.findall(r'\bid="([^"]+)"', s)) for f, s in pages.items()}
    broken = []
    for f, s in pages.items():
        for u in re.findall(r'(?:href|src)="([^"]*)"', re.sub(r'<pre.*?</pre>|<script\b.*?</script>', '', s, flags=re.S)):
            p = urlparse(u.replace('&amp;', '&'))
            if p.scheme or p.netloc: continue
            to = (f.parent/unquote(p.path)).resolve() if p.path else f
            if to.is_dir(): to = to/'index.html'
            if not to.exists() or p.fragment and to in ids and unquote(p.fragment) not in ids[to]: broken.append(f'{f.name}: {u}')
    assert not broken

@pytest.mark.skipif(bool(jlab.missing), reason=jlab.missing)
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_pages_open_from_a_file_path_offline(site, dark):
    jlab.SHOTS.mkdir(exist_ok=True)
    with jlab.browser(dark=dark) as page:
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        for f in sorted(site.rglob('*.html')):
            page.goto(f.as_uri())
            page.wait_for_load_state('load')
            assert page.locator('h1').count(), f'{f.name} has no title'
            page.screenshot(path=jlab.SHOTS/f'site-{f.stem}-{"dark" if dark else "light"}.png')
        assert not page.errors
        assert not [u for u in asked if urlparse(u).scheme not in ('file', 'data', 'blob')]
        page.goto((site/'index.html').as_uri())
        red, green, blue = (int(x) for x in re.findall(r'\d+', page.evaluate('getComputedStyle(document.body).backgroundColor'))[:3])
        assert (red+green+blue < 384) == dark
