"""Writes docs/module-contracts.md and docs/api/ from the source: what every public name takes, gives, raises and touches.

Usage: .venv/bin/python scripts/contracts.py [--check]      --check changes nothing and ends with 1 where they are out of date.

Nothing is imported: the source is read as text. Side effects are found by the calls that cause them (EFFECTS), and followed
through our own functions, and through methods of objects whose class an annotation or an assignment tells. What is called
through a Protocol, a table or a function that is handed in is not seen.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

from sourcetext import ROOT, Module, Name

CONTRACTS = ROOT / "docs" / "module-contracts.md"
API = ROOT / "docs" / "api"
HEAD = "<!-- made by scripts/contracts.py; edit the source instead -->\n\n"
ABOUT = """What every public function takes, gives, raises and touches. The formats of files stand in [formats.md](formats.md), the docstrings
in [api/](api/).

- **raises**: what it or a private function of its module raises, and what its docstring names. Whatever touches files may raise `OSError` besides.
- **side effects**: of the function and of all that it calls, as far as names and annotations tell. What is called through a protocol, a
  table or a function that is handed in is not seen.
"""
EFFECTS = {
    "writes files": (
        *("open:w", "os.replace", "os.rename", "os.link", "os.unlink", "os.mkdir", "os.pwrite", "os.ftruncate", "os.write", "os.posix_fallocate"),
        *("shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree", "shutil.copy2", "shutil.copyfileobj"),
        *(".write_text", ".write_bytes", ".unlink", ".mkdir", ".rmdir", ".touch", ".symlink_to", ".hardlink_to", "os.fsync"),
    ),
    "reads files": (
        *("open:r", "os.listdir", "os.scandir", "os.stat", "os.lstat", "os.pread", "shutil.disk_usage", "os.statvfs"),
        *(".read_text", ".read_bytes", ".iterdir", ".glob", ".rglob", ".lstat", ".is_dir", ".is_file", ".exists"),
    ),
    "starts processes": ("subprocess.Popen", "subprocess.run", "subprocess.check_output"),
    "sends signals": ("os.kill", "os.killpg", ".send_signal", ".terminate", ".kill"),
    "takes locks": ("fcntl.flock", "fcntl.fcntl"),
    "talks to a network": (
        "socket.socket",
        "socket.create_connection",
        "uvicorn.Server",
        "urllib.request.urlopen",
        "urllib.request.build_opener",
        "http.client.HTTPConnection",
    ),
    "starts threads": ("threading.Thread",),
    "reads the clock": ("time.time", "time.monotonic", "datetime.now", "time.perf_counter"),
}
CAUSES = {call: effect for effect, calls in EFFECTS.items() for call in calls}
DOORS = ("store.durable", "store.codec", "store.seals", "store.rotation")  # who calls these has a format of its own
ERROR = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Transition)\b")


class Source:
    """All modules, and the effects that spread through them."""

    def __init__(self) -> None:
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
        paths = sorted(path for package in packages for path in (ROOT / package.replace(".", "/")).glob("*.py") if "_pb2" not in path.name)  # generated
        self._known: dict[str, Name] = {}
        self.modules = [Module.read(path, self._known) for path in paths]
        self._errors = {one.path for one in self._known.values() if ERROR.search(one.signature.partition("(")[2]) and one.is_class}
        self._effects = self._spread()

    def _spread(self) -> dict[Name, set[str]]:
        effects = {name: {CAUSES[call] for call in name.calls if call in CAUSES} for name in self._known.values()}
        callees = {name: {self._known[call] for call in name.calls if call in self._known} - {name} for name in effects}
        for name, found in callees.items():  # making an object runs its __init__
            found |= {made for one in found if one.is_class and (made := one.member("__init__")) is not None}
            callees[name] = {one for one in found if not one.is_class}
        changed = True
        while changed:
            changed = False
            for name, found in callees.items():
                wider = effects[name].union(*(effects[one] for one in found)) if found else effects[name]
                if wider != effects[name]:
                    effects[name], changed = wider, True
        return effects

    def name(self, full: str) -> Name:
        """The function or class of this full name. Raises KeyError."""
        return self._known[full]

    def effects(self, name: Name) -> list[str]:
        """What calling it touches, in the order of EFFECTS."""
        return [effect for effect in EFFECTS if effect in self._effects[name]]

    def raises(self, name: Name) -> list[str]:
        """The errors that it or a private function of its module raises, and those that its docstring names."""
        named = set(ERROR.findall(name.text)) | (self._errors & set(re.findall(r"\w+", name.text.partition("Raises")[2])))
        private = {self._known[call] for call in name.calls if call in self._known}
        inner = {error for one in private if one.module is name.module and not one.is_public for error in self._raised(one)}
        return sorted(named | self._raised(name) | {error for error in inner & self._errors if error not in name.caught})

    def _raised(self, name: Name) -> set[str]:
        found = set()
        for node in ast.walk(name.node):
            if isinstance(node, ast.Raise) and node.exc is not None:
                call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                made = self._known.get(name.module.full(ast.unparse(call)))
                found.add((made.returns if made is not None and not made.is_class else ast.unparse(call)).split(".")[-1])
        return {one for one in found if one[:1].isupper() and one not in ("AssertionError", "NotImplementedError", "NoReturn")}

    def touches_files(self, module: Module) -> bool:
        """Whether the module itself reads or writes files, or has the DOORS do it."""
        calls = {call for name in module.names.values() for call in name.calls}
        own = {CAUSES[call] for call in calls if call in CAUSES}
        doors = {call for call in calls if call in self._known and self._known[call].module.name in DOORS}
        return bool(own & {"writes files", "reads files"}) or any("files" in effect for call in doors for effect in self._effects[self._known[call]])


def contracts(source: Source) -> str:
    """docs/module-contracts.md."""
    text = f"{HEAD}# Module contracts\n\n{ABOUT}"
    for module in source.modules:
        rows = [_row(name, source) for name in module.public if not name.is_class]
        if rows:
            text += f"\n## {module.name}\n\n{module.text.splitlines()[0] if module.text else ''}\n\n"
            text += "| function | args | returns | raises | side effects |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    return text


def _row(name: Name, source: Source) -> str:
    arguments, returns = ", ".join(name.parameters), name.returns
    cells = (
        f"`{name.path}`",
        f"`{arguments}`" if arguments else "-",
        f"`{returns}`",
        ", ".join(source.raises(name)) or "-",
        ", ".join(source.effects(name)) or "-",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def api(source: Source) -> dict[str, str]:
    """Package -> its page under docs/api/."""
    pages: dict[str, str] = {}
    for module in source.modules:
        package = module.name.split(".")[0]
        page = pages.setdefault(package, f"{HEAD}# {package}\n")
        page += f"\n## {module.name}\n\n{module.text}\n"
        for name in module.public:
            page += f"\n### `{name.signature}`\n" + (f"\n{name.text}\n" if name.text else "")
            page += "\n" + "\n".join(name.fields) + "\n" if name.is_class and name.fields else ""
        pages[package] = page
    return pages


def pages(source: Source) -> dict[Path, str]:
    """Every made page with its text."""
    return {CONTRACTS: contracts(source)} | {API / f"{package}.md": text for package, text in api(source).items()}


def stale(made: dict[Path, str]) -> list[Path]:
    """Pages that are missing, out of date, or of a package that is gone."""
    return [path for path, text in made.items() if not path.exists() or path.read_text() != text] + sorted(set(API.glob("*.md")) - made.keys())


def main(words: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    made = pages(Source())
    old = stale(made)
    if words == ["--check"]:
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/contracts.py")
        return 1 if old else 0
    API.mkdir(exist_ok=True)
    for path in old:
        path.write_text(made[path]) if path in made else path.unlink()
    print(f"{len(old)} of {len(made)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
