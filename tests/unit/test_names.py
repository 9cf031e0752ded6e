"""A name stands for one thing."""

import ast
from collections import Counter
from pathlib import Path

import gapless


def test_no_two_classes_have_one_name() -> None:
    modules = Path(gapless.__path__[0]).rglob("*.py")
    classes = (node for path in modules for node in ast.walk(ast.parse(path.read_text())))
    names = Counter(node.name for node in classes if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
