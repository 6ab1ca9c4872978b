"""How plots look."""

from edge_coordinator.run.plot_style import line_style


def test_as_many_lines_as_a_comparison_may_have_all_look_different() -> None:
    styles = [line_style(number) for number in range(35)]
    looks = {(style["color"], style["linestyle"]) for style in styles}
    assert len(looks) == len(styles)
