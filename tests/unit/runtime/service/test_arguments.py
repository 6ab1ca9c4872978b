"""What a parser says of arguments that it cannot take."""

import pytest

from device_agent.command_line import build_parser as build_agent_parser
from edge_coordinator.cli.flags import build_parser


@pytest.mark.parametrize("url", ["mqtt://anna:s3cret@edge", "mqtts://anna:s3/cr@et@edge:8883"])
def test_a_url_in_the_wrong_place_is_shown_without_its_password(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = ["--broker", "mqtt://a", "--id", "a", "--data", "digits"]
    parsers = ((build_parser(), ["monitor"]), (build_agent_parser(), agent))
    for parser, words in parsers:
        with pytest.raises(SystemExit):
            parser.parse_args([*words, url])
        said = capsys.readouterr().err
        assert "unrecognized arguments: mqtt" in said
        assert "anna:***@edge" in said
        assert "s3" not in said
