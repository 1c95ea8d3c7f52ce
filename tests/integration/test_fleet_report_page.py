# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page in a real browser, from file://, with two thousand hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import node
from lab.browser import PROGRAM, why_unavailable
from lab.fleet_results import NOW, Fleet, iso

from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report import page as html
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.net import Net
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.report import Order, make
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.results import Play, host_of
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.shape import STATUSES

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())

Record = dict[str, Any]
AXE = Path(__file__).parents[1] / "lab/axe"
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>'\"&{{ 7 * 7 }}"
ROW = "#panel-hosts tbody tr"
AT_ONCE = 0.1  # seconds: what a person takes for at once
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def report(results: dict[str, Record], groups: Any = lambda _host: []) -> Record:
    net = Net()
    hosts = [host_of(name, groups(name), found, Play(iso(0)), net) for name, found in results.items()]
    return make(hosts, Order("Mail of the fleet", "0.2.0"), Path("/nonexistent"), NOW.timestamp(), net).document


class Site:
    """Pages in files, a browser, and everything that a page complained of or asked for."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def write(self, name: str, document: Record) -> Path:
        path = self.folder / f"{name}.html"
        path.write_text(html.render(document))
        return path

    def open(self, path: Path, fragment: str = "", **context: Any) -> Any:
        settings = {"viewport": {"width": 1600, "height": 1000}, **context}
        page = self.browser.new_context(**settings).new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(f"file://{path}{fragment}")
        return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, chromium_sandbox=False)
        yield Site(browser, tmp_path_factory.mktemp("pages"))
        browser.close()


@pytest.fixture(scope="module")
def document() -> Record:
    made = Fleet(2000)
    return report(made.results(), made.groups)


@pytest.fixture(scope="module")
def path(site: Site, document: Record) -> Path:
    return site.write("fleet", document)


@pytest.fixture
def page(site: Site, path: Path) -> Iterator[Any]:
    site.complaints.clear()
    page = site.open(path)
    yield page
    page.context.close()
    assert site.complaints == []
    assert {url.partition(":")[0] for url in site.requests} == {"file"}


def names(document: Record, **wanted: str) -> set[str]:
    return {host["name"] for host in document["hosts"] if all(host[key] == value for key, value in wanted.items())}


def column(page: Any, title: str) -> int:
    heads = page.locator("#panel-hosts thead th").all()
    return next(number for number, head in enumerate(heads) if head.inner_text().startswith(title))


def show_all(page: Any) -> None:
    """Have every row in the page, also those that would come into sight later."""
    more = page.locator("#panel-hosts .more button")
    if more.is_visible():
        more.click()


def cells(page: Any, title: str) -> list[str]:
    selector = f"{ROW} > :nth-child({column(page, title) + 1})"
    texts: list[str] = page.locator(selector).all_inner_texts()
    return [text.strip() for text in texts]


def shown(page: Any) -> str:
    return str(page.locator(".shown").inner_text())


def test_two_thousand_hosts_are_small_and_soon_there(site: Site, path: Path) -> None:
    assert path.stat().st_size <= 5_000_000
    began = time.monotonic()
    page = site.open(path)
    page.wait_for_selector(ROW)
    assert time.monotonic() - began < 5
    assert shown(page) == "2,000 of 2,000 hosts"
    page.context.close()


def test_the_filter_answers_at_once(page: Any, document: Record) -> None:
    """From a key to the new rows on the screen: the best of five of each word, for others use this machine as well."""
    typed = """async (text) => {
        const filter = document.getElementById("filter");
        const began = performance.now();
        filter.value = text;
        filter.dispatchEvent(new Event("input"));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        document.body.offsetHeight;
        return performance.now() - began;
    }"""
    words = ("w", "web", "web12.", "", "relay.fra", "security: starttls", "no such host", "drifting")
    took = {word: min(page.evaluate(typed, word) / 1000 for _time in range(5)) for word in words}
    print("filter, ms:", {word: round(1000 * seconds) for word, seconds in took.items()})
    assert max(took.values()) < AT_ONCE, took
    page.fill("#filter", "web12.")
    page.evaluate(SETTLED)
    assert set(cells(page, "Host")) == {name for name in names(document) if "web12." in name}


def test_filter_by_status_backend_and_severity(page: Any, document: Record) -> None:
    page.click("[data-status=drifting]")
    drifting = names(document, status="drifting")
    assert shown(page) == f"{len(drifting)} of 2,000 hosts"
    show_all(page)
    assert set(cells(page, "Host")) == drifting
    page.click("[data-status=failed]")
    assert shown(page) == f"{len(drifting | names(document, status='failed'))} of 2,000 hosts"
    page.click("[data-status=failed]")
    page.get_by_role("combobox", name="Backend").select_option("exim")
    assert set(cells(page, "Backend")) == {"exim"}
    page.get_by_role("combobox", name="Findings").select_option("critical")
    assert all(one.startswith("critical") for one in cells(page, "Findings"))
    page.click("text=Clear")
    assert shown(page) == "2,000 of 2,000 hosts"
    page.fill("#filter", "no such host")
    page.evaluate(SETTLED)
    assert page.locator(ROW).all_inner_texts() == ["No host matches the filter."]


def test_the_filter_stands_in_the_address(site: Site, path: Path, document: Record) -> None:
    page = site.open(path, "#status=unreachable&q=fra")
    wanted = {name for name in names(document, status="unreachable") if ".fra." in name}
    assert set(cells(page, "Host")) == wanted
    assert page.locator("[data-status=unreachable]").get_attribute("aria-pressed") == "true"
    page.fill("#filter", "dub")
    page.evaluate(SETTLED)
    assert page.url.endswith("#q=dub&status=unreachable")
    page.context.close()


def test_what_differs_is_marked_and_told_in_words(page: Any, document: Record) -> None:
    host = next(
        one
        for one in document["hosts"]
        if one["status"] == "drifting" and any(drift["field"] == "security" for drift in one["services"][0]["drift"])
    )
    page.fill("#filter", host["name"])
    page.evaluate(SETTLED)
    row = page.locator(ROW).first
    cell = row.locator(f":nth-child({column(page, 'security') + 1})").first
    assert "differs" in cell.get_attribute("class")
    assert "is opportunistic" in cell.text_content()
    assert " ".join(cell.text_content().split()) == "differs: is opportunistic, should be → starttls"
    assert row.locator(".differs").count() == len(
        [one for one in host["services"][0]["drift"] if one["field"] in host["services"][0]["form"]]
    ) + bool([one for one in host["services"][0]["drift"] if one["field"] not in host["services"][0]["form"]])


def test_what_all_hosts_have_in_common_is_one_sentence(page: Any) -> None:
    assert "port 587" in page.locator(".same").inner_text()
    heads = page.locator("#panel-hosts thead th").count()
    page.get_by_label("all fields").check()
    assert page.locator("#panel-hosts thead th").count() > heads
    assert not page.locator(".same").is_visible()


def test_columns_sort_both_ways_and_missing_values_come_last(page: Any, document: Record) -> None:
    head = page.locator("#panel-hosts thead th").nth(column(page, "Host"))
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    first = cells(page, "Host")[:20]
    assert first == [host["name"] for host in document["hosts"]][:20]
    page.keyboard.press("Enter")  # the button has kept the focus
    assert cells(page, "Host")[:20] == [host["name"] for host in document["hosts"]][:-21:-1]
    page.locator("#panel-hosts thead th").nth(column(page, "Certificate")).get_by_role("button").click()
    assert cells(page, "Certificate")[0].startswith("ended")
    page.locator("#panel-hosts .more button").click()
    days = [one for one in cells(page, "Certificate") if one]
    assert days[-1] == "212 d"


def test_the_worst_hosts_stand_first(page: Any) -> None:
    order = ["unreachable", "failed", "drifting", "changed", "unknown", "audited", "compliant"]
    found = [order.index(one) for one in cells(page, "Status")]
    assert found == sorted(found)
    assert found[0] == 0


def test_more_rows_come_as_they_are_needed(page: Any) -> None:
    assert page.locator(ROW).count() < 1000
    page.locator("#panel-hosts .scroll").evaluate("(place) => place.scrollTo(0, place.scrollHeight)")
    page.locator(ROW).nth(100).wait_for(state="attached")
    page.locator("#panel-hosts .more button").click()
    assert page.locator(ROW).count() == 2000


def test_the_detail_of_a_host_by_keyboard(page: Any, document: Record) -> None:
    page.keyboard.press("/")
    page.keyboard.type("drifting postfix")
    page.evaluate(SETTLED)
    listed = cells(page, "Host")
    page.locator(f"{ROW} button").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert page.locator("#detail-name").inner_text() == listed[0]
    service = next(host for host in document["hosts"] if host["name"] == listed[0])["services"][0]
    assert dialog.locator("pre.diff").inner_text().split() == service["diff"].split()
    assert dialog.locator(".minus").count() == sum(
        line.startswith("-") and not line.startswith("---") for line in service["diff"].splitlines()
    )
    assert service["verification"]["steps"][0]["detail"] in dialog.inner_text()
    assert "/etc/postfix/main.cf would be changed" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-name").inner_text() == listed[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.textContent") == listed[0]


def test_what_differs_most_leads_to_its_hosts(page: Any, document: Record) -> None:
    first = page.locator("#differences li").first
    count = int(first.locator(".count").inner_text().split()[0])
    first.get_by_role("button").click()
    assert shown(page) == f"{count} of 2,000 hosts" or int(shown(page).split()[0]) >= count
    wrong = page.locator("#failures li").first
    assert "…" in wrong.inner_text()  # what differs only by the host's name is one entry
    assert int(wrong.locator(".count").inner_text().split()[0]) == len(names(document, status="unreachable"))
    wrong.get_by_role("button").click()
    assert set(cells(page, "Host")) == names(document, status="unreachable")


def test_the_views_by_arrow_keys(page: Any, document: Record) -> None:
    page.locator("#tab-hosts").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-tokens").is_visible()
    assert not page.locator("#panel-hosts").is_visible()
    dead = ["expired", "revoked", "unauthorized", "misconfigured", "blocked"]
    statuses = page.locator("#panel-tokens tbody tr td:nth-child(3)").all_inner_texts()
    alive = [one for one in statuses if one not in dead]
    assert statuses[: len(statuses) - len(alive)] == [one for one in statuses if one in dead]  # the dead ones first
    ends = [
        one for one in page.locator("#panel-tokens tbody tr td:nth-child(6)").all_inner_texts() if one.startswith("20")
    ]
    assert ends == sorted(ends)
    assert len(ends) > 20
    page.keyboard.press("End")
    rows = page.locator("#panel-certificates tbody tr").all_inner_texts()
    assert len(rows) == len(document["certificates"])
    assert rows[0].startswith("relay.sin.example.test:587")


def test_findings_stand_together_by_severity(page: Any, document: Record) -> None:
    page.click("#tab-findings")
    groups = page.locator("details.group")
    severities = [one.split()[0] for one in groups.locator("summary").all_inner_texts()]
    order = ["critical", "warning", "info"]
    assert severities == sorted(severities, key=order.index)
    first = groups.first
    first.locator("summary").click()
    count = int(first.locator(".count").inner_text().split()[0])
    first.locator("[data-host]").first.wait_for()  # it is filled when it has been opened
    assert first.locator("[data-host]").count() == count
    first.locator("[data-host]").first.click()
    assert page.get_by_role("dialog").is_visible()


def brightness(page: Any) -> int:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in found[4:-1].split(","))


def test_light_and_dark(site: Site, path: Path) -> None:
    dark = site.open(path, color_scheme="dark")
    assert brightness(dark) < 150
    dark.emulate_media(color_scheme="light")
    dark.evaluate(SETTLED)
    assert brightness(dark) > 700
    dark.get_by_label("Theme").select_option("dark")
    assert brightness(dark) < 150
    dark.reload()
    assert brightness(dark) < 150  # remembered
    dark.context.close()


def test_paper_has_every_view_and_every_row_of_the_filter(site: Site, path: Path, document: Record) -> None:
    page = site.open(path, "#status=compliant", color_scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert brightness(page) == 3 * 255
    for view in ("hosts", "tokens", "findings", "certificates"):
        assert page.locator(f"#panel-{view}").is_visible()
    for control in (".controls", "#tabs", ".bar"):
        assert not page.locator(control).first.is_visible()
    assert page.locator(ROW).count() == len(names(document, status="compliant"))
    assert page.locator("details.group:not([open])").count() == 0
    page.context.close()


def test_paper_of_one_host_has_nothing_else(page: Any) -> None:
    page.locator(f"{ROW} button").first.click()
    page.emulate_media(media="print")
    assert page.get_by_role("dialog").is_visible()
    assert not page.locator("main").is_visible()
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", [320, 390, 768, 1100])
def test_narrow_screens_scroll_only_the_tables(site: Site, path: Path, width: int) -> None:
    page = site.open(path, viewport={"width": width, "height": 844})
    for view in ("hosts", "tokens", "findings", "certificates"):
        page.click(f"#tab-{view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#tab-hosts")
    page.locator(f"{ROW} button").first.click()
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= width
    page.context.close()


def test_nothing_of_a_host_is_run(site: Site) -> None:
    drift = [
        {"field": HOSTILE, "before": HOSTILE, "after": HOSTILE},
        {"field": "__proto__", "before": HOSTILE, "after": "x"},
    ]
    service = {
        "service": {"name": HOSTILE, "backend": HOSTILE, "host": HOSTILE, "__proto__": HOSTILE, "constructor": "x"},
        "drift": drift, "diff": {"before": "a", "after": HOSTILE},
        "verification": {"level": "tls", "steps": [{"name": HOSTILE, "detail": HOSTILE}], "tls": {"not_after": iso(1)}},
    }  # fmt: skip
    info = {"services": [{"path": HOSTILE, "findings": [{"severity": "critical", "id": HOSTILE, "message": HOSTILE}]}]}
    token = {"token": {"name": HOSTILE, "status": "revoked", "next_step": HOSTILE}}
    failed = {"failed": True, "msg": HOSTILE}
    site.complaints.clear()
    name = f"web{HOSTILE}"
    page = site.open(site.write("hostile", report({name: {"a": service, "b": info, "c": token, "d": failed}})))
    for view in ("tokens", "findings", "certificates", "hosts"):
        page.click(f"#tab-{view}")
    page.locator(f"{ROW} button").first.click()
    assert page.locator("#detail-name").inner_text() == name
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("pre.diff").inner_text()
    assert "49" not in page.locator("body").inner_text()
    page.context.close()
    assert site.complaints == []


def test_a_script_that_is_not_ours_does_not_run(site: Site, path: Path) -> None:
    page = site.open(path)
    page.evaluate("document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:1/x' }))")
    page.wait_for_timeout(100)
    assert any("Content Security Policy" in one for one in site.complaints)
    site.complaints.clear()
    page.context.close()


def test_without_scripts_the_hosts_that_need_attention_are_there(site: Site, path: Path, document: Record) -> None:
    page = site.open(path, java_script_enabled=False)
    text = page.locator("body").inner_text()
    assert "2,000 hosts" in text
    for name in names(document, status="failed") | names(document, status="drifting"):
        assert name in text
    page.context.close()


def test_small_and_odd_fleets(site: Site) -> None:
    whole = report({"web1": {}})
    page = site.open(site.write("one", whole))
    assert "no result" in page.locator(ROW).inner_text()
    assert page.locator("[role=tab]").all_inner_texts() == ["Hosts1"]
    page.context.close()
    audited = {"services": [{"backend": "exim", "host": "mx", "port": 25, "security": "none", "path": "/etc/exim4"},
                            {"backend": "msmtp", "host": "mx2", "port": 587, "path": "/home/a/.msmtprc"}]}  # fmt: skip
    page = site.open(site.write("audited", report({"web1": {"a": audited}})))
    assert cells(page, "Backend") == ["exim", "msmtp"]
    assert cells(page, "host") == ["mx", "mx2"]
    page.context.close()
    service = {"service": {"name": "default", "backend": "exim", "host": "mx"}, "drift": []}
    failed = {"a": service, "b": {"failed": True, "msg": "the token is dead"}}
    page = site.open(site.write("beside", report({"web1": failed, "web2": {"a": service}})), "#status=failed")
    assert cells(page, "Host") == ["web1"]  # what failed is not the service
    assert "the token is dead" in page.locator(ROW).inner_text()
    page.context.close()
    assert site.complaints == []


def sample(document: Record) -> Record:
    """Some hosts of every status: axe looks at each element."""
    made = Fleet(2000)
    chosen = [name for status in STATUSES for name in sorted(names(document, status=status))[:8]]
    return report({name: made.results()[name] for name in chosen}, made.groups)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 390])
def test_accessible_by_axe(site: Site, document: Record, scheme: str, width: int) -> None:
    """No violation of WCAG 2.2 A and AA or of axe's best practices, in any view, with and without a detail."""
    axe = (node.modules(AXE) / "axe-core/axe.min.js").read_text()
    path = site.write("sample", sample(document))
    page = site.open(path, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page.emulate_media(reduced_motion="reduce")
    page.evaluate(axe)
    for view in ("tokens", "findings", "certificates", "hosts"):
        page.click(f"#tab-{view}")
        if view == "findings":
            page.locator("details.group summary").nth(1).click()
        _judge(page, view)
    page.click("[data-status=drifting]")
    _judge(page, "hosts that drift")
    page.locator(f"{ROW} button").first.click()
    _judge(page, "detail")
    page.context.close()


def _judge(page: Any, what: str) -> None:
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run({ runOnly: tags })", tags)
    told = [
        f"{what}: {one['id']}: {one['help']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for one in found["violations"]
        for node in one["nodes"][:3]
    ]
    assert told == []
    assert len(found["passes"]) > 15
