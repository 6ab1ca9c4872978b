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
        help="the runs of a folder, or the queue of a site, with state and result",
        description="List recorded runs; with --queue, the jobs of a site's coordinator.",
    )
    runs.add_argument("--queue", action="store_true", help="the jobs of a site instead")
    add_broker(runs)
    runs.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR")
    _add_queue(commands)
    _add_devices(
        commands.add_parser(
            "devices",
            help="list, tag, set or forget a site's devices",
            description="List the devices of a site, tag them for devices.where of a job, set how "
            "their agents work, or forget one that is gone for good.",
        )
    )


def add_serving(coordinator: argparse.ArgumentParser) -> None:
    """Add that a coordinator stays, and takes jobs."""
    coordinator.add_argument(
        "--serve",
        action="store_true",
        help="stay, and train the jobs that cpsl submit gives, one after another",
    )


def _add_queue(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    submit = commands.add_parser(
        "submit",
        help="give a job to a site's coordinator that stays up",
        description="Queue a job at cpsl coordinator --serve. Site, broker and the folder of the "
        "runs are that coordinator's own, and paths are of its machine.",
    )
    submit.add_argument("job", type=Path, metavar="JOB.toml", help="the job file")
    submit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the job file, as in --set training.rounds=20",
    )
    cancel = commands.add_parser(
        "cancel",
        help="give up a queued job, or end the one that runs",
        description="Give up a job of a site's queue; one that runs writes down what it has.",
    )
    cancel.add_argument("number", type=int, metavar="N", help="of the job, as cpsl runs --queue")
    for each in (submit, cancel):
        add_broker(each)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="ACTION")
    listing = what.add_parser("list", help="every device with its tags")
    tag = what.add_parser("tag", help="give a device tags, or take them away")
    tag.add_argument("device", metavar="ID")
    tag.add_argument(
        "tags", nargs="+", metavar="KEY=VALUE", help="such as room=lab; room= takes it away"
    )
    setting = what.add_parser(
        "set",
        help="set how a device's agent works, within what its owner allows",
        description="Set how a device's agent works, now and whenever it is back: log-level, "
        "threads (no more than its --threads), min-cut (no earlier than its --min-cut).",
    )
    setting.add_argument("device", metavar="ID")
    setting.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="such as threads=2")
    unset = what.add_parser("unset", help="take settings back: what it was started with holds")
    unset.add_argument("device", metavar="ID")
    unset.add_argument("settings", nargs="+", metavar="KEY", help="such as threads")
    forget = what.add_parser("forget", help="clear all that a device has retained")
    forget.add_argument("device", metavar="ID")
    for each in (listing, tag, setting, unset, forget):
        add_broker(each)
