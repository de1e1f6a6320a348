#!/usr/bin/env python3
"""Write the modules from the pages: `nbdev_export`, with classes made whole and parameters in the docstrings.

    python tools/export.py

A page may define a class in one cell and add a method in a later one, next to the lesson about it, with
fastcore's `@patch`. In the module such a method is written into the body of its class, where readers,
editors and type checkers look for it. What a comment says of a parameter is written into the docstring
(tools/docstrings.py), where `help` and editors look for it.
"""
from __future__ import annotations
import ast, io, os, re, textwrap, tokenize
from pathlib import Path

from nbdev.config import add_init, get_config
from nbdev.doclinks import _build_modidx, nbglob
from nbdev.export import nb_export
from nbdev.maker import ModuleMaker

from docstrings import documented

def patch_of(decorator: ast.expr) -> list[str] | None:
    "What `@patch`, `@patch(as_prop=True)` or `@patch(cls_method=True)` is in a class; None for another decorator"
    call = decorator if isinstance(decorator, ast.Call) else None
    name = call.func if call else decorator
    if not (isinstance(name, ast.Name) and name.id == 'patch'): return None
    kinds = {k.arg for k in call.keywords} if call else set()
    return {'as_prop': ['@property'], 'cls_method': ['@classmethod']}.get(next(iter(kinds), ''), [])


def as_method(node: ast.FunctionDef, lines: list[str]) -> tuple[str, str]:
    "The class a patched function belongs to, and its source as a method"
    me = node.args.args[0]
    assert isinstance(me.annotation, ast.Name), f'{node.name}: @patch wants the class as the type of its first argument'
    text = '\n'.join(lines[node.lineno - 1:node.end_lineno])
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    several = any(t.type == tokenize.STRING and t.start[0] != t.end[0] for t in tokens)
    assert not several, f'{node.name}: text of several lines would be indented'
    lines = list(lines)
    row = me.lineno - 1
    assert me.annotation.end_lineno == me.lineno
    lines[row] = lines[row][:me.col_offset] + me.arg + lines[row][me.annotation.end_col_offset:]
    kept = [d for d in node.decorator_list if patch_of(d) is None]
    heads = [h for d in node.decorator_list for h in patch_of(d) or []]
    heads += [line for d in kept for line in lines[d.lineno - 1:d.end_lineno]]
    body = lines[node.lineno - 1:node.end_lineno]
    return me.annotation.id, '\n'.join('    ' + line if line else line for line in heads + body)


def is_patched(node: ast.stmt) -> bool:
    "Whether a definition belongs to a class of the page"
    return isinstance(node, ast.FunctionDef) and any(patch_of(d) is not None for d in node.decorator_list)


def fold(cells):
    "Move patched functions into the classes of the same module"
    homes = {n.name: c for c in cells for n in c.parsed_() or () if isinstance(n, ast.ClassDef)}
    for cell in cells:
        patched = [n for n in cell.parsed_() or () if is_patched(n)]
        if not patched: continue
        lines = cell.source.splitlines()
        methods = [as_method(n, lines) for n in patched]
        for n in reversed(patched): del lines[min(d.lineno for d in n.decorator_list) - 1:n.end_lineno]
        cell.set_source('\n'.join(lines).strip() + '\n')
        for name, text in methods:
            assert name in homes, f'@patch of {name}, a class of another page'
            homes[name].set_source(end_of_class(homes[name].source, name, text))
    for cell in cells:
        if cell.cell_type != 'code': continue
        source = cell.source.replace('from fastcore.basics import patch\n', '')
        cell.set_source(documented(source).rstrip())
    return [c for c in cells if c.source.strip()]


def end_of_class(source: str, name: str, method: str) -> str:
    "The source of a cell with a method more in one of its classes"
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == name)
    lines = source.splitlines()
    lines[node.end_lineno:node.end_lineno] = ['', *method.splitlines()]
    return '\n'.join(lines) + '\n'


class WholeClasses(ModuleMaker):
    def make(self, cells, all_cells=None, lib_path=None):
        super().make(fold(cells), all_cells, lib_path)
        self.fname.write_text(wrapped(self.fname.read_text(encoding='utf-8')), encoding='utf-8')


def wrapped(module: str) -> str:
    "A module whose docstring and list of names, which nbdev writes, fit into lines of 120"
    fill = lambda text, indent: textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False)
    module = re.sub(r'\A""".*"""$', lambda m: fill(m[0], ''), module, flags=re.M)
    names = re.compile(r'^__all__ = \[.*?\]$', re.M | re.S)
    return names.sub(lambda m: fill(' '.join(m[0].split()), ' '*11), module, count=1)


def export():
    for page in sorted(nbglob(as_path=True), key=lambda p: p.name): nb_export(page, mod_maker=WholeClasses)
    add_init(get_config().lib_path)
    _build_modidx()


if __name__ == '__main__':
    os.chdir(Path(__file__).resolve().parent.parent)
    export()
