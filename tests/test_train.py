"Training a model: shared by two processes, and heard while it goes on"
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import soundfile as sf
import torch
from jlab import free_port
from distill import pipeline
from distill.audio.corpus import Corpus
from distill.audio.files import read_audio, read_tags
from distill.core import UserError
from distill.features.mel import MelConfig
from distill.library.catalog import ModelLibrary
from distill.library.unfinished import checkpoint_path, discard_training, find_unfinished, unfinished_trainings
from distill.models.persistence import load_model, save_model, verify_model
from distill.models.metadata import ModelMetadata
from distill.models.vae import ConvVAE, VAEConfig
from distill.pipeline import bundle_vocoder, train_model
from distill.training.loop import Task, fit, read_checkpoint
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining

TESTS = Path(__file__).parent

@pytest.fixture(scope='module')
def sounds(tmp_path_factory):
    "A folder of short plucked tones"
    folder = tmp_path_factory.mktemp('train')/'sounds'
    folder.mkdir()
    t = np.arange(24_000)/48_000
    for i in range(8):
        tone = np.sin(2*np.pi*(200 + 37*i)*t)
        sf.write(folder/f'{i}.wav', .4*tone*np.exp(-6*t), 48_000)
    return folder

class Narrow(VAETraining):
    "A narrow net: seconds in place of minutes"
    def __init__(self, corpus, cfg, device):
        super().__init__(corpus, vae=VAEConfig(channels=16), cfg=cfg, device=device)

def few_crops(*preset, seed=0): return TrainConfig(batch=8, epoch=10, seed=seed)

def shrink(setattr=setattr):
    "`train_model` with few crops, short epochs and sliders without names"
    setattr(pipeline, 'settings_of', few_crops)
    setattr(pipeline, 'name_sliders', lambda model, progress: model.analysis)

@pytest.fixture
def small(monkeypatch): shrink(monkeypatch.setattr)

def train(sounds, name, library, **how):
    "Two short epochs of a narrow net"
    return train_model(sounds, name, library, steps=20, device='cpu', cfg=few_crops(), task=Narrow, **how)

def run_processes(n, *cmd):
    "What `n` processes that share a training print, as `torchrun` starts them"
    env = os.environ | dict(OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='lo', WORLD_SIZE=str(n),
                            MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    def start(rank):
        return subprocess.Popen([sys.executable, *map(str, cmd)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=env | dict(RANK=str(rank), LOCAL_RANK=str(rank)))
    processes = [start(rank) for rank in range(n)]
    printed = [p.communicate(timeout=600) for p in processes]
    assert [p.returncode for p in processes] == [0]*n, printed
    return printed

# --- several processes

CURVE = """
import json, sys
from distill.audio.corpus import Corpus
from distill.models.metadata import ModelMetadata
from distill.models.vae import ConvVAE, VAEConfig
from distill.training.loop import fit
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining

cfg = TrainConfig(batch=8, epoch=1, lr_warmup=1, kl_warmup=1, kl_weight=.1, free_bits=1.52, patience=0, bf16=False)
crops = set()

def curve(**budget):
    task = VAETraining(Corpus(sys.argv[1]), vae=VAEConfig(channels=32), cfg=cfg)
    task.net.encoder.register_forward_pre_hook(lambda net, x: crops.add(len(x[0])))
    records = fit(task, **budget)
    return [r.parts | dict(held_out=r.held_out, kl_weight=task.kl_weight, seconds=r.seconds) for r in records]

steps, minutes = curve(steps=6), curve(minutes=.005)
print(json.dumps([steps, len(minutes), minutes[-1]['seconds'], *crops]))
"""

def test_two_processes_learn_what_one_learns(sounds, tmp_path, record_property):
    "The same curve but for rounding, the weight of the KL too; and a budget in minutes ends at the same step in both"
    (tmp_path/'curve.py').write_text(CURVE)
    alone, = run_processes(1, tmp_path/'curve.py', sounds)
    both = run_processes(2, tmp_path/'curve.py', sounds)
    one, *_, crops_of_one = json.loads(alone[0])
    (two, epochs, _, crops_of_two), other = (json.loads(out) for out, _ in both)
    assert other == [two, epochs, *other[2:]] and other == json.loads(both[0][0])
    assert epochs > 0 and (crops_of_one, crops_of_two) == (8, 4)
    assert len(one) == len(two) == 6
    def apart(a, b, *keys): return max(abs(a[k] - b[k])/abs(a[k]) for k in keys)
    off = [apart(a, b, 'loss', 'recon', 'kl', 'kl_weight') for a, b in zip(one, two)]
    record_property('figure', f'VAE: the curve of two processes is that of one within {off[0]:.1e} after one step '
                              f'and {max(off):.1e} after six')
    assert off[0] < 1e-6 and max(off) < 1e-5, off
    assert max(apart(a, b, 'held_out') for a, b in zip(one, two)) < 1e-4     # rounding grows there first

def test_two_processes_write_one_model(sounds, tmp_path):
    "The command, launched twice over: the main process reports and writes, previews too"
    code = (f'import sys; sys.path.insert(0, {str(TESTS)!r}); import test_train; test_train.shrink(); '
            'from distill.cli import main; main()')
    cmd = ['train', sounds, '--name', 'Two', '--steps', 20, '--device', 'cpu', '--preview-interval', 2,
           '--models-dir', tmp_path, '--json']
    (out, err), (other_out, other_err) = run_processes(2, '-c', code, *cmd)
    made = json.loads(out)
    assert made['steps'] == 20 and 'step 1' in err
    assert other_out == '' and 'step' not in other_err
    assert not verify_model(made['path'])
    assert not (tmp_path/'checkpoints').exists()
    assert len(list((tmp_path/'previews'/'Two').iterdir())) == 2

CONNECTIONS = """
import atexit, torch
from distill.training.loop import Task
from distill.training.plan import TrainConfig
is_open = torch.distributed.is_initialized
atexit.register(lambda: print(is_open()))
Task(TrainConfig())
print(is_open())
"""

def test_processes_end_with_their_connections_closed():
    "One that does not may be aborted while another still works"
    printed = run_processes(2, '-c', CONNECTIONS)
    assert [out.split() for out, _ in printed] == [['True', 'False']]*2

def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    three = SimpleNamespace(device=torch.device('cpu'), num_processes=3, process_index=0)
    monkeypatch.setattr('distill.training.loop._processes', lambda device: three)
    with pytest.raises(UserError, match='multiple of 3'): Task(TrainConfig(batch=32))

def test_one_process_does_not_import_accelerate():
    code = "import sys, distill.pipeline; print('accelerate' in sys.modules)"
    env = {k: v for k, v in os.environ.items() if k != 'WORLD_SIZE'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == 'False'

# --- two trainings at once: each has its own checkpoint, or the second is told who has it

def stop(*record): raise KeyboardInterrupt

def interrupted(sounds, name, library, **how):
    "A training that is interrupted after its first epoch"
    with pytest.raises(KeyboardInterrupt): train(sounds, name, library, progress=stop, **how)
    return checkpoint_path(library, name)

def sounds_of(model):
    "The hashes of the sounds that a model file says it was trained on"
    return {sound for sounds in load_model(model.path).training_config['sounds'].values() for sound in sounds}

@pytest.fixture(scope='module')
def other_sounds(tmp_path_factory):
    "A folder of noises"
    folder = tmp_path_factory.mktemp('train')/'other'
    folder.mkdir()
    for i in range(5): sf.write(folder/f'{i}.wav', np.random.default_rng(i).normal(0, .1, 12_000), 48_000)
    return folder

ELSEWHERE = """
import sys, time, test_train
from pathlib import Path
test_train.shrink()
place = Path(sys.argv[2])

def wait(step):
    (place/step).touch()
    while not (place/f'{step} seen').exists(): time.sleep(.02)

test_train.train(sys.argv[1], 'C', place/'lib', opened=lambda corpus: wait('opened'), progress=lambda record: wait('epoch'))
"""

def reached(place, step, process):
    "Wait until the training in the other process has come to a step"
    while not (place/step).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(.02)

def test_a_training_in_another_process(sounds, other_sounds, tmp_path, small):
    "While it lives nobody takes, resumes or discards it; killed, it can be resumed; another name is another training"
    from distill.ui import TrainPanel
    code, library = ELSEWHERE, tmp_path/'lib'
    process = subprocess.Popen([sys.executable, '-c', code, str(sounds), str(tmp_path)], cwd=TESTS,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reached(tmp_path, 'opened', process)
    running = find_unfinished('C', library)
    assert (running.owner.pid, running.size, running.folder) == (process.pid, 0, str(sounds))
    said = rf'running already, in process {process.pid}, since'
    for folder, resume in (sounds, False), (other_sounds, False), (sounds, True):
        with pytest.raises(UserError, match=said): train(folder, 'C', library, resume=resume)
    with pytest.raises(UserError, match=said): discard_training('C', library)
    with pytest.raises(UserError, match=said): next(fit(Task(few_crops()), checkpoint=checkpoint_path(library, 'C')))
    (tmp_path/'opened seen').touch()
    reached(tmp_path, 'epoch', process)
    panel = TrainPanel(models_dir=library, name='C')
    assert {panel.discard.layout.display, panel.resume.layout.display, panel.start.layout.display} == {'none'}
    sharp = train(other_sounds, 'C#', library)
    assert sounds_of(sharp) == set(Corpus(other_sounds).hashes)
    process.kill()
    process.communicate()
    assert find_unfinished('C', library).owner is None and read_checkpoint(checkpoint_path(library, 'C'))['done'] == 10
    with pytest.raises(UserError, match='unfinished.*--resume.*discard'): train(sounds, 'C', library)
    made = train(sounds, 'C', library, resume=True)
    assert sounds_of(made) == set(Corpus(sounds).hashes) and made.metadata.corpus == sounds.name
    assert len(ModelLibrary(library)) == 2 and not list((library/'checkpoints').glob('*'))

def test_whose_lock_was_deleted_keeps_its_model(sounds, other_sounds, tmp_path, small):
    "And leaves the checkpoint of the training that took its place alone"
    path = checkpoint_path(tmp_path, 'x')
    def somebody_else(record):
        if record.epoch > 1: return
        for file in path.parent.iterdir(): file.unlink()
        interrupted(other_sounds, 'x', tmp_path)
    with pytest.warns(UserWarning, match='another training'): made = train(sounds, 'x', tmp_path, progress=somebody_else)
    assert sounds_of(made) == set(Corpus(sounds).hashes)
    assert read_checkpoint(path)['corpus']['fingerprint'] == Corpus(other_sounds).fingerprint

def test_the_sounds_decide_and_not_the_name_of_their_folder(sounds, tmp_path, small, monkeypatch):
    "Renamed, and given as the working directory, a folder resumes; with another sound it does not"
    folder = shutil.copytree(sounds, tmp_path/'before')
    told = []
    whole, path = train(sounds, 'whole', tmp_path/'lib', outlook=told.append), interrupted(folder, 'x', tmp_path/'lib')
    stages = list(dict.fromkeys(outlook.what.split()[0] for outlook in told))
    assert stages[-4:] == ['preparing', 'step', 'naming', 'done']
    assert told[-1].done == 1 and told[-1].eta == 0
    monkeypatch.chdir(folder.rename(tmp_path/'after'))
    tone = Path('0.wav').rename(tmp_path/'0.wav')
    with pytest.raises(UserError, match='8 files.*7 files.*discard'): train('.', 'x', tmp_path/'lib', resume=True)
    assert find_unfinished('x', tmp_path/'lib').folder == str(folder)
    tone.rename('0.wav')
    made = train('.', 'x', tmp_path/'lib', resume=True)
    assert made.metadata.corpus == 'after' and not path.exists()
    assert all(torch.equal(v, made.net.state_dict()[k]) for k, v in whole.net.state_dict().items())

def test_names_that_make_one_file_name_are_two_trainings(sounds, other_sounds, tmp_path, small):
    "An unfinished F does not stand in the way of F#, nor f"
    waiting = interrupted(sounds, 'F', tmp_path)
    before = waiting.read_bytes()
    for name in 'F#', 'f': assert sounds_of(train(other_sounds, name, tmp_path)) == set(Corpus(other_sounds).hashes)
    assert waiting.read_bytes() == before and [t.name for t in unfinished_trainings(tmp_path)] == ['F']
    discard_training('F', tmp_path)
    assert not list(waiting.parent.iterdir())

def test_a_model_that_cannot_be_saved_waits(sounds, tmp_path, small, monkeypatch):
    "The lock is given back, and what was learned is there"
    def no_room(*model): raise UserError('the disk is full')
    with monkeypatch.context() as full:
        full.setattr(pipeline, 'write_model', no_room)
        with pytest.raises(UserError, match='full'): train(sounds, 'x', tmp_path)
    assert find_unfinished('x', tmp_path).owner is None
    assert train(sounds, 'x', tmp_path, resume=True).metadata.steps == 20

@pytest.mark.parametrize('wrong', [
    dict(name=''), dict(steps=0), dict(minutes=-1), dict(preset='fast'), dict(device='abacus'), dict(cfg=5),
    dict(task=5), dict(resume=True), dict(models_dir='file'), dict(preview_interval=-1), dict(minutes=.01)],
                         ids=str)
def test_what_cannot_be_trained_is_refused_before_a_sound_is_read(sounds, tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DISTILL_CACHE', str(tmp_path/'cache'))     # where sounds are kept that were read
    (tmp_path/'file').write_text('no folder')
    with pytest.raises(UserError): train_model(sounds, **dict(name='x', models_dir=tmp_path/'lib', device='cpu') | wrong)
    assert not (tmp_path/'cache').exists() and not list(tmp_path.rglob('*.pt*'))

def test_a_folder_without_sounds_leaves_no_lock(tmp_path):
    (tmp_path/'empty').mkdir()
    with pytest.raises(UserError, match='empty'): train_model(tmp_path/'empty', 'x', tmp_path/'lib', device='cpu')
    assert not list((tmp_path/'lib').rglob('*x*'))

def test_two_vocoders_for_one_model(sounds, tmp_path):
    "The second is told; the lock is given back when the first is interrupted"
    path = save_model(ConvVAE(VAEConfig(channels=16)), MelConfig(), {}, ModelMetadata('x'), tmp_path)
    begin = partial(bundle_vocoder, path, sounds, epochs=1, batch_size=1, device='cpu')
    def meanwhile():
        with pytest.raises(UserError, match="vocoder training of 'x' is running already, in this process"): begin()
        return True
    for resume in False, True:
        with pytest.raises(KeyboardInterrupt): begin(stop=meanwhile, resume=resume)
    assert sorted(f.name for f in tmp_path.iterdir() if 'library' not in f.name) == ['x.distillgan']

# --- heard while it goes on

def test_previews_are_heard_and_never_learned(sounds, tmp_path, small):
    made = train(sounds, 'Heard', tmp_path/'lib', preview_interval=1)
    heard = sorted((tmp_path/'lib'/'previews'/'Heard').iterdir())
    assert [f.name for f in heard] == ['epoch-0001.wav', 'epoch-0002.wav', 'original.wav']
    first, second, original = (read_audio(f)[0][0] for f in heard)
    corpus = Corpus(sounds)
    held_out = corpus[corpus.split(seed=0)[1][0]]
    assert (original - held_out).abs().max() < 2**-22 and len(first) == len(second) == len(held_out)
    assert first.abs().max() > 0 and not torch.equal(first, second)          # as it is by then
    assert all(read_tags(f)['software'].startswith('distill') for f in heard)
    assert made.metadata.n_files == 8
    with pytest.raises(UserError, match='made by distill'): Corpus(tmp_path/'lib'/'previews')

def test_previews_among_sounds_are_not_learned(sounds, tmp_path, small):
    train(sounds, 'Heard', tmp_path/'lib', preview_interval=1)
    mixed = tmp_path/'mixed'
    mixed.mkdir()
    previews = tmp_path/'lib'/'previews'/'Heard'
    for f in [*previews.iterdir(), *sounds.iterdir()]: (mixed/f.name).write_bytes(f.read_bytes())
    assert sorted(Corpus(mixed).names) == sorted(f.name for f in sounds.iterdir())
    assert Corpus(mixed).fingerprint == Corpus(sounds).fingerprint

def test_previews_change_nothing_that_is_learned(sounds, tmp_path, small):
    without, with_previews = (train(sounds, 'x', tmp_path/str(i), preview_interval=i) for i in (0, 1))
    weights = with_previews.net.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in without.net.state_dict().items())
    assert not (tmp_path/'0'/'previews').exists()

def test_previews_among_the_sounds_are_refused(sounds):
    before = sorted(sounds.rglob('*'))
    with pytest.raises(UserError, match='among the sounds'): train(sounds, 'x', sounds/'lib', preview_interval=1)
    with pytest.raises(UserError, match='-1'): train(sounds, 'x', sounds/'lib', preview_interval=-1)
    assert sorted(sounds.rglob('*')) == before
