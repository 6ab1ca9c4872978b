"""Who needs PyTorch: modules that cannot be imported without it, and tests that use such a one."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.root import ROOT

TORCH = ("torch", "torchvision", "torchmetrics")


@cache
def needs_torch(module: str) -> bool:
    """Whether importing a module of this repository, or of elsewhere, imports PyTorch."""
    if module.split(".", 1)[0] in TORCH:
        return True
    seen, waiting = {module}, [module]
    while waiting:
        named = set(_imported_by(waiting.pop()))
        if any(each.split(".", 1)[0] in TORCH for each in named):
            return True
        waiting += named - seen
        seen |= named
    return False


def users_of_torch(file: Path) -> tuple[list[str], list[str]]:
    """Names of a file's own that use what needs PyTorch, at once or by each other, and all names.

    Of a helper of the tests only what uses it itself needs it, not all that stands beside it.
    """
    body = ast.parse(file.read_text(encoding="utf-8")).body
    foreign = {
        alias.asname or alias.name.split(".", 1)[0]
        for statement in _at_import(body)
        for alias, module in _names_in(statement)
        if _brings_torch(module, alias.name)
    }
    uses = {name: _names_used(part) for part in body for name in _defined_by(part)}
    found: set[str] = set()
    while more := {name for name, used in uses.items() if used & (foreign | found)} - found:
        found |= more
    return sorted(found), sorted(uses)


def module_of(file: Path) -> str:
    """The dotted name of a file of this repository."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _brings_torch(module: str, name: str) -> bool:
    if (whole := f"{module}.{name}") and _file_of(whole):
        return needs_torch(whole)
    file = _file_of(module)
    if file is not None and module.startswith("tests."):
        return needs_torch(module) and name in users_of_torch(file)[0]
    return needs_torch(module)


@cache
def _imported_by(module: str) -> tuple[str, ...]:
    """Modules that importing one of this repository imports first, its packages with them."""
    if (file := _file_of(module)) is None:
        return ()
    found = [module.rsplit(".", 1)[0]] if "." in module else []
    for statement in _at_import(ast.parse(file.read_text(encoding="utf-8")).body):
        for alias, parent in _names_in(statement):
            found += [
                parent,
                f"{parent}.{alias.name}" if _file_of(f"{parent}.{alias.name}") else parent,
            ]
    return tuple(found)


def _at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported: not those of its functions."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        yield statement
        if not (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)):
            yield from _at_import(getattr(statement, "body", ()))


def _names_in(statement: ast.stmt) -> Iterator[tuple[ast.alias, str]]:
    """What is imported, and of which module."""
    if isinstance(statement, ast.Import):
        yield from ((alias, alias.name) for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom) and statement.module:
        yield from ((alias, statement.module) for alias in statement.names)


def _defined_by(part: ast.stmt) -> list[str]:
    match part:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return [name]
        case ast.Assign() | ast.AnnAssign():
            stored = (each for each in ast.walk(part) if isinstance(each, ast.Name))
            return [each.id for each in stored if isinstance(each.ctx, ast.Store)]
    return []


def _names_used(part: ast.stmt) -> set[str]:
    """Names in a statement, those of the fixtures that it takes included."""
    names = {each.id for each in ast.walk(part) if isinstance(each, ast.Name)}
    return names | {each.arg for each in ast.walk(part) if isinstance(each, ast.arg)}


def _file_of(module: str) -> Path | None:
    stem = ROOT.joinpath(*module.split("."))
    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
        if file.is_file():
            return file
    return None
