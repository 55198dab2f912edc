// What stands around each view: the verdict, the totals, the choices, the tabs, the banner, and the keys.

const ORDER = ["overview", "processes", "capacity", "latency", "slow", "time", "gc", "exceptions", "stacks", "tree", "flame", "events",
  "collector", "help"];
const THEMES = ["auto", "dark", "light"];
let theme = "auto";
let spoken = "";                        // the verdict that was told to a screen reader
let flash = "";                         // what a copy has come to, for a moment
let unfolded = false;                   // whether the findings stand below the verdict

function shownViews() {
  const place = (each) => ORDER.includes(each.id) ? ORDER.indexOf(each.id) : ORDER.length;
  return [...views.values()].sort((a, b) => place(a) - place(b));
}

function redraw() {
  const shown = views.get(state.view);
  document.title = `${shown.title} \u00b7 ${verdictWords(answers.summary)} \u00b7 modwsgi-tel`.slice(0, 200);
  patch(document.getElementById("head"), drawHead(answers.summary));
  patch(document.getElementById("banner"), drawBanner());
  patch(document.getElementById("views"), drawTabs());
  let drawn;
  try {
    drawn = shown.draw(answers, state);
  } catch (error) {
    console.error(error);
    drawn = h("p", {class: "bad"}, "this view could not be drawn: " + error.message);
  }
  const main = document.getElementById("main");
  main.classList.toggle("old", Boolean(gone));
  patch(main, h("div", {class: "title", key: "title"}, h("h1", {}, shown.title), drawCopies()),
    h("div", {class: "view", key: "view " + state.view}, drawn));
  patch(document.getElementById("foot"), drawFoot());
  speak();
}

// --- the verdict --------------------------------------------------------------------------------

function verdictWords(summary) {
  return summary ? clipped(summary.verdict, 300) : "asking the collector";
}

// Without a finding it is fine only where the collector says so: that nothing was heard, or that all have ended, is not.
function worst(summary) {
  const found = summary.findings || [];
  return ["critical", "warning", "info"].find((severity) => found.some((each) => each.severity === severity))
    || (String(summary.verdict).startsWith("all quiet") ? "fine" : "unknown");
}

const FINDINGS_MOST = 6;                // that are shown at once
const MARKS = {critical: "\u2716", warning: "\u25b2", info: "\u25cf", fine: "\u2713"};

function drawHead(summary) {
  const findings = summary && summary.findings || [];
  const severity = summary ? worst(summary) : "unknown";
  const shows = unfolded && findings.length && state.view !== "overview";
  const said = [h("span", {class: "mark", "aria-hidden": "true"}, MARKS[severity] || ""),
    h("span", {class: "severity"}, severity === "fine" || severity === "unknown" ? "" : severity + ": "),
    h("span", {class: "words"}, summary ? words(summary.verdict, 300) : "asking the collector")];
  return [
    h("div", {class: "verdict " + severity, key: "verdict"},
      findings.length && state.view !== "overview"
        ? h("button", {type: "button", id: "verdict", "aria-expanded": String(Boolean(shows)), onclick: () => {
          unfolded = !unfolded;
          redraw();
        }}, said, h("span", {class: "more"}, shows ? " hide" : " show")) : h("span", {id: "verdict"}, said)),
    shows ? h("div", {class: "unfolded", key: "findings"}, findingList(findings, summary.time)) : null,
    h("div", {class: "row", key: "row"}, drawTotals(summary), drawControls(summary)),
  ];
}

// The findings, worst first; of many the first FINDINGS_MOST, the rest folded.
function findingList(findings, wall) {
  const told = new Set();
  const items = findings.map((each) => {
    const advice = each.advice && !told.has(each.advice) ? each.advice : "";
    told.add(each.advice);
    return finding(each, advice, wall);
  });
  return [h("ul", {class: "findings"}, items.slice(0, FINDINGS_MOST)), items.length > FINDINGS_MOST
    ? h("details", {key: "more findings"}, h("summary", {}, `${items.length - FINDINGS_MOST} more`), h("ul", {class: "findings"}, items.slice(FINDINGS_MOST))) : null];
}

// Where a finding's cause is to be seen: {its id: [view, further parameters]}.
const SEEN_IN = {collector: ["collector"], silent: ["processes"], "nothing-runs": ["events"], restarting: ["events"], vanished: ["events"],
  "threads-busy": ["capacity"], errors: ["exceptions"], "slow-requests": ["slow"], "stuck-request": ["slow", {life: "active,stale"}],
  queueing: ["latency", {phase: "queue"}], "gil-contention": ["latency", {phase: "gil_wait"}], "memory-growth": ["processes"],
  descriptors: ["processes"], "gc-pauses": ["gc"], "stopping-long": ["slow", {life: "active,stale"}], losing: ["collector"],
  "wrong-datagrams": ["collector"]};

function seenIn(each) {
  const [id, further] = (Object.prototype.hasOwnProperty.call(SEEN_IN, each.id) && SEEN_IN[each.id]) || [];
  const isOne = each.process !== null && each.process !== undefined;
  return !id || isOne && id === "processes" ? null
    : [" ", h("a", {href: link(id, {group: each.process_group ?? undefined, ...further})}, "\u2192 " + views.get(id).title.toLowerCase())];
}

function finding(each, advice, wall) {
  // some texts say it themselves
  const since = isNumber(each.since) && !each.text.includes("since " + clock(each.since, wall).slice(0, 5)) ? "since " + clock(each.since, wall) : "";
  return h("li", {class: SEVERITY_CLASS[each.severity] || "", key: [each.id, each.hostname, each.process_group, each.process, each.text].join("\n")},
    h("span", {class: "severity"}, h("span", {"aria-hidden": "true"}, (MARKS[each.severity] || "") + " "), each.severity),
    h("div", {}, h("span", {class: "said"}, words(each.text, 400)), each.process !== null && each.process !== undefined
      ? [" ", h("a", {href: link("processes", {open: each.process})}, "process " + (each.pid || each.process))] : null,
    since ? h("span", {class: "dim"}, " " + since) : null, seenIn(each), advice ? h("div", {class: "dim"}, advice) : null));
}

function speak() {
  const words = (gone ? "no answer from the collector" : verdictWords(answers.summary)).replace(/[\d,.]+/g, "#");
  if (answers.summary && words !== spoken) {
    spoken = words;
    document.getElementById("live").textContent = gone ? "no answer from the collector" : verdictWords(answers.summary);
  }
}

// --- totals and choices ---------------------------------------------------------------------------

function drawTotals(summary) {
  if (!summary || !summary.totals) return h("dl", {class: "totals"});
  const {totals} = summary;
  const window = totals.windows[state.window] || {};
  const status = window.status || {}, request = (window.phases || {}).request || {};
  const ended = ["stopped", "vanished", "replaced"].reduce((sum, name) => sum + (totals.lives[name] || 0), 0);
  const silent = totals.lives.silent || 0;
  return h("dl", {class: "totals", title: "all groups, " + WINDOW_WORDS[state.window]}, [
    ["processes", count(totals.processes - ended) + (silent ? ` (${silent} silent)` : ""), silent ? "bad" : ""],
    ["req/s", number(window.throughput)], ["p95", duration(request.p95)],
    ["busy", percent(window.capacity), busyClass(window.capacity)],
    ["5xx", count(status["5xx"]), errorsClass(status["5xx"], window.requests)],
    ["slow", count(totals.slow && totals.slow.active), totals.slow && totals.slow.active ? "warn" : ""],
    ["cpu", number(window.cpu, 2)], ["rss", size(totals.rss)], ["groups", count(totals.groups)],
  ].map(([name, shown, tone]) => h("div", {key: name}, h("dt", {}, name), h("dd", {class: tone || "", id: "total-" + name.replace(/\W/g, "")}, shown))));
}

function groupNames(summary) {
  const found = summary && summary.totals ? summary.totals.process_groups : [];
  return state.group === undefined || found.includes(state.group) ? found : [...found, state.group];
}

const NO_GROUP = "all";

function drawControls(summary) {
  const names = groupNames(summary);
  return h("div", {class: "controls"},
    h("div", {class: "segments", role: "group", "aria-label": "Window"}, WINDOWS.map((name) =>
      h("button", {type: "button", "aria-pressed": String(state.window === name), title: WINDOW_WORDS[name],
        onclick: () => go({window: name})}, name))),
    h("label", {class: "choice"}, h("span", {class: "unseen"}, "Process group"),
      // a group may have any name, so the place is what is chosen
      h("select", {id: "group", onchange: (event) => {
        const chosen = event.target.value;
        go({group: chosen === NO_GROUP ? undefined : names[Number(chosen)], open: undefined, offset: undefined});
      }}, h("option", {value: NO_GROUP, selected: state.group === undefined}, "all groups"),
      names.map((name, place) => h("option", {value: String(place), selected: state.group === name, title: name}, clipped(name || "(embedded)", 40))))),
    h("button", {type: "button", id: "pause", "aria-pressed": String(paused), title: "space",
      onclick: () => setPaused(!paused)}, paused ? "paused" : "pause"),
    h("label", {class: "choice"}, h("span", {class: "unseen"}, "A look every"),
      h("select", {id: "refresh", title: "a look every", onchange: (event) => setRefresh(Number(event.target.value))}, REFRESHES.map((seconds) =>
        h("option", {value: String(seconds), selected: seconds === refresh}, seconds + " s")))),
    h("button", {type: "button", id: "theme", title: "auto, dark, light", onclick: () =>
      setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])}, h("span", {"aria-hidden": "true"}, "\u25d0 "), h("span", {class: "unseen"}, "colours: "), theme));
}

function setTheme(wanted) {
  theme = THEMES.includes(wanted) ? wanted : "auto";
  document.documentElement.dataset.theme = theme;
  store("theme", theme);
  redraw();
}

function drawBanner() {
  if (gone === "login") return h("p", {}, "The collector asks for its token: ", h("a", {href: "login" + hashOf(state)}, "log in"), ".");
  if (gone) {
    return h("p", {}, heard === null ? `No answer from the collector yet: ${gone}. `
      : `No answer from the collector since ${clock(heard)}: ${gone}. This is what was then. `, h("button", {type: "button", onclick: pollNow}, "try now"));
  }
  return paused ? h("p", {class: "paused"}, `Paused${heard === null ? "" : " at " + clock(heard)}: space goes on.`) : null;
}

function drawTabs() {
  return h("ul", {}, shownViews().map((each) => h("li", {key: each.id}, h("a", {href: link(each.id, remembered[each.id]),
    "aria-current": each.id === state.view ? "page" : undefined, title: each.key ? "key " + each.key : undefined}, each.title))));
}

// The zone in which this page writes times, as `UTC+02:00`: sentences of the collector have its own.
function zone() {
  const minutes = -new Date(answers.summary.time * 1000).getTimezoneOffset(), size = Math.abs(minutes);
  return minutes ? `UTC${minutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}` : "UTC";
}

function drawFoot() {
  return h("p", {class: "dim"}, "modwsgi-tel " + document.body.dataset.version,
    answers.summary ? " \u00b7 collector's time " + clock(answers.summary.time) + " " + zone() : null, " \u00b7 ? lists the keys");
}

// --- copies ---------------------------------------------------------------------------------------

function drawCopies() {
  return h("div", {class: "copies"}, h("span", {class: "dim", role: "status"}, flash),
    h("button", {type: "button", id: "copy-text", title: "c", onclick: () => copy(asText())}, "copy as text"),
    h("button", {type: "button", id: "copy-json", onclick: () => copy(asJson())}, "copy as JSON"));
}

function asText() {
  const {summary} = answers, shown = views.get(state.view);
  const head = [`modwsgi-tel ${shown.title}, ${summary ? new Date(summary.time * 1000).toISOString() : UNKNOWN}, ${WINDOW_WORDS[state.window]}`
    + (state.group === undefined ? "" : ", group " + clipped(state.group || "(embedded)")), verdictWords(summary)];
  for (const each of summary && summary.findings || []) head.push(`${each.severity}: ${printable(each.text)}`);
  const body = shown.text ? shown.text(answers, state) : textOf(document.querySelector("#main .view"));
  return [...head, "", body, ""].join("\n");
}

function asJson() {
  return JSON.stringify({view: state.view, address: location.hash, ...answers}, null, 1) + "\n";
}

// What is shown as lines: tables with their columns in line, the rest as it reads.
function textOf(element) {
  const lines = [];
  for (const child of element.children) {
    if (child.matches(".unseen, button, select, input, details:not([open]), .tools, .search, .choice, [aria-hidden=true], svg, canvas, .pager")) continue;
    const inside = child.matches("table") ? child : null;
    if (inside) lines.push(...tableText(inside));
    else if (child.matches("dl")) lines.push([...child.children].map((each) => [...each.children].map(plain).join(" ")).join("   "));
    else if (child.matches("h2, h3")) lines.push("", plain(child));
    else if (child.matches("figure")) lines.push([...child.querySelectorAll("figcaption > *")].map(plain).filter(Boolean).join("  "));
    else if (child.matches("ul, ol")) lines.push(...[...child.children].map(plain));
    else if (child.querySelector("table, h2, h3, p, dl, li, figure, pre")) lines.push(textOf(child));
    else if (child.matches("pre")) lines.push(child.textContent);
    else if (plain(child)) lines.push(plain(child));
  }
  return lines.join("\n");
}

// The text of an element; where it has none of its own, its parts stand apart.
function plain(element) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!own && element.matches("div, li") && element.children.length > 1) return [...element.children].map(plain).filter(Boolean).join("  ");
  return element.textContent.replace(/\s+/g, " ").replace(/[\u25b2\u25bc]/g, "").trim();
}

function tableText(made) {
  const rows = [...made.rows].map((row) => [...row.cells].map(plain));
  const wide = [];
  for (const row of rows) if (row.length > 1) row.forEach((text, place) => { wide[place] = Math.max(wide[place] || 0, text.length); });
  const left = [...made.rows[0].cells].map((cell) => cell.classList.contains("left"));
  return rows.map((row) => row.length === 1 ? "    " + row[0]
    : row.map((text, place) => left[place] ? text.padEnd(wide[place]) : text.padStart(wide[place])).join("  ").trimEnd());
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    told("copied");
  } catch (error) {
    // no clipboard: not a secure address, or not permitted
    const back = document.activeElement, field = document.createElement("textarea");
    const box = document.createElement("div");
    box.className = "copied";
    field.value = text;
    field.readOnly = true;
    field.setAttribute("aria-label", "The text: copy it with Ctrl-C, Esc closes");
    const close = () => {
      box.remove();
      if (back && back.isConnected) back.focus();
    };
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Escape") close();
    };
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "close";
    button.onclick = close;
    box.append("Ctrl-C copies, Esc closes ", button, field);
    document.body.append(box);
    field.focus();
    field.select();
  }
}

function told(text) {
  flash = text;
  redraw();
  setTimeout(() => {
    flash = "";
    redraw();
  }, 2000);
}

// --- keys -----------------------------------------------------------------------------------------

function cycled(values, now, step) {
  const place = values.indexOf(now);
  return values[(place < 0 ? 0 : place + step + values.length) % values.length];
}

const KEYS = [
  ["<", "the window before", () => go({window: cycled(WINDOWS, state.window, -1)})],
  [">", "the window behind", () => go({window: cycled(WINDOWS, state.window, 1)})],
  ["n", "the next window", () => go({window: cycled(WINDOWS, state.window, 1)})],
  ["G", "the next process group, or all", () => go({group: cycled([undefined, ...groupNames(answers.summary)], state.group, 1), open: undefined, offset: undefined})],
  [" ", "pause: nothing moves until space again", () => setPaused(!paused), "space"],
  ["+", "look more often", () => setRefresh(REFRESHES[Math.max(0, REFRESHES.indexOf(refresh) - 1)])],
  ["-", "look less often", () => setRefresh(REFRESHES[Math.min(REFRESHES.length - 1, REFRESHES.indexOf(refresh) + 1)])],
  ["j", "the first row, or thread, of what is shown; there j and k move, Enter opens", () => {
    const first = document.querySelector("#main .opener, #main .tree [tabindex='0'], #main .slot[tabindex='0']");
    if (first) first.focus();
  }],
  ["/", "search", () => { const field = document.getElementById("search"); if (field) field.focus(); }],
  ["r", "reverse the order", () => reverse()],
  ["c", "copy this view as text", () => copy(asText())],
  ["?", "this help", () => go({view: "help"}, false)],
  ["h", "", () => go({view: "help"}, false)],
  ["Escape", "back: ends a search, closes what is open", () => back(), "Esc"],
];

function reverse() {
  const chosen = document.querySelector("th[aria-sort=ascending] .sort, th[aria-sort=descending] .sort");
  if (chosen) chosen.click();
}

function back() {
  if (unfolded) {
    unfolded = false;
    redraw();
  } else if (state.open !== undefined) {
    go({open: undefined}, false);
  } else if (state.search !== undefined) {
    go({search: undefined, offset: undefined});
  }
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
  const {target, key} = event;
  if (target.matches && target.matches("input, textarea, select")) {
    if (key !== "Escape") return;
    if (target.id === "search") {
      clearTimeout(searching);
      target.value = "";
      go({search: undefined, offset: undefined});
    }
    target.blur();
    return;
  }
  // there it presses what has the focus
  if ((key === " " || key === "Enter") && target.closest && target.closest("button, a, summary, [role=treeitem], [role=button]")) return;
  const own = views.get(state.view).keys || {};
  if (own[key]) {
    event.preventDefault();
    own[key](state, answers);
    return;
  }
  const entry = KEYS.find(([each]) => each === key || each === "+" && key === "=");
  const other = [...views.values()].find((each) => each.key === key);
  if (!entry && !other) return;
  event.preventDefault();
  if (entry) entry[2]();
  else openView(other.id);
}

function openView(id) {
  location.hash = link(id, remembered[id]);
}
