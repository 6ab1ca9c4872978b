"""Which targets a loss compares with which outputs, one by one, and which with none."""

from runtime.errors import SettingsError

Shape = tuple[int, ...]

IGNORED = -100
"""The label of a place in a sample, a pixel or a word, that counts for nothing, as torch has it."""


def target_shape(outputs: Shape, targets: Shape) -> Shape:
    """The shape that targets take to be subtracted from outputs, both [sample, ...].

    They are the same, or differ by axes of one value: targets [sample] fit outputs [sample, 1].
    Anything else would be compared crosswise, and is a SettingsError.
    """
    if [size for size in outputs[1:] if size > 1] != [size for size in targets[1:] if size > 1]:
        raise SettingsError(
            f"this loss compares outputs and targets one by one: outputs of shape {outputs} and "
            f"targets of shape {targets} do not match; give the network as many outputs as a "
            "sample has targets"
        )
    return outputs
