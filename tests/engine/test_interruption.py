"""The first Ctrl-C waits a little for the running epochs, the second does not."""

import signal
import time

from ablate.engine import interruption
from ablate.engine.interruption import interruptible


def interrupted(monkeypatch, grace, n):
    """What `stop` was called with, and whether KeyboardInterrupt was raised, after n signals."""
    monkeypatch.setattr(interruption, "GRACE_SECONDS", grace)
    stopped = []
    try:
        with interruptible(lambda: stopped.append("stop") or "waiting for one\ntrial"):
            for _ in range(n):
                signal.raise_signal(signal.SIGINT)
            if grace < 1:
                time.sleep(60)  # as a trial whose epoch goes on
    except KeyboardInterrupt:
        return stopped, True
    return stopped, False


def test_the_first_says_at_once_what_it_waits_for(monkeypatch, capfd):
    assert interrupted(monkeypatch, 60, 1) == (["stop"], False)
    assert capfd.readouterr().err == "ablate: waiting for one\\ntrial\n"
    time.sleep(0.1)  # nothing comes after the block


def test_it_waits_no_longer_than_the_grace(monkeypatch):
    assert interrupted(monkeypatch, 0.05, 1) == (["stop"], True)


def test_the_second_waits_for_nothing(monkeypatch):
    assert interrupted(monkeypatch, 60, 2) == (["stop"], True)


def test_the_handlers_are_those_before_afterwards(monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupted(monkeypatch, 60, 2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
