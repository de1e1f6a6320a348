"""The command `distill` with what people really give it: each mistake one sentence, an exit code, nothing half-written.

As a whole process (`run`) where the process itself is looked at, else in this one (`call`), which has torch at hand.
"""
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import soundfile as sf
from distill import generate, load_model

DISTILL = [sys.executable, '-c', 'from distill.cli import main; main()']


def run(*args, **env):
    return subprocess.run([*DISTILL, *map(str, args)], capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


def call(*args):
    from typer.testing import CliRunner
    from distill.cli import app
    r = CliRunner().invoke(app, [*map(str, args)])
    if not isinstance(r.exception, (SystemExit, type(None))): raise r.exception           # what would be a traceback
    return SimpleNamespace(returncode=r.exit_code, stdout=r.stdout, stderr=r.stderr)


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
    from distill.audio.demo import demo_corpus
    from distill.pipeline import train_model
    home = tmp_path_factory.mktemp('cli')
    for f in demo_corpus(home/'sounds')[::3]: f.unlink()
    made = train_model(home/'sounds', 'little', home/'models', steps=100, device='cpu')
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
    one_sentence(call('train', tmp_path/'words', '--name', 'x', '--models-dir', tmp_path/'m'), tmp_path/'words', 'a.txt')
    assert not (tmp_path/'m').exists()


def test_half_a_flac(tmp_path):
    d = tmp_path/'half'; d.mkdir()
    sf.write(d/'rain.flac', np.random.default_rng(0).normal(0, .1, 48_000), 48_000)
    data = (d/'rain.flac').read_bytes(); (d/'rain.flac').write_bytes(data[:len(data)//2])
    one_sentence(call('train', d, '--name', 'x', '--models-dir', tmp_path/'m'), 'rain.flac')
    assert not (tmp_path/'m').exists()


def test_spaces_and_letters_of_the_world(place, tmp_path):
    "And half a FLAC among the others, which is reported and left out"
    home, _ = place
    d = tmp_path/'Mein Ordner – звуки 音'; shutil.copytree(home/'sounds', d)
    next(d.rglob('*.wav')).rename(d/'Größe ♪ 1.wav')
    flac = next(d.rglob('*.flac')); flac.write_bytes(flac.read_bytes()[:len(flac.read_bytes())//2])
    r = run('train', d, '--name', 'Größe ♪', '--steps', 50, '--models-dir', tmp_path/'m m', '--json')
    assert r.returncode == 0 and flac.name in r.stderr, r.stderr
    facts = json.loads(r.stdout)
    assert facts.keys() == {'path', 'model_id', 'name', 'steps', 'epochs', 'seconds', 'cpu_seconds', 'held_out'} and facts['steps'] == 50 and Path(facts['path']).exists()
    r = call('generate', 'Größe ♪', '--models-dir', tmp_path/'m m', '--out', tmp_path/'öut', '--seconds', .2, '--json')
    assert r.returncode == 0, r.stderr
    (take,) = json.loads(r.stdout)
    assert sf.info(take['path']).frames == 9600 and Path(take['path']).parent == tmp_path/'öut'


def test_read_only_output(place, small_disk):
    home, made = place
    d = small_disk('ro', 'ro,size=1m')
    one_sentence(call('generate', made.path, '--out', d), d, 'read-only')
    one_sentence(call('train', home/'sounds', '--name', 'x', '--models-dir', d/'m'), d, 'read-only')


def test_full_disk_while_generating(place, small_disk):
    _, made = place
    d = small_disk('full', 'size=64k')
    one_sentence(call('generate', made.path, '--out', d, '--seconds', 2), d, 'full')
    assert files(d) == []


def test_full_disk_while_training(place, small_disk):
    home, _ = place
    d = small_disk('full', 'size=2m')
    one_sentence(call('train', home/'sounds', '--name', 'x', '--steps', 50, '--models-dir', d), d, 'full')
    assert [f for f in files(d) if f.endswith(('.pt', '.distillgan'))] == []


def test_full_cache_is_no_error(place, small_disk, tmp_path, unnamed, monkeypatch):
    home, _ = place
    d = small_disk('cache', 'size=64k')
    monkeypatch.setenv('DISTILL_CACHE', str(d))
    r = call('train', home/'sounds', '--name', 'x', '--steps', 50, '--models-dir', tmp_path, '--json')
    assert r.returncode == 0 and 'kept in memory' in r.stderr, r.stderr


@pytest.mark.parametrize('args, words', [
    (['--seconds', '-3'], ['-3']), (['--seconds', 'nan'], ['nan']), (['--seconds', '1e9'], ['600']),
    (['--slider', 'sparkle=1'], ['sparkle', 'SLIDER']), (['--slider', 'SLIDER=99'], ['99', '-10']), (['--slider', 'SLIDER'], ['NAME=VALUE']),
    (['--seed', '-1'], ['-1']), (['-n', '0'], ['0']), (['--format', 'aiff'], ['aiff']), (['--vocoder', 'own'], ['griffin-lim']), (['--device', 'abacus'], ['abacus']),
], ids=lambda v: ' '.join(v) if isinstance(v, list) else str(v))
def test_generate_mistakes(place, tmp_path, args, words):
    _, made = place
    slider = load_model(made.path).analysis.sliders[0].name
    args, words = ([w.replace('SLIDER', slider) for w in ws] for ws in (args, words))
    one_sentence(call('generate', made.path, '--out', tmp_path/'o', *args), *words)
    assert files(tmp_path) == []


@pytest.mark.parametrize('args, words', [
    (['morph', 'MODEL', 'kick_1.wav', 'nothing.wav'], ['nothing.wav']), (['morph', 'MODEL', 'kick_1.wav', 'kick_1.wav', '--position', '.5', '--position', '2'], ['2.0', 'from 0 to 1']),
    (['blend', 'MODEL', 'nobody=2'], ["'nobody'"]), (['blend', 'MODEL', 'nobody=two'], ["'nobody=two'"]), (['blend', 'MODEL=-1'], ['weights']), (['blend', 'MODEL=nan'], ['weights']), (['blend', 'MODEL=0'], ['weights']),
    *([[*what, '--near', folder], words] for what in (['generate', 'MODEL'], ['morph', 'MODEL', 'kick_1.wav', 'kick_1.wav'], ['blend', 'MODEL']) for folder, words in (('nowhere', ['no folder', 'nowhere']), ('three', ['3 sounds', 'four']))),
], ids=lambda v: ' '.join(v) if isinstance(v, list) else str(v))
def test_mistakes_of_morph_blend_and_nearness(place, tmp_path, monkeypatch, args, words):
    "Said before anything is made"
    home, made = place
    for i in range(3): sf.write(tmp_path/f'{i}.wav', np.random.default_rng(i).normal(0, .1, 9600), 48_000)
    (tmp_path/'three').mkdir()
    for f in sorted(tmp_path.glob('*.wav')): f.rename(tmp_path/'three'/f.name)
    shutil.copy(next((home/'sounds').rglob('*.wav')), tmp_path/'kick_1.wav')
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    one_sentence(call(*(a.replace('MODEL', str(made.path)) for a in args), '--out', 'o', '--models-dir', tmp_path/'m'), *words)
    assert files(tmp_path) == before


def test_model_that_is_not_there(place, tmp_path):
    home, _ = place
    one_sentence(call('generate', 'nobody', '--models-dir', home/'models'), 'nobody')


def test_old_model_name(tmp_path):
    r = call('generate', 'old.distill')
    assert r.returncode == 2 and r.stdout == ''
    assert 'This model was saved in v1 format (.distill) which is no longer supported. Please retrain your model.' in r.stderr


def test_interrupted_while_python_still_imports():
    "The process interrupts itself where it would import `typer`: quiet, and the exit code is that of later on"
    code = '''import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, *rest):
        if name == 'typer': signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from distill.cli import main
main()'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert (r.returncode, r.stdout, r.stderr) == (130, '', '')


def test_interrupt_and_resume_give_the_uninterrupted_model(place, tmp_path, unnamed):
    "The one that a call from Python made, of as many steps"
    import torch
    home, whole = place
    cmd = ['train', str(home/'sounds'), '--name', 'cut', '--steps', '100', '--device', 'cpu', '--json']
    p = subprocess.Popen([*DISTILL, *cmd, '--models-dir', str(tmp_path/'cut')], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in p.stderr:                                   # the first epoch is done, the second has begun
        if 'step 50' in line: break
    time.sleep(.2); p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 130 and out == '' and '--resume' in err, err
    assert 50 <= torch.load(tmp_path/'cut'/'checkpoints'/'cut.pt', weights_only=True)['done'] < 100
    one_sentence(call(*cmd, '--models-dir', tmp_path/'cut'), 'cut', '--resume')          # not begun anew by accident
    rest = call(*cmd, '--models-dir', tmp_path/'cut', '--resume')
    assert rest.returncode == 0, rest.stderr
    a, b = (torch.load(f, weights_only=True) for f in (whole.path, json.loads(rest.stdout)['path']))
    assert all(torch.equal(v, b['model_state_dict'][k]) for k, v in a['model_state_dict'].items())
    assert [h['held_out'] for h in a['training_history']] == [h['held_out'] for h in b['training_history']]
    assert not list((tmp_path/'cut'/'checkpoints').glob('*.pt'))


def test_same_samples_from_command_and_python(place, tmp_path):
    home, made = place
    model = load_model(made.path)
    slider = model.analysis.sliders[0].name
    r = call('generate', made.model_id[:8], '--models-dir', home/'models', '--seed', 3, '--seconds', .5, '--slider', f'{slider}=4', '--out', tmp_path, '--format', 'flac', '--json')
    (take,) = json.loads(r.stdout)
    again = generate(model, {slider: 4}, .5, 3).save(tmp_path/'again.flac')
    assert (sf.read(take['path'], dtype='int32')[0] == sf.read(again, dtype='int32')[0]).all()
    assert take['vocoder'] == 'base' and take['seed'] == 3 and take['seconds'] == .5


# --- what the commands say of themselves

def commands():
    "Every command there is: its words, and the object"
    import typer
    from distill.cli import app
    def walk(words, group):
        for name, c in group.commands.items():
            if hasattr(c, 'commands'): yield from walk([*words, name], c)
            else: yield ' '.join([*words, name]), c
    return list(walk([], typer.main.get_command(app)))


def examples(command):
    "The lines of a command's help that begin with `distill`"
    import re, textwrap
    text = textwrap.dedent(command.help.replace('\b', ''))
    return [m.strip() for m in re.findall(r'(?:Examples?:\s*|^\s*)(distill .+)$', text, re.M)]


@pytest.fixture(scope='module')
def rehearsal(place, tmp_path_factory):
    "A home as the examples have it: sounds in ~/sounds/rain, a library with the models they name"
    from dataclasses import replace
    from distill import ConvVAE, MelConfig, VAEConfig, load_model, save_model
    from distill.models import ModelMetadata
    home = tmp_path_factory.mktemp('home')
    shutil.copytree(place[0]/'sounds', home/'sounds'/'rain')
    m = load_model(place[1].path)
    sliders = (replace(m.analysis.sliders[0], name='brightness'), *(replace(s, name=f'other {i + 1}') for i, s in enumerate(m.analysis.sliders[1:])))
    save = lambda net, mel, *a: save_model(net, mel, {}, *a)
    for name in ('rain', 'bells'): save(m.model, m.spectrogram.cfg, ModelMetadata(name), home/'models', replace(m.analysis, sliders=sliders))
    for name, i in (('Rain on tin', '1a2b0001'), ('Rain at sea', '3c4d0002')):
        save(ConvVAE(VAEConfig(channels=16)), MelConfig(), ModelMetadata(name, i), home/'models')
    return home


def test_every_example_in_the_help_runs(rehearsal, unnamed, monkeypatch):
    "As it stands in the help, in the order of the help; what trains is only told to stop early"
    import shlex
    from typer.testing import CliRunner
    from distill.cli import app
    monkeypatch.chdir(rehearsal)
    monkeypatch.setenv('HOME', str(rehearsal)); monkeypatch.setenv('DISTILL_MODELS', str(rehearsal/'models'))
    monkeypatch.setitem(sys.modules, 'visqol', None)                     # it takes its time, where it is installed
    for words, command in commands():
        lines = examples(command)
        assert lines, f'distill {words} --help has no example'
        for line in lines:
            assert line.startswith(f'distill {words}'), line
            few = ['--steps', '50'] if any('--steps' in p.opts for p in command.params) and '--steps' not in line else []
            args = [os.path.expanduser(a) for a in shlex.split(line)[1:]] + few
            if words == 'train': args += ['--device', 'cpu', '--models-dir', 'trained']        # the library has a rain already
            if words == 'train-vocoder': args += ['--device', 'cpu', '--batch-size', '1']
            r = CliRunner().invoke(app, args)
            assert r.exit_code == 0, f'{line}\n{r.stdout}{r.stderr}{r.exception!r}'


def test_json_is_documented_wherever_it_is_offered():
    assert not [w for w, c in commands() if any('--json' in p.opts for p in c.params) and 'JSON:' not in c.help]


def test_every_option_is_explained():
    assert not [(w, p.name) for w, c in commands() for p in c.params if p.name != 'help' and not p.help]


def test_exit_codes(place, tmp_path):
    "0 done, 1 the user's mistake, 2 a wrong command line (130, interrupted: see the test of resuming)"
    home, made = place
    codes = [run(*a).returncode for a in ([], ['model', 'info', made.path], ['generate', 'nobody', '--models-dir', tmp_path], ['generate'], ['sing'], ['generate', 'x', '--louder'])]
    assert codes == [0, 0, 1, 2, 2, 2]


def test_progress_is_on_a_terminal_only():
    "A bar where somebody watches; elsewhere a line every tenth, and nothing that moves the cursor"
    import pty
    code = """
from distill.cli.shell import Progress
with Progress('Training') as p:
    for i in range(1001): p.show(i/1000, f'step {i}, 0:07 to go')
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout == '' and '\x1b' not in r.stderr and '\r' not in r.stderr and len(r.stderr.splitlines()) == 11, r.stderr
    seen, (own, other) = b'', pty.openpty()
    p = subprocess.Popen([sys.executable, '-c', code], stderr=other, stdin=subprocess.DEVNULL, env={**os.environ, 'TERM': 'xterm', 'COLUMNS': '120'})
    os.close(other)
    while True:
        try: data = os.read(own, 4096)
        except OSError: break                       # the other end is closed
        if not data: break
        seen += data
    os.close(own)
    assert p.wait() == 0 and b'\x1b' in seen and b'100 %' in seen and b'to go' in seen and seen.count(b'\n') < 40, seen


def test_the_doctor_where_memory_is_short(monkeypatch):
    "The training that it tries goes on with fewer crops, and so does its comparison"
    import torch
    from distill.cli.doctor import self_test
    from distill.training.vae import VAETraining
    losses = VAETraining.losses
    def tight(self, x):
        if len(x) > 16: raise torch.OutOfMemoryError('no room')
        return losses(self, x)
    monkeypatch.setattr(VAETraining, 'losses', tight)
    with pytest.warns(UserWarning, match='going on with 16'): found = self_test('cpu', seconds=.1)
    assert found['step_seconds'] > 0
