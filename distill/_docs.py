"What docstrings say of parameters, read without an import: a command's help should not wait for torch"
from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def parameter_help(
    name: str,  # the whole name of a function, a method or a class, such as 'distill.generation.sounds.generate'
) -> dict[str, str]:
    "Each parameter's text in a numpy-style docstring; `return` is the text of what comes back"
    return parameters(docstring(name))


def parameters(doc: str) -> dict[str, str]:
    "Each parameter's text in a numpy-style docstring; `return` is the text of what comes back"
    texts: dict[str, str] = {}
    lines = inspect.cleandoc(doc).splitlines()
    section, name = '', ''
    for line, below in zip(lines, [*lines[1:], '']):
        if below and set(below) == {'-'}: section = line
        elif not section or not line or set(line) == {'-'}: continue
        elif line.startswith(' '): texts[name] = f'{texts[name]} {line.strip()}'.strip()
        else:
            name = line.partition(' : ')[0] if section == 'Parameters' else 'return'
            texts[name] = line if name == 'return' and not below else ''    # a text alone, or a type before its text
    return texts


def docstring(name: str) -> str:
    "The docstring of `module.function`, `module.Class` or `module.Class.method`, from the module's file"
    module, _, rest = name.rpartition('.')
    path = [rest]
    if module.rpartition('.')[2][0].isupper():
        module, _, owner = module.rpartition('.')
        path = [owner, rest]
    body = definition(module, path[0])
    for part in path[1:]: body = next(n for n in body.body if isinstance(n, ast.FunctionDef) and n.name == part)
    return ast.get_docstring(body) or ''


@cache
def definition(module: str, name: str) -> ast.FunctionDef | ast.ClassDef:
    "A definition at the top of a module; only its own lines are parsed, which takes a hundredth of the time of all"
    spec = find_spec(module)
    assert spec and spec.origin, f'There is no module {module}'
    source = Path(spec.origin).read_text(encoding='utf-8')
    found = re.search(rf'^(?:def|class) {name}\b.*?(?=^[^\s)]|\Z)', source, re.M | re.S)
    assert found, f'{module} defines no {name}'
    node = ast.parse(found[0]).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return node
