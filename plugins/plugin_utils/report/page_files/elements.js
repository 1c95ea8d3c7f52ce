// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// Make an element. Everything is text or an element: nothing is ever read as HTML.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== undefined && one !== ""));
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
}

function icon(name) {
  return drawn("svg", { class: `icon ${name}`, "aria-hidden": "true" }, drawn("use", { href: `#${name}` }));
}

const statusMark = (status) => element("span", { class: "status" }, icon(status), status);
const badge = (severity) => element("span", { class: `badge ${severity}` }, severity);
const unseen = (text) => element("span", { class: "unseen" }, text);
const hostButton = (name) => element("button", { type: "button", class: "plain", "data-host": name }, name);

function tell(text) {
  document.getElementById("told").textContent = text;
}

const many = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
