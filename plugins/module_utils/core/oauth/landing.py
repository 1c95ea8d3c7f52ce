# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The page that the browser shows at the end: what happened, and what to do next. It holds no secret."""

from __future__ import annotations

import socket
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .causes import Cause

# A page that is left open leaks nothing: no referrer, no copy in a cache, nothing loaded, no frame around it
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_STYLE = """
:root{color-scheme:light dark;--back:#f3f5f7;--card:#fff;--text:#1c2329;--soft:#56626d;--line:#d9dfe4;--good:#1a7f37;
--bad:#b42318;--wait:#8a5a00}
@media(prefers-color-scheme:dark){:root{--back:#12171c;--card:#1b2229;--text:#e8edf1;--soft:#9fadb9;--line:#323c45;
--good:#57c274;--bad:#ff8a80;--wait:#e3b341}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:24px;background:var(--back);color:var(--text);
font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{width:100%;max-width:600px;background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:40px 44px;box-shadow:0 1px 3px rgba(0,0,0,.07)}
svg{display:block;width:52px;height:52px;margin-bottom:20px}
h1{font-size:25px;line-height:1.25;margin:0 0 12px}
h2{font-size:17px;margin:28px 0 4px}
p{margin:0 0 12px}p:last-child{margin-bottom:0}
.who{overflow-wrap:anywhere;font-weight:600}
.soft{color:var(--soft);font-size:15px}
footer{margin-top:32px;padding-top:16px;border-top:1px solid var(--line);color:var(--soft);font-size:14px}
.good{color:var(--good)}.bad{color:var(--bad)}.wait{color:var(--wait)}
@media(max-width:520px){main{padding:28px 24px}}
""".replace("\n", "")

_SIGNS = {
    "good": '<path d="M15 27l8 8 15-17"/>',
    "bad": '<path d="M18 18l16 16M34 18L18 34"/>',
    "wait": '<path d="M26 15v15"/><path d="M26 37v.5"/>',
}

# cause -> the heading, for those that a person at a browser can do something about
_HEADINGS = {
    "access_denied": "Not authorized: the request was declined",
    "other_person": "Another account signed in",
    "scope_missing": "Not everything was allowed",
    "no_refresh_token": "The authorization would not last",
    "consent_required": "An administrator has to agree first",
    "policy": "A policy of your organization blocks this",
    "interaction_required": "The provider wants another sign-in",
    "other_authorization": "This is not the authorization that is waited for",
    "answer_incomplete": "The answer is not complete",
    "nothing_pending": "No authorization is waited for",
    "expired_token": "Too late: this authorization has expired",
    "code_refused": "Too late: the code is not valid any more",
    "issuer_mismatch": "The answer came from another server",
}
_TITLE = "Sending mail: authorization"
_CLOSE = "You can close this window."


class Ending(NamedTuple):
    """Why it came to nothing: the cause, and what was found in this case (no secret in it)."""

    cause: Cause
    detail: str = ""


def finished(username: str) -> str:
    """The page after a success. ``username``: the mailbox, "" where nobody is named."""
    who = f'<p class="who">{escape(username)}</p>' if username else ""
    body = (
        f"{who}<p>The host {_host()} may now send mail for this account. It renews the access by itself, so that "
        "nobody has to sign in again.</p><h2>What to do next</h2><p>Nothing. The task that waited for this goes on by "
        f"itself. {_CLOSE}</p>"
        '<p class="soft">To take the access back, remove the application in your account\'s security settings, or run '
        "smtp_oauth_token with state: absent.</p>"
    )
    return _page("good", "Mail can be sent now", body)


def failed(ending: Ending) -> str:
    """The page after a refusal."""
    cause = ending.cause
    waits = cause.status == "pending"
    heading = _HEADINGS.get(cause.name, "The authorization did not succeed")
    found = f'<p class="who">{_sentence(ending.detail)}</p>' if ending.detail else ""
    body = f"<p>{_sentence(cause.summary)}</p>{found}<h2>What to do next</h2><p>{_sentence(cause.next_step)}</p>"
    if waits:
        body += f'<p class="soft">The authorization that was begun is still waiting. {_CLOSE}</p>'
    else:
        body += f'<p class="soft">The task that waited for this tells the same. {_CLOSE}</p>'
    return _page("wait" if waits else "bad", heading, body)


def lost() -> str:
    """The page for any other address."""
    body = "<p>Only the answer of the authorization server is expected at this address.</p>"
    return _page("wait", "There is nothing here", body)


def _page(sign: str, heading: str, body: str) -> str:
    title = f"{escape(heading)} - {_TITLE}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
        f'<svg class="{sign}" viewBox="0 0 52 52" fill="none" stroke="currentColor" stroke-width="4" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><circle cx="26" cy="26" r="23"/>'
        f"{_SIGNS[sign]}</svg><h1>{escape(heading)}</h1>{body}"
        f"<footer>This page was made by fleetmail.smtp on {_host()}. Nothing was loaded from elsewhere.</footer>"
        "</main></body></html>"
    )


def _host() -> str:
    return escape(socket.gethostname())


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:].rstrip(".")) + "."
