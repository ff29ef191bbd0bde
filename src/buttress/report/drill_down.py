"""From a class or a layer to its inputs: links from their sections into that of the inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill

# Of which kind of finding's section, the list of inputs that it leads to, what an entry of it is called, and its text.
_LISTS = {
    "classes": ("by_class", "class", "Inputs that fail, class by class"),
    "layers": ("by_layer", "layer", "Inputs that displace each layer most"),
}


def anchor(network: str, what: str, name: object) -> str:
    """Where a list of inputs is in the page: the same for a link and for what it leads to, whatever the names hold."""
    digest = hashlib.blake2b("\0".join((network, what, str(name))).encode(), digest_size=6).hexdigest()
    return f"inputs-{digest}"


def drill_down(findings: Mapping[str, Finding], networks: Mapping[str, Sequence[Finding]]) -> str:
    """HTML below the section of ``findings``, of one kind, by network: links to inputs, where an audit listed some.

    Args:
        findings: those of the section.
        networks: all findings of the page.
    """
    kind = next(iter(findings.values())).kind
    if kind not in _LISTS:
        return ""
    key, name, title = _LISTS[kind]
    links = dict[str, list[tuple[str, str]]]()
    for network, finding in findings.items():
        known = [entry[name] if isinstance(entry, Mapping) else entry for entry in finding.data.get(kind, [])]
        listed = next((f.data.get(key) or [] for f in networks[network] if f.kind == "inputs"), [])
        found = [
            (anchor(network, name, entry[name]), f"{entry[name]} ({entry.get('failing', len(entry['ids']))})")
            for entry in listed
            if entry[name] in known and entry["ids"]
        ]
        if found:
            links[network] = found
    return fill("drill_down.html", title=title, links=links, several=len(networks) > 1) if links else ""
