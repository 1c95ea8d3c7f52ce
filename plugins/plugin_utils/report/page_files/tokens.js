// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// Tokens: which grant dies when. Dead ones first, then by the day.
const DEAD = ["expired", "revoked", "unauthorized", "misconfigured", "blocked"];

function tokenKind(token) {
  if (DEAD.includes(token.status)) return "bad";
  return token.status === "authorized" ? "" : "soon";
}

function deathOf(token) {
  if (DEAD.includes(token.status)) return -1e9 + DEAD.indexOf(token.status);
  return token.refresh_expires_at ? Date.parse(token.refresh_expires_at) / DAY : null;
}

function tokensByDeath(tokens) {
  return [...tokens].sort((one, other) => (deathOf(one) ?? Infinity) - (deathOf(other) ?? Infinity));
}

function tokenWord(token) {
  const days = daysUntil(token.refresh_expires_at);
  return DEAD.includes(token.status) || days === null ? token.status : `${token.status}, ${days} d`;
}

const tokens = (() => {
  const list = hosts.flatMap((host) => listed(host.tokens).map((token) => ({ ...token, of: host.name, host })));
  const ends = list.map((token) => daysUntil(token.refresh_expires_at)).filter((days) => days !== null && days > 0);
  // the axis ends with the month in which the last one dies, in a year at the latest
  const last = Math.min(366, Math.max(30, ...ends) + 3);
  const at = (days) => (100 * Math.max(0, Math.min(days, last))) / last;

  function axis() {
    const svg = drawn("svg", { class: "axis", "aria-hidden": "true" });
    const month = new Date(NOW);
    month.setUTCDate(1);
    const step = last > 200 ? 2 : 1;
    for (let index = 0; index < 14; index += 1) {
      month.setUTCMonth(month.getUTCMonth() + 1);
      const days = (Date.UTC(month.getUTCFullYear(), month.getUTCMonth(), 1) - NOW) / DAY;
      if (days > last - 2) break;
      if (index % step) continue;
      svg.append(drawn("line", { x1: `${at(days)}%`, x2: `${at(days)}%`, y1: 10, y2: 16 }),
        drawn("text", { x: `${at(days)}%`, y: 9 }, month.toLocaleDateString("en", { month: "short", year: "2-digit", timeZone: "UTC" })));
    }
    return svg;
  }

  function life(token) {
    const days = daysUntil(token.refresh_expires_at);
    const svg = drawn("svg", { class: "life", "aria-hidden": "true" }, drawn("line", { x1: 0, x2: "100%", y1: 8, y2: 8 }));
    if (DEAD.includes(token.status) || (days !== null && days < 0)) {
      svg.append(drawn("rect", { class: "dead", x: 0, y: 2, width: 4, height: 12 }));
    } else if (days !== null) {
      const kind = token.status === "authorized" ? "alive" : "soon";
      svg.append(drawn("rect", { class: kind, x: 0, y: 5, width: `${at(days)}%`, height: 6 }),
        drawn("rect", { class: "end", x: `${at(days)}%`, y: 2, width: 2, height: 12 }));
    }
    return svg;
  }

  const text = (title, key, read, kind = "short") => ({ title, key, sort: read, cell: (token) => element("td", { class: kind }, read(token)) });
  const dies = (token) => (DEAD.includes(token.status) ? "dead" : day(token.refresh_expires_at) || "does not end");
  const table = new LongTable("Tokens by the day their grant dies", [
    { title: "Host", key: "of", sort: (token) => token.of, cell: (token) => element("th", { scope: "row" }, hostButton(token.of)) },
    text("Token", "name", (token) => token.name || ""),
    { title: "Status", key: "status", sort: (token) => token.status, cell: (token) => element("td", { class: `short ${tokenKind(token)}` }, token.status) },
    text("User", "user", (token) => token.authorized_user || "", "value"),
    text("Provider", "provider", (token) => token.provider || ""),
    { title: "Dies on", key: "death", sort: deathOf, cell: (token) => element("td", { class: `short ${tokenKind(token)}` }, dies(token)) },
    { title: "Days", key: "days", headClass: "number", sort: (token) => daysUntil(token.refresh_expires_at),
      cell: (token) => element("td", { class: "number" }, shown(daysUntil(token.refresh_expires_at))) },
    { title: "Life left", key: "life", headClass: "axis-head", head: axis, cell: (token) => element("td", {}, life(token)) },
    text("What to do", "next", (token) => token.next_step || "", "words"),
  ], { sorted: "death", empty: "No host has a token." });
  table.show(list);
  return { panel: [table.element], table, count: list.length };
})();
