"""Where the configuration comes from, so that it can be read again: a file or a folder, under the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from appserver import paths
from appserver.config import conventions
from appserver.config.model import Address, Config
from appserver.config.plan import LoadedConfig, build
from appserver.config.units import UnfitError
from appserver.config.values import parse_address, parse_threads
from appserver.errors import ConfigError


class ConfigSource:
    """The supervisor's way to the configuration. `load` raises ConfigError; what it gave before stays valid then."""

    def __init__(self, load: Callable[[], LoadedConfig], watch: tuple[Path, ...] = ()) -> None:
        self._load = load
        self._watch = watch

    def load(self) -> LoadedConfig:
        """Reads everything again. Raises ConfigError."""
        loaded = self._load()
        self._watch = loaded.watch
        return loaded

    def watch_paths(self) -> tuple[Path, ...]:
        """Files and folders whose change asks for a reload with --dev, as of the last good load.

        For a file its content counts; for a folder the names in it and the .py files anywhere below. Some may not exist
        (yet).
        """
        return self._watch


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says over the file; already parsed."""

    listen: tuple[Address, ...] = ()
    threads: int | None = None
    dev: bool = False


def parse_overrides(listen: list[str] | None, threads: str | None, dev: bool) -> Overrides:
    """Raises ConfigError with one line for each wrong option."""
    lines: list[str] = []
    addresses: list[Address] = []
    for text in listen or []:
        try:
            address = parse_address(text)
        except UnfitError as unfit:
            lines.append(_option_line("--listen", text, unfit))
            continue
        if any((address.host, address.port) == (each.host, each.port) for each in addresses):
            lines.append(f"--listen: found '{text}' twice; expected each address once")
        addresses.append(address)
    count: int | None = None
    try:
        count = parse_threads(threads) if threads is not None else None
    except UnfitError as unfit:
        lines.append(_option_line("--threads", threads or "", unfit))
    if lines:
        raise ConfigError(lines)
    return Overrides(tuple(addresses), count, dev)


def default_file() -> Path | None:
    """The configuration that is read when neither a file nor a folder is named, if it is there."""
    return conventions.IMAGE_CONFIG if paths.exists(conventions.IMAGE_CONFIG) else None


def open_source(file: Path | None, folder: Path | None, overrides: Overrides) -> ConfigSource:
    """The source for `serve`: `file`, else by convention `folder`; neither: the image's file when there is one, else
    the default folder.
    """
    if file is None and folder is None:
        file = default_file()
    file = None if file is None else file.absolute()
    folder = None if folder is None else folder.absolute()
    watch = tuple(path for path in (file, folder) if path is not None)
    return ConfigSource(lambda: load_config(file, folder, overrides), watch)


def load_config(file: Path | None, folder: Path | None, overrides: Overrides) -> LoadedConfig:
    """Reads once. A file without sites is completed with the site that the conventions make of `folder`. Raises
    ConfigError.
    """
    config = Config()
    watch: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    if file is not None:
        from appserver.config.load import load_file  # PyYAML is not loaded when there is no file

        config, watch = load_file(file), (file,)
    if not config.sites:
        folder = folder or conventions.default_folder()
        config = replace(config, sites=(conventions.site_of(folder),))
        warnings = conventions.convention_warnings(folder)
        watch += conventions.convention_watch(folder)
    elif folder is not None:
        raise ConfigError(
            [f"{file}: the file has sites, so '{folder}' would not be served; leave out the folder, or the sites"]
        )
    config = replace(config, listen=overrides.listen or config.listen, threads=overrides.threads or config.threads)
    served = str(folder or "")
    return build(str(file or folder), config, folder=served, dev=overrides.dev, warnings=warnings, watch=watch)


def _option_line(option: str, text: str, unfit: UnfitError) -> str:
    question = f"; did you mean '{unfit.nearest}'?" if unfit.nearest else ""
    return f"{option}: found '{text}'; expected {unfit.expected}{question}"
