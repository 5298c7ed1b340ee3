"""The files of the page, and the documentation of the interface as a page that needs no other server."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from typing import Any

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
<title>afqmc: HTTP interface</title>
</head>
<body>
<header><h1>HTTP interface</h1><p><a href="./">page</a> <a href="openapi.json">openapi.json</a></p></header>
<main>
<pre>curl -s ADDRESS/predict -H 'Content-Type: application/json' \\
    -d '{{"pairs": [["怎么还款", "如何还花呗"]]}}'</pre>
<p>With a token: <code>-H 'Authorization: Bearer TOKEN'</code>. Errors are <code>{{"error": "reason"}}</code>.</p>
{endpoints}
<section><h2>Schemas</h2>{schemas}</section>
</main>
</body>
</html>
"""


def page_asset(name: str) -> str:
    """Return the text of a file of the page."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def docs_page(openapi: dict[str, Any]) -> str:
    """Return the OpenAPI description as HTML without scripts."""
    endpoints = [
        _endpoint(method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        f"<h3 id='{escape(name)}'>{escape(name)}</h3><pre>{_as_json(schema)}</pre>"
        for name, schema in openapi["components"]["schemas"].items()
        if "Validation" not in name  # FastAPI's own errors, which this service replaces
    ]
    return _PAGE.format(endpoints="\n".join(endpoints), schemas="\n".join(schemas))


def _as_json(value: Any) -> str:
    return escape(json.dumps(value, indent=1, ensure_ascii=False))


def _endpoint(method: str, path: str, operation: dict[str, Any]) -> str:
    body = _schema_name(operation.get("requestBody", {}))
    rows = [
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{_schema_name(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<section><h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation['summary'])}"
        f"{'. Body: ' + body if body else ''}</p><div class='scroll'><table>{''.join(rows)}</table></div></section>"
    )


def _schema_name(part: dict[str, Any]) -> str:
    reference = part.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    name = escape(reference.rpartition("/")[2])
    return f"<a href='#{name}'>{name}</a>" if name else ""
