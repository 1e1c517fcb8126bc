"""Media types: how they are written, and which ranges they are in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.media_types import MAX_MEDIA_TYPE, essence_of, is_media_range, matches, normalize

NAMES = st.text(st.sampled_from("!#$%&'+-.^_`|~09AZaz"), min_size=1, max_size=8)
TOKENS = st.text(st.sampled_from("!#$%&'*+-.^_`|~09AZaz"), min_size=1, max_size=8)
QUOTED = st.text(st.sampled_from(' !#[]~a;=,/é"\\'), max_size=8).map(
    lambda text: '"' + "".join(f"\\{each}" if each in '"\\' else each for each in text if each != "é") + '"'
)
SPACES = st.sampled_from(["", " ", "\t", "  "])
PARAMETERS = st.lists(st.tuples(SPACES, SPACES, st.none() | st.tuples(TOKENS, TOKENS | QUOTED)), max_size=4)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("image/png", "image/png"),
        ("IMAGE/Png", "image/png"),
        ("  text/plain\t", "text/plain"),
        ("text/html;charset=utf-8", "text/html; charset=utf-8"),
        ('text/html ;\tCharset="UTF-8"', 'text/html; charset="UTF-8"'),
        ("text/plain; a=1;B=2 ; c=3", "text/plain; a=1; b=2; c=3"),
        # "[ parameter ]" may be missing.
        ("text/plain;", "text/plain"),
        ("text/plain; ;; a=1;", "text/plain; a=1"),
        (r'a/b; c="\" \\ ;"', r'a/b; c="\" \\ ;"'),
        ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
        ("image/svg+xml", "image/svg+xml"),
        ('a/b; c=""', 'a/b; c=""'),
        ("a/" + "b" * 253, "a/" + "b" * 253),
    ],
)
def test_media_types(text: str, normal: str) -> None:
    assert normalize(text) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        *(None, 5, b"image/png", ["image/png"], "*/*", "image/*", "image/p*", "*/png"),
        *("", "image", "image/", "/png", "/", "image/png/x", "image png", "image /png", "image/ png", "im age/png"),
        *(
            "image/png x",
            "image/png, text/plain",
            "text/plain;a",
            "text/plain;a=",
            "text/plain; =1",
            "text/plain; a =1",
        ),
        *("text/plain; a= 1", 'text/plain; a="', 'text/plain; a="b', 'text/plain; a="\\"', 'text/plain; a="b"c'),
        *(
            "text/plain\r\nX: 1",
            "text/plain; a=1\n",
            'text/plain; a="\n"',
            'text/plain; a="\x00"',
            "text/plain; a=\x7f",
        ),
        *("tëxt/plain", 'text/plain; a="ë"', "text/plain\x00", "text/plain\n", "\ntext/plain"),
        "a/" + "b" * 254,
        # It would be longer written out.
        "text/plain" + ";a=1" * 60,
    ],
)
def test_what_is_no_media_type(text: object) -> None:
    assert normalize(text) is None


@given(NAMES, NAMES, PARAMETERS)
def test_any_media_type_is_written_in_one_way(
    kind: str, subtype: str, parameters: list[tuple[str, str, tuple[str, str] | None]]
) -> None:
    text = f"{kind}/{subtype}"
    normal = text.lower()
    for before, after, parameter in parameters:
        text += f"{before};{after}"
        if parameter is not None:
            text += "=".join(parameter)
            normal += f"; {parameter[0].lower()}={parameter[1]}"
    assert normalize(text) == (normal if len(normal) <= MAX_MEDIA_TYPE else None)


@given(st.text(max_size=40) | st.text(st.sampled_from('aA/;= "\\\t\n*'), max_size=12))
def test_any_text_is_a_media_type_that_stays_what_it_is_or_none(text: str) -> None:
    normal = normalize(text)
    if normal is not None:
        assert normalize(normal) == normal
        assert normal.isascii()
        assert normal.isprintable()
        assert essence_of(text) == essence_of(normal)


@pytest.mark.parametrize("text", ["*/*", "image/*", "text/plain", "IMAGE/PNG", "image/svg+xml"])
def test_ranges(text: str) -> None:
    assert is_media_range(text)


@pytest.mark.parametrize(
    "text", ["", "*", "image", "*/png", "image/p*", "text/plain; a=1", "image/*\n", "a/b/c", "im*/x"]
)
def test_what_is_no_range(text: str) -> None:
    assert not is_media_range(text)


@pytest.mark.parametrize(
    ("media_type", "ranges", "found"),
    [
        ("image/png", ("image/png",), True),
        ("image/png", ("text/plain", "image/*"), True),
        ("image/png", ("*/*",), True),
        ("Image/PNG ; a=1", ("image/png",), True),
        ("image/png", (), False),
        ("image/png", ("image/jpeg", "text/*"), False),
        ("imagery/png", ("image/*",), False),
    ],
)
def test_types_in_ranges(media_type: str, ranges: tuple[str, ...], found: bool) -> None:
    assert matches(media_type, ranges) is found
