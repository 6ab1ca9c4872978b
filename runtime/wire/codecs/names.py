"""Which codec each kind of tensor travels by, in messages: names alone, without NumPy."""

from runtime.wire.fields import Message, Token

RAW = "fp32"


class TurnCodecs(Message):
    """How each kind of tensor travels in a turn, by the names of codecs."""

    model: Token = RAW
    smashed: Token = RAW
    gradient: Token = RAW
    weights: Token = RAW

    @property
    def names(self) -> tuple[str, ...]:
        """Each of them, in the order of the fields."""
        return (self.model, self.smashed, self.gradient, self.weights)

    @property
    def is_raw(self) -> bool:
        """Whether everything travels as it is."""
        return set(self.names) == {RAW}
