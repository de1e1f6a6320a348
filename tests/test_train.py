"Training a model: shared by two processes, and heard while it goes on"
import json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import torch
from jlab import free_port
from distill.audio.corpus import Corpus
from distill.audio.files import read_audio, read_tags
from distill import pipeline
from distill.core import UserError
from distill.models.persistence import load_model, verify_model
from distill.models.vae import VAEConfig
from distill.pipeline import train_model
from distill.training.loop import Task
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining

@pytest.fixture(scope='module')
def sounds(tmp_path_factory):
    "A folder of short plucked tones"
    d = tmp_path_factory.mktemp('train')/'sounds'; d.mkdir()
    t = np.arange(24_000)/48_000
    for i in range(8): sf.write(d/f'{i}.wav', .4*np.sin(2*np.pi*(200 + 37*i)*t)*np.exp(-6*t), 48_000)
    return d

def shrink(setattr=setattr):
    "`train_model` with a narrow net, short epochs and sliders without names: seconds in place of minutes"
    setattr(pipeline, 'VAETraining', lambda corpus, cfg, device: VAETraining(corpus, vae=VAEConfig(channels=16), cfg=replace(cfg, batch=8, epoch=10), device=device))
    setattr(pipeline, 'name_sliders', lambda model: model.analysis)

@pytest.fixture
def small(monkeypatch): shrink(monkeypatch.setattr)

def together(n, *cmd):
    "The outcomes of `n` processes that share a training, as `torchrun` starts them"
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo', 'WORLD_SIZE': str(n), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free_port())}
    ps = [subprocess.Popen([sys.executable, *map(str, cmd)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, 'RANK': str(i), 'LOCAL_RANK': str(i)}) for i in range(n)]
    said = [p.communicate(timeout=600) for p in ps]
    assert [p.returncode for p in ps] == [0]*n, said
    return said

# --- several processes

CURVE = """
import json, sys
from distill.audio.corpus import Corpus
from distill.models.vae import VAEConfig
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining
from distill.training.loop import fit
def curve(**budget):
    task = VAETraining(Corpus(sys.argv[1]), vae=VAEConfig(channels=32), cfg=TrainConfig(batch=8, epoch=1, lr_warmup=1, kl_warmup=1, kl_weight=.1, free_bits=1.52, patience=0, bf16=False))
    task.net.encoder.register_forward_pre_hook(lambda net, x: crops.add(len(x[0])))
    return [r.parts | dict(held_out=r.held_out, kl_weight=task.kl_weight, seconds=r.seconds) for r in fit(task, **budget)]
crops = set()
steps, minutes = curve(steps=6), curve(minutes=.005)
print(json.dumps([steps, len(minutes), minutes[-1]['seconds'], *crops]))
"""

def test_two_processes_learn_what_one_learns(sounds, tmp_path, record_property):
    "The same curve but for rounding, the weight of the latent included; and of a budget in minutes both have the same end"
    (tmp_path/'curve.py').write_text(CURVE)
    ((one, _),), ((two, _), (other, _)) = (together(n, tmp_path/'curve.py', sounds) for n in (1, 2))
    (one, *_, whole), two, other = map(json.loads, (one, two, other))
    assert two == other and two[1] > 0 and (whole, two[3]) == (8, 4)
    far = lambda a, b, *keys: max(abs(a[k] - b[k])/abs(a[k]) for k in keys)
    off = [far(a, b, 'loss', 'recon', 'kl', 'kl_weight') for a, b in zip(one, two[0])]
    assert max(far(a, b, 'held_out') for a, b in zip(one, two[0])) < 1e-4          # of other sounds, where the gradients lead: rounding grows there first
    record_property('figure', f'VAE: the curve of two processes is that of one within {off[0]:.1e} after one step and {max(off):.1e} after six')
    assert len(one) == len(two[0]) == 6 and off[0] < 1e-6 and max(off) < 1e-5, off

def test_two_processes_write_one_model(sounds, tmp_path):
    "The command, launched twice over: one speaks, one writes, previews too"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_train; test_train.shrink(); from distill.cli import main; main()"
    (out, err), (out2, err2) = together(2, '-c', code, 'train', sounds, '--name', 'Two', '--steps', 20, '--device', 'cpu', '--preview-interval', 2, '--models-dir', tmp_path, '--json')
    made = json.loads(out)
    assert made['steps'] == 20 and 'step 20' in err and out2 == '' and 'step' not in err2
    assert not verify_model(made['path']) and not list((tmp_path/'checkpoints').iterdir()) and len(list((tmp_path/'previews'/'Two').iterdir())) == 2

def test_processes_end_with_their_connections_closed():
    "One that does not may be aborted while another still works"
    code = "import atexit, torch; open = torch.distributed.is_initialized; atexit.register(lambda: print(open())); from distill.training.loop import Task; from distill.training.plan import TrainConfig; Task(TrainConfig()); print(open())"
    assert [out.split() for out, _ in together(2, '-c', code)] == [['True', 'False']]*2

def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    from types import SimpleNamespace
    monkeypatch.setattr('distill.training.loop._processes', lambda device: SimpleNamespace(device=torch.device('cpu'), num_processes=3, process_index=0))
    with pytest.raises(UserError, match='multiple of 3'): Task(TrainConfig(batch=32))

def test_one_process_does_not_import_accelerate():
    code = "import sys, distill.pipeline; print('accelerate' in sys.modules)"
    env = {k: v for k, v in os.environ.items() if k != 'WORLD_SIZE'}
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env).stdout.strip() == 'False'

# --- heard while it goes on

def test_previews_are_heard_and_never_learned(sounds, tmp_path, small):
    made = train_model(sounds, 'Heard', tmp_path/'lib', steps=20, device='cpu', preview_interval=1)
    heard = sorted((tmp_path/'lib'/'previews'/'Heard').iterdir())
    assert [f.name for f in heard] == ['epoch-0001.wav', 'epoch-0002.wav', 'original.wav']
    first, second, original = (read_audio(f)[0][0] for f in heard)
    corpus = Corpus(sounds)
    held = corpus[corpus.split(seed=0)[1][0]]
    assert (original - held).abs().max() < 2**-22 and len(first) == len(second) == len(held)
    assert first.abs().max() > 0 and not torch.equal(first, second)                  # as it is by then
    assert all(read_tags(f)['software'].startswith('distill') for f in heard)
    mixed = tmp_path/'mixed'; mixed.mkdir()
    for f in [*heard, *sounds.iterdir()]: (mixed/f.name).write_bytes(f.read_bytes())
    assert sorted(Corpus(mixed).names) == sorted(f.name for f in sounds.iterdir()) and Corpus(mixed).fingerprint == corpus.fingerprint
    with pytest.raises(UserError, match='made by distill'): Corpus(tmp_path/'lib'/'previews')
    assert load_model(made.path).metadata.n_files == 8

def test_previews_change_nothing_that_is_learned(sounds, tmp_path, small):
    a, b = (load_model(train_model(sounds, 'x', tmp_path/str(i), steps=20, device='cpu', preview_interval=i).path) for i in (0, 1))
    assert all(torch.equal(v, b.model.state_dict()[k]) for k, v in a.model.state_dict().items())
    assert not (tmp_path/'0'/'previews').exists()

def test_previews_among_the_sounds_are_refused(sounds):
    before = sorted(sounds.rglob('*'))
    with pytest.raises(UserError, match='among the sounds'): train_model(sounds, 'x', sounds/'lib', steps=50, preview_interval=1)
    with pytest.raises(UserError, match='-1'): train_model(sounds, 'x', sounds/'lib', steps=50, preview_interval=-1)
    assert sorted(sounds.rglob('*')) == before
