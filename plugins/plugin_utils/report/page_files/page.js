// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// The parts put together: views, summary, theme, keys, paper.
const views = [
  { id: "hosts", title: "Hosts", count: hosts.length, panel: matrix.panel },
  { id: "tokens", title: "Tokens", count: tokens.count, panel: tokens.panel },
  { id: "findings", title: "Findings", count: findings.count, panel: findings.panel },
  { id: "certificates", title: "Certificates", count: certificates.count, panel: certificates.panel },
  { id: "sources", title: "Sources", count: sources.count, panel: sources.panel },
].filter((view) => view.id === "hosts" || view.count > (view.id === "sources" ? 1 : 0));

function show(id, focus = false) {
  for (const view of views) {
    const chosen = view.id === id;
    view.tab.setAttribute("aria-selected", chosen);
    view.tab.tabIndex = chosen ? 0 : -1;
    view.place.hidden = !chosen;
    if (chosen && focus) view.tab.focus();
  }
}

for (const view of views) {
  view.tab = element("button", { type: "button", role: "tab", id: `tab-${view.id}`, "aria-controls": `panel-${view.id}`, onclick: () => show(view.id) },
    view.title, element("span", { class: "count" }, view.count.toLocaleString("en")));
  view.place = element("div", { role: "tabpanel", id: `panel-${view.id}`, "aria-labelledby": `tab-${view.id}` },
    element("h2", { class: "panel-title" }, view.title), view.panel);
  document.getElementById("tabs").append(view.tab);
  document.getElementById("panels").append(view.place);
}

document.getElementById("tabs").addEventListener("keydown", (event) => {
  const now = views.findIndex((view) => view.tab === document.activeElement);
  const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: views.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(views[(to + views.length) % views.length].id, true);
});

document.addEventListener("click", (event) => {
  const host = event.target.closest("[data-host]");
  if (host && host.tagName === "BUTTON") detail.open(host.dataset.host);
  const status = event.target.closest("[data-status]");
  if (status) {
    show("hosts");
    matrix.toggle(status.dataset.status);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  show("hosts");
  document.getElementById("filter").focus();
});

(function drawShares() {
  const present = STATUSES.map((status) => [status, hosts.filter((host) => (host.status || "unknown") === status).length]).filter(([, count]) => count);
  const svg = drawn("svg", { role: "img", "aria-label": present.map(([status, count]) => `${count} ${status}`).join(", ") });
  let from = 0;
  for (const [status, count] of present) {
    const part = (100 * count) / hosts.length;
    // a thin one stays visible
    svg.append(drawn("rect", { class: status, x: `${from}%`, y: 0, width: `${Math.max(part, 0.3)}%`, height: "100%" }));
    from += part;
  }
  document.getElementById("share").append(svg);
})();

// The commonest ones of a list, each a filter for the hosts that have it.
const RANKED = 6;
function ranking(id, groups) {
  const place = document.getElementById(id);
  place.hidden = !groups.length;
  const entry = (group) => element("li", {},
    element("span", { class: "count" }, new Set(group.items.map((one) => one.of)).size.toLocaleString("en"), unseen(" hosts: ")),
    element("button", { type: "button", class: "plain", title: group.name, onclick: () => { show("hosts"); matrix.setState({ text: wordsOf(group.name), statuses: new Set() }); } },
      group.name));
  const rest = groups.length - RANKED;
  place.querySelector("ol").replaceChildren(...groups.slice(0, RANKED).map(entry), rest > 0 ? element("li", { class: "quiet" }, element("span"), `and ${rest} more`) : "");
}

// What differs from host to host only by the host's name is the same.
const NAME = "…";
const wordsOf = (name) => `"${name.split(NAME).sort((one, other) => other.length - one.length)[0].trim()}"`;

const stillDiffering = rows.filter((row) => row.status !== "changed").flatMap((row) => row.drift.map((one) => ({ of: row.name, one })));
ranking("differences", counted(stillDiffering, ({ one }) => `${one.field}: ${orNone(one.before)} → ${orNone(one.after)}`));
const problems = hosts.flatMap((host) => listed(host.problems).map((one) => ({ of: host.name, one })));
ranking("failures", counted(problems, ({ of, one }) => problemText(one).replaceAll(of, NAME)));

// How old the report is, seen from now: numbers in it are as of then.
(function tellAge() {
  const days = Math.floor((Date.now() - NOW) / DAY);
  if (days < 1) return;
  const age = document.getElementById("age");
  age.textContent = ` · ${many(days, "day")} ago`;
  if (days > 2) age.className = "soon";
})();

(function theme() {
  const chosen = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("fleetmail-theme"); } catch { return null; } };
  const apply = () => {
    document.documentElement.dataset.theme = chosen.value === "auto" ? (system.matches ? "dark" : "light") : chosen.value;
  };
  chosen.value = ["light", "dark"].includes(stored()) ? stored() : "auto";
  chosen.addEventListener("change", () => {
    try { localStorage.setItem("fleetmail-theme", chosen.value); } catch { /* not kept */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
})();

document.getElementById("print").addEventListener("click", () => print());
addEventListener("beforeprint", () => {
  if (document.querySelector("dialog[open]")) return;
  [matrix, tokens, certificates, sources].forEach((part) => part.table.grow(Infinity));
  findings.groups.forEach((group) => { group.fill(); group.open = true; });
});
addEventListener("hashchange", () => matrix.recall());

// the column of names is as wide as the longest one, within reason
const longest = hosts.reduce((most, host) => Math.max(most, host.name.length), 0);
document.documentElement.style.setProperty("--name", Math.min(longest, 40));

show("hosts");
matrix.recall();
