"""HTML pages in one file: nothing is loaded from elsewhere, so they open anywhere, also years later and without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #d5dce3; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
img { max-width: 100%; height: auto; }
figure { margin: 0; }
figcaption { font-size: .85rem; color: #556270; overflow-wrap: anywhere; }
code { background: #f1f4f7; padding: .1em .3em; overflow-wrap: anywhere; }
pre { background: #f1f4f7; padding: .7rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; padding: .3rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #e4e9ee; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.facts td { text-align: left; overflow-wrap: anywhere; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 36rem), 1fr)); }
.wide figure { overflow-x: auto; }
.wide img { max-width: max(100%, 60rem); }
.legend { margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.legend i { display: inline-block; width: 1.4em; height: .8em; margin-right: .4em; border: 1px solid #0003; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A complete page; ``body`` is its parts in HTML."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'  # else browsers ask for one
    parts = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}{icon}<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n{parts}\n</body></html>\n"
    )


def figure(data: bytes, kind: str, alt: str, caption: str = "") -> str:
    """An embedded image.

    Args:
        data: the content of an image file.
        kind: of image: "png", "jpeg", "svg+xml".
        alt: what is said where images are not seen.
        caption: text below; "" = none.
    """
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}">{text}</figure>'


def block(name: str, parts: Iterable[str]) -> str:
    """Parts laid out as the style says: "grid", "pairs" (of images), "wide" (images), "scroll" (tables), "facts", "legend"."""
    return f'<div class="{name}">\n' + "\n".join(parts) + "\n</div>"


def folded(summary: str, part: str) -> str:
    """A part that is shown on request."""
    return f"<details><summary>{escape(summary)}</summary>\n{part}\n</details>"
