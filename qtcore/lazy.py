"""Lazy imports: packages whose public names are imported when they are first asked for, as their modules are."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class Package(ModuleType):
    """A package that imports what is asked of it. A name wins over a module that is called the same (`research.sweep`)."""

    home_of: Mapping[str, str]

    def __getattribute__(self, name: str) -> Any:
        own = super().__getattribute__
        if name in own("__dict__")["home_of"]:
            return getattr(import_module(own("home_of")[name]), name)
        return own(name)

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        try:
            return import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.home_of})


def import_lazily(package: str, homes: Mapping[str, tuple[str, ...]]) -> None:
    """Let a package import the names of `homes` (by module) when they are asked for: `qt --help` needs none of them."""
    module = import_module(package)
    module.__dict__["home_of"] = {name: f"{package}.{home}" for home, names in homes.items() for name in names}
    module.__class__ = Package
