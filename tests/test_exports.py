"""What `import recon_search` gives: documented, lazy, and typed."""

import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import recon_search as rs

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", rs.__all__)
def test_a_public_name_is_there_and_documented(name):
    value = getattr(rs, name)
    assert not isinstance(value, types.ModuleType)
    assert inspect.getdoc(value)


def test_no_public_name_is_hidden_by_a_module():
    modules = {path.stem for path in (ROOT / "recon_search").iterdir()}
    assert not modules & set(rs.__all__)


def test_public_names_are_sorted_and_known_to_dir():
    assert sorted(rs.__all__) == list(rs.__all__)
    assert set(rs.__all__) <= set(dir(rs))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rs.nothing


@pytest.mark.parametrize("module", ["layers", "branch", "cost", "split"])
def test_a_package_gives_its_modules(module):
    package = importlib.import_module("recon_search.graph")
    importlib.import_module(f"recon_search.graph.{module}")
    assert isinstance(getattr(package, module), types.ModuleType)


def test_nothing_heavy_is_imported_before_it_is_used():
    code = "import sys, recon_search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_users_type_checker_sees_types(tmp_path):
    assert (ROOT / "recon_search/py.typed").is_file()
    lines = [f"reveal_type(rs.{name})" for name in rs.__all__]
    (tmp_path / "user.py").write_text("\n".join(["import recon_search as rs", *lines]))
    command = [sys.executable, "-m", "mypy", "--config-file", "", "--follow-imports", "silent"]
    command += ["--ignore-missing-imports", str(tmp_path / "user.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == len(rs.__all__), done.stdout
    assert "Any" not in revealed, done.stdout
