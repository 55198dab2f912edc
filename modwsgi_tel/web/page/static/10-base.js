// The ground of the page: nodes, the state in the address, and the views.  All files are one scope.
//
//   h("td", {class: "num", title: text, onclick: fn, key: id}, child, [children], "text", null)
//   s("path", {d: "..."})                     the same in SVG
//
// make plain descriptions; `patch(element, description)` makes an element's content so, touching only
// what differs: focus, selection, scrolling and what is unfolded stay.  Text is always a text node, and
// always printable (controls and bidirectional marks as escapes; line ends stay in pre and textarea).
// Attributes: `key` tells rows apart that move; `same`: while it is the same, the content is not
// looked at; `after(element)` is called once the element is there, and after each change of it;
// `style: {"--part": "12%"}` sets properties; `value`, `checked` and `disabled` are those of a field.
// A child may be a DOM node of your own (a canvas): it stays what it is.
//
//   view({id, title, key, paths(state), draw(answers, state), text(answers, state), keys, search})
//
// registers a view.  `paths` gives {name: "api/gc?limit=50"} or a list of paths: asked for at each poll,
// relative, made by `path("api/gc", {limit: 50, group: state.group})`; `every(5, path)` is asked for
// each 5 seconds only.  `parts: ["groups"]`: what answers.summary has besides.  `draw` gives what h() gives; `answers` has the answer of each path by its name
// (undefined before the first), `answers.summary` ({totals, findings, verdict}), and in `answers.errors[name]`
// why there is none.  `text` is what "copy as text" copies; without it, the text of what is shown.
// `keys`: {"[": (state) => ...}.
//
//   state.view, .window, .group (undefined: all), and each parameter of the address as a string
//   go({sort: "age", open: undefined})        changes them, draws and polls; the address follows
//   link("processes", {open: "12"})           the address of a view, group and window kept
//   redraw()                                  draws again what is there

const SVG = "http://www.w3.org/2000/svg";
const WINDOWS = ["now", "1m", "10m"];
const views = new Map();

function view(told) {
  views.set(told.id, told);
}

// --- nodes ---------------------------------------------------------------------------------

function h(tag, attributes, ...children) {
  const given = attributes || {};
  return {tag, attributes: given, key: given.key, children: flat(children, tag), svg: false, dom: null};
}

function s(tag, attributes, ...children) {
  const made = h(tag, attributes, ...children);
  made.svg = true;
  return made;
}

function flat(children, tag, out = []) {
  for (const child of children) {
    if (Array.isArray(child)) flat(child, tag, out);
    else if (child instanceof Node) out.push({raw: child, key: undefined, dom: child});
    else if (child && typeof child === "object") out.push(child);
    else if (child !== null && child !== undefined && child !== false && child !== "") {
      const keeps = tag === "pre" || tag === "textarea";
      out.push({text: keeps ? printable(String(child), true) : printable(String(child)), key: undefined, dom: null});
    }
  }
  return out;
}

function patch(element, ...children) {
  const focused = document.activeElement;
  const next = flat(children, element.localName);
  patchChildren(element, element._held || [], next);
  element._held = next;
  // an element that was moved has lost it
  if (focused && focused !== document.activeElement && focused.isConnected && element.contains(focused)) {
    focused.focus({preventScroll: true});
  }
}

function patchChildren(element, before, next) {
  const keyed = new Map(), plain = [];
  for (const old of before) {
    if (old.key !== undefined && !keyed.has(old.key)) keyed.set(old.key, old);
    else plain.push(old);
  }
  let at = 0;
  const kept = new Set();
  for (const now of next) {
    let old;
    if (now.key !== undefined) {
      old = keyed.get(now.key);
      keyed.delete(now.key);
    } else {
      old = plain[at++];
    }
    if (old && alike(old, now)) {
      kept.add(old.dom);
      update(old, now);
    } else {
      create(now);
    }
  }
  for (const old of before) if (!kept.has(old.dom)) old.dom.remove();
  let place = element.firstChild;
  for (const now of next) {
    if (now.dom === place) place = place.nextSibling;
    else element.insertBefore(now.dom, place);
    if (now.attributes && now.attributes.after && now.changed) now.attributes.after(now.dom);
  }
}

function alike(old, now) {
  return old.tag === now.tag && old.svg === now.svg && old.raw === now.raw;
}

function create(now) {
  now.changed = true;
  if (now.raw) return;
  if (now.tag === undefined) {
    now.dom = document.createTextNode(now.text);
    return;
  }
  now.dom = now.svg ? document.createElementNS(SVG, now.tag) : document.createElement(now.tag);
  for (const name in now.attributes) set(now.dom, name, now.attributes[name], undefined);
  patchChildren(now.dom, [], now.children);
}

function update(old, now) {
  now.dom = old.dom;
  if (now.raw) return;
  if (now.tag === undefined) {
    if (old.text !== now.text) now.dom.data = now.text;
    return;
  }
  if (now.attributes.same !== undefined && now.attributes.same === old.attributes.same) {
    now.children = old.children;
    now.attributes = old.attributes;
    return;
  }
  now.changed = true;
  for (const name in old.attributes) if (!(name in now.attributes)) set(now.dom, name, undefined, old.attributes[name]);
  for (const name in now.attributes) {
    if (now.attributes[name] !== old.attributes[name]) set(now.dom, name, now.attributes[name], old.attributes[name]);
  }
  patchChildren(now.dom, old.children, now.children);
}

const FIELDS = new Set(["value", "checked", "disabled", "selected", "indeterminate"]);
const SILENT = new Set(["key", "same", "after"]);

function set(element, name, value, before) {
  if (SILENT.has(name)) return;
  if (name.startsWith("on")) {
    element[name] = value || null;
  } else if (name === "style") {
    for (const each in before || {}) if (!value || !(each in value)) element.style.removeProperty(each);
    for (const each in value || {}) if (!before || before[each] !== value[each]) element.style.setProperty(each, value[each]);
  } else if (FIELDS.has(name)) {
    // what somebody is typing is not taken from under the fingers
    if (!(name === "value" && element === document.activeElement)) element[name] = value === undefined ? "" : value;
  } else if (value === undefined || value === null || value === false) {
    element.removeAttribute(name);
  } else {
    if (name === "href" && !/^(#|api\b|login#)/.test(value)) throw new Error("a link to elsewhere");
    element.setAttribute(name, value === true ? "" : printable(String(value)));
  }
}

// --- the address ------------------------------------------------------------------------------

let state = {view: "overview", window: "1m"};
const remembered = {};                  // what was chosen in a view that is not shown now: {id: its parameters}
const SHARED = ["window", "group"];     // chosen once for all views

function parsed(hash) {
  const [name, query] = [hash.replace(/^#/, "").split("?", 1)[0], hash.split("?").slice(1).join("?")];
  const found = {};
  for (const [key, value] of new URLSearchParams(query)) if (/^[a-z_]{1,20}$/.test(key) && key !== "view") found[key] = value;
  found.view = views.has(name) ? name : "overview";
  if (!WINDOWS.includes(found.window)) found.window = "1m";
  return found;
}

function hashOf(wanted) {
  const query = new URLSearchParams();
  for (const key of Object.keys(wanted).sort()) {
    if (key !== "view" && wanted[key] !== undefined && wanted[key] !== null && !(key === "window" && wanted[key] === "1m")) {
      query.set(key, wanted[key]);
    }
  }
  const told = query.toString();
  return "#" + wanted.view + (told ? "?" + told : "");
}

function link(id, parameters = {}) {
  const wanted = {view: id};
  for (const name of SHARED) wanted[name] = state[name];
  return hashOf({...wanted, ...parameters});
}

// `quiet`: a step for which "back" would be a nuisance, as each letter of a search
function go(changes, quiet = true) {
  const wanted = {...state, ...changes};
  const hash = hashOf(wanted);
  if (hash === hashOf(state)) return;
  if (quiet) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  changed();
}

// Somebody has changed the address: a link, "back", the keyboard.
function followed() {
  if (hashOf(parsed(location.hash)) !== hashOf(state)) changed();
}

function changed() {
  const before = state;
  state = parsed(location.hash);
  if (before.view !== state.view) {
    const left = {...before};
    for (const name of ["view", "open", ...SHARED]) delete left[name];
    remembered[before.view] = left;
    forget();
    scrollTo(0, 0);
  }
  redraw();
  pollNow();
}

function path(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const key in parameters) if (parameters[key] !== undefined && parameters[key] !== null) query.set(key, parameters[key]);
  const told = query.toString();
  return told ? name + "?" + told : name;
}

// `id` stands for what is asked, where the path itself changes with each poll.
function every(seconds, wanted, id) {
  return {seconds, path: wanted, id};
}
