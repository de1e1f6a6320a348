"Generating: one code path for Python, command and panel; long sounds in bounded memory; takes from several processes; whatever is saved can be made again"
import json, os, subprocess, sys
from dataclasses import asdict, fields
import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import HealthCheck, given as drawn, settings, strategies as st
from typer.testing import CliRunner
from distill.audio.corpus import Corpus
from distill.audio.files import Sound, read_audio
from distill.core import UserError, make_generator
from distill.audio.demo import demo_corpus
from distill.generation.sounds import blend, generate, morph, save_sound
from distill.generation.replay import differs, replay
from distill.latent.analysis import analyze
from distill.models.metadata import ModelMetadata
from distill.models.persistence import load_model, save_model
from distill.models.vae import VAEConfig
from distill.features.nearness import Nearness
from distill.audio.space import CEILING, limit
from distill.audio.meter import meter
from distill.library.history import History
from distill.generation.presets import presets, save_preset
from distill.generation.recipe import Recipe
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining
from distill.training.loop import fit

TOP = 10**(CEILING/20)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A corpus, a library, and a model that plays"
    home = tmp_path_factory.mktemp('generation')
    for f in demo_corpus(home/'sounds')[::2]: f.unlink()
    task = VAETraining(Corpus(home/'sounds'), vae=VAEConfig(channels=16), cfg=TrainConfig(batch=8, epoch=10))
    for _ in fit(task, steps=30): pass
    path = save_model(task.net, task.mel.cfg, asdict(task.cfg), ModelMetadata('Rain'), home/'models', analyze(task.model, task.mels))
    return home, path


# --- one path

@pytest.mark.parametrize('space', [{}, dict(density=6., width=.4, azimuth=-30.)])
def test_python_command_and_panel_give_the_same_samples(place, tmp_path, space):
    "As options, and as a preset that the panel saved"
    from distill.cli import app
    from distill.ui import ModelPanel
    home, path = place
    model = load_model(path)
    ours = np.asarray(generate(model, {'other 1': 3.5}, .7, 11, **space))
    panel = ModelPanel(load_model(path))
    panel.put(Recipe({'other 1': 3.5}, .7, 11, **space))
    panel.make.click()
    assert np.array_equal(np.asarray(panel.takes[0].sound), ours)
    panel.presets.name.value = 'all of it'
    panel.presets.save.click()
    options = ['--slider', 'other 1=3.5', '--seconds', '.7', *(w for k, v in space.items() for w in (f'--{k}', str(v)))]
    for way in (options, ['--preset', 'all of it']):
        r = CliRunner().invoke(app, ['generate', str(path), *way, '--seed', '11', '--bits', '32', '--out', str(tmp_path), '--models-dir', str(home/'models'), '--no-history'])
        assert r.exit_code == 0, r.output
        assert np.array_equal(read_audio(r.stdout.strip())[0].squeeze(0).numpy(), ours)


def test_the_command_takes_every_option_of_a_recipe():
    from distill.cli.generate import RecipeOptions
    missing = {f.name for f in fields(Recipe)} - {f.name for f in fields(RecipeOptions)}
    assert missing == {'to', 'position', 'models'}     # the options of morph and blend


@pytest.fixture(scope='module')
def twin(place):
    "Another model of the library, with the same mels and other weights"
    home, path = place
    m = load_model(path)
    task = VAETraining(Corpus(home/'sounds'), vae=VAEConfig(channels=16), cfg=TrainConfig(batch=8, epoch=10, seed=1))
    for _ in fit(task, steps=10): pass
    return save_model(task.model, m.mel.cfg, {}, ModelMetadata('Bells'), home/'models', analyze(task.model, task.mels))


@pytest.mark.parametrize('space', [{}, dict(width=.4, azimuth=-30., vocoder='griffin-lim')])
@pytest.mark.parametrize('made', ['morph', 'blend'])
def test_morph_and_blend_give_the_same_samples_at_every_door(place, twin, tmp_path, made, space):
    "Python, command, panel, and replay of what the command and the panel have written"
    from distill.cli import app
    from distill.ui import ModelPanel
    home, path = place
    model, (a, b) = load_model(path), [str(f) for f in sorted((home/'sounds').rglob('*.wav'))[::4][:2]]
    panel = ModelPanel(load_model(path))
    controls = panel.controls
    controls.put(Recipe(seed=11, **space))
    if made == 'morph':
        ours, args = morph(model, a, b, .3, seed=11, **space), [str(path), a, b, '--position', '.3']
        controls.like.value, controls.to.value, controls.position.value = a, b, .3
    else:
        ours = blend([(model, .65), (load_model(twin), .35)], {'other 1': 3.5}, .7, 11, like=b, variation=.4, density=6., **space)
        args = [f'{path}=.65', f'{twin}=.35', '--slider', 'other 1=3.5', '--seconds', '.7', '--like', b, '--variation', '.4', '--density', '6']
        controls.sliders['other 1'].position.value = 3.5
        controls.partner.menu.label, controls.partner.weight.value = 'Bells', .35
        controls.like.value, controls.variation.value, controls.density.value = b, .4, 6.
        controls.seconds.value = .7
    panel.make.click()
    assert panel.message == '' and np.array_equal(panel.takes[0].sound.samples, ours.samples) and panel.takes[0].sound.info == ours.info
    options = [w for k, v in space.items() for w in (f'--{k}', str(v))]
    r = CliRunner().invoke(app, [made, *args, *options, '--seed', '11', '--bits', '32', '--out', str(tmp_path), '--models-dir', str(home/'models'), '--near', str(home/'sounds'), '--json'])
    assert r.exit_code == 0, r.output
    (facts,) = json.loads(r.stdout)
    assert np.array_equal(read_audio(facts['path'])[0].squeeze(0).numpy(), ours.samples) and facts['problems'] == []
    near = Nearness(Corpus(home/'sounds'))
    said = near(ours)
    assert facts['near'] == dict(distance=said.distance, name=said.name, verdict=said.verdict, copy=near.copy, unlike=near.unlike) and f"{facts['path']}: {near.text(said)}" in r.stderr.splitlines()
    for file in (facts['path'], panel.takes[0].file):
        r = CliRunner().invoke(app, ['replay', str(file), '--out', str(tmp_path), '--models-dir', str(home/'models'), '--json'])
        assert r.exit_code == 0 and json.loads(r.stdout)['differs'] == 0, r.output


def test_a_file_of_a_morph_or_a_blend_takes_the_place_of_none(place, twin, tmp_path):
    from distill.cli import app
    home, path = place
    a, b = sorted((home/'sounds').rglob('*.wav'))[:2]
    go = lambda *args: CliRunner().invoke(app, [*map(str, args), '--seconds', '.1', '--out', str(tmp_path), '--models-dir', str(home/'models'), '--no-history'])
    for _ in range(2):
        for args in (('morph', 'Rain', a, b), ('morph', 'Rain', a, b, '--position', 0, '--position', 1), ('blend', 'Rain=2', 'Bells', '--seed', 4)): assert go(*args).exit_code == 0
    assert {f.name for f in tmp_path.iterdir()} == {f'{s}{i}.wav' for s in ('Rain-morph0', 'Rain-morph0.5', 'Rain-morph1', 'Rain-Bells-seed4') for i in ('', '_1')}


def test_silence_is_near_nothing(place, tmp_path, monkeypatch):
    "And JSON can say so"
    from distill.cli import app
    from distill.models.model import Model
    home, path = place
    silence = Sound(np.zeros(9600, 'float32'), info=dict(seed=0))
    monkeypatch.setattr(Model, 'generate', lambda model, recipe=None, **options: silence)
    r = CliRunner().invoke(app, ['generate', str(path), '--out', str(tmp_path), '--models-dir', str(home/'models'), '--no-history', '--near', str(home/'sounds'), '--json'])
    assert r.exit_code == 0, r.output
    assert json.loads(r.stdout)[0]['near']['distance'] is None and 'unlike the corpus (it is silent;' in r.stderr


def test_the_command_heeds_what_is_given_before_the_preset(place, tmp_path):
    from distill.cli import app
    home, path = place
    save_preset(path, 'firm', dict(sliders={'other 1': 2.}, seconds=.3, width=.5, rate=44_100))
    go = lambda *args: CliRunner().invoke(app, ['generate', str(path), *args, '--out', str(tmp_path), '--no-history', '--json'])
    (made,) = json.loads(go('--preset', 'firm', '--slider', 'other 2=-3', '--width', '0').stdout)     # 0 is what is usual, and yet was said
    assert made['sliders'] == {'other 1': 2., 'other 2': -3.} and made['seconds'] == .3 and made['rate'] == 44_100 and 'width' not in made
    r = go('--preset', 'firmer')
    assert r.exit_code == 1 and 'firm' in r.stderr.split('this model has')[1] and len(list(tmp_path.iterdir())) == 1


def test_the_command_with_everything_and_replay(place, tmp_path):
    from distill.cli import app
    home, path = place
    like = next((home/'sounds').rglob('*.wav'))
    args = ['--like', str(like), '--variation', '.5', '--density', '5', '--width', '.4', '--azimuth', '30', '--rate', '44100', '--seconds', '1.3', '--seed', '2']
    r = CliRunner().invoke(app, ['generate', 'Rain', *args, '-n', '2', '--format', 'flac', '--bits', '24', '--out', str(tmp_path), '--models-dir', str(home/'models'), '--json'])
    assert r.exit_code == 0, r.output
    facts = json.loads(r.stdout)
    assert [f['seed'] for f in facts] == [2, 3] and all(f['problems'] == [] for f in facts)
    ours = generate(load_model(path), seconds=1.3, seed=3, like=like, variation=.5, density=5., width=.4, azimuth=30., rate=44_100)
    assert differs(ours, facts[1]['path']) == 0
    for names in (['again'], ['again', 'again_1'], ['again', 'again_1']):
        own = ['--overwrite']*(len(names) > 1 and (tmp_path/'new'/'Rain-seed3-again_1.flac').exists())
        r = CliRunner().invoke(app, ['replay', facts[1]['path'], '--models-dir', str(home/'models'), '--out', str(tmp_path/'new'), *own, '--json'])
        assert r.exit_code == 0, r.output
        assert json.loads(r.stdout)['differs'] == 0
        assert sorted(f.stem for f in (tmp_path/'new').iterdir()) == [f'Rain-seed3-{name}' for name in names]
    assert len(History(home/'models').df(like.stem)) == 2


def test_a_take_from_the_history_replays(place):
    home, path = place
    history = History(home/'models')
    snd = generate(load_model(path), seconds=.3, seed=21, width=1.)
    file = history.add(snd)
    assert differs(replay(file, home/'models'), file) == 0
    again = history.sound(file)
    assert again.info['seed'] == 21 and np.abs(np.asarray(again) - np.asarray(snd)).max() <= 2**-23


def test_presets_do_not_change_the_sound(place):
    home, path = place
    model = load_model(path)
    file = save_sound(generate(model, seconds=.3, seed=5), home/'before.wav', 32)
    save_preset(model, 'soft', dict(sliders={'other 1': -4}, seconds=.3))
    assert differs(replay(file, home/'models'), file) == 0
    assert generate(model, **presets(path)['soft']).info['sliders'] == {'other 1': -4}


# --- whatever is asked

@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@drawn(seconds=st.floats(.001, 1.5), seed=st.integers(0, 2**62), like=st.booleans(), variation=st.floats(0, 1), density=st.none() | st.floats(.1, 20), width=st.just(0.) | st.floats(0, 1),
       azimuth=st.none() | st.floats(-360, 360), rate=st.sampled_from([8000, 44_100, 48_000, 96_000]), position=st.none() | st.floats(-10, 10))
def test_any_settings_give_exact_lengths_below_the_ceiling_and_replay(place, seconds, seed, like, variation, density, width, azimuth, rate, position):
    home, path = place
    source = next((home/'sounds').rglob('*.wav'))
    sliders = {} if position is None else {'other 2': position}
    snd = generate(load_model(path), sliders, seconds, seed, like=source if like else None, variation=variation, density=density, width=width, azimuth=azimuth, rate=rate)
    t = max(1, round(seconds*48_000))
    assert snd.samples.shape[-1] == max(1, round(t*rate/48_000)) and snd.samples.ndim == (2 if width or azimuth is not None else 1)
    assert np.isfinite(snd.samples).all() and np.abs(snd.samples).max() <= TOP
    file = save_sound(snd, home/'any.wav', 32, overwrite=True)
    again = replay(file, home/'models')
    assert again.info == {k: v for k, v in snd.info.items()} and np.array_equal(again.samples, snd.samples)


SECONDS = 600 if os.environ.get('DISTILL_LONG') else 50   # ten minutes take one to make; a twelfth shows the same slope

def test_ten_minutes_in_bounded_memory(place):
    "Ten minutes in stereo, many sounds at once: exact length, and at most 1.6 GB over what the process had before"
    home, path = place
    code = f'''
import resource, sys
from distill import load_model
from distill.generation.sounds import generate
m = load_model({str(path)!r}); generate(m)
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024
before = rss()
x = generate(m, seconds={SECONDS}., density=4, width=.5)
print(x.samples.shape[1], rss() - before)'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    samples, grown = map(int, r.stdout.split())
    assert samples == SECONDS*48_000 and grown < SECONDS/600*1.6e9, f'{grown/1e6:.0f} MB'

# --- the mono sum

@pytest.mark.parametrize('width', [.2, .6, 1.])
def test_the_mono_sum_survives(place, width):
    model = load_model(place[1])
    for seed in range(4):
        mono, wide = (generate(model, seconds=1, seed=seed, width=w) for w in (0., width))
        off = 20*np.log10(np.sqrt((wide.samples.mean(0)**2).mean())/np.sqrt((mono.samples**2).mean()))
        assert abs(off) < 1, f'{off:.2f} dB'


# --- the limiter

@settings(max_examples=30, deadline=None)
@drawn(seed=st.integers(0, 10**6), t=st.integers(1, 5000), loud=st.floats(.01, 100), c=st.integers(1, 2), rate=st.sampled_from([8000, 48_000, 96_000]))
def test_the_limiter_holds(seed, t, loud, c, rate):
    g = make_generator(seed)
    x = torch.randn(c, t, generator=g)*torch.rand(1, t, generator=g).pow(6)*loud
    y = limit(x, -1., rate)
    assert y.shape == x.shape and torch.isfinite(y).all() and y.abs().max() <= TOP
    assert torch.equal(limit(y, -1., rate), y)
    if x.abs().max() <= TOP: assert torch.equal(y, x)


def test_the_limiter_leaves_alone_what_is_far_from_peaks():
    x = .1*torch.randn(2, 48_000*6, generator=make_generator(0))
    x[:, 48_000*3] = 5.
    y = limit(x)
    assert torch.equal(y[:, :48_000*3 - 500], x[:, :48_000*3 - 500]) and torch.equal(y[:, 48_000*4:], x[:, 48_000*4:])


def test_a_meter_can_fail():
    x = torch.zeros(48_000)
    assert not meter(x).ok and not meter(x + .5).ok and not meter(x*torch.nan).ok
    assert not meter((torch.arange(48_000)*.01).sin().mul(2).clamp(-1, 1)).ok
    assert meter((torch.arange(48_000)*.01).sin()*.5).ok


# --- the history

ADD = '''
import sys
from distill.audio.files import Sound
from distill.library.history import History
import numpy as np
h = History(sys.argv[1], limit=int(sys.argv[3]))
for seed in range(10): h.add(Sound(.01*np.random.default_rng(seed).standard_normal(2000), info=dict(model='Rain', model_id='rain', seed=seed, seconds=.04, sliders={})))
print(len(h.df()))
'''

def test_two_processes_add_and_nothing_is_lost(tmp_path):
    procs = [subprocess.Popen([sys.executable, '-c', ADD, str(tmp_path), str(i), str(10**9)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(2)]
    for p in procs: assert p.wait() == 0, p.stderr.read()
    h = History(tmp_path)
    assert len(h.df()) == 20 and not [f for f in h.folder.iterdir() if '.tmp' in f.name]


def test_two_processes_make_room_together(tmp_path):
    procs = [subprocess.Popen([sys.executable, '-c', ADD, str(tmp_path), str(i), '30000'], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(2)]
    for p in procs: assert p.wait() == 0, p.stderr.read()
    h = History(tmp_path, limit=30_000)
    h.make_room()
    assert 0 < sum(h.df()['size']) <= 30_000


def test_the_history_in_a_shell(place, tmp_path):
    from distill.cli import app
    home, path = place
    lib, m = tmp_path/'lib', load_model(path)
    for seed in (1, 2): History(lib).add(generate(m, {'other 1': 4.} if seed == 1 else None, .1, seed))
    go = lambda *args: CliRunner().invoke(app, ['history', *args, '--models-dir', str(lib)])
    r = json.loads(go('--json').stdout)
    assert [t['seed'] for t in r['takes']] == [2, 1] and r['size'] == sum(t['size'] for t in r['takes']) < r['limit'] == History(lib).limit
    assert r['takes'][1]['sliders'] == {'other 1': 4.} and len(r['takes'][0]['model_hash']) == 16
    r = go('RAIN', 'other')
    assert r.exit_code == 0 and len(r.stdout.splitlines()) == 2 and 'other 1 4' in r.stdout and f'1 of {History(lib).caption}' in r.stderr and ' of 1.0 GB' in r.stderr
    r = go('sparkle')
    assert r.exit_code == 0 and len(r.stdout.splitlines()) == 1 and 'fewer words' in r.stderr
    sf.write(lib/'history'/'by hand.flac', np.zeros(4800), 48_000)                     # says nothing of how it was made
    assert go().exit_code == 0 and json.loads(go('--json').stdout)['takes'][0]['seed'] is None
    r = CliRunner().invoke(app, ['history', '--models-dir', str(tmp_path/'none')])
    assert r.exit_code == 0 and 'distill generate' in r.stderr and not (tmp_path/'none').exists()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_history_that_cannot_be_written_is_no_reason_to_fail(place, tmp_path):
    from distill.cli import app
    models = tmp_path/'models'; models.mkdir(); models.chmod(0o500)
    r = CliRunner().invoke(app, ['generate', str(place[1]), '--seconds', '.1', '--out', str(tmp_path/'out'), '--models-dir', str(models)])
    assert r.exit_code == 0 and 'Not added to the history' in r.stderr


def test_a_file_where_the_history_should_be(place, tmp_path):
    from distill.cli import app
    (tmp_path/'models').mkdir(); (tmp_path/'models'/'history').write_text('')
    r = CliRunner().invoke(app, ['generate', str(place[1]), '--seconds', '.1', '--out', str(tmp_path/'out'), '--models-dir', str(tmp_path/'models')])
    assert r.exit_code == 0 and 'Not added to the history' in r.stderr
    with pytest.raises(UserError, match='Cannot read the history'): History(tmp_path/'models').df()


def test_a_corpus_does_not_learn_from_takes(place, tmp_path):
    home, path = place
    (tmp_path/'c').mkdir()
    for bits, name in ((16, 'a.wav'), (None, 'b.flac'), (None, 'c.mp3')): save_sound(generate(load_model(path), seconds=.3, seed=1), tmp_path/'c'/name, bits)
    with pytest.raises(UserError, match='made by distill'): Corpus(tmp_path/'c')
