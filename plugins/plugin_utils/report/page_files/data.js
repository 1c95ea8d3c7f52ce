// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

"use strict";

// The document as it was written: what many hosts have in common stands once, in the pool.
const report = (() => {
  const { pool, document: root } = JSON.parse(document.getElementById("data").textContent);
  const known = [];
  const restored = (value) => {
    if (Array.isArray(value)) return value.map(restored);
    if (value === null || typeof value !== "object") return value;
    if ("$" in value) return known[value.$];
    // no prototype: a field of a host may be called anything
    return Object.assign(Object.create(null), Object.fromEntries(Object.entries(value).map(([key, one]) => [key, restored(one)])));
  };
  pool.forEach((entry) => known.push(restored(entry)));
  return restored(root);
})();

// What is empty was left out.
const listed = (value) => value || [];

const STATUSES = ["unreachable", "failed", "drifting", "changed", "unknown", "audited", "compliant"];
const SEVERITIES = ["critical", "warning", "info"];
const FIELDS = ["enabled", "host", "port", "security", "auth_type", "username", "password", "ca_file",
  "validate_certs", "from_address", "senders", "timeout"];
const DAY = 86400000;
const NOW = Date.parse(report.generated_at);

const collator = new Intl.Collator("en", { numeric: true });

function shown(value) {
  if (value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length)) return "";
  if (value === true) return "yes";
  if (value === false) return "no";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

const orNone = (value) => shown(value) || "(none)";
const day = (time) => (time || "").slice(0, 10);
const minute = (time) => (time || "").slice(0, 16).replace("T", " ");
const daysUntil = (time) => (time ? Math.floor((Date.parse(time) - NOW) / DAY) : null);

// One row of the matrix for each service of a host, for each consumer where nothing is declared, else for the host.
function rowsOf(host) {
  const common = { host, name: host.name };
  // what befell the host beside its services befell each of them
  const own = listed(host.services).some((service) => service.status === host.status);
  const services = listed(host.services).map((service) => ({ ...common, status: own ? service.status : host.status, service,
    backend: service.backend || "", label: service.name, form: service.form || {}, drift: listed(service.drift) }));
  if (services.length) return services;
  const consumers = listed(host.consumers).map((consumer) => ({ ...common, status: host.status, service: consumer,
    backend: consumer.backend || "", label: consumer.name, form: consumer.form || {}, drift: [] }));
  return consumers.length ? consumers : [{ ...common, status: host.status, backend: "", label: "", form: {}, drift: [] }];
}

function problemText(problem) {
  return [problem.option, problem.problem].filter(Boolean).join(": ");
}

// All that a row can be found by, in lower case.
function haystack(row) {
  const { host } = row;
  return [row.name, row.status, row.backend, row.label, host.source, ...listed(host.groups),
    ...Object.entries(row.form).map(([field, value]) => `${field}: ${shown(value)}`),
    ...row.drift.map((one) => `${one.field}: ${orNone(one.before)} → ${orNone(one.after)}`),
    ...listed(host.problems).map(problemText), ...listed(host.findings).map((one) => `${one.severity} ${one.finding}`),
    ...listed(host.tokens).map((one) => `token ${one.name} ${one.status} ${one.authorized_user || ""}`),
  ].join("\n").toLowerCase();
}

const rows = report.hosts ? report.hosts.flatMap(rowsOf) : [];
rows.forEach((row, index) => {
  row.place = index;
  row.text = haystack(row);
  row.differs = new Map(row.drift.map((one) => [one.field, one]));
});
const hosts = listed(report.hosts);
const byName = new Map(hosts.map((host) => [host.name, host]));

// Count what a list is made of: [[key, count, first], ...], the most frequent first.
function counted(list, key) {
  const counts = new Map();
  for (const one of list) {
    const name = key(one);
    const found = counts.get(name);
    if (found) found.items.push(one);
    else counts.set(name, { name, items: [one] });
  }
  return [...counts.values()].sort((one, other) => other.items.length - one.items.length || collator.compare(one.name, other.name));
}
