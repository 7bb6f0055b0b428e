"""Writes docs/module-contracts.md and docs/api/ from the source: what every public name takes, gives, raises and touches.

Usage: .venv/bin/python scripts/contracts.py [--check]      --check changes nothing and ends with 1 where they are out of date.

Nothing is imported: the source is read as text. Side effects are found by the calls that cause them (EFFECTS), followed
through our own functions as far as names can be followed; a call through an object that is handed in is not seen.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = ROOT / "docs" / "module-contracts.md"
API = ROOT / "docs" / "api"
HEAD = "<!-- made by scripts/contracts.py; edit the source instead -->\n\n"
EFFECTS = {
    "writes files": (
        *("open:w", "os.replace", "os.rename", "os.link", "os.unlink", "os.mkdir", "os.pwrite", "os.ftruncate", "os.write", "os.posix_fallocate"),
        *("shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree", "shutil.copy2", "shutil.copyfileobj"),
        *(".write_text", ".write_bytes", ".unlink", ".mkdir", ".rmdir", ".touch", ".symlink_to", ".hardlink_to", "os.fsync"),
    ),
    "reads files": (
        *("open:r", "os.open", "os.listdir", "os.scandir", "os.stat", "os.lstat", "os.pread", "shutil.disk_usage", "os.statvfs"),
        *(".read_text", ".read_bytes", ".iterdir", ".glob", ".rglob", ".lstat", ".is_dir", ".is_file", ".exists"),
    ),
    "starts processes": ("subprocess.Popen", "subprocess.run", "subprocess.check_output"),
    "sends signals": ("os.kill", "os.killpg", ".send_signal", ".terminate", ".kill"),
    "takes locks": ("fcntl.flock", "fcntl.fcntl"),
    "talks to a network": ("socket.socket", "socket.create_connection", "uvicorn.Server", "urllib.request.urlopen", "http.client.HTTPConnection"),
    "reads the clock": ("time.time", "time.monotonic", "datetime.now", "time.perf_counter"),
}
CAUSES = {call: effect for effect, calls in EFFECTS.items() for call in calls}


@dataclass(eq=False)
class Name:
    """A public function, method or class of a module."""

    path: str  # Class.method
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    module: "Module"

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def signature(self) -> str:
        if isinstance(self.node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in self.node.bases)
            return f"class {self.path}({bases})" if bases else f"class {self.path}"
        returns = ast.unparse(self.node.returns) if self.node.returns else "?"
        return f"{self.path}({ast.unparse(self.node.args)}) -> {returns}"

    @property
    def arguments(self) -> list[ast.arg]:
        assert not isinstance(self.node, ast.ClassDef)
        args = self.node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *(one for one in (args.vararg, args.kwarg) if one)]
        return [one for one in every if one.arg not in ("self", "cls")]

    @cached_property
    def raises(self) -> list[str]:
        """Our own errors that the body raises itself, and every one that the docstring names."""
        found = set()
        for node in ast.walk(self.node):
            if isinstance(node, ast.Raise) and node.exc is not None:
                call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                found.add(ast.unparse(call).split(".")[-1])
        words = {word.strip(".,;:()`") for word in self.text.split()}
        found |= {word for word in words if word.endswith(("Error", "Exception", "Transition")) and word[:1].isupper()}
        return sorted(name for name in found if name[:1].isupper() and name not in ("AssertionError", "NotImplementedError"))

    @cached_property
    def calls(self) -> set[str]:
        return {called for node in ast.walk(self.node) if isinstance(node, ast.Call) for called in _called(node, self)}


@dataclass(eq=False)
class Module:
    """One source file."""

    name: str  # store.durable
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)  # local name -> full name
    names: dict[str, Name] = field(default_factory=dict)  # every function and class, private ones too

    @classmethod
    def read(cls, path: Path) -> "Module":
        parts = path.relative_to(ROOT).with_suffix("").parts
        tree = ast.parse(path.read_text())
        module = cls(".".join(parts[:-1] if parts[-1] == "__init__" else parts), tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imports |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
            elif isinstance(node, ast.Import):
                module.imports |= {one.asname or one.name: one.name for one in node.names}
        module._take(tree.body, "")
        return module

    def _take(self, body: list[ast.stmt], before: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.names[before + node.name] = Name(before + node.name, node, self)
                if isinstance(node, ast.ClassDef):
                    self._take(node.body, f"{before}{node.name}.")

    @property
    def text(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def public(self) -> list[Name]:
        return [name for path, name in self.names.items() if not any(part.startswith("_") for part in path.split("."))]


def _called(call: ast.Call, name: Name) -> Iterator[str]:
    """Full names that a call may mean: of the library, of ours, or the bare attribute."""
    words = ast.unparse(call.func)
    if words == "open" or words.endswith(".open"):
        mode = next((ast.unparse(word.value) for word in call.keywords if word.arg == "mode"), "")
        place = 1 if words == "open" else 0
        mode = mode or (ast.unparse(call.args[place]) if len(call.args) > place else "'r'")
        yield "open:w" if set(mode) & set("wax+") else "open:r"
    head, _, rest = words.partition(".")
    if head == "self" and rest and "." in name.path:
        yield f"{name.module.name}:{name.path.rsplit('.', 1)[0]}.{rest}"
    if head in name.module.imports:
        yield name.module.imports[head] + (f".{rest}" if rest else "")
    elif words in name.module.names:
        yield f"{name.module.name}:{words}"
    yield words
    if isinstance(call.func, ast.Attribute):
        yield f".{call.func.attr}"


class Source:
    """All modules, and the effects that spread through them."""

    def __init__(self) -> None:
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
        paths = sorted(path for package in packages for path in (ROOT / package.replace(".", "/")).glob("*.py"))
        self.modules = [Module.read(path) for path in paths]
        self._names = {f"{module.name}:{path}": name for module in self.modules for path, name in module.names.items()}
        self._names |= {f"{module.name}.{path}": name for module in self.modules for path, name in module.names.items()}
        self._effects = self._spread()

    def _spread(self) -> dict[Name, set[str]]:
        effects = {name: {CAUSES[call] for call in name.calls if call in CAUSES} for name in set(self._names.values())}
        callees = {name: {self._names[call] for call in name.calls if call in self._names} - {name} for name in effects}
        for name, found in callees.items():  # making an object runs its __init__
            found |= {self._names[made] for one in found if one.is_class and (made := f"{one.module.name}:{one.path}.__init__") in self._names}
            callees[name] = {one for one in found if not one.is_class}
        changed = True
        while changed:
            changed = False
            for name, found in callees.items():
                wider = effects[name].union(*(effects[one] for one in found)) if found else effects[name]
                if wider != effects[name]:
                    effects[name], changed = wider, True
        return effects

    def effects(self, name: Name) -> list[str]:
        """What calling it touches, in the order of EFFECTS."""
        return [effect for effect in EFFECTS if effect in self._effects[name]]

    def touches_files(self, module: Module) -> bool:
        """Whether the module itself reads or writes files, not only through another."""
        own = {CAUSES[call] for name in module.names.values() for call in name.calls if call in CAUSES}
        return bool(own & {"writes files", "reads files"})


def contracts(source: Source) -> str:
    """docs/module-contracts.md."""
    text = HEAD + "# Module contracts\n\nWhat every public function takes, gives, raises and touches. The formats of files stand in [formats.md](formats.md).\n"
    for module in source.modules:
        rows = [_row(name, source) for name in module.public if not name.is_class]
        if rows:
            text += f"\n## {module.name}\n\n{module.text.splitlines()[0] if module.text else ''}\n\n"
            text += "| function | args | returns | raises | side effects |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    return text


def _row(name: Name, source: Source) -> str:
    assert not isinstance(name.node, ast.ClassDef)
    arguments = ", ".join(f"{one.arg}: {ast.unparse(one.annotation)}" if one.annotation else one.arg for one in name.arguments)
    returns = ast.unparse(name.node.returns) if name.node.returns else "?"
    cells = (f"`{name.path}`", f"`{arguments}`" if arguments else "-", f"`{returns}`", ", ".join(name.raises) or "-", ", ".join(source.effects(name)) or "-")
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
        pages[package] = page
    return pages


def pages() -> dict[Path, str]:
    """Every made page with its text."""
    source = Source()
    return {CONTRACTS: contracts(source)} | {API / f"{package}.md": text for package, text in api(source).items()}


def main(words: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if words == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/contracts.py")
        return 1 if stale else 0
    API.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(made[path])
    print(f"{len(stale)} of {len(made)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
