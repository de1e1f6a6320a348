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
    made = '.venv .git __pycache__ .ipynb_checkpoints .mypy_cache _docs _proc _site_src shots distill-demo'.split()
    shutil.copytree(ROOT, d, symlinks=True, ignore=shutil.ignore_patterns(*made))
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    command = [sys.executable, d/'tools'/'docs.py', '--engine', 'smalldocs', '--strict', '--workers', '0']
    r = subprocess.run(command, env=env, capture_output=True, text=True)
    assert not r.returncode, r.stdout + r.stderr
    return d/'_docs'

def test_every_page_is_there(site):
    every = [f.relative_to(ROOT/'nbs') for f in (ROOT/'nbs').rglob('*.ipynb')]
    pages = [f for f in every if not any(part[0] in '._' for part in f.parts)]
    assert len(list(site.rglob('*.html'))) >= len(pages)
    assert (site/'index.html').exists()

def test_no_link_is_broken(site):
    "Every link and image within the site leads to a file, and to an anchor that the file has"
    pages = {f: f.read_text(encoding='utf-8') for f in site.rglob('*.html')}
    ids = {f: set(re.findall(r'\bid="([^"]+)"', s)) for f, s in pages.items()}
    broken = []
    for f, s in pages.items():
        shown = re.sub(r'<pre.*?</pre>|<script\b.*?</script>', '', s, flags=re.S)
        for u in re.findall(r'(?:href|src)="([^"]*)"', shown):
            p = urlparse(u.replace('&amp;', '&'))
            if p.scheme or p.netloc: continue
            to = (f.parent/unquote(p.path)).resolve() if p.path else f
            if to.is_dir(): to = to/'index.html'
            no_anchor = p.fragment and to in ids and unquote(p.fragment) not in ids[to]
            if not to.exists() or no_anchor: broken.append(f'{f.name}: {u}')
    assert not broken

def test_nothing_comes_from_elsewhere(site):
    "No page, style or script asks another server for anything; links to other sites are for people to follow"
    for f in site.rglob('*.html'):
        s = re.sub(r'<pre.*?</pre>', '', f.read_text(encoding='utf-8'), flags=re.S)
        asked = re.findall(r'<(?:script|img|audio|video|iframe|source)\b[^>]*?\bsrc="([^"]+)"', s)
        asked += re.findall(r'<link\b[^>]*?href="([^"]+)"', s)
        assert not [u for u in asked if urlparse(u).scheme not in ('', 'data') or urlparse(u).netloc], f.name
    for f in site.rglob('*.css'):
        asked = re.findall(r'@import[^;]+;|url\(\s*["\']?(?:https?:)?//[^)]+\)', f.read_text(encoding='utf-8'))
        assert not asked, f.name

def test_the_map_names_every_module(site):
    "A contributor finds the room for a change: every exported module stands on the map, with a link to its page"
    rooms = (site/'rooms.html').read_text(encoding='utf-8')
    pages = [f.read_text(encoding='utf-8') for f in (ROOT/'nbs').glob('*.ipynb')]
    modules = {m for text in pages for m in re.findall(r'#\| default_exp (\S+?)(?:\\n|")', text)}
    assert len(modules) > 50 and not [m for m in modules if f'distill.{m}</code>' not in rooms]

# Screenshots of these, to look at
MAIN = {'index', 'tutorials/your_first_model', 'tutorials/sliders', 'rooms', 'generation.sounds', 'ui.model',
        'benchmarks', 'explanation/why_these_vocoders'}

@pytest.mark.skipif(bool(jlab.missing), reason=jlab.missing)
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_pages_open_from_a_file_path_offline(site, dark):
    "Every page has its title and its colors, asks nobody for anything, and fits a phone; in the dark, the main ones"
    jlab.SHOTS.mkdir(exist_ok=True)
    with jlab.browser(dark=dark) as page:
        asked, wide = [], []
        page.on('request', lambda r: asked.append(r.url))
        for f in sorted(site.rglob('*.html')):
            name = f.relative_to(site).with_suffix('').as_posix()
            if dark and name not in MAIN: continue
            page.set_viewport_size(dict(width=1280, height=1000))
            page.goto(f.as_uri())
            page.wait_for_load_state('load')
            assert page.locator('h1').count(), f'{name} has no title'
            shot = jlab.SHOTS/f'site-{name.replace("/", "-")}'
            if name in MAIN: page.screenshot(path=f'{shot}-{"dark" if dark else "light"}.png')
            if dark: continue
            page.set_viewport_size(dict(width=390, height=844))
            if page.evaluate('document.documentElement.scrollWidth') > 390: wide.append(name)
            if name in MAIN: page.screenshot(path=f'{shot}-phone.png')
        assert not wide, f'wider than a phone: {wide}'
        assert not page.errors
        assert not [u for u in asked if urlparse(u).scheme not in ('file', 'data', 'blob')]
        page.goto((site/'index.html').as_uri())
        color = page.evaluate('getComputedStyle(document.body).backgroundColor')
        red, green, blue = (int(x) for x in re.findall(r'\d+', color)[:3])
        assert (red + green + blue < 384) == dark

@pytest.mark.skipif(bool(jlab.missing), reason=jlab.missing)
def test_search_finds_and_leads(site):
    "From a file path, from a page in a folder: typing finds, Enter goes there"
    with jlab.browser() as page:
        page.goto((site/'tutorials'/'sliders.html').as_uri())
        page.keyboard.press('/')
        page.keyboard.type('learns where your sounds end')
        first = page.locator('.search-result').first
        first.wait_for()
        page.keyboard.press('Enter')
        page.wait_for_url(re.compile('your_first_model|short_files|audio|training'))
        assert 'your sounds end' in page.locator('main').inner_text()
        assert not page.errors
