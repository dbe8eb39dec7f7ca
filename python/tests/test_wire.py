"""Control frames and process helpers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import msgspec

from gust_child import osproc, wire


def framed(body: object) -> bytes:
    payload = msgspec.msgpack.encode(body)
    return len(payload).to_bytes(4, "big") + payload


def test_a_command_arrives_with_its_descriptors() -> None:
    ours, theirs = socket.socketpair()
    order = {"op": "fork", "rid": 7, "kind": "task", "env": {"A": "b"}}
    with open(os.devnull) as handed:  # noqa: PTH123
        socket.send_fds(ours, [framed(order)], [handed.fileno()])
    received = wire.receive(theirs)
    assert received is not None
    command, fds = received
    assert command == wire.Fork(rid=7, kind="task", env={"A": "b"})
    assert len(fds) == 1
    os.close(fds[0])


def test_the_owners_end_is_no_command() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    assert wire.receive(theirs) is None


def test_a_frame_cut_short_or_too_large_is_an_end() -> None:
    for data in (b"\x00\x00\x00\x09abc", (wire.MAX_FRAME_BYTES + 1).to_bytes(4, "big")):
        ours, theirs = socket.socketpair()
        ours.sendall(data)
        ours.close()
        assert wire.receive(theirs) is None


def test_a_kill_reaches_a_descendant_in_its_own_session() -> None:
    script = (
        "import subprocess, time\n"
        "below = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print(below.pid, flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        below = int(child.stdout.readline())
        assert osproc.descendants(child.pid) == [below]
        osproc.kill_tree(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_a_process_at_work_ends_with_its_socket_and_not_with_a_word_on_it() -> None:
    script = (
        "import socket\n"
        "from gust_child import osproc\n"
        "control = socket.socket(fileno=0)\n"
        "with osproc.ending_with(control):\n"
        "    print('at work', flush=True)\n"
        "    while True:\n"
        "        sum(range(1000))\n"
    )
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs.fileno(), stdout=subprocess.PIPE
    ) as child:
        theirs.close()
        assert child.stdout is not None
        assert child.stdout.readline() == b"at work\n"
        ours.sendall(b"a word")
        assert child.poll() is None
        ours.close()
        assert child.wait(60) == 137
