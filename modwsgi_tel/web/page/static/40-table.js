// Tables: columns as data, order and page in the address.
//
//   table({caption, columns, rows, id(row), answer, limit, falls, opened(row), empty})
//
// columns: [{title, text(row), cell(row), tone(row), left, sort, falls, hint}].  `text` what is shown (and copied), `cell`
// nodes in its place; `left`: not a figure; `wrap`: sentences; `sort`: its name for the collector, `falls`: the largest come first;
// `order`: {sort, falls} of the table without a choice.  `id` tells rows apart; `opened(row)` nodes that stand below an
// open row (state.open is its id as text).  With `limit` and the answer's "matched" and "offset" it has pages.

function table({caption, columns, rows, id, answer, limit, order, opened, empty = "nothing"}) {
  const sort = state.sort || (order && order.sort);
  const head = h("tr", {}, columns.map((column) => {
    const chosen = column.sort && column.sort === sort;
    const falling = chosen && falls(column);
    const attributes = {scope: "col", class: column.left ? "left" : "", title: column.hint,
      "aria-sort": chosen ? falling ? "descending" : "ascending" : column.sort ? "none" : undefined};
    if (!column.sort) return h("th", attributes, column.title);
    return h("th", attributes, h("button", {type: "button", class: "sort", onclick: () => go({sort: column.sort, offset: undefined,
      order: chosen ? falling ? "asc" : "desc" : undefined})}, column.title, h("span", {class: "arrow", "aria-hidden": "true"},
      chosen ? falling ? "\u25bc" : "\u25b2" : "")));
  }));
  function falls(column) {
    return state.order ? state.order === "desc" : Boolean(column.falls);
  }
  const body = [];
  for (const row of rows) {
    const key = String(id ? id(row) : body.length);
    const open = opened && state.open === key;
    body.push(h("tr", {key, class: [open ? "open" : "", opened ? "opens" : ""].join(" ").trim(), onclick: opened ? clicked : undefined}, columns.map((column, place) => {
      const shown = column.cell ? column.cell(row) : column.text(row);
      const attributes = {class: [column.left ? "left" : "", column.wrap ? "wrap" : "", column.tone ? column.tone(row) : ""].join(" ").trim()};
      if (place || !opened) return h(place ? "td" : "th", place ? attributes : {...attributes, scope: "row"}, shown);
      return h("th", {...attributes, scope: "row"}, h("button", {type: "button", class: "opener", "aria-expanded": String(Boolean(open)),
        onclick: () => go({open: open ? undefined : key}, false), onkeydown: neighbour}, shown));
    })));
    if (open) body.push(h("tr", {key: key + " below", class: "below"}, h("td", {colspan: columns.length}, opened(row))));
  }
  return [h("div", {class: "scroll", key: "table " + caption, tabindex: "0", role: "region", "aria-label": caption}, h("table", {},
    h("caption", {class: "unseen"}, caption), h("thead", {}, head), h("tbody", {}, body))),
    rows.length ? null : h("p", {class: "dim", key: "none " + caption}, answer && answer.matched ? "the list has become shorter" : empty),
    limit && answer ? pager(answer, rows.length, limit) : null];
}

// A click anywhere in a row is one on what opens it, but for what does something of its own, and for text that was marked.
function clicked(event) {
  if (!event.target.closest("a, button, input, select, summary") && !String(getSelection())) event.currentTarget.querySelector(".opener").click();
}

// Up and down between the rows that can be opened.
function neighbour(event) {
  const by = {ArrowDown: 1, ArrowUp: -1, j: 1, k: -1}[event.key];
  if (!by) return;
  event.preventDefault();
  event.stopPropagation();
  const all = [...event.currentTarget.closest("tbody").querySelectorAll(".opener")];
  const next = all[all.indexOf(event.currentTarget) + by];
  if (next) next.focus();
}

// The order that a table's path asks for.
function ordered(columns, otherwise) {
  const column = columns.find((each) => each.sort && each.sort === state.sort) || columns.find((each) => each.sort === otherwise);
  const order = state.order === "asc" || state.order === "desc" ? state.order : column && column.falls ? "desc" : "asc";
  return {sort: column ? column.sort : undefined, order};
}

// Where the page begins, as the address has it.
function offsetOf() {
  return /^\d{1,9}$/.test(state.offset || "") ? Number(state.offset) : 0;
}

function pager(answer, shown, limit) {
  const {matched, offset} = answer;
  if (!(matched > limit) && !offset) return h("p", {class: "pager dim"}, counted(matched || 0, "row"));
  const step = (to, title, off) => h("button", {type: "button", disabled: off, onclick: () => go({offset: to || undefined})}, title);
  return h("p", {class: "pager"}, step(Math.max(0, offset - limit), "\u2190 before", offset <= 0),
    h("span", {}, `${count(offset + 1)} to ${count(offset + shown)} of ${count(matched)}`),
    step(offset + limit, "next \u2192", offset + shown >= matched));
}

let searching = null;

// The field of "/": what is typed is asked for a moment later, and stands in the address.
function searchBox(hint = "search") {
  return h("label", {class: "search"}, h("span", {class: "unseen"}, hint),
    h("input", {type: "search", id: "search", placeholder: hint + "  (/)", maxlength: 80, autocomplete: "off", spellcheck: "false",
      value: state.search || "", oninput: (event) => {
        const text = event.target.value;
        clearTimeout(searching);
        searching = setTimeout(() => go({search: text || undefined, offset: undefined}), 200);
      }}));
}

// A choice of one of some: [[value, title]]; value undefined is the default.
function choice(name, label, options) {
  return h("label", {class: "choice"}, h("span", {}, label), h("select", {onchange: (event) =>
    go({[name]: event.target.value || undefined, offset: undefined})}, options.map(([value, title]) =>
    h("option", {value: value || "", selected: (state[name] || "") === (value || "")}, title))));
}

// Names and figures, [[name, what]], those without a figure left out.
function facts(pairs) {
  const told = pairs.filter(([, what]) => what !== null && what !== undefined && what !== UNKNOWN && what !== "");
  return h("dl", {class: "facts"}, told.map(([name, what]) => h("div", {key: name}, h("dt", {}, name), h("dd", {}, what))));
}

// A text in place of an answer that is not there; null when it is.
function missing(answers, name, what = "") {
  if (answers.errors[name] !== undefined) return h("p", {class: "warn"}, (what ? what + ": " : "") + answers.errors[name]);
  return answers[name] === undefined ? h("p", {class: "dim"}, (what ? what + ": " : "") + "asking the collector") : null;
}

// A part of a view with its heading.
function section(title, ...children) {
  return h("section", {key: "section " + title}, h("h2", {}, title), children);
}
