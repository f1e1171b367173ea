"""The fast path for whole text frames behaves as Autobahn alone."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.wire.websocket import CLOSE_HANDSHAKE_SECONDS, ChannelProtocol
from tests.hostile.inprocess import MESSAGE_BYTES, InProcess, RecordedProtocol, SlowProtocol
from tests.hostile.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    header,
    mask,
)

MOST = 6 * MESSAGE_BYTES + 65536

texts = st.sampled_from(
    [
        b"{}",
        b"x",
        b"please close",
        b"please pause",
        "žluť 漢字 🎉".encode(),
        b"a" * 125,
        b"a" * 126,
        b"b" * 700,
    ]
) | st.text(max_size=40).map(str.encode)
wrong_texts = st.sampled_from(
    [b"\xff", b"\xc3", b"ok \xed\xa0\x80", b"\xf4\x90\x80\x80", b"x" * 200 + b"\xe2\x82", b"\xc0\xaf"]
)
good_frames = texts.map(lambda text: frame(TEXT, text))
other_frames = st.one_of(
    st.binary(max_size=10).map(lambda data: frame(PING, data)),
    st.binary(max_size=10).map(lambda data: frame(PONG, data)),
    st.binary(max_size=10).map(lambda data: frame(BINARY, data)),
    st.tuples(texts, st.integers(0, 12)).map(
        lambda both: frame(TEXT, both[0][: both[1]], fin=False) + frame(CONTINUATION, both[0][both[1] :])
    ),
    texts.map(lambda text: frame(TEXT, text[:3], fin=False) + frame(PING) + frame(CONTINUATION, text[3:])),
)
bad_frames = st.one_of(
    wrong_texts.map(lambda text: frame(TEXT, text)),
    wrong_texts.map(lambda text: frame(TEXT, text, fin=False)),
    texts.map(lambda text: frame(TEXT, text, masked=False)),
    texts.map(lambda text: frame(TEXT, text, rsv=4)),
    texts.map(lambda text: header(TEXT, len(text), length_bytes=2) + mask(text)),
    texts.map(lambda text: header(TEXT, len(text), length_bytes=8) + mask(text)),
    st.integers(0, 15).map(lambda opcode: frame(opcode, b"x")),
    st.sampled_from([0, 999, 1000, 1005, 1007, 3000, 5000]).map(close_frame),
    wrong_texts.map(lambda text: close_frame(1000, text)),
    st.sampled_from([frame(CLOSE), frame(CLOSE, b"x"), frame(PING, bytes(126)), frame(TEXT)]),
    st.sampled_from([MOST, MOST + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1]).map(
        lambda size: header(TEXT, size) + mask(b"some of it")
    ),
    st.binary(max_size=12),
)
# Mostly good frames, so that the fast path is taken before and after the others.
streams = st.lists(good_frames | good_frames | other_frames | bad_frames, max_size=12).map(b"".join)


class FastPathTests(unittest.SynchronousTestCase):
    def transcript(self, kind: type[ChannelProtocol], chunks: list[bytes]) -> list[object]:
        """The visible result of these chunks: bytes written, calls of the handler, states."""
        connection = InProcess(kind).open()
        recorder = connection.recorder
        transcript: list[object] = []
        for chunk in chunks:
            connection.receive(chunk)
            transcript.append((connection.written(), list(recorder.events), connection.protocol.state))
        transport = connection.transport
        transcript.append((transport.disconnecting, transport.aborted, transport.producerState))
        connection.clock.advance(CLOSE_HANDSHAKE_SECONDS + 0.5)
        transcript.append((connection.written(), transport.disconnecting, transport.aborted))
        return transcript

    def check(self, stream: bytes, cuts: list[int]) -> None:
        places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
        chunks = [stream[start:stop] for start, stop in itertools.pairwise(places) if stop > start]
        self.assertEqual(self.transcript(RecordedProtocol, chunks), self.transcript(SlowProtocol, chunks))

    @settings(max_examples=150, deadline=None)
    @given(streams, st.lists(st.integers(0, 5000), max_size=8))
    # The peer's close frame comes with texts that were sent before it knew of ours.
    @example(frame(TEXT, b"please close") + frame(TEXT, b"x") + close_frame(1000), [])
    def test_same_as_autobahn(self, stream: bytes, cuts: list[int]) -> None:
        """The same frames give the same bytes and the same end, however the stream is cut."""
        self.check(stream, cuts)

    @settings(max_examples=15, deadline=None)
    @given(st.lists(good_frames | other_frames | bad_frames, max_size=4).map(b"".join))
    def test_every_cut(self, stream: bytes) -> None:
        """The stream cut at each byte."""
        self.check(stream[:400], list(range(400)))

    def test_the_fast_path_is_taken(self) -> None:
        """Without it the tests above would compare Autobahn with itself."""
        taken: list[bytes] = []

        class Watched(RecordedProtocol):
            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                taken.append(payload)
                super().onMessage(payload, isBinary)

        connection = InProcess(Watched).open()
        connection.receive(frame(TEXT, b"{}") * 3)
        self.assertEqual((connection.recorder.events, taken), ([b"{}"] * 3, []))
