"""RFC 6455 over a raw socket: the cases of Autobahn's test suite that apply here, by their numbers.

The echo of those cases is `{"type":"ping"}`, which is answered with a pong frame of the protocol. Without
a close code of the node's own, the client closes at the end, and the node answers that.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.hostile.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_frame,
    frame,
    header,
    mask,
)
from tests.hostile.support import HostileCase

ECHO = frame(TEXT, b'{"type":"ping"}')
FIRST = frame(TEXT, b'{"type":', fin=False)
LAST = frame(CONTINUATION, b'"ping"}')
MIDDLE = frame(CONTINUATION, b"  ", fin=False)
HELLO = frame(PING, b"hello")
HELLO_BACK = (PONG, b"hello")
# message_bytes is 4096 on this node: a frame may have six times that and 64 KiB.
MOST = 6 * 4096 + 65536
PROTOCOL, INVALID, TOO_BIG = 1002, 1007, 1009


class Case(NamedTuple):
    """The bytes to send, and the frames that come back before the close frame (see Frame.brief).

    `code` is the node's own close code.
    """

    name: str
    sent: bytes
    answers: list[object]
    code: int | None = None


def padded(size: int) -> bytes:
    """A payload for the echo, of that many bytes."""
    return b'{"type":"ping"}'.ljust(size)


def fragments(payload: bytes, size: int) -> bytes:
    """A text message in fragments of that many bytes."""
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join(
        frame(CONTINUATION if number else TEXT, piece, fin=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )


# 1: text and binary messages of each way to write a length
FRAMING = [
    Case(f"1.1.{number}", frame(TEXT, padded(size)), ["pong"])
    for number, size in ((2, 125), (3, 126), (4, 127), (5, 128), (6, 65535), (7, 65536))
]
FRAMING += [
    Case("1.1.1", frame(TEXT), ["bad_frame"]),
    Case("1.2.1", frame(BINARY), ["bad_frame"]),
    Case("1.2.2", frame(BINARY, b"\xfe" * 125), ["bad_frame"]),
    Case("1.2.7", frame(BINARY, b"\xfe" * 65536), ["bad_frame"]),
    Case("unmasked", frame(TEXT, padded(15), masked=False), [], PROTOCOL),
    Case("unmasked ping", frame(PING, masked=False), [], PROTOCOL),
    Case("length in 2 bytes too many", header(TEXT, 15, length_bytes=2) + mask(padded(15)), [], PROTOCOL),
    Case("length in 8 bytes too many", header(TEXT, 15, length_bytes=8) + mask(padded(15)), [], PROTOCOL),
    Case("length of 2**63", b"\x81\xff\x80" + bytes(7) + mask(b""), [], PROTOCOL),
    Case("length of 2**64 - 1", b"\x81\xff" + b"\xff" * 8 + mask(b""), [], PROTOCOL),
    Case("length of 2**63 - 1", b"\x81\xff\x7f" + b"\xff" * 7 + mask(b""), [], TOO_BIG),
]

# 2: pings and pongs
PINGS = [
    Case("2.1", frame(PING), [(PONG, b"")]),
    Case("2.2", frame(PING, b"Hello, world!"), [(PONG, b"Hello, world!")]),
    Case(
        "2.3", frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), [(PONG, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]
    ),
    Case("2.4", frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)]),
    Case("2.5", frame(PING, b"\xfe" * 126), [], PROTOCOL),
    Case("2.7", frame(PONG), []),
    Case("2.8", frame(PONG, b"unsolicited"), []),
    Case("2.9", frame(PONG, b"unsolicited") + HELLO, [HELLO_BACK]),
    Case(
        "2.10",
        b"".join(frame(PING, b"payload-%d" % number) for number in range(10)),
        [(PONG, b"payload-%d" % number) for number in range(10)],
    ),
    Case("ping of 64 KiB", frame(PING, bytes(65536)), [], PROTOCOL),
    Case("pong of 126 bytes", frame(PONG, bytes(126)), [], PROTOCOL),
    Case("ping of 2**62 bytes", header(PING, 2**62) + mask(b""), [], PROTOCOL),
]

# 3: reserved bits, also that of compressed messages: compression is not offered
RESERVED_BITS = [
    Case(f"3.{rsv}", ECHO + frame(opcode, padded(15), rsv=rsv) + HELLO, ["pong"], PROTOCOL)
    for rsv, opcode in ((1, TEXT), (2, TEXT), (3, TEXT), (4, TEXT), (5, BINARY))
]
RESERVED_BITS += [
    Case("3.6", ECHO + frame(PING, b"x", rsv=6), ["pong"], PROTOCOL),
    Case("3.7", ECHO + frame(CLOSE, b"", rsv=7), ["pong"], PROTOCOL),
    Case("rsv in a continuation", FIRST + frame(CONTINUATION, b'"ping"}', rsv=4), [], PROTOCOL),
]

# 4: reserved opcodes
OPCODES = [
    Case(f"4.1.{number}", ECHO + frame(opcode, b"x" * size) + HELLO, ["pong"], PROTOCOL)
    for number, opcode, size in ((1, 3, 0), (2, 4, 10), (3, 5, 0), (4, 6, 10), (5, 7, 0))
]
OPCODES += [
    Case(f"4.2.{number}", ECHO + frame(opcode, b"x" * size) + HELLO, ["pong"], PROTOCOL)
    for number, opcode, size in ((1, 11, 0), (2, 12, 10), (3, 13, 0), (4, 14, 10), (5, 15, 0))
]

# 5: fragmentation
FRAGMENTS = [
    Case("5.1", frame(PING, b"frag", fin=False) + frame(CONTINUATION, b"ment"), [], PROTOCOL),
    Case("5.2", frame(PONG, b"frag", fin=False) + frame(CONTINUATION, b"ment"), [], PROTOCOL),
    Case("5.3", FIRST + LAST, ["pong"]),
    Case("5.6", FIRST + HELLO + LAST, [HELLO_BACK, "pong"]),
    Case("5.9", frame(CONTINUATION, b"x") + ECHO, [], PROTOCOL),
    Case("5.11", frame(CONTINUATION, b"x") + ECHO, [], PROTOCOL),
    Case("5.12", frame(CONTINUATION, b"x", fin=False) + ECHO, [], PROTOCOL),
    Case("5.15", FIRST + LAST + frame(CONTINUATION, b"x", fin=False) + ECHO, ["pong"], PROTOCOL),
    Case("5.18", FIRST + frame(TEXT, b'"ping"}'), [], PROTOCOL),
    Case("5.19", FIRST + MIDDLE + HELLO + MIDDLE + MIDDLE + HELLO + LAST, [HELLO_BACK, HELLO_BACK, "pong"]),
    Case("binary within a text", FIRST + frame(BINARY, b"x"), [], PROTOCOL),
    Case("empty fragments", FIRST + frame(CONTINUATION, fin=False) * 50 + LAST, ["pong"]),
    Case("an empty first and last one", frame(TEXT, fin=False) + frame(CONTINUATION, padded(15), fin=False)
         + frame(CONTINUATION), ["pong"]),
    Case("close within a message", FIRST + close_frame(), []),
    Case("binary in fragments", frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y"), ["bad_frame"]),
    Case("more pieces than are held apart", fragments(padded(2000), 1), ["pong"]),
    Case("fragments of a control frame's opcode", FIRST + frame(11, b"x"), [], PROTOCOL),
]  # fmt: skip

# 7: closing
VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
CLOSING = [
    Case("7.1.1", ECHO + close_frame(), ["pong"]),
    Case("7.1.2", close_frame() + close_frame(), []),
    Case("7.1.3", close_frame() + HELLO, []),
    Case("7.1.4", close_frame() + ECHO, []),
    Case("7.1.5", FIRST + close_frame() + LAST, []),
    Case("7.1.6", frame(TEXT, padded(MOST)) + ECHO + close_frame() + HELLO, ["pong", "pong"]),
    Case("7.3.1", close_frame(None), []),
    Case("7.3.2", frame(CLOSE, b"a"), [], PROTOCOL),
    Case("7.3.3", close_frame(1000), []),
    Case("7.3.4", close_frame(1000, b"Hello World!"), []),
    Case("7.3.5", close_frame(1000, b"*" * 123), []),
    Case("7.3.6", close_frame(1000, b"*" * 124), [], PROTOCOL),
    Case("7.5.1", close_frame(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"), [], INVALID),
    Case("a reason that ends within a character", close_frame(1000, b"\xce"), [], INVALID),
    Case("a fragmented close", frame(CLOSE, b"\x03\xe8", fin=False), [], PROTOCOL),
]
CLOSING += [Case(f"7.7.{code}", close_frame(code), []) for code in VALID_CODES]
CLOSING += [Case(f"7.9.{code}", close_frame(code), [], PROTOCOL) for code in INVALID_CODES]

# 9 and 10: sizes, and fragments of any size
SIZES = [
    Case("9.1, the most", frame(TEXT, padded(MOST)), ["pong"]),
    Case("9.1, one more", frame(TEXT, padded(MOST + 1)) + HELLO, [], TOO_BIG),
    Case("9.1, only the header", header(TEXT, MOST + 1) + mask(b""), [], TOO_BIG),
    Case("9.2, one more", frame(BINARY, bytes(MOST + 1)), [], TOO_BIG),
    Case("9.2, the most", frame(BINARY, bytes(MOST)), ["bad_frame"]),
    Case("a sum that is too big", fragments(padded(MOST + 1), 30_000), [], TOO_BIG),
    Case("10.1.1", fragments(padded(65536), 1300), ["pong"]),
]
SIZES += [
    Case(f"9.3.{number}", fragments(padded(65536), size), ["pong"])
    for number, size in ((1, 64), (2, 256), (3, 1024), (4, 4096), (5, 16384), (6, 65535))
]


class ConformanceCase(HostileCase):
    def play(self, case: Case, *sent: bytes) -> tuple[list[object], object]:
        """Send these bytes, together or in parts. Returns the frames that come back, and the close code."""
        with RawClient(self.node.port).login() as client:
            client.send(*sent)
            if case.code is None:
                client.send(close_frame())
            came = client.to_the_end()
        if not came or came[-1].opcode != CLOSE:
            return [came.brief for came in came], None
        *answers, code = [came.brief for came in came]
        return answers, code

    def check(self, cases: list[Case], one_byte_at_a_time: bool = False) -> None:
        wrong = []
        for case in cases:
            parts = [case.sent]
            if one_byte_at_a_time:
                parts = [case.sent[index : index + 1] for index in range(len(case.sent))]
            found = self.play(case, *parts)
            if found != (case.answers, case.code or 1000):
                wrong.append((case.name, found))
        self.assertEqual(wrong, [])


class ConformanceTests(ConformanceCase):
    def test_framing(self) -> None:
        """1: lengths, and frames without a mask."""
        self.check(FRAMING)

    def test_pings(self) -> None:
        """2: each ping gets a pong with its payload. A ping that is too long is an error."""
        self.check(PINGS)

    def test_reserved_bits(self) -> None:
        """3: frames before the reserved bit are answered, frames after it are not."""
        self.check(RESERVED_BITS)

    def test_opcodes(self) -> None:
        """4: opcodes without a meaning."""
        self.check(OPCODES)

    def test_fragments(self) -> None:
        """5: only control frames are allowed between fragments."""
        self.check(FRAGMENTS)

    def test_closing(self) -> None:
        """7: a good close is answered with 1000, a bad one with the code of its mistake."""
        self.check(CLOSING)

    def test_sizes(self) -> None:
        """9 and 10: messages up to the limit and not one byte more, however they are cut."""
        self.check(SIZES)

    def test_one_byte_at_a_time(self) -> None:
        """2.6 and 2.11, 5.4 to 5.8: TCP may split the bytes anywhere."""
        short = [*FRAMING, *PINGS, *RESERVED_BITS, *OPCODES, *FRAGMENTS, *CLOSING]
        self.check([case for case in short if len(case.sent) < 300], one_byte_at_a_time=True)


# The texts of the suite's cases 6.5 to 6.23, and whether each is UTF-8.
UTF8: list[tuple[str, bytes, bool]] = [
    ("6.2 κόσµε", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", True),
    ("6.3 a surrogate", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", False),
    ("6.4 above U+10FFFF", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited", False),
    *[(f"6.5 {n} of κόσµε", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"[:n], n in (2, 5, 7, 9))
      for n in range(1, 11)],
    ("6.6 first of 2 bytes", b"\xc2\x80", True),
    ("6.6 first of 3 bytes", b"\xe0\xa0\x80", True),
    ("6.6 first of 4 bytes", b"\xf0\x90\x80\x80", True),
    ("6.6 first of 5 bytes", b"\xf8\x88\x80\x80\x80", False),
    ("6.6 first of 6 bytes", b"\xfc\x84\x80\x80\x80\x80", False),
    ("6.7 last of 1 byte", b"\x7f", True),
    ("6.7 last of 2 bytes", b"\xdf\xbf", True),
    ("6.7 last of 3 bytes", b"\xef\xbf\xbf", True),
    ("6.7 last of 4 bytes", b"\xf4\x8f\xbf\xbf", True),
    ("6.7 last of 5 bytes", b"\xfb\xbf\xbf\xbf\xbf", False),
    ("6.7 last of 6 bytes", b"\xfd\xbf\xbf\xbf\xbf\xbf", False),
    ("6.8 U+110000", b"\xf4\x90\x80\x80", False),
    ("6.9 U+D7FF", b"\xed\x9f\xbf", True),
    ("6.9 U+E000", b"\xee\x80\x80", True),
    ("6.9 U+FFFD", b"\xef\xbf\xbd", True),
    ("6.9 U+10FFFF", b"\xf4\x8f\xbf\xbf", True),
    ("6.10 a continuation", b"\x80", False),
    ("6.10 the last continuation", b"\xbf", False),
    *[(f"6.10 {n} continuations", (b"\x80\xbf" * 4)[:n], False) for n in range(2, 8)],
    ("6.11 lonely starts of 2", b"\xc0 \xc1 \xdf ", False),
    ("6.11 lonely start of 3", b"\xe0 ", False),
    ("6.11 lonely start of 4", b"\xf4 ", False),
    ("6.12 cut short, 2", b"\xc3", False),
    ("6.12 cut short, 3", b"\xe0\xa0", False),
    ("6.12 cut short, 4", b"\xf0\x90\x80", False),
    ("6.14 0xfe", b"\xfe", False),
    ("6.14 0xff", b"\xff", False),
    ("6.15 overlong /, 2", b"\xc0\xaf", False),
    ("6.15 overlong /, 3", b"\xe0\x80\xaf", False),
    ("6.15 overlong /, 4", b"\xf0\x80\x80\xaf", False),
    ("6.16 overlong maximum, 2", b"\xc1\xbf", False),
    ("6.16 overlong maximum, 3", b"\xe0\x9f\xbf", False),
    ("6.16 overlong maximum, 4", b"\xf0\x8f\xbf\xbf", False),
    ("6.17 overlong NUL, 2", b"\xc0\x80", False),
    ("6.17 overlong NUL, 4", b"\xf0\x80\x80\x80", False),
    *[(f"6.18 U+{0xD800 + n:04X}", (b"\xed" + bytes([0xA0 + n // 64, 0x80 + n % 64])), False)
      for n in (0, 0x37F, 0x380, 0x3FF, 0x400, 0x780, 0x7FF)],
    ("6.19 a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80", False),
    ("6.19 another pair", b"\xed\xaf\xbf\xed\xbf\xbf", False),
    *[(f"6.20 U+{n:X}FFFE", (n << 16 | 0xFFFE).to_bytes(4, "little").decode("utf-32-le").encode(), True)
      for n in range(17)],
    *[(f"6.20 U+{n:X}FFFF", (n << 16 | 0xFFFF).to_bytes(4, "little").decode("utf-32-le").encode(), True)
      for n in range(17)],
    ("6.22 U+FDD0", b"\xef\xb7\x90", True),
    ("6.22 U+FDEF", b"\xef\xb7\xaf", True),
    ("6.23 U+FFF9", b"\xef\xbf\xb9", True),
]  # fmt: skip


class Utf8Tests(ConformanceCase):
    """6: UTF-8, in a field that the protocol does not know, so that only the WebSocket checks it."""

    def cases(self, cut: int) -> list[Case]:
        """Each text as a message, in fragments as `cut` makes them."""
        cases = []
        for name, text, valid in UTF8:
            payload = b'{"type":"ping","x":"' + text + b'"}'
            sent = fragments(payload, -(-len(payload) // cut))
            cases.append(Case(name, sent, ["pong"] if valid else [], None if valid else INVALID))
        return cases

    def test_whole(self) -> None:
        """Each text in one frame."""
        self.check(self.cases(1))

    def test_in_two_fragments(self) -> None:
        """Each text in two fragments; the cut may be within a character."""
        self.check(self.cases(2))

    def test_in_fragments_of_a_byte(self) -> None:
        """Each text in fragments of one byte."""
        self.check(self.cases(100))

    def test_only_the_bytes_at_the_end(self) -> None:
        """A message that ends within a character is not UTF-8."""
        self.check(
            [
                Case(name, frame(TEXT, text), ["bad_frame"] if valid else [], None if valid else INVALID)
                for name, text, valid in UTF8
            ]
        )

    def test_fail_fast(self) -> None:
        """6.4: the node fails the connection before the message, or the frame, has ended."""
        wrong = b'{"type":"ping","x":"\xce\xba\xe1\xbd\xb9\xf4\x90'
        self.check([
            Case("6.4.1", frame(TEXT, wrong, fin=False), [], INVALID),
            Case("6.4.3", header(TEXT, 1000) + mask(wrong), [], INVALID),
            Case("6.4.4", header(TEXT, 1000, fin=False) + mask(wrong), [], INVALID),
        ])  # fmt: skip
