"Training a model: shared by two processes, and heard while it goes on"
import json
import os
import subprocess
import sys
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
from distill.models.persistence import verify_model
from distill.models.vae import VAEConfig
from distill.pipeline import train_model
from distill.training.loop import Task
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
    setattr(pipeline, 'name_sliders', lambda model: model.analysis)

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
from distill.models.vae import VAEConfig
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
    assert made['steps'] == 20 and 'step 20' in err
    assert other_out == '' and 'step' not in other_err
    assert not verify_model(made['path'])
    assert not list((tmp_path/'checkpoints').iterdir())
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
