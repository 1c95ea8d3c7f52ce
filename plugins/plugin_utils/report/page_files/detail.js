// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// All that is known of one host.
const detail = (() => {
  const dialog = document.getElementById("detail");
  let opener = null;

  const titled = (title, ...content) => [element("h3", {}, title), ...content];
  const pairs = (entries) => element("table", {}, element("tbody", {}, entries.filter(([, value]) => shown(value) !== "").map(([key, value]) =>
    element("tr", {}, element("th", { scope: "row" }, key), element("td", { class: "value" }, shown(value))))));

  function formTable(service) {
    const drift = new Map(listed(service.drift).map((one) => [one.field, one]));
    const form = service.form || {};
    const names = [...new Set([...FIELDS.filter((field) => field in form), ...Object.keys(form), ...drift.keys()])];
    const changed = service.status === "changed";
    const row = (field) => {
      const found = drift.get(field);
      const cells = found ? [orNone(found.before), orNone(found.after)] : [shown(form[field]), ""];
      return element("tr", {}, element("th", { scope: "row" }, field),
        cells.map((text) => element("td", { class: `value${found ? (changed ? " was" : " differs") : ""}` }, text)));
    };
    const heads = drift.size ? (changed ? ["Field", "Was", "Is now"] : ["Field", "Is", "Should be"]) : ["Field", "Is", ""];
    return element("table", {}, element("thead", {}, element("tr", {}, heads.map((one) => element("th", { scope: "col" }, one || unseen("nothing differs"))))),
      element("tbody", {}, names.filter((field) => drift.has(field) || shown(form[field]) !== "").map(row)));
  }

  function diffBlock(text) {
    const kind = (line) => (/^(\+\+\+|---|@@)/.test(line) ? "head" : line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : "");
    return element("pre", { class: "diff", tabindex: "0", role: "region", "aria-label": "Difference" },
      text.replace(/\n$/, "").split("\n").map((line) => element("span", { class: kind(line) }, line || " ")));
  }

  function verification(found) {
    const tls = found.tls || {};
    const steps = listed(found.steps).map((step) => element("tr", {}, element("th", { scope: "row" }, icon(step.ok ? "compliant" : "failed"), step.name,
      unseen(step.ok ? " succeeded" : " failed")), element("td", { class: "value" }, step.detail || ""), element("td", { class: "number" }, step.ms === undefined ? "" : `${step.ms} ms`)));
    const certificate = tls.not_after ? `until ${day(tls.not_after)}, ${daysUntil(tls.not_after)} days left` : "";
    return [
      element("table", {}, element("tbody", {}, steps)),
      pairs([["asked for", found.level], ["reached", found.reached], ["TLS", [tls.version, tls.cipher].filter(Boolean)], ["certificate", tls.subject],
        ["issuer", tls.issuer], ["names", tls.names], ["valid", certificate], ["offers", found.capabilities], ["mechanisms", found.auth_mechanisms], ["what to do", found.next_step]]),
    ];
  }

  function sent(test) {
    return pairs([["sent", test.sent === true], ["via", test.via], ["reply", test.reply], ["message id", test.message_id], ["queue id", test.queue_id], ["not tried", test.skipped]]);
  }

  // In check mode, and where a change was put back, it is not so now.
  function fileLine(service, file) {
    if (service.status === "drifting") return `${file.path} would be ${file.action}`;
    return `${file.path} ${file.action}${service.rolled_back ? ", and put back" : ""}`;
  }

  const lines = (list, read) => element("ul", { class: "plain value" }, list.map((one) => element("li", {}, read(one))));

  function serviceParts(service) {
    return [
      ...titled(`Service ${service.name || ""} (${service.backend || "no backend"})`, element("p", {}, statusMark(service.status || "unknown"),
        service.rolled_back ? " · put back as it was" : "")),
      formTable(service),
      service.diff ? titled("Difference", diffBlock(service.diff)) : "",
      service.files ? titled("Files", lines(service.files, (one) => fileLine(service, one))) : "",
      service.actions ? titled("Commands", lines(service.actions, (one) => one)) : "",
      service.verification ? titled("Conversation with the relay", verification(service.verification)) : "",
      service.test_send ? titled("Test mail", sent(service.test_send)) : "",
      service.warnings ? titled("Warnings", lines(service.warnings, (one) => one)) : "",
    ].flat(3);
  }

  function tokenParts(token) {
    const known = ["status", "cause", "authorized_user", "authorized_at", "refreshed_at", "expires_at", "refresh_expires_at", "scope", "missing_scope",
      "grant", "provider", "error", "error_description", "next_step"];
    return titled(`Token ${token.name || ""}`, pairs([...known.map((key) => [key.replace(/_/g, " "), token[key]]), ["days left", daysUntil(token.refresh_expires_at)]]));
  }

  const finding = (one) => element("div", { class: `finding ${one.severity}` }, badge(one.severity), " ", element("span", {}, one.finding || ""),
    one.where && !(one.finding || "").includes(one.where) ? element("span", { class: "quiet" }, ` ${one.where}`) : "", element("span", { class: "hint" }, one.hint || ""));
  const problem = (one) => element("div", { class: "problem" }, problemText(one), element("span", { class: "hint" }, one.hint || ""));
  const consumer = (one) => [...titled(`Found: ${one.name || ""} (${one.backend || "?"})`,
    pairs([["file", one.path], ["of user", one.user], ["managed", one.managed === true], ...Object.entries(one.form || {})])),
    one.verification ? titled("Conversation with the relay", verification(one.verification)) : ""];

  function content(host) {
    return [
      listed(host.problems).map(problem),
      listed(host.findings).length ? titled("Findings", listed(host.findings).map(finding)) : "",
      listed(host.services).flatMap(serviceParts),
      listed(host.tokens).flatMap(tokenParts),
      listed(host.probes).flatMap((probe) => titled(`Probe of ${probe.target || "a relay"}`, verification(probe.verification || {}), probe.test_send ? sent(probe.test_send) : "")),
      listed(host.consumers).flatMap(consumer),
    ].flat(4).filter(Boolean);
  }

  function head(host) {
    const facts = [minute(host.observed_at) && `as of ${minute(host.observed_at)} UTC`, host.source && `from ${host.source}`,
      listed(host.groups).length && `groups ${host.groups.join(", ")}`];
    const button = (text, go, hint) => element("button", { type: "button", onclick: go, title: hint }, text);
    return [
      element("header", {}, element("h2", { id: "detail-name", tabindex: "-1" }, host.name),
        element("div", { class: "buttons" }, button("Previous", () => step(host, -1), "←"), button("Next", () => step(host, 1), "→"),
          button("Print", () => print()), button("Close", () => dialog.close(), "Esc"))),
      element("p", {}, statusMark(host.status || "unknown"), element("span", { class: "quiet" }, [" ", ...facts.filter(Boolean)].join(" · "))),
    ];
  }

  // The one before or after it in the matrix as it is filtered and sorted now.
  function step(host, by) {
    const names = matrix.names();
    const next = names[(names.indexOf(host.name) + by + names.length) % names.length];
    if (next) open(next);
  }

  function open(name) {
    const host = byName.get(name);
    if (!host) return;
    dialog.replaceChildren(element("div", { class: "sheet" }, head(host), content(host)));
    dialog.scrollTop = 0;
    dialog.dataset.host = name;
    if (!dialog.open) {
      opener = document.activeElement;
      dialog.showModal();
    }
    document.getElementById("detail-name").focus();
  }

  dialog.addEventListener("close", () => opener && opener.isConnected && opener.focus());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("pre") || event.altKey || event.ctrlKey || event.metaKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(byName.get(dialog.dataset.host), by);
  });
  return { open };
})();
