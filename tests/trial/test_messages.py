"""Messages between doctor and guardian arrive as they were sent, in whatever pieces."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.trial.guardian import child
from vllm_doctor.trial.guardian.messages import MAXIMUM_BYTES, Closed, Receiver, send

field = st.binary(max_size=200).map(lambda b: b.replace(b"\0", b"x"))
message = st.lists(field, min_size=1, max_size=8)


@given(st.lists(message, min_size=1, max_size=8))
def test_messages_arrive_whole_and_in_order(messages: list[list[bytes]]) -> None:
    reading, writing = os.pipe()
    for each in messages:
        send(writing, *each)
    os.close(writing)
    arrived: list[list[bytes]] = []
    receiver = Receiver(reading)
    with pytest.raises(Closed):
        while True:
            arrived += receiver.receive()
    os.close(reading)
    assert arrived == messages


def test_a_message_larger_than_the_pipe() -> None:
    reading, writing = os.pipe()
    large = [b"start", b"x" * 2**20, b"end"]
    sender = threading.Thread(target=send, args=(writing, *large))
    sender.start()
    receiver = Receiver(reading)
    arrived: list[list[bytes]] = []
    while not arrived:
        arrived = receiver.receive()
    sender.join()
    os.close(reading)
    os.close(writing)
    assert arrived == [large]


@given(st.binary(min_size=1, max_size=64))
def test_garbage_ends_or_waits_but_never_raises_anything_else(garbage: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, garbage)
    os.close(writing)
    receiver = Receiver(reading)
    with pytest.raises(Closed):
        while True:
            receiver.receive()
    os.close(reading)


def test_a_length_that_no_launch_has_is_refused() -> None:
    reading, writing = os.pipe()
    os.write(writing, (MAXIMUM_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(Closed):
        Receiver(reading).receive()
    os.close(reading)
    os.close(writing)


def test_writing_to_nobody_is_closed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(Closed):
        send(writing, b"stop")
    os.close(writing)


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
names = words.filter(lambda name: name and "=" not in name)


@given(st.lists(words, min_size=1, max_size=5), st.dictionaries(names, words, max_size=5))
def test_a_launch_is_read_as_it_was_written(argv: list[str], environment: dict[str, str]) -> None:
    launch = child.Launch(child.message("/tmp/x", "", "M=1", argv, environment))
    assert launch.words == [os.fsencode(word) for word in argv]
    assert launch.environment == {os.fsencode(k): os.fsencode(v) for k, v in environment.items()}
    assert (launch.folder, launch.where, launch.marker) == ("/tmp/x", b"", b"M=1")
