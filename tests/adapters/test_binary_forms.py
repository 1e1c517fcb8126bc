"""Forms, read as they come: whatever their pieces, and whatever is wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtcore_adapters.errors import RefusalError
from rtcore_adapters.multipart import FormEvent, FormReader, PartBegins, PartContinues, PartEnds

TYPE = "multipart/form-data; boundary=edge"


def part(data: bytes, *headers: bytes) -> bytes:
    return b"--edge\r\n" + b"\r\n".join([*headers, b"", data, b""])


def field(name: bytes, value: bytes) -> bytes:
    return part(value, b'Content-Disposition: form-data; name="%s"' % name)


def file(data: bytes, filename: bytes, *headers: bytes) -> bytes:
    return part(data, b'Content-Disposition: form-data; name="file"; filename="%s"' % filename, *headers)


def whole(*parts: bytes) -> bytes:
    return b"".join([*parts, b"--edge--\r\n"])


def read(pieces: Iterable[bytes], content_type: str = TYPE) -> list[FormEvent]:
    """Read a form, and join what its parts' pieces hold."""
    reader = FormReader(content_type)
    events = [event for piece in pieces for event in reader.feed(piece)]
    reader.close()
    joined: list[FormEvent] = []
    for is_data, group in itertools.groupby(events, lambda event: isinstance(event, PartContinues)):
        if is_data:
            joined.append(PartContinues(b"".join(each.data for each in group if isinstance(each, PartContinues))))
        else:
            joined += group
    return joined


def refusal_of(*pieces: bytes, content_type: str = TYPE) -> tuple[int, str]:
    with pytest.raises(RefusalError) as refused:
        read(pieces, content_type)
    return refused.value.refusal.status, refused.value.refusal.code


def test_fields_and_files() -> None:
    form = whole(
        field(b"channel", b"news"),
        file(b"\x89PNG\r\n--edg", "größe.png".encode(), b"Content-Type: image/png"),
        file(b"", b"nothing.txt"),
    )
    assert read([form]) == [
        PartBegins("channel"),
        PartContinues(b"news"),
        PartEnds(),
        PartBegins("file", "größe.png", "image/png"),
        PartContinues(b"\x89PNG\r\n--edg"),
        PartEnds(),
        PartBegins("file", "nothing.txt"),
        PartEnds(),
    ]


def test_no_parts() -> None:
    assert read([b"--edge--"]) == []


def test_what_is_behind_the_last_boundary_says_nothing() -> None:
    form = whole(field(b"channel", b"news"))
    assert read([form, b"more\r\n", field(b"channel", b"sport")]) == read([form])


# A carriage return, a line feed and hyphens are what boundaries are made of.
TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--edge", b"\r\n--edg", b"e", b"x"]), max_size=30)


@given(
    st.lists(TRICKY.map(b"".join).filter(lambda data: b"--edge" not in data), max_size=4),
    st.lists(st.integers(0, 400), max_size=12),
)
@example([b"\r\n--edg"], [5])
def test_cut_anywhere_it_says_the_same(contents: list[bytes], cuts: list[int]) -> None:
    form = whole(*(file(data, b"%d" % number) for number, data in enumerate(contents)))
    expected: list[FormEvent] = []
    for number, data in enumerate(contents):
        expected += [PartBegins("file", str(number)), *([PartContinues(data)] if data else []), PartEnds()]
    edges = sorted({0, len(form), *(cut for cut in cuts if cut < len(form))})
    assert read([form[start:end] for start, end in itertools.pairwise(edges)]) == expected
    assert read([form[index : index + 1] for index in range(len(form))]) == expected


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_whatever_comes_is_read_or_refused(pieces: Sequence[bytes]) -> None:
    reader = FormReader(TYPE)
    with suppress(RefusalError):
        for piece in (b"--edge\r\nContent-", *pieces):
            reader.feed(piece)
        reader.close()


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (b'filename="C:\\\\photos\\\\cat.jpg"', "cat.jpg"),
        (b'filename="a \\"b\\".txt"', 'a "b".txt'),
        (b'filename=""', ""),
        (b"filename=cat.jpg", "cat.jpg"),
        (b"filename*=UTF-8''gr%C3%B6%C3%9Fe%20%282%29.png", "größe (2).png"),
        (b"filename=\"plain.png\"; filename*=utf-8''other.png", "plain.png"),
    ],
)
def test_names(headers: bytes, name: str) -> None:
    form = whole(part(b"", b'Content-Disposition: form-data; name="file"; ' + headers))
    begins = read([form])[0]
    assert isinstance(begins, PartBegins)
    # Folders are for whoever takes the file in to leave out.
    assert begins.filename is not None
    assert begins.filename.rpartition("\\")[2] == name


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/mixed; boundary=edge", "multipart"])
def test_another_type(content_type: str) -> None:
    assert refusal_of(whole(), content_type=content_type) == (415, "unsupported_media_type")


@pytest.mark.parametrize("boundary", ["", "; boundary", "; boundary=", f"; boundary={'x' * 71}", '; boundary="é"'])
def test_a_boundary_that_is_none(boundary: str) -> None:
    assert refusal_of(content_type=f"multipart/form-data{boundary}") == (400, "malformed_form")


@pytest.mark.parametrize("boundary", ["x" * 70, '"with space"', "'()+_,-./:=?"])
def test_boundaries(boundary: str) -> None:
    edge = boundary.strip('"').encode()
    form = b'--%s\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--%s--' % (edge, edge)
    assert read([form], f'multipart/form-data; boundary="{edge.decode()}"') == [
        PartBegins("a"),
        PartContinues(b"1"),
        PartEnds(),
    ]


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"--edge\r\n",
        b"something else",
        b"--edgy\r\n",
        field(b"channel", b"news"),
        part(b"", b"X"),
        part(b"", b"X: 1"),
        part(b"", b"Content-Disposition: attachment; name=a"),
        part(b"", b"Content-Disposition: form-data"),
        part(b"", b"Content-Disposition: form-data; filename=a"),
        part(b"", b"Content-Disposition: form-data; name=a", b"content-disposition: form-data; name=b"),
        part(b"", b'Content-Disposition: form-data; name="\xff"'),
        part(b"", b'Content-Disposition: form-data; name="a"', *(b"X-%d: 1" % each for each in range(20))),
        part(b"", b'Content-Disposition: form-data; name="%s"' % (b"x" * 5000)),
        b"--edge\r\nX: " + b"y" * 100_000,
        b"--edge\r\n" + b"y" * 100_000,
    ],
)
def test_a_form_that_is_none(form: bytes) -> None:
    assert refusal_of(form) == (400, "malformed_form")


def test_too_many_parts() -> None:
    assert len(read([whole(*[field(b"a", b"1")] * 128)])) == 3 * 128
    assert refusal_of(whole(*[field(b"a", b"1")] * 129)) == (413, "too_many_parts")


@pytest.mark.parametrize(("encoding", "is_taken"), [(b"binary", True), (b"8BIT", True), (b"base64", False)])
def test_parts_that_are_encoded(encoding: bytes, is_taken: bool) -> None:
    form = whole(file(b"QUJD", b"a", b"Content-Transfer-Encoding: " + encoding))
    if is_taken:
        assert read([form]) == [PartBegins("file", "a"), PartContinues(b"QUJD"), PartEnds()]
    else:
        assert refusal_of(form) == (415, "unsupported_media_type")


def test_what_clients_send_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert refusal_of(b"--edge\r\n\0") == (400, "malformed_form")
    assert caplog.records == []
