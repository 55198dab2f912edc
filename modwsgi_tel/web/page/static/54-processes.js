// Processes: the table, their lives as bars over time with the events below, and one process opened.

{
  const LIMIT = 25, BARS = 25, EVENTS = 25;
  const AXIS_MOST_S = 3600, AXIS_LEAST_S = 10;      // what began earlier begins at the left edge: short lives stay visible
  const ENDED = ["stopped", "vanished", "replaced"];
  // states of a process as proc(5) has them
  const STATES = {D: "uninterruptible", T: "stopped", t: "traced", Z: "a zombie", R: "running", S: "sleeping", I: "idle"};

  const windowOf = (row) => row.windows[state.window] || {};
  const requestOf = (row) => (windowOf(row).phases || {}).request || {};
  const errorsOf = (row) => (windowOf(row).status || {})["5xx"];
  const warns = (value) => (row) => value(row) ? "warn" : "";

  // Seconds since its life became what it is; of a silent one, since it was last heard.
  function inLife(row, wall) {
    return row.life === "silent" && isNumber(row.silent_s) ? row.silent_s : ago(row.life_since, wall);
  }

  function columnsAt(wall) {
    return [
      {title: "pid", sort: "pid", text: (row) => String(row.pid)},
      {title: "group", left: true, sort: "group", text: groupName, cell: (row) => words(groupName(row), 28)},
      {title: "host", left: true, text: (row) => row.hostname, cell: (row) => words(row.hostname, 20)},
      {title: "life", left: true, sort: "life", text: (row) => row.life, cell: life},
      {title: "for", text: (row) => duration(inLife(row, wall))},
      {title: "age", sort: "age", falls: true, text: (row) => duration(ago(row.first_seen, wall))},
      {title: "req/s", sort: "throughput", falls: true, text: (row) => number(windowOf(row).throughput)},
      {title: "p95", sort: "p95", falls: true, text: (row) => duration(requestOf(row).p95)},
      {title: "busy", sort: "busy", falls: true, text: (row) => percent(windowOf(row).capacity), tone: (row) => busyClass(windowOf(row).capacity)},
      {title: "used", sort: "threads", falls: true, hint: "threads at work, of all", text: (row) => row.threads && isNumber(row.threads.maximum)
        ? `${count(row.threads.active)}/${count(row.threads.maximum)}` : UNKNOWN},
      {title: "cpu", sort: "cpu", falls: true, hint: "cores", text: (row) => number(windowOf(row).cpu, 2)},
      {title: "rss", sort: "rss", falls: true, text: (row) => size(row.rss)},
      {title: "5xx", sort: "5xx", falls: true, text: (row) => count(errorsOf(row)), tone: (row) => errorsClass(errorsOf(row), windowOf(row).requests)},
      {title: "slow", sort: "slow", falls: true, hint: "slow requests that run", text: (row) => count(row.slow_active), tone: warns((row) => row.slow_active)},
      {title: "lost", sort: "lost", falls: true, hint: "datagrams that did not arrive", text: (row) => count(row.lost), tone: warns((row) => row.lost)},
      {title: "silent", sort: "silent", falls: true, text: (row) => duration(row.silent_s), tone: warns((row) => row.silent_s)},
      {title: "unseen", hint: "restarts that nobody saw", text: (row) => count(row.restarts_unseen), tone: warns((row) => row.restarts_unseen)},
    ];
  }

  const FILTERS = [[undefined, "all"], ["started,running,silent,stopping", "those that live"], ["silent,vanished,stopping", "in trouble"],
    ["stopped,vanished,replaced", "ended"]];

  // --- lives as bars ------------------------------------------------------------------------------

  function span(rows, wall) {
    const begins = rows.map((row) => row.first_seen).filter(isNumber);
    if (!isNumber(wall) || !begins.length) return null;
    let first = Math.min(...begins);
    if (wall - first > AXIS_MOST_S) {
      const newer = begins.filter((begin) => wall - begin <= AXIS_MOST_S);
      const least = newer.length ? Math.min(...newer) : wall - AXIS_MOST_S;
      first = Math.max(wall - AXIS_MOST_S, wall - (wall - least) * 1.1);
    }
    return [Math.min(first, wall - AXIS_LEAST_S), wall];
  }

  // What became of a process, in words: the end of its bar.
  function became(row, wall) {
    const reason = ((row.life === "stopped" ? row.stopped : null) || row.stopping || {}).reason;
    if ((row.life === "stopping" || row.life === "stopped") && reason) return `${row.life}: ${reason}`;
    if (row.life === "vanished") return "vanished " + clock(row.life_since, wall);
    return ["started", "running", "silent"].includes(row.life) ? `${row.life} ${duration(inLife(row, wall))}` : row.life;
  }

  function bar(row, [begin, end]) {
    const over = ENDED.includes(row.life) ? isNumber(row.life_since) ? row.life_since : row.last_seen : end;
    const heard = ["silent", "vanished"].includes(row.life) ? row.last_seen : row.life === "stopping" ? row.life_since : over;
    const at = (time) => Math.max(0, Math.min(100, (time - begin) / (end - begin) * 100));
    const left = at(row.first_seen), full = Math.max(left, Math.min(at(over), at(heard)));
    return h("span", {class: "lifetime " + (LIFE_CLASS[row.life] || ""), "aria-hidden": "true"},
      h("span", {class: "heard", style: {left: left + "%", width: Math.max(0.4, full - left) + "%"}}),
      at(over) > full ? h("span", {class: "unheard", style: {left: full + "%", width: at(over) - full + "%"}}) : null);
  }

  function lifetimes(answer) {
    const axis = span(answer.processes, answer.time);
    if (!axis) return null;
    const [begin, end] = axis;
    return h("div", {class: "lifetimes"}, answer.processes.map((row) => h("div", {class: "row", key: String(row.id)},
      h("a", {class: "pid", href: link("processes", {open: row.id})}, String(row.pid)), h("span", {class: "name"}, words(groupName(row), 40)),
      bar(row, axis), h("span", {class: "became " + (LIFE_CLASS[row.life] || "")}, words(became(row, answer.time), 60)))),
    h("div", {class: "row dim", key: "axis", "aria-hidden": "true"}, h("span", {class: "pid"}), h("span", {class: "name"}),
      h("span", {class: "times"}, h("span", {}, clock(begin, end)), h("span", {}, clock((begin + end) / 2, end)), h("span", {}, clock(end, end))),
      h("span", {class: "became"})));
  }

  function eventTable(events, wall, caption) {
    return table({caption, rows: [...events].reverse(), empty: "no process has started or ended", columns: [
      {title: "time", left: true, text: (event) => clock(event.received, wall)}, {title: "pid", text: (event) => String(event.pid)},
      {title: "group", left: true, text: (event) => event.process_group || UNKNOWN, cell: (event) => words(event.process_group || UNKNOWN, 28)},
      {title: "what", left: true, text: eventWords, cell: (event) => words(eventWords(event), 160),
        tone: (event) => event.kind === "process_vanished" || event.active_requests_at_exit ? "bad" : ""}]});
  }

  // --- one process --------------------------------------------------------------------------------

  function opened(answers, state) {
    const absent = missing(answers, "process");
    if (absent) return absent;
    const answer = answers.process, found = (answer.processes || []).find((each) => String(each.id) === state.open);
    return found ? detail(found, answer, answers) : h("p", {class: "dim"}, "it is not known any more");
  }

  function detail(row, answer, answers) {
    const window = windowOf(row), fields = (row.newest || {}).fields || {};
    const slow = (answer.slow_requests || []).map((each) => each.entry).filter((each) => each.process === undefined || each.process === row.id);
    return [
      h("p", {key: "who"}, h("strong", {}, "pid " + row.pid), " of ", words(groupName(row), 80), " on ", words(row.hostname, 80), ", ", life(row),
        ` for ${duration(inLife(row, answer.time))}`, row.stopping ? ["; stopping: ", words(row.stopping.reason || UNKNOWN, 60)] : null,
        row.stopped ? ["; stopped: ", words(row.stopped.reason || UNKNOWN, 60)] : null,
        row.sender_pid !== row.pid ? `; here its pid is ${row.sender_pid}` : null),
      facts([["requests/s", number(window.throughput)], ["p50", duration(requestOf(row).p50)], ["p95", duration(requestOf(row).p95)],
        ["p99", duration(requestOf(row).p99)], ["longest", duration(requestOf(row).max)], ["busy", percent(window.capacity)],
        ["cpu", number(window.cpu, 2) + " cores"], ["rss", size(row.rss)], ["largest rss", size(row.max_rss)],
        ["GIL wait", percent((window.gil || {}).share)], ["GC", (window.gc || {}).pauses ? `${counted(window.gc.pauses, "pause")}, longest ${duration(window.gc.max)}` : UNKNOWN],
        ["slow from", duration(row.slow_threshold)]]),
      h("h3", {key: "slots"}, "threads, newest tick " + duration((row.newest || {}).age_s) + " old"), slotTable(fields),
      h("h3", {key: "slow"}, "its slow requests"), table({caption: "slow requests of this process", rows: slow.slice(0, EVENTS), id: (each) => each.id,
        empty: "none", columns: [
          {title: "age", text: (each) => duration(each.age_s)}, {title: "life", left: true, text: (each) => each.life || UNKNOWN},
          {title: "thread", text: (each) => each.thread_id ? String(each.thread_id) : UNKNOWN},
          {title: "request", left: true, text: requestText, cell: (each) => h("a", {href: link("slow", {open: each.id})}, words(requestText(each), 120))},
          {title: "status", text: (each) => each.status ? String(each.status) : UNKNOWN}]}),
      slow.length > EVENTS ? h("p", {class: "dim"}, `${slow.length - EVENTS} more: see Slow requests`) : null,
      kernelPart(row.kernel),
      stackPart(row, answer),
      h("h3", {key: "since"}, "since its start"), facts([["requests", count(row.counters.requests)], ["5xx", count(row.counters.status_5xx)], ["in", size(row.counters.input_bytes)],
        ["out", size(row.counters.output_bytes)], ["GC", duration(row.counters.gc_seconds)], ["first seen", clock(row.first_seen, answer.time)],
        ["last seen", clock(row.last_seen, answer.time)], ["lost datagrams", count(row.lost)], ["interpreters", count(row.interpreters)],
        ...Object.entries(row.versions || {}).map(([name, told]) => [name.replace("_version", ""), told ? words(told, 60) : UNKNOWN])]),
      (answer.lifecycle_events || []).length ? [h("h3", {key: "events"}, "its starts and ends"), eventTable(answer.lifecycle_events, answer.time, "events of this process")] : null,
      Object.keys(row.agent || {}).length ? h("details", {key: "agent"}, h("summary", {}, "what its agent tells"),
        h("pre", {}, JSON.stringify(row.agent, null, 1))) : null,
    ];
  }

  function requestText(entry) {
    return `${entry.method || UNKNOWN} ${entry.script_name || ""}${entry.path_info || ""}${entry.query_string ? "?" + entry.query_string : ""}`;
  }

  function slotTable(fields) {
    const at = (name) => fields["request_threads_" + name] || [];
    const elapsed = at("current_elapsed"), period = fields.sample_period;
    const rows = elapsed.map((age, place) => ({place, age, busy: ratio(at("busy_time")[place], period), cpu: ratio(at("cpu_time")[place], period),
      done: at("completed")[place], longest: at("max_duration")[place]})).filter((row) => row.age > 0 || row.done || row.busy);
    return table({caption: "threads of this process", rows, id: (row) => row.place, empty: elapsed.length ? "no thread had anything to do" : "no threads told", columns: [
      {title: "thread", text: (row) => String(row.place + 1)}, {title: "runs for", text: (row) => row.age > 0 ? duration(row.age) : UNKNOWN, tone: (row) => row.age >= 30 ? "bad" : row.age >= 2 ? "warn" : ""},
      {title: "busy", text: (row) => percent(row.busy === null ? null : Math.min(1, row.busy))}, {title: "cpu", text: (row) => percent(row.cpu)},
      {title: "done", text: (row) => count(row.done)}, {title: "longest", text: (row) => row.done ? duration(row.longest) : UNKNOWN}]});
  }

  // What the kernel says of it, name by name: amounts by the unit in their name.
  function kernelPart(kernel) {
    if (!kernel) return null;
    const told = [];
    for (const [name, value] of Object.entries(kernel)) {
      if (value === null || typeof value === "object") continue;
      const shown = !isNumber(value) ? String(value) : name === "sampled_at" ? clock(value) : name.endsWith("_per_s") ? number(value)
        : name.endsWith("_s") ? duration(value) : name.endsWith("_bytes") ? size(value) : number(value, Number.isInteger(value) ? 0 : 2);
      told.push([name.replace(/_bytes$|_per_s$/, "").replace(/_/g, " ") + (name.endsWith("_per_s") ? " a second" : ""),
        name === "state" ? STATES[value] || shown : words(shown, 80)]);
    }
    return told.length ? [h("h3", {key: "kernel"}, "what the kernel says"), facts(told)] : null;
  }

  function stackPart(row, answer) {
    const stacks = row.stacks;
    return [h("h3", {key: "stacks"}, "stacks"), stacks
      ? h("p", {}, `taken ${duration(stacks.age_s)} ago: `, h("a", {href: link("stacks", {open: row.id})}, "show them"))
      : h("p", {class: "dim"}, "none were taken: ", h("a", {href: link("stacks")}, "ask for some"))];
  }

  // --- the view -----------------------------------------------------------------------------------

  view({
    id: "processes", title: "Processes", key: "p",
    paths: (state) => {
      const wanted = {
        processes: path("api/processes", {window: state.window, group: state.group, search: state.search, life: state.life,
          offset: offsetOf() || undefined, limit: LIMIT, ...ordered(columnsAt(0), "life")}),
        lives: every(5, path("api/processes", {window: "now", group: state.group, search: state.search, sort: "age", order: "asc", limit: BARS})),
        events: every(5, path("api/lifecycle", {group: state.group, limit: EVENTS})),
      };
      if (/^\d{1,12}$/.test(state.open || "")) wanted.process = every(isLarge() ? 5 : 1, path("api/processes/any", {id: state.open}));
      return wanted;
    },
    draw: (answers, state) => {
      const answer = answers.processes;
      const elsewhere = state.open !== undefined && answer && !answer.processes.some((row) => String(row.id) === state.open);
      return [
        h("div", {class: "tools", key: "tools"}, searchBox("search processes"), choice("life", "shown", FILTERS)),
        elsewhere ? h("section", {class: "opened", key: "opened"}, h("p", {}, h("button", {type: "button", onclick: () => go({open: undefined})}, "close")), opened(answers, state)) : null,
        missing(answers, "processes") || table({caption: "processes", rows: answer.processes, id: (row) => row.id, answer, limit: LIMIT, columns: columnsAt(answer.time),
          order: {sort: "life"}, opened: () => opened(answers, state), empty: state.search || state.life ? "no process matches" : "no process has sent anything yet"}),
        section("Lives, the newest first", missing(answers, "lives") || lifetimes(answers.lives)),
        section("Starts and ends, the newest first", missing(answers, "events") || eventTable(answers.events.lifecycle_events, answers.events.time, "starts and ends"),
          answers.events && answers.events.dropped ? h("p", {class: "warn"}, `${count(answers.events.dropped)} older ones dropped (--max-events)`) : null),
      ];
    },
  });
}
