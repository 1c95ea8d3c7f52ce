// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// Findings of one kind stand together, whatever number of hosts has them; and the relays' certificates.
const findings = (() => {
  const list = hosts.flatMap((host) => listed(host.findings).map((finding) => ({ ...finding, of: host.name })));
  const groups = counted(list, (one) => `${one.severity}\n${one.name || one.finding}\n${one.origin === "certificate" ? one.where : ""}`);
  groups.sort((one, other) => SEVERITIES.indexOf(one.items[0].severity) - SEVERITIES.indexOf(other.items[0].severity)
    || other.items.length - one.items.length);

  // Filled when it is opened: a fleet has thousands.
  function fill(inside, group) {
    if (inside.childNodes.length) return;
    for (const said of counted(group.items, (one) => `${one.finding}\n${one.hint || ""}`)) {
      const [first] = said.items;
      const places = (one) => (one.where && !one.finding.includes(one.where) ? ` ${one.where}` : "");
      inside.append(element("p", {}, first.finding), element("p", { class: "quiet" }, first.hint || ""),
        element("div", { class: "names" }, said.items.map((one) => element("span", {}, hostButton(one.of), element("span", { class: "quiet" }, places(one))))));
    }
  }

  function details(group) {
    const [first] = group.items;
    const count = new Set(group.items.map((one) => one.of)).size;
    const inside = element("div", { class: "inside" });
    const alike = group.items.every((one) => one.finding === first.finding);
    const commonest = counted(group.items, (one) => one.finding)[0].items[0].finding;
    const title = [commonest, alike ? "" : element("span", { class: "quiet" }, " and the like")];
    const made = element("details", { class: "group", ontoggle: () => made.open && fill(inside, group) },
      element("summary", {}, badge(first.severity), element("span", { class: "count" }, many(count, "host")), element("span", {}, title)), inside);
    made.fill = () => fill(inside, group);
    return made;
  }

  const made = groups.map(details);
  return { panel: made.length ? made : [element("p", { class: "empty" }, "No findings.")], count: list.length, groups: made };
})();

const certificates = (() => {
  const list = listed(report.certificates);
  const text = (title, key, read, kind = "value") => ({ title, key, sort: read, cell: (one) => element("td", { class: kind }, read(one)) });
  const kind = (days) => (days < 0 ? "bad" : days <= report.certificate_days ? "soon" : "");
  const table = new LongTable("Certificates of relays by their end", [
    { title: "Relay", key: "relay", sort: (one) => one.relay, cell: (one) => element("th", { scope: "row" }, one.relay) },
    { title: "Ends on", key: "end", sort: (one) => one.not_after, cell: (one) => element("td", { class: `short ${kind(daysUntil(one.not_after))}` }, day(one.not_after)) },
    { title: "Days left", key: "days", headClass: "number", sort: (one) => daysUntil(one.not_after), cell: (one) => element("td", { class: `number ${kind(daysUntil(one.not_after))}` }, String(daysUntil(one.not_after))) },
    text("Subject", "subject", (one) => one.subject || ""),
    text("Issuer", "issuer", (one) => one.issuer || ""),
    text("Names", "names", (one) => shown(one.names)),
    { title: "Seen by", key: "hosts", headClass: "number", sort: (one) => one.hosts || 0, cell: (one) => element("td", { class: "number" }, many(one.hosts || 0, "host")) },
  ], { sorted: "end", empty: "No certificate was seen: no relay was probed." });
  table.show(list);
  return { panel: [table.element], table, count: list.length };
})();

const sources = (() => {
  const replaced = listed(report.replaced);
  const name = (source) => source || "this run";
  const table = new LongTable("Hosts that were in two sources", [
    { title: "Host", key: "host", sort: (one) => one.host, cell: (one) => element("th", { scope: "row" }, hostButton(one.host)) },
    { title: "Reported from", key: "kept", sort: (one) => name(one.kept), cell: (one) => element("td", { class: "value" }, name(one.kept)) },
    { title: "As of", key: "at", sort: (one) => one.kept_observed_at, cell: (one) => element("td", { class: "short" }, minute(one.kept_observed_at)) },
    { title: "Not from", key: "dropped", sort: (one) => name(one.dropped), cell: (one) => element("td", { class: "value" }, name(one.dropped)) },
    { title: "As of", key: "not", sort: (one) => one.dropped_observed_at, cell: (one) => element("td", { class: "short" }, minute(one.dropped_observed_at)) },
  ]);
  table.show(replaced);
  const list = element("ul", { class: "plain" }, listed(report.sources).map((one) =>
    element("li", {}, element("span", { class: "value" }, one.name), element("span", { class: "quiet" }, ` ${minute(one.generated_at)} UTC, ${many(one.hosts || 0, "host")}`))));
  const panel = [list, replaced.length ? element("h3", {}, "In two of them: what was seen last is reported") : "", replaced.length ? table.element : ""];
  return { panel: panel.filter(Boolean), table, count: listed(report.sources).length };
})();
