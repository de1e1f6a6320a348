"Panels used with mouse and keyboard, in a real JupyterLab in a real Chromium; screenshots go to tests/shots"
import base64, json
from pathlib import Path
import numpy as np
import pytest
import jlab
from little import playable, put_card
from distill.audio.corpus import Corpus
from distill.audio.files import read_audio
from distill.core import models_folder
from distill.audio.demo import demo_corpus
from distill.library.catalog import ModelLibrary
from distill.models.metadata import VocoderInfo
from distill.models.persistence import load_model
from distill.library.history import History

pytestmark = pytest.mark.skipif(bool(jlab.missing), reason=jlab.missing)

SAMPLES = "async e => Array.from((await e.player.part(0)).getChannelData(0))"
QUIET = 'Failed to load resource', 'favicon'   # JupyterLab's own, when it asks for settings that are not there

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "A folder with sounds, and a library with one model that plays and many cards"
    root = tmp_path_factory.mktemp('panels')
    demo_corpus(root/'sounds')
    about = dict(corpus='sounds', n_files=32, epochs=2, tags=('wet',), held_out=.9)
    playable(root/'sounds', models_folder(), steps=10, **about)
    for i in range(40):
        vocoder = VocoderInfo('hifigan_v2', 50, .03, '2026-01-15') if i % 3 == 0 else None
        tags = 'tape', 'choir' if i < 10 else 'loop'
        put_card(models_folder(), f'Tape {i:02}', vocoder, corpus='field', n_files=12, seconds=300., epochs=20,
                 held_out=.8 + i/100, tags=tags, created=f'2026-01-{i % 28 + 1:02}')
    (root/'few').mkdir()
    for f in sorted((root/'sounds').rglob('*.*'))[::2]: (root/'few'/f.name).write_bytes(f.read_bytes())
    return root

@pytest.fixture(scope='module')
def site(root):
    with jlab.lab(root) as url: yield url

@pytest.fixture
def page(site):
    jlab.SHOTS.mkdir(exist_ok=True)
    with jlab.browser(height=1300) as page:
        page.site, page.outside = site, []
        def refuse(route):                              # there is no network
            page.outside.append(route.request.url)
            route.abort()
        def note(message):
            known = any(text in message.text for text in QUIET)
            if message.type == 'error' and not known: page.errors.append(message.text)
        page.route(lambda url: not url.startswith((site, 'data:', 'blob:')), refuse)
        page.on('console', note)
        yield page
        page.screenshot(path=jlab.SHOTS/'last.png')
        assert not page.errors and not page.outside

ALONE = """import socket
def _refuse(self, to, real=socket.socket.connect):
    assert isinstance(to, (str, bytes)) or to[0] in ('127.0.0.1', 'localhost'), f'a connection to {to}'
    return real(self, to)
socket.socket.connect = _refuse
"""

def open_panel(page, root, name, *cells):
    "A notebook with these cells, run in a kernel without a network"
    cells = (ALONE + cells[0], *cells[1:])
    cell = lambda i, src: dict(cell_type='code', id=f'c{i}', metadata={}, source=src, outputs=[], execution_count=None)
    kernel = dict(name='python3', display_name='python3', language='python')
    cells = [cell(i, c) for i, c in enumerate(cells)]
    nb = dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    (root/f'{name}.ipynb').write_text(json.dumps(nb))
    nb = jlab.open_notebook(page, page.site, f'{name}.ipynb')
    assert nb.run_all() == []
    return nb

def shoot(page, nb, name, height=1300):
    "Screenshots in both themes and both widths"
    for theme in ('Light', 'Dark'):
        nb.cmd('apputils:change-theme', theme=f'JupyterLab {theme}')
        page.wait_for_timeout(600)
        for width in (1280, 800):
            page.set_viewport_size(dict(width=width, height=height))
            page.wait_for_timeout(300)
            page.screenshot(path=jlab.SHOTS/f'{name}-{theme.lower()}-{width}.png')
            wide, room = page.locator('.distill-panel').first.evaluate('e => [e.scrollWidth, e.clientWidth]')
            assert wide <= room + 1, f'wider than the page at {width}'
    nb.cmd('apputils:change-theme', theme='JupyterLab Light')
    page.set_viewport_size(dict(width=1280, height=1300))
    page.wait_for_timeout(600)

def test_library_and_model(page, root):
    nb = open_panel(page, root, 'library', 'from distill.ui import LibraryPanel\npanel = LibraryPanel()', 'panel')
    rows = page.locator('.distill-rows [data-id]')
    rows.first.wait_for()
    assert rows.count() == 15 and '1–15 of 41' in page.locator('.distill-where').inner_text()
    page.locator('.distill-search input').click()
    page.keyboard.type('tape choir')                                     # as one types: every key searches
    page.locator('.distill-where', has_text='of 10').wait_for()
    page.get_by_role('button', name='Name', exact=True).click()
    page.wait_for_function("() => document.querySelector('.distill-rows td').textContent === 'Tape 00'")
    rows.first.focus()
    page.keyboard.press('ArrowDown')
    page.locator('.distill-facts', has_text='field (12 files').wait_for()
    assert page.locator('.distill-rows tr.on td').first.inner_text() == 'Tape 01'
    page.get_by_role('button', name='cards').click()
    page.locator('.distill-rows .card', has_text='50 epochs · loss 0.0300').first.wait_for()
    shoot(page, nb, 'library-cards')
    page.get_by_role('button', name='table').click()
    page.locator('.distill-delete').click()
    page.locator('.distill-message', has_text='Tape 01 is in the trash').wait_for()
    assert len(ModelLibrary(models_folder())) == 40
    page.locator('.distill-undo-delete').click()
    page.locator('.distill-message', has_text='is back').wait_for()
    assert len(ModelLibrary(models_folder())) == 41
    page.locator('.distill-search input').fill('rain')
    page.locator('.distill-where', has_text='1–1 of 1').wait_for()
    rows.first.focus()
    page.keyboard.press('Enter')                  # opens it
    page.locator('.distill-generate').wait_for()
    page.locator('.distill-preview').click()
    page.locator('.distill-player canvas').first.wait_for()
    shoot(page, nb, 'library')
    play_the_model(page, root, nb)

def play_the_model(page, root, nb):
    "Drag a slider, generate, hear, keep, export, download"
    handle = page.locator('.noUi-handle').first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.move(box['x'] + box['width']/2, box['y'] + box['height']/2)
    page.mouse.down()
    page.mouse.move(box['x'] + 60, box['y'] + 4, steps=5)
    page.mouse.up()
    page.get_by_role('button', name='set', exact=True).first.wait_for()
    page.locator('.distill-generate').click()
    take = page.locator('.distill-take')
    take.locator('img').wait_for()
    player = take.locator('.distill-player')
    heard = np.array(player.evaluate(SAMPLES), 'float32')
    take.locator('.distill-export').click()
    page.locator('.distill-message', has_text='Exported').wait_for()
    saved = read_audio(root/'exports'/'Rain_0.wav')[0][0].numpy()
    assert len(saved) == 48_000 and (heard == saved).all()            # sample for sample
    with page.expect_download() as d: player.locator('.save').click()
    assert (read_audio(d.value.path())[0][0].numpy() == saved).all() and d.value.suggested_filename == 'Rain_0.wav'
    player.locator('.play').click()
    page.wait_for_function("e => e.player.playing() && e.player.time() > .1", arg=player.element_handle())
    page.wait_for_function("e => !e.player.playing() && e.player.time() === 0", arg=player.element_handle())   # it ends
    player.locator('.loop').click()
    player.locator('canvas').click(position=dict(x=10, y=10))
    page.wait_for_timeout(1500)
    assert player.evaluate('e => e.player.playing() && e.player.time() <= 1')   # round and round
    player.locator('canvas').focus()
    page.keyboard.press('Space')
    page.wait_for_function("e => !e.player.playing()", arg=player.element_handle())
    take.locator('.distill-keep').click()
    page.get_by_text('Kept (1)').wait_for()
    page.locator('.distill-generate').click()
    page.wait_for_function("() => document.querySelectorAll('.distill-take').length === 2")
    page.get_by_placeholder('name of a new preset').fill('mine')
    page.locator('.distill-save-preset').click()
    page.locator('.distill-message', has_text='Saved the preset mine').wait_for()
    assert 'mine' in ModelLibrary(models_folder()).get('Rain').extra['presets']
    page.locator('.distill-take').first.locator('.distill-vary').click()   # similar, six a second
    page.wait_for_function("() => document.querySelector('.distill-like input').value.endsWith('.flac')")
    page.get_by_label('sounds a second').fill('6')
    page.keyboard.press('Tab')
    page.locator('.distill-generate').click()
    page.locator('.distill-take', has_text='density 6, like').wait_for()
    while len(df := History().df()) < 3: page.wait_for_timeout(50)   # a take is shown first, then written
    assert list(df.kept) == [False, False, True]
    dense = page.locator('.distill-take', has_text='density 6').locator('.distill-player')
    heard = np.array(dense.evaluate(SAMPLES), 'float32')
    assert (heard == read_audio(df.path.iloc[0])[0][0].numpy()).all()
    page.locator('.distill-to input').fill('sounds/kicks/kick_1.wav')
    page.keyboard.press('Tab')  # and from it to another
    page.get_by_text('is decided by its two sounds').wait_for()
    page.locator('.distill-generate').click()
    page.locator('.distill-take', has_text='to kick_1.wav, position 0.5').wait_for()
    page.locator('.distill-find input').fill('morph')
    page.keyboard.press('Tab')
    page.locator('.distill-fetch').wait_for()
    page.locator('.distill-generate').scroll_into_view_if_needed()
    shoot(page, nb, 'model', 2000)

def test_two_thousand_models(page, root):
    "From a key to the rows on the screen, measured and written beside the screenshots"
    (root/'many').mkdir()
    names = 'rain', 'wind', 'bell'
    for i in range(2000): put_card(root/'many', f'{names[i % 3]} {i}', corpus=f'tape {i % 9}', created='2026-01-01')
    open_panel(page, root, 'many', 'from distill.ui import LibraryPanel\npanel = LibraryPanel("many")', 'panel')
    page.locator('.distill-where', has_text='of 2000').wait_for()
    page.evaluate("""() => { window.took = []; let key = 0;
        document.addEventListener('keydown', () => { key = performance.now(); }, true);
        const seen = new MutationObserver(() => {
            const began = key;
            key = 0;
            if (began) requestAnimationFrame(() => {
                const painted = new MessageChannel();
                painted.port1.onmessage = () => window.took.push(performance.now() - began);
                painted.port2.postMessage(0);
            });
        });
        const rows = document.querySelector('.distill-rows').parentNode;
        seen.observe(rows, {childList: true, subtree: true, characterData: true}); }""")
    page.locator('.distill-search input').click()
    models = ModelLibrary(root/'many')
    typed = [('1', '1'), ('9', '19'), ('3', '193'), ('4', '1934')]
    typed += [('Backspace', '193'), ('Backspace', '19'), ('0', '190'), ('0', '1900')]
    for key, query in typed:
        page.keyboard.press(key)
        page.locator('.distill-where', has_text=f'of {len(models.search(query))}').wait_for()
        assert page.locator('.distill-rows [data-id]').count() <= 15
        page.wait_for_timeout(250)
    (jlab.SHOTS/'search-latency.json').write_text(json.dumps([round(t) for t in page.evaluate('() => window.took')]))

def test_train_stop_and_resume(page, root):
    "In short epochs, with sliders that are not named: what is waited for is the training"
    src = f"""import distill.pipeline
from distill.training.plan import TrainConfig
from distill.ui import TrainPanel
distill.pipeline.name_sliders = lambda model, **_: model.analysis
panel = TrainPanel({str(root/'few')!r}, 'From the page', cfg=TrainConfig(batch=4, epoch=10))
panel.steps.value, panel.every.value = 1000, 1"""
    nb = open_panel(page, root, 'train', src, 'panel', "TrainPanel(models_dir=panel.models_dir, name='From the page')")
    assert '1000 steps, about' in page.locator('.distill-cost').first.inner_text()
    first = page.locator('.distill-panel').first
    first.locator('.distill-start').click()
    first.locator('.distill-status', has_text='Training').wait_for()
    first.get_by_alt_text('loss curves').wait_for(timeout=120_000)
    first.locator('.distill-stop').click()                            # the page is free while it trains
    first.locator('.distill-status', has_text='Stopped after').wait_for(timeout=120_000)
    shoot(page, nb, 'train')
    nb.cmd('notebook:run-all-cells')
    nb.wait_idle()                  # made again, it finds what is unfinished
    first.get_by_label('steps').fill('60')
    page.keyboard.press('Tab')
    first.locator('.distill-resume').click()
    first.locator('.distill-status', has_text='Training').wait_for()
    first.locator('.distill-status', has_text='Done').wait_for(timeout=240_000)
    first.locator('.distill-player').nth(1).wait_for()
    assert first.locator('.distill-player').nth(1).evaluate('e => e.player.total') > .1
    first.locator('.distill-play-it').click()
    first.locator('.distill-generate').click()
    first.locator('.distill-take').wait_for()
    shoot(page, nb, 'trained')
    assert 60 <= ModelLibrary(models_folder()).get('From the page').steps < 1000

def test_a_vocoder_is_trained_stopped_and_resumed(page, root):
    src = "from distill.ui import VocoderPanel\npanel = VocoderPanel(batch_size=1, epochs=3)\npanel.every.value = 1"
    pid = 'import os\nfrom pathlib import Path\nPath("pid").write_text(str(os.getpid()))\n'
    nb = open_panel(page, root, 'vocoder', pid + src, 'panel')
    shoot(page, nb, 'vocoder-empty')
    page.locator('.distill-model input').fill('Rain')
    page.keyboard.press('Tab')
    page.locator('.distill-panel', has_text='no vocoder of its own').wait_for()
    page.locator('.distill-folder input').fill('few')
    page.keyboard.press('Tab')
    page.locator('.distill-cost', has_text='150 steps, about').wait_for(timeout=60_000)   # before it starts
    assert 'not likely to be enough' in page.locator('.distill-cost').inner_text()
    shoot(page, nb, 'vocoder-plan')
    page.locator('.distill-start').click()
    page.get_by_alt_text('loss curves').wait_for(timeout=120_000)
    page.locator('.distill-status', has_text='left').wait_for()
    assert 'Griffin-Lim' in page.locator('.distill-status').inner_text()
    page.locator('.distill-stop').click()                             # the page is free while it trains
    page.locator('.distill-status', has_text='Stopped after').wait_for(timeout=120_000)
    nb.cmd('notebook:run-all-cells')
    nb.wait_idle()                  # made again, it finds what is unfinished
    page.locator('.distill-model input').fill('Rain')
    page.keyboard.press('Tab')
    page.locator('.distill-status', has_text='unfinished').wait_for()
    page.locator('.distill-folder input').fill('few')
    page.keyboard.press('Tab')
    page.locator('.distill-cost', has_text='steps, about').wait_for(timeout=60_000)
    page.locator('.distill-resume').click()
    page.locator('.distill-status', has_text='Done').wait_for(timeout=240_000)
    made, heard = (page.locator('.distill-player').nth(i) for i in (1, 0))
    assert made.evaluate('e => e.player.total') == heard.evaluate('e => e.player.total') > .1
    assert np.std(made.evaluate(SAMPLES)) > 0
    shoot(page, nb, 'vocoder')
    page.locator('.distill-play-it').click()
    page.locator('.distill-generate').click()
    page.locator('.distill-take').wait_for()
    assert ModelLibrary(models_folder()).get('Rain').vocoder.epochs == 3
    page.locator('.distill-replace').click()                          # asks first
    page.locator('.distill-message', has_text='Replace it?').wait_for()
    shoot(page, nb, 'vocoder-replace')
    page.get_by_role('button', name='Yes, replace it').click()
    page.locator('.distill-status', has_text='epoch 1').wait_for(timeout=120_000)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    nb.wait_idle()
    assert not Path(f'/proc/{(root/"pid").read_text()}').exists()     # nobody trains on
    m = load_model(ModelLibrary(models_folder()).get('Rain').path)
    state = m.vocoder_state                                           # whole, and the old one is in use
    assert state['checkpoint']['done'] >= 50 and state['training_metadata']['epochs'] == 3
    page.errors[:] = [e for e in page.errors if 'Canceled' not in e]  # JupyterLab's own, when a kernel goes

def test_corpus(page, root):
    src = "from distill.ui import CorpusPanel\npanel = CorpusPanel(into='dropped')"
    nb = open_panel(page, root, 'corpus', src, 'panel')
    page.locator('.distill-folder input').fill('   ')                     # names no folder
    page.keyboard.press('Enter')
    page.locator('.distill-read-again').click()
    page.locator('.distill-folder input').fill('nowhere')
    page.keyboard.press('Enter')
    page.locator('.distill-error', has_text='There is no folder nowhere').wait_for()
    page.locator('.distill-folder input').fill('sounds')
    page.keyboard.press('Enter')
    page.locator('.distill-map circle').first.wait_for()
    assert page.locator('.distill-map circle').count() == 32
    page.locator('.distill-map circle').nth(4).click()
    player = page.locator('.distill-player')
    player.wait_for()
    page.wait_for_function("e => e.player.playing()", arg=player.element_handle())               # a click is heard
    heard = np.array(player.evaluate(SAMPLES), 'float32')
    corpus = Corpus(root/'sounds')
    assert np.abs(heard - corpus[4].numpy()[:len(heard)]).max() < 2**-22
    page.locator('.distill-read-again').focus()
    for _ in range(20):   # by keyboard: Tab comes to the dot that is chosen, arrows to the others
        page.keyboard.press('Tab')
        if page.evaluate("() => document.activeElement.tagName") == 'circle': break
    page.keyboard.press('ArrowRight')
    plays = "([e, name]) => e.querySelector('.name').textContent === name && e.player.playing()"
    page.wait_for_function(plays, arg=[player.element_handle(), corpus.names[5]])
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == corpus.names[5]
    shoot(page, nb, 'corpus')
    page.locator('.distill-drop input').first.set_input_files([root/'sounds'/n for n in corpus.names[:3]])
    page.locator('.distill-message', has_text='Received 3 files').wait_for()
    page.wait_for_function("() => document.querySelectorAll('.distill-map circle').length === 3")
    take_a_folder(page, root)
    data, name = (root/'sounds'/corpus.names[5]).read_bytes(), 'a drop.wav'
    page.evaluate("""([base64, name]) => {
        const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0)), dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], name));
        document.querySelector('.distill-drop').dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));
        }""", [base64.b64encode(data).decode(), name])
    page.wait_for_function("() => document.querySelectorAll('.distill-map circle').length === 8")
    assert (root/'dropped'/name).read_bytes() == data
    assert (root/'dropped'/Path(corpus.names[0]).name).read_bytes() == (root/'sounds'/corpus.names[0]).read_bytes()

def take_a_folder(page, root):
    "Two sounds in a folder with what systems hide there: picked in a dialog, and dropped from a desktop"
    files = sorted((root/'sounds').rglob('*.wav'))
    for folder, some in (('picked', files[3:5]), ('pulled', files[5:7])):
        (root/folder/'deep').mkdir(parents=True)
        for f in some: (root/folder/'deep'/f.name).write_bytes(f.read_bytes())
        (root/folder/'.DS_Store').write_text('x')
    page.locator('.distill-drop input').nth(1).set_input_files(root/'picked')
    page.wait_for_function("() => document.querySelectorAll('.distill-map circle').length === 5")
    page.locator('.distill-drop').scroll_into_view_if_needed()
    box = page.locator('.distill-drop').bounding_box()
    at = dict(x=box['x'] + 20, y=box['y'] + 15, data=dict(items=[], files=[str(root/'pulled')], dragOperationsMask=1))
    drag = page.context.new_cdp_session(page)
    for kind in ('dragEnter', 'dragOver', 'drop'): drag.send('Input.dispatchDragEvent', dict(type=kind, **at))
    page.wait_for_function("() => document.querySelectorAll('.distill-map circle').length === 7")
    assert page.locator('.distill-error').count() == 0 and not list((root/'dropped').rglob('.DS_Store'))
    assert sorted(f.name for f in (root/'dropped'/'pulled'/'deep').iterdir()) == [f.name for f in files[5:7]]

def test_the_map_as_the_model_hears(page, root):
    src = "from distill.ui import CorpusPanel\npanel = CorpusPanel('sounds', 'Rain')"
    nb = open_panel(page, root, 'ear', src, 'panel')
    page.locator('.distill-map circle').first.wait_for()
    before = page.locator('.distill-map circle').nth(4).get_attribute('cx')
    page.get_by_role('button', name='as the model hears').click()
    page.locator('.distill-map text', has_text='as the model hears').wait_for()
    assert page.locator('.distill-map circle').nth(4).get_attribute('cx') != before
    shoot(page, nb, 'ear')

def test_takes_that_are_gone_leave_nothing_on_the_page(page, root):
    "Nodes that the page holds, shown or not, and its listeners"
    src = """from distill.ui import ModelPanel
panel = ModelPanel('Rain')
panel.controls.seconds.value, panel.count.value = .1, 4"""
    open_panel(page, root, 'takes', src, 'panel')
    devtools = page.context.new_cdp_session(page)
    devtools.send('Performance.enable')
    names = page.locator('.distill-take .name')
    def counted_nodes():
        devtools.send('HeapProfiler.collectGarbage')
        metrics = {m['name']: m['value'] for m in devtools.send('Performance.getMetrics')['metrics']}
        return metrics['Nodes'], metrics['JSEventListeners']
    def more():
        for _ in range(3):
            last = names.all_inner_texts()
            page.locator('.distill-generate').click()
            page.wait_for_function("""last => {
                const names = [...document.querySelectorAll('.distill-take .name')].map(e => e.textContent);
                return names.length === 4 && names.every(name => !last.includes(name)); }""", arg=last)
            page.locator('.distill-message', has_text='Generating').wait_for(state='detached')
        return counted_nodes()
    first = more()
    after = more()
    assert all(b <= 1.02*a for a, b in zip(first, after)), (first, after)

def test_a_long_sound_is_played_in_parts(page, root):
    "Twenty-five seconds of stereo: parts join, seeking crosses a joint, another player stops the first, a download"
    src = """import numpy as np
from distill import Sound
from distill.ui import Player
x = np.random.default_rng(0).uniform(-.1, .1, (2, 1_200_000)).astype('float32')
import distill.ui.player
distill.ui.player._PIECE_BYTES = 2**20      # seven pieces"""
    open_panel(page, root, 'long', src, "Player(Sound(x), 'noise')", "Player(Sound(x[:, :48_000]), 'other')")
    first, other = page.locator('.distill-player').first, page.locator('.distill-player').nth(1)
    first.wait_for()
    parts = first.evaluate("""async e => {
        const parts = await Promise.all([0, 1, 2].map(e.player.part));
        return parts.map(part => [part.length, part.numberOfChannels]); }""")
    assert parts == [[480_000, 2], [480_000, 2], [240_000, 2]]
    box = first.locator('canvas').bounding_box()
    first.locator('canvas').click(position=dict(x=box['width']*9.7/25, y=10))
    page.wait_for_function("e => e.player.time() > 10.2", arg=first.element_handle())
    other.locator('.play').click()
    both = [first.element_handle(), other.element_handle()]
    page.wait_for_function("([a, b]) => !a.player.playing() && b.player.playing()", arg=both)
    first.locator('canvas').focus()
    page.keyboard.press('End')
    page.wait_for_function("e => e.player.time() > 23.7", arg=first.element_handle())
    page.wait_for_function("e => !e.player.playing()", arg=first.element_handle())
    first.evaluate("""e => {
        const button = e.querySelector('.save');
        window.shown = [];
        new MutationObserver(() => window.shown.push(button.textContent)).observe(button, {childList: true}); }""")
    with page.expect_download() as d: first.locator('.save').click()
    assert read_audio(d.value.path())[0].shape == (2, 1_200_000)
    page.wait_for_function("() => window.shown.at(-1) === '\u2b07'")
    shown = page.evaluate('() => window.shown')
    assert shown[:7] == [f'{100*k//7}%' for k in range(7)]
