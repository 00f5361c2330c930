"""Stopping by a signal."""

import signal

import pytest

from ppmtl.train import stopping
from ppmtl.train.stopping import StopSignal


def test_a_signal_is_noted_and_its_repetition_at_once_is_the_same_one():
    with StopSignal() as signals:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert signals.number == signal.SIGTERM


def test_a_later_signal_has_its_usual_effect(monkeypatch):
    monkeypatch.setattr(stopping, "_SAME_SECONDS", -1.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    try:
        with StopSignal() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert signals.number == signal.SIGTERM
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
