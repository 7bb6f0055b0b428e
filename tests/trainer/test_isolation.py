"""A trainer has no network, and its parent keeps it."""

import os
import socket
import subprocess
import sys

import pytest

CODE = """
import socket, sys
from trainer import isolation
if sys.argv[2] == "guarded":
    isolation._unshare = lambda: False
how = isolation.leave_network()

def reach(host, port):
    try:
        with socket.create_connection((host, port), timeout=5):
            return "reached"
    except PermissionError as error:
        return "refused by Python"
    except OSError as error:
        return "unreachable"

own = socket.create_server(("127.0.0.1", 0))
print(how, reach("127.0.0.1", int(sys.argv[1])), reach("127.0.0.1", own.getsockname()[1]), reach("192.0.2.1", 9), sep="|")
try:
    socket.getaddrinfo("example.com", 80)
    print("looked up")
except PermissionError:
    print("refused by Python")
except OSError:
    print("unknown")
"""


@pytest.fixture
def service() -> socket.socket:
    """Something that the parent can reach."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening  # type: ignore[misc]


def child(service: socket.socket, how: str) -> list[str]:
    """How it left, whether it reached the parent's service, its own service, another machine, and the name service."""
    port = service.getsockname()[1]
    done = subprocess.run([sys.executable, "-c", CODE, str(port), how], capture_output=True, text=True, check=True, timeout=60)
    told, looked_up = done.stdout.splitlines()
    with socket.create_connection(("127.0.0.1", port), timeout=5):  # the parent still can
        return [*told.split("|"), looked_up]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="whether a user may make namespaces hangs on the machine")
def test_in_a_namespace_of_its_own_a_child_reaches_itself_alone(service: socket.socket) -> None:
    assert child(service, "none") == ["none", "unreachable", "reached", "unreachable", "unknown"]


def test_where_no_namespace_may_be_made_python_refuses_all_but_loopback(service: socket.socket) -> None:
    assert child(service, "guarded") == ["guarded", "reached", "reached", "refused by Python", "refused by Python"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_gets_a_namespace_by_way_of_a_user_namespace(service: socket.socket) -> None:
    code = CODE.replace("import isolation\n", "import isolation\nimport encodings.idna, os\nos.setgid(65534); os.setuid(65534)\n", 1)
    code += 'print(os.getuid(), len(os.listdir("/etc")) > 0)\n'
    done = subprocess.run([sys.executable, "-c", code, str(service.getsockname()[1]), "none"], capture_output=True, text=True, check=True, timeout=60)
    told, _, who = done.stdout.splitlines()
    if told.startswith("guarded"):
        pytest.skip("this kernel gives no user namespaces")
    assert told == "none|unreachable|reached|unreachable"
    assert who == "65534 True"
