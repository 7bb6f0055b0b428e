"""The tree is what the architecture says: layers hold, the daemon is torch-free, our names are ours."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_PACKAGES = {"tests", "scripts", "docs", "examples"}


def _packages_on_disk() -> set[str]:
    return {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_PACKAGES


def _fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_every_package_on_disk_has_a_place_in_the_layers_contract() -> None:
    layers = next(contract for contract in PROJECT["tool"]["importlinter"]["contracts"] if contract["type"] == "layers")["layers"]
    placed = {name.strip() for line in layers for name in line.split("|")}
    assert placed == _packages_on_disk()
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == _packages_on_disk()


def test_every_package_is_shipped() -> None:
    shipped = set(PROJECT["tool"]["setuptools"]["packages"])
    on_disk = {".".join(path.parent.relative_to(ROOT).parts) for name in _packages_on_disk() for path in (ROOT / name).rglob("__init__.py")}
    assert shipped == on_disk


def test_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_daemon_never_imports_torch() -> None:
    heavy = ("torch", "transformers", "peft", "safetensors")
    loaded = _fresh(f"import daemon.main, sys; print([name for name in {heavy!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_and_status_import_no_schema_library() -> None:
    loaded = _fresh("import cli.main, cli.status, sys; print([name for name in ('pydantic', 'fastapi', 'numpy', 'jinja2') if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_no_other_distribution_owns_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    foreign = {name: set(owners.get(name, [])) - {"lorad"} for name in _packages_on_disk()}
    assert {name: others for name, others in foreign.items() if others} == {}


def test_no_module_is_longer_than_400_lines() -> None:
    sources = [path for name in _packages_on_disk() for path in (ROOT / name).rglob("*.py")]
    assert {str(path.relative_to(ROOT)): lines for path in sources if (lines := path.read_text().count("\n")) > 400} == {}


def test_every_verb_of_the_command_line_answers_help() -> None:
    code = "from click.testing import CliRunner; from cli.main import lorad, VERBS\n"
    code += "for verb in VERBS:\n    result = CliRunner().invoke(lorad, [verb, '--help']); assert result.exit_code == 0, (verb, result.output)\nprint('all')"
    assert _fresh(code).strip() == "all"
