"""The commands that watch: a site in the terminal or in the browser, recorded runs there too."""

import argparse
import asyncio
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Coroutine, Mapping
from importlib.util import find_spec
from typing import Any

from edge_coordinator.cli.output import Output
from edge_coordinator.cli.watching_flags import THIS_MACHINE
from runtime.bus.broker_url import TlsFiles, parse_broker_url
from runtime.errors import SettingsError
from runtime.event_loop import call_at_end_of_input, call_on_signals

_NEEDED = ("starlette", "uvicorn")


def watch_site(flags: argparse.Namespace, console: Output) -> None:
    """Show a site in the browser or in the terminal."""
    if flags.direct is not None or flags.write_page is not None:
        give_page_of_its_own(flags, console)
        return
    if flags.fleet is not None:
        from edge_coordinator.cli.fleet.commands import watch_fleet

        watch_fleet(flags)
    (monitor_in_browser if flags.web else monitor_in_terminal)(flags, console)


def monitor_in_terminal(flags: argparse.Namespace, console: Output) -> None:
    """Show a site until told to end, or once."""
    if flags.prometheus or flags.home_assistant:
        _serve_tools(flags, console)
        return
    from edge_coordinator.monitor.client import monitor
    from edge_coordinator.monitor.json_lines import SiteLines
    from edge_coordinator.monitor.screen import LiveSite

    if not (flags.once or flags.json or console.is_terminal):
        raise SettingsError("the live view needs a terminal; without one, take --once or --json")
    console.quiet = False  # To be shown the site is what was asked for.
    broker = str(parse_broker_url(flags.broker))
    site, lines = LiveSite(console, broker=broker), SiteLines(_print_line, broker=broker)
    show = lines.show if flags.json else site.print if flags.once else site.show
    watching = monitor(flags.broker, flags.site, tls=_tls(flags), show=show, once=flags.once)
    try:
        asyncio.run(watching)
    except* KeyboardInterrupt:
        pass  # That is how one stops watching.
    finally:
        site.close()


def _serve_tools(flags: argparse.Namespace, console: Output) -> None:
    """Serve other tools that watch a site, until told to end."""
    if flags.once:
        raise SettingsError("--prometheus and --home-assistant go without --once")
    from edge_coordinator.cli.companions import Companions

    companions = Companions(flags.broker, flags.site, tls=_tls(flags), say=_said(console))
    companions.take(flags)
    _run(companions.run(), end_with_stdin=False)


def _print_line(line: str) -> None:
    print(line, flush=True)


def monitor_in_browser(flags: argparse.Namespace, console: Output) -> None:
    """Serve the page of a site until told to end."""
    if flags.once or flags.prometheus or flags.home_assistant:
        raise SettingsError(
            "--web goes without --once, --prometheus and --home-assistant; take one"
        )
    require_page()
    from edge_coordinator.monitor.web.serving import Address
    from edge_coordinator.monitor.web.site import serve_site

    serving = serve_site(
        flags.broker,
        flags.site,
        tls=_tls(flags),
        address=Address(flags.bind, flags.port),
        say=_Said(console, opens=not flags.no_open),
    )
    _run(serving, end_with_stdin=flags.end_with_stdin)


def give_page_of_its_own(flags: argparse.Namespace, console: Output) -> None:
    """Serve or write the page that connects to the broker by itself."""
    _check_direct(flags)
    from edge_coordinator.monitor.web.direct import DirectSource, write_page

    source = DirectSource.of(flags.direct, flags.site)
    if flags.write_page is not None:
        file = write_page(source, flags.write_page)
        console.say(f"written: {file}", "written", {"files": [str(file)]})
        return
    require_page()
    from edge_coordinator.monitor.web.serving import Address
    from edge_coordinator.monitor.web.site import serve_direct

    serving = serve_direct(
        source,
        address=Address(flags.bind, flags.port),
        say=_Said(console, opens=not flags.no_open),
    )
    _run(serving, end_with_stdin=flags.end_with_stdin)


def _check_direct(flags: argparse.Namespace) -> None:
    """SettingsError for what makes no sense where the browser connects by itself."""
    if flags.write_page is None and not flags.web:
        raise SettingsError("--direct is for the page: take --web or --write-page with it")
    if flags.write_page is not None and flags.web:
        raise SettingsError("--write-page writes a file and --web serves one; take one of them")
    others = {
        "--broker": flags.broker != THIS_MACHINE,
        "--fleet": flags.fleet,
        "--cafile": flags.cafile,
        "--certfile": flags.certfile,
        "--keyfile": flags.keyfile,
        "--once": flags.once,
        "--prometheus": flags.prometheus,
        "--home-assistant": flags.home_assistant,
    }
    if given := [name for name, value in others.items() if value]:
        raise SettingsError(
            f"--direct and --write-page go without {' and '.join(given)}: the browser connects by "
            "itself, with certificates of its own"
        )


def show_runs(flags: argparse.Namespace, console: Output) -> None:
    """Serve the page of recorded runs until told to end, or write their rounds as a table."""
    if flags.csv or flags.parquet:
        from edge_coordinator.monitor.rounds_table import write_tables

        write_tables(flags.runs, csv_file=flags.csv, parquet_file=flags.parquet)
        return
    if flags.json:
        from edge_coordinator.monitor.rounds_table import rounds_of

        console.answer({"rounds": rounds_of(flags.runs)})
        return
    require_page()
    from edge_coordinator.monitor.web.recorded import serve_records
    from edge_coordinator.monitor.web.serving import Address

    serving = serve_records(
        flags.runs,
        address=Address(flags.bind, flags.port),
        say=_Said(console, opens=not flags.no_open),
    )
    _run(serving, end_with_stdin=False)


def _tls(flags: argparse.Namespace) -> TlsFiles:
    return TlsFiles(flags.cafile, flags.certfile, flags.keyfile)


def require_page() -> None:
    """SettingsError if the page's server cannot run here."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the page needs {' and '.join(missing)}, not installed here: "
            "pip install 'cpsl-edge[web]'"
        )


def _run(serving: Coroutine[None, None, None], *, end_with_stdin: bool) -> None:
    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        call_on_signals([signal.SIGTERM], task.cancel)
        if end_with_stdin:
            call_at_end_of_input(task.cancel)
        await serving

    try:
        asyncio.run(serve())
    except* (KeyboardInterrupt, asyncio.CancelledError):
        pass  # That is how one stops serving.


class _Said:
    """Tells where the page is; where there is a display, it opens."""

    def __init__(self, console: Output, *, opens: bool = False) -> None:
        self._console = console
        self._opens = opens and has_display()

    def __call__(self, text: str) -> None:
        """Print a line at once, for who waits for it in a pipe."""
        _, is_address, url = text.partition("page: ")
        self._console.quiet = self._console.is_json  # Where it is is what was asked for.
        self._console.say(text, "page" if is_address else "", {"url": url})
        self._console.file.flush()
        if is_address and self._opens:
            # A browser may take its time to start, or to end.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _said(console: Output) -> Callable[[str, str, Mapping[str, Any]], None]:
    """Tell where something is served at once, for who waits for it in a pipe."""

    def say(words: str, name: str, fields: Mapping[str, Any]) -> None:
        console.quiet = console.is_json
        console.say(words, name, fields)
        console.file.flush()

    return say


def has_display() -> bool:
    """Whether a browser's window has somewhere to open."""
    return sys.platform in {"darwin", "win32"} or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
