"""The command `distill` with what people really give it: each mistake one sentence, an exit code, nothing half-written.

As a whole process (`run`) where the process itself is looked at, else in this one (`call`), which has torch at hand.
"""
import json, os, pty, re, shlex, shutil, signal, subprocess, sys, textwrap, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import soundfile as sf
import torch
import typer
from typer.testing import CliRunner
from distill import ConvVAE, MelConfig, VAEConfig, generate, save_model
from distill.audio.demo import demo_corpus
from distill.cli import app
from distill.library.unfinished import checkpoint_path
from distill.models import ModelMetadata
from distill.models.persistence import edit_model
from distill.pipeline import train_model

DISTILL = [sys.executable, '-c', 'from distill.cli import main; main()']


def run(*args):
    return subprocess.run([*DISTILL, *map(str, args)], capture_output=True, text=True, timeout=300)


def call(*args):
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


def files(folder):
    found = [f for f in Path(folder).rglob('*') if f.is_file() and not f.name.startswith('library.db')]
    return sorted(str(f.relative_to(folder)) for f in found)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder of sounds and a library with one quickly trained model, whose sliders have plain names"
    home = tmp_path_factory.mktemp('cli')
    for f in demo_corpus(home/'sounds')[::3]: f.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('distill.pipeline.name_sliders', lambda model, **_: model.analysis)
        return home, train_model(home/'sounds', 'little', home/'models', steps=100, device='cpu')


@pytest.fixture
def small_disk(tmp_path):
    "A function that mounts a disk of a few kilobytes (or a read-only one); skipped where mounting is not allowed"
    mounted = []
    def mount(name, options):
        d = tmp_path/name
        d.mkdir()
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
    words = tmp_path/'words'
    words.mkdir()
    for name in ('a.txt', 'b.md'): (words/name).write_text('do re mi')
    one_sentence(call('train', words, '--name', 'x', '--models-dir', tmp_path/'m'), words, 'a.txt')
    assert not (tmp_path/'m').exists()


def halve(file):
    data = file.read_bytes()
    file.write_bytes(data[:len(data)//2])


def test_half_a_flac(tmp_path):
    d = tmp_path/'half'
    d.mkdir()
    sf.write(d/'rain.flac', np.random.default_rng(0).normal(0, .1, 48_000), 48_000)
    halve(d/'rain.flac')
    one_sentence(call('train', d, '--name', 'x', '--models-dir', tmp_path/'m'), 'rain.flac')
    assert not (tmp_path/'m').exists()


def test_spaces_and_letters_of_the_world(place, tmp_path, unnamed):
    "And half a FLAC among the others, which is reported and left out"
    home, _ = place
    d = tmp_path/'Mein Ordner – звуки 音'
    shutil.copytree(home/'sounds', d)
    next(d.rglob('*.wav')).rename(d/'Größe ♪ 1.wav')
    flac = next(d.rglob('*.flac'))
    halve(flac)
    r = call('train', d, '--name', 'Größe ♪', '--steps', 50, '--models-dir', tmp_path/'m m', '--json')
    assert r.returncode == 0 and flac.name in r.stderr, r.stderr
    facts = json.loads(r.stdout)
    assert facts.keys() == {'path', 'model_id', 'name', 'steps', 'epochs', 'seconds', 'cpu_seconds', 'held_out'}
    assert facts['steps'] == 50 and Path(facts['path']).exists()
    r = run('generate', 'Größe ♪', '--models-dir', tmp_path/'m m', '--out', tmp_path/'öut', '--seconds', .2, '--json')
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
    (['--slider', 'sparkle=1'], ['sparkle', 'SLIDER']), (['--slider', 'SLIDER=99'], ['99', '-10']),
    (['--slider', 'SLIDER'], ['NAME=VALUE']), (['--seed', '-1'], ['-1']), (['-n', '0'], ['0']),
    (['--format', 'aiff'], ['aiff']), (['--vocoder', 'own'], ['griffin-lim']), (['--device', 'abacus'], ['abacus']),
], ids=lambda v: ' '.join(v) if isinstance(v, list) else str(v))
def test_generate_mistakes(place, tmp_path, args, words):
    _, made = place
    slider = made.sliders[0].name
    args, words = ([w.replace('SLIDER', slider) for w in ws] for ws in (args, words))
    one_sentence(call('generate', made.path, '--out', tmp_path/'o', *args), *words)
    assert files(tmp_path) == []


MAKE = 'generate MODEL', 'morph MODEL kick_1.wav kick_1.wav', 'blend MODEL'

@pytest.mark.parametrize('line, words', [
    ('morph MODEL kick_1.wav nothing.wav', ['nothing.wav']),
    ('morph MODEL kick_1.wav kick_1.wav --position .5 --position 2', ['2.0', '0', '1']),
    ('blend MODEL nobody=2', ["'nobody'"]), ('blend MODEL nobody=two', ["'nobody=two'"]),
    ('blend MODEL=-1', ['weight']), ('blend MODEL=nan', ['weight']), ('blend MODEL=0', ['weight']),
    *((f'{make} --near nowhere', ['no folder', 'nowhere']) for make in MAKE),
    *((f'{make} --near three', ['3 sounds', 'four']) for make in MAKE),
])
def test_mistakes_of_morph_blend_and_nearness(place, tmp_path, monkeypatch, line, words):
    "Refused before anything is made"
    home, made = place
    (tmp_path/'three').mkdir()
    for i in range(3): sf.write(tmp_path/'three'/f'{i}.wav', np.random.default_rng(i).normal(0, .1, 9600), 48_000)
    shutil.copy(next((home/'sounds').rglob('*.wav')), tmp_path/'kick_1.wav')
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    args = [a.replace('MODEL', str(made.path)) for a in line.split()]
    one_sentence(call(*args, '--out', 'o', '--models-dir', tmp_path/'m'), *words)
    assert files(tmp_path) == before


def test_model_that_is_not_there(place, tmp_path):
    home, _ = place
    one_sentence(call('generate', 'nobody', '--models-dir', home/'models'), 'nobody')


V1 = 'This model was saved in v1 format (.distill) which is no longer supported. Please retrain your model.'

@pytest.mark.parametrize('line', [
    'generate old.distill', 'generate nowhere/old.distill --out /proc/x --like nothing.wav',
    'morph old.distill a.wav b.wav', 'blend old.distill=2 rain', 'train-vocoder old.distill nowhere', 'train-vocoder rain nowhere --start old.distill',
    'model info old.distill', 'model compare rain old.distill', 'model edit old.distill --name x',
    'model report old.distill nowhere', 'model verify old.distill', 'model delete old.distill',
    'model restore old.distill', 'model purge old.distill'])
def test_a_model_of_format_v1_is_refused_by_its_name(line):
    "Before anything else on the line is looked at"
    r = call(*line.split())
    assert (r.returncode, r.stdout) == (2, '') and V1 in r.stderr


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
    home, whole = place
    cmd = ['train', str(home/'sounds'), '--name', 'cut', '--steps', '100', '--device', 'cpu', '--json']
    line = [*DISTILL, *cmd, '--models-dir', str(tmp_path/'cut')]
    p = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in p.stderr:                                   # the first epoch is done, the second has begun
        if re.search('step [5-9]. of 100', line): break
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 130 and out == '' and '--resume' in err, err
    assert 50 <= torch.load(tmp_path/'cut'/'checkpoints'/'cut.pt', weights_only=True)['done'] < 100
    one_sentence(call(*cmd, '--models-dir', tmp_path/'cut'), 'cut', '--resume')          # not begun anew by accident
    rest = call(*cmd, '--models-dir', tmp_path/'cut', '--resume')
    assert rest.returncode == 0, rest.stderr
    a, b = (torch.load(f, weights_only=True) for f in (whole.path, json.loads(rest.stdout)['path']))
    for name, weights in a['model_state_dict'].items(): assert torch.equal(weights, b['model_state_dict'][name])
    assert [h['held_out'] for h in a['training_history']] == [h['held_out'] for h in b['training_history']]
    assert not list((tmp_path/'cut'/'checkpoints').glob('*.pt'))


def test_same_samples_from_command_and_python(place, tmp_path):
    home, made = place
    slider = made.sliders[0].name
    options = '--seed', 3, '--seconds', .5, '--slider', f'{slider}=4', '--out', tmp_path, '--format', 'flac', '--json'
    r = call('generate', made.metadata.model_id[:8], '--models-dir', home/'models', *options)
    (take,) = json.loads(r.stdout)
    samples = sf.read(take['path'], dtype='int32')[0]
    for model in (made, made.path):                         # as training gave it back, and as it is read from its file
        again = generate(model, {slider: 4}, .5, 3).save(tmp_path/'again.flac', overwrite=True)
        assert (samples == sf.read(again, dtype='int32')[0]).all()
    assert take['vocoder'] == 'base' and take['seed'] == 3 and take['seconds'] == .5


def test_a_model_is_edited(place, tmp_path):
    "Its name, tags, description and the names of its sliders; it sounds as before"
    _, made = place
    shutil.copy(made.path, tmp_path/'copy.distillgan')
    slider = made.sliders[0].name
    options = '--name', 'drizzle', '--tag', 'wet', '--tag', 'field', '--description', 'on tin', '--models-dir', tmp_path
    r = call('model', 'edit', 'little', *options, '--rename-slider', f'{slider}=glow', '--json')
    assert r.returncode == 0, r.stderr
    entry = json.loads(r.stdout)
    assert (entry['name'], entry['tags'], entry['description']) == ('drizzle', ['wet', 'field'], 'on tin')
    before = generate(made.path, {slider: 5}, seconds=.3).samples
    assert (generate(tmp_path/'copy.distillgan', dict(glow=5), seconds=.3).samples == before).all()
    r = call('model', 'edit', 'drizzle', '--tag', '', '--description', '', '--models-dir', tmp_path, '--json')
    assert (json.loads(r.stdout)['tags'], json.loads(r.stdout)['description']) == ([], '')


@pytest.mark.parametrize('args, words', [
    ([], ['--name', '--rename-slider']), (['--rename-slider', 'glow'], ['glow', 'OLD=NEW']),
    (['--rename-slider', 'sparkle=glow'], ['sparkle']), (['--name', ''], ['name']),
], ids=lambda v: ' '.join(v))
def test_edits_that_cannot_be(place, args, words):
    _, made = place
    before = made.path.read_bytes()
    one_sentence(call('model', 'edit', made.path, *args), *words)
    assert made.path.read_bytes() == before


# --- what the commands say of themselves

def commands():
    "Every command there is: its words, and the object"
    def walk(words, group):
        for name, c in group.commands.items():
            if hasattr(c, 'commands'): yield from walk([*words, name], c)
            else: yield ' '.join([*words, name]), c
    return list(walk([], typer.main.get_command(app)))


def examples(command):
    "The lines of a command's help that begin with `distill`"
    text = textwrap.dedent(command.help.replace('\b', ''))
    return [m.strip() for m in re.findall(r'(?:Examples?:\s*|^\s*)(distill .+)$', text, re.M)]


@pytest.fixture(scope='module')
def rehearsal(place, tmp_path_factory):
    "A home as the examples have it: sounds in ~/sounds/rain, a library with the models they name"
    home = tmp_path_factory.mktemp('home')
    shutil.copytree(place[0]/'sounds', home/'sounds'/'rain')
    made = place[1]
    for name in ('rain', 'bells'):
        save_model(made.net, made.mel.cfg, {}, ModelMetadata(name), home/'models', made.analysis)
        edit_model(name, sliders={made.sliders[0].name: 'brightness'}, models_dir=home/'models')
    for name, model_id in (('Rain on tin', '1a2b0001'), ('Rain at sea', '3c4d0002')):
        save_model(ConvVAE(VAEConfig(channels=16)), MelConfig(), {}, ModelMetadata(name, model_id), home/'models')
    unfinished = checkpoint_path(home/'models', 'Rain by night')
    unfinished.parent.mkdir()
    unfinished.write_bytes(b'')
    return home


def test_every_example_in_the_help_runs(rehearsal, unnamed, monkeypatch):
    "As it stands in the help, in the order of the help; what trains is only told to stop early"
    monkeypatch.chdir(rehearsal)
    monkeypatch.setenv('HOME', str(rehearsal))
    monkeypatch.setenv('DISTILL_MODELS', str(rehearsal/'models'))
    monkeypatch.setitem(sys.modules, 'visqol', None)                     # it takes its time, where it is installed
    for words, command in commands():
        lines = examples(command)
        assert lines, f'distill {words} --help has no example'
        for line in lines:
            assert line.startswith(f'distill {words}'), line
            args = [os.path.expanduser(a) for a in shlex.split(line)[1:]]
            if any('--steps' in p.opts for p in command.params): args += ['--steps', '50']
            if words == 'train': args += ['--device', 'cpu', '--models-dir', 'trained']  # the library has a rain already
            if words == 'train-vocoder': args += ['--device', 'cpu', '--batch-size', '1']
            r = CliRunner().invoke(app, args)
            assert r.exit_code == 0, f'{line}\n{r.stdout}{r.stderr}{r.exception!r}'


def test_json_is_documented_wherever_it_is_offered():
    assert not [w for w, c in commands() if any('--json' in p.opts for p in c.params) and 'JSON:' not in c.help]


def test_every_option_is_explained():
    assert not [(w, p.name) for w, c in commands() for p in c.params if p.name != 'help' and not p.help]


def test_a_library_is_named_alike_everywhere():
    "By --models-dir, in all commands but those that have nothing to do with one"
    without = [w for w, c in commands() if not any('--models-dir' in p.opts for p in c.params)]
    assert without == ['demo', 'docs']


def test_help_waits_for_nothing_heavy():
    "The help of every command, in one process that has neither torch nor pandas afterwards"
    code = f"""
import sys
from typer.testing import CliRunner
from distill.cli import app
for words in {[w for w, _ in commands()]!r}: assert not CliRunner().invoke(app, [*words.split(), '--help']).exit_code
print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.stdout.strip() == '[]', r.stdout + r.stderr


def test_exit_codes(place, tmp_path):
    "0 done, 1 the user's mistake, 2 a wrong command line (130, interrupted: see the test of resuming)"
    home, made = place
    nobody = ['generate', 'nobody', '--models-dir', tmp_path]
    lines = [], ['model', 'info', made.path], nobody, ['generate'], ['sing'], ['generate', 'x', '--louder']
    assert [run(*line).returncode for line in lines] == [0, 0, 1, 2, 2, 2]


def test_progress_is_on_a_terminal_only():
    "A bar where somebody watches; elsewhere a line every tenth, and nothing that moves the cursor"
    code = """
from distill.cli.shell import Progress
with Progress('Training') as p:
    for i in range(1001): p.show(i/1000, f'step {i}, 0:07 to go')
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout == '' and '\x1b' not in r.stderr and '\r' not in r.stderr, r.stderr
    assert len(r.stderr.splitlines()) == 11, r.stderr
    seen, (own, other) = b'', pty.openpty()
    env = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '120'}
    p = subprocess.Popen([sys.executable, '-c', code], stderr=other, stdin=subprocess.DEVNULL, env=env)
    os.close(other)
    while True:
        try: data = os.read(own, 4096)
        except OSError: break                       # the other end is closed
        if not data: break
        seen += data
    os.close(own)
    assert p.wait() == 0 and seen.count(b'\n') < 40, seen
    for text in (b'\x1b', b'100 %', b'to go'): assert text in seen, seen


def test_the_doctor_where_memory_is_short(monkeypatch):
    "The training that it tries goes on with fewer crops, and so does its comparison"
    from distill.cli.doctor import self_test
    from distill.training.vae import VAETraining
    losses = VAETraining.losses
    def tight(self, x):
        if len(x.mel) > 8: raise torch.OutOfMemoryError('no room')
        return losses(self, x)
    monkeypatch.setattr(VAETraining, 'losses', tight)
    with pytest.warns(UserWarning, match='going on with 8'): found = self_test('cpu', seconds=.1)
    assert found.step_seconds > 0
