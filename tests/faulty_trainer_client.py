"""Stands for a trainer forked elsewhere, and imports little, to start fast: SOCKET FAULTS.json RUN.json [--segment].

The fork writes to this process's output. Where either is killed the other one goes too.
"""

import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, ["\0".join(sys.argv[2:]).encode()], [1, 2])
    status = int(server.recv(64) or b"9")  # nothing: who forked it is gone, and so is the fork
if os.WIFSIGNALED(status):
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.waitstatus_to_exitcode(status))
