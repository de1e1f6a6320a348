"What commands say of themselves is what the library says, and what the Tab key offers is there: asked of the shells themselves."
import inspect, json, os, pty, re, select, shutil, subprocess, sys, time, zipfile
from pathlib import Path
import pytest
from test_cli import commands

DOORS = {   # a command's words -> the functions whose parameters stand behind it
    'demo': ['distill.pipeline.train_model'],
    'train': ['distill.pipeline.train_model'],
    'train-vocoder': ['distill.pipeline.bundle_vocoder'],
    'generate': ['distill.generation.sounds.generate', 'distill.models.persistence.load_model', 'distill.generation.sounds.save_sound'],
    'morph': ['distill.generation.sounds.morph', 'distill.generation.sounds.generate', 'distill.models.persistence.load_model', 'distill.generation.sounds.save_sound'],
    'blend': ['distill.generation.sounds.blend', 'distill.generation.sounds.generate', 'distill.models.persistence.load_model', 'distill.generation.sounds.save_sound'],
    'replay': ['distill.generation.replay.replay'],
    'history': ['distill.library.history.History.df'],
    'doctor': ['distill.cli.doctor.self_test'],
    'model list': ['distill.library.catalog.ModelLibrary.search'],
    'model report': ['distill.evaluation.measures.report'],
    'model delete': ['distill.library.catalog.ModelLibrary.delete'],
}
REFS = 'model', 'models', 'first', 'second'     # as ModelLibrary.get has it
OWN = {     # what a command has and Python has not, and why
    'help': '', 'models_dir': 'a command finds its library by it', 'as_json': 'how to print', 'folder': 'Python takes a Corpus too',
    'out': "with `format`, Python's path", 'format': "with `out`, Python's path", 'history': 'Python has History().add', 'force': 'a command asks',
    'near': 'Python has Nearness(Corpus(folder))(sound)',
    'trash': 'Python has library.trash', 'open_it': 'for people',
    ('model list', 'vocoder'): 'True and False are no words for a shell', ('demo', 'seed'): 'of three things at once',
    ('generate', 'preset'): "Python has generate(model, **preset(model, 'soft'))", ('morph', 'position'): 'always a list',
}


def door(function):
    "The defaults and the comments of a function's parameters"
    from fastcore.docments import docments
    from importlib import import_module
    parts = function.split('.')
    module = import_module('.'.join(parts[:next((i for i, p in enumerate(parts) if p[0].isupper()), -1)]))
    f = module
    for p in parts[len(module.__name__.split('.')):]: f = getattr(f, p)
    says = docments(f)
    return {n: (p.default, says.get(n)) for n, p in inspect.signature(f).parameters.items()}


def plain(text):
    "The words of a text, however it is written at either door"
    text = text.replace('None:', 'default:').replace('$', '')
    return ' '.join(re.sub(r'`(\w+)`|--([\w-]+)', lambda m: (m[1] or m[2]).replace('-', '_').lower(), text).lower().rstrip('.').split())


def quarrels(words, command):
    "Where a command and what stands behind it differ in names, defaults or texts; a text may stand at the next function, `as in` which it is"
    there = {}
    for f in DOORS.get(words, []):
        for n, (default, says) in door(f).items():
            first, said = there.get(n, (default, says))
            there[n] = first, says if not said or 'as in `' in said else said
    for p in command.params:
        if p.name in OWN and p.name not in there or (words, p.name) in OWN: continue
        if p.name not in there and p.name not in REFS: yield f'distill {words}: Python knows no {p.name} (name the function behind it in DOORS, or the reason in OWN)'; continue
        default, says = door('distill.library.catalog.ModelLibrary.get')['ref'] if p.name in REFS else there[p.name]
        if not p.required and p.name not in REFS and (p.default or None) != (default or None): yield f'distill {words}: {p.name} is {p.default!r} here, {default!r} in Python'
        here, says = plain(p.help or ''), plain(says or '')
        if not here or not says or not (here.startswith(says) or says.startswith((f'{here}:', f'{here};'))): yield f'distill {words}: of {p.name} it says {here!r}, Python {says!r}'


@pytest.mark.parametrize('words', [w for w, _ in commands()])
def test_names_defaults_and_texts_are_those_of_python(words):
    assert not list(quarrels(words, dict(commands())[words]))


def test_another_name_default_or_text_would_be_noticed():
    import typer
    from typing import Annotated
    def command(**kw):
        app = typer.Typer()
        def f(n: Annotated[int, typer.Option('-n', help=kw.get('help', 'How many sounds, of the seeds seed … seed + n − 1.'))] = kw.get('default', 1),
              other: Annotated[int, typer.Option(help='Something else.')] = 0): pass
        app.command()(f)
        c = typer.main.get_command(app)
        c.params = [p for p in c.params if p.name == 'n' or p.name == 'other' and kw.get('other')]
        return list(quarrels('generate', c))
    assert not command()
    assert len(command(default=2)) == len(command(help='How many.')) == len(command(other=True)) == 1


@pytest.mark.parametrize('words', ['generate', 'morph', 'blend'])
def test_every_parameter_of_what_makes_sounds_has_an_option(words):
    here = {p.name for p in dict(commands())[words].params}
    assert not set(door(f'distill.generation.sounds.{words}')) - here - {'loaded'}


# --- the Tab key

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A home folder, a library of cards, and `distill` on the PATH"
    from distill.models.metadata import ModelMetadata
    from distill.library.card import file_stem, make_card
    home = tmp_path_factory.mktemp('home')
    (home/'models').mkdir(); (home/'other').mkdir(); (home/'bin').mkdir()
    extra = {'rattle': {'presets': {'soft': {}, 'two words': {}}}}
    for folder, name in (('models', 'rain'), ('models', 'rattle'), ('models', 'Größe ♪'), ('models', 'Door bell'), ('other', 'river')):
        with zipfile.ZipFile(home/folder/f'{file_stem(name)}.distillgan', 'w') as z: z.writestr('archive/card.json', json.dumps(make_card(ModelMetadata(name, extra=extra.get(name, {})), None, {})))
    (home/'bin'/'distill').write_text(f"#!{sys.executable}\nfrom distill.cli import main\nmain()\n")
    (home/'bin'/'distill').chmod(0o755)
    return home


def tab(home, line):
    "What bash is offered when Tab is pressed at the end of a line"
    from distill.cli import app
    from typer.testing import CliRunner
    words = ['distill', *line.split(' ')]
    r = CliRunner().invoke(app, [], prog_name='distill', env=dict(DISTILL_MODELS=str(home/'models'), COMP_WORDS='\n'.join(words), COMP_CWORD=str(len(words) - 1), _DISTILL_COMPLETE='complete_bash'))
    assert not r.stderr, r.stderr
    return set(r.stdout.split())


@pytest.mark.parametrize('line, offered', [
    ('generate ra', 'rain rattle'), ('model info D', 'Door_bell.distillgan'), ('generate nobody', ''),
    ('model delete rain ra', 'rain rattle'), ('train-vocoder rai', 'rain'), ('model restore ', ''),
    ('generate rain --vocoder ', 'auto own base griffin-lim'), ('train x --preset ', 'auto conservative balanced aggressive'),
    ('train-vocoder rain x --type h', 'hifigan_v2'), ('train-vocoder rain x --start ra', 'rain rattle'), ('generate rain --format f', 'flac'), ('model list --vocoder ', 'any none hifigan_v2 fourier'),
    ('model rest', 'restore'), ('hist', 'history'), ('mor', 'morph'), ('morph ra', 'rain rattle'), ('blend rain=2 ra', 'rain rattle'), ('generate rattle --preset ', 'soft'), ('generate nobody --preset ', ''), ('generate --see', '--seed'),
])
def test_tab_offers(home, line, offered): assert tab(home, line) == set(offered.split())


def test_tab_heeds_the_library_named_on_the_line(home):
    assert tab(home, f'generate --models-dir {home}/other r') == {'river'}
    assert not tab(home, f'generate --models-dir {home}/nowhere r') and not (home/'nowhere').exists()


class Terminal:
    "A shell in a terminal: type, and wait for what is to be seen"
    def __init__(self, home, shell):
        env = {k: v for k, v in os.environ.items() if not k.startswith(('_TYPER', 'ZDOTDIR'))}
        env |= dict(HOME=str(home), XDG_CONFIG_HOME=str(home/'.config'), PATH=f"{home/'bin'}:{os.environ['PATH']}", DISTILL_MODELS=str(home/'models'), TERM='xterm', SHELL=shutil.which(shell), COLUMNS='200')
        self.seen, (self.pid, self.fd) = '', pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(shell, [shell, '-i'], env)

    def wait(self, what, seconds=30, again=''):
        "Until it is to be seen; something is typed again when nothing moves for a while"
        end, since = time.monotonic() + seconds, time.monotonic()
        while what not in self.seen and time.monotonic() < end:
            if again and time.monotonic() - since > 4: since = time.monotonic(); os.write(self.fd, again.encode())
            if select.select([self.fd], [], [], .1)[0]: self.seen += re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', os.read(self.fd, 65536).decode(errors='replace'))
        assert what in self.seen, f'{what!r} did not come: {self.seen}'

    def type(self, text):
        self.seen = ''
        os.write(self.fd, text.encode())

    def close(self): os.kill(self.pid, 9); os.waitpid(self.pid, 0); os.close(self.fd)


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_installed_completion_completes(home, shell):
    "As a person does it: install, open a new terminal, type the beginning of a name, Tab"
    if not shutil.which(shell): pytest.skip(f'{shell} is not installed')
    for text, shown in (('distill --install-completion\r', f'{shell} completion installed'), ('distill generate rat\t', 'rattle')):
        t = Terminal(home, shell)
        try:
            t.type('echo rea""dy\r'); t.wait('ready')
            t.type(text); t.wait(shown, again='\t' if shell == 'zsh' else '')       # in zsh, the first Tab only loads the completion
        finally: t.close()


def test_what_to_type_next_can_be_typed(home):
    "Called by its path, a command says its path; found by the shell, its name"
    code = 'import sys; from distill.cli.shell import called; sys.argv[0] = {!r}; print(called())'
    said = lambda path: subprocess.run([sys.executable, '-c', code.format(str(home/'bin'/'distill'))], cwd=home, env={**os.environ, 'PATH': path}, capture_output=True, text=True).stdout.strip()
    assert said('/usr/bin:/bin') == 'bin/distill' and said(f"{home/'bin'}:/usr/bin") == 'distill'
