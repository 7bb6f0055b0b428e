"""Makes rpc/lorad_pb2.py, its types and rpc/lorad_pb2_grpc.py from rpc/lorad.proto.

Usage: .venv/bin/python scripts/stubs.py [--check]      --check changes nothing and ends with 1 where they are out of date.

Needs grpcio-tools (extra dev): stubs ask for at least the versions of grpcio and protobuf that made them.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTO = "rpc/lorad.proto"
NAMES = ("lorad_pb2.py", "lorad_pb2.pyi", "lorad_pb2_grpc.py")
HEAD = "# Made by scripts/stubs.py of lorad.proto; edit that instead.\n# ruff: noqa\n# fmt: off\n# mypy: ignore-errors\n"


def stubs() -> dict[Path, str]:
    """File -> what it should hold."""
    import grpc_tools
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        known = Path(grpc_tools.__file__).parent / "_proto"
        words = ["protoc", f"-I{ROOT}", f"-I{known}", f"--python_out={folder}", f"--pyi_out={folder}", f"--grpc_python_out={folder}", PROTO]
        if protoc.main(words):
            raise SystemExit(f"protoc refuses {PROTO}")
        return {ROOT / "rpc" / name: HEAD + (Path(folder) / "rpc" / name).read_text() for name in NAMES}


def stale() -> list[Path]:
    """Stubs that are not what the proto says."""
    return [path for path, text in stubs().items() if not path.exists() or path.read_text() != text]


def main(words: list[str]) -> int:
    """Write the stubs, or with --check say which are out of date."""
    made = stubs()
    old = stale()
    for path in old:
        if words == ["--check"]:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/stubs.py")
        else:
            path.write_text(made[path])
    return 1 if old and words == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
