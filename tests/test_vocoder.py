"""A vocoder of a model's own, as people meet it: trained into the model's file, killed, replaced, refused, shared.

    DISTILL_FUZZ=20 pytest tests/test_vocoder.py     twenty times as many strangers' files
"""
import copy
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime
import numpy as np
import pytest
import soundfile as sf
import torch
from jlab import free_port
from little import craft, same
from distill.audio.corpus import Corpus
from distill.audio.demo import demo_corpus
from distill.core import UserError
from distill.features.distance import mr_stft
from distill.features.mel import Mel, MelConfig
from distill.library.card import ModelFileError, make_card, plain_settings
from distill.library.catalog import ModelLibrary
from distill.models.contents import read_contents
from distill.models.fourier import Fourier, FourierConfig
from distill.models.hifigan import HiFiGAN, HiFiGANConfig
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.models.persistence import load_model, save_model, verify_model
from distill.models.vae import ConvVAE, VAEConfig
from distill.models.vocoders import Base, GriffinLim, load_vocoder, resolve_vocoder
from distill.pipeline import bundle_vocoder
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining, train_vocoder

TIMES = float(os.environ.get('DISTILL_FUZZ', 1))
DISTILL = [sys.executable, '-c', 'from distill.cli import main; main()']
MEL = MelConfig()
SHORT = dict(epochs=1, batch_size=1)    # 50 steps of one crop

def make_model(folder, name='Little', mel=MEL):
    "A model file whose VAE knows nothing; its vocoder is what is tried here"
    net = ConvVAE(VAEConfig(n_mels=mel.n_mels, latent=2, channels=8, n_levels=1)).eval()
    return save_model(net, mel, {}, ModelMetadata(name), folder)

def copy_model(model, folder, **kw):
    "A model once more in another folder"
    return save_model(model.net, model.mel.cfg, {}, model.metadata, folder, vocoder_state=model.vocoder_state, **kw)

def pluck(t, i): return .4*np.sin(2*np.pi*(200 + 37*(i % 60) + i)*t)*np.exp(-6*t)

def make_sounds(folder, n=6, seconds=.5, make=pluck):
    "A folder of short plucked tones"
    folder.mkdir(parents=True)
    t = np.arange(int(48_000*seconds))/48_000
    for i in range(n): sf.write(folder/f'{i:03}.wav', make(t, i), 48_000)
    return folder

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder of sounds, a model file, and the model with a vocoder of its own that is in it"
    home = tmp_path_factory.mktemp('vocoder')
    file = make_model(home/'models')
    return home, file, bundle_vocoder(file, make_sounds(home/'sounds'), device='cpu', **SHORT)

def run(*args, **env):
    return subprocess.run([*DISTILL, *map(str, args)], capture_output=True, text=True, env=os.environ | env,
                          timeout=600, stdin=subprocess.DEVNULL)

def noise_mel(model):
    noise = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    return model.mel(.1*noise)

def about(model): return model.vocoder_state['training_metadata']

def interrupt(record): raise KeyboardInterrupt

# --- in the file, and in the library

def test_bundled_and_restored_plays_the_same_samples(place, tmp_path):
    model = load_model(place[1])
    copied = copy_model(model, tmp_path)
    again = load_model(copied)
    assert same(again.vocoder_state, model.vocoder_state) and not verify_model(copied)
    mel = noise_mel(model)
    assert torch.equal(again.vocoder('own')(mel), model.vocoder('own')(mel))

def test_what_is_kept_is_what_was_trained(place):
    task = VocoderTraining(Corpus(place[0]/'sounds'), cfg=VocoderConfig(batch=1, epoch=5))
    history = [asdict(record) for record in fit(task, steps=5)]
    vocoder = load_vocoder(task.vocoder_state(history), Mel())
    mel = Mel()(torch.randn(1, 20_000))
    assert torch.equal(vocoder(mel), task.average(mel).detach())

def test_the_library_knows_at_once(place):
    home, _, made = place
    known, library = about(made), ModelLibrary(home/'models')
    entry = library.get('Little')
    vocoder = entry.vocoder
    assert (vocoder.type, vocoder.epochs) == ('fourier', 1)
    for k in ('final_loss', 'held_out', 'griffin_lim'): assert getattr(vocoder, k) == known[k]
    assert abs(time.time() - datetime.fromisoformat(vocoder.training_date).timestamp()) < 3600
    facts = entry.facts()
    assert facts['Vocoder held out'] == f"{known['held_out']:.3f} (Griffin-Lim {known['griffin_lim']:.3f})"
    assert 'Fourier (1 epoch' in facts['Vocoder'] and facts['Vocoder trained'] == vocoder.training_date
    row = library.df().iloc[0]
    assert (row.vocoder, row.vocoder_epochs) == ('fourier', 1)
    assert (row.vocoder_loss, row.vocoder_held_out) == (known['final_loss'], known['held_out'])
    assert 'Fourier (1ep)' in entry.cells()

@pytest.mark.parametrize('own, base, name', [
    (.4, .5, 'fourier'), (.5, .4, 'base'), (.5, .5, 'base'), (.49, .5, 'base'),
    (None, .5, 'base'), (.4, None, 'base'), (math.nan, .5, 'base'), ('x', .5, 'base')])
def test_auto_is_earned(place, own, base, name):
    model = load_model(place[1])
    about(model).update(held_out=own, base=base)
    vocoder = resolve_vocoder(model.vocoder_state, model.mel)
    assert vocoder.name == name and vocoder.why.endswith('.')
    assert vocoder(noise_mel(model)).isfinite().all()

def test_a_model_without_a_vocoder_plays_through_the_base(place):
    assert resolve_vocoder(None, Mel(MEL)).name == 'base'

def test_auto_plays_where_the_models_own_cannot(place):
    model = load_model(place[1])
    good = model.vocoder_state
    first, weight = next(iter(good['state_dict'].items()))
    earned = good['training_metadata'] | dict(held_out=.4, base=.5)
    for broken, reason in (
        (dict(training_metadata=earned | dict(mel_key='another')), 'was made for other mel settings'),
        (dict(state_dict={}), 'does not fit its own settings'),
        (dict(state_dict=good['state_dict'] | {first: weight*math.nan}), 'has NaN or infinite weights'),
        (dict(config=dict(color='red')), 'does not fit')):
        state = good | dict(training_metadata=earned) | broken
        with pytest.raises(UserError, match=reason): resolve_vocoder(state, model.mel, 'own')
        vocoder = resolve_vocoder(state, model.mel)
        assert vocoder.name == 'base' and vocoder.why.endswith('.')
        assert vocoder.why.startswith(f"The base vocoder, because the model's own fourier {reason}")
        assert vocoder(noise_mel(model)).isfinite().all()

def test_half_precision_halves_the_file_and_loads_as_whole(place, tmp_path):
    model = load_model(place[1])
    full, half = copy_model(model, tmp_path), copy_model(model, tmp_path, fp16=True)
    assert half.stat().st_size < .6*full.stat().st_size and not verify_model(half)
    contents, _ = read_contents(half)
    weights = *contents['model_state_dict'].values(), *contents['vocoder_state']['state_dict'].values()
    assert {w.dtype for w in weights} == {torch.float16}
    loaded = load_model(half)
    for k, v in loaded.vocoder_state['state_dict'].items():
        assert v.dtype == torch.float32
        assert torch.equal(v, model.vocoder_state['state_dict'][k].half().float())
    again = copy_model(loaded, tmp_path, path=half)
    assert again.stat().st_size < .6*full.stat().st_size

def test_broken_half_precision_is_refused(place, tmp_path):
    contents, card = read_contents(copy_model(load_model(place[1]), tmp_path, fp16=True))
    net, vocoder = contents['model_state_dict'], contents['vocoder_state']['state_dict']
    first, own = next(iter(net)), next(iter(vocoder))
    def with_first(x, weight):
        weight = weight.clone()
        weight.view(-1)[:1].fill_(x)
        return weight
    changes = [(net, first, with_first(math.nan, net[first])), (net, first, with_first(math.inf, net[first])),
               (vocoder, own, with_first(math.nan, vocoder[own])),
               (net, first, net[first].float()), (net, first, net[first].bfloat16())]
    for weights, k, broken in changes:
        good = weights[k]
        weights[k] = broken
        (tmp_path/'bad.distillgan').write_bytes(craft(contents, card))
        with pytest.raises(ModelFileError): load_model(tmp_path/'bad.distillgan')
        weights[k] = good

# --- replaced, refused

def test_other_mel_settings_are_refused(place, tmp_path):
    model, other = load_model(place[1]), MelConfig(f_max=12_000.)
    file = save_model(model.net, other, {}, ModelMetadata('Other'), tmp_path, vocoder_state=model.vocoder_state)
    words = 'made for other mel settings'
    with pytest.raises(UserError, match=words): load_model(file).vocoder('own')
    corpus = Corpus(place[0]/'sounds')
    with pytest.raises(UserError, match=words): VocoderTraining(corpus, other, start=model.vocoder_state)
    with pytest.raises(UserError, match='does not fit this vocoder'): model.vocoder('own')(torch.zeros(1, 80, 9))

def test_replacing_asks_on_a_terminal_and_refuses_elsewhere(place):
    pty = pytest.importorskip('pty')
    home, file, _ = place
    before = file.read_bytes()
    cmd = ['train-vocoder', str(file), str(home/'sounds'), '--epochs', '1', '--batch-size', '1', '--device', 'cpu']
    done = run(*cmd)
    refusal = "Error: 'Little' has a fourier vocoder already: --force (force=True) replaces it."
    assert done.returncode == 1 and done.stdout == '' and done.stderr.splitlines()[-1] == refusal
    own, other = pty.openpty()
    process = subprocess.Popen([*DISTILL, *cmd], stdin=other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(own, b'n\n')
    out, err = process.communicate(timeout=300)
    for end in (own, other): os.close(end)
    assert process.returncode == 1 and 'Replace it?' in err and not out.strip()
    assert file.read_bytes() == before

@pytest.mark.parametrize('wrong, words', [
    (dict(type='radio'), 'radio'), (dict(steps=0), 'steps is 0'), (dict(minutes=math.nan), 'nan'),
    (dict(minutes=math.inf), 'inf'), (dict(epochs=-1), 'epochs is -1'), (dict(batch_size=0), 'batch is 0'),
    (dict(batch_size=10**9), '1024'), (dict(lr=math.nan), 'lr is nan'), (dict(discriminators='many'), 'many'),
    (dict(checkpoint_interval=0), 'checkpoint_interval'), (dict(steps=50, epochs=1), 'not both'),
    (dict(resume=True), 'no unfinished'), (dict(seed=-1), 'seed'), (dict(device='abacus'), 'abacus')], ids=str)
def test_mistakes_are_one_sentence_and_change_nothing(place, tmp_path, wrong, words):
    file = make_model(tmp_path)
    before = file.read_bytes()
    with pytest.raises(UserError, match=words): bundle_vocoder(file, place[0]/'sounds', **wrong)
    assert file.read_bytes() == before

def test_a_learning_rate_that_explodes_is_said(place, tmp_path):
    file = make_model(tmp_path)
    with pytest.raises(UserError, match='no longer finite'):
        bundle_vocoder(file, place[0]/'sounds', lr=1e30, **SHORT)
    assert not verify_model(file)

# --- begun with another, and in little memory

def test_a_start_is_gone_on_from_and_resumed(place, tmp_path):
    home, file, _ = place
    new, begun = make_model(tmp_path), load_model(file).vocoder_state
    still = dict(steps=50, batch_size=1, lr=1e-12, device='cpu')
    library = home/'models'
    with pytest.raises(KeyboardInterrupt):
        bundle_vocoder(new, home/'sounds', start=library/'Little.distillgan', progress=interrupt, **still)
    with pytest.raises(UserError, match='made on other sounds'):
        bundle_vocoder(new, make_sounds(tmp_path/'other', 2), resume=True, steps=50)
    state = bundle_vocoder(new, home/'sounds', resume=True, steps=50).vocoder_state
    assert state['training_metadata']['epochs'] == 1 and state['config'] == begun['config']
    for k, w in state['state_dict'].items(): torch.testing.assert_close(w, begun['state_dict'][k])
    task = VocoderTraining(Corpus(home/'sounds'), start=begun)
    assert all(torch.equal(w, begun['state_dict'][k]) for k, w in task.best.items())

def test_a_start_is_found_by_name_in_the_library(place):
    home, file, _ = place
    plans = []
    def first_plan(plan):
        plans.append(plan)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        bundle_vocoder(file, home/'sounds', start='Little', models_dir=home/'models', force=True,
                       plan=first_plan, **SHORT)
    assert plans[0].steps == 50

def test_what_cannot_be_begun_with(place, tmp_path):
    home, file, _ = place
    mute = make_model(tmp_path, 'Mute')
    before = mute.read_bytes()
    broken = load_model(file).vocoder_state | dict(state_dict={})
    for wrong, words in (
        (dict(start=mute), "'Mute' has no vocoder"), (dict(start=load_model(mute)), "'Mute' has no vocoder"),
        (dict(start='nobody'), 'nobody'), (dict(start=file, type='hifigan_v2'), "of type 'fourier'"),
        (dict(start=broken), 'does not fit its own settings')):
        with pytest.raises(UserError, match=words):
            bundle_vocoder(mute, home/'sounds', models_dir=tmp_path, **wrong)
    assert mute.read_bytes() == before

def test_budgets(place):
    corpus = Corpus(place[0]/'sounds')
    task = VocoderTraining(corpus, cfg=VocoderConfig(batch=1, epoch=2))
    assert [record.step for record in fit(task, steps=3)] == [2, 4]
    for wrong, words in ((dict(epochs=0), 'epochs is 0'), (dict(epochs=1, steps=2), 'not both')):
        with pytest.raises(UserError, match=words): next(train_vocoder(corpus, **wrong))

def test_bf16_is_for_graphics_cards(place):
    with pytest.warns(UserWarning, match='bf16 is for'):
        VocoderTraining(Corpus(place[0]/'sounds'), cfg=VocoderConfig(batch=1, epoch=2, bf16=True))

def test_a_plan_halves_what_does_not_fit(place, tmp_path, monkeypatch):
    "As the command and the panel ask for it; the failure comes on the way back, once with discriminators"
    home, file, synthesize = place[0], make_model(tmp_path), VocoderTraining.synthesize
    def fail(grad): raise torch.OutOfMemoryError('no room')
    def synthesize_one(self, mel, phase):
        y = synthesize(self, mel, phase)
        if len(mel) > 1 and y.requires_grad: y.register_hook(fail)
        return y
    monkeypatch.setattr(VocoderTraining, 'synthesize', synthesize_one)
    plans = []
    with pytest.warns(UserWarning, match='4 crops a step: going on with 2'):
        made = bundle_vocoder(file, home/'sounds', plan=plans.append, steps=50, batch_size=4, device='cpu')
    assert plans[0].steps == 50 and about(made)['config']['batch'] == 1
    cfg = VocoderConfig(batch=2, frames=20, discriminators='small', adversarial_after=0)
    task = VocoderTraining(Corpus(home/'sounds'), cfg=cfg)
    with pytest.warns(UserWarning, match='2 crops'): losses = task.step()
    assert math.isfinite(losses['discriminator'])

def test_a_halved_batch_is_resumed(place, tmp_path, monkeypatch):
    "The settings are those that were asked for, the batch is the one that fits"
    home, file, losses = place[0], make_model(tmp_path), VocoderTraining.losses
    def small(self, batch):
        if len(batch.mel) > 1: raise torch.OutOfMemoryError('no room')
        return losses(self, batch)
    monkeypatch.setattr(VocoderTraining, 'losses', small)
    with pytest.warns(UserWarning, match='2 crops'), pytest.raises(KeyboardInterrupt):
        bundle_vocoder(file, home/'sounds', epochs=1, batch_size=2, device='cpu', progress=interrupt)
    assert about(bundle_vocoder(file, home/'sounds', steps=50, resume=True, device='cpu'))['config']['batch'] == 1

# --- the base

def test_the_base_is_nearer_than_griffin_lim(tmp_path):
    mel = Mel(MEL)
    far = {'base': [], 'griffin-lim': []}
    for file in demo_corpus(tmp_path)[::6]:
        samples = sf.read(file, dtype='float32', always_2d=True)[0].mean(1)
        x = torch.from_numpy(samples)[None, :48_000]
        for vocoder in (Base(mel), GriffinLim(mel)):
            far[vocoder.name].append(mr_stft(vocoder(mel(x))[:, :x.shape[1]], x).item())
    assert sum(far['base']) < sum(far['griffin-lim'])

def test_the_recipe_of_the_base(tmp_path, monkeypatch):
    "It replaces its synthetic sounds by new ones and keeps the recordings"
    import train_base
    monkeypatch.setattr(train_base, 'cc0', lambda: sorted((tmp_path/'s').glob('*.wav')))
    make_sounds(tmp_path/'s')
    task = train_base.BaseTraining(VocoderConfig(batch=1, epoch=1))
    assert not task.net.head.weight.any() and len(task.born) == 5
    first = [example.sound for example in task.sounds]
    for _ in range(train_base.EPOCHS_OF_A_SOUND + 1): task.step()
    kept = [torch.equal(x, example.sound) for x, example in zip(first, task.sounds)]
    assert kept == [k not in task.born for k in range(10)]
    task.keep()
    half = train_base.halved(task.vocoder_state([]))
    head = half['state_dict']['head.weight']
    assert head.dtype == torch.float16
    torch.testing.assert_close(head.float(), task.average.head.weight.detach(), rtol=1e-2, atol=1e-6)
    mel = Mel(MEL)
    assert load_vocoder(half, mel)(mel(.1*torch.randn(1, 20_000))).isfinite().all()

# --- corpora

def test_a_file_of_nan_is_left_out_or_refused(tmp_path):
    folder = make_sounds(tmp_path/'s', 2)
    sf.write(folder/'nan.wav', np.full(24_000, np.nan, np.float32), 48_000, subtype='FLOAT')
    made = bundle_vocoder(make_model(tmp_path/'m'), folder, steps=50, batch_size=1)
    assert math.isfinite(about(made)['final_loss'])
    for file in folder.glob('0*.wav'): file.unlink()
    with pytest.raises(UserError, match='nan.wav'): bundle_vocoder(make_model(tmp_path/'m'), folder, **SHORT)

def silence(t, i): return 0*t

@pytest.mark.parametrize('kind, how', [
    ('one file', dict(n=1)), ('silence', dict(n=4, make=silence)), ('shorter than a crop', dict(n=5, seconds=.06))])
def test_poor_corpora(tmp_path, kind, how):
    folder, file = make_sounds(tmp_path/'s', **how), make_model(tmp_path/'m')
    if kind == 'silence':
        with pytest.raises(UserError, match='silen'): bundle_vocoder(file, folder, **SHORT)
        return
    model = bundle_vocoder(file, folder, **SHORT)
    assert math.isfinite(about(model)['final_loss'])
    assert (about(model)['held_out'] is None) == (kind == 'one file')
    for which in ('auto', 'own'): assert model.vocoder(which)(noise_mel(model)).isfinite().all()
    if kind == 'one file': assert model.vocoder().name == 'base'

def test_five_hundred_files(tmp_path, record_property):
    file, folder = make_model(tmp_path/'m'), make_sounds(tmp_path/'s', 500, .1)
    start, planned = time.process_time(), []
    known = about(bundle_vocoder(file, folder, plan=lambda plan: planned.append(time.process_time()), **SHORT))
    seconds = planned[0] - start
    record_property('figure', f'vocoder, 500 files of 0.1 s: {seconds:.1f} CPU-s until the training is planned')
    assert known['held_out'] is not None and known['corpus']['n_files'] == 500

@pytest.mark.parametrize('mel', [
    MelConfig(n_fft=64, hop=16, n_mels=8), MelConfig(n_fft=512, hop=128, n_mels=32),
    MelConfig(n_fft=4096, hop=1024, n_mels=256)], ids=lambda c: f'hop {c.hop}')
def test_other_mel_settings_than_the_usual(place, mel):
    task = VocoderTraining(Corpus(place[0]/'sounds'), mel, VocoderConfig(batch=1, epoch=2))
    record = next(fit(task, steps=2))
    assert math.isfinite(record.parts['generator']) and math.isfinite(record.held_out)

# --- killed

def popen(*args):
    return subprocess.Popen([*DISTILL, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, bufsize=1)

def unfinished(file): return (load_model(file).vocoder_state or {}).get('checkpoint')

def kill_at(cmd, words, seconds):
    "Start a training, kill it so many seconds after it prints the words; whether it was still running"
    process = popen(*cmd)
    for line in process.stderr:
        if words in line: break
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs signals')
def test_killed_and_resumed_is_the_uninterrupted_run(place, tmp_path):
    "SIGKILL at several moments: before the first step, in an epoch, while the file is written"
    sounds = place[0]/'sounds'
    whole, cut = make_model(tmp_path/'whole'), make_model(tmp_path/'cut')
    weights = dict(load_model(cut).net.state_dict())
    a = bundle_vocoder(whole, sounds, steps=150, batch_size=1, seed=3, device='cpu').vocoder_state
    cmd = ['train-vocoder', cut, sounds, '--steps', 150, '--batch-size', 1, '--seed', 3, '--device', 'cpu']
    kills, moments = 0, random.Random(0)
    for words in ('steps, about', ' step ', 'steps, about', 'steps, about'):   # a resumed run may be past any step
        kills += kill_at(cmd + ['--resume']*bool(unfinished(cut)), words, moments.uniform(0, .5))
        model = load_model(cut)                                                # never torn
        assert not verify_model(cut) and same(dict(model.net.state_dict()), weights)
        if model.vocoder_state and not unfinished(cut): break
    assert kills >= 2
    if unfinished(cut): bundle_vocoder(cut, sounds, steps=150, resume=True, device='cpu')
    b = load_model(cut).vocoder_state
    assert 'checkpoint' not in b and same(a['state_dict'], b['state_dict'])
    known = [s['training_metadata'] for s in (a, b)]
    assert known[0]['final_loss'] == known[1]['final_loss']
    assert [h['held_out'] for h in known[0]['history']] == [h['held_out'] for h in known[1]['history']]
    ModelLibrary(cut.parent)         # a writer killed in the middle leaves a file that the next opening sweeps
    assert not list(cut.parent.glob('.*.tmp*'))

def test_killed_after_the_last_epoch_the_end_is_not_lost(place, tmp_path):
    "The budget is used, only the last writing was missing"
    home, file = place[0], make_model(tmp_path)
    few = dict(steps=50, device='cpu')
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(file, home/'sounds', progress=interrupt, batch_size=1, **few)
    made = bundle_vocoder(file, home/'sounds', resume=True, **few)
    known = about(load_model(file))
    assert known == about(made) and len(known['history']) == 1
    assert known['held_out'] is not None and known['final_loss'] is not None

def test_interrupt_says_how_to_go_on(place, tmp_path):
    home, file = place[0], make_model(tmp_path)
    cmd = ['train-vocoder', file, home/'sounds', '--steps', 5000, '--batch-size', 1, '--device', 'cpu', '--json']
    process = popen(*cmd)
    for line in process.stderr:
        if 'step 50' in line: break                         # the first epoch is done, the second has begun
    time.sleep(.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == '' and '--resume' in err and 'Traceback' not in err, err
    assert unfinished(file)['done'] > 0
    done = run(*cmd[:3])
    assert done.returncode == 1 and 'unfinished' in done.stderr and '--resume' in done.stderr

def test_an_older_vocoder_plays_on_while_it_is_replaced(place, tmp_path):
    "Also one that was not made by `bundle_vocoder`, and has no word about being finished"
    home, file, _ = place
    model = load_model(file)
    del about(model)['finished']
    copied = copy_model(model, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        bundle_vocoder(copied, home/'sounds', force=True, progress=interrupt, seed=9, **SHORT)
    assert same(load_model(copied).vocoder_state['state_dict'], model.vocoder_state['state_dict'])

# --- a stranger's vocoder

JUNK = [None, True, -1, 0, 1, 3, 2**62, -2**40, math.nan, math.inf, 1e300, 1e-320, 'x', '', 'x'*5000, 'a\nb\x1b[2J',
        [], [1]*3, [10**9]*4, [[1]], {}, dict(a=1), (1, 2), [0.]*128, [1e-320]*128, [math.nan]*128]
ODD_TENSORS = [torch.zeros(1), torch.zeros(0), torch.zeros(3, 2), torch.tensor(math.nan), torch.full((4,), 1e38),
               torch.zeros(9, dtype=torch.int64), torch.zeros(7, dtype=torch.float64), torch.ones(2, dtype=torch.bool)]
ODD_NUMBERS = [1e38, -1e30, 1e-40, math.nan, math.inf, 1e10]

def spoil(state, r):
    "Change one thing in a vocoder's state"
    part, weights = r.choice(['config', 'training_metadata']), state['state_dict']
    settings = state[part]
    key = r.choice([*settings, 'mel_key', 'held_out', 'base', 'epochs', 'new'])
    weight = r.choice(list(weights)) if weights else 'w'
    how = r.randrange(8)
    if how <= 2: settings[key] = copy.deepcopy(r.choice(JUNK))
    elif how == 3: settings.pop(key, None)
    elif how == 4: weights[weight] = r.choice(ODD_TENSORS)
    elif how == 5: weights[weight] = torch.full_like(weights.get(weight, torch.zeros(1)).float(), r.choice(ODD_NUMBERS))
    elif how == 6: weights.pop(weight, None)
    else: state['type'] = r.choice(['fourier', 'hifigan_v2', 'x', None, 3])

def strangers(r, good, n):
    "Vocoder states as no training writes them"
    for _ in range(n):
        state = copy.deepcopy(r.choice(good))
        for _ in range(r.choice([1, 1, 1, 2, 4])): spoil(state, r)
        yield state

def good_states():
    "A small vocoder's state of either type, better than the base by its own account"
    nets = dict(fourier=Fourier(FourierConfig(width=8, blocks=1, steps=1)),
                hifigan_v2=HiFiGAN(HiFiGANConfig(channels=16, kernels=(3,), dilations=(1,))))
    known = dict(epochs=1, steps=50, final_loss=.1, training_date='2026-01-15', mel_key=MEL.key, held_out=.3,
                 griffin_lim=.6, base=.5, finished=True)
    def listed(cfg): return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(cfg).items()}
    return [dict(type=kind, state_dict=dict(net.state_dict()), config=listed(net.cfg), training_metadata=dict(known))
            for kind, net in nets.items()]

def save_raw(folder, contents, state):
    "A file with this vocoder and the card that belongs to it, if there can be one"
    contents = contents | dict(vocoder_state=state)
    try: info = VocoderInfo.from_state(state)
    except UserError: info = None                          # it is refused anyway
    def count(weights): return sum(t.numel() for t in weights.values())
    sizes = dict(parameters=count(contents['model_state_dict']), latent_dim=contents['latent_dim'],
                 vocoder_parameters=count(state['state_dict']))
    settings = plain_settings(training=contents['training_config'], model=contents['model_config'],
                              mel=contents['spectrogram_config'])
    card = make_card(ModelMetadata.from_dict(contents['metadata']), info, sizes, settings)
    file = folder/'stranger.distillgan'
    file.write_bytes(craft(contents, json.dumps(card, default=str).encode()))
    return file

def outcome(file, mel):
    "What becomes of a stranger's vocoder: refused with its file, refused when wanted, or it plays; and what is said"
    try: model = load_model(file)
    except ModelFileError as e: return 'file', str(e)
    y = model.vocoder('auto')(mel)                         # auto always makes a sound
    assert y.shape == (1, 8*512) and y.isfinite().all()
    try: vocoder = model.vocoder('own')
    except UserError as e: return 'vocoder', str(e)
    y = vocoder(mel)
    assert y.shape == (1, 8*512) and y.isfinite().all(), model.vocoder_state['config']
    return 'plays', vocoder.why

def test_a_strangers_vocoder(tmp_path, record_property):
    "It is refused in a sentence when it is loaded or when it is wanted, or it plays; it never asks for much memory"
    from test_fuzz import LINUX, _peak
    good = good_states()
    contents, _ = read_contents(make_model(tmp_path))
    to_mel = Mel(MEL)
    mel = to_mel(.1*torch.randn(1, 20_000))[..., :8]
    for state in good: assert resolve_vocoder(state, to_mel).name == state['type']
    counts, worst = dict(file=0, vocoder=0, plays=0), 0
    for state in strangers(random.Random(5), good, int(200*TIMES)):
        before = _peak(reset=True) if LINUX else 0
        what, text = outcome(save_raw(tmp_path, contents, state), mel)
        counts[what] += 1
        assert '\n' not in text and '\x1b' not in text and len(text) < 700, text
        worst = max(worst, _peak() - before if LINUX else 0)
    assert worst < 300e6 and all(counts.values())
    total = sum(counts.values())
    record_property('figure', f"vocoder, strangers' files: {total}, {counts['file']} refused when loaded, "
                              f"{counts['vocoder']} when wanted, {counts['plays']} play; worst {worst/1e6:.0f} MB")

def test_a_strangers_unfinished_training(place, tmp_path):
    home, file, r = place[0], make_model(tmp_path), random.Random(7)
    with pytest.raises(KeyboardInterrupt): bundle_vocoder(file, home/'sounds', progress=interrupt, **SHORT)
    corpus = Corpus(home/'sounds')
    for i in range(int(12*TIMES)):
        model = load_model(file)
        checkpoint = model.vocoder_state['checkpoint']
        key = r.choice([k for k in checkpoint if k not in ('format', 'version')])
        settings = checkpoint['training_config']
        if i % 3 == 0: del checkpoint[key]
        elif i % 3 == 1: checkpoint[key] = r.choice([None, 'x', 3, [], {}, torch.zeros(2)])
        else: settings[r.choice(list(settings))] = r.choice([-1, 10**12, 'x', None, [1]])
        stranger = copy_model(model, tmp_path/'g')
        try: bundle_vocoder(stranger, corpus, steps=50, resume=True)     # what can be resumed ends at once
        except UserError as e: assert len(str(e)) < 600
        assert not verify_model(stranger)
        stranger.unlink()

# --- several processes

CURVES = '''
import json, sys
from distill.audio.corpus import Corpus
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining

curves = {}
for type in ('fourier', 'hifigan_v2'):
    cfg = VocoderConfig(batch=4, epoch=1, type=type, frames=20, lr_warmup=1, lr=3e-4)
    task = VocoderTraining(Corpus(sys.argv[1]), cfg=cfg, device='cpu')
    curves[type] = [r.parts | dict(held_out=r.held_out) for r in fit(task, steps=6)]
if task.is_main: open(sys.argv[2], 'w').write(json.dumps(curves))
'''

def test_two_processes_learn_what_one_learns(place, tmp_path, record_property):
    "`accelerate launch` with two processes on the CPU: the same curve"
    script = tmp_path/'curves.py'
    script.write_text(CURVES)
    launch = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', 2,
              '--num_machines', 1, '--mixed_precision', 'no', '--dynamo_backend', 'no',
              '--main_process_port', free_port()]
    env = os.environ | dict(OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='lo')
    def curves(name, cmd):
        cmd = map(str, [*cmd, script, place[0]/'sounds', tmp_path/name])
        done = subprocess.run(list(cmd), capture_output=True, text=True, env=env, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((tmp_path/name).read_text())
    alone, both = curves('one', [sys.executable]), curves('two', launch)
    for kind, one in alone.items():
        two = both[kind]
        off = [max(abs(a[k] - b[k])/abs(a[k]) for k in a if a[k]) for a, b in zip(one, two)]
        record_property('figure', f'vocoder, {kind}: the curve of two processes is that of one within {off[0]:.1e} '
                                  f'after one step and {max(off):.1e} after six')
        assert len(one) == len(two) == 6 and off[0] < 1e-4 and max(off) < 1e-2, (kind, off)

def test_two_processes_write_one_model(place, tmp_path):
    "The command itself, launched twice over: the main process reports and writes, the file is whole"
    file = make_model(tmp_path)
    cmd = ['train-vocoder', file, place[0]/'sounds', '--epochs', 1, '--batch-size', 2, '--device', 'cpu', '--json']
    env = os.environ | dict(OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='lo', WORLD_SIZE='2',
                            MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    def start(rank):
        return subprocess.Popen([*DISTILL, *map(str, cmd)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=env | dict(RANK=str(rank), LOCAL_RANK=str(rank)))
    processes = [start(rank) for rank in range(2)]
    (out, err), (other_out, other_err) = (p.communicate(timeout=600) for p in processes)
    assert [p.returncode for p in processes] == [0, 0], err + other_err
    assert json.loads(out)['steps'] == 50 and other_out == '' and 'Training' not in other_err
    assert not verify_model(file) and not unfinished(file)
