"Reports: what they say of models whose answer is known, and what is shown of numbers that somebody made up"
import json, random, sys, types
from dataclasses import asdict, replace
import numpy as np
import pytest
import soundfile as sf
import torch
from distill.audio.corpus import Corpus
from distill.audio.files import Sound
from distill.core import UserError, make_generator
from distill.evaluation.evaluate import Evaluation, Phase, Sounds, choose_sounds, match_corpus, report, run_phases
from distill.evaluation.measures import compare_sounds, coverage_density, kernel_width, mmd
from distill.evaluation.report import Report, memorization_text, read_report, report_facts, report_html
from distill.generation.presets import presets, save_preset
from distill.generation.sounds import generate
from distill.latent.analysis import analyze
from distill.library.card import ModelEntry
from distill.library.catalog import ModelLibrary
from distill.models.metadata import ModelMetadata
from distill.models.model import Model
from distill.models.persistence import copy_model, edit_model, load_model, write_model
from distill.models.vae import VAEConfig
from distill.training.loop import fit
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining

SR, FEW = 48_000, dict(generated=6, max_sounds=20)


def sound(kind, seed, seconds=.2):
    "A tone or a hiss that dies away, no two alike"
    g, t = np.random.default_rng([kind, seed]), np.arange(round(seconds*SR))/SR
    tone = np.sin(2*np.pi*(200 + 900*g.uniform())*t) + .3*g.uniform()*np.sin(2*np.pi*(2000*g.uniform() + 1000)*t)
    x = tone if kind == 0 else g.normal(0, .3, len(t))
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
    task = VAETraining(corpus, vae=VAEConfig(channels=16), cfg=TrainConfig(batch=8, epoch=20, hold_out=.3))
    for _ in fit(task, steps=40): pass
    h = corpus.hashes
    sounds = dict(learned=[h[i] for i in task.train_files], held_out=[h[i] for i in task.held_out_files])
    config = asdict(task.cfg) | dict(sounds=sounds)
    model = Model(task.model, task.mel, ModelMetadata('little'), analyze(task.model, task.mels), training_config=config)
    path = write_model(model, home/'models').path
    part = lambda some: Sounds([corpus[i] for i in some], [corpus.names[i] for i in some])
    return home, path, corpus, part(task.train_files), part(task.held_out_files)


@pytest.fixture(autouse=True)
def without_visqol(monkeypatch): monkeypatch.setitem(sys.modules, 'visqol', None)


@pytest.fixture(scope='module')
def made(place):
    "A report, kept"
    with pytest.MonkeyPatch.context() as m:
        m.setitem(sys.modules, 'visqol', None)
        return report(place[1], place[2], **FEW)


# --- models whose answer is known

def test_a_model_that_gives_its_sounds_back_is_called_that(place, monkeypatch):
    _, path, corpus, learned, unseen = place
    def memorized(model, seed, vocoder): return Sound((.9*learned[seed]).numpy())
    monkeypatch.setattr(Model, 'generate', memorized)
    r = report(path, corpus, keep=False, generated=len(learned), max_sounds=20)
    assert r.facts()['Memorization'].startswith('strong signs') and r.comparison.memorization.nearer > .9
    assert r.comparison.coverage['generated'] > .9


def test_unseen_sounds_are_like_the_baseline_and_no_copies(place):
    _, path, _, learned, unseen = place
    c = compare_sounds(learned, unseen, list(unseen), load_model(path).mel)
    assert c.mmd['generated'] == c.mmd['baseline'] and c.density['generated'] == c.density['baseline']
    assert c.coverage_subsampled == c.coverage['baseline']
    assert abs(c.memorization.nearer - .5) < .2 and memorization_text(c).startswith('no sign')
    others = [torch.from_numpy(sound(s % 2, s)).float() for s in range(100, 130)]         # more of the kind
    more = compare_sounds(learned, unseen, others, load_model(path).mel)
    assert more.mmd['generated'].low < c.mmd['baseline'].high and memorization_text(more).startswith('no sign')


def test_junk_is_unlike_the_corpus(place):
    _, path, _, learned, unseen = place
    g = torch.Generator().manual_seed(0)
    junk = [torch.rand(24_000, generator=g).round()*(torch.arange(24_000) % 97 < 50) for _ in range(12)]
    c = compare_sounds(learned, unseen, junk, load_model(path).mel)
    assert c.mmd['generated'].low > c.mmd['baseline'].high and c.coverage['generated'] < .1
    assert (c.memorization.nearer, c.memorization.copies) == (0, 0)


def test_estimates_of_one_source_and_of_two():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(40, 12, generator=g)
    width = kernel_width(x)
    same = [mmd(x, torch.randn(40, 12, generator=g), width, seed=i) for i in range(20)]
    assert abs(np.mean([e.value for e in same])) < .02                                    # without bias
    assert np.mean([e.low < 0 < e.high for e in same]) > .6
    e = mmd(x, torch.randn(40, 12, generator=g) + 1, width)
    assert e.low < e.value < e.high and e.low > .1
    assert coverage_density(x, x)[0] == 1 and coverage_density(x, x + 100) == (0., 0.)


# --- what is kept, and of which sounds

def test_it_survives_the_file_and_what_happens_to_it(place, made):
    home, path, *_ = place
    assert read_report(load_model(path).metadata.extra) == made
    save_preset(path, 'soft', dict(seconds=2.))
    copy = copy_model(path, 'other')
    assert read_report(ModelLibrary(home/'models').get('other').extra) == made
    assert presets(copy) == dict(soft=dict(seconds=2.))
    facts = ModelEntry.from_file(path).facts()
    assert facts['Report: memorization'] == made.facts()['Memorization'] and 'report' not in facts
    assert '<summary>Report</summary>' in ModelEntry.from_file(path)._repr_html_()
    assert len(json.dumps(made.to_dict())) < 20_000


def test_generated_sounds_are_those_of_generate(place):
    "To the sample: what is measured is what one would hear"
    model = load_model(place[1])
    evaluation = Evaluation(model, *place[3:], seed=3, generated=6)
    run_phases(evaluation.phases())
    assert len(evaluation.generated) == 6
    for i, x in enumerate(evaluation.generated): np.testing.assert_array_equal(x, generate(model, seed=3 + i))


def test_a_seed_repeats_for_a_model_by_name_or_path(place, made, monkeypatch):
    home, path, corpus, *_ = place
    monkeypatch.setenv('DISTILL_MODELS', str(home/'models'))
    assert report('little', corpus.folder, keep=False, **FEW) == made
    assert report(path, corpus, seed=1, keep=False, **FEW).comparison.mmd != made.comparison.mmd


def test_held_out_sounds_are_known_by_what_they_are(place, made, tmp_path):
    _, path, corpus, learned, unseen = place
    n = len(learned)
    assert asdict(made.corpus) == dict(name='sounds', files=20, relation='same', learned=n, found=n)
    assert (made.used.learned, made.used.unseen) == (len(learned), len(unseen))
    files = [tmp_path/'mixed'/f'{i}.wav' for i in range(7)]
    files[0].parent.mkdir()
    names = learned.names[:5] + unseen.names[:2]
    for f, name in zip(files, names): f.write_bytes((corpus.folder/name).read_bytes())
    r = report(path, tmp_path/'mixed', keep=False, **FEW)
    assert asdict(r.corpus) == dict(name='mixed', files=7, relation='changed', learned=len(learned), found=5)
    assert (r.used.learned, r.used.unseen) == (5, 2)


def test_a_foreign_folder_is_told_apart(place, tmp_path):
    _, path, *_ = place
    r = report(path, folder(tmp_path/'sounds', range(50, 60)), keep=False, **FEW)
    assert 'none of the' in r.facts()['Measured on'] and (r.used.learned, r.used.unseen) == (0, 10)
    assert r.comparison.memorization is None and 'Memorization' not in r.facts()
    assert 'Memorization' in r.facts()['Not measured']
    assert r.comparison.baseline == 'halves' and r.comparison.mmd['baseline'] is not None


@pytest.mark.parametrize('said', [None, 3, dict(learned=3), dict(learned=['a'], held_out=[1])])
def test_a_file_that_does_not_say_what_was_learned(place, said):
    _, path, corpus, *_ = place
    m = load_model(path)
    m.training_config = {k: v for k, v in m.training_config.items() if k != 'sounds'}
    if said: m.training_config['sounds'] = said
    is_learned, measured = match_corpus(m, corpus)
    assert measured.relation == 'unknown' and not any(is_learned)
    if said: return
    r = report(m, corpus, keep=False, generated=4, max_sounds=4)
    assert 'does not list' in r.facts()['Measured on']


@pytest.mark.parametrize('n', [1, 2, 4])
def test_few_files(place, tmp_path, n):
    _, path, *_ = place
    r = report(path, folder(tmp_path/'few', range(70, 70 + n)), keep=False, **FEW)
    assert r.mel['unseen'].error > 0 and r.audio['reconstruction'].mr_stft > 0
    assert (r.comparison is None) == (n < 4) and r.facts()['Not measured'] and r._repr_html_()


def test_a_large_folder_is_sampled_and_that_is_said(place):
    _, path, corpus, *_ = place
    is_learned, _ = match_corpus(load_model(path), corpus)
    assert [len(some) for some in choose_sounds(corpus, is_learned, 8, make_generator(0))] == [6, 2]
    used = report(path, corpus, keep=False, generated=4, max_sounds=8).used
    assert (used.learned, used.unseen) == (6, 2)
    for wrong in (dict(generated=1), dict(max_sounds=0), dict(max_sounds='many')):
        with pytest.raises(UserError): report(path, corpus, **wrong)


def test_a_model_without_a_map_cannot_generate(place):
    _, path, corpus, *_ = place
    m = load_model(path)
    m.analysis = None
    r = report(m, corpus, keep=False, **FEW)
    assert 'no latent analysis' in r.facts()['Not measured'] and r.mel['unseen'].error > 0


def test_training_writes_down_what_it_learned(place, tmp_path, monkeypatch):
    from distill.pipeline import train_model
    monkeypatch.setattr('distill.pipeline.name_sliders', lambda model, **_: model.analysis)    # what takes long here
    corpus, cfg = place[2], TrainConfig(batch=2, epoch=2)
    made = train_model(corpus, 'x', tmp_path, steps=1, device='cpu', cfg=cfg)
    train, held_out = corpus.split(cfg.hold_out, cfg.seed)
    learned = dict(learned=[corpus.hashes[i] for i in train], held_out=[corpus.hashes[i] for i in held_out])
    assert load_model(made.path).training_config['sounds'] == learned


# --- while it is at it

def test_progress_and_stopping(place):
    _, path, corpus, *_ = place
    told, before = [], path.read_bytes()
    def stop(): return len(told) > 10
    with pytest.raises(KeyboardInterrupt): report(path, corpus, seed=5, progress=told.append, stop=stop, **FEW)
    assert path.read_bytes() == before
    assert len(told) == 11 and [p.done for p in told] == sorted(p.done for p in told)
    assert all(0 < p.done < 1 and p.eta > 0 for p in told)


def test_a_slow_phase_is_foreseen_from_its_first_step(monkeypatch):
    "A clock of our own: quick steps of 1 s, slow ones of 9 s, and the time to go is right from the first record on"
    clock, told = [0.], []
    monkeypatch.setattr('distill.evaluation.evaluate.time.perf_counter', lambda: clock[0])
    def work(n, seconds):
        for i in range(n):
            clock[0] += seconds
            yield 1.
    phases = [Phase('quick', work(5, 1.), 5), Phase('none', iter(()), 5), Phase('slow', work(5, 9.), 5)]
    def tell(p): told.append((p.what, p.done, p.eta, clock[0]))
    run_phases(phases, tell)
    assert [what for what, *_ in told] == ['quick']*4 + ['slow']*4
    for _, done, eta, now in told: assert eta == pytest.approx(50 - now) and done == pytest.approx(now/50)


@pytest.mark.parametrize('hear,said', [(lambda x, y: 4.2, ''), (lambda x, y: 1/0, 'could not score any')])
def test_visqol_where_it_is_installed(place, made, monkeypatch, hear, said):
    assert 'visqol-python is not installed' in made.facts()['Not measured']
    assert made.audio['reconstruction'].visqol is None
    class Api:
        def create(self, mode): pass
        def measure_from_arrays(self, x, y, rate): return types.SimpleNamespace(moslqo=hear(x, y))
    monkeypatch.setitem(sys.modules, 'visqol', types.SimpleNamespace(VisqolApi=Api))
    r = report(place[1], place[2], keep=False, generated=4, max_sounds=4)
    assert said in r.facts().get('Not measured', '') and r.used.scored == (0 if said else 4)
    assert r.audio['reconstruction'].visqol == (None if said else pytest.approx(4.2))


# --- numbers that somebody made up

JUNK = [None, True, -1, 10**30, float('nan'), float('inf'), '', 'x'*10**6, '<script>alert(1)</script>', '\x1b[2J',
        [], {}, [[]], dict(a=1), [1e300]*10**4]


def test_garbage_is_unreadable_and_never_a_crash(place, made):
    for v in JUNK:
        assert 'unreadable' in report_facts(dict(report=v))['Report'], repr(v)[:40]
        assert 'unreadable' in report_html(dict(report=v)), repr(v)[:40]
    rng = random.Random(0)
    def leaves(v, at=()):
        yield at
        keys = list(v) if isinstance(v, dict) else range(min(3, len(v))) if isinstance(v, list) else []
        for k in keys: yield from leaves(v[k], (*at, k))
    for at in list(leaves(made.to_dict()))[1:]:
        f = json.loads(json.dumps(made.to_dict()))
        where = f
        for k in at[:-1]: where = where[k]
        where[at[-1]] = rng.choice(JUNK)
        shown = report_html(dict(report=f)) + ''.join(report_facts(dict(report=f)).values())
        assert '<script' not in shown and '\x1b' not in shown and len(shown) < 200_000
    with pytest.raises(UserError, match='SoundsUsed'): Report.from_dict(dict(made.to_dict(), used={}))


def test_garbage_in_a_file_spoils_neither_card_nor_command(place, made, tmp_path):
    from typer.testing import CliRunner
    from distill.cli import app
    bad = write_model(replace(load_model(place[1]), metadata=ModelMetadata('bad')), tmp_path)
    edit_model(bad, extra=dict(report=dict(mmd='<script>alert(1)</script>')))
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
    args = ['report', 'little', str(corpus.folder), '--models-dir', str(home/'models'),
            '--no-keep', '--generated', '6', '--max-sounds', '20']
    r = CliRunner().invoke(app, [*args, '--json'])
    assert r.exit_code == 0 and Report.from_dict(json.loads(r.stdout)) == made and 'to go' in r.stderr, r.output
    command = typer.main.get_command(app).commands['report']
    there = {n: p.default for n, p in inspect.signature(report).parameters.items()}
    options = {p.name: p.default for p in command.params if p.name in there and not p.required}
    assert options == {n: there[n] for n in ('seed', 'generated', 'max_sounds', 'vocoder', 'keep', 'threads')}


def test_the_panel_measures_beside_the_page(place, made, tmp_path):
    from distill.ui.model import ModelPanel
    home, path, corpus, *_ = place
    panel = ModelPanel(path)
    section = panel.report
    assert section.report.value == made._repr_html_()
    section.measure.click()
    assert 'enter the folder' in panel.message
    section.sounds.value = str(corpus.folder)
    section.begin(seed=3, **FEW)
    other = ModelPanel(path).report                                        # made meanwhile, it finds the work
    assert other.work is section.work and section.measure.layout.display == 'none'
    other.sounds.value = 'x'
    with pytest.raises(UserError, match='is running'): other.begin()
    assert section.work.wait(60) == 'done'
    kept = report_html(load_model(path).metadata.extra)
    assert section.report.value == other.report.value == kept != made._repr_html_()
    section.begin(seed=4)
    section.stop.click()
    assert section.work.wait(60) == 'stopped' and read_report(load_model(path).metadata.extra).seed == 3
    section.sounds.value = str(tmp_path/'nowhere')
    section.begin()
    section.work.wait(60)
    assert 'There is no folder' in panel.message and section.work.state == 'failed'
    edit_model(path, extra=dict(report=made.to_dict()))
