"Reports: what they say of models whose answer is known, and what is shown of numbers that somebody made up"
import json, random, sys, types
from dataclasses import asdict, replace
import numpy as np
import pytest
import soundfile as sf
import torch
from distill.audio.corpus import Corpus
from distill.core import UserError
from distill.evaluation.report import Report, facts_of, html_of, kept_report, memory_text
from distill.generation.sounds import generate
from distill.latent.analysis import analyze
from distill.library.card import ModelEntry
from distill.library.catalog import ModelLibrary
from distill.models.metadata import ModelMetadata
from distill.models.persistence import load_model, put_extra, resave, save_model
from distill.models.vae import VAEConfig
from distill.evaluation.measures import Sounds, compared, coverage_density, kernel_width, mmd, report
from distill.generation.presets import presets, save_preset
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining
from distill.training.loop import fit

SR, FEW = 48_000, dict(draws=6, most=20)


def sound(kind, seed, seconds=.2):
    "A tone or a hiss that dies away, no two alike"
    g, t = np.random.default_rng([kind, seed]), np.arange(round(seconds*SR))/SR
    x = np.sin(2*np.pi*(200 + 900*g.uniform())*t) + .3*g.uniform()*np.sin(2*np.pi*(2000*g.uniform() + 1000)*t) if kind == 0 else g.normal(0, .3, len(t))
    return (.2 + .6*g.uniform())*x*np.exp(-t*(4 + 20*g.uniform()))*np.clip(t*1000, 0, 1)/2


def folder(path, seeds):
    path.mkdir()
    for s in seeds: sf.write(path/f'{"tone hiss".split()[s % 2]} {s}.wav', sound(s % 2, s), SR, subtype='FLOAT')
    return path


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder of sounds and a model that has learned them for a moment"
    home = tmp_path_factory.mktemp('report')
    corpus = Corpus(folder(home/'sounds', range(20)))
    task = VAETraining(corpus, vae=VAEConfig(channels=16, level=4), cfg=TrainConfig(batch=8, epoch=20, hold_out=.3))
    for _ in fit(task, steps=40): pass
    h = corpus.hashes
    sounds = dict(learned=[h[i] for i in task.train_files], held_out=[h[i] for i in task.held_files])
    path = save_model(task.model, task.mel.cfg, asdict(task.cfg) | dict(sounds=sounds), ModelMetadata('little'), home/'models', analyze(task.model, task.mels))
    part = lambda some: Sounds([corpus[i] for i in some], [corpus.names[i] for i in some])
    return home, path, corpus, part(task.train_files), part(task.held_files)


@pytest.fixture(autouse=True)
def deaf(monkeypatch): monkeypatch.setitem(sys.modules, 'visqol', None)


@pytest.fixture(scope='module')
def made(place):
    "A report, kept"
    with pytest.MonkeyPatch.context() as m:
        m.setitem(sys.modules, 'visqol', None)
        return report(place[1], place[2], **FEW)


# --- models whose answer is known

def test_a_model_that_gives_its_sounds_back_is_called_that(place, monkeypatch):
    _, path, corpus, learned, unseen = place
    monkeypatch.setattr('distill.evaluation.measures._draws', lambda *a: [.9*x for x in learned])
    r = report(path, corpus, keep=False, **FEW)
    assert r.facts()['Memory'].startswith('gives its sounds back') and r.found['memory']['nearer'] > .9
    assert r.found['coverage']['drawn'] > .9


def test_unseen_sounds_are_at_the_floor_and_no_copies(place):
    _, path, _, learned, unseen = place
    f = compared(learned, unseen, list(unseen), load_model(path).spectrogram)
    assert f['mmd']['drawn'] == f['mmd']['floor'] and f['coverage']['few'] == f['coverage']['floor'] and f['density']['drawn'] == f['density']['floor']
    assert abs(f['memory']['nearer'] - .5) < .2 and memory_text(f).startswith('no sign')
    others = [torch.from_numpy(sound(s % 2, s)).float() for s in range(100, 130)]         # more of the kind
    g = compared(learned, unseen, others, load_model(path).spectrogram)
    assert g['mmd']['drawn'][1] < f['mmd']['floor'][2] and memory_text(g).startswith('no sign')


def test_junk_is_unlike_the_corpus(place):
    _, path, _, learned, unseen = place
    g = torch.Generator().manual_seed(0)
    junk = [torch.rand(24_000, generator=g).round()*(torch.arange(24_000) % 97 < 50) for _ in range(12)]
    f = compared(learned, unseen, junk, load_model(path).spectrogram)
    assert f['mmd']['drawn'][1] > f['mmd']['floor'][2] and f['coverage']['drawn'] < .1
    assert (f['memory']['nearer'], f['memory']['copies']) == (0, 0)


def test_estimates_of_one_source_and_of_two():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(40, 12, generator=g)
    width = kernel_width(x)
    same = [mmd(x, torch.randn(40, 12, generator=g), width, seed=i) for i in range(20)]
    assert abs(np.mean([v for v, *_ in same])) < .02                                      # without bias
    assert np.mean([low < 0 < high for _, low, high in same]) > .6
    v, low, high = mmd(x, torch.randn(40, 12, generator=g) + 1, width)
    assert low < v < high and low > .1
    assert coverage_density(x, x)[0] == 1 and coverage_density(x, x + 100) == (0., 0.)


# --- what is kept, and of which sounds

def test_it_survives_the_file_and_what_happens_to_it(place, made):
    home, path, *_ = place
    assert kept_report(load_model(path).metadata.extra) == made
    save_preset(path, 'soft', dict(seconds=2.))
    copy = resave(load_model(path), name='other', model_id='')
    assert kept_report(ModelLibrary(home/'models').get('other').extra) == made and presets(copy) == dict(soft=dict(seconds=2.))
    facts = ModelEntry.from_file(path).facts()
    assert facts['Report: memory'] == made.facts()['Memory'] and 'report' not in facts
    assert '<summary>Report</summary>' in ModelEntry.from_file(path)._repr_html_() and len(json.dumps(made.found)) < 20_000


def test_draws_are_those_of_generate(place, monkeypatch):
    "To the sample: what is measured is what one would hear"
    heard = []
    def listening(learned, unseen, drawn, *rest):
        heard.extend(drawn)
        return compared(learned, unseen, drawn, *rest)
    monkeypatch.setattr('distill.evaluation.measures.compared', listening)
    model = load_model(place[1])
    report(model, place[2], seed=3, keep=False, **FEW)
    assert len(heard) == FEW['draws']
    for i, x in enumerate(heard): np.testing.assert_array_equal(x, generate(model, seed=3 + i))


def test_a_seed_repeats(place, made):
    _, path, corpus, *_ = place
    assert report(path, corpus, keep=False, **FEW) == made
    assert report(path, corpus, seed=1, keep=False, **FEW).found['mmd'] != made.found['mmd']


def test_held_out_sounds_are_known_by_what_they_are(place, made, tmp_path):
    _, path, corpus, learned, unseen = place
    assert made.found['corpus'] == dict(name='sounds', files=20, known='same', learned=len(learned), found=len(learned))
    assert (made.found['used']['learned'], made.found['used']['unseen']) == (len(learned), len(unseen))
    files = [tmp_path/'mixed'/f'{i}.wav' for i in range(7)]
    files[0].parent.mkdir()
    for i, f in enumerate(files): f.write_bytes((corpus.folder/learned.names[i]).read_bytes() if i < 5 else (corpus.folder/unseen.names[i - 5]).read_bytes())
    r = report(path, tmp_path/'mixed', keep=False, **FEW).found
    assert r['corpus'] | dict(name='') == dict(name='', files=7, known='changed', learned=len(learned), found=5) and (r['used']['learned'], r['used']['unseen']) == (5, 2)


def test_a_foreign_folder_is_told_apart(place, tmp_path):
    _, path, *_ = place
    r = report(path, folder(tmp_path/'sounds', range(50, 60)), keep=False, **FEW)
    assert 'not what the model learned' in r.facts()['Measured on'] and (r.found['used']['learned'], r.found['used']['unseen']) == (0, 10)
    assert r.found['memory']['copies'] is None and 'Memory' not in r.facts() and 'Memory' in r.facts()['Not measured']
    assert r.found['floor'] == 'halves' and r.found['mmd']['floor'][0] is not None


@pytest.mark.parametrize('said', [None, 3, dict(learned=3), dict(learned=['a'], held_out=[1])])
def test_a_file_that_does_not_say_what_was_learned(place, said):
    _, path, corpus, *_ = place
    m = load_model(path)
    m.training_config = {k: v for k, v in m.training_config.items() if k != 'sounds'} | (dict(sounds=said) if said else {})
    r = report(m, corpus, keep=False, draws=4, most=4)
    assert 'does not say' in r.facts()['Measured on'] and r.found['used']['learned'] == 0


@pytest.mark.parametrize('n', [1, 2, 4])
def test_few_files(place, tmp_path, n):
    _, path, *_ = place
    r = report(path, folder(tmp_path/'few', range(70, 70 + n)), keep=False, **FEW)
    assert r.found['drawing']['unseen']['error'] > 0 and r.found['sound']['model']['mr_stft'] > 0
    assert (r.found['mmd']['drawn'][0] is None) == (n < 4) and r.facts()['Not measured'] and r._repr_html_()


def test_a_large_folder_is_sampled_and_that_is_said(place):
    _, path, corpus, *_ = place
    u = report(path, corpus, keep=False, draws=4, most=8).found['used']
    assert (u['learned'], u['unseen']) == (6, 2)
    for wrong in (dict(draws=1), dict(most=0), dict(most='many')):
        with pytest.raises(UserError): report(path, corpus, **wrong)


def test_a_model_without_a_map_cannot_draw(place):
    _, path, corpus, *_ = place
    m = load_model(path); m.analysis = None
    r = report(m, corpus, keep=False, **FEW)
    assert 'nothing can be drawn' in r.facts()['Not measured'] and r.found['drawing']['unseen']['error'] > 0


def test_training_writes_down_what_it_learned(place, tmp_path, monkeypatch):
    from distill.pipeline import train_model
    monkeypatch.setattr('distill.pipeline.name_sliders', lambda net, mel, a: a)          # what takes long here
    monkeypatch.setattr('distill.pipeline.settings', lambda *a, seed: TrainConfig(batch=2, epoch=2, seed=seed))
    corpus = place[2]
    made = train_model(corpus, 'x', tmp_path, steps=1, device='cpu')
    sounds = load_model(made.path).training_config['sounds']
    train, held = corpus.split()
    assert sounds == dict(learned=[corpus.hashes[i] for i in train], held_out=[corpus.hashes[i] for i in held])


# --- while it is at it

def test_progress_and_stopping(place):
    _, path, corpus, *_ = place
    told, before = [], path.read_bytes()
    def stop(): return len(told) > 10
    with pytest.raises(KeyboardInterrupt): report(path, corpus, seed=5, progress=told.append, stop=stop, **FEW)
    assert path.read_bytes() == before
    assert len(told) == 11 and [p.done for p in told] == sorted(p.done for p in told) and all(0 < p.done < 1 and p.eta > 0 for p in told)


@pytest.mark.parametrize('hear,said', [(lambda x, y: 4.2, ''), (lambda x, y: 1/0, 'could hear none')])
def test_visqol_where_it_is_installed(place, made, monkeypatch, hear, said):
    assert 'visqol-python is not installed' in made.facts()['Not measured'] and 'ViSQOL –' in made.facts()['Through the model']
    class Api:
        def create(self, mode): pass
        def measure_from_arrays(self, x, y, rate): return types.SimpleNamespace(moslqo=hear(x, y))
    monkeypatch.setitem(sys.modules, 'visqol', types.SimpleNamespace(VisqolApi=Api))
    r = report(place[1], place[2], keep=False, draws=4, most=4)
    assert said in r.facts().get('Not measured', '') and r.found['sound']['model']['visqol'] == (None if said else pytest.approx(4.2))


# --- numbers that somebody made up

JUNK = [None, True, -1, 10**30, float('nan'), float('inf'), '', 'x'*10**6, '<script>alert(1)</script>', '\x1b[2J', [], {}, [[]], dict(a=1), [1e300]*10**4]


def test_garbage_is_unreadable_and_never_a_crash(place, made):
    for v in JUNK:
        assert 'unreadable' in facts_of(dict(report=v))['Report'] and 'unreadable' in html_of(dict(report=v)), repr(v)[:40]
    rng = random.Random(0)
    def leaves(v, at=()):
        yield at
        for k in v if isinstance(v, dict) else range(min(3, len(v))) if isinstance(v, list) else (): yield from leaves(v[k], (*at, k))
    for at in list(leaves(made.found))[1:]:
        f = json.loads(json.dumps(made.found))
        where = f
        for k in at[:-1]: where = where[k]
        where[at[-1]] = rng.choice(JUNK)
        shown = html_of(dict(report=f)) + ''.join(facts_of(dict(report=f)).values())
        assert '<script' not in shown and '\x1b' not in shown and len(shown) < 200_000
    try: Report(dict(made.found, used={}))
    except UserError as e: assert 'used' in str(e)


def test_garbage_in_a_file_spoils_neither_card_nor_command(place, made, tmp_path):
    from typer.testing import CliRunner
    from distill.cli import app
    bad = resave(replace(load_model(place[1]), path=tmp_path/'x'), name='bad', model_id='')
    put_extra(bad, 'report', dict(mmd='<script>alert(1)</script>'))
    e = ModelLibrary(tmp_path).get('bad')
    assert 'unreadable' in e._repr_html_() and '<script' not in e._repr_html_()
    r = CliRunner().invoke(app, ['model', 'info', 'bad', '--models-dir', str(tmp_path)])
    assert r.exit_code == 0 and 'unreadable' in r.stdout, r.output


# --- doors

def test_the_command(place, made):
    import inspect, typer
    from typer.testing import CliRunner
    from distill.cli.model import app
    home, path, corpus, *_ = place
    args = ['report', 'little', str(corpus.folder), '--models-dir', str(home/'models'), '--no-keep', '--draws', '6', '--most', '20']
    r = CliRunner().invoke(app, [*args, '--json'])
    assert r.exit_code == 0 and Report(json.loads(r.stdout)) == made and 'to go' in r.stderr, r.output
    command = typer.main.get_command(app).commands['report']
    there = {n: p.default for n, p in inspect.signature(report).parameters.items()}
    assert {p.name: p.default for p in command.params if p.name in there and not p.required} == {n: there[n] for n in ('seed', 'draws', 'most', 'vocoder', 'keep')}


def test_the_panel_measures_beside_the_page(place, made, tmp_path):
    from distill.ui.model import ModelPanel
    home, path, corpus, *_ = place
    panel = ModelPanel(path)
    assert panel.report.value == made._repr_html_()
    panel.measure.click(); assert 'give the folder' in panel.said
    panel.sounds.value = str(corpus.folder)
    panel.begin_report(seed=3, **FEW)
    other = ModelPanel(path)                                               # made meanwhile, it finds the work
    assert other.measuring is panel.measuring and panel.measure.layout.display == 'none'
    with pytest.raises(UserError, match='is running'): other.sounds.value = 'x'; other.begin_report()
    assert panel.measuring.wait(60) == 'done' and panel.report.value == other.report.value == html_of(load_model(path).metadata.extra) != made._repr_html_()
    panel.begin_report(seed=4); panel.stop_measuring.click()
    assert panel.measuring.wait(60) == 'stopped' and kept_report(load_model(path).metadata.extra).found['seed'] == 3
    panel.sounds.value = str(tmp_path/'nowhere'); panel.begin_report(); panel.measuring.wait(60)
    assert 'There is no folder' in panel.said and panel.measuring.state == 'failed'
    put_extra(path, 'report', made.found)
