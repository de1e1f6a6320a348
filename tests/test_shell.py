"What commands say of themselves is what the library says, and what the Tab key offers is there: the shells are asked."
import inspect, json, os, pty, re, select, shutil, subprocess, sys, time, zipfile
import pytest
from test_cli import commands

BEHIND = {   # a command's words -> the functions whose parameters its options stand for
    'demo': ['distill.pipeline.train_model'],
    'train': ['distill.pipeline.train_model'],
    'train-vocoder': ['distill.pipeline.bundle_vocoder'],
    'generate': ['distill.generation.sounds.generate', 'distill.models.persistence.load_model',
                 'distill.generation.sounds.save_sound'],
    'morph': ['distill.generation.sounds.morph', 'distill.models.persistence.load_model',
              'distill.generation.sounds.save_sound'],
    'blend': ['distill.generation.sounds.blend', 'distill.models.persistence.load_model',
              'distill.generation.sounds.save_sound'],
    'replay': ['distill.generation.replay.replay', 'distill.generation.sounds.save_sound'],
    'history': ['distill.library.history.History.df'],
    'doctor': ['distill.cli.doctor.self_test'],
    'model list': ['distill.library.catalog.ModelLibrary.search', 'distill.library.catalog.ModelLibrary.df'],
    'model edit': ['distill.models.persistence.edit_model'],
    'model report': ['distill.evaluation.evaluate.report'],
    'model discard': ['distill.library.unfinished.discard_training'],
    'model delete': ['distill.library.catalog.ModelLibrary.delete'],
}
OWN = {     # what a command has and Python has not, or has otherwise, and why
    'help': '', 'models_dir': 'a command finds its library by it', 'as_json': 'how to print',
    'folder': 'Python takes a Corpus too', 'model': 'a word in a shell', 'models': 'words in a shell',
    'first': 'a word in a shell', 'second': 'a word in a shell',
    'out': "with `format`, Python's path", 'format': "with `out`, Python's path",
    'history': 'Python has History().add', 'force': 'a command asks',
    'compare_with': 'Python has Nearness(Corpus(folder))(sound)',
    'trash': 'Python has library.trash', 'unfinished': 'Python has unfinished_trainings', 'open_it': 'for people',
    ('model list', 'vocoder'): 'True and False are no words for a shell',
    ('demo', 'seed'): 'of three things at once', ('generate', 'preset'): 'Python has presets of its own',
    ('morph', 'position'): 'always a list', ('generate', 'n'): 'Python has loops',
}


def python_parameters(function):
    "The defaults and the texts of a function's parameters, of the imported function"
    from importlib import import_module
    from distill._docs import parameters
    parts = function.split('.')
    depth = next((i for i, p in enumerate(parts) if p[0].isupper()), len(parts) - 1)
    module = import_module('.'.join(parts[:depth]))
    f = module
    for p in parts[depth:]: f = getattr(f, p)
    texts = parameters(inspect.getdoc(f))
    return {name: (p.default, texts.get(name)) for name, p in inspect.signature(f).parameters.items()}


def differences(words, command):
    "What a command has that the functions behind it have not, or with another default"
    behind = {}
    for f in reversed(BEHIND.get(words, [])):
        behind |= {name: default for name, (default, _) in python_parameters(f).items()}
    for p in command.params:
        if p.name in OWN or (words, p.name) in OWN: continue
        if p.name not in behind:
            yield f'distill {words}: Python knows no {p.name} (name the function in BEHIND, or the reason in OWN)'
        elif not p.required and (p.default or None) != (behind[p.name] or None):
            yield f'distill {words}: {p.name} is {p.default!r} here, {behind[p.name]!r} in Python'


@pytest.mark.parametrize('words', [w for w, _ in commands()])
def test_names_and_defaults_are_those_of_python(words):
    assert not list(differences(words, dict(commands())[words]))


def test_another_name_or_default_would_be_noticed():
    from types import SimpleNamespace
    def command(**changes):
        option = SimpleNamespace(**{**dict(name='seed', default=0, required=False), **changes})
        return list(differences('generate', SimpleNamespace(params=[option])))
    assert not command()
    assert len(command(default=2)) == len(command(name='other')) == 1


@pytest.mark.parametrize('function', sorted({f for fs in BEHIND.values() for f in fs}))
def test_help_is_read_from_the_docstring(function):
    "What a command reads from the module's file is what `help()` shows of the imported function"
    from distill._docs import parameter_help
    texts = parameter_help(function)
    for name, (_, text) in python_parameters(function).items(): assert texts.get(name) == text


@pytest.mark.parametrize('words, option', [(w, p) for w, c in commands() for p in c.params if p.name != 'help'],
                         ids=lambda v: getattr(v, 'name', v))
def test_help_is_a_sentence(words, option):
    "It stands alone: it begins with a capital letter, ends as a sentence does, and has nothing of Python in it"
    text = option.help
    assert text[0].isupper() or not text[0].isalpha(), text
    assert text.endswith(('.', '…', '?')) and '`' not in text and 'None' not in text, text
    assert len(text) > 12 and not text.startswith(('Of ', 'As ')), text


@pytest.mark.parametrize('words', ['generate', 'morph', 'blend'])
def test_every_parameter_of_what_makes_sounds_has_an_option(words):
    here = {p.name for p in dict(commands())[words].params}
    assert not set(python_parameters(f'distill.generation.sounds.{words}')) - here - {'recipe'}


# --- the Tab key

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A home folder, a library of cards, and `distill` on the PATH"
    from distill.models.metadata import ModelMetadata
    from distill.library.card import file_stem, make_card
    home = tmp_path_factory.mktemp('home')
    for folder in ('models', 'other', 'bin'): (home/folder).mkdir()
    extra = {'rattle': {'presets': {'soft': {}, 'two words': {}}}}
    for path in ('models/rain', 'models/rattle', 'models/Größe ♪', 'models/Door bell', 'other/river'):
        folder, name = path.split('/')
        card = make_card(ModelMetadata(name, extra=extra.get(name, {})), None, {})
        with zipfile.ZipFile(home/folder/f'{file_stem(name)}.distillgan', 'w') as z:
            z.writestr('archive/card.json', json.dumps(card))
    (home/'bin'/'distill').write_text(f"#!{sys.executable}\nfrom distill.cli import main\nmain()\n")
    (home/'bin'/'distill').chmod(0o755)
    return home


def tab(home, line):
    "What bash is offered when Tab is pressed at the end of a line"
    from distill.cli import app
    from typer.testing import CliRunner
    words = ['distill', *line.split(' ')]
    env = dict(DISTILL_MODELS=str(home/'models'), COMP_WORDS='\n'.join(words), COMP_CWORD=str(len(words) - 1))
    r = CliRunner().invoke(app, [], prog_name='distill', env=env | dict(_DISTILL_COMPLETE='complete_bash'))
    assert not r.stderr, r.stderr
    return set(r.stdout.split())


@pytest.mark.parametrize('line, offered', [
    ('generate ra', 'rain rattle'), ('model info D', 'Door_bell.distillgan'), ('generate nobody', ''),
    ('model delete rain ra', 'rain rattle'), ('train-vocoder rai', 'rain'), ('model restore ', ''),
    ('generate rain --vocoder ', 'auto own base griffin-lim'), ('generate rain --format f', 'flac'),
    ('train x --preset ', 'auto conservative balanced aggressive'), ('train x --device c', 'cpu cuda'),
    ('train-vocoder rain x --type h', 'hifigan_v2'), ('train-vocoder rain x --start ra', 'rain rattle'),
    ('model list --vocoder ', 'any none hifigan_v2 fourier'), ('model rest', 'restore'),
    ('model edit ra', 'rain rattle'),
    ('hist', 'history'), ('mor', 'morph'), ('morph ra', 'rain rattle'), ('blend rain=2 ra', 'rain rattle'),
    ('generate rattle --preset ', 'soft'), ('generate nobody --preset ', ''), ('generate --see', '--seed'),
])
def test_tab_offers(home, line, offered): assert tab(home, line) == set(offered.split())


def test_tab_heeds_the_library_named_on_the_line(home):
    assert tab(home, f'generate --models-dir {home}/other r') == {'river'}
    assert not tab(home, f'generate --models-dir {home}/nowhere r') and not (home/'nowhere').exists()


class Terminal:
    "A shell in a terminal: type, and wait for what is to be seen"
    def __init__(self, home, shell):
        env = {k: v for k, v in os.environ.items() if not k.startswith(('_TYPER', 'ZDOTDIR'))}
        env |= dict(HOME=str(home), XDG_CONFIG_HOME=str(home/'.config'), DISTILL_MODELS=str(home/'models'))
        env |= dict(PATH=f"{home/'bin'}:{os.environ['PATH']}", TERM='xterm', SHELL=shutil.which(shell), COLUMNS='200')
        self.seen, (self.pid, self.fd) = '', pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(shell, [shell, '-i'], env)

    def wait(self, what, seconds=30, again=''):
        "Until it is to be seen; something is typed again when nothing moves for a while"
        end, since = time.monotonic() + seconds, time.monotonic()
        while what not in self.seen and time.monotonic() < end:
            if again and time.monotonic() - since > 4:
                since = time.monotonic()
                os.write(self.fd, again.encode())
            if not select.select([self.fd], [], [], .1)[0]: continue
            text = os.read(self.fd, 65536).decode(errors='replace')
            self.seen += re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', text)
        assert what in self.seen, f'{what!r} did not come: {self.seen}'

    def type(self, text):
        self.seen = ''
        os.write(self.fd, text.encode())

    def close(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_installed_completion_completes(home, shell):
    "As a person does it: install, open a new terminal, type the beginning of a name, Tab"
    if not shutil.which(shell): pytest.skip(f'{shell} is not installed')
    install = 'distill --install-completion\r', f'{shell} completion installed'
    for text, shown in (install, ('distill generate rat\t', 'rattle')):
        t = Terminal(home, shell)
        try:
            t.type('echo rea""dy\r')
            t.wait('ready')
            t.type(text)
            t.wait(shown, again='\t' if shell == 'zsh' else '')       # in zsh, the first Tab only loads the completion
        finally: t.close()


def test_what_to_type_next_can_be_typed(home):
    "Called by its path, a command says its path; found by the shell, its name"
    code = 'import sys; from distill.cli.shell import program; sys.argv[0] = {!r}; print(program())'
    def with_path(path):
        command = [sys.executable, '-c', code.format(str(home/'bin'/'distill'))]
        env = {**os.environ, 'PATH': path}
        return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True).stdout.strip()
    assert with_path('/usr/bin:/bin') == 'bin/distill'
    assert with_path(f"{home/'bin'}:/usr/bin") == 'distill'


# --- streams that cannot show it, that are full, or closed

def in_bash(home, line, **env):
    "A line of a shell, with `distill` on the PATH and a library of names that few code pages have"
    env = {**os.environ, 'PATH': f"{home/'bin'}:{os.environ['PATH']}", 'DISTILL_MODELS': str(home/'models'), **env}
    return subprocess.run(['bash', '-c', line], capture_output=True, env=env)


@pytest.mark.parametrize('encoding', ['cp1252', 'cp932', 'ascii', 'latin-1'])
def test_any_code_page_shows_tables_help_and_json(home, encoding):
    line = 'distill model list && distill generate --help && distill model list --json'
    r = in_bash(home, line, PYTHONIOENCODING=encoding)
    assert r.returncode == 0 and b'Traceback' not in r.stderr, r.stderr
    text = r.stdout.decode(encoding)
    assert {'Größe ♪', 'Door bell'} <= {e['name'] for e in json.loads(text[text.index('\n[') + 1:])}


@pytest.mark.parametrize('locale', [dict(LC_ALL='C'), dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')])
def test_the_c_locale_shows_tables_and_takes_any_name(home, locale):
    for line, code in ('distill model list', 0), ("distill model info '雨'", 1), ("distill history --models-dir '雨'", 0):
        r = in_bash(home, line, **locale)
        assert (r.returncode, b'Traceback' in r.stderr) == (code, False), r.stderr


@pytest.mark.parametrize('line, code, said', [
    ('distill model list > /dev/full', 1, b'Error: Cannot write the output: the disk is full'),
    ('distill --help > /dev/full', 1, b'Error: Cannot write the output: the disk is full'),
    ('distill model list --json > /dev/full', 1, b'Error: Cannot write the output: the disk is full'),
    ('distill model list 2> /dev/full', 0, b''), ('distill model info nobody 2> /dev/full', 1, b''),
    ('distill model list >&-', 0, b'4 models'), ('distill model list 2>&-', 0, b''), ('distill model list <&-', 0, b''),
    ('distill model list <&- >&- 2>&-', 0, b''), ('distill model list | true', 0, b''),
    ('distill model delete rain <&-', 1, b'Aborted')])
def test_a_stream_that_is_full_or_closed_is_no_traceback(home, line, code, said):
    before = sorted((home/'models').rglob('*.distillgan'))
    r = in_bash(home, line)
    assert r.returncode == code and said in r.stderr and b'Traceback' not in r.stderr and b'Exception' not in r.stderr, r
    assert sorted((home/'models').rglob('*.distillgan')) == before
