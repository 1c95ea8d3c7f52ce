// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// A table that shows thousands of rows: the first ones at once, more as they come into sight, all of them on paper.
const AT_ONCE = 60;

class LongTable {
  // columns: [{title, key, cell(row) -> td or th, sort(row) -> text or number (optional), head(th) (optional)}]
  constructor(label, columns, { sorted = null, empty = "Nothing here." } = {}) {
    this.label = label;
    this.empty = empty;
    this.order = sorted ? { key: sorted, up: true } : null;
    this.head = element("tr");
    this.body = element("tbody");
    this.more = element("button", { type: "button", onclick: () => this.grow(Infinity) });
    this.rest = element("div", { class: "more", hidden: true }, this.more);
    this.table = element("table", {}, element("caption", { class: "unseen" }, label), element("thead", {}, this.head), this.body);
    this.element = element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": label },
      this.table, this.rest);
    this.rows = [];
    this.count = 0;
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.grow(AT_ONCE),
      { root: this.element, rootMargin: "600px" }).observe(this.rest);
    this.setColumns(columns);
  }

  setColumns(columns) {
    this.columns = columns;
    this.head.replaceChildren(...columns.map((column) => this.headOf(column)));
  }

  headOf(column) {
    const cell = element("th", { scope: "col", class: column.headClass });
    if (column.sort) {
      cell.append(element("button", { type: "button", onclick: () => this.sortBy(column.key) }, column.title),
        // buttons are not drawn where a head is repeated on the next sheet of paper
        element("span", { class: "paper", "aria-hidden": "true" }, column.title));
      if (this.order && this.order.key === column.key) cell.setAttribute("aria-sort", this.order.up ? "ascending" : "descending");
    } else {
      cell.append(element("span", {}, column.title));
    }
    if (column.head) cell.append(column.head());
    return cell;
  }

  sortBy(key) {
    this.order = { key, up: !(this.order && this.order.key === key && this.order.up) };
    const focused = this.columns.findIndex((column) => column.key === key);
    this.setColumns(this.columns);
    this.head.children[focused].firstChild.focus();
    this.show(this.rows);
    tell(`Sorted by ${this.columns[focused].title}, ${this.order.up ? "ascending" : "descending"}`);
  }

  // Show these rows, in the chosen order. Missing values come last whichever way it goes.
  show(rows) {
    this.rows = rows;
    const column = this.order && this.columns.find((one) => one.key === this.order.key && one.sort);
    this.sorted = column ? sortedBy(rows, column.sort, this.order.up) : rows;
    this.count = 0;
    this.body.replaceChildren();
    this.element.scrollTop = 0;
    this.grow(AT_ONCE);
    if (!rows.length) {
      this.body.append(element("tr", {}, element("td", { class: "empty", colspan: this.columns.length }, this.empty)));
    }
  }

  grow(by) {
    const next = this.sorted ? this.sorted.slice(this.count, this.count + by) : [];
    this.count += next.length;
    const made = document.createDocumentFragment();
    next.forEach((row) => made.append(this.rowOf(row)));
    this.body.append(made);
    const left = this.rows.length - this.count;
    this.rest.hidden = left <= 0;
    this.more.textContent = `Show all ${this.rows.length.toLocaleString("en")}`;
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
  }

  // A column of a group may be left out of a row that says one thing in place of the whole group.
  rowOf(row) {
    const said = this.instead && this.instead(row);
    if (!said) return element("tr", {}, this.columns.map((column) => column.cell(row)));
    const first = this.columns.findIndex((column) => column.grouped);
    said.setAttribute("colspan", this.columns.filter((column) => column.grouped).length);
    return element("tr", {}, this.columns.flatMap((column, index) => (index === first ? [said] : column.grouped ? [] : [column.cell(row)])));
  }
}

function sortedBy(rows, key, up) {
  const keyed = rows.map((row) => [key(row), row]);
  const missing = (value) => value === null || value === undefined || value === "";
  const turn = up ? 1 : -1;
  keyed.sort(([one], [other]) => {
    if (missing(one) || missing(other)) return missing(one) - missing(other);
    return turn * (typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other));
  });
  return keyed.map(([, row]) => row);
}
