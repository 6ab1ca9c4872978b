"""Pictures of the page, taken by Chromium of a real run in its midst.

    python -m docs.pictures.draw_page [FOLDER]

Writes page-light.png, which is in README, page-phone.png, in docs/watching.md, and page-dark.png.
"""

import argparse
import asyncio
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.programs import CPSL, Program
from tests.outside.browser import Page, browser_page, find_browser

ROUNDS_SEEN = 30
RUN = (*CPSL, "local", "--scenario", "mixed", "--web", "--web-port", "0", "--no-open")
HAS_MAP = (
    "document.querySelector('#map-what').textContent.includes('done in') "
    f"&& document.querySelector('#progress').value >= {ROUNDS_SEEN}"
)


async def take_pictures() -> dict[str, bytes]:
    """Start a run, watch it for a while, and take the pictures."""
    with tempfile.TemporaryDirectory() as place:
        program = await Program.start(*RUN, cwd=Path(place))
        try:
            url = (await program.until("page: ")).removeprefix("page: ").strip()
            reading = asyncio.create_task(program.end())
            async with browser_page() as page:
                return await _taken(page, url)
        finally:
            program.process.terminate()
            await reading


async def _taken(page: Page, url: str) -> dict[str, bytes]:
    await page.window(1280, 1180)
    await page.scheme("light")
    await page.open(url)
    await page.until(HAS_MAP, timeout_s=300)
    light = await page.picture()
    await page.scheme("dark")
    await _drawn(page)
    dark = await page.picture()
    await page.window(390, 844, is_phone=True)
    await page.evaluate("document.querySelector('#map').scrollIntoView()")
    await _drawn(page)
    for complaint in page.complaints:
        sys.stderr.write(f"{complaint}\n")
    return {"light": light, "dark": dark, "phone": await page.picture()}


async def _drawn(page: Page) -> None:
    """Wait until the page was drawn anew, and then once more."""
    frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    await page.evaluate(f"{frame}.then(() => {frame})")


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/pictures"))
    folder = parser.parse_args().folder
    if find_browser() is None:
        raise SystemExit("this needs Chromium (Debian's package `chromium`)")
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in asyncio.run(take_pictures()).items():
        with Image.open(BytesIO(picture)) as drawn:  # Flat colours: a palette is a third as long.
            drawn.convert("RGB").quantize(128).save(folder / f"page-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
