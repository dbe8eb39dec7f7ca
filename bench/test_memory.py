"""Memory is read of living processes and of their children."""

from __future__ import annotations

import os
import subprocess
import sys

from memory import family, pss_mb, tree_mb

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"


def test_a_child_belongs_to_the_family_and_its_memory_counts() -> None:
    command = [sys.executable, "-c", WAIT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        assert {os.getpid(), child.pid} <= family([os.getpid()])
        assert sum(tree_mb([child.pid]).values()) > 1
        child.communicate("")


def test_a_process_that_is_gone_holds_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert pss_mb(child.pid) == 0.0
    assert tree_mb([child.pid]) == {}
