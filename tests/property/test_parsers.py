"""Whatever bytes a parser is given, the answer is what was written, or a typed error: never wrong, never anything else."""

from __future__ import annotations

import base64
import json
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records import DIGEST, EXAMPLES, KINDS, ROWS, encode_row, encode_rows, forge_frame, forge_list
from vds.errors import CorruptionError, FormatError, InvalidInputError
from vds.files.cachetree import parse_range
from vds.files.localmanifest import LocalManifest, read_facts
from vds.files.place import Target
from vds.files.record import RECORD_PATH, find_record
from vds.model.fields import TEXT_BYTES_MAX, Fields, parse_fields
from vds.model.lockfile import parse_lock
from vds.model.manifest import FRAME_ROWS_MAX, MAGIC, ChangeListEncoder, ChangeRow, decode_change_list, iter_changes
from vds.model.path import PATH_BYTES_MAX, SEGMENT_BYTES_MAX, entry_path
from vds.model.version import LABELS_MAX, RECORD_BYTES_MAX, canonical_json
from vds.model.webtoken import claims_of

REFUSED = (CorruptionError, FormatError)
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(EXAMPLES)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
HOSTILE: list[Any] = [
    *(True, False, None, -1, 0, 1.0, 1e300, 2**53, 2**63 - 1, 2**63, 10**16, 10**4000, float("inf"), float("nan")),
    *("", "x", "\0", "\ud800", "../x", "/x", "a\\b", "é" * TEXT_BYTES_MAX, "b3:", "2026-03-01T12:00Z", "2026-03-01T12:00:00Z"),
    *([], {}, [[]], {"": ""}, {"a": 1}, {"a": "\0"}, {"\ud800": "a"}, {"\0": "a"}, {"a": {"a": "a"}}, [1], ["a"], [[1]]),
    *([[3, 1]], [[0, 1]], [[1, 2], [2, 3]], [[1, 2**63]], [["a", "b"]], {str(number): "x" for number in range(LABELS_MAX + 1)}),
]
"""What may stand in any field."""


def answer(parse: Callable[[bytes], Any], body: bytes) -> Any:
    """Return what a parser makes of these bytes, or None when it refuses them as it should."""
    try:
        return parse(body)
    except REFUSED as err:
        return None if err.message and err.hint else err


def check_meaning(kind: str, body: bytes) -> Any:
    """Check that a record is refused, or says exactly what stands in its bytes; return it."""
    found = answer(KINDS[kind].decode, body)
    if found is not None:
        again = json.loads(found.encode())
        assert again == {name: value for name, value in json.loads(body).items() if name in again}
        assert KINDS[kind].decode(found.encode()) == found
    return found


class TestRecords:
    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_what_was_written_is_read(self, kind: str, record: Any) -> None:
        body = record.encode()
        assert KINDS[kind].decode(body) == record
        assert KINDS[kind].decode(body).encode() == body

    @pytest.mark.parametrize("kind", KINDS)
    @given(body=st.binary(max_size=300))
    def test_any_bytes(self, kind: str, body: bytes) -> None:
        assert answer(KINDS[kind].decode, body) is None

    @pytest.mark.parametrize("kind", KINDS)
    @given(value=json_values)
    def test_any_json(self, kind: str, value: Any) -> None:
        assert answer(KINDS[kind].decode, json.dumps(value).encode()) is None

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_anything_in_any_field(self, kind: str, record: Any) -> None:
        """Nothing but CorruptionError and FormatError comes out, and what is believed is what stands there."""
        raw = json.loads(record.encode())
        for place in places(raw):
            for value in HOSTILE:
                check_meaning(kind, dump(replaced(raw, place, value)))

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_a_missing_field_is_named(self, kind: str, record: Any) -> None:
        raw = json.loads(record.encode())
        for name in raw:
            with pytest.raises(CorruptionError, match=f"{name} is missing"):
                KINDS[kind].decode(canonical_json({key: value for key, value in raw.items() if key != name}))

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_a_flipped_bit_in_each_byte(self, kind: str, record: Any) -> None:
        """What is believed says what the bytes say: the chain of digests tells such a record from the one that was written."""
        body = record.encode()
        for position in range(len(body)):
            flipped = body[:position] + bytes([body[position] ^ 1 << position * 5 % 8]) + body[position + 1 :]
            assert check_meaning(kind, flipped) != record

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_every_cut_and_every_byte_too_many(self, kind: str, record: Any) -> None:
        body = record.encode()
        is_chained = kind != "format"
        for position in range(len(body)):
            cut = answer(KINDS[kind].decode, body[:position])
            assert cut is None or (not is_chained and position == len(body) - 1)  # the line feed at its end
            for byte in (b"\0", b" ", b"\n", b'"', b"1", b"\xff"):
                longer = body[:position] + byte + body[position:]
                found = check_meaning(kind, longer)
                assert found is None or found != record or not is_chained

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_json_that_is_not_as_vds_writes_it(self, kind: str, record: Any) -> None:
        body = record.encode()
        raw = json.loads(body)
        first = next(iter(raw))
        twice = b'{"%s":%s,' % (first.encode(), json.dumps(raw[first]).encode()) + body[1:]
        others = {
            "another encoding": body.decode().encode("utf-16"),
            "a byte order mark": b"\xef\xbb\xbf" + body,
            "a field twice": twice,
            "a field twice inside": body.replace(b'"labels":{', b'"labels":{"split":"x",').replace(
                b'"index":{', b'"index":{"host":"",'
            ),
            "deep nesting": b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            "a number of many digits": body[:-2] + b',"zzz":' + b"1" * 5000 + b"}\n",
            "an infinity": body[:-2] + b',"zzz":1e999}\n',
            "half of a pair": body[:-2] + b',"zzz":"\\ud800"}\n',
            "no number": body[:-2] + b',"zzz":NaN}\n',
            "two lines": body + body,
            "nothing": b"",
        }
        if kind != "format":  # nothing is chained to that one
            others |= {
                "spaces": json.dumps(raw, sort_keys=True, ensure_ascii=False).encode() + b"\n",
                "another order": canonical_json(raw).replace(b"{", b'{"zzz":0,', 1),
                "escapes": json.dumps(raw, sort_keys=True, separators=(",", ":")).replace("a", "\\u0061", 1).encode() + b"\n",
            }
        for what, other in others.items():
            if other == body or (kind == "format" and what in ("an infinity", "half of a pair")):
                continue
            with pytest.raises(CorruptionError):
                KINDS[kind].decode(other)

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_what_a_newer_vds_writes(self, kind: str, record: Any) -> None:
        raw = json.loads(record.encode())
        assert KINDS[kind].decode(canonical_json({**raw, "zzz": ["new"]})) is not None  # a field more is let through
        if kind == "format":
            raw |= {"min_writer": 2}
        newer = canonical_json({**raw, "format": 2})
        with pytest.raises(FormatError, match="format 2") as caught:
            KINDS[kind].decode(newer)
        assert caught.value.hint == "pip install --upgrade vds"

    @pytest.mark.parametrize(("kind", "record"), EXAMPLES, ids=IDS)
    def test_a_record_of_the_greatest_size(self, kind: str, record: Any) -> None:
        raw = json.loads(record.encode())
        room = RECORD_BYTES_MAX - len(canonical_json({**raw, "zzz": ""}))
        largest = canonical_json({**raw, "zzz": "x" * room})
        assert len(largest) == RECORD_BYTES_MAX
        assert KINDS[kind].decode(largest) is not None
        with pytest.raises(CorruptionError, match=f"the limit is {RECORD_BYTES_MAX}"):
            KINDS[kind].decode(canonical_json({**raw, "zzz": "x" * (room + 1)}))


def places(raw: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where the fields of an object are, those of objects inside too."""
    for name, value in raw.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from places(value, (*above, name))


def replaced(raw: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return an object with another value in one place."""
    name, *rest = place
    return {**raw, name: replaced(raw[name], tuple(rest), value) if rest else value}


def dump(raw: dict[str, Any]) -> bytes:
    """Return an object as the canonical writer would, where it can."""
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    return text.encode(errors="surrogatepass")


class TestFields:
    def fields(self, value: Any) -> Fields:
        return Fields({"x": value}, "the record")

    @pytest.mark.parametrize("value", [True, False, None, 1.0, "1", [1], {}, -1, 11])
    def test_numbers(self, value: Any) -> None:
        assert [self.fields(number).number("x", 0, 10) for number in (0, 10)] == [0, 10]
        with pytest.raises(CorruptionError, match=r"the record: x is .*, expected a whole number from 0 to 10"):
            self.fields(value).number("x", 0, 10)

    def test_texts(self) -> None:
        assert self.fields("é" * 5).text("x", 10) == "ééééé"
        for value in ("é" * 5 + "a", "\ud800", "a\0", 1, None, ["a"]):
            with pytest.raises(CorruptionError, match="the record: x is "):
                self.fields(value).text("x", 10)
        assert self.fields("x" * TEXT_BYTES_MAX).text("x")
        with pytest.raises(CorruptionError, match=f"the limit is {TEXT_BYTES_MAX}"):
            self.fields("x" * (TEXT_BYTES_MAX + 1)).text("x")

    def test_an_inner_field_is_named_whole(self) -> None:
        with pytest.raises(CorruptionError, match=r"the record: x\.y\.z is missing"):
            self.fields({"y": {}}).inner("x").inner("y").text("z")

    def test_errors_are_short(self) -> None:
        for value in ("x" * 100_000, ["x" * 100_000] * 100, {"a" * 100_000: "b"}, 10**4000):
            with pytest.raises(CorruptionError) as caught:
                self.fields(value).number("x")
            assert len(caught.value.message) < 500

    def test_its_own_limit(self) -> None:
        assert parse_fields(b"{}", "it", bytes_max=2).raw == {}
        with pytest.raises(CorruptionError, match="it has 3 bytes, the limit is 2"):
            parse_fields(b"{} ", "it", bytes_max=2)


class TestChangeLists:
    DATA, SUM = encode_rows(ROWS)

    def refused(self, data: bytes, digest: bytes, match: str = "change list") -> None:
        with pytest.raises(CorruptionError, match=match) as caught:
            decode_change_list(data, digest)
        assert caught.value.hint

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        for body in (data, MAGIC + data):
            if body != MAGIC:
                self.refused(body, DIGEST)

    @given(st.data())
    def test_any_frame_with_a_right_sum(self, data: st.DataObject) -> None:
        u32 = st.integers(0, 2**32 - 1) | st.integers(0, 5000)
        rows_z, times_z = data.draw(st.binary(max_size=99)), data.draw(st.binary(max_size=99))
        self.refused(MAGIC + forge_frame(data.draw(u32), data.draw(u32), rows_z, times_z), DIGEST)

    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    def test_any_rows_with_right_sums(self, rows: list[bytes]) -> None:
        data, digest = forge_list(rows)
        try:
            found = decode_change_list(data, digest)
        except CorruptionError:
            return
        assert [row.path for row in found] == sorted({entry_path(row.path) for row in found}, key=str.encode)

    def test_every_flipped_bit(self) -> None:
        for position in range(len(self.DATA)):
            for bit in range(8):
                flipped = self.DATA[:position] + bytes([self.DATA[position] ^ 1 << bit]) + self.DATA[position + 1 :]
                self.refused(flipped, self.SUM)

    def test_every_cut_and_every_byte_too_many(self) -> None:
        for position in range(len(self.DATA) + 1):
            if position < len(self.DATA):
                self.refused(self.DATA[:position], self.SUM)
            for byte in (b"\0", b"\x01", b"\xff"):
                self.refused(self.DATA[:position] + byte + self.DATA[position:], self.SUM)

    @given(st.lists(st.integers(0, len(DATA)), max_size=8))
    def test_pieces_may_be_cut_anywhere(self, cuts: list[int]) -> None:
        ends = sorted({*cuts, len(self.DATA)})
        pieces = [self.DATA[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        assert list(iter_changes([*pieces, b""], self.SUM, count=len(ROWS))) == ROWS
        assert list(iter_changes((bytes([byte]) for byte in self.DATA), self.SUM)) == ROWS

    @pytest.mark.parametrize(
        "path",
        [
            *(
                b"../x",
                b"a/../b",
                b"..",
                b".",
                b"a/./b",
                b"/etc/passwd",
                b"a//b",
                b"a/",
                b"",
                b"a\\..\\b",
                b"a\0b",
                b"a\nb",
                b"\x7f",
            ),
            *("\x85".encode(), "e\u0301".encode(), b"\xff", b"\xed\xa0\x80", b"\xc0\xae\xc0\xae/x", b"x" * 256),
            *(b"/".join([b"x" * 200] * 6), b"C:\\x", b"\\\\host\\share"),
        ],
    )
    @pytest.mark.parametrize("kind", [0, 1, 2])
    def test_no_path_is_smuggled_in(self, path: bytes, kind: int) -> None:
        self.refused(*forge_list([encode_row(path, kind)]))
        self.refused(*forge_list([encode_row(b"!"), encode_row(path, kind)]))

    def test_the_longest_path(self) -> None:
        longest = b"/".join([b"x" * 200] * 4 + [b"y" * 220])
        assert len(longest) == PATH_BYTES_MAX
        assert decode_change_list(*forge_list([encode_row(longest)]))[0].path == longest.decode()
        self.refused(*forge_list([encode_row(longest + b"y")]), match="claims 1 rows of 1068 bytes")
        self.refused(*forge_list([encode_row(longest + b"y"), encode_row(b"z")]), match="1025 bytes long")
        segment = b"x" * SEGMENT_BYTES_MAX
        assert decode_change_list(*forge_list([encode_row(segment)]))[0].path == segment.decode()
        self.refused(*forge_list([encode_row(segment + b"x")]), match="segment of 256 bytes")

    @pytest.mark.parametrize("frames", [[b"b", b"a"], [b"a", b"a"], [b"b", b"B"]])
    def test_rows_must_be_sorted_and_each_path_come_once(self, frames: list[bytes]) -> None:
        rows = [encode_row(path) for path in frames]
        self.refused(*forge_list(rows), match="not sorted")
        self.refused(*forge_list(rows[:1], rows[1:]), match="not sorted")  # across frames, too
        assert len(decode_change_list(*forge_list([encode_row(b"a")], [encode_row(b"b")]))) == 2

    def test_kinds_and_sizes(self) -> None:
        self.refused(*forge_list([encode_row(b"a", kind=3)]), match="unknown kind")
        assert decode_change_list(*forge_list([encode_row(b"a", size_bytes=2**63 - 1)]))[0].size_bytes == 2**63 - 1
        self.refused(*forge_list([encode_row(b"a", size_bytes=2**63)]), match="bytes")
        self.refused(*forge_list([encode_row(b"a")[:-1]]), match="no content")
        self.refused(*forge_list([encode_row(b"a") + b"x"]), match="end at byte")
        self.refused(*forge_list([b"\x05\x00\x00a"]), match="end at byte")  # a path that is longer than its frame

    def test_counts_are_as_announced(self) -> None:
        for count in (len(ROWS) - 1, len(ROWS) + 1, 0):
            with pytest.raises(CorruptionError, match="rows"):
                list(iter_changes([self.DATA], self.SUM, count=count))
        rows = [encode_row(b"a"), encode_row(b"b")]
        body = b"".join(rows)
        for count in (1, 3):
            forged = MAGIC + forge_frame(count, len(body), zlib.compress(body), zlib.compress(bytes(8 * count)))
            self.refused(forged, DIGEST)
        self.refused(MAGIC + forge_frame(0, 0, zlib.compress(b""), zlib.compress(b"")), DIGEST, match="claims 0 rows")

    def test_a_compressed_part_is_one_whole_stream(self) -> None:
        rows, times = encode_row(b"a"), bytes(8)
        whole_rows, whole_times = zlib.compress(rows), zlib.compress(times)
        digest = forge_list([rows])[1]
        assert decode_change_list(MAGIC + forge_frame(1, len(rows), whole_rows, whole_times), digest)
        changes: list[Callable[[bytes], bytes]] = [lambda part: part + b"x", lambda part: part[:-4], lambda part: part + part]
        for change in changes:
            self.refused(MAGIC + forge_frame(1, len(rows), change(whole_rows), whole_times), digest, match="inflates")
            self.refused(MAGIC + forge_frame(1, len(rows), whole_rows, change(whole_times)), digest, match="inflates")

    def test_a_frame_has_its_limit_of_rows(self) -> None:
        rows = [encode_row(b"%06d" % number) for number in range(FRAME_ROWS_MAX + 1)]
        assert len(decode_change_list(*forge_list(rows[:-1]))) == FRAME_ROWS_MAX
        self.refused(*forge_list(rows), match=f"claims {FRAME_ROWS_MAX + 1} rows")

    def test_no_claim_makes_it_ask_for_memory(self) -> None:
        """A frame may say 4 GiB, and a compressed megabyte may hold a gigabyte: neither is waited for, or made."""
        bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
        claims = [
            forge_frame(4096, 4_000_000, bomb, zlib.compress(bytes(8 * 4096))),
            forge_frame(4096, 4_000_000, zlib.compress(bytes(4_000_000)), bomb),
            b"\xff" * 24,
            b"\x01\0\0\0" + b"\xff" * 20,
            *(struct.pack("<IIIIQ", 4096, 4_000_000, *sizes, 0) for sizes in ((2**32 - 1, 9), (9, 2**32 - 1))),
        ]
        asked = 0

        def endless(head: bytes) -> Iterator[bytes]:
            nonlocal asked
            yield head
            while True:
                asked += 1
                yield bytes(65536)

        for claim in claims:
            tracemalloc.start()
            try:
                with pytest.raises(CorruptionError):
                    list(iter_changes(endless(MAGIC + claim), DIGEST))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 24 * 1024 * 1024
        assert asked < 500

    def test_a_long_list_is_read_in_little_memory(self) -> None:
        """Five times as many rows take no more memory: the list is 11 MB of rows, made as it is read."""

        def rows(count: int) -> Iterator[ChangeRow]:
            return (ChangeRow(f"{'d' * 200}/{number:08d}", DIGEST, number, 0o644, number) for number in range(count))

        peaks = []
        for count in (9_000, 45_000):
            digest = ChangeListEncoder()
            for _ in digest.frames(rows(count)):
                pass
            tracemalloc.start()
            try:
                found = sum(1 for _ in iter_changes(ChangeListEncoder().frames(rows(count)), digest.digest, count=count))
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert found == count
        assert peaks[1] < 1.2 * peaks[0] < 24 * 1024 * 1024

    def test_rows_come_before_the_end_is_known_and_the_end_is_checked(self) -> None:
        rows = iter_changes([self.DATA], DIGEST)
        assert [next(rows) for _ in ROWS] == ROWS
        with pytest.raises(CorruptionError, match="has digest"):
            next(rows)


row_paths = st.text(st.sampled_from("ab/.é日 -"), min_size=1, max_size=9).filter(lambda text: not bad_path(text))


def bad_path(text: str) -> bool:
    try:
        return entry_path(text) != text
    except InvalidInputError:
        return True


@given(
    st.dictionaries(
        row_paths,
        st.none()
        | st.tuples(
            st.binary(min_size=32, max_size=32),
            st.integers(0, 2**63 - 1),
            st.sampled_from([0o644, 0o755]),
            st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=20,
    )
)
def test_change_lists_round_trip(contents: dict[str, tuple[bytes, int, int, int] | None]) -> None:
    rows = [
        ChangeRow(path, None, 0, 0, 0) if content is None else ChangeRow(path, *content)
        for path, content in sorted(contents.items(), key=lambda item: item[0].encode())
    ]
    data, digest = encode_rows(rows)
    assert decode_change_list(data, digest) == rows


class TestFilesOfThisMachine:
    @given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
    def test_lock_files(self, text: str) -> None:
        for body in (text, "format = 1\n" + text, f'format = 1\n[refs."a:b"]\n{text}'):
            with suppress(InvalidInputError, FormatError):
                parse_lock(body, "vds.lock")

    @pytest.mark.parametrize(
        "text",
        [
            "x = " + "[" * 100_000,
            "x = " + "{a=" * 100_000,
            "x = " + "1" * 5000,
            "format = " + "1" * 4000,
            "format = true",
            "format = nan",
            "a." * 1000 + "b = 1",
            'format = 1\n[refs."a:b"]\nstore = "' + "x" * 5000 + '"\nurl = ' + "9" * 4000,
        ],
    )
    def test_hostile_lock_files(self, text: str) -> None:
        with pytest.raises((InvalidInputError, FormatError)) as caught:
            parse_lock(text, "vds.lock")
        assert len(caught.value.message) < 10_000

    @given(st.binary(max_size=200))
    @settings(max_examples=50)
    def test_what_a_checkout_wrote_down(self, body: bytes) -> None:
        header = b'{"vds_checkout":2,"uri":"u","complete":true,"digest":"","allow":null,"ignore":null}\n'
        with tempfile.TemporaryDirectory() as root, Target(root) as target:
            file = Path(root) / RECORD_PATH
            file.parent.mkdir()
            for text in (body, header + body):
                file.write_bytes(text)
                answer(lambda _: find_record(target), text)

    @given(st.binary(max_size=200))
    @settings(max_examples=50)
    def test_local_manifests(self, body: bytes) -> None:
        with tempfile.TemporaryDirectory() as root:
            file = Path(root) / "m"
            file.write_bytes(body)
            with pytest.raises(CorruptionError):
                LocalManifest(file)
            assert read_facts(file) is None

    @given(st.text(st.sampled_from("0123456789-.x٣²"), max_size=45) | st.text(max_size=20))
    def test_names_of_cached_ranges(self, name: str) -> None:
        found = parse_range(name)
        if found is not None:
            start, length = map(int, name.split("-"))
            assert found == (start, start + length)
            assert name.isascii()

    @given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: f"a.{raw.hex()}.b"))
    def test_claims_of_tokens(self, token: str) -> None:
        assert isinstance(claims_of(token), dict)

    def test_a_deep_token(self) -> None:
        payload = base64.urlsafe_b64encode(b"[" * 200_000).decode()
        assert claims_of(f"a.{payload}.b") == {}
