"""Defaults in source files as one types them."""

from __future__ import annotations

import ast

from buttress.cli.static.source import Source, resolve


def default_text(where: Source, default: ast.expr | None) -> str:
    """A default as typed: "8/255", "0,1", "true"; empty for None, false, and what a call makes."""
    if default is None:
        return ""
    if isinstance(default, ast.Constant):
        value = default.value
        if value is None or value is False or value == "":
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(default, ast.Tuple | ast.List):
        return ",".join(_number(part) for part in default.elts)
    if isinstance(default, ast.BinOp | ast.UnaryOp):
        return ast.unparse(default).replace(" ", "")
    if isinstance(default, ast.Name):
        place = resolve(where, default.id)
        return default_text(place.source, place.node) if place and isinstance(place.node, ast.expr) else ""
    if not isinstance(default, ast.Call) or not isinstance(default.func, ast.Name):
        return ""
    if default.func.id == "Path":
        return default_text(where, default.args[0])
    return default_text(where, next((word.value for word in default.keywords if word.arg == "default"), None))


def _number(part: ast.expr) -> str:
    value = ast.literal_eval(part)
    return f"{value:g}" if isinstance(value, float) else str(value)
