"""Ctrl-C and SIGTERM that end a command at once, also while compiled code runs."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextlib.contextmanager
def ended_by_signals(last_words: str, note: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside this context, end the process as soon as Ctrl-C or SIGTERM arrives, with one line on standard error.

    Python runs its own handlers only between two instructions of the main thread, and so not while XLA compiles or
    computes, which may take minutes. Here a thread waits for the signals and ends the process, without cleaning up:
    files must be whole at any time. Outside the main thread this does nothing.

    **Arguments:** `last_words`: a sentence for that line, e.g. what is kept; `note`: takes that line, too.

    The exit code is 128 plus the number of the signal, as shells report it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that the parent process ignores, as `nohup` and shell scripts do for their jobs, stays ignored.
    names = {number: name for number, name in _NAMES.items() if signal.getsignal(number) != signal.SIG_IGN}
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def wait() -> None:
        with reader:
            # Python tells of every signal that has a handler. At the end of the context there is no more to read.
            while arrived := reader.recv(1):
                if name := names.get(signal.Signals(arrived[0])):
                    line = f"stopped by {name}. {last_words}"
                    sys.stderr.write(f"\nwgf: {line}\n")
                    sys.stderr.flush()
                    if note is not None:
                        note(line)
                    os._exit(128 + arrived[0])

    with contextlib.ExitStack() as stack:
        stack.callback(writer.close)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False))
        for number in names:
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        threading.Thread(target=wait, daemon=True).start()
        yield
