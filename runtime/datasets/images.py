"""One image from a file, whatever its mode: grey or colour, as bytes.

The rules, so that equal pictures give equal numbers however they were stored:

- Grey of 16 bits is divided by 257, so that 65535 becomes 255; whole numbers beyond that range are
  refused. Pillow reads colour of 16 bits by its upper byte.
- Floats are 0 to 1 and become 0 to 255; others are refused, for nobody knows their range.
- What is transparent lies on white, be it by an alpha channel, a palette or a colour that stands
  for it. Palettes, CMYK and the like become the colours that they mean.
- The orientation that a camera wrote beside the pixels is applied.
- Of several pictures in a file the first counts.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.distribution import install_hint
from runtime.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}
"""Number of channels to what Pillow calls it."""
STEP_OF_16_BITS = 257
_WHOLE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ROUNDING = 0.5 / 255
"""Floats may lie so far outside 0 to 1: they become the same bytes."""


class UnreadableImageError(ValueError):
    """A file is no image, or one whose values have no stated meaning."""


def read_image(path: Path, *, size: int | None, channels: int) -> NDArray[np.uint8]:
    """One image as bytes [channel, row, column]; UnreadableImageError says what is wrong."""
    pillow = import_pillow()
    from PIL.ImageOps import exif_transpose  # noqa: PLC0415 - only image folders need it

    try:
        with pillow.open(path) as file:
            image = _shown(exif_transpose(file), pillow).convert(MODES[channels])
            if size is not None:
                image = image.resize((size, size), pillow.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
    except Exception as error:  # A damaged file makes Pillow raise nearly anything.
        raise UnreadableImageError(_reason(error)) from error
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def image_as_bytes(image: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - Pillow's, which may lack
    """One image of Pillow's as bytes [channel, row, column], by the same rules; grey stays grey."""
    is_grey = image.mode in (*_WHOLE_MODES, "F", "L", "LA", "La", "1")
    shown = _shown(image, import_pillow()).convert(MODES[1 if is_grey else 3])
    pixels = np.asarray(shown, dtype=np.uint8)
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def import_pillow() -> ModuleType:
    """Import Pillow; SettingsError says how to install it."""
    try:
        from PIL import Image  # noqa: PLC0415 - only image folders need it
    except ImportError as error:
        raise SettingsError(f"image folders need pillow: {install_hint('images')}") from error
    return Image


def _shown(image: "Image", pillow: ModuleType) -> "Image":
    return _on_white(_of_bytes(image), pillow)


def _of_bytes(image: "Image") -> "Image":
    """Bring whole numbers of 16 bits and floats to bytes; every other mode has them."""
    if image.mode not in (*_WHOLE_MODES, "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    kind, top = ("float", 1.0) if image.mode == "F" else ("grey", 255.0 * STEP_OF_16_BITS)
    least, most = float(values.min()), float(values.max())
    if not -_ROUNDING * top < least <= most < (1 + _ROUNDING) * top:
        raise UnreadableImageError(
            f"its values run from {least:g} to {most:g}; those of a {kind} image are 0 to {top:g}"
        )
    grey = np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255  # What is transparent lies on white.
    made: Image = import_pillow().fromarray(grey)
    return made


def _on_white(image: "Image", pillow: ModuleType) -> "Image":
    """Lay what is transparent over white."""
    if not image.has_transparency_data:
        return image
    shown = image.convert("RGBA")
    white = pillow.new("RGBA", shown.size, "white")
    composed: Image = pillow.alpha_composite(white, shown)
    return composed


def _reason(error: Exception) -> str:
    """In a few words, without the path, which is named beside it."""
    if isinstance(error, UnreadableImageError):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    return "not an image" if type(error).__name__ == "UnidentifiedImageError" else said.rstrip(": ")
