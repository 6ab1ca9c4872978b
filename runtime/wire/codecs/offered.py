"""Which codecs there are, by the names that a job and a message give them.

`fp32`, `fp16`, `bf16`, `int8`, `int4`, `topk:F` and `randtopk:F` with a fraction F; and after any
of them `+zlib`.
"""

from dataclasses import dataclass
from functools import cache

from runtime.errors import SettingsError
from runtime.wire.codecs.codec import Codec, Fp32
from runtime.wire.codecs.floats import Bf16, Fp16
from runtime.wire.codecs.integers import Integers
from runtime.wire.codecs.names import RAW
from runtime.wire.codecs.sparse import RandomTopK, TopK

LOSSLESS = "+zlib"
KNOWN = "fp32, fp16, bf16, int8, int4, topk:F or randtopk:F (F a fraction, as 0.1)"
DENSE: tuple[Codec, ...] = (Fp32(), Bf16(), Fp16(), Integers(8), Integers(4))
"""Those that keep all values."""

_BY_NAME = {codec.name: codec for codec in DENSE}
_SPARSE = {"topk": TopK, "randtopk": RandomTopK}


@dataclass(frozen=True)
class Choice:
    """A codec, and whether a frame is compressed on top of it."""

    codec: Codec
    is_deflated: bool

    @property
    def is_sparse(self) -> bool:
        """Whether it leaves values out."""
        return isinstance(self.codec, TopK)

    @property
    def is_raw(self) -> bool:
        """Whether tensors travel as they are."""
        return self.codec.name == RAW and not self.is_deflated


@cache
def choice_of(name: str) -> Choice:
    """Look a codec up; SettingsError if there is none of the name."""
    base = name.removesuffix(LOSSLESS)
    kind, _, fraction = base.partition(":")
    if base in _BY_NAME:
        return Choice(_BY_NAME[base], base != name)
    if kind in _SPARSE and 0 < _number(fraction) < 1:
        return Choice(_SPARSE[kind](_number(fraction)), base != name)
    if kind in _SPARSE:
        raise SettingsError(
            f"{name!r} does not say how much it keeps: after {kind}: comes a fraction above 0 and "
            f"below 1, as {kind}:0.1"
        )
    raise SettingsError(
        f"no codec is named {name!r}; there are {KNOWN}, each also with {LOSSLESS} after it"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
