"Panels without a browser: controls that do something, pages without a kernel, what goes wrong, threads that end"
import gc
import json
import subprocess
import sys
import time
import ipywidgets as W
import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances as open_widgets
from matplotlib.figure import Figure
from little import playable, put_card, save
from distill.audio.corpus import Corpus
from distill.audio.demo import demo_corpus
from distill.audio.files import Sound, read_audio, read_source, write_audio
from distill.core import UserError
from distill.features.mel import MelConfig
from distill.generation.presets import presets
from distill.generation.recipe import Recipe
from distill.library.catalog import ModelLibrary
from distill.library.history import History
from distill.library.unfinished import checkpoint_path, find_unfinished
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.models.persistence import load_model, save_model
from distill.training.lock import TrainingLock
from distill.training.loop import read_checkpoint
from distill.ui import (
    CorpusPanel, LibraryPanel, ModelPanel, Player, TrainPanel, VocoderPanel, _lazy, gallery, loss_curves)
from distill.ui.drop import write_dropped
from distill.ui.parts import close_all, is_shown
from distill.ui.table import Rows
from distill.ui.takes import Take
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
    return playable(sounds, tmp_path_factory.mktemp('made'), steps=10)

@pytest.fixture
def library(made, tmp_path):
    "The model that plays, and two cards"
    (tmp_path/'lib').mkdir()
    (tmp_path/'lib'/'Rain.distillgan').write_bytes(made.read_bytes())
    vocoder = VocoderInfo('hifigan_v2', 50, .03, '2026-01-15')
    put_card(tmp_path/'lib', 'Harbor', vocoder, epochs=20, created='2026-01-01')
    put_card(tmp_path/'lib', 'Attic', epochs=5, created='2026-01-02')
    return tmp_path/'lib'

# --- every control does something

KINDS = (W.Button, W.ToggleButton, W.ToggleButtons, W.Text, W.Dropdown, W.Checkbox, W.FloatSlider, W.BoundedIntText,
         W.BoundedFloatText, Rows)
SHOWN = 'value', 'options', 'description', 'disabled', 'icon', 'rows', 'selected', 'cards', 'points', 'title', 'peaks'

def controls(w):
    "Every widget in a tree that a person can use"
    if isinstance(w, KINDS): return [w]
    return [c for child in getattr(w, 'children', ()) for c in controls(child)]

def snapshot(w, but=None):
    "All that a tree shows and holds, but for its layout and for what the control `but` shows itself"
    if w is but: return ''
    kids = [snapshot(c, but) for c in getattr(w, 'children', ())]
    own = {k: getattr(w, k) for k in SHOWN if hasattr(w, k)}
    return json.dumps([own, is_shown(w), kids], default=repr)

def use(w):
    "Use a control as a person would"
    if isinstance(w, W.Button): w.click()
    elif isinstance(w, Rows): w.selected = w.rows[-1]['id']
    elif isinstance(w, (W.ToggleButton, W.Checkbox)): w.value = not w.value
    elif isinstance(w, (W.Dropdown, W.ToggleButtons)): w.index = (w.index + 1) % len(w.options)
    elif isinstance(w, W.Text): w.value += 'x'
    else: w.value = w.value + 1

def player(model, *folder, seconds=.2):
    "A model panel that makes short takes"
    p = ModelPanel(model, *folder)
    p.controls.seconds.value = seconds
    return p

INPUTS = {   # controls that are read when a button is pressed: which they are, and what shows that they were read
    'seconds': (lambda p: p.controls.seconds, lambda p: len(p.takes[0].sound)),
    'seed': (lambda p: p.controls.seed, lambda p: p.takes[0].sound.info['seed']),
    'count': (lambda p: p.count, lambda p: len(p.takes)),
    'next_seeds': (lambda p: p.next_seeds, lambda p: p.controls.seed.value),
    'density': (lambda p: p.controls.density, lambda p: p.takes[0].sound.info.get('density')),
    'width': (lambda p: p.controls.width, lambda p: p.takes[0].sound.samples.ndim),
    'azimuth': (lambda p: p.controls.azimuth, lambda p: p.takes[0].sound.info.get('azimuth'))}

@pytest.mark.parametrize('name', INPUTS)
def test_generate_reads_every_setting(made, name):
    control, result = INPUTS[name]
    def after(change):
        p = player(made)
        if change: use(control(p))
        p.make.click()
        return result(p)
    assert after(True) != after(False)

def test_a_recipe_is_shown_and_given_back(made, sounds):
    p = ModelPanel(made)
    slider = next(iter(p.controls.sliders.rows))
    file = str(sorted(sounds.rglob('*.wav'))[0])
    for asked in (Recipe(), Recipe(seed=4, seconds=2.), Recipe({slider: -3.5}, 1., 2, 'griffin-lim', density=3.),
                  Recipe(like=file, variation=.5), Recipe(like=file, to=file, position=.25),
                  Recipe(width=.5, azimuth=90.)):
        p.put(asked)
        assert p.recipe == asked

def test_generate_reads_the_vocoder_and_the_sound_to_vary(made, sounds):
    p = player(made)
    c = p.controls
    p.next_seeds.value = False
    c.vocoder.value = 'griffin-lim'
    p.make.click()
    assert p.takes[0].sound.info['vocoder'] == 'griffin-lim'
    c.vocoder.value = 'own'
    p.make.click()
    assert 'no vocoder of its own' in p.message
    c.vocoder.value = 'auto'
    p.make.click()
    assert p.takes[0].sound.info['vocoder'] == 'base'
    file = sorted(sounds.rglob('*.wav'))[0]
    c.like.value = str(file)
    length = c.seconds.value
    c.variation.value = 0.
    p.make.click()
    same = p.takes[0].sound
    assert len(same) == round(length*48_000) and same.info['like']['file'] == str(file) and is_shown(c.variation)
    p.make.click()
    assert (np.asarray(p.takes[0].sound) == np.asarray(same)).all()
    c.variation.value = 1.
    p.make.click()
    assert len(p.takes[0].sound) == len(same) and (np.asarray(p.takes[0].sound) != np.asarray(same)).any()

def test_takes_go_into_the_history(library, tmp_path):
    p = player(library/'Rain.distillgan', tmp_path/'out')
    p.count.value = 2
    p.make.click()
    p.takes[0].view.keep.click()
    p.make.click()
    df = History(library).df()
    assert len(df) == 4 and list(df.seed[df.kept]) == [0]
    kept = p.kept[0]
    assert torch.equal(read_audio(kept.file)[0], torch.from_numpy(p.history.sound(kept.file).samples)[None])
    assert p.past.size.value.count(p.history.caption) == 1
    assert p.history.caption.startswith('4 takes') and p.history.caption.endswith('of 1.0 GB')
    p.past.query.value = 'rain'
    assert p.past.found.value.count('<tr>') == 5 and p.past.found.value.count('kept/') == 1
    p.past.query.value = '<b>'
    assert 'No take matches' in p.past.found.value and '<b>' not in p.past.found.value
    kept.view.drop.click()
    assert not History(library).df().kept.any()
    p.history.limit = sum(History(library).df()['size'])
    p.make.click()
    assert 'history is full' in p.message and len(p.takes) == 2

def test_a_take_that_is_gone_leaves_nothing(made, tmp_path):
    "However many takes there have been: no widget, no take, no figure, kept and fetched ones included"
    p = player(made, tmp_path/'out', seconds=.1)
    p.count.value = 2
    def use():
        p.make.click()
        p.takes[0].view.keep.click()
        p.past.query.value = 'rain'
        p.past.menu.value = p.past.menu.options[-1]
        p.past.fetch.click()
        p.kept[0].view.drop.click()
        p.past.query.value = ''
        gc.collect()
        alive = [o for o in gc.get_objects() if type(o) in (Take, Figure)]
        return len(open_widgets), len(alive)
    use()
    before = use()
    assert use() == use() == before

def test_a_panel_that_is_closed_leaves_no_widget(library, sounds):
    for make in (lambda: ModelPanel(library/'Rain.distillgan'), lambda: LibraryPanel(library),
                 lambda: CorpusPanel(sounds), lambda: TrainPanel(sounds, 'x', library), lambda: VocoderPanel(library)):
        before = set(open_widgets)
        close_all(make())
        assert set(open_widgets) == before

def test_takes_without_a_history(library, tmp_path):
    "What cannot be written is said, and the takes are there to hear"
    (library/'history').write_text('in the way')
    p = player(library/'Rain.distillgan', tmp_path/'out')
    p.count.value = 2
    p.make.click()
    assert len(p.takes) == 2 and isinstance(p.error, UserError)
    p.takes[0].view.vary.click()
    assert 'not in the history' in p.message
    p.takes[0].view.export.click()
    assert 'Exported' in p.message
    p.take_list.folder.value = ' '
    p.takes[0].view.export.click()
    assert 'no folder to export to' in p.message

@pytest.fixture
def pair(made, tmp_path):
    "A panel with another model to blend with, one whose mels have other settings, and one that is only a card"
    (tmp_path/'lib').mkdir()
    (tmp_path/'lib'/'Rain.distillgan').write_bytes(made.read_bytes())
    m = load_model(made)
    other = save_model(m.net, m.mel.cfg, {}, ModelMetadata('Drizzle'), tmp_path/'lib', m.analysis)
    save(tmp_path/'lib', 'Odd')
    put_card(tmp_path/'lib', 'Drizzle')
    p = player(tmp_path/'lib'/'Rain.distillgan', tmp_path/'out')
    p.next_seeds.value = False
    return p, other

def test_a_morph_in_the_panel(pair, sounds):
    p, _ = pair
    c = p.controls
    a, b = [str(f) for f in sorted(sounds.rglob('*.wav'))[::5][:2]]
    first, last = [len(read_source(f).samples) for f in (a, b)]
    c.to.value = b
    p.make.click()
    assert 'needs a sound to begin from' in p.message and not p.takes
    c.like.value = a
    assert is_shown(c.position) and is_shown(c.hint) and not is_shown(c.variation) and c.hint.value in p._repr_html_()
    lengths = []
    for position in (0., .25, 1.):
        c.position.value = position
        lengths.append(round(c.seconds.value*48_000))
    assert lengths == [first, round(.75*first + .25*last), last]
    c.position.value = .25
    c.seconds.value, c.density.value = .3, 4.           # the length that is typed in last
    c.sliders['other 1'].position.value = 5.
    asked = p.recipe
    p.make.click()
    take = p.takes[0]
    assert len(take.sound) == 14_400 and take.sound.info['sliders'] == {} and take.name == 'Rain morph 0.25'
    assert take.view.caption.value.count(f'from {a.split("/")[-1]} to {b.split("/")[-1]}, position 0.25') == 1
    p.slots.switch.value = 'B'
    c.to.value = ''
    assert not is_shown(c.position) and is_shown(c.variation) and p.recipe.to is None
    p.slots.switch.value = 'A'
    assert p.recipe == asked
    c.to.value = c.like.value = ''
    take.view.recall.click()
    assert p.recipe == asked
    p.make.click()
    assert p.takes[0].sound.info == take.sound.info and (p.takes[0].sound.samples == take.sound.samples).all()
    p.takes[0].view.vary.click()
    assert c.to.value == '' and c.like.value.endswith('.flac')
    c.to.value = 'nothing.wav'
    assert 'nothing.wav' in p.message

def test_a_given_sound_that_cancels_is_refused(pair, sounds, tmp_path):
    "By the sentence that a corpus has for it, wherever a panel takes a sound"
    p, _ = pair
    x = .5*np.sin(np.arange(48_000)/20)
    wav = str(write_audio(tmp_path/'inverted.wav', np.stack([x, -x])))
    good = str(sorted(sounds.rglob('*.wav'))[0])
    for fields in ((p.controls.like,), (p.controls.like, p.controls.to)):
        for field in fields: field.value = good
        fields[-1].value = wav
        assert 'cancel each other' in p.message
        p.show_message('')
        p.make.click()
        assert 'cancel each other' in p.message and not p.takes
    p.report.sounds.value = str(tmp_path)
    p.put(Recipe(seconds=.2))
    p.make.click()
    assert 'cancel each other' in p.message and p.takes[0].nearness == ''
    assert 'cancel each other' in CorpusPanel(tmp_path).message

def test_a_preset_has_no_sounds(pair, sounds):
    p, _ = pair
    file = str(sorted(sounds.rglob('*.wav'))[0])
    p.put(Recipe({'other 1': 5.}, .3, seed=3, like=file, density=4.))
    p.presets.name.value = 'far'
    p.presets.save.click()
    assert Recipe(**presets(p.model)['far']) == Recipe({'other 1': 5.}, .3, density=4.)
    p.put(Recipe(seed=9))
    p.presets.load.click()
    assert p.recipe == Recipe({'other 1': 5.}, .3, seed=9, density=4.)

def test_a_blend_in_the_panel(pair, sounds):
    p, other = pair
    partner = p.controls.partner
    assert is_shown(partner.menu) and not is_shown(partner.weight)
    names = dict(partner.menu.options)
    drizzle = f'Drizzle ({other.name})'
    assert list(names)[0] == 'none' and 'Odd' in names and drizzle in names and len(names) == 4
    card = next(name for name in names if 'Drizzle' in name and name != drizzle)
    for wrong, why in (('Odd', 'different settings'), (card, 'Not a valid')):
        partner.menu.value = names[wrong]
        assert why in p.message and partner.menu.value == '' and not is_shown(partner.weight)
    partner.menu.value, partner.weight.value = names[drizzle], .3
    asked = p.recipe
    p.make.click()
    take = p.takes[0]
    assert [(m['model'], m['weight']) for m in take.sound.info['models']] == [('Rain', .7), ('Drizzle', .3)]
    assert '0.7 Rain + 0.3 Drizzle · all sliders free' in take.view.caption.value and 'Drizzle' in p._repr_html_()
    partner.menu.value, partner.weight.value = '', 1.
    take.view.recall.click()
    assert p.recipe == asked and is_shown(partner.weight)
    p.controls.like.value = p.controls.to.value = str(sorted(sounds.rglob('*.wav'))[0])
    p.make.click()
    assert 'cannot be made at once' in p.message and p.takes == [take]
    p.controls.to.value = ''
    p.make.click()
    assert p.takes[0].sound.info['like'] and len(p.takes[0].sound.info['models']) == 2
    other.unlink()
    partner.menu.value = ''
    partner.menu.value = names[drizzle]
    p.make.click()
    assert p.message == ''                              # it is loaded already

def test_takes_tell_how_near_they_are(made, sounds, tmp_path, monkeypatch):
    import distill.ui.report as room
    read = []
    p = player(made, tmp_path/'out')
    p.make.click()
    assert p.takes[0].nearness == ''
    monkeypatch.setattr(room, 'Nearness', lambda corpus, real=room.Nearness: read.append(corpus) or real(corpus))
    p.report.sounds.value = str(sounds)
    p.make.click()
    p.count.value = 2
    p.make.click()
    assert len(read) == 1
    assert all(t.nearness.split(' (')[0] in ('a copy', 'near', 'unlike the corpus') for t in p.takes)
    assert all(t.nearness in t.view.caption.value for t in p.takes)
    near = room.Nearness(Corpus(sounds))
    assert [t.nearness for t in p.takes] == [near.text(near(t.sound)) for t in p.takes]
    for folder in ('nowhere', str(made.parent)):
        p.report.sounds.value = folder
        p.make.click()
        assert 'cannot be compared' in p.message and folder in p.message and [t.nearness for t in p.takes] == ['', '']
        p.make.click()
        assert p.message == '' and len(p.takes) == 2

def test_a_take_is_fetched_from_the_history(pair):
    p, other = pair
    past = p.past
    p.count.value = 3
    p.make.click()
    first = p.takes[1]
    p.count.value = 1
    p.make.click()
    assert not is_shown(past.menu) and not is_shown(past.fetch)
    past.query.value = 'rain'
    assert is_shown(past.fetch) and len(past.menu.options) == 4
    past.menu.value = first.file.stem
    past.fetch.click()
    past.fetch.click()
    assert len(p.takes) == 2 and not is_shown(p.takes[0].view.recall) and p.takes[0].name == first.name
    assert np.abs(p.takes[0].sound.samples - first.sound.samples).max() <= 2**-23
    p.takes[0].view.keep.click()
    df = p.history.df()
    assert list(df.seed[df.kept]) == [first.sound.info['seed']] and past.menu.value == first.file.stem
    p.kept[0].view.vary.click()
    assert 'kept' in p.controls.like.value
    p.history.add(Sound(np.zeros((2, 4410), 'float32'), 44_100))          # says little of itself
    past.query.value = 'generate'
    past.menu.value = next(t for t in past.menu.options if 'sound' in t)
    past.fetch.click()
    assert p.takes[0].name == 'sound' and p.takes[0].sound.rate == 44_100
    past.query.value = 'sparkle'
    assert not is_shown(past.fetch)

def test_every_control_of_the_model_panel(made, tmp_path):
    p = player(made, tmp_path/'out')
    c = p.controls
    p.make.click()
    p.make.click()
    p.takes[0].view.keep.click()
    p.make.click()
    read = [control(p) for control, _ in INPUTS.values()] + [r.lock for r in c.sliders.rows.values()]
    read += [c.vocoder, c.like, c.variation, p.take_list.format, p.take_list.folder, p.slots.switch, p.report.sounds]
    read += [p.presets.name, p.presets.menu, p.presets.load, p.presets.delete]
    for w in controls(p):
        if w in read or not is_shown(w) or w not in controls(p): continue       # hidden, or in a take that was replaced
        p.show_message('')
        c.sliders.randomize.click()
        before = snapshot(p, w), state_of(c)
        use(w)
        assert (snapshot(p, w), state_of(c)) != before, f'{w.description or w.tooltip} does nothing'

def state_of(c):
    "What the controls of a recipe show, whether a sound can be made of it or not"
    return c.sliders.values(), c.to.value, c.partner.menu.value

def test_exports_have_every_format(made, tmp_path):
    p = player(made, tmp_path/'out')
    for fmt in ('wav', 'flac', 'mp3'):
        p.take_list.format.value = fmt
        p.make.click()
        p.takes[0].view.keep.click()
        p.kept[0].view.export.click()
        name = p.kept[0].view.player.title.replace(' ', '_') + f'.{fmt}'
        assert name in {f.name for f in (tmp_path/'out').iterdir()}
    p.take_list.export_kept.click()
    assert len(list((tmp_path/'out').iterdir())) == 6 and '3 takes' in p.message

def test_presets_in_the_panel(library):
    path = library/'Rain.distillgan'
    p = ModelPanel(path)
    p.controls.sliders.randomize.click()
    p.presets.name.value = 'one'
    p.presets.save.click()
    p.controls.sliders.free.click()
    p.presets.name.value = 'two'
    p.presets.save.click()
    assert p.presets.menu.value == 'two' and not p.recipe.sliders
    p.presets.menu.value = 'one'
    p.presets.load.click()
    assert p.recipe.sliders
    p.presets.delete.click()
    assert list(presets(path)) == ['two'] and ModelPanel(path).presets.menu.options == ('two',)

def test_slots_and_locks(made):
    p = ModelPanel(made)
    sliders = p.controls.sliders
    sliders.randomize.click()
    a = p.recipe
    p.slots.switch.value = 'B'
    sliders.center.click()
    b = p.recipe
    p.slots.switch.value = 'A'
    assert p.recipe == a != b
    for r in sliders.rows.values(): r.lock.value = True
    for button in (sliders.randomize, sliders.free, sliders.center): button.click()
    assert p.recipe == a

def test_every_control_of_the_library_panel(library):
    p = LibraryPanel(library, per_page=2)
    d = p.details
    p.table.select('Rain')
    for w in controls(p):
        if w in (d.name, d.tags, d.undo) or getattr(w, 'disabled', False): continue   # read by the buttons beside them
        p.table.select('Harbor' if isinstance(w, Rows) else 'Rain')
        p.show_message('')
        if w is d.rename: d.name.value = 'Drizzle'
        if w is d.tag: d.tags.value = 'wet'
        before = snapshot(p, w)
        use(w)
        assert snapshot(p, w) != before or w is p.table.again, f'{w.description} does nothing'
        if w is p.table.query: p.table.query.value = ''
        if w is p.table.vocoder: p.table.vocoder.index = 0
        if w is d.rename:
            d.name.value = 'Rain'
            d.rename.click()
    assert is_shown(d.undo)
    n = len(p.library)
    d.undo.click()
    assert len(p.library) == n + 1
    put_card(library, 'New')
    p.table.again.click()
    assert len(p.table.found) == len(p.library)

def test_every_button_has_a_handler(made, library, sounds):
    panels = (ModelPanel(made), LibraryPanel(library), CorpusPanel(sounds), TrainPanel(sounds, 'x', library),
              VocoderPanel(library))
    for p in panels:
        for c in controls(p):
            if isinstance(c, W.Button): assert len(c._click_handlers.callbacks) == 1, c.description
    for p in panels[1:]:
        parts = [vars(p), *(vars(part) for part in vars(p).values() if type(part).__module__.startswith('distill.ui'))]
        held = {w for part in parts for w in part.values() if isinstance(w, KINDS)}
        assert all(c in held for c in controls(p)), 'a control nobody holds can be read by nobody'

# --- what a panel is asked for

def test_a_model_by_name_id_path_or_itself(library, monkeypatch):
    monkeypatch.setenv('DISTILL_MODELS', str(library))
    model = load_model('Rain')
    id = model.metadata.model_id
    for ref in ('Rain', 'rain', id, id[:8], model.path, str(model.path), model):
        assert ModelPanel(ref).model.metadata.model_id == model.metadata.model_id
        assert VocoderPanel(model=ref).model.metadata.model_id == model.metadata.model_id
    assert ModelPanel(model).model is model
    with pytest.raises(UserError): ModelPanel('nobody')

def test_an_empty_field_is_no_folder(sounds, library, monkeypatch):
    "Never the working directory, in panels and in Python"
    monkeypatch.chdir(sounds)
    before = sorted(sounds.rglob('*'))
    for ask in (Corpus, LibraryPanel, lambda folder: write_dropped(folder, 'x.wav', b'x')):
        with pytest.raises(UserError): ask('')
    for panel in (CorpusPanel, TrainPanel, VocoderPanel):
        with pytest.raises(UserError): panel(into='')
    training = Training('', 'x', library)
    assert training.wait(60) == 'failed' and isinstance(training.error, UserError)
    assert sorted(sounds.rglob('*')) == before
    for p in (CorpusPanel(), TrainPanel(models_dir=library), VocoderPanel(library)):
        p.sounds.field.value = '  '
        assert p.corpus is None and p.message == ''
        p.sounds.field.value = ''
        assert p.corpus is None and p.message == ''
    for p in (TrainPanel(name='x', models_dir=library), VocoderPanel(library, 'Rain')):
        p.start.click()
        assert 'enter a folder' in p.message and not p.running
    p = player(library/'Rain.distillgan', '')
    p.report.measure.click()
    assert 'needs sounds' in p.message
    for field in (p.report.sounds, p.controls.like, p.controls.to): field.value = '  '
    p.make.click()
    assert p.message == '' and p.takes[0].nearness == '' and p.recipe.like is p.recipe.to is None
    p.takes[0].view.export.click()
    assert 'no folder to export to' in p.message

def test_a_corpus_that_is_open_is_not_read_again(sounds, library):
    corpus = Corpus(sounds)
    for p in (CorpusPanel(corpus), TrainPanel(corpus, 'x', library), VocoderPanel(library, sounds=corpus)):
        assert p.corpus is corpus and p.sounds.folder == str(sounds)
        p.sounds.again.click()
        assert p.corpus is not corpus and p.corpus.fingerprint == corpus.fingerprint

def test_sounds_are_dropped_on_every_panel_that_needs_some(sounds, library, tmp_path):
    data = next(sounds.rglob('*.wav')).read_bytes()
    panels = CorpusPanel, TrainPanel, VocoderPanel
    for i, p in enumerate([panel(into=tmp_path/panel.__name__) for panel in panels]):
        p.sounds.drop.take(f'{i}.wav', data)
        assert p.corpus.names == [f'{i}.wav'] and p.sounds.folder == str(tmp_path/type(p).__name__)

# --- without a kernel

def test_still_pages(made, library, sounds):
    "Tables, images and players, and nothing that lives"
    m, l, c, t, v = (ModelPanel(made), LibraryPanel(library), CorpusPanel(sounds), TrainPanel(sounds, 'x', library),
                     VocoderPanel(library, 'Rain'))
    m.make.click()
    c.map.selected = 0
    l.table.select('Rain')
    wanted = {v: ('Rain', 'base vocoder', 'Choose a model and a folder'), m: ('<audio', '<img', 'of variance'),
              l: ('<table', 'HiFi-GAN', 'Harbor'), c: ('<img', '<audio', '16 of 16 files'), t: ('steps, about',)}
    for p, wants in wanted.items():
        d = p._repr_mimebundle_()
        assert all(w in d['text/html'] for w in wants)
        assert p.model_id not in d['text/html'] and len(d['text/html']) < 300_000
        assert len(repr(p)) < 120 and d['text/plain'] == repr(p)
    l.table.view.value = 'cards'
    assert '50 epochs · loss 0.0300' in l._repr_html_() and '#d1fae5' in l._repr_html_()

def test_a_map_shows_how_far_it_is(sounds, made):
    "From the first sound to the last, and what has been measured is not measured again"
    p, messages = CorpusPanel(model=made), []
    p.message_box.observe(lambda _: messages.append((p.message, is_shown(p.summary), is_shown(p.map))), 'value')
    p.sounds.field.value = str(sounds)
    measured = [f'Measuring the sounds: {n} of 16' for n in range(1, 17)]
    reading = [text.replace('Measuring', 'Reading') for text in measured]
    assert [text for text, *_ in messages] == ['Reading the sounds …', *reading, '',
                                               'Measuring the sounds …', *measured, '']
    assert all(summary and not map for text, summary, map in messages if text.startswith('Measuring'))
    assert is_shown(p.map) and len(p.map.points) == 16
    messages.clear()
    p.view.index = 1
    assert [text for text, *_ in messages][1:-1] == measured
    messages.clear()
    for view in (0, 1): p.view.index = view
    assert messages == []

def test_texts_of_strangers_are_not_html(library):
    "A model's name comes from a file, and a file from anybody"
    evil = '<img src=x onerror=alert(1)>'
    put_card(library, evil, tags=(evil,), corpus=evil, description=evil)
    p = LibraryPanel(library)
    p.table.select(next(e for e in p.table.found if e.name == evil))
    p.details.mark.click()
    p.table.select('Rain')
    for view in ('table', 'cards'):
        p.table.view.value = view
        assert '<img src=x' not in p._repr_html_() + p.details.facts.value + json.dumps(p.table.rows.rows)

# --- what is heard

def test_parts_make_the_whole(tmp_path):
    "A long sound travels in parts that join to what is saved, to the sample"
    x = np.random.default_rng(0).uniform(-.9, .9, round(23.4567*48_000)).astype('float32')
    p, heard = Player(Sound(x), 'long'), []
    for k in range(3):
        (tmp_path/'p.flac').write_bytes(p.part(k))
        heard.append(read_audio(tmp_path/'p.flac')[0])
    p.sound.save(tmp_path/'saved.wav')
    assert torch.equal(torch.cat(heard, 1), read_audio(tmp_path/'saved.wav')[0])

def test_a_download_is_encoded_once(tmp_path, monkeypatch):
    "However many pieces it has; they are the file that `save` writes, and they are forgotten afterwards"
    x = np.random.default_rng(0).uniform(-.9, .9, (2, 20*48_000)).astype('float32')
    p, saved, answers = Player(Sound(x), 'long'), [], []
    monkeypatch.setattr('distill.ui.player._PIECE_BYTES', 2**20)
    monkeypatch.setattr(Sound, 'save', lambda *args, real=Sound.save, **kw: saved.append(args) or real(*args, **kw))
    p.send = lambda answer, buffers: answers.append((answer, buffers[0]))
    for k in range(6): p._answer(p, dict(piece=k), [])
    assert len(saved) == 1 and p._wav == b'' and {answer['name'] for answer, _ in answers} == {'long.wav'}
    assert [(answer['piece'], answer['of']) for answer, _ in answers] == [(k, 6) for k in range(6)]
    (tmp_path/'received.wav').write_bytes(b''.join(data for _, data in answers))
    p.sound.save(tmp_path/'saved.wav')
    assert torch.equal(read_audio(tmp_path/'received.wav')[0], read_audio(tmp_path/'saved.wav')[0])
    p.put(Sound([np.nan]*4800))
    p._answer(p, dict(piece=0), [])
    assert 'not numbers' in answers[-1][0]['error']

def test_channels_that_cancel_are_seen():
    side = np.sin(np.arange(4800)/20).astype('float32')
    both, one = Player(Sound(np.stack([side, -side]))), Player(Sound(side))
    assert max(np.frombuffer(both.peaks, 'int8')) == max(np.frombuffer(one.peaks, 'int8')) == 127
    image = lambda x: gallery(Sound(x), titles=['x']).data.split('<audio')[0]
    assert image(np.stack([side, -side])) == image(side) != image(0*side)

def test_ten_minutes_do_not_bloat_the_page():
    p = Player(Sound(np.zeros(600*48_000, 'float32')), 'ten minutes')
    state = {k: v for k, v in p.get_state().items() if k not in ('_esm', '_css')}
    live = sum(len(v) if isinstance(v, bytes) else len(json.dumps(v, default=str)) for v in state.values())
    assert live < 3000 and len(p.static_html()) < 200_000

def test_a_stereo_sound_plays(tmp_path):
    p = Player(Sound(np.stack([np.linspace(-.5, .5, 4800), np.zeros(4800)]).astype('float32')))
    (tmp_path/'p.flac').write_bytes(p.part(0))
    assert read_audio(tmp_path/'p.flac')[0].shape == (2, 4800)

# --- what goes wrong

def test_a_bug_is_shown_and_kept(library, monkeypatch):
    p = LibraryPanel(library)
    monkeypatch.setattr(p.library, 'delete', lambda e: 1/0)
    p.table.select('Rain')
    with pytest.raises(ZeroDivisionError): p.attempt(p.details.remove)
    assert 'ZeroDivisionError' in p.message and isinstance(p.error, ZeroDivisionError)

def test_a_model_without_sliders(tmp_path):
    p = ModelPanel(save(tmp_path))
    p.make.click()
    assert 'has no latent analysis' in p.message and isinstance(p.error, UserError)
    with pytest.raises(UserError, match='no record of its training'): loss_curves([])

def test_a_model_that_somebody_else_deleted(library):
    p = LibraryPanel(library)
    d = p.details
    p.table.select('Rain')
    (library/'Rain.distillgan').unlink()
    for b in (d.preview, d.load, d.copy, d.rename, d.delete):
        b.click()
        assert isinstance(p.error, UserError) and 'Rain' in p.message

@pytest.mark.parametrize('name', ['../x.wav', '/x.wav', 'a/../../x.wav', '.hidden', '', 'a\\..\\x.wav'])
def test_dropped_names_lead_nowhere_else(tmp_path, name):
    with pytest.raises(UserError): write_dropped(tmp_path/'in', name, b'x')
    assert not list(tmp_path.rglob('*.*'))

# --- the library at size

def test_search_in_two_thousand_models(tmp_path):
    for i in range(2000):
        put_card(tmp_path, f'{("rain", "wind", "bell")[i % 3]} {i}', corpus=f'tape {i % 9}', created='2026-01-01')
    p = LibraryPanel(tmp_path)
    for query in ('r', 'ra', 'rain 7', 'tape 3', 'none of it', ''):
        p.table.query.value = query
        found = {e.model_id for e in p.library.search(query)}            # what the library itself finds
        assert {e.model_id for e in p.table.found} == found
        assert len(p.table.rows.rows) <= 15

# --- trainings

def test_a_training_that_fails_says_so(sounds, tmp_path):
    p = TrainPanel(sounds, 'x', tmp_path/'file')
    (tmp_path/'file').write_text('')
    p.start.click()
    p.training.wait(300)
    assert p.training.state == 'failed' and 'Cannot write' in p.message and not Work.running

def test_stop_now_leaves_a_whole_checkpoint(sounds, tmp_path):
    p = TrainPanel(sounds, 'x', tmp_path)
    p.steps.value = 100
    p.start.click()
    other = TrainPanel(sounds, 'x', tmp_path)
    other.start.click()
    assert 'is running' in other.message                  # found the one that runs, and starts no second
    while not p.training.checkpoint.exists(): time.sleep(.05)
    p.stop.click()
    assert p.stop.description == 'Stop now'
    p.stop.click()
    assert p.training.wait(300) == 'stopped' and is_shown(p.resume) and is_shown(p.discard)
    assert read_checkpoint(p.training.checkpoint)['done'] == 0
    assert unfinished_model(p.training.checkpoint).net.cfg.n_mels == MelConfig().n_mels
    p.discard.click()
    assert is_shown(p.start) and not p.training.checkpoint.exists()

def test_unfinished_trainings_in_the_library_panel(library):
    "What was interrupted, and what runs, with size and age; names of strangers are not HTML"
    p = LibraryPanel(library)
    assert p.table.unfinished.value == ''
    storm, rain = checkpoint_path(library, '<b>storm'), checkpoint_path(library, 'rain')
    storm.parent.mkdir()
    storm.write_bytes(b'x'*2_000_000)
    with TrainingLock(rain.with_name(f'{rain.name}.lock'), 'rain', 'sounds/rain'):
        p.table.again.click()
    shown = p.table.unfinished.value
    assert 'Unfinished trainings (2)' in shown and 'running in this process' in shown and 'interrupted' in shown
    assert '2.0 MB' in shown and '0 s ago' in shown and 'sounds/rain' in shown and '<b>' not in shown
    storm.unlink()
    p.table.again.click()
    assert p.table.unfinished.value == ''

def test_a_kernel_that_ends_ends_its_training(sounds, tmp_path):
    code = f"""import time
from distill.ui.train import Training
t = Training({str(sounds)!r}, 'x', {str(tmp_path)!r}, steps=1000)
while not t.checkpoint.exists(): time.sleep(.05)
time.sleep(.2)"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and r.stderr == ''
    assert read_checkpoint(tmp_path/'checkpoints'/'x.pt')['done'] == 0
    assert {f.name for f in (tmp_path/'checkpoints').iterdir()} == {'x.pt', 'x.pt.lock'}   # and whose it was
    assert find_unfinished('x', tmp_path).owner is None

@pytest.fixture
def voiced(library, sounds):
    "A panel for the model that plays, quick to train"
    return VocoderPanel(library, 'Rain', sounds, batch_size=1, epochs=2)

def test_a_vocoder_training_says_what_it_will_take(voiced, library, sounds):
    assert 'Estimating' in voiced.cost.value
    voiced.estimate.wait(300)
    assert '100 steps, about' in voiced.cost.value and 'not likely to be enough' in voiced.cost.value
    voiced.minutes.value = .0001
    voiced.type.value = 'hifigan_v2'                       # chosen while the first is looked at
    while voiced.estimate.state == 'running' or voiced.estimate.settings['type'] == 'fourier': time.sleep(.05)
    voiced.estimate.wait(300)
    assert '1 step,' in voiced.cost.value
    assert load_model(library/'Rain.distillgan').vocoder_state is None        # asking wrote nothing
    p = VocoderPanel(library, 'Attic', sounds)
    assert isinstance(p.error, UserError) and p.model is None
    q = VocoderPanel(library, 'Rain', sounds, discriminators='many')
    q.estimate.wait(300)
    assert 'discriminators' in q.message

def test_a_vocoder_is_trained_stopped_resumed_and_replaced(voiced, library, sounds):
    path = library/'Rain.distillgan'
    voiced.estimate.wait(300)
    voiced.every.value = 1
    hidden = voiced.stop, voiced.resume, voiced.replace, voiced.yes, voiced.no, voiced.play
    for c in controls(voiced): assert is_shown(c) == (c not in hidden), c.description
    voiced.start.click()
    other = VocoderPanel(library)                          # follows what runs
    assert other.training is voiced.training and other.sounds.field.disabled
    with pytest.raises(UserError, match='is running'): VocoderTraining(voiced.model, voiced.corpus)
    while len(voiced.training.records) < 1: time.sleep(.05)
    voiced.stop.click()
    assert voiced.stop.description == 'Stop now'
    voiced.stop.click()
    assert voiced.training.wait(300) == 'stopped' and is_shown(voiced.resume) and is_shown(other.resume)
    assert not Work.running
    assert unfinished(load_model(path))['done'] == 50 and 'Resume continues' in other.progress.status.value
    other.replace.click()
    assert '(1 epoch) would be lost' in other.message
    other.no.click()
    assert other.message == ''
    other.settings = dict(batch_size=1, epochs=2)
    other.resume.click()
    other.training.stop(now=True)
    other.training.wait(300)
    other.resume.click()
    assert other.training.wait(300) == 'done', other.training.error
    v = load_model(path).vocoder_state
    assert [h['step'] for h in v['training_metadata']['history']] == [50, 100] and 'checkpoint' not in v
    progress = other.progress
    assert '<img' in progress.curves.value and is_shown(progress.preview)
    assert len(progress.original.sound) == len(progress.preview.sound)
    assert ModelLibrary(library).get('Rain').vocoder.type == 'fourier' and is_shown(other.play)
    assert not is_shown(other.start)
    other.play.click()
    assert other.player.model.vocoder_state
    other.replace.click()
    other.yes.click()
    assert other.running and not is_shown(other.yes)
    other.stop.click()
    other.stop.click()
    other.training.wait(300)
    kept = load_model(path).vocoder_state                  # the old one plays on
    key = next(iter(v['state_dict']))
    assert torch.equal(kept['state_dict'][key], v['state_dict'][key]) and 'checkpoint' in kept
    assert loss_curves(path, of='vocoder').axes

def test_a_listener_that_fails_ends_no_training(voiced, monkeypatch):
    voiced.estimate.wait(300)
    monkeypatch.setattr('distill.ui.progress.loss_curves', lambda r: 1/0)
    voiced.settings['epochs'] = 1
    voiced.start.click()
    assert voiced.training.wait(300) == 'done' and 'ZeroDivisionError' in voiced.message

def test_a_kernel_that_ends_ends_its_vocoder_training(made, sounds, tmp_path):
    path = tmp_path/'Rain.distillgan'
    path.write_bytes(made.read_bytes())
    code = f"""import time
from distill.ui.vocoder import VocoderPanel
p = VocoderPanel({str(tmp_path)!r}, 'Rain', {str(sounds)!r}, batch_size=1, epochs=1000)
p.start.click()
while not p.training.records: time.sleep(.05)
p._estimate()"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and r.stderr == ''
    assert unfinished(load_model(path))['done'] >= 50
    left = [f.name for f in tmp_path.iterdir() if f.suffix not in ('.db', '.db-wal', '.db-shm')]
    assert left == ['Rain.distillgan']

def test_lazy_names_of_the_panels():
    import importlib, distill.ui
    for n, m in _lazy.items(): assert getattr(distill.ui, n) is getattr(importlib.import_module(m), n)
    code = 'import sys, distill.ui; print(*[m for m in ("torch", "ipywidgets", "matplotlib") if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == ''
