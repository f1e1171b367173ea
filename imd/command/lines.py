"""Lines that somebody types in a terminal, or that come through a pipe; read in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from twisted.internet.threads import blockingCallFromThread

from imd.command.output import Output


class Lines:
    """`send` is called in the reactor's thread with each line; the next one is read when its Deferred fires.

    `ended` is called there with None at the end of the input, or with the exception that ended it.
    """

    def __init__(
        self,
        reactor: Any,
        output: Output,
        input: TextIO,
        interactive: bool,
        send: Callable[[str], Any],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._reactor = reactor
        self._output = output
        self._input = input
        self._interactive = interactive
        self._send = send
        self._ended = ended
        self._typing = False

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def say_above(self, text: str, style: str) -> None:
        """A line above the one that is being typed."""
        if self._typing:
            self._output.stream.write("\r\x1b[K")
        self._output.line(text, style)
        if self._typing:
            import readline

            self._output.stream.write(f"> {readline.get_line_buffer()}")
            self._output.stream.flush()

    # in the thread

    def _read(self) -> None:
        error: Exception | None = None
        try:
            for line in self._typed() if self._interactive else self._input:
                if line.strip():
                    blockingCallFromThread(self._reactor, cast(Any, self._send), line.rstrip("\n"))
        except Exception as problem:
            error = problem
        self._reactor.callFromThread(self._ended, error)

    def _typed(self) -> Iterator[str]:
        # With readline there, input() edits lines. However it ends, the terminal must be as it was.
        import readline  # noqa: F401
        import termios

        before = termios.tcgetattr(self._input)

        def put_back() -> None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, before)
            # The cursor is behind the prompt.
            print(file=self._output.stream, flush=True)

        self._reactor.addSystemEventTrigger("after", "shutdown", put_back)
        while True:
            self._typing = True
            try:
                line = input("> ")
            except EOFError:
                return
            finally:
                self._typing = False
            yield line
