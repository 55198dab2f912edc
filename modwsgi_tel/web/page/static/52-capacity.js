// Capacity: a row for each process, a cell for each of its threads, and the request in the one that is looked at.

{
  const AGES = [[10, "a", "10 s"], [30, "b", "30 s"], [60, "c", "1 min"], [300, "D", "5 min"]];
  const WARN_S = 2, BAD_S = 30;
  const TICK_OLD_S = 3, TICK_OLD_PERIODS = 3;
  const SLOTS_TOLD = 128;               // mod_wsgi tells of no more
  const LIMITS = [25, 50, 100, 200];
  const UNNAMED = "which request is not told: mod_wsgi names what runs longer than WSGISlowRequests";
  let looked = null;                    // {process, slot} under the pointer or the focus
  let entry = null;                     // the cell that Tab leads to

  // While a process is silent nothing tells that a request has ended: it runs on.
  function ageOf(worker, told) {
    if (!isNumber(told.elapsed)) return null;
    return told.elapsed > 0 && worker.life === "silent" ? told.elapsed + (worker.age_s || 0) : told.elapsed;
  }

  function letterOf(age, told) {
    if (age === null) return "?";
    if (age <= 0) return told.busy || told.completed ? ":" : "\u00b7";
    if (age < AGES[0][0]) return String(Math.floor(age));
    return AGES.filter(([above]) => age >= above).pop()[1];
  }

  function toneOf(age, told) {
    if (!(age > 0)) return told.busy || told.completed ? "worked" : "";
    return age >= BAD_S ? "stuck" : age >= WARN_S ? "late" : "runs";
  }

  function busyOf(worker) {
    const known = worker.slots.map((told) => told.busy).filter(isNumber);
    return known.length ? known.reduce((all, each) => all + Math.min(1, Math.max(0, each)), 0) / known.length : null;
  }

  const runningOf = (worker) => worker.slots.filter((told) => told.elapsed > 0).length;

  // What the cells alone do not say of a process.
  function noteOf(worker) {
    const notes = [];
    if (isNumber(worker.age_s) && (worker.life === "silent" || worker.age_s > Math.max(TICK_OLD_S, TICK_OLD_PERIODS * (worker.period || 0)))) {
      notes.push(`newest tick ${duration(worker.age_s)} old`);
    }
    const most = (worker.threads || {}).maximum || 0;
    if (worker.slots.length >= SLOTS_TOLD && most > worker.slots.length) notes.push(`${most - worker.slots.length} more not told`);
    if (!worker.slots.length) notes.push("no slots told");
    return notes.join(", ");
  }

  function requestIn(worker, place) {
    const held = worker.requests.filter((request) => request.slot === place);
    return worker.slots[place] && worker.slots[place].elapsed > 0 && held.length
      ? held.reduce((old, each) => (each.age_s || 0) > (old.age_s || 0) ? each : old) : null;
  }

  function cell(worker, told, place) {
    const age = ageOf(worker, told), letter = letterOf(age, told);
    const at = `${worker.id}:${place}`;
    const chosen = looked && looked.process === worker.id && looked.slot === place;
    const said = age === null ? "not told" : age > 0 ? "runs for " + duration(age) : "idle";
    return h("span", {class: ["slot", toneOf(age, told), chosen ? "chosen" : ""].join(" ").trim(), role: "gridcell",
      tabindex: entry === at ? "0" : "-1", "data-at": at, onfocus: focused, "aria-label": `thread ${place + 1}: ${said}`}, letter);
  }

  function line(worker) {
    const note = noteOf(worker), busy = busyOf(worker);
    const lookedHere = looked && looked.process === worker.id ? looked.slot : "";
    const entryHere = entry && entry.startsWith(worker.id + ":") ? entry : "";
    const seen = [worker.pid, worker.life, note, lookedHere, entryHere, state.group, state.window,
      ...worker.slots.map((told) => letterOf(ageOf(worker, told), told) + toneOf(ageOf(worker, told), told)),
      busy === null ? "" : Math.round(busy * 100)].join(" ");
    return h("div", {class: "worker", role: "row", key: String(worker.id), same: seen},
      h("span", {class: "pid", role: "rowheader"}, h("a", {href: link("processes", {open: worker.id})}, String(worker.pid))),
      h("span", {class: "name", role: "gridcell"}, words(groupName(worker), 40)), h("span", {role: "gridcell"}, life(worker)),
      h("span", {role: "gridcell"}, meter(busy, busyClass(busy)), " ", percent(busy)),
      h("span", {class: "slots", role: "none"}, worker.slots.map((told, place) => cell(worker, told, place)),
        note ? h("span", {class: "warn"}, note) : null));
  }

  function under(workers) {
    const worker = looked && workers.find((each) => each.id === looked.process);
    const told = worker && worker.slots[looked.slot];
    if (!told) return h("div", {class: "under dim", key: "under"}, "Point at a thread, or move to one with the arrow keys, to see its request.");
    const age = ageOf(worker, told), request = requestIn(worker, looked.slot);
    const unplaced = worker.requests.filter((each) => each.slot === null || !requestIn(worker, each.slot)).length;
    return h("div", {class: "under", key: "under", role: "status", id: "under"},
      h("div", {}, h("strong", {}, `thread ${looked.slot + 1} of pid ${worker.pid}`), age > 0
        ? [" busy for ", h("strong", {class: age >= BAD_S ? "bad" : age >= WARN_S ? "warn" : ""}, duration(age))] : age === null ? " does not tell" : " is idle",
      ", ", words(groupName(worker), 60), " on ", words(worker.hostname, 60), `, tick ${duration(worker.age_s)} old`),
      age > 0 ? h("div", {}, request ? [h("a", {href: link("slow", {open: request.id})}, words(request.method, 12), " ", words(request.path || UNKNOWN, 160)),
        ` for ${duration(request.age_s)}`] : h("span", {class: "dim"}, UNNAMED)) : null,
      h("div", {class: "dim"}, `of the tick: busy ${percent(isNumber(told.busy) ? Math.min(1, told.busy) : null)}, cpu ${percent(told.cpu)}, `
        + counted(told.completed, "request") + " done" + (told.completed ? ", longest " + duration(told.longest) : "")
        + (unplaced ? `, ${unplaced} slow in no slot` : "")));
  }

  function look(at) {
    const [process, slot] = at ? at.split(":").map(Number) : [];
    const wanted = at ? {process, slot} : null;
    if (JSON.stringify(wanted) === JSON.stringify(looked)) return;
    looked = wanted;
    if (at) entry = at;
    redraw();
  }

  const atOf = (event) => event.target.dataset ? event.target.dataset.at : undefined;

  function focused(event) {
    look(event.currentTarget.dataset.at);
  }

  function moved(event) {
    const now = event.target.closest && event.target.closest("[data-at]");
    const by = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e6], End: [0, 1e6]}[event.key];
    if (!now || !by) return;
    event.preventDefault();
    event.stopPropagation();
    const rows = [...document.querySelectorAll(".grid .slots")].map((row) => [...row.querySelectorAll("[data-at]")]).filter((row) => row.length);
    const row = rows.findIndex((each) => each.includes(now));
    const next = rows[Math.max(0, Math.min(rows.length - 1, row + by[0]))];
    next[Math.max(0, Math.min(next.length - 1, rows[row].indexOf(now) + by[1]))].focus();
  }

  function limitOf(state) {
    const given = Number(state.limit);
    return LIMITS.includes(given) ? given : 25;
  }

  const LEGEND = [["runs", "3", "seconds"], ...AGES.map(([above, letter, said]) => [above >= BAD_S ? "stuck" : "late", letter, said + "+"]),
    ["", "\u00b7", "idle"], ["worked", ":", "idle again"], ["", "?", "not told"]];

  view({
    id: "capacity", title: "Capacity", key: "w",
    paths: (state) => ({workers: path("api/workers", {group: state.group, offset: offsetOf() || undefined, limit: limitOf(state)})}),
    draw: (answers, state) => {
      const answer = answers.workers, absent = missing(answers, "workers");
      if (absent) return absent;
      const workers = answer.workers, slots = workers.reduce((all, worker) => all + worker.slots.length, 0);
      const running = workers.reduce((all, worker) => all + runningOf(worker), 0);
      if (!workers.some((worker) => entry && entry.startsWith(worker.id + ":"))) entry = workers.length ? workers[0].id + ":0" : null;
      return [
        h("p", {key: "said"}, h("strong", {}, `${running} of ${counted(slots, "thread")}`), ` ${running === 1 ? "runs" : "run"} a request, of ${counted(workers.length, "process", "processes")}`
          + (answer.matched > workers.length ? ` of ${count(answer.matched)}` : "") + "; the longest running request first"),
        workers.length ? null : h("p", {class: "dim"}, "no process that runs has sent a tick"),
        h("div", {class: "tools", key: "tools"}, choice("limit", "processes", LIMITS.map((limit) => [limit === 25 ? undefined : String(limit), String(limit)])),
          h("span", {class: "keyed"}, LEGEND.map(([tone, letter, said]) => h("span", {key: said}, h("i", {class: "slot " + tone, "aria-hidden": "true"}, letter), said)))),
        h("div", {class: "grid", key: "grid", role: "grid", "aria-label": "threads by process", onpointerover: (event) => { if (atOf(event)) look(atOf(event)); },
          onclick: (event) => { if (atOf(event)) { look(atOf(event)); event.target.focus(); } },
          onkeydown: moved},
        h("div", {class: "worker head", "aria-hidden": "true"}, h("span", {class: "pid"}, "pid"), h("span", {}, "group"), h("span", {}, "life"),
          h("span", {}, "busy"), h("span", {}, "threads")),
        workers.map(line)),
        pager(answer, workers.length, limitOf(state)),
        under(workers),
      ];
    },
    text: (answers) => {
      const {workers = []} = answers.workers || {};
      const lines = workers.map((worker) => [String(worker.pid).padStart(8), clipped(groupName(worker), 24).padEnd(24), worker.life.padEnd(8),
        percent(busyOf(worker)).padStart(5), worker.slots.map((told) => letterOf(ageOf(worker, told), told)).join(""), noteOf(worker)].join("  ").trimEnd());
      const requests = workers.flatMap((worker) => worker.requests.map((request) =>
        `pid ${worker.pid} thread ${request.slot === null ? UNKNOWN : request.slot + 1}: ${clipped(request.method, 12)} ${clipped(request.path, 200)} for ${duration(request.age_s)}`));
      return [...lines, "", ...requests].join("\n");
    },
  });
}
