"""A vocoder of a model's own, as people meet it: trained into the model's file, killed, replaced, refused, shared by two processes.

    DISTILL_FUZZ=20 pytest tests/test_vocoder.py     twenty times as many strangers' files
"""
import copy, json, math, os, random, signal, subprocess, sys, time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import torch
from distill.audio.corpus import Corpus
from distill.core import UserError
from distill.audio.demo import demo_corpus
from distill.features.distance import mr_stft
from distill.library.card import ModelFileError, make_card, plain_settings
from distill.library.catalog import ModelLibrary
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.features.mel import Mel, MelConfig
from distill.models.fourier import Fourier, FourierConfig
from distill.models.hifigan import HiFiGAN, HiFiGANConfig
from distill.models.contents import read_contents
from distill.models.persistence import load_model, save_model, verify_model
from distill.models.vae import ConvVAE, VAEConfig
from distill.pipeline import bundle_vocoder
from distill.models.vocoders import Base, GriffinLim, load_vocoder, resolve_vocoder
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining, train_vocoder
from jlab import free_port
from little import craft, same

TIMES = float(os.environ.get('DISTILL_FUZZ', 1))
DISTILL = [sys.executable, '-c', 'from distill.cli import main; main()']
MEL = MelConfig()
SHORT = dict(epochs=1, batch_size=1)                            # 50 steps of one crop

def model(folder, name='Little', mel=MEL):
    "A model file whose VAE knows nothing; its vocoder is what is tried here"
    return save_model(ConvVAE(VAEConfig(n_mels=mel.n_mels, latent=2, channels=8, n_levels=1)).eval(), mel, {}, ModelMetadata(name), folder)

def sounds(folder, n=6, seconds=.5, make=None):
    "A folder of short plucked tones"
    folder.mkdir(parents=True)
    t = np.arange(int(48_000*seconds))/48_000
    for i in range(n): sf.write(folder/f'{i:03}.wav', .4*np.sin(2*np.pi*(200 + 37*(i % 60) + i)*t)*np.exp(-6*t) if make is None else make(t, i), 48_000)
    return folder

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder of sounds, and a model with a vocoder of its own"
    home = tmp_path_factory.mktemp('vocoder')
    file = model(home/'models')
    made = bundle_vocoder(file, sounds(home/'sounds'), device='cpu', **SHORT)
    return home, file, made

def run(*args, **env): return subprocess.run([*DISTILL, *map(str, args)], capture_output=True, text=True, env={**os.environ, **env}, timeout=600, stdin=subprocess.DEVNULL)

def picture(m, seed=0): return m.mel(.1*torch.randn(1, 20_000, generator=torch.Generator().manual_seed(seed)))

# --- in the file, and in the library

def test_bundled_and_restored_plays_the_same_samples(place, tmp_path):
    home, file, made = place
    m = load_model(file)
    copied = save_model(m.net, m.mel.cfg, {}, m.metadata, tmp_path, vocoder_state=m.vocoder_state)
    again = load_model(copied)
    assert same(again.vocoder_state, m.vocoder_state) and not verify_model(copied)
    assert torch.equal(resolve_vocoder(again.vocoder_state, again.mel, 'own')(picture(m)), resolve_vocoder(m.vocoder_state, m.mel, 'own')(picture(m)))

def test_what_is_kept_is_what_was_trained(place):
    home, _, _ = place
    task = VocoderTraining(Corpus(home/'sounds'), cfg=VocoderConfig(batch=1, epoch=5))
    records = list(fit(task, steps=5))
    voc = load_vocoder(task.vocoder_state([asdict(r) for r in records]), Mel())
    m = Mel()(torch.randn(1, 20_000))
    assert torch.equal(voc(m), task.average(m).detach())

def test_the_library_knows_at_once(place):
    home, file, made = place
    e = ModelLibrary(home/'models').get('Little')
    v = e.vocoder
    assert (v.type, v.epochs, v.final_loss, v.held_out, v.griffin_lim) == ('fourier', 1, made.final_loss, made.held_out, made.griffin_lim)
    assert abs(time.time() - datetime.fromisoformat(v.training_date).timestamp()) < 3600
    facts = e.facts()
    assert f'{made.held_out:.3f} (Griffin-Lim {made.griffin_lim:.3f})' == facts['Vocoder held out'] and 'Fourier (1 epoch' in facts['Vocoder'] and facts['Vocoder trained'] == v.training_date
    row = ModelLibrary(home/'models').df().iloc[0]
    assert (row.vocoder, row.vocoder_epochs, row.vocoder_loss, row.vocoder_held_out) == ('fourier', 1, made.final_loss, made.held_out)
    assert 'Fourier (1ep)' in e.cells()

def test_auto_is_earned(place):
    _, file, made = place
    m = load_model(file)
    about = m.vocoder_state['training_metadata']
    for own, base, name in ((.4, .5, 'fourier'), (.5, .4, 'base'), (.5, .5, 'base'), (None, .5, 'base'), (.4, None, 'base'), (math.nan, .5, 'base'), ('x', .5, 'base')):
        about |= dict(held_out=own, base=base)
        v = resolve_vocoder(m.vocoder_state, m.mel)
        assert v.name == name and v.why.endswith('.') and v(picture(m)).isfinite().all(), (own, base)
    m.vocoder_state = None
    assert resolve_vocoder(m.vocoder_state, m.mel).name == 'base'

def test_auto_plays_where_the_models_own_cannot(place):
    m = load_model(place[1])
    good, (first, weight) = m.vocoder_state, next(iter(m.vocoder_state['state_dict'].items()))
    earned = good['training_metadata'] | dict(held_out=.4, base=.5)
    for broken, reason in ((dict(training_metadata=earned | dict(mel_key='another')), 'was made for other mel settings'), (dict(state_dict={}), 'does not fit its own settings'),
                           (dict(state_dict=good['state_dict'] | {first: weight*math.nan}), 'has NaN or infinite weights'), (dict(config=dict(colour='red')), 'does not fit')):
        m.vocoder_state = good | dict(training_metadata=earned) | broken
        with pytest.raises(UserError, match=reason): resolve_vocoder(m.vocoder_state, m.mel, 'own')
        v = resolve_vocoder(m.vocoder_state, m.mel)
        assert v.name == 'base' and v.why.startswith(f"The base vocoder, because the model's own fourier {reason}") and v.why.endswith('.') and v(picture(m)).isfinite().all()

def test_half_precision_halves_the_file_and_loads_as_whole(place, tmp_path):
    _, file, _ = place
    m = load_model(file)
    keep = lambda m, **kw: save_model(m.net, m.mel.cfg, {}, m.metadata, tmp_path, vocoder_state=m.vocoder_state, **kw)
    full, half = keep(m), keep(m, fp16=True)
    assert half.stat().st_size < .6*full.stat().st_size and not verify_model(half)
    d, card = read_contents(half)
    assert {t.dtype for w in (d['model_state_dict'], d['vocoder_state']['state_dict']) for t in w.values()} == {torch.float16}
    h = load_model(half)
    for k, v in h.vocoder_state['state_dict'].items(): assert v.dtype == torch.float32 and torch.equal(v, m.vocoder_state['state_dict'][k].half().float())
    again = keep(h, path=half)
    assert again.stat().st_size < .6*full.stat().st_size
    def refused(change):
        d2 = copy.deepcopy(d); change(d2)
        (tmp_path/'bad.distillgan').write_bytes(craft(d2, card))
        with pytest.raises(ModelFileError): load_model(tmp_path/'bad.distillgan')
    first = next(iter(d['model_state_dict'])); voice = next(iter(d['vocoder_state']['state_dict']))
    refused(lambda d: d['model_state_dict'][first].view(-1)[:1].fill_(math.nan))
    refused(lambda d: d['model_state_dict'][first].view(-1)[:1].fill_(math.inf))
    refused(lambda d: d['vocoder_state']['state_dict'][voice].view(-1)[:1].fill_(math.nan))
    refused(lambda d: d['model_state_dict'].update({first: d['model_state_dict'][first].float()}))          # some halved, some not
    refused(lambda d: d['model_state_dict'].update({first: d['model_state_dict'][first].bfloat16()}))

# --- replaced, refused

def test_other_mel_settings_are_refused(place, tmp_path):
    _, file, _ = place
    m = load_model(file)
    other = MelConfig(f_max=12_000.)
    f = save_model(m.net, other, {}, ModelMetadata('Other'), tmp_path, vocoder_state=m.vocoder_state)
    with pytest.raises(UserError, match='made for other mel settings'): resolve_vocoder(m.vocoder_state, Mel(other), 'own')
    with pytest.raises(UserError, match='made for other mel settings'): VocoderTraining(Corpus(place[0]/'sounds'), other, start=m.vocoder_state)
    with pytest.raises(UserError, match='does not fit this vocoder'): resolve_vocoder(m.vocoder_state, m.mel, 'own')(torch.zeros(1, 80, 9))

def test_replacing_asks_on_a_terminal_and_refuses_elsewhere(place):
    pty = pytest.importorskip('pty')
    home, file, _ = place
    before = file.read_bytes()
    cmd = ['train-vocoder', str(file), str(home/'sounds'), '--epochs', '1', '--batch-size', '1', '--device', 'cpu']
    r = run(*cmd)
    assert r.returncode == 1 and r.stdout == '' and r.stderr.splitlines()[-1] == "Error: 'Little' has a fourier vocoder already: --force (force=True) replaces it."
    own, other = pty.openpty()
    p = subprocess.Popen([*DISTILL, *cmd], stdin=other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(own, b'n\n')
    out, err = p.communicate(timeout=300)
    os.close(own); os.close(other)
    assert p.returncode == 1 and 'Replace it?' in err and not out.strip()
    assert file.read_bytes() == before

@pytest.mark.parametrize('wrong, words', [(dict(type='radio'), 'radio'), (dict(steps=0), 'steps is 0'), (dict(minutes=math.nan), 'nan'), (dict(minutes=math.inf), 'inf'), (dict(epochs=-1), 'epochs is -1'),
    (dict(batch_size=0), 'batch is 0'), (dict(batch_size=10**9), '1024'), (dict(lr=math.nan), 'lr is nan'), (dict(discriminators='many'), 'many'), (dict(checkpoint_interval=0), 'checkpoint_interval'),
    (dict(steps=50, epochs=1), 'not both'), (dict(resume=True), 'no unfinished'), (dict(seed=-1), 'seed'), (dict(device='abacus'), 'abacus')], ids=str)
def test_mistakes_are_one_sentence_and_change_nothing(place, tmp_path, wrong, words):
    f = model(tmp_path); before = f.read_bytes()
    with pytest.raises(UserError, match=words): bundle_vocoder(f, place[0]/'sounds', **wrong)
    assert f.read_bytes() == before

def test_a_learning_rate_that_explodes_is_said(place, tmp_path):
    f = model(tmp_path)
    with pytest.raises(UserError, match='no longer finite'): bundle_vocoder(f, place[0]/'sounds', lr=1e30, **SHORT)
    assert not verify_model(f)

# --- begun with another, and in little room

def test_a_start_is_gone_on_from_and_resumed(place, tmp_path):
    home, file, _ = place
    f, begun = model(tmp_path), load_model(file)
    still = dict(steps=50, batch_size=1, lr=1e-12, device='cpu')
    def stop(rec): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(f, home/'sounds', start='Little', models_dir=home/'models', progress=stop, **still)
    with pytest.raises(UserError, match='made on other sounds'): bundle_vocoder(f, sounds(tmp_path/'other', 2), resume=True, steps=50)
    made = bundle_vocoder(f, home/'sounds', resume=True, steps=50)
    v = load_model(f).vocoder_state
    assert made.epochs == 1 and v['config'] == begun.vocoder_state['config']
    for k, w in v['state_dict'].items(): torch.testing.assert_close(w, begun.vocoder_state['state_dict'][k])
    task = VocoderTraining(Corpus(home/'sounds'), start=begun.vocoder_state)
    assert all(torch.equal(w, begun.vocoder_state['state_dict'][k]) for k, w in task.best.items())

def test_what_cannot_be_begun_with(place, tmp_path):
    home, file, _ = place
    mute = model(tmp_path, 'Mute')
    before, own = mute.read_bytes(), load_model(file)
    broken = own.vocoder_state | dict(state_dict={})
    for wrong, words in ((dict(start=mute), "'Mute' has no vocoder"), (dict(start='nobody'), 'nobody'), (dict(start=file, type='hifigan_v2'), "of type 'fourier'"), (dict(start=load_model(mute)), 'no vocoder to start from'),
                         (dict(start=broken), 'does not fit its own settings')):
        with pytest.raises(UserError, match=words): bundle_vocoder(mute, home/'sounds', models_dir=tmp_path, **wrong)
    assert mute.read_bytes() == before

def test_epochs_are_a_budget_and_bf16_is_for_graphics_cards(place):
    corpus = Corpus(place[0]/'sounds')
    with pytest.warns(UserWarning, match='bf16 is for'): task = VocoderTraining(corpus, cfg=VocoderConfig(batch=1, epoch=2, bf16=True))
    assert [r.step for r in fit(task, steps=3)] == [2, 4]
    for wrong, words in ((dict(epochs=0), 'epochs is 0'), (dict(epochs=1, steps=2), 'not both')):
        with pytest.raises(UserError, match=words): next(train_vocoder(corpus, **wrong))

def test_a_plan_halves_what_does_not_fit(place, tmp_path, monkeypatch):
    "As the command and the panel ask for it; the failure comes on the way back, once with discriminators listening"
    home, f, draw = place[0], model(tmp_path), VocoderTraining.synthesize
    def fail(grad): raise torch.OutOfMemoryError('no room')
    def small(self, m, p):
        y = draw(self, m, p)
        if len(m) > 1 and y.requires_grad: y.register_hook(fail)
        return y
    monkeypatch.setattr(VocoderTraining, 'synthesize', small)
    plans = []
    with pytest.warns(UserWarning, match='4 crops a step: going on with 2'): bundle_vocoder(f, home/'sounds', plan=plans.append, steps=50, batch_size=4, device='cpu')
    assert plans[0].steps == 50 and load_model(f).vocoder_state['training_metadata']['config']['batch'] == 1
    task = VocoderTraining(Corpus(home/'sounds'), cfg=VocoderConfig(batch=2, frames=20, discriminators='small', adversarial_after=0))
    with pytest.warns(UserWarning, match='2 crops'): assert math.isfinite(task.step()['discriminator'])

# --- the base

def test_the_base_is_nearer_than_griffin_lim(tmp_path):
    mel = Mel(MEL)
    far = {n: [] for n in ('base', 'griffin-lim')}
    for f in demo_corpus(tmp_path)[::6]:
        x = torch.from_numpy(sf.read(f, dtype='float32', always_2d=True)[0].mean(1))[None, :48_000]
        for v in (Base(mel), GriffinLim(mel)): far[v.name].append(mr_stft(v(mel(x))[:, :x.shape[1]], x).item())
    assert sum(far['base']) < sum(far['griffin-lim'])

def test_the_recipe_of_the_base(tmp_path, monkeypatch):
    "It replaces its synthetic sounds by new ones and keeps the recordings"
    import train_base
    monkeypatch.setattr(train_base, 'cc0', lambda: sorted((tmp_path/'s').glob('*.wav')))
    sounds(tmp_path/'s')
    task = train_base.BaseTraining(VocoderConfig(batch=1, epoch=1))
    assert not task.net.head.weight.any() and len(task.born) == 5
    first = [x for x, *_ in task.sounds]
    for _ in range(train_base.LIVES + 1): task.step()
    assert [torch.equal(x, y) for x, (y, *_) in zip(first, task.sounds)] == [k not in task.born for k in range(10)]
    task.keep()
    half = train_base.halved(task.vocoder_state([]))
    torch.testing.assert_close(half['state_dict']['head.weight'].float(), task.average.head.weight.detach(), rtol=1e-2, atol=1e-6)
    assert half['state_dict']['head.weight'].dtype == torch.float16
    assert load_vocoder(half, Mel(MEL))(picture(load_model(model(tmp_path/'m')))).isfinite().all()

# --- corpora

def test_a_file_of_nan_is_left_out_or_refused(tmp_path):
    d = sounds(tmp_path/'s', 2)
    sf.write(d/'nan.wav', np.full(24_000, np.nan, np.float32), 48_000, subtype='FLOAT')
    made = bundle_vocoder(model(tmp_path/'m'), d, steps=50, batch_size=1)
    assert math.isfinite(made.final_loss)
    for f in d.glob('0*.wav'): f.unlink()
    with pytest.raises(UserError, match='nan.wav'): bundle_vocoder(model(tmp_path/'m'), d, **SHORT)

@pytest.mark.parametrize('kind', ['one file', 'silence', 'shorter than a crop'])
def test_poor_corpora(tmp_path, kind):
    d = dict(zip(('one file', 'silence', 'shorter than a crop'), (lambda: sounds(tmp_path/'s', 1), lambda: sounds(tmp_path/'s', 4, make=lambda t, i: 0*t), lambda: sounds(tmp_path/'s', 5, .06))))[kind]()
    f = model(tmp_path/'m')
    try: made = bundle_vocoder(f, d, **SHORT)
    except UserError as e: assert kind == 'silence' and str(e).endswith(('.', ')')); return
    assert math.isfinite(made.final_loss) and (made.held_out is None) == (kind == 'one file')
    m = load_model(f)
    for which in ('auto', 'own'): assert resolve_vocoder(m.vocoder_state, m.mel, which)(picture(m)).isfinite().all()
    if kind == 'one file': assert resolve_vocoder(m.vocoder_state, m.mel).name == 'base'

def test_five_hundred_files(tmp_path, record_property):
    f, d = model(tmp_path/'m'), sounds(tmp_path/'s', 500, .1)
    t = time.process_time()
    corpus = Corpus(d); task = VocoderTraining(corpus, cfg=VocoderConfig(batch=1))
    record_property('figure', f'vocoder, 500 files of 0.1 s: {time.process_time() - t:.1f} CPU-s until the first step')
    made = bundle_vocoder(f, corpus, **SHORT)
    assert made.held_out is not None and load_model(f).vocoder_state['training_metadata']['corpus']['n_files'] == 500

@pytest.mark.parametrize('mel', [MelConfig(n_fft=64, hop=16, n_mels=8), MelConfig(n_fft=512, hop=128, n_mels=32), MelConfig(n_fft=4096, hop=1024, n_mels=256)], ids=lambda c: f'hop {c.hop}')
def test_other_mel_settings_than_the_usual(place, mel):
    task = VocoderTraining(Corpus(place[0]/'sounds'), mel, VocoderConfig(batch=1, epoch=2))
    rec = next(fit(task, steps=2))
    assert math.isfinite(rec.parts['generator']) and math.isfinite(rec.held_out)

# --- killed

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs signals')
def test_killed_and_resumed_is_the_uninterrupted_run(place, tmp_path):
    "SIGKILL at several moments: before the first step, in an epoch, while the file is written"
    home, _, _ = place
    whole, cut = model(tmp_path/'whole'), model(tmp_path/'cut')
    old = load_model(cut)
    few = dict(steps=150, batch_size=1, seed=3, device='cpu')
    bundle_vocoder(whole, home/'sounds', **few)
    cmd = ['train-vocoder', str(cut), str(home/'sounds'), '--steps', '150', '--batch-size', '1', '--seed', '3', '--device', 'cpu']
    kills, moments = 0, random.Random(0)
    for wait_for in ('steps, about', ' step ', None, None):                # a resumed run may be past any step that could be named
        more = ['--resume'] if (load_model(cut).vocoder_state or {}).get('checkpoint') else []
        p = subprocess.Popen([*DISTILL, *cmd, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
        for line in p.stderr:
            if (wait_for or 'steps, about') in line: break
        time.sleep(moments.uniform(0, .5))
        p.kill(); p.communicate(timeout=60)
        kills += p.returncode == -signal.SIGKILL
        m = load_model(cut)                                              # never torn
        assert not verify_model(cut) and same(dict(m.net.state_dict()), dict(old.model.state_dict()))
        if m.vocoder_state and 'checkpoint' not in m.vocoder_state: break
    assert kills >= 2
    if 'checkpoint' in (load_model(cut).vocoder_state or {}): bundle_vocoder(cut, home/'sounds', steps=150, resume=True, device='cpu')
    a, b = (load_model(f).vocoder_state for f in (whole, cut))
    assert same(a['state_dict'], b['state_dict']) and a['training_metadata']['final_loss'] == b['training_metadata']['final_loss']
    assert [h['held_out'] for h in a['training_metadata']['history']] == [h['held_out'] for h in b['training_metadata']['history']]
    assert 'checkpoint' not in b
    ModelLibrary(cut.parent)                                             # a writer killed in the middle leaves a file that the next opening sweeps
    assert not list(cut.parent.glob('.*.tmp*'))

def test_killed_after_the_last_epoch_the_end_is_not_lost(place, tmp_path):
    "The budget is used, only the last writing was missing"
    home, f = place[0], model(tmp_path)
    few = dict(steps=50, batch_size=1, device='cpu')
    def stop(rec): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(f, home/'sounds', progress=stop, **few)
    made = bundle_vocoder(f, home/'sounds', steps=50, resume=True, device='cpu')
    about = load_model(f).vocoder_state['training_metadata']
    assert made.held_out is not None and made.final_loss is not None and len(about['history']) == 1 and about['held_out'] == made.held_out

def test_interrupt_says_how_to_go_on(place, tmp_path):
    home, f = place[0], model(tmp_path)
    cmd = ['train-vocoder', str(f), str(home/'sounds'), '--steps', '5000', '--batch-size', '1', '--device', 'cpu', '--json']
    p = subprocess.Popen([*DISTILL, *cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in p.stderr:
        if 'step 50' in line: break                         # the first epoch is done, the second has begun
    time.sleep(.2); p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 130 and out == '' and '--resume' in err and 'Traceback' not in err, err
    assert load_model(f).vocoder_state['checkpoint']['done'] > 0
    r = run(*cmd[:3])
    assert r.returncode == 1 and 'unfinished' in r.stderr and '--resume' in r.stderr

def test_an_older_vocoder_plays_on_while_it_is_replaced(place, tmp_path):
    "Also one that was not made by `bundle_vocoder`, and has no word about being finished"
    home, file, _ = place
    m = load_model(file)
    del m.vocoder_state['training_metadata']['finished']
    f = save_model(m.net, m.mel.cfg, {}, m.metadata, tmp_path, vocoder_state=m.vocoder_state)
    def stop(rec): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(f, home/'sounds', force=True, progress=stop, **SHORT, seed=9)
    assert same(load_model(f).vocoder_state['state_dict'], m.vocoder_state['state_dict'])

# --- a stranger's vocoder

JUNK = [None, True, -1, 0, 1, 3, 2**62, -2**40, math.nan, math.inf, 1e300, 1e-320, 'x', '', 'x'*5000, 'a\nb\x1b[2J', [], [1]*3, [10**9]*4, [[1]], {}, dict(a=1), (1, 2), [0.]*128, [1e-320]*128, [math.nan]*128]

def strangers(r, good, n):
    "Vocoder states as no training writes them"
    for _ in range(n):
        s = copy.deepcopy(good[r.randrange(len(good))])
        for _ in range(r.choice([1, 1, 1, 2, 4])):
            how, part = r.randrange(7), r.choice(['config', 'training_metadata'])
            keys = list(s[part]) + ['mel_key', 'held_out', 'base', 'epochs', 'new']
            weights = s['state_dict']; k = r.choice(list(weights)) if weights else 'w'
            if how <= 2: s[part][r.choice(keys)] = copy.deepcopy(r.choice(JUNK))
            elif how == 3: s[part].pop(r.choice(keys), None)
            elif how == 4: weights[k] = r.choice([torch.zeros(1), torch.zeros(0), torch.zeros(3, 2), torch.tensor(math.nan), torch.zeros(9, dtype=torch.int64), torch.full((4,), 1e38), torch.zeros(7, dtype=torch.float64), torch.ones(2, dtype=torch.bool)])
            elif how == 5: weights[k] = weights[k].clone().float().fill_(r.choice([1e38, -1e30, 1e-40, math.nan, math.inf, 1e10])) if k in weights else torch.zeros(1)
            elif r.random() < .5: weights.pop(k, None)
            else: s['type'] = r.choice(['fourier', 'hifigan_v2', 'x', None, 3])
        yield s

def test_a_strangers_vocoder(tmp_path, record_property):
    "It is refused in a sentence when it is loaded or when it is wanted, or it plays; and it never asks for much memory"
    from test_fuzz import LINUX, _peak
    r = random.Random(5)
    about = lambda: dict(epochs=1, steps=50, final_loss=.1, training_date='2026-01-15', mel_key=MEL.key, held_out=.3, griffin_lim=.6, base=.5, finished=True)
    four, hifi = FourierConfig(width=8, blocks=1, steps=1), HiFiGANConfig(channels=16, kernels=(3,), dilations=(1,))
    listed = lambda c: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(c).items()}
    good = [dict(type=t, state_dict=dict(net.state_dict()), config=listed(c), training_metadata=about()) for t, c, net in (('fourier', four, Fourier(four)), ('hifigan_v2', hifi, HiFiGAN(hifi)))]
    f = model(tmp_path)
    d, card = read_contents(f)
    m = load_model(f)
    for s in good: m.vocoder_state = s; assert resolve_vocoder(m.vocoder_state, m.mel).name == s['type']
    mel = picture(m)[..., :8]
    refused, played, worst = dict(file=0, vocoder=0), 0, 0
    for s in strangers(r, good, int(400*TIMES)):
        before = _peak(reset=True) if LINUX else 0
        try:
            m = load_model(save_raw(tmp_path, d, s))
            for which in ('auto', 'own'):
                try: v = resolve_vocoder(m.vocoder_state, m.mel, which)
                except UserError: assert which == 'own'; raise             # auto always makes a sound
                y = v(mel)
                assert y.shape == (1, 8*512) and y.isfinite().all(), s['config']
                assert len(v.why) < 400
            played += 1
        except ModelFileError as e: refused['file'] += 1; said = str(e)
        except UserError as e: refused['vocoder'] += 1; said = str(e)
        else: said = ''
        assert '\n' not in said and '\x1b' not in said and len(said) < 700, said
        worst = max(worst, _peak() - before if LINUX else 0)
    assert worst < 300e6 and refused['file'] and refused['vocoder'] and played
    record_property('figure', f"vocoder, strangers' files: {sum(refused.values()) + played}, {refused['file']} refused when loaded, {refused['vocoder']} when wanted, {played} play; worst {worst/1e6:.0f} MB")

def save_raw(folder, d, state):
    "A file with this vocoder and the card that belongs to it, if there can be one"
    d = d | dict(vocoder_state=state)
    try: info = VocoderInfo.from_state(state)
    except UserError: info = None                                        # it is refused anyway
    count = lambda w: sum(t.numel() for t in w.values())
    sizes = dict(parameters=count(d['model_state_dict']), latent_dim=d['latent_dim'], vocoder_parameters=count(state['state_dict']))
    settings = plain_settings(training=d['training_config'], model=d['model_config'], mel=d['spectrogram_config'])
    card = make_card(ModelMetadata.from_dict(d['metadata']), info, sizes, settings)
    f = folder/'stranger.distillgan'
    f.write_bytes(craft(d, json.dumps(card, default=str).encode()))
    return f

def test_a_strangers_unfinished_training(place, tmp_path, record_property):
    home, f = place[0], model(tmp_path)
    def stop(rec): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(f, home/'sounds', progress=stop, **SHORT)
    raw, r = f.read_bytes(), random.Random(7)
    corpus = Corpus(home/'sounds')
    for i in range(int(12*TIMES)):
        m = load_model(f)
        c = m.vocoder_state['checkpoint']
        key = r.choice([k for k in c if k not in ('format', 'version')])
        if i % 3 == 0: del c[key]
        elif i % 3 == 1: c[key] = r.choice([None, 'x', 3, [], {}, torch.zeros(2)])
        else: c['training_config'][r.choice(list(c['training_config']))] = r.choice([-1, 10**12, 'x', None, [1]])
        g = save_model(m.net, m.mel.cfg, {}, m.metadata, tmp_path/'g', vocoder_state=m.vocoder_state)
        try: bundle_vocoder(g, corpus, steps=50, resume=True)              # the budget is used: what can be resumed ends at once
        except UserError as e: assert len(str(e)) < 600
        assert not verify_model(g)
        g.unlink()

# --- several processes

TOGETHER = '''
import json, sys
from distill.audio.corpus import Corpus
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining
curves = {}
for type in ('fourier', 'hifigan_v2'):
    task = VocoderTraining(Corpus(sys.argv[1]), cfg=VocoderConfig(batch=4, epoch=1, type=type, frames=20, lr_warmup=1, lr=3e-4), device='cpu')
    curves[type] = [r.parts | dict(held_out=r.held_out) for r in fit(task, steps=6)]
if task.is_main: open(sys.argv[2], 'w').write(json.dumps(curves))
'''

def test_two_processes_learn_what_one_learns(place, tmp_path, record_property):
    "`accelerate launch` with two processes on the CPU: the same curve"
    home, script = place[0], tmp_path/'together.py'
    script.write_text(TOGETHER)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}
    port = free_port()
    launch = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', str(port)]
    curves = []
    for name, cmd in (('one', [sys.executable]), ('two', launch)):
        r = subprocess.run([*cmd, str(script), str(home/'sounds'), str(tmp_path/name)], capture_output=True, text=True, env=env, timeout=600)
        assert r.returncode == 0, r.stderr[-3000:]
        curves.append(json.loads((tmp_path/name).read_text()))
    for type, one in curves[0].items():
        two = curves[1][type]
        off = [max(abs(a[k] - b[k])/abs(a[k]) for k in a if a[k]) for a, b in zip(one, two)]
        record_property('figure', f'vocoder, {type}: the curve of two processes is that of one within {off[0]:.1e} after one step and {max(off):.1e} after six')
        assert len(one) == len(two) == 6 and off[0] < 1e-4 and max(off) < 1e-2, (type, off)

def test_two_processes_write_one_model(place, tmp_path):
    "The command itself, launched twice over: one speaks, one writes, the file is whole"
    home, f = place[0], model(tmp_path)
    port = free_port()
    cmd = ['train-vocoder', str(f), str(home/'sounds'), '--epochs', '1', '--batch-size', '2', '--device', 'cpu', '--json']
    ps = [subprocess.Popen([*DISTILL, *cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo', 'RANK': str(i),
          'LOCAL_RANK': str(i), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}) for i in range(2)]
    (out, err), (out2, err2) = (p.communicate(timeout=600) for p in ps)
    assert [p.returncode for p in ps] == [0, 0], err + err2
    assert json.loads(out)['steps'] == 50 and out2 == '' and 'Training' not in err2
    assert not verify_model(f) and 'checkpoint' not in load_model(f).vocoder_state
