"""What the commands can be told that look after runs, devices and a running coordinator."""

import argparse
from pathlib import Path

from edge_coordinator.cli.watching_flags import add_broker

_ACTIONS = {
    "pause": "pause the run of a site's coordinator after the present round",
    "continue": "go on with a run that is paused",
    "stop": "end a run after the present round, as if it were its last",
    "replan": "choose the cut anew for the next round",
}


def add_control(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that look after runs."""
    for action, words in _ACTIONS.items():
        parser = commands.add_parser(action, help=words, description=f"{words.capitalize()}.")
        add_broker(parser)
    runs = commands.add_parser(
        "runs",
        help="the runs of a folder, with state and result",
        description="List recorded runs.",
    )
    runs.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR")
    _add_devices(
        commands.add_parser(
            "devices",
            help="list, tag or forget a site's devices",
            description="List the devices of a site, tag them for devices.where of a job, or "
            "forget one that is gone for good.",
        )
    )


def _add_devices(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="list, tag or forget")
    listing = what.add_parser("list", help="every device with its tags")
    tag = what.add_parser("tag", help="give a device tags, or take them away")
    tag.add_argument("device", metavar="ID")
    tag.add_argument(
        "tags", nargs="+", metavar="KEY=VALUE", help="such as room=lab; room= takes it away"
    )
    forget = what.add_parser("forget", help="clear all that a device has retained")
    forget.add_argument("device", metavar="ID")
    for each in (listing, tag, forget):
        add_broker(each)
