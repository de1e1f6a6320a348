#!/usr/bin/env python3
"""README.md from nbs/index.ipynb, with no Quarto.

    python tools/readme.py           # write README.md (and index_files/ for its pictures)
    python tools/readme.py --check   # exit 1 if README.md is not what nbs/index.ipynb gives

Hidden cells go, doc links point at the published site (or are dropped when _quarto.yml has no
site-url), callouts become GitHub alerts, HTML tables become Markdown ones, audio becomes a note.
"""
from __future__ import annotations
import argparse, base64, re, sys
from html.parser import HTMLParser
from pathlib import Path

import yaml
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor
from nbdev.processors import (
    add_links, clean_magics, filter_stream_, hide_, hide_line, populate_language, rm_export, rm_header_dash, strip_ansi)

ROOT = Path(__file__).resolve().parent.parent
SRC, DST, PICS = ROOT/'nbs'/'index.ipynb', ROOT/'README.md', ROOT/'index_files'
HEAD = '<!-- Made from nbs/index.ipynb by tools/readme.py. Edit the notebook, not this file. -->\n\n'
ALERT = dict(note='NOTE', tip='TIP', important='IMPORTANT', warning='WARNING', caution='CAUTION')


class Table(HTMLParser):
    "The rows of the first table in some HTML"
    def __init__(self, s):
        super().__init__()
        self.rows, self.cell = [], None
        self.feed(s)
    def handle_starttag(self, t, a):
        if t == 'tr': self.rows.append([])
        elif t in ('td', 'th') and self.rows: self.cell = ''
    def handle_data(self, d):
        if self.cell is not None: self.cell += d
    def handle_endtag(self, t):
        if t in ('td', 'th') and self.cell is not None:
            self.rows[-1].append(' '.join(self.cell.split()).replace('|', '\\|'))
            self.cell = None


def callouts(s: str) -> str:
    def f(m):
        body = m.group(2).strip().splitlines()
        return f'> [!{ALERT[m.group(1)]}]\n' + '\n'.join('> '+l if l else '>' for l in body)
    return re.sub(r'^:::+ *\{?\.callout-(\w+)[^\n]*\}?\n(.*?)^:::+ *$', f, s, flags=re.S | re.M)


def links(s: str, site: str) -> str:
    s = re.sub(r'\]\((?!\w+:)([\w./-]+\.(?:ipynb|md))', r'](nbs/\1', s)      # to a page: GitHub shows the notebook
    if site: return re.sub(r'\]\(/(?=[\w./-]+\.html)', f']({site.rstrip("/")}/', s)
    return re.sub(r'\[(`[^`]+`)\]\(/[\w./-]+\.html[^)]*\)', r'\1', s)


def figures(h: str, pics: dict[str, bytes]) -> str:
    "The images of a gallery as a table of one row"
    found = re.findall(r'<figcaption>(.*?)</figcaption><img alt="([^"]*)" src="data:image/webp;base64,([^"]+)">', h)
    names = [f'figure-{len(pics) + i}.webp' for i in range(1, len(found) + 1)]
    for n, (_, _, data) in zip(names, found): pics[n] = base64.b64decode(data)
    captions = [caption for caption, _, _ in found]
    images = [f'![{alt}]({PICS.name}/{n})' for n, (_, alt, _) in zip(names, found)]
    table = '\n'.join('| ' + ' | '.join(row) + ' |' for row in (captions, ['---']*len(found), images))
    return f'{table}\n\n*(with a player below each, in the page and on the docs site)*'


def output(o: dict, pics: dict[str, bytes]) -> str:
    j = lambda v: ''.join(v) if isinstance(v, list) else v
    if o['output_type'] == 'stream': return '' if o['name'] == 'stderr' else f"```\n{j(o['text']).rstrip()}\n```"
    d = o.get('data', {})
    if 'image/png' in d:
        n = f'figure-{len(pics)+1}.png'
        pics[n] = base64.b64decode(j(d['image/png']))
        return f'![]({PICS.name}/{n})'
    h = j(d.get('text/html', ''))
    if '<table' in h:
        r = [x for x in Table(h).rows if x]
        own_row = len(r) > 1 and not r[0][0] and not any(r[1][1:])      # pandas gives the index's name a row of its own
        if own_row: r[0][0] = r.pop(1)[0]
        head, *rows = ['| ' + ' | '.join(x) + ' |' for x in r]
        return '\n'.join([head, '|' + '---|'*len(r[0]), *rows])
    if '<figure' in h: return figures(h, pics)
    if '<audio' in h: return '*(an audio player, in the page and on the docs site)*'
    if 'text/markdown' in d: return j(d['text/markdown'])
    t = j(d.get('text/plain', ''))
    return f'```\n{t.rstrip()}\n```' if t else ''


def render() -> tuple[str, dict[str, bytes]]:
    site = (yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website'] or {}).get('site-url') or ''
    procs = [FrontmatterProc, populate_language, strip_ansi, hide_line, filter_stream_, rm_header_dash,
             rm_export, clean_magics, hide_, add_links]
    nb = NBProcessor(SRC, procs=procs, process=True).nb
    fm, pics = nb.frontmatter_, {}
    out = [f"# {fm['title']}"] + ([fm['description']] if fm.get('description') else [])
    for c in nb.cells:
        if c.cell_type == 'raw': continue
        if c.cell_type == 'markdown':
            out.append(links(callouts(c.source.strip()), site))
            continue
        opts = dict(re.findall(r'^#\| *([\w-]+): *(.*)$', c.source, flags=re.M))
        src = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
        if opts.get('include') == 'false': continue
        if src and opts.get('echo') != 'false': out.append(f'```python\n{src}\n```')
        if opts.get('output') != 'false': out += [x for o in c.get('outputs', []) if (x := output(o, pics))]
    return HEAD + '\n\n'.join(out).strip() + '\n', pics


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true')
    a = p.parse_args()
    md, pics = render()
    if a.check:
        have = {f.name: f.read_bytes() for f in PICS.glob('*')} if PICS.exists() else {}
        ok = DST.exists() and DST.read_text(encoding='utf-8') == md and have == pics
        if not ok: print('README.md is not what nbs/index.ipynb gives: run python tools/readme.py', file=sys.stderr)
        sys.exit(not ok)
    DST.write_text(md, encoding='utf-8')
    if PICS.exists():
        for f in PICS.glob('*'): f.unlink()
    if pics:
        PICS.mkdir(exist_ok=True)
        for n, b in pics.items(): (PICS/n).write_bytes(b)
    print(f'README.md: {len(md)} characters, {len(pics)} pictures')

if __name__ == '__main__': main()
