// Slow requests: those that run and those that ended, and all that is known of the one opened; and where the time of long
// requests goes, as agents in the applications tell.

{
  const LIMIT = 25;
  const LIFE_TONES = {active: "warn", stale: "bad", lost: "bad", completed: ""};
  const LIFE_MARKS = {active: "\u25b6 ", stale: "? ", lost: "! ", completed: ""};
  const FILTERS = [[undefined, "all"], ["active,stale", "running"], ["completed,lost", "ended"], ["stale", "stale"],
    ["lost", "lost"]];
  const RUNNING = ["active", "stale"];
  const PARTS = [["server", "dim"], ["queue", "warn"], ["daemon", "accent"], ["application", "good"]];
  const OVERLAPPING = [["gil_wait", "GIL wait"], ["input_read", "input read"], ["output_write", "output write"]];
  const NEWER_S = 5;                    // a stack from outside that is so much newer is shown in place of the agent's
  const GONE = "This request's record is gone. An ended request is kept for 10 minutes, or as serve's --slow-retention says; not as long when "
    + "there is no room for all (--max-slow, --slow-bytes).";
  const NONE = "None runs, and none has ended of late. mod_wsgi sends them with WSGISlowRequests SECONDS in Apache's configuration; with the "
    + "prefork MPM it sends none. Under any server an agent in the application sends them: see man modwsgi-tel.";
  let clearing = null;                  // "confirm", or in words what came of it

  const pathOf = (entry) => (entry.script_name || "") + (entry.path_info || "");
  const urlOf = (entry) => (entry.hostname || "") + pathOf(entry) || UNKNOWN;
  const cpuOf = (entry) => isNumber(entry.cpu_user_time) && isNumber(entry.cpu_system_time) ? entry.cpu_user_time
    + entry.cpu_system_time : null;
  const statusTone = (entry) => entry.status >= 500 ? "bad" : entry.status >= 400 ? "warn" : "";
  const isRunning = (entry) => RUNNING.includes(entry.life);
  const idOf = (entry) => entry.id;

  const COLUMNS = [
    {title: "state", left: true, sort: "state", text: (entry) => entry.life,
      cell: (entry) => h("span", {class: LIFE_TONES[entry.life]},
      h("span", {"aria-hidden": "true"}, LIFE_MARKS[entry.life]), entry.life)},
    {title: "age", sort: "age", falls: true, text: (entry) => duration(entry.age_s), tone: (entry) => LIFE_TONES[entry.life]},
    {title: "url", left: true, sort: "url", text: urlOf, cell: (entry) => words(urlOf(entry), 46)},
    {title: "method", left: true, sort: "method", text: (entry) => entry.method,
      cell: (entry) => words(entry.method || UNKNOWN, 8)},
    {title: "status", sort: "status", falls: true, text: (entry) => String(entry.status || UNKNOWN), tone: statusTone},
    {title: "pid", sort: "process", text: (entry) => String(entry.pid || UNKNOWN)},
    {title: "group", left: true, text: groupName, cell: (entry) => words(groupName(entry), 20)},
    {title: "phase", left: true, text: (entry) => entry.phase || UNKNOWN},
    {title: "started", sort: "start", falls: true, text: (entry) => clock(entry.start_stamp || null, entry.received)},
    {title: "GIL wait", text: (entry) => duration(entry.gil_wait_time)},
    {title: "cpu", text: (entry) => duration(cpuOf(entry))},
    {title: "output", text: (entry) => size(entry.output_bytes)},
  ];

  const lifeOf = (state) => FILTERS.some(([life]) => life === state.life) ? state.life : undefined;
  const rowsOf = (answers) => answers.slow ? answers.slow.slow_requests.map((row) => row.entry) : [];

  // Seconds between two looks: thousands of requests take the collector longer than a moment, the more where all are searched or sorted.
  function pauseS(state) {
    const totals = answers.summary && answers.summary.totals, held = totals && totals.slow || {};
    const all = state.group !== undefined || state.search !== undefined || ordered(COLUMNS, "state").sort !== "state"
      || state.order === "desc";
    return Math.round(Math.min(30, all ? (held.kept || 0) / 1700 : (held.active || 0) / 900));
  }

  // --- one request --------------------------------------------------------------------------------

  function saidOf(entry) {
    const age = duration(entry.age_s), unheard = duration(entry.unheard);
    switch (entry.life) {
      case "active": return `active for ${age},${entry.phase ? ` in ${entry.phase},` : ""} last heard of ${unheard} ago`;
      case "stale": return `stale: ${age} old when it was last heard of, ${unheard} ago; its process goes on`;
      case "lost": return `lost: its process ended with it inside; it was ${age} old when it was last heard of`;
      default: return `completed after ${age}`;
    }
  }

  function phases(entry) {
    // without a daemon process there is neither queue nor daemon: what is sent as 0 is none
    const none = entry.process_group ? [] : ["queue", "daemon"];
    const times = PARTS.map(([name, tone]) => ({name, tone, value: none.includes(name) && !entry[name + "_time"] ? null
      : entry[name + "_time"]}));
    const whole = times.reduce((all, each) => all + Math.max(0, each.value || 0), 0);
    if (!(whole > 0)) return null;
    const share = (value) => value > 0 ? " " + percent(value / whole) : "";
    const gil = ratio(entry.gil_wait_time, entry.application_time);
    return section(entry.life === "completed" ? "Time" : "Time so far",
      stacked(times.map(({name, tone, value}) => ({name, tone: "part " + tone, value,
        title: `${name} ${duration(value)}${share(value)}`})),
        times.map(({name, value}) => `${name} ${duration(value)}`).join(", ")),
      facts(times.map(({name, tone, value}) => [[h("span", {class: "swatch part " + tone, "aria-hidden": "true"}), " ", name],
        value === null ? null : duration(value) + share(value)])),
      OVERLAPPING.some(([name]) => isNumber(entry[name + "_time"])) ? [h("p", {class: "dim"}, "of the application's time:"),
        facts(OVERLAPPING.map(([name, title]) => [title,
        name === "gil_wait" && isNumber(entry.gil_wait_time)
          ? `${duration(entry.gil_wait_time)} in ${counted(entry.gil_wait_count, "wait")}${gil === null ? "" : `, ${percent(gil)} of it`}`
          : duration(entry[name + "_time"])]))] : null);
  }

  function moved(entry, way, call) {
    return isNumber(entry[way + "_bytes"]) ? `${size(entry[way + "_bytes"])} in ${counted(entry[`${way}_${call}s`], call)}`
      : UNKNOWN;
  }

  function detailsOf(entry, now) {
    const long = (text) => text ? words(text, 200) : UNKNOWN;
    const annotations = entry.agent && entry.agent.annotations || {};
    return [
      facts([["status", h("span", {class: statusTone(entry)}, String(entry.status || UNKNOWN))],
        ["protocol", long(entry.protocol)], ["scheme", long(entry.scheme)],
        ["peer", long(entry.peer_ip)], ["user agent", long(entry.user_agent)]]),
      facts([["pid", entry.process === null || entry.process === undefined ? String(entry.pid)
        : h("a", {href: link("processes", {open: String(entry.process)})}, String(entry.pid))],
        ["group", long(groupName(entry))], ["thread", entry.thread_id], ["Apache child", entry.server_pid || null],
          ["log id", long(entry.log_id)],
        ["told by", entry.source === "agent" ? "the agent inside" : "mod_wsgi"]]),
      facts([["started", clock(entry.start_stamp || null, now)], ["heard of",
        `${clock(entry.first_received, now)} to ${clock(entry.received, now)}`],
        ["ended", clock(entry.ended, now)], ["CPU user", duration(entry.cpu_user_time)],
          ["CPU system", duration(entry.cpu_system_time)],
        ["CPU of its time", percent(ratio(cpuOf(entry), entry.duration))]]),
      facts([["input", moved(entry, "input", "read")], ["output", moved(entry, "output", "write")],
        ["in flight at its start", entry.active_at_start === null ? null :
        count(entry.active_at_start)], ["at its end", entry.life === "completed" ? count(entry.active_at_completion) : null]]),
      Object.keys(annotations).length ? section("Annotated", facts(Object.entries(annotations).map(([name, text]) => [clipped(name,
        40), words(text, 300)]))) : null];
  }

  // --- its stacks ---------------------------------------------------------------------------------

  function waitsWords(stack) {
    const waits = stack.waits || {}, tid = waits.owner_tid, request = waits.owner_request;
    if (!waits.kind) return "";
    if (waits.kind === "sleep") return "sleeps";
    const join = waits.kind === "join";
    let owner = tid ? `${join ? "" : "which "}thread ${tid}${join ? "" : " has"}` : "";
    if (request) owner = owner ? `${owner}: request ${request}` : `which request ${request} has`;
    if (!owner && waits.kind === "lock") owner = "which does not know its owner";
    return "waits for " + (Object.prototype.hasOwnProperty.call(WAITS_FOR, waits.kind) ? WAITS_FOR[waits.kind]
      : clipped(waits.kind, 40)) + (owner ? ", " + owner : "");
  }

  // Seconds since an agent's newest stack of a request was taken; its age stands still from its end on.
  function stackAge(entry, now) {
    const last = entry.agent && entry.agent.last;
    if (!last || !isNumber(entry.age_s) || !isNumber(last.elapsed_s)) return null;
    const still = isNumber(entry.ended) ? entry.ended : entry.life === "stale" ? entry.received : now;
    return Math.max(0, entry.age_s - last.elapsed_s) + Math.max(0, now - still);
  }

  const stackWhen = (entry, now) => isNumber(entry.ended) ? `at ${duration(entry.agent.last.elapsed_s)}`
    : `${duration(stackAge(entry, now))} ago`;

  function agentStack(entry, now) {
    const told = entry.agent, last = told.last, frames = last.frames || [], outer = (told.pivot || []).length,
      inner = Math.max(0, frames.length - outer);
    const marks = {}, stacks = told.stacks;
    if (stacks > 1) {
      if (outer) marks[inner] = `below: in all of its ${count(stacks)} stacks${isNumber(told.pivot_s) ? `; ${duration(told.pivot_s)} go here` : ""}`;
      else if (!last.problem) marks[frames.length] = "its stacks have nothing in common";
    }
    if (last.left_out) {
      const place = Math.max(0, Math.min(last.cut_at || 0, frames.length)),
        said = `${counted(last.left_out, "frame")} left out here`;
      marks[place] = marks[place] ? `${said}; ${marks[place]}` : said;
    }
    const before = (told.history || []).slice(0, -1).reverse();
    return section(`Stack ${count(last.number)}${stacks !== last.number ? " of " + count(stacks) : ""} by its agent`,
      h("p", {}, [`at ${duration(last.elapsed_s)}`, isNumber(entry.ended) ? "" : stackWhen(entry, now),
        `thread ${last.tid ?? UNKNOWN}${last.thread ? ` "${clipped(last.thread, 40)}"` : ""}`,
        clipped(last.state || "", 80), isNumber(last.cpu_s) ? duration(last.cpu_s) + " CPU" : ""].filter(Boolean).join(" \u00b7 ")),
      waitsWords(last) ? h("p", {class: last.waits.kind === "sleep" ? "" : "warn"}, waitsWords(last)) : null,
      last.problem ? h("p", {class: "warn"}, `[${last.problem}]`) : null,
      frameList(frames, `slow ${entry.id} agent`, marks),
      before.length ? [h("h3", {}, "Where its stacks before were, and when"),
        h("ul", {class: "plain"}, before.map((stack) => h("li", {key: stack.number}, duration(stack.elapsed_s), "  ",
        stack.hot && stack.hot.length ? placeWords(stack.hot[0]) : "(the same)",
          h("span", {class: "dim"}, "  " + (waitsWords(stack) || stack.state || "")))))] : null,
      last.locals && last.locals.length ? [h("h3", {}, "Arguments and variables, of the innermost first"),
        h("ul", {class: "plain"}, last.locals.map(([depth, name, text], place) =>
        h("li", {}, place && last.locals[place - 1][0] === depth ? null
          : h("div", {class: "dim"}, frames[depth] ? placeWords(frames[depth]) : UNKNOWN), clipped(name, 80), " = ",
          words(text, 300))))] : null);
  }

  function outsideStack(entry) {
    const told = entry.stack, frames = told.frames || [], joined = JOINED[told.how] || told.how;
    if (!joined && !frames.length) return section("Stack", h("p", {class: "warn"},
      `taken ${duration(told.age_s)} ago: ${told.problem || "not read"}`));
    return section(`Stack of thread ${told.tid ?? UNKNOWN}`, h("p", {class: JOINED[told.how] ? "" : "warn"},
      `taken ${duration(told.age_s)} ago; ${joined || "how it was joined is not told"}`),
      problemWords(told) ? h("p", {class: "warn"}, `[${problemWords(told)}]`) : null, frameList(frames, `slow ${entry.id}`));
  }

  function stacksOf(entry, answer) {
    const now = answer.time, last = entry.agent && entry.agent.last, outside = entry.stack;
    const trouble = answer.stacks && answer.stacks.problem && isRunning(entry)
      ? h("p", {class: "warn"}, "Stacks cannot be read: " + answer.stacks.problem) : null;
    if (entry.agent
      && !last) return [h("p", {class: "dim"},
      `Its agent watches it; of its stacks ${isRunning(entry) ? "none has been taken yet" : "none was taken"}.`),
      outside ? outsideStack(entry) : null];
    if (!last) return [outside ? outsideStack(entry) : null, trouble];
    const newer = outside && (outside.frames || []).length && (outside.age_s || 0) + NEWER_S < stackAge(entry, now);
    if (newer) return [outsideStack(entry), h("p", {class: "dim"}, "By its agent: ",
      last.frames.length ? placeWords(last.frames[0]) : UNKNOWN, ", ", stackWhen(entry, now))];
    return [agentStack(entry, now), outside && (outside.frames || []).length
      ? h("p", {class: "dim"}, `Read from outside: ${placeWords(outside.frames[0])}, ${duration(outside.age_s)} ago`) : null];
  }

  // What ended it, what it waits for, where it is: what has to be seen first.
  function placeOf(entry, now) {
    const last = entry.agent && entry.agent.last, out = [];
    const frames = last ? last.frames : entry.stack && entry.stack.frames;
    if (frames && frames.length) out.push(h("p", {}, "in ", h("strong", {}, placeWords(frames[0])),
      h("span", {class: "dim"}, last ? " " + stackWhen(entry, now) : ` ${duration(entry.stack.age_s)} ago`)));
    if (entry.agent && entry.agent.exception) out.push(h("p", {class: "bad"}, "ended by an exception: ",
      words(entry.agent.exception, 200), " ", h("a", {href: link("exceptions")}, "where")));
    return out;
  }

  // answer: the one that the entry is of.
  function opened(entry, answer) {
    return h("article", {class: "request", "aria-label": "slow request " + entry.id},
      h("h3", {}, words(`${entry.method || UNKNOWN} ${entry.scheme ? entry.scheme + "://" : ""}${urlOf(entry)}`, 1000)),
      h("p", {class: LIFE_TONES[entry.life]}, saidOf(entry)), placeOf(entry, answer.time), phases(entry),
        detailsOf(entry, answer.time), stacksOf(entry, answer),
      isRunning(entry) && entry.pid ? h("p", {}, askForStacks(entry.pid, entry.process ?? undefined,
        "Take the stacks of its process now")) : null);
  }

  // --- the list -----------------------------------------------------------------------------------

  function clearTool(answer) {
    if (clearing === "confirm") {
      return h("span", {role: "group", "aria-label": "Confirm"}, "Drop the records of ended requests, for everybody? ",
        h("button", {type: "button", id: "clear-yes",
        onclick: () => {
          clearing = "asking\u2026";
          redraw();
          post("api/slow/clear").then((found) => counted(found.dropped, "record") + " dropped",
            (error) => error.status === undefined ? "no answer from the collector" : error.message).then((told) => {
            clearing = told;
            pollNow();
            redraw();
          });
        }}, "Drop them"), " ", h("button", {type: "button", id: "clear-no", onclick: () => {
        clearing = null;
        redraw();
        document.getElementById("clear").focus();
      }}, "Keep them"));
    }
    return [h("button", {type: "button", id: "clear", disabled: !answer.kept, onclick: () => {
      clearing = "confirm";
      redraw();
      document.getElementById("clear-yes").focus();
    }}, "Clear ended ones\u2026"), h("span", {role: "status", class: "dim"}, clearing)];
  }

  function draw(answers, state) {
    const none = missing(answers, "slow");
    if (none) return none;
    const answer = answers.slow, rows = rowsOf(answers);
    const some = state.search || state.life || state.group !== undefined;
    const elsewhere = state.open !== undefined && !rows.some((entry) => String(entry.id) === state.open);
    const one = elsewhere ? answers["one " + state.open] : undefined, found = one && one.slow_requests[0];
    return [
      h("p", {}, h("strong", {}, !some || answer.matched >= answer.kept ? `${counted(answer.matched, "slow request")}, running and ended`
        : `${count(answer.matched)} of ${counted(answer.kept, "slow request")}`),
        answer.evicted
          ? h("span", {class: "warn"}, `  ${count(answer.evicted)} more dropped for want of room (--max-slow, --slow-bytes)`)
          : null),
      h("div", {class: "tools"}, searchBox("search"), choice("life", "show", FILTERS), clearTool(answer),
        pauseS(state) > 1 ? h("span", {class: "dim"}, `looked at every ${pauseS(state)} s`) : null),
      elsewhere ? h("div", {class: "elsewhere"}, found ? opened(found.entry, one) : one || !/^\d{1,12}$/.test(state.open)
        ? h("p", {class: "warn"}, GONE) : missing(answers, "one " + state.open)) : null,
      table({caption: "Slow requests", columns: COLUMNS, rows, id: idOf, answer, limit: LIMIT, order: {sort: "state"},
        opened: (entry) => opened(entry, answer),
        empty: some ? "None of them is meant: show all, or other groups." : NONE})];
  }

  view({
    id: "slow", title: "Slow requests", key: "s",
    paths: (state) => {
      const wanted = {slow: every(pauseS(state), path("api/slow", {...ordered(COLUMNS, "state"), life: lifeOf(state),
        search: state.search,
        group: state.group, offset: offsetOf() || undefined, limit: LIMIT, pivots: 0}))};
      // what is on the page is whole there; another one has to be looked for
      if (/^\d{1,12}$/.test(state.open || "") && !rowsOf(answers).some((entry) => String(entry.id) === state.open)) wanted["one "
        + state.open] = every(5, path("api/slow", {id: state.open, pivots: 0}));
      return wanted;
    },
    draw,
  });

  // --- where the time goes ------------------------------------------------------------------------

  const PIVOTS = 50, PIVOT_SORTS = [[undefined, "the last 10 minutes"], ["total", "all the time"]];
  const NO_PIVOTS = "No long request with stacks so far: an agent in the application tells of them. `agent.install()` under mod_wsgi, "
    + "`application = agent.middleware(application)` under any other server: see man modwsgi-tel.";

  const pivotId = (row) => crc32(JSON.stringify([row.process_group, row.frames.map((frame) => [frame.function, frame.file,
    frame.line])])).toString(16);
  const roleWords = (row) => row.waits && row.role !== row.waits ? `${row.role}: ${row.waits}` : row.role || UNKNOWN;
  const roleTone = (row) => row.role !== "waits" ? "" : row.waits_for ? "dim" : "warn";
  const pathsOf = (row) => Object.entries(row.paths || {}).sort((a, b) => b[1] - a[1]);

  const PIVOT_COLUMNS = [
    {title: "10 min", hint: "seconds of long requests, in the last 10 minutes", text: (row) => duration(row.recent_s)},
    {title: "in all", text: (row) => duration(row.seconds)},
    {title: "requests", text: (row) => count(row.requests)},
    {title: "now", hint: "of them running", text: (row) => count(row.active), tone: (row) => row.active ? "warn" : ""},
    {title: "thread", left: true, text: roleWords, tone: roleTone},
    {title: "in", left: true, text: (row) => row.place, cell: (row) => words(row.place, 70)},
    {title: "path", left: true, text: (row) => pathsOf(row).length ? pathsOf(row)[0][0] : UNKNOWN,
      cell: (row) => words(pathsOf(row).length ? pathsOf(row)[0][0] : UNKNOWN, 40)},
    {title: "group", left: true, text: groupName, cell: (row) => words(groupName(row), 20)},
  ];

  function openedPivot(row) {
    const waited = row.waited && row.stacks && row.waited < row.stacks
      ? ` (${count(row.waited)} of its ${count(row.stacks)} stacks waited for others)` : "";
    return [h("p", {},
      `${duration(row.seconds)} (${duration(row.recent_s)} in the last 10 min) of ${counted(row.requests, "long request")}${row.active ? `, ${count(row.active)} of them running` : ""}`),
      row.blocked_requests
        ? h("p", {class: "warn"}, `makes ${counted(row.blocked_requests, "request")} wait ${duration(row.blocked_s)}`) : null,
      h("p", {class: row.waits_for ? "" : "dim"}, row.waits_for ? `waits for ${row.waits_for}: ${row.how_known}` : row.how_known
        || UNKNOWN, waited),
      pathsOf(row).length || row.paths_other ? h("p", {}, "paths: ", pathsOf(row).map(([name, amount],
        place) => [place ? ", " : "", words(name, 100), " " + count(amount)]),
        row.paths_other ? ` and ${count(row.paths_other)} on other paths` : "") : null,
      h("h3", {}, "What the stacks of each of these requests have in common"),
        row.cut ? h("p", {class: "warn"}, "[stacks were cut here: what is further inside may be the same, too]") : null,
      frameList(row.frames, "pivot " + pivotId(row))];
  }

  view({
    id: "time", title: "Time goes", key: "T",
    paths: (state) => ({time: every(2, path("api/slow", {sort: "state", limit: 0, group: state.group, pivots: PIVOTS,
      pivots_sort: state.by === "total" ? "total" : undefined}))}),
    draw: (answers, state) => {
      const none = missing(answers, "time");
      if (none) return none;
      const answer = answers.time;
      return [h("p", {}, h("strong", {}, `Where the time of long requests goes: ${counted(answer.pivots_matched, "place")}`),
        answer.pivots_evicted ? h("span", {class: "dim"}, `  ${count(answer.pivots_evicted)} cheaper ones forgotten`) : null,
          answer.pivots_problem ? h("span", {class: "warn"}, answer.pivots_problem) : null),
      h("div", {class: "tools"}, choice("by", "by the time of", PIVOT_SORTS)),
      table({caption: "Places where the time goes", columns: PIVOT_COLUMNS, rows: answer.pivots, id: pivotId,
        opened: (row) => h("div", {class: "inner"}, openedPivot(row)),
        empty: state.group === undefined ? NO_PIVOTS : "None in this process group."}),
      answer.pivots_matched > answer.pivots.length ? h("p", {class: "dim"},
        `and ${counted(answer.pivots_matched - answer.pivots.length, "cheaper place")}`) : null];
    },
  });
}
