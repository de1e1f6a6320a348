"The front page, run by a real JupyterLab and looked at with a real browser."
import json, re
from pathlib import Path
import pytest
import jlab
from distill.audio.demo import demo_corpus
from little import playable

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(bool(jlab.missing), reason=jlab.missing)

DURATIONS = """() => {
    const duration = audio => new Promise(done => {
        if (audio.readyState > 0) { done(audio.duration); return; }
        audio.onloadedmetadata = () => done(audio.duration);
        audio.onerror = () => done(-1);
        audio.load();
    });
    return Promise.all([...document.querySelectorAll('.jp-OutputArea-output audio')].map(duration)); }"""

def test_the_front_page_in_jupyterlab(tmp_path):
    "All of it but the training, which runs with the other pages; a model that was made before takes its place"
    demo_corpus(tmp_path/'demo')
    model = playable(tmp_path/'demo', tmp_path/'models')
    text = (ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8')
    for there, here in ((r"train_model\('sounds', [^)]*\)", f'load_model({str(model)!r})'),
                        ('import generate, train_model', 'import generate, load_model')):
        text, n = re.subn(there, here, text)
        assert n == 1
    nb = json.loads(text)
    for c in nb['cells']:
        if c['cell_type'] == 'code': c['outputs'] = []
    (tmp_path/'front.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    with jlab.lab(tmp_path) as url, jlab.browser(height=2400) as page:
        nb = jlab.open_notebook(page, url, 'front.ipynb')
        assert nb.run_all(300) == []
        assert page.locator('.jp-OutputArea-output table.dataframe tbody tr').count() >= 1
        recorded, *made = page.evaluate(DURATIONS)
        assert .1 < recorded < 5 and made == pytest.approx([1.5, 1.5], abs=.01)      # what the page asks for
        jlab.SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=jlab.SHOTS/'front-page.png')
        assert not page.errors
