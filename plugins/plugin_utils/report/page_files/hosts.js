// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// The matrix: hosts by fields, what differs marked, and its filters.
const matrix = (() => {
  const fields = (() => {
    const seen = new Set(rows.flatMap((row) => Object.keys(row.form)));
    seen.delete("state");
    const known = FIELDS.filter((field) => seen.has(field));
    return [...known, ...[...seen].filter((field) => !known.includes(field)).sort()];
  })();
  const inForm = new Set(fields);

  // Fields that say the same on every host and differ nowhere are told in one sentence.
  const uniform = new Map();
  for (const field of fields) {
    const having = rows.filter((row) => Object.keys(row.form).length);
    const said = new Set(having.map((row) => shown(row.form[field])));
    if (having.length > 1 && said.size === 1 && !rows.some((row) => row.differs.has(field))) uniform.set(field, [...said][0]);
  }

  // All of it is in the host's detail.
  const brief = (text, longest = 100) => (text.length > longest ? `${text.slice(0, longest)}…` : text);

  function valueCell(row, field) {
    const drift = row.differs.get(field);
    if (!drift) return element("td", { class: "value" }, brief(shown(row.form[field])));
    const [before, after] = [orNone(drift.before), orNone(drift.after)];
    if (row.status === "changed") {
      return element("td", { class: "value was" }, unseen("changed to "), element("b", {}, brief(after)), " ",
        element("span", { class: "wanted" }, `was ${brief(before)}`));
    }
    return element("td", { class: "value differs" }, unseen("differs: is "), element("b", {}, brief(before)),
      unseen(", should be "), " ", element("span", { class: "wanted" }, element("span", { "aria-hidden": "true" }, "→\u00a0"), brief(after)));
  }

  // What differs beside the form, and why a host failed.
  function noteLines(row) {
    const others = row.drift.filter((one) => !inForm.has(one.field));
    const lines = others.map((one) => `${one.field}: ${orNone(one.before)} → ${orNone(one.after)}`);
    return [...listed(row.host.problems).map(problemText), ...lines];
  }

  function notesCell(row) {
    const lines = noteLines(row);
    const differs = row.drift.some((one) => !inForm.has(one.field));
    const kind = differs ? (row.status === "changed" ? " was" : " differs") : "";
    return element("td", { class: `words${kind}` }, lines.slice(0, 4).map((line) => element("span", { class: "line" }, brief(line, 300))),
      lines.length > 4 && element("span", { class: "line quiet" }, `and ${lines.length - 4} more`) || "");
  }

  const worstOf = (row) => Math.min(...listed(row.host.findings).map((one) => SEVERITIES.indexOf(one.severity)), 9);
  function findingsCell(row) {
    const found = listed(row.host.findings);
    if (!found.length) return element("td");
    return element("td", { class: "short" }, badge(SEVERITIES[worstOf(row)]), found.length > 1 ? ` +${found.length - 1}` : "");
  }

  const tlsOf = (row) => row.service && row.service.verification && row.service.verification.tls;
  const certificateDays = (row) => (tlsOf(row) ? daysUntil(tlsOf(row).not_after) : null);
  function certificateCell(row) {
    const days = certificateDays(row);
    if (days === null) return element("td");
    const kind = days < 0 ? "bad" : days <= report.certificate_days ? "soon" : "";
    return element("td", { class: `number ${kind}` }, days < 0 ? `ended ${-days} d ago` : `${days} d`);
  }

  function tokenCell(row) {
    const worst = tokensByDeath(listed(row.host.tokens))[0];
    if (!worst) return element("td");
    return element("td", { class: `short ${tokenKind(worst)}` }, tokenWord(worst));
  }

  const several = counted(hosts, (host) => String(rowsOf(host).length)).some((group) => Number(group.name) > 1)
    || rows.some((row) => row.label && row.label !== "default");

  function columns(all) {
    const text = (title, key, read) => ({ title, key, sort: read, cell: (row) => element("td", { class: "short" }, read(row)) });
    return [
      { title: "Host", key: "name", sort: (row) => row.name, cell: (row) => element("th", { scope: "row" }, hostButton(row.name)) },
      { title: "Status", key: "status", sort: (row) => STATUSES.indexOf(row.status) + 1, cell: (row) => element("td", {}, statusMark(row.status)) },
      ...(several ? [text("Service", "label", (row) => row.label || "")] : []),
      { ...text("Backend", "backend", (row) => row.backend), grouped: true },
      ...fields.filter((field) => all || !uniform.has(field)).map((field) => ({ title: field, key: field, grouped: true,
        sort: (row) => (typeof row.form[field] === "number" ? row.form[field] : shown(row.form[field])), cell: (row) => valueCell(row, field) })),
      ...(rows.some((row) => noteLines(row).length) ? [{ title: "Also", key: "notes", grouped: true,
        sort: (row) => noteLines(row)[0] || "", cell: notesCell }] : []),
      ...(rows.some(tlsOf) ? [{ title: "Certificate", key: "certificate", headClass: "number", sort: certificateDays, cell: certificateCell }] : []),
      ...(hosts.some((host) => host.tokens) ? [{ title: "Token", key: "token", cell: tokenCell,
        sort: (row) => { const first = tokensByDeath(listed(row.host.tokens))[0]; return first ? deathOf(first) : null; } }] : []),
      ...(hosts.some((host) => host.findings) ? [{ title: "Findings", key: "findings", cell: findingsCell,
        sort: (row) => (worstOf(row) === 9 ? null : worstOf(row)) }] : []),
    ];
  }

  const table = new LongTable("Hosts by fields", columns(false), { sorted: "status", empty: "No host matches the filter." });
  // Where nothing is known of a host's mail, the reason takes the room.
  table.instead = (row) => (Object.keys(row.form).some((field) => field !== "state") || row.drift.length ? null : notesCell(row));
  const state = { text: "", statuses: new Set(), backend: "", severity: "", all: false };
  const words = element("input", { type: "search", id: "filter", placeholder: "host, group, value, problem …", autocomplete: "off", spellcheck: "false" });
  const option = (value) => element("option", { value }, value);
  const backends = [...new Set(rows.map((row) => row.backend).filter(Boolean))].sort();
  const backend = element("select", {}, element("option", { value: "" }, "all"), backends.map(option));
  const severity = element("select", {}, element("option", { value: "" }, "any or none"), SEVERITIES.map((one) => element("option", { value: one }, `${one} or worse`)));
  const all = element("input", { type: "checkbox" });
  const shownCount = element("span", { class: "shown" });
  const same = element("p", { class: "same" });
  let current = rows;

  // Every word must be found; field:value is a word too.
  function matches(row, searched) {
    return searched.every((word) => row.text.includes(word))
      && (!state.statuses.size || state.statuses.has(row.status))
      && (!state.backend || row.backend === state.backend)
      && (!state.severity || worstOf(row) <= SEVERITIES.indexOf(state.severity));
  }

  function searchedFor(text) {
    const found = text.toLowerCase().match(/"[^"]+"|\S+/g) || [];
    return found.map((word) => word.replace(/^"|"$/g, "").replace(/^(\w+):(?=\S)/, "$1: "));
  }

  function update() {
    const searched = searchedFor(state.text);
    current = rows.filter((row) => matches(row, searched));
    table.show(current);
    const count = new Set(current.map((row) => row.name)).size;
    shownCount.textContent = `${count.toLocaleString("en")} of ${many(hosts.length, "host")}`;
    document.querySelectorAll("[data-status]").forEach((button) => button.setAttribute("aria-pressed", state.statuses.has(button.dataset.status)));
    tell(`${many(count, "host")} shown`);
    remember();
  }

  function showUniform() {
    same.hidden = state.all || !uniform.size;
    same.replaceChildren("The same on every host: ", ...[...uniform].flatMap(([field, value], index) =>
      [index ? " · " : "", `${field} `, element("b", { class: "value" }, value || "(none)")]));
  }

  function setState(change) {
    Object.assign(state, change);
    words.value = state.text;
    backend.value = state.backend;
    severity.value = state.severity;
    if ("all" in change) {
      all.checked = state.all;
      table.setColumns(columns(state.all));
      showUniform();
    }
    update();
  }

  // The filter stands in the address, so that it can be kept and sent.
  function remember() {
    const told = new URLSearchParams();
    if (state.text) told.set("q", state.text);
    if (state.statuses.size) told.set("status", [...state.statuses].join(","));
    if (state.backend) told.set("backend", state.backend);
    if (state.severity) told.set("severity", state.severity);
    const hash = told.toString();
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch { /* a page that is not a file or from a server has no address of its own */ }
  }

  function recall() {
    const told = new URLSearchParams(location.hash.slice(1));
    const wanted = (told.get("status") || "").split(",").filter((status) => STATUSES.includes(status));
    setState({ text: told.get("q") || "", statuses: new Set(wanted), all: false,
      backend: backends.includes(told.get("backend")) ? told.get("backend") : "",
      severity: SEVERITIES.includes(told.get("severity")) ? told.get("severity") : "" });
  }

  function toggle(status) {
    const statuses = new Set(state.statuses);
    if (!statuses.delete(status)) statuses.add(status);
    setState({ statuses });
  }

  let waiting = 0;
  words.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => setState({ text: words.value }));
  });
  backend.addEventListener("change", () => setState({ backend: backend.value }));
  severity.addEventListener("change", () => setState({ severity: severity.value }));
  all.addEventListener("change", () => setState({ all: all.checked }));
  const clear = element("button", { type: "button", onclick: () => setState({ text: "", statuses: new Set(), backend: "", severity: "" }) }, "Clear");

  const panel = [
    element("div", { class: "bar" },
      element("label", { class: "inline" }, "Filter", words),
      element("label", { class: "inline" }, "Backend", backend),
      element("label", { class: "inline" }, "Findings", severity),
      uniform.size ? element("label", { class: "inline" }, all, "all fields") : "",
      clear, shownCount),
    same, table.element];
  return { panel, table, toggle, recall, setState, names: () => [...new Set(table.sorted.map((row) => row.name))] };
})();
