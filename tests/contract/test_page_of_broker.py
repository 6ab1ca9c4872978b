"""The page that asks the broker itself: who is let in, and a broker that comes and goes."""

import base64
import hashlib
from pathlib import Path

import pytest

from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.published import DeviceStatus
from tests.outside.browser import Page, find_browser
from tests.outside.mosquitto import Listeners, make_certificate, mosquitto
from tests.outside.watched_site import opened, page_of_broker, publish
from tests.sites import NOW_S, TOPICS

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian's package `chromium`)"
)
HERE = DeviceStatus(state="online", session="s", since_unix_s=NOW_S, engine="torch")
SECRET = "a secret"  # noqa: S105
TROUBLE = "document.querySelector('#trouble').innerText.includes({!r})"
DEVICES = "document.querySelectorAll('#devices-table tbody tr').length == {}"


async def _sign_in(page: Page, user: str, password: str) -> None:
    fill = "document.querySelector('#{}').value = {!r};"
    await page.evaluate(fill.format("user", user) + fill.format("password", password))
    await page.evaluate("document.querySelector('#sign-in-form button').click()")


async def test_who_has_to_sign_in_does_so_on_the_page_and_hears_what_they_may(
    tmp_path: Path,
) -> None:
    certificate, key = await make_certificate(tmp_path)
    salt = b"0123456789ab"
    digest = hashlib.sha512(SECRET.encode() + salt).digest()
    hashed = "$".join(base64.b64encode(part).decode() for part in (salt, digest))
    users = ("first", "agents", "watcher")
    (tmp_path / "users").write_text("".join(f"{user}:$6${hashed}\n" for user in users))
    (tmp_path / "rights").write_text(
        "user agents\ntopic readwrite cpsl/#\n"
        f"user watcher\ntopic read {TOPICS.every_device('status')}\n"
    )
    async with (
        mosquitto(
            tmp_path,
            user=f"first:{SECRET}",
            of_web=f"certfile {certificate}\nkeyfile {key}",
            of_all=f"allow_anonymous false\npassword_file {tmp_path / 'users'}\n"
            f"acl_file {tmp_path / 'rights'}",
        ) as at,
        await MqttBus.connect(
            f"mqtt://agents:a%20secret@{at.plain}", client_id="a", wait=True
        ) as bus,
        page_of_broker(at.web, scheme="wss") as url,
        opened("about:blank") as page,
    ):
        await publish(bus, TOPICS.status("a"), HERE)
        await page.call("Security.setIgnoreCertificateErrors", ignore=True)
        await page.open(url)
        await page.until(TROUBLE.format("The broker asks who you are."))
        await _sign_in(page, "watcher", "another")
        await page.until(TROUBLE.format("The broker refused watcher: a wrong name or password"))
        await _sign_in(page, "watcher", SECRET)
        await page.until(DEVICES.format(1))
        assert await page.text("#trouble") == ""
        assert await page.evaluate("location.href") == url
        assert await page.evaluate("document.querySelector('#password').value") == ""
        assert page.complaints == []


async def test_a_broker_that_comes_late_or_goes_is_told_of(tmp_path: Path) -> None:
    at = Listeners.free()
    async with page_of_broker(at.web) as url, opened(url) as page:
        await page.until(TROUBLE.format(f"out of reach (nothing at ws://{at.web}/mqtt answers"))
        async with (
            mosquitto(tmp_path, at=at),
            await MqttBus.connect(f"mqtt://{at.plain}", client_id="a", wait=True) as bus,
        ):
            await publish(bus, TOPICS.status("a"), HERE)
            await page.until(DEVICES.format(1))
            assert await page.text("#trouble") == ""
        await page.until(TROUBLE.format("out of reach"))
        assert await page.evaluate(DEVICES.format(1))
