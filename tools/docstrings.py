"""Docstrings that list every parameter, made from the comments beside the parameters.

A page says what a parameter means where it stands, one a line; the exported module says it where `help`,
`?` and editors look, as sections in numpy's style:

    def generate(                    "New sounds from a model
        model: Model,  # the model
        n: int = 1,    # how many    Parameters
    ) -> list[Sound]:  # the sounds  ----------
        "New sounds from a model"    model : Model
                                         the model  ..."

Public functions, public methods, and classes (the fields of a dataclass, the parameters of `__init__`)
get sections when at least one comment is there. A comment that is too long for its line may stand above
the parameter, on lines of its own. Comments move into the docstring; those that are only a shape stay, too.
"""
from __future__ import annotations
import ast, io, re, textwrap, tokenize
from typing import Iterator, NamedTuple

WIDTH = 120
SHAPE = re.compile(r'[\s(),.>|*/+-]*(\b(\w|\d+|or)\b[\s(),.>|*/+-]*)+')   # (b,t) -> (b,m,f)
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Entry(NamedTuple):
    "A parameter, a field or a returned value"
    name: str         # empty for a returned value
    type: str         # as written; empty without annotation
    comment: str
    rows: list[int]   # the lines that the comment takes


class Page:
    "The source of a cell, its comments by line, and the edits to be made to it"
    def __init__(self, source: str):
        self.lines = source.splitlines()
        self.tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        self.comments = {t.start[0]: t for t in self.tokens if t.type == tokenize.COMMENT}
        self.edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []

    def comment_at(self, first: int, last: int) -> tuple[str, list[int]]:
        "The comment of what stands on some lines: at the end of the last one, else on lines of its own above them"
        rows = [last]
        if last not in self.comments:
            above = first
            while self.is_comment(above - 1): above -= 1
            rows = list(range(above, first))
        texts = [self.comments[r].string.lstrip('#').strip() for r in rows]
        return ' '.join(texts), rows

    def is_comment(self, row: int) -> bool:
        "Whether a line has a comment and nothing else"
        return row in self.comments and self.lines[row - 1].lstrip().startswith('#')

    def end_of_header(self, node: Function) -> int:
        "The line with the colon that ends `def …:`"
        depth = 0
        for t in self.tokens:
            if t.start < (node.lineno, 0) or t.type != tokenize.OP: continue
            if t.string in {'(', '[', '{'}: depth += 1
            elif t.string in {')', ']', '}'}: depth -= 1
            elif t.string == ':' and not depth: return t.start[0]
        raise AssertionError(f'{node.name} has no end')

    def column(self, row: int, offset: int) -> int:
        "A column in characters, where `ast` counts bytes"
        return len(self.lines[row - 1].encode()[:offset].decode())

    def drop(self, entry: Entry):
        "Take an entry's comment away, unless it is a shape, which is read beside the code"
        if SHAPE.fullmatch(entry.comment): return
        for row in entry.rows:
            code = self.lines[row - 1][:self.comments[row].start[1]].rstrip()
            start = (row, len(code)) if code else (row - 1, len(self.lines[row - 2]))   # with the line break before it
            self.edits.append((start, (row, len(self.lines[row - 1])), ''))

    def edited(self) -> str:
        "The source with the edits made"
        text = '\n'.join(self.lines)
        starts = [0]
        for line in self.lines: starts.append(starts[-1] + len(line) + 1)
        for start, end, new in sorted(self.edits, reverse=True):
            text = text[:starts[start[0] - 1] + start[1]] + new + text[starts[end[0] - 1] + end[1]:]
        return text


def parameters(page: Page, node: Function, method: bool) -> list[Entry]:
    "The parameters of a function, without `self`; a comment counts that has the line for itself and its parameter"
    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = dict(zip(reversed(plain), reversed(a.defaults))) | dict(zip(a.kwonlyargs, a.kw_defaults))
    if method and 'staticmethod' not in map(ast.unparse, node.decorator_list): plain = plain[1:]
    named = {p: '' for p in plain} | {a.vararg: '*'} | {p: '' for p in a.kwonlyargs} | {a.kwarg: '**'}
    named.pop(None, None)
    last = {p: (defaults.get(p) or p).end_lineno for p in named}
    lines, end, out = list(last.values()), page.end_of_header(node), []
    for p, stars in named.items():
        alone = node.lineno < p.lineno and last[p] < end and lines.count(last[p]) == 1
        comment, rows = page.comment_at(p.lineno, last[p]) if alone else ('', [])
        out.append(Entry(stars + p.arg, ast.unparse(p.annotation) if p.annotation else '', comment, rows))
    return out


def returned(page: Page, node: Function) -> list[Entry]:
    "What a function returns, where a comment at the end of a header of several lines says it"
    row = page.end_of_header(node)
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    if row == node.lineno or row not in page.comments or any(p.end_lineno == row for p in every): return []
    return [Entry('', ast.unparse(node.returns) if node.returns else '', *page.comment_at(row, row))]


def fields(page: Page, node: ast.ClassDef) -> list[Entry]:
    "The fields of a dataclass or named tuple that its maker takes"
    out = []
    for n in node.body:
        if not isinstance(n, ast.AnnAssign) or not isinstance(n.target, ast.Name): continue
        kind, default = ast.unparse(n.annotation), ast.unparse(n.value) if n.value else ''
        if 'ClassVar' in kind or 'init=False' in default or n.target.id.startswith('_'): continue
        out.append(Entry(n.target.id, kind, *page.comment_at(n.lineno, n.end_lineno)))
    return out


def section(title: str, entries: list[Entry], indent: str) -> list[str]:
    "A numpy-style section as lines; none when no entry has a comment"
    if not any(e.comment for e in entries): return []
    wrapper = textwrap.TextWrapper(WIDTH - len(indent), initial_indent='    ', subsequent_indent='    ',
                                   break_long_words=False, break_on_hyphens=False)
    out = ['', title, '-'*len(title)]
    for e in entries:
        head = ' : '.join(x for x in (e.name, e.type) if x)
        out += [head, *wrapper.wrap(e.comment)] if head else [e.comment]
    return [indent + line if line else '' for line in out]


def add(page: Page, node: Function | ast.ClassDef, params: list[Entry], returns: list[Entry]):
    "Append sections to the docstring of a definition"
    first = node.body[0]
    start = first.lineno, page.column(first.lineno, first.col_offset)
    end = first.end_lineno, page.column(first.end_lineno, first.end_col_offset)
    own_line = not page.lines[start[0] - 1][:start[1]].strip()
    indent = ' '*(start[1] if own_line else node.col_offset + 4)
    lines = section('Parameters', params, indent) + section('Returns', returns, indent)
    if not lines: return
    prefix, summary = '', ''
    if ast.get_docstring(node, clean=False) is None:
        lines, end, tail = lines[1:], start, f'\n{indent}'
    else:
        source = ast.get_source_segment('\n'.join(page.lines), first)
        prefix, _, summary = re.fullmatch(r'''([rR]?)("""|\'\'\'|"|')(.*)\2''', source, re.S).groups()
        lines, tail = ['', *lines], ''
    added = '\n'.join(lines).lstrip(' ')
    if not prefix: added = added.replace('\\', '\\\\')
    before = '' if own_line else f'\n{indent}'
    page.edits.append((start, end, f'{before}{prefix}"""{summary.rstrip()}{added}\n{indent}"""{tail}'))
    for e in params + returns: page.drop(e)


def definitions(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    "The public definitions among some statements"
    for n in body:
        if isinstance(n, Function | ast.ClassDef) and (not n.name.startswith('_') or n.name.endswith('__')): yield n


def is_data(node: ast.ClassDef) -> bool:
    "Whether the fields of a class are what makes one"
    decorators, bases = map(ast.unparse, node.decorator_list), map(ast.unparse, node.bases)
    return any('dataclass' in d for d in decorators) or 'NamedTuple' in bases


def documented(source: str) -> str:
    "The source of a cell, with its comments beside parameters moved into docstrings"
    if '#' not in source: return source
    page = Page(source)
    for node in definitions(ast.parse(source).body):
        if isinstance(node, Function):
            add(page, node, parameters(page, node, False), returned(page, node))
            continue
        methods = [n for n in definitions(node.body) if isinstance(n, Function)]
        init = next((n for n in methods if n.name == '__init__'), None)
        add(page, node, fields(page, node) if is_data(node) else parameters(page, init, True) if init else [], [])
        for m in methods:
            if m is not init: add(page, m, parameters(page, m, True), returned(page, m))
    return page.edited() if page.edits else source
