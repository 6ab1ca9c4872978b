"""The flags of `cpsl fleet`."""

import argparse
from pathlib import Path

from edge_coordinator.cli.watching_flags import port

_SETTING_HELP = "one more flag of cpsl-agent, as --setting max-memory=300MB; again for more"


def add_fleet(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `fleet` and its actions; `action` of what is parsed names one."""
    parser = commands.add_parser(
        "fleet",
        help="certificates, rights and bundles for a site of real devices",
        description="A secured site from one command: an authority, a Mosquitto configuration with "
        "TLS and an access list, and a bundle for each device.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = _action(actions, "init", "make an authority, a broker's configuration and identities")
    add = init.add_argument
    add("--host", action="append", required=True, metavar="NAME",
        help="the broker's name or address, as devices know it; again for more")  # fmt: skip
    add("--port", type=port, default=8883, help="of the broker (8883)")
    add("--site", default="default", metavar="NAME", help="part of every topic (default)")
    add("--days", type=_days, default=730, metavar="N", help="a certificate holds (730)")
    add("--seen-at", type=Path, metavar="PATH",
        help="where broker and coordinator see the folder, if in a container")  # fmt: skip
    adding = _action(actions, "add", "let devices in: one bundle for each")
    _names(adding, "device id")
    adding.add_argument("--data", metavar="SOURCE", default="npz:own.npz", help="(npz:own.npz)")
    adding.add_argument("--engine", metavar="NAME", default="onnxruntime", help="(onnxruntime)")
    adding.add_argument("--setting", action="append", default=[], metavar="FLAG=VALUE",
                        help=_SETTING_HELP)  # fmt: skip
    words = "let people in who watch and ask: one bundle for each"
    _names(_action(actions, "add-operator", words), "who")
    _names(_action(actions, "revoke", "take certificates and rights back, at once"), "who")
    rotate = _action(actions, "rotate", "new keys and certificates; the old ones end at once")
    _names(rotate, "who")
    rotate.add_argument("--keep-old", action="store_true",
                        help="let the old ones hold until the next rotate or revoke")  # fmt: skip
    _action(actions, "list", "who is in it, and until when")
    _action(actions, "check", "try the rights of everybody against the running broker")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, words: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the fleet's folder")
    return parser


def _names(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help=what)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 3650")
    return int(text)
