"""The page of `dhyan serve`: a form, and the cards of `dhyan report` below it. Its style and script are part of it.

Without script the form is sent as it stands, and the page comes back with the cards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any

from dhyan.plot.card import asset, digest, language
from dhyan.plot.drawing import escaped
from dhyan.search.options import SearchOptions

from .ask import OPTIONS, Ask, Option
from .work import Served

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 3"><rect width="3" height="3" fill="#f4f7fc"/>'
    '<path fill="#103270" d="M0 0h1v1H0zM2 1h1v1H2zM1 2h1v1H1z"/>'
    '<path fill="#6fa0d8" d="M1 1h1v1H1zM2 2h1v1H2z"/></svg>'
)
PACES = ((0, "at once"), (150, "slowly"), (600, "step by step"))  # milliseconds a step


@dataclass
class Shown:
    """What one answer of the page holds."""

    models: Sequence[Served]
    examples: Sequence[str] = ()
    asked: Ask | None = None
    cards: list[str] = field(default_factory=list)
    problem: str = ""


@cache
def _parts() -> tuple[str, str]:
    """Style and script."""
    own = resources.files(__package__)
    style = asset("card.css") + asset("page.css") + own.joinpath("serve.css").read_text(encoding="utf-8")
    return style, asset("card.js") + own.joinpath("serve.js").read_text(encoding="utf-8")


@cache
def policy() -> str:
    """The content security policy: this page's own style and script by their digests, and requests to this server."""
    style, script = _parts()
    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def html(shown: Shown) -> str:
    """The page."""
    style, script = _parts()
    names = " and ".join(model.name for model in shown.models)
    results = "\n".join(_result(k, model, shown) for k, model in enumerate(shown.models))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(names)} – dhyan</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<style>{style}</style>
</head>
<body>
<main class="dhyan-page dhyan-serve">
<h1>Translate, and see what each word was read from</h1>
{_form(shown)}
<div id="results" class="{"pair" if len(shown.models) > 1 else "one"}">
{results}
</div>
</main>
<script>{script}</script>
</body>
</html>
"""


def _form(shown: Shown) -> str:
    search = SearchOptions() if shown.asked is None else shown.asked.search
    groups = {
        name: "".join(_control(option, getattr(search, option.key, False)) for option in options)
        for name, options in groupby(OPTIONS, lambda option: option.form.group)
    }
    paces = "".join(f'<option value="{ms}">{name}</option>' for ms, name in PACES)
    pace = '<div class="control" id="pace-control" hidden><label for="pace">Show words</label>\n'
    pace += f'<select id="pace">{paces}</select></div>'
    more = "".join(
        f'<details><summary>{name}</summary><div class="options">{controls}</div></details>\n'
        for name, controls in groups.items()
        if name
    )
    return f"""<form id="ask" method="post" action="/" autocomplete="off">
{_text_fields(shown)}
<p class="buttons"><button type="submit">Translate</button>
<button type="button" id="stop" hidden>Stop</button></p>
<p id="status" class="fine" role="status"></p>
<p id="problem" class="warning" role="alert"{"" if shown.problem else " hidden"}>{escaped(shown.problem)}</p>
{_examples(shown)}
<details id="search" open><summary>Search</summary>
<div class="options">{groups[""]}{pace}</div>
{more}{_demands(shown.asked)}</details>
</form>"""


def _demands(asked: Ask | None) -> str:
    """What the output has to begin with and to hold."""
    prefix, phrases = (asked.prefix or "", asked.constraints) if asked else ("", ())
    mark = 'dir="auto" spellcheck="false" autocapitalize="off"'
    return f"""<details><summary>Demands</summary><div class="options">
<div class="control"><label for="prefix">Begins with</label>
<input id="prefix" name="prefix" {mark} value="{escaped(prefix)}"></div>
<div class="control"><label for="constraints">Holds</label>
<textarea id="constraints" name="constraints" rows="2" {mark} aria-describedby="constraints-hint">
{escaped(chr(10).join(phrases))}</textarea><small id="constraints-hint">words or phrases, one a line</small></div>
</div></details>
"""


def _text_fields(shown: Shown) -> str:
    first = shown.models[0].translator
    level = {"char": "characters", "word": "words"}.get(first.source_vocab.level, "tokens")
    most = max(model.translator.max_source for model in shown.models)
    hint = f'At most {most} {level}. <span id="keys" hidden>Enter translates, Shift and Enter begin a new line.</span>'
    text = shown.asked.text if shown.asked else ""
    text, _, second = text.partition("\t") if first.two_columns else (text, "", "")
    mark = f'dir="auto" lang="{language(text)}" spellcheck="false" autocapitalize="off"'
    field = f"""<label for="text">{"Word" if first.two_columns else "Sentence"}</label>
<textarea id="text" name="text" rows="2" required autofocus {mark} aria-describedby="hint">{escaped(text)}</textarea>"""
    if first.two_columns:
        field += f"""
<label for="second">Second column, as in training</label>
<input id="second" name="second" {mark} value="{escaped(second)}">"""
    return f'{field}\n<p id="hint" class="fine">{hint}</p>'


def _examples(shown: Shown) -> str:
    """Sentences to try, for those without the keyboard; they need the script."""
    if not shown.examples:
        return ""
    items = "".join(
        f'<li><button type="button" lang="{language(text)}" dir="auto">{escaped(text)}</button></li>'
        for text in shown.examples
    )
    return (
        f'<div id="examples" hidden><p class="fine" id="try">Examples</p><ul aria-labelledby="try">{items}</ul></div>'
    )


def _control(option: Option, value: Any) -> str:
    own = f'id="{option.key}" name="{option.key}"'
    hint = f'<small id="{option.key}-hint">{option.form.hint}</small>' if option.form.hint else ""
    own += f' aria-describedby="{option.key}-hint"' if hint else ""
    name = f'<label for="{option.key}">{option.form.name}</label>'
    if option.kind is bool:
        return (
            f'<div class="control tick"><input type="checkbox" {own}{" checked" if value else ""}>{name}{hint}</div>\n'
        )
    if option.kind is str:
        choices = "".join(f"<option{' selected' if c == value else ''}>{c}</option>" for c in option.choices)
        return f'<div class="control">{name}\n<select {own}>{choices}</select>{hint}</div>\n'
    filled = "" if value is None else f"{value:.16g}"
    limits = f'min="{option.form.low:g}" max="{option.form.high:.16g}" step="{option.form.step:g}" inputmode="decimal"'
    return f'<div class="control">{name}\n<input type="number" {own} value="{filled}" {limits}>{hint}</div>\n'


def _result(k: int, model: Served, shown: Shown) -> str:
    """Where a model's output appears; the language of its words is only known with them."""
    card = shown.cards[k] if k < len(shown.cards) else ""
    asked = escaped(json.dumps({"model": model.name}, ensure_ascii=False))
    return f"""<section class="result" data-ask="{asked}" aria-labelledby="model-{k}">
<h2 id="model-{k}">{escaped(model.name)}</h2><p class="fine">{escaped(_described(model))}</p>
<div class="shown">{card}</div></section>"""


def _described(model: Served) -> str:
    facts = model.facts
    parts = f"attention {facts['attention']}, {facts['layers']} × {facts['cell'].upper()} of {facts['hidden']}"
    return f"{parts}, {facts['source_level']}s to {facts['target_level']}s"
