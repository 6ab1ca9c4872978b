"""The file that `cpsl-agent` takes its flags from."""

from pathlib import Path

import pytest

from device_agent.__main__ import main
from device_agent.command_line import build_parser
from device_agent.settings_file import with_file


def test_a_file_says_flags_and_the_command_line_says_more(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        '\N{BYTE ORDER MARK}broker = "mqtt://a"\nid = ["a", "b"]\ndata = "digits"\n'
        "wait = true\nthreads = 2\n"
        'cafile = "ca.pem"\npublish-labels = false\n'
    )
    words = with_file(["--config", str(file), "--broker", "mqtt://b"], build_parser())
    flags = build_parser().parse_args(words)
    assert flags.broker == "mqtt://b"
    assert flags.id == ["a", "b"]
    assert (flags.wait, flags.threads, flags.publish_labels) == (True, 2, False)
    assert flags.cafile == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("brokre = 1", "'brokre' is no flag of cpsl-agent"),
        ("id = {}", "write a string, a number, true or a list"),
        ("id =", "is not TOML"),
        (None, "no such file"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(
    text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(file)])
    assert sentence in capsys.readouterr().err
