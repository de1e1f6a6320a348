"Panels without a browser: every control does something, what is shown without a kernel, what goes wrong, and threads that end"
import json, subprocess, sys, time
from dataclasses import asdict
import ipywidgets as W
import numpy as np
import pytest
import torch
from little import put_card, save
from distill.audio.corpus import Corpus
from distill.audio.files import Sound, read_audio
from distill.core import UserError
from distill.audio.demo import demo_corpus
from distill.latent.analysis import analyze
from distill.library.catalog import ModelLibrary
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.features.mel import MelConfig
from distill.models.persistence import load_model, save_model
from distill.models.vae import VAEConfig
from distill.audio.files import given
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining
from distill.training.loop import fit, read_checkpoint
from distill.library.history import History
from distill.generation.presets import presets
from distill.ui import CorpusPanel, LibraryPanel, ModelPanel, Player, TrainPanel, VocoderPanel, _lazy, loss_curves
from distill.ui.corpus import receive
from distill.ui.table import Rows
from distill.ui.parts import is_shown
from distill.ui.train import Training, unfinished_model
from distill.ui.vocoder import VocoderTraining, unfinished
from distill.ui.work import Work

@pytest.fixture(scope='module')
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp('corpus')/'sounds'
    for f in demo_corpus(folder)[::2]: f.unlink()
    return folder

@pytest.fixture(scope='module')
def made(sounds, tmp_path_factory):
    "A model that plays"
    task = VAETraining(Corpus(sounds), vae=VAEConfig(channels=16), cfg=TrainConfig(batch=8, epoch=10))
    history = [{k: v for k, v in asdict(r).items() if k != 'eta'} for r in fit(task, steps=20)]
    return save_model(task.model, task.mel.cfg, asdict(task.cfg), ModelMetadata('Rain'), tmp_path_factory.mktemp('made'), analyze(task.model, task.mels), training_history=history)

@pytest.fixture
def library(made, tmp_path):
    "The model that plays, and two cards"
    (tmp_path/'lib').mkdir(); (tmp_path/'lib'/'Rain.distillgan').write_bytes(made.read_bytes())
    put_card(tmp_path/'lib', 'Harbour', VocoderInfo('hifigan_v2', 50, .03, '2026-01-15'), epochs=20, created='2026-01-01')
    put_card(tmp_path/'lib', 'Attic', epochs=5, created='2026-01-02')
    return tmp_path/'lib'

# --- every control does something

KINDS = W.Button, W.ToggleButton, W.ToggleButtons, W.Text, W.Dropdown, W.Checkbox, W.FloatSlider, W.BoundedIntText, W.BoundedFloatText, Rows

def controls(w):
    "Every widget in a tree that a person can use"
    return [w] if isinstance(w, KINDS) else [c for child in getattr(w, 'children', ()) for c in controls(child)]

def snapshot(w, but=None):
    "All that a tree shows and holds, but for its layout and for what the control `but` shows itself"
    if w is but: return ''
    kids = [snapshot(c, but) for c in getattr(w, 'children', ())]
    own = {k: getattr(w, k) for k in ('value', 'options', 'description', 'disabled', 'icon', 'rows', 'selected', 'cards', 'points', 'title', 'peaks') if hasattr(w, k)}
    return json.dumps([own, is_shown(w), kids], default=repr)

def use(w):
    "Use a control as a person would"
    if isinstance(w, W.Button): w.click()
    elif isinstance(w, Rows): w.selected = w.rows[-1]['id']
    elif isinstance(w, (W.ToggleButton, W.Checkbox)): w.value = not w.value
    elif isinstance(w, (W.Dropdown, W.ToggleButtons)): w.index = (w.index + 1) % len(w.options)
    elif isinstance(w, W.Text): w.value += 'x'
    else: w.value = w.value + 1

INPUTS = {  # controls that are read when a button is pressed: what shows that they were
    'seconds': lambda p: len(p.takes[0].sound), 'seed': lambda p: p.takes[0].sound.info['seed'], 'count': lambda p: len(p.takes),
    'next_seeds': lambda p: p.seed.value, 'density': lambda p: p.takes[0].sound.info.get('density'), 'width': lambda p: p.takes[0].sound.samples.ndim, 'azimuth': lambda p: p.takes[0].sound.info.get('azimuth')}

@pytest.mark.parametrize('name', INPUTS)
def test_generate_reads_every_setting(made, name):
    def after(change):
        p = ModelPanel(load_model(made)); p.seconds.value = .2
        if change: use(getattr(p, name))
        p.make.click()
        return INPUTS[name](p)
    assert after(True) != after(False)

def test_generate_reads_the_vocoder_and_the_sound_to_vary(made, sounds):
    p = ModelPanel(load_model(made)); p.seconds.value, p.next_seeds.value = .2, False
    p.vocoder.value = 'griffin-lim'; p.make.click()
    assert p.takes[0].sound.info['vocoder'] == 'griffin-lim'
    p.vocoder.value = 'own'; p.make.click()
    assert 'no vocoder of its own' in p.said
    p.vocoder.value = 'auto'; p.make.click()
    assert p.takes[0].sound.info['vocoder'] == 'base'
    file = sorted(sounds.rglob('*.wav'))[0]
    p.like.value = str(file); length = p.seconds.value; p.variation.value = 0.; p.make.click()
    same = p.takes[0].sound
    assert len(same) == round(length*48_000) and same.info['like']['file'] == str(file) and is_shown(p.variation)
    p.make.click(); assert (np.asarray(p.takes[0].sound) == np.asarray(same)).all()
    p.variation.value = 1.; p.make.click(); assert len(p.takes[0].sound) == len(same) and (np.asarray(p.takes[0].sound) != np.asarray(same)).any()

def test_takes_go_into_the_history(made, tmp_path):
    (tmp_path/'lib').mkdir(); path = tmp_path/'lib'/'Rain.distillgan'; path.write_bytes(made.read_bytes())
    p = ModelPanel(path, tmp_path/'out'); p.seconds.value, p.count.value = .2, 2; p.make.click()
    p.takes[0].keep.click(); p.make.click()
    df = History(tmp_path/'lib').df()
    assert len(df) == 4 and list(df.seed[df.kept]) == [0]
    assert torch.equal(read_audio(p.kept[0].file)[0], torch.from_numpy(p.history.sound(p.kept[0].file).samples)[None])
    assert p.room.value.count(p.history.caption) == 1 and p.history.caption.startswith('4 takes') and p.history.caption.endswith('of 1.0 GB')
    p.find.value = 'rain'; assert p.found.value.count('<tr>') == 5 and p.found.value.count('kept/') == 1
    p.find.value = '<b>'; assert 'No take has' in p.found.value and '<b>' not in p.found.value
    p.kept[0].drop.click(); assert not History(tmp_path/'lib').df().kept.any()
    p.history.limit = sum(History(tmp_path/'lib').df()['size']); p.make.click(); assert 'history is full' in p.said and len(p.takes) == 2
    for f in sorted((tmp_path/'lib'/'history').rglob('*'), reverse=True): f.rmdir() if f.is_dir() else f.unlink()
    (tmp_path/'lib'/'history').rmdir(); (tmp_path/'lib'/'history').write_text('in the way')
    p.make.click(); assert len(p.takes) == 2 and isinstance(p.trouble, UserError)             # said, and the takes are there to hear
    p.takes[0].vary.click(); assert 'in no history' in p.said
    p.takes[0].export.click(); assert 'Exported' in p.said

@pytest.fixture
def pair(made, tmp_path):
    "A panel whose folder has another model to blend with, one whose pictures are of another kind, and one that is only a card"
    (tmp_path/'lib').mkdir(); (tmp_path/'lib'/'Rain.distillgan').write_bytes(made.read_bytes())
    m = load_model(made)
    other = save_model(m.model, m.spectrogram.cfg, {}, ModelMetadata('Drizzle'), tmp_path/'lib', m.analysis)
    save(tmp_path/'lib', 'Odd'); put_card(tmp_path/'lib', 'Drizzle')
    p = ModelPanel(tmp_path/'lib'/'Rain.distillgan', tmp_path/'out'); p.seconds.value, p.next_seeds.value = .2, False
    return p, other

def test_a_morph_in_the_panel(pair, sounds, tmp_path):
    p, _ = pair
    a, b = [str(f) for f in sorted(sounds.rglob('*.wav'))[::5][:2]]
    ends = [len(given(f).samples) for f in (a, b)]
    p.to.value = b; p.make.click(); assert 'needs one to begin from' in p.said and not p.takes
    p.like.value = a
    assert is_shown(p.position) and is_shown(p.hint) and not is_shown(p.variation) and p.hint.value in p._repr_html_()
    lengths = []
    for at in (0., .25, 1.): p.position.value = at; lengths.append(round(p.seconds.value*48_000))
    assert lengths == [ends[0], round(.75*ends[0] + .25*ends[1]), ends[1]]
    p.position.value = .25; p.seconds.value, p.density.value = .3, 4.           # as long as it is told at last
    p.sliders['other 1'].position.value = 5.; asked = p.values(); p.make.click()
    take = p.takes[0]
    assert len(take.sound) == 14_400 and take.sound.info['sliders'] == {} and take.name == 'Rain morph 0.25'
    assert take.caption.value.count(f'from {a.split("/")[-1]} to {b.split("/")[-1]}, position 0.25') == 1
    p.slot.value = 'B'; p.to.value = ''; assert not is_shown(p.position) and is_shown(p.variation) and p.values().keys() >= {'like', 'variation'} and 'to' not in p.values()
    p.slot.value = 'A'; assert p.values() == asked
    p.free.click(); p.to.value = p.like.value = ''; p.recall(take); assert p.values() == asked
    p.preset_name.value = 'far'; p.preset_save.click()
    assert presets(p.loaded)['far'] == dict(sliders={'other 1': 5.}, seconds=.3, density=4.)
    p.make.click(); assert p.takes[0].sound.info == take.sound.info and (p.takes[0].sound.samples == take.sound.samples).all()
    p.takes[0].vary.click(); assert p.to.value == '' and p.like.value.endswith('.flac')
    p.to.value = 'nothing.wav'; assert 'nothing.wav' in p.said

def test_a_blend_in_the_panel(pair, sounds):
    p, other = pair
    assert is_shown(p.partner) and not is_shown(p.weight)
    names = dict(p.partner.options)
    assert list(names)[0] == 'none' and 'Odd' in names and f'Drizzle ({other.name})' in names and len(names) == 4
    for wrong, why in ((names['Odd'], 'different settings'), (next(f for f in names.values() if f and 'Odd' not in f and f != other.name), 'Not a valid')):
        p.partner.value = wrong; assert why in p.said and p.partner.value == '' and not is_shown(p.weight)
    p.partner.value, p.weight.value = other.name, .3; asked = p.values(); p.make.click()
    take = p.takes[0]
    assert [(m['model'], m['weight']) for m in take.sound.info['models']] == [('Rain', .7), ('Drizzle', .3)] and '0.7 Rain + 0.3 Drizzle · all sliders free' in take.caption.value and 'Drizzle' in p._repr_html_()
    p.partner.value = ''; p.weight.value = 1.; p.recall(take); assert p.values() == asked and is_shown(p.weight)
    p.preset_name.value = 'mild'; p.preset_save.click(); assert presets(p.loaded)['mild'] == dict(sliders={}, seconds=.2)
    p.like.value = p.to.value = str(sorted(sounds.rglob('*.wav'))[0]); p.make.click()
    assert 'cannot be made at once' in p.said and p.takes == [take]
    p.to.value = ''; p.make.click(); assert p.takes[0].sound.info['like'] and len(p.takes[0].sound.info['models']) == 2
    other.unlink(); p.partner.value = ''; p.partner.value = other.name; p.make.click(); assert p.said == ''       # it is loaded already

def test_takes_say_how_near_they_are(made, sounds, tmp_path, monkeypatch):
    import distill.ui.model as room
    read = []
    p = ModelPanel(load_model(made), tmp_path/'out'); p.seconds.value = .2
    p.make.click(); assert p.takes[0].near == ''
    monkeypatch.setattr(room, 'Nearness', lambda corpus, real=room.Nearness: read.append(corpus) or real(corpus))
    p.sounds.value = str(sounds); p.make.click(); p.count.value = 2; p.make.click()
    assert len(read) == 1 and all(t.near.split(' (')[0] in ('a copy', 'near', 'unlike the corpus') and t.near in t.caption.value for t in p.takes)
    near = room.Nearness(Corpus(sounds)); assert [t.near for t in p.takes] == [near.text(near(t.sound)) for t in p.takes]
    for folder in ('nowhere', str(made.parent)):
        p.sounds.value = folder; p.make.click(); assert 'is not known' in p.said and folder in p.said and [t.near for t in p.takes] == ['', '']
        p.make.click(); assert p.said == '' and len(p.takes) == 2

def test_a_take_is_fetched_from_the_history(pair, sounds):
    p, other = pair
    p.count.value = 3; p.make.click(); first = p.takes[1]
    p.count.value = 1; p.make.click()
    assert not is_shown(p.past_take) and not is_shown(p.fetch)
    p.find.value = 'rain'; assert is_shown(p.fetch) and len(p.past_take.options) == 4
    p.past_take.value = first.file.stem; p.fetch.click(); p.fetch.click()
    assert len(p.takes) == 2 and not is_shown(p.takes[0].recall) and p.takes[0].name == first.name
    assert np.abs(p.takes[0].sound.samples - first.sound.samples).max() <= 2**-23
    p.takes[0].keep.click(); assert list(p.history.df().seed[p.history.df().kept]) == [first.sound.info['seed']] and p.past_take.value == first.file.stem
    p.kept[0].vary.click(); assert 'kept' in p.like.value
    p.history.add(Sound(np.zeros((2, 4410), 'float32'), 44_100)); p.find.value = 'generate'          # says little of itself
    p.past_take.value = next(t for t in p.past_take.options if 'sound' in t); p.fetch.click(); assert p.takes[0].name == 'sound' and p.takes[0].sound.rate == 44_100
    p.find.value = 'sparkle'; assert not is_shown(p.fetch)

def test_every_control_of_the_model_panel(made, tmp_path):
    p = ModelPanel(load_model(made), tmp_path/'out')
    p.seconds.value = .2; p.make.click(); p.make.click(); p.takes[0].keep.click(); p.make.click()
    read = [getattr(p, n) for n in (*INPUTS, 'vocoder', 'like', 'variation', 'format', 'preset_name', 'folder', 'preset', 'preset_load', 'preset_delete', 'slot', 'sounds')]      # above, and below
    read += [r.lock for r in p.sliders.values()]
    for c in controls(p):
        if c in read or not is_shown(c) or c not in controls(p): continue             # hidden, or in a take that gave way
        p.say(''); p.randomise.click(); before = snapshot(p, c), p.values()
        use(c)
        assert (snapshot(p, c), p.values()) != before, f'{c.description or c.tooltip} does nothing'
    p.to.value = ''
    for fmt in ('wav', 'flac', 'mp3'):
        p.format.value = fmt; p.kept and p.drop(p.kept[0]); p.make.click(); p.takes[0].keep.click(); p.kept[0].export.click()
        assert p.kept[0].player.title.replace(' ', '_') + f'.{fmt}' in {f.name for f in (tmp_path/'out').iterdir()}
    p.randomise.click(); p.preset_name.value = 'one'; p.preset_save.click(); p.free.click()
    p.preset_name.value = 'two'; p.preset_save.click()
    assert p.preset.value == 'two' and p.values()['sliders'] == {}
    p.preset.value = 'one'; p.preset_load.click(); assert p.values()['sliders']
    p.preset_delete.click(); assert list(presets(made)) == ['two'] and ModelPanel(made).preset.options == ('two',)
    a = p.values(); p.slot.value = 'B'; p.centre.click(); b = p.values(); p.slot.value = 'A'
    assert p.values() == a != b
    for r in p.sliders.values(): r.lock.value = True
    p.randomise.click(); p.free.click(); p.centre.click()
    assert p.values() == a

def test_every_control_of_the_library_panel(library):
    p = LibraryPanel(library, per_page=2)
    p.select('Rain')
    for c in controls(p):
        if c in (p.name, p.tags): continue                # read by the buttons beside them
        if c is p.undo or getattr(c, 'disabled', False): continue
        p.select('Harbour' if isinstance(c, Rows) else 'Rain'); p.say('')
        if c is p.rename: p.name.value = 'Drizzle'
        if c is p.tag: p.tags.value = 'wet'
        before = snapshot(p, c); use(c)
        assert snapshot(p, c) != before or c is p.again, f'{c.description} does nothing'
        if c is p.query: p.query.value = ''
        if c is p.vocoder: p.vocoder.index = 0
        if c is p.rename: p.name.value = 'Rain'; p.rename.click()
    assert is_shown(p.undo)
    n = len(p.library); p.undo.click()
    assert len(p.library) == n + 1
    put_card(library, 'New'); p.again.click()
    assert len(p.found) == len(p.library)

def test_every_button_has_a_handler(made, library, sounds):
    panels = ModelPanel(load_model(made)), LibraryPanel(library), CorpusPanel(sounds), TrainPanel(sounds, 'x', library), VocoderPanel(library)
    for p in panels:
        for c in controls(p):
            if isinstance(c, W.Button): assert len(c._click_handlers.callbacks) == 1, c.description
    settings = {w for p in panels for w in vars(p).values() if isinstance(w, KINDS)}
    assert all(c in settings for p in panels[1:] for c in controls(p)), 'a control nobody holds can be read by nobody'

# --- without a kernel

def test_still_pages(made, library, sounds):
    "Tables, pictures and players, and nothing that lives"
    m, l, c, t, v = ModelPanel(load_model(made)), LibraryPanel(library), CorpusPanel(sounds), TrainPanel(sounds, 'x', library), VocoderPanel(library, 'Rain')
    m.make.click(); c.map.selected = 0; l.select('Rain')
    for p, wants in ((v, ('Rain', 'base vocoder', 'Choose a model and a folder')), (m, ('<audio', '<img', 'of variety')), (l, ('<table', 'HiFi-GAN', 'Harbour')), (c, ('<img', '<audio', '16 of 16 files')), (t, ('steps, about',))):
        d = p._repr_mimebundle_()
        assert all(w in d['text/html'] for w in wants)
        assert p.model_id not in d['text/html'] and len(d['text/html']) < 300_000
        assert len(repr(p)) < 120 and d['text/plain'] == repr(p)
    l.view.value = 'cards'
    assert '50 epochs · loss 0.0300' in l._repr_html_() and '#d1fae5' in l._repr_html_()

def test_texts_of_strangers_are_not_html(library, tmp_path):
    "A model's name comes from a file, and a file from anybody"
    evil = '<img src=x onerror=alert(1)>'
    put_card(library, evil, tags=(evil,), corpus=evil, description=evil)
    p = LibraryPanel(library)
    p.select(next(e for e in p.found if e.name == evil)); p.mark.click(); p.select('Rain')
    for view in ('table', 'cards'):
        p.view.value = view
        assert '<img src=x' not in p._repr_html_() + p.facts.value + json.dumps(p.rows.rows)

# --- what is heard

def test_parts_make_the_whole(tmp_path):
    "A long sound travels in parts that join to what is saved, to the sample"
    x = np.random.default_rng(0).uniform(-.9, .9, round(23.4567*48_000)).astype('float32')
    p, heard = Player(Sound(x), 'long'), []
    for k in range(3):
        (tmp_path/'p.flac').write_bytes(p.piece(k)); heard.append(read_audio(tmp_path/'p.flac')[0])
    p.sound.save(tmp_path/'saved.wav')
    assert torch.equal(torch.cat(heard, 1), read_audio(tmp_path/'saved.wav')[0])

def test_ten_minutes_do_not_bloat_the_page(made, tmp_path):
    p = Player(Sound(np.zeros(600*48_000, 'float32')), 'ten minutes')
    live = sum(len(v) if isinstance(v, bytes) else len(json.dumps(v, default=str)) for k, v in p.get_state().items() if k not in ('_esm', '_css'))
    assert live < 3000 and len(p.still()) < 200_000

def test_a_stereo_sound_plays(tmp_path):
    p = Player(Sound(np.stack([np.linspace(-.5, .5, 4800), np.zeros(4800)]).astype('float32')))
    (tmp_path/'p.flac').write_bytes(p.piece(0))
    assert read_audio(tmp_path/'p.flac')[0].shape == (2, 4800)

# --- what goes wrong

def test_a_fault_of_ours_is_shown_and_kept(library, monkeypatch):
    p = LibraryPanel(library)
    monkeypatch.setattr(p.library, 'delete', lambda e: 1/0)
    p.select('Rain')
    with pytest.raises(ZeroDivisionError): p.attempt(p.remove)
    assert 'ZeroDivisionError' in p.said and isinstance(p.trouble, ZeroDivisionError)

def test_a_model_without_sliders(tmp_path):
    p = ModelPanel(load_model(save(tmp_path)))
    p.make.click()
    assert 'has no latent analysis' in p.said and isinstance(p.trouble, UserError)
    with pytest.raises(UserError, match='no record of its training'): loss_curves([])

def test_a_model_that_somebody_else_deleted(library):
    p = LibraryPanel(library); p.select('Rain')
    (library/'Rain.distillgan').unlink()
    for b in (p.preview, p.load_it, p.copy, p.rename, p.delete):
        b.click(); assert isinstance(p.trouble, UserError) and 'Rain' in p.said

@pytest.mark.parametrize('name', ['../x.wav', '/x.wav', 'a/../../x.wav', '.hidden', '', 'a\\..\\x.wav'])
def test_dropped_names_lead_nowhere_else(tmp_path, name):
    with pytest.raises(UserError): receive(tmp_path/'in', name, b'x')
    assert not list(tmp_path.rglob('*.*'))

def test_a_dropped_file_replaces_nothing(tmp_path):
    assert receive(tmp_path, 'a/x.wav', b'one') and not receive(tmp_path, 'a/x.wav', b'two')
    assert (tmp_path/'a'/'x.wav').read_bytes() == b'one'

# --- the library at size

def test_search_in_two_thousand_models(tmp_path):
    for i in range(2000): put_card(tmp_path, f'{("rain", "wind", "bell")[i % 3]} {i}', corpus=f'tape {i % 9}', created='2026-01-01')
    p = LibraryPanel(tmp_path)
    for query in ('r', 'ra', 'rain 7', 'tape 3', 'none of it', ''):
        p.query.value = query
        assert {e.model_id for e in p.found} == {e.model_id for e in p.library.search(query)}     # what the library itself finds
        assert len(p.rows.rows) <= 15

# --- trainings

def test_a_training_that_fails_says_so(sounds, tmp_path):
    p = TrainPanel(sounds, 'x', tmp_path/'file')
    (tmp_path/'file').write_text('')
    p.start.click(); p.training.wait(300)
    assert p.training.state == 'failed' and 'Cannot write' in p.said and not Work.running

def test_stop_now_leaves_a_whole_checkpoint(sounds, tmp_path):
    p = TrainPanel(sounds, 'x', tmp_path); p.steps.value = 100
    p.start.click()
    other = TrainPanel(sounds, 'x', tmp_path); other.start.click()
    assert 'is running' in other.said                     # found the one that runs, and starts no second
    while not p.training.checkpoint.exists(): time.sleep(.05)
    p.stop.click(); assert p.stop.description == 'Stop now'
    p.stop.click()
    assert p.training.wait(300) == 'stopped' and is_shown(p.resume) and is_shown(p.discard)
    assert read_checkpoint(p.training.checkpoint)['done'] == 0
    assert unfinished_model(p.training.checkpoint).model.cfg.n_mels == MelConfig().n_mels
    p.discard.click()
    assert is_shown(p.start) and not p.training.checkpoint.exists()

def test_a_kernel_that_ends_ends_its_training(sounds, tmp_path):
    code = f"""import time; from distill.ui.train import Training
t = Training({str(sounds)!r}, 'x', {str(tmp_path)!r}, steps=1000)
while not t.checkpoint.exists(): time.sleep(.05)
time.sleep(.2)"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and r.stderr == ''
    assert read_checkpoint(tmp_path/'checkpoints'/'x.pt')['done'] == 0 and len(list((tmp_path/'checkpoints').iterdir())) == 1

@pytest.fixture
def voiced(library, sounds):
    "A panel for the model that plays, quick to train"
    return VocoderPanel(library, 'Rain', sounds, batch_size=1, epochs=2)

def test_a_vocoder_training_says_what_it_will_take(voiced, library, sounds):
    assert 'Finding out' in voiced.cost.value
    voiced.estimate.wait(300)
    assert '100 steps, about' in voiced.cost.value and 'not likely to be enough' in voiced.cost.value
    voiced.minutes.value = .0001; voiced.type.value = 'hifigan_v2'             # the second while the first is looked at
    while voiced.estimate.state == 'running' or voiced.estimate.settings['type'] == 'fourier': time.sleep(.05)
    voiced.estimate.wait(300)
    assert '1 step,' in voiced.cost.value
    assert load_model(library/'Rain.distillgan').vocoder_state is None        # asking wrote nothing
    p = VocoderPanel(library, 'Attic', sounds); assert isinstance(p.trouble, UserError) and p.loaded is None
    q = VocoderPanel(library, 'Rain', sounds, discriminators='many'); q.estimate.wait(300)
    assert 'discriminators' in q.said

def test_a_vocoder_is_trained_stopped_resumed_and_replaced(voiced, library, sounds):
    voiced.estimate.wait(300); voiced.every.value = 1
    for c in controls(voiced): assert is_shown(c) == (c not in (voiced.stop, voiced.resume, voiced.replace, voiced.yes, voiced.no, voiced.play)), c.description
    voiced.start.click()
    other = VocoderPanel(library); assert other.training is voiced.training and other.folder.disabled      # takes up what runs
    with pytest.raises(UserError, match='is running'): VocoderTraining(voiced.loaded, voiced.corpus)
    while len(voiced.training.records) < 1: time.sleep(.05)
    voiced.stop.click(); assert voiced.stop.description == 'Stop now'; voiced.stop.click()
    assert voiced.training.wait(300) == 'stopped' and is_shown(voiced.resume) and is_shown(other.resume) and not Work.running
    assert unfinished(load_model(library/'Rain.distillgan'))['done'] == 50 and 'Resume goes on' in other.status.value
    other.replace.click(); assert '(1 epoch) would be lost' in other.said; other.no.click(); assert other.said == ''
    other.resume.click(); other.settings = dict(batch_size=1, epochs=2)
    other.training.stop(now=True); other.training.wait(300)
    other.resume.click()
    assert other.training.wait(300) == 'done', other.training.error
    v = load_model(library/'Rain.distillgan').vocoder_state
    assert [h['step'] for h in v['training_metadata']['history']] == [50, 100] and 'checkpoint' not in v
    assert '<img' in other.curves.value and is_shown(other.preview) and len(other.original.sound) == len(other.preview.sound)
    assert ModelLibrary(library).get('Rain').vocoder.type == 'fourier' and is_shown(other.play) and not is_shown(other.start)
    other.play.click(); assert other.player.loaded.vocoder_state
    other.replace.click(); other.yes.click(); assert other.running and not is_shown(other.yes)
    other.stop.click(); other.stop.click(); other.training.wait(300)
    kept = load_model(library/'Rain.distillgan').vocoder_state
    assert torch.equal(kept['state_dict'][k := next(iter(v['state_dict']))], v['state_dict'][k]) and 'checkpoint' in kept        # the old one plays on
    assert loss_curves(library/'Rain.distillgan', of='vocoder').axes

def test_a_listener_that_fails_ends_no_training(voiced, monkeypatch):
    voiced.estimate.wait(300)
    monkeypatch.setattr('distill.ui.vocoder.loss_curves', lambda r: 1/0)
    voiced.settings['epochs'] = 1; voiced.start.click()
    assert voiced.training.wait(300) == 'done' and 'ZeroDivisionError' in voiced.said

def test_a_kernel_that_ends_ends_its_vocoder_training(made, sounds, tmp_path):
    path = tmp_path/'Rain.distillgan'; path.write_bytes(made.read_bytes())
    code = f"""import time; from distill.ui.vocoder import VocoderPanel
p = VocoderPanel({str(tmp_path)!r}, 'Rain', {str(sounds)!r}, batch_size=1, epochs=1000)
p.start.click()
while not p.training.records: time.sleep(.05)
p._ask()"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and r.stderr == ''
    assert unfinished(load_model(path))['done'] >= 50 and [f.name for f in tmp_path.iterdir() if f.suffix not in ('.db', '.db-wal', '.db-shm')] == ['Rain.distillgan']

def test_lazy_names_of_the_panels():
    import importlib, distill.ui
    for n, m in _lazy.items(): assert getattr(distill.ui, n) is getattr(importlib.import_module(m), n)
    r = subprocess.run([sys.executable, '-c', 'import sys, distill.ui; print(*[m for m in ("torch", "ipywidgets", "matplotlib") if m in sys.modules])'], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == ''
