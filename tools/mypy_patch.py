"""A mypy plugin that knows fastcore's `@patch`: a function patched into a class of the same module is checked as a method of it.

Named in pyproject.toml. Without it, every method that stands below its class would be unknown to the checker.
"""
from __future__ import annotations
from mypy.nodes import CallExpr, ClassDef, Decorator, FuncDef, MypyFile, NameExpr, Var
from mypy.plugin import Plugin
from mypy.types import UnboundType


def patch_of(node) -> tuple[str, bool] | None:
    "Which class a function is patched into, and whether as a property"
    if not isinstance(node, Decorator): return None
    for d in node.original_decorators:
        call = d.callee if isinstance(d, CallExpr) else d
        if not (isinstance(call, NameExpr) and call.name == 'patch'): continue
        self_type = node.func.unanalyzed_type.arg_types[0] if node.func.unanalyzed_type else None
        if isinstance(self_type, UnboundType): return self_type.name, isinstance(d, CallExpr) and 'as_prop' in d.arg_names
    return None


class PatchPlugin(Plugin):
    def get_additional_deps(self, file: MypyFile):
        "Called for each file once it is parsed, before names are looked up: the moment to move methods into their classes"
        classes = {n.name: n for n in file.defs if isinstance(n, ClassDef)}
        for node in list(file.defs):
            if not (found := patch_of(node)) or found[0] not in classes: continue
            name, as_prop = found
            assert isinstance(node, Decorator)
            rest = [d for d in node.original_decorators if not (isinstance(d.callee if isinstance(d, CallExpr) else d, NameExpr) and (d.callee if isinstance(d, CallExpr) else d).name == 'patch')]
            file.defs.remove(node)
            func: FuncDef = node.func
            method = func if not rest and not as_prop else Decorator(func, [*rest, *([NameExpr('property')] if as_prop else [])], Var(func.name))
            if isinstance(method, Decorator): method.set_line(node); method.func.is_decorated = True
            else: func.is_decorated = False
            classes[name].defs.body.append(method)
        return []


def plugin(version: str): return PatchPlugin
