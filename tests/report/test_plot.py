"""Plots are well-formed SVG with correct positions."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.report.plot import Curve, Plot, short_number, svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(**facts: object) -> ElementTree.Element:
    values = {"title": "T", "x_label": "x", "y_label": "y", **facts}
    return ElementTree.fromstring(svg(Plot(**values)))  # type: ignore[arg-type]


def circles(element: ElementTree.Element, radius: str = "3") -> list[tuple[float, float]]:
    found = [one for one in element.iter(f"{SVG}circle") if one.get("r") == radius]
    return [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in found]


def test_each_point_is_a_dot_and_higher_is_higher() -> None:
    (first, second, third) = circles(drawn(curves=(Curve(name="a", points=((1, 5), (2, 10), (4, 0))),), log_x=True))
    assert first[0] < second[0] < third[0]
    assert second[1] < first[1] < third[1]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)


def test_names_are_escaped() -> None:
    words = [one.text for one in drawn(curves=(Curve(name="<a & b>", points=((1, 1),)),)).iter(f"{SVG}text")]
    assert "<a & b>" in words


def test_a_level_a_ring_and_a_cross_are_drawn() -> None:
    element = drawn(
        curves=(Curve(name="a", points=((1, 5), (2, 3))),), level=(8.0, "ceiling"), marked=((1.0, 5.0),), failed=(3.0,)
    )
    assert len(circles(element, "7")) == 1
    assert circles(element, "7")[0] == circles(element)[0]
    assert "ceiling" in [one.text for one in element.iter(f"{SVG}text")]
    assert any(one.get("stroke") == "#d00000" for one in element.iter(f"{SVG}path"))


def test_nothing_is_no_plot() -> None:
    assert svg(Plot(title="T", x_label="x", y_label="y", curves=())) == ""


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 1e12)), min_size=1, max_size=20))
def test_whatever_is_drawn_lies_on_the_paper(points: list[tuple[int, float]]) -> None:
    for log_x in (False, True):
        for x, y in circles(drawn(curves=(Curve(name="a", points=tuple(points)),), log_x=log_x)):
            assert 60 <= x <= 560
            assert 10 <= y <= 260


@given(st.floats(0, 1e15))
def test_ticks_start_at_nothing_and_reach_the_most(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-1] >= most * (1 - 1e-9)
    assert 2 <= len(found) <= 8


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (512, "512"), (2048, "2048"), (12000, "12k"), (1.5e6, "1.5M"), (2e9, "2G")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert short_number(value) == words
