"""What the commands that watch can be told, and a coordinator for those who do."""

import argparse
from pathlib import Path

THIS_MACHINE = "mqtt://127.0.0.1"


def add_watching(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that watch."""
    _add_monitor(
        commands.add_parser(
            "monitor",
            help="watch a site: devices, plan, progress",
            description="Watch a site by what is published there: every device with its measured "
            "figures, the plan with its reasons, predicted against measured. Publishes nothing.",
        )
    )
    show = commands.add_parser(
        "show",
        help="a recorded run in the browser; several: compared",
        description="Show what a run has written down in the same page that `cpsl monitor --web` "
        "serves; of several runs, the curves and totals side by side.",
    )
    show.add_argument("--csv", type=Path, metavar="FILE", help="write all rounds there; - prints")
    show.add_argument("--parquet", type=Path, metavar="FILE", help="write all rounds there")
    show.add_argument("runs", type=Path, nargs="+", metavar="RUNDIR", help="as runs/2026…")
    _add_page(show)


def _add_monitor(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_broker(parser)
    add("--once", action="store_true", help="print it once; fails if there is nothing")
    add("--web", action="store_true", help="serve a page for the browser instead")
    add_companions(parser)
    _add_page(parser)
    add(
        "--direct",
        metavar="URL",
        help="with --web: the page connects by itself to this listener of the broker, "
        "ws://host:port or wss://…, and asks for user and password",
    )
    add(
        "--write-page",
        type=Path,
        metavar="FILE",
        help="write the page as one file that connects by itself (to --direct, or to the host that "
        "serves it), and end",
    )
    add("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)


def add_broker(parser: argparse._ActionsContainer) -> None:
    """Add which site, and how to get there."""
    add = parser.add_argument
    add(
        "--broker",
        default=THIS_MACHINE,
        metavar="URL",
        help="mqtt://[user:password@]host[:port], mqtts, ws or wss://… (this machine's)",
    )
    add("--site", default="default", metavar="NAME", help="that of the coordinator and the agents")
    add("--fleet", type=Path, metavar="DIR", help="a fleet's folder, or one's bundle of it")
    add("--cafile", type=Path, help="whom to trust, for mqtts")
    add("--certfile", type=Path, help="client certificate")
    add("--keyfile", type=Path, help="its key")


def _add_page(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=port, help="of the page (8420; if that is taken, a free one)")
    add(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where the page is served (127.0.0.1); elsewhere whoever reaches it sees it",
    )
    add("--no-open", action="store_true", help="do not open the page, though there is a display")


def add_companions(parser: argparse.ArgumentParser) -> None:
    """Add what is served to other tools."""
    parser.add_argument(
        "--prometheus",
        type=_address,
        metavar="[ADDRESS:]PORT",
        help="serve /metrics there (127.0.0.1 without an address)",
    )
    parser.add_argument(
        "--home-assistant",
        nargs="?",
        const="homeassistant",
        metavar="PREFIX",
        help="tell Home Assistant of the devices, on its discovery topics (homeassistant/…)",
    )


def add_spans(parser: argparse.ArgumentParser) -> None:
    """Add where spans go; without, nothing is recorded."""
    parser.add_argument(
        "--spans",
        metavar="URL|FILE",
        help="record each step as OpenTelemetry spans: for http://HOST:4318 (OTLP), or a file",
    )


def port(text: str) -> int:
    """Take the number of a port."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port; they go up to 65535, 0 is a free one"
        )
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", port(number)
