"The command `distill` as whole processes, with what people really give it: each mistake one sentence, an exit code, nothing half-written."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf

DISTILL = [sys.executable, '-c', 'from distill.cli import main; main()']


def run(*args, **env):
    return subprocess.run([*DISTILL, *map(str, args)], capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


def one_sentence(r, *words):
    "The command failed, said why in one sentence with these words, and showed no traceback"
    assert r.returncode not in (0, 130), r.stdout
    assert r.stdout == '' and 'Traceback' not in r.stderr, r.stderr
    last = r.stderr.strip().splitlines()[-1]
    assert last.startswith('Error: ') and last.endswith(('.', ')')), r.stderr
    for w in words: assert str(w) in last, last


def files(folder): return sorted(str(f.relative_to(folder)) for f in Path(folder).rglob('*') if f.is_file() and not f.name.startswith('library.db'))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder of sounds and a library with one quickly trained model"
    from distill.demo import demo_corpus
    from distill.pipeline import train_model
    home = tmp_path_factory.mktemp('cli')
    for f in demo_corpus(home/'sounds')[::3]: f.unlink()
    made = train_model(home/'sounds', 'little', home/'models', steps=50, device='cpu')
    return home, made


@pytest.fixture
def small_disk(tmp_path):
    "A function that mounts a disk of a few kilobytes (or a read-only one); skipped where mounting is not allowed"
    mounted = []
    def mount(name, options):
        d = tmp_path/name; d.mkdir()
        r = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(d)], capture_output=True, text=True)
        if r.returncode: pytest.skip(f'mounting is not allowed here: {r.stderr.strip()}')
        mounted.append(d)
        return d
    yield mount
    for d in mounted: subprocess.run(['umount', str(d)], check=True)


def test_empty_folder(tmp_path):
    one_sentence(run('train', tmp_path, '--name', 'x', '--models-dir', tmp_path/'m'), tmp_path)
    assert files(tmp_path) == []


def test_folder_of_text(tmp_path):
    for n in ('a.txt', 'b.md'): (tmp_path/'words'/n).parent.mkdir(exist_ok=True); (tmp_path/'words'/n).write_text('do re mi')
    one_sentence(run('train', tmp_path/'words', '--name', 'x', '--models-dir', tmp_path/'m'), tmp_path/'words', 'a.txt')
    assert not (tmp_path/'m').exists()


def test_half_a_flac(tmp_path):
    d = tmp_path/'half'; d.mkdir()
    sf.write(d/'rain.flac', np.random.default_rng(0).normal(0, .1, 48_000), 48_000)
    data = (d/'rain.flac').read_bytes(); (d/'rain.flac').write_bytes(data[:len(data)//2])
    one_sentence(run('train', d, '--name', 'x', '--models-dir', tmp_path/'m'), 'rain.flac')
    assert not (tmp_path/'m').exists()


def test_half_a_flac_among_others_is_reported_and_left_out(place, tmp_path):
    home, _ = place
    d = tmp_path/'some'; shutil.copytree(home/'sounds', d)
    flac = next(d.rglob('*.flac')); flac.write_bytes(flac.read_bytes()[:len(flac.read_bytes())//2])
    r = run('train', d, '--name', 'x', '--steps', 50, '--models-dir', tmp_path/'m', '--json')
    assert r.returncode == 0, r.stderr
    assert flac.name in r.stderr and json.loads(r.stdout)['steps'] == 50


def test_spaces_and_letters_of_the_world(place, tmp_path):
    home, _ = place
    d = tmp_path/'Mein Ordner – звуки 音'; shutil.copytree(home/'sounds', d)
    next(d.rglob('*.wav')).rename(d/'Größe ♪ 1.wav')
    r = run('train', d, '--name', 'Größe ♪', '--steps', 50, '--models-dir', tmp_path/'m m', '--json')
    assert r.returncode == 0, r.stderr
    path = Path(json.loads(r.stdout)['path'])
    assert path.exists()
    r = run('generate', 'Größe ♪', '--models-dir', tmp_path/'m m', '--out', tmp_path/'öut', '--seconds', .2, '--json')
    assert r.returncode == 0, r.stderr
    (take,) = json.loads(r.stdout)
    assert sf.info(take['path']).frames == 9600 and Path(take['path']).parent == tmp_path/'öut'


def test_read_only_output(place, small_disk):
    home, made = place
    d = small_disk('ro', 'ro,size=1m')
    one_sentence(run('generate', made.path, '--out', d), d, 'read-only')
    one_sentence(run('train', home/'sounds', '--name', 'x', '--models-dir', d/'m'), d, 'read-only')


def test_full_disk_while_generating(place, small_disk):
    _, made = place
    d = small_disk('full', 'size=64k')
    one_sentence(run('generate', made.path, '--out', d, '--seconds', 2), d, 'full')
    assert files(d) == []


def test_full_disk_while_training(place, small_disk):
    home, _ = place
    d = small_disk('full', 'size=2m')
    one_sentence(run('train', home/'sounds', '--name', 'x', '--steps', 50, '--models-dir', d), d, 'full')
    assert [f for f in files(d) if f.endswith(('.pt', '.distillgan'))] == []


def test_full_cache_is_no_error(place, small_disk, tmp_path):
    home, _ = place
    d = small_disk('cache', 'size=64k')
    r = run('train', home/'sounds', '--name', 'x', '--steps', 50, '--models-dir', tmp_path, '--json', DISTILL_CACHE=str(d))
    assert r.returncode == 0 and 'kept in memory' in r.stderr, r.stderr


@pytest.mark.parametrize('args, words', [
    (['--seconds', '-3'], ['-3']), (['--seconds', 'nan'], ['nan']), (['--seconds', '1e9'], ['600']),
    (['--slider', 'sparkle=1'], ['sparkle', 'other 1']), (['--slider', 'other 1=99'], ['99', '-10']), (['--slider', 'other 1'], ['NAME=VALUE']),
    (['--seed', '-1'], ['-1']), (['-n', '0'], ['0']), (['--format', 'aiff'], ['aiff']), (['--vocoder', 'own'], ['griffin-lim']), (['--device', 'abacus'], ['abacus']),
], ids=lambda v: ' '.join(v) if isinstance(v, list) else str(v))
def test_generate_mistakes(place, tmp_path, args, words):
    _, made = place
    one_sentence(run('generate', made.path, '--out', tmp_path/'o', *args), *words)
    assert files(tmp_path) == []


def test_model_that_is_not_there(place, tmp_path):
    home, _ = place
    one_sentence(run('generate', 'nobody', '--models-dir', home/'models'), 'nobody')


def test_old_model_name(tmp_path):
    r = run('generate', 'old.distill')
    assert r.returncode == 2 and r.stdout == ''
    assert 'This model was saved in v1 format (.distill) which is no longer supported. Please retrain your model.' in r.stderr


def test_interrupt_and_resume_give_the_uninterrupted_model(place, tmp_path):
    import torch
    home, _ = place
    cmd = ['train', str(home/'sounds'), '--name', 'cut', '--steps', '150', '--device', 'cpu', '--json']
    whole = run(*cmd, '--models-dir', tmp_path/'whole')
    assert whole.returncode == 0, whole.stderr
    p = subprocess.Popen([*DISTILL, *cmd, '--models-dir', str(tmp_path/'cut')], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in p.stderr:                                   # the first epoch is done, the second has begun
        if 'step 50' in line: break
    time.sleep(1); p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 130 and out == '' and '--resume' in err, err
    one_sentence(run(*cmd, '--models-dir', tmp_path/'cut'), 'cut', '--resume')           # not begun anew by accident
    rest = run(*cmd, '--models-dir', tmp_path/'cut', '--resume')
    assert rest.returncode == 0, rest.stderr
    a, b = (torch.load(json.loads(r.stdout)['path'], weights_only=True) for r in (whole, rest))
    assert all(torch.equal(v, b['model_state_dict'][k]) for k, v in a['model_state_dict'].items())
    assert [h['held_out'] for h in a['training_history']] == [h['held_out'] for h in b['training_history']]
    assert not list((tmp_path/'cut'/'checkpoints').glob('*.pt'))


def test_same_samples_from_command_and_python(place, tmp_path):
    home, made = place
    from distill import generate, load_model
    r = run('generate', made.model_id[:8], '--models-dir', home/'models', '--seed', 3, '--seconds', .5, '--slider', 'other 1=4', '--out', tmp_path, '--format', 'flac', '--json')
    (take,) = json.loads(r.stdout)
    again = generate(load_model(made.path), {'other 1': 4}, .5, 3).save(tmp_path/'again.flac')
    assert (sf.read(take['path'], dtype='int32')[0] == sf.read(again, dtype='int32')[0]).all()
    assert take['vocoder'] == 'griffin-lim' and take['seed'] == 3 and take['seconds'] == .5
