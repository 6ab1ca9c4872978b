"""Things of the user's own, named in a setting as `package.module:factory`.

A factory is a function that returns a network or a data set. Its module is imported from the
Python path, or else from the folder that the settings came from. What somebody else named, in a
message or in the directory of a run, is imported only where this machine's user allowed it.
"""

import importlib
import inspect
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.errors import SettingsError

Factory = Callable[..., Any]

_HERE = Path(__file__).resolve().parents[1]
_NOT_THEIRS = (
    *(str(_HERE / package) + os.sep for package in ("runtime", "device_agent", "edge_coordinator")),
    *(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib", "stdlib")),
)
"""Where code is that is not the user's own: ours, what is installed, and Python's."""
_importing = threading.local()
"""`module`: what this thread imports just now to find what was named of it."""


@dataclass(frozen=True)
class AllowedCode:
    """What may run here although somebody else named it: packages, or single factories.

    Of a package (`nets`) this is what it, or a module in it, defines itself, not what it has
    imported: else a module that needs `subprocess.run` would lend it to whoever asks. A factory
    (`nets:small`) is allowed wherever it was defined.
    """

    names: tuple[str, ...] = ()

    def check(self, reference: str, *, what: str, to_allow: str, base_dir: Path = Path()) -> None:
        """Raise SettingsError unless this is a built-in name or allowed; imports nothing else.

        `to_allow` begins the advice, whose end is the flag.
        """
        module_name, colon, _ = reference.partition(":")
        if not colon or reference in self.names:
            return
        if not self._has(module_name):
            raise SettingsError(
                f"{what} {reference!r} is code, which nobody allowed; if you trust it, {to_allow} "
                f"--allow-code {reference}"
            )
        home = getattr(import_factory(reference, base_dir=base_dir), "__module__", None)
        if not self._has(str(home)):
            raise SettingsError(
                f"{what} {reference!r} is allowed for {module_name}, but {home} defines it; if you "
                f"trust it, {to_allow} --allow-code {reference}"
            )

    def _has(self, module_name: str) -> bool:
        parts = module_name.split(".")
        return any(".".join(parts[:end]) in self.names for end in range(1, len(parts) + 1))


NO_CODE = AllowedCode()


def import_factory(reference: str, *, base_dir: Path) -> Factory:
    """Import `package.module:factory`; raises SettingsError when there is no such function."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute or not all(module_name.split(".")):
        raise SettingsError(f"{reference!r} is not of the form package.module:factory")
    found: object = getattr(_import_module(module_name, base_dir), attribute, None)
    if not callable(found):
        problem = "has no" if found is None else "has a value, not a function, named"
        raise SettingsError(f"{reference}: module {module_name} {problem} {attribute!r}")
    return found


def import_function(reference: str, *, base_dir: Path) -> Factory:
    """Import what is to be called again and again; of a class, as of a loss of torch's, an object.

    Raises SettingsError when there is no such function.
    """
    found = import_factory(reference, base_dir=base_dir)
    if not inspect.isclass(found):
        return found
    made = call_factory(found, {}, name=reference)
    if not callable(made):
        raise SettingsError(f"{reference} is a class whose objects cannot be called")
    return made


def call_factory(factory: Factory, options: Mapping[str, object], *, name: str) -> object:
    """Call a factory with its options; raises SettingsError for options it does not take.

    Errors that the factory raises about its arguments become SettingsError as well.
    """
    allowed = option_names(factory)
    for option in options:
        if allowed is not None and option not in allowed:
            known = f"it takes {', '.join(allowed)}" if allowed else "it takes no options"
            raise SettingsError(f"{name} has no option {option!r}; {known}")
    try:
        if (signature := _signature(factory)) is not None:
            signature.bind(**options)
        built: object = factory(**options)
    except SettingsError:
        raise
    except (Exception, SystemExit) as error:  # It is the user's own.
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        how = f"with {given}" if given else "without options"
        raise SettingsError(f"{name} cannot be built {how}: {described(error)}") from error
    return built


def described(error: BaseException) -> str:
    """Say what code of the user's own raised, and where, if it did not mean to say it to a user."""
    if isinstance(error, TypeError | ValueError | RuntimeError) and str(error):
        return str(error).partition("\n")[0]
    places = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in places if not each.filename.startswith(_NOT_THEIRS)]
    place = (theirs or places)[-1]
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{said} ({place.filename}, line {place.lineno})"


def option_names(factory: Factory) -> list[str] | None:
    """Name the options that a factory takes; None when it takes any."""
    if (signature := _signature(factory)) is None:
        return None
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in parameters if parameter.kind in named]


def _signature(factory: Factory) -> inspect.Signature | None:
    """What it takes; None of what is written in C and does not say."""
    try:
        return inspect.signature(factory)
    except ValueError:
        return None


def check_not_imported(what: str) -> None:
    """Raise SettingsError if a module that is only to give a function begins to train itself."""
    if (module := getattr(_importing, "module", None)) is not None:
        raise SettingsError(
            f"{module} calls {what} as soon as it is imported, and whoever trains its "
            'networks or reads its data imports it: put the call below `if __name__ == "__main__":`'
        )


def name_of_script() -> str:
    """Name the script that runs here as other processes can import it from the working folder.

    `__main__` where they cannot: it is typed or a notebook, elsewhere, or named like no module.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    name = spec.name if spec is not None else _module_below(Path.cwd(), file)
    # It is imported already, so nobody here imports it a second time.
    return name if name and sys.modules.setdefault(name, main) is main else "__main__"


def _module_below(folder: Path, file: str | None) -> str | None:
    path = Path(file).resolve() if file else Path()
    if path.suffix != ".py" or not path.is_relative_to(folder.resolve()):
        return None
    parts = path.relative_to(folder.resolve()).with_suffix("").parts
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None


def _import_module(module_name: str, base_dir: Path) -> ModuleType:
    # A console script does not have the working folder on its path, as `python -m` does. It goes
    # to the end, where it can hide nothing.
    folder = str(base_dir.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    _importing.module = module_name
    try:
        return importlib.import_module(module_name)
    except SettingsError:
        raise
    except ImportError as error:
        raise SettingsError(
            f"cannot import {module_name}: {error} (searched the Python path and {folder})"
        ) from error
    except SyntaxError as error:
        raise SettingsError(f"cannot import {module_name}: {error}") from error
    except (Exception, SystemExit) as error:  # It is the user's own.
        raise SettingsError(f"cannot import {module_name}: {described(error)}") from error
    finally:
        _importing.module = None
