"""The source as text: modules, their functions and classes, and what their calls mean. Nothing is imported."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPTH = 6  # of `self._index.home.status`: how far a class is looked for
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(eq=False)
class Name:
    """A function, method or class of a module."""

    path: str  # Class.method
    node: Function | ast.ClassDef
    module: "Module"

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.path.split("."))

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def signature(self) -> str:
        if isinstance(self.node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in self.node.bases)
            return f"class {self.path}({bases})" if bases else f"class {self.path}"
        return f"{self.path}({', '.join(self.parameters)}) -> {self.returns}"

    @property
    def returns(self) -> str:
        assert not isinstance(self.node, ast.ClassDef)
        return ast.unparse(self.node.returns) if self.node.returns else "?"

    @property
    def arguments(self) -> list[ast.arg]:
        assert not isinstance(self.node, ast.ClassDef)
        args = self.node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *(one for one in (args.vararg, args.kwarg) if one)]
        return [one for one in every if one.arg not in ("self", "cls")]

    @property
    def parameters(self) -> list[str]:
        """The arguments as they are written, with types and defaults, without self."""
        assert not isinstance(self.node, ast.ClassDef)
        args = self.node.args
        plain = [*args.posonlyargs, *args.args]
        defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
        told = [self._told(*pair) for pair in zip(plain, defaults, strict=True) if pair[0].arg not in ("self", "cls")]
        told += [f"*{self._told(args.vararg, None)}"] if args.vararg else ["*"] if args.kwonlyargs else []
        told += [self._told(*pair) for pair in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
        return told + ([f"**{self._told(args.kwarg, None)}"] if args.kwarg else [])

    def _told(self, arg: ast.arg, default: ast.expr | None) -> str:
        words = f"{arg.arg}: {ast.unparse(arg.annotation)}" if arg.annotation else arg.arg
        if default is None:
            return words
        written = self.module.lines[default.lineno - 1].encode()[default.col_offset : default.end_col_offset].decode()  # 0o644, not 420
        return f"{words} = {written if default.lineno == default.end_lineno else ast.unparse(default)}"

    @property
    def fields(self) -> list[str]:
        """One line for each field or member of a class: as it is written, with its comment or docstring."""
        found, body = [], self.node.body
        for number, node in enumerate(body):
            if not isinstance(node, ast.AnnAssign | ast.Assign) or ast.unparse(node).startswith("_"):
                continue
            after = body[number + 1] if number + 1 < len(body) else None
            said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            comment = self.module.lines[(node.end_lineno or node.lineno) - 1].partition("  # ")[2]
            words = str(said or "" if comment.startswith(("type:", "noqa")) else said or comment)
            found.append(f"- `{ast.unparse(node)}`" + (f": {' '.join(words.split())}" if words else ""))
        return found

    @property
    def gives(self) -> "Name | None":
        """Our class of which a call of this gives an object."""
        return self if isinstance(self.node, ast.ClassDef) else self.module.named(self.node.returns)

    def member(self, word: str) -> "Name | None":
        """The method of this class, or of one that it inherits from."""
        assert isinstance(self.node, ast.ClassDef)
        bases = [self.module.named(base) for base in self.node.bases]
        own = self.module.names.get(f"{self.path}.{word}")
        return own or next((found for base in bases if base is not None and (found := base.member(word))), None)

    def attribute(self, word: str, depth: int) -> "Name | None":
        """Our class of an attribute of this class: of a field, of a property, or of what `__init__` puts there."""
        fields = (node for node in self.node.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == word)
        if (told := next(fields, None)) is not None:
            return self.module.named(told.annotation)
        if (found := self.member(word)) is not None:
            return found.gives
        made = self.module.names.get(f"{self.path}.__init__")
        for node in made.node.body if made is not None else ():
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == f"self.{word}":
                return self.module.named(node.annotation)
        value = made.assigned.get(f"self.{word}") if made is not None else None
        return self.module.class_of(value, made, depth) if made is not None and value is not None else None

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """What the body first gives to each local name and attribute."""
        found: dict[str, ast.expr] = {}
        for node in ast.walk(self.node):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Attribute):
                found.setdefault(ast.unparse(node.targets[0]), node.value)
        return found

    @cached_property
    def caught(self) -> set[str]:
        """Names of the exceptions that the body catches."""
        kinds = (node.type for node in ast.walk(self.node) if isinstance(node, ast.ExceptHandler) and node.type is not None)
        return {word for kind in kinds for word in ast.unparse(kind).strip("()").split(", ")}

    @cached_property
    def calls(self) -> set[str]:
        return {called for node in ast.walk(self.node) if isinstance(node, ast.Call) for called in self.module.called(node, self)}


@dataclass(eq=False)
class Module:
    """One source file."""

    name: str  # store.durable
    tree: ast.Module
    lines: list[str]
    imports: dict[str, str] = field(default_factory=dict)  # local name -> full name
    names: dict[str, Name] = field(default_factory=dict)  # every function and class, private ones too
    known: dict[str, Name] = field(default_factory=dict)  # of all modules: `module.path`

    @classmethod
    def read(cls, path: Path, known: dict[str, Name]) -> "Module":
        """The module in a file; its names are added to those that are `known`."""
        parts = path.relative_to(ROOT).with_suffix("").parts
        text = path.read_text()
        module = cls(".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(text), text.splitlines(), known=known)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imports |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
            elif isinstance(node, ast.Import):
                module.imports |= {one.asname or one.name: one.name for one in node.names}
        module._take(module.tree.body, "")
        known |= {f"{module.name}.{path}": name for path, name in module.names.items()}
        return module

    def _take(self, body: list[ast.stmt], before: str) -> None:
        for node in body:
            if isinstance(node, Function | ast.ClassDef):
                self.names[before + node.name] = Name(before + node.name, node, self)
                if isinstance(node, ast.ClassDef):
                    self._take(node.body, f"{before}{node.name}.")

    @property
    def text(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def public(self) -> list[Name]:
        return [name for name in self.names.values() if name.is_public]

    # ------------------------------------------------------------ what a call means

    def full(self, words: str) -> str:
        """The full name of what is called `words` here."""
        head, _, rest = words.partition(".")
        return f"{self.imports[head]}.{rest}".rstrip(".") if head in self.imports else f"{self.name}.{words}"

    def called(self, call: ast.Call, name: Name) -> Iterator[str]:
        """Full names that a call may mean: of ours, or of the library; for an object of an unknown class the bare attribute."""
        words = ast.unparse(call.func)
        if words == "open" or words.endswith((".open", ".fdopen")):
            yield from _opened(call, words)
        ours = self.known.get(self.full(words)) or self._method(call.func, name, 0)
        if ours is not None:
            yield f"{ours.module.name}.{ours.path}"
            return
        yield self.full(words)
        yield words
        if isinstance(call.func, ast.Attribute):
            yield f".{call.func.attr}"

    def _method(self, func: ast.expr, name: Name, depth: int) -> Name | None:
        if not isinstance(func, ast.Attribute):
            return None
        owner = self.class_of(func.value, name, depth + 1)
        return owner.member(func.attr) if owner is not None else None

    def class_of(self, node: ast.expr, name: Name, depth: int) -> Name | None:
        """Our class of which an expression in `name` gives an object, where annotations and assignments tell it."""
        if depth > DEPTH:
            return None
        if isinstance(node, ast.Name) and node.id == "self" and "." in name.path:
            return self.names.get(name.path.rsplit(".", 1)[0])
        if isinstance(node, ast.Name):
            return self._local(node.id, name, depth)
        if isinstance(node, ast.Attribute):
            owner = self.class_of(node.value, name, depth + 1)
            return owner.attribute(node.attr, depth + 1) if owner is not None else None
        if isinstance(node, ast.Call):
            made = self.known.get(self.full(ast.unparse(node.func))) or self._method(node.func, name, depth)
            return made.gives if made is not None else None
        return None

    def _local(self, word: str, name: Name, depth: int) -> Name | None:
        for one in name.arguments if not name.is_class else ():
            if one.arg == word:
                return self.named(one.annotation)
        value = name.assigned.get(word)
        return self.class_of(value, name, depth + 1) if value is not None else None

    def named(self, annotation: ast.expr | None) -> Name | None:
        """Our class that an annotation names, `| None` left out."""
        words = ast.unparse(annotation).strip("'\"").removesuffix(" | None") if annotation is not None else ""
        found = self.known.get(self.full(words)) if words else None
        return found if found is not None and found.is_class else None


def _opened(call: ast.Call, words: str) -> Iterator[str]:
    """`open:w` or `open:r`, by the mode or the flags; a folder that is opened to be synced is neither."""
    if words == "os.open":
        flags = ast.unparse(call)
        if "O_DIRECTORY" not in flags:
            yield "open:w" if re.search("O_WRONLY|O_CREAT|O_TRUNC", flags) else "open:r"
        return
    given = next((word.value for word in call.keywords if word.arg == "mode"), None)
    place = 0 if isinstance(call.func, ast.Attribute) and words != "os.fdopen" else 1
    given = given if given is not None or len(call.args) <= place else call.args[place]
    mode = given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else "r"
    yield "open:w" if set(mode) & set("wax+") else "open:r"
