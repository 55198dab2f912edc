// Garbage collection: how much time it takes, each interpreter's generations, and the single pauses of one.

{
  const LIMIT = 50, GENERATIONS = [0, 1, 2];
  const LENGTHS_S = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
  const SPANS_S = [15, 30, 60, 120, 300, 600, 1800, 3600];
  const SHOWN_S = 0.05;                 // of a second in pauses: what the chart shows at least
  const TIMELINE = 60;                  // bars
  const windowOf = (state) => state.window === "now" ? "1m" : state.window;     // ticks do not tell of pauses
  const nameOf = (row) => row.interpreter || "(main)";
  const idOf = (row) => `${row.process}:${row.interpreter || ""}`;
  const sum = (values) => {
    const known = (values || []).filter(isNumber);
    return known.length ? known.reduce((all, each) => all + each, 0) : null;
  };

  function openedOf(state) {
    const found = /^(\d{1,12}):([^]*)$/.exec(state.open || "");
    return found && {process: found[1], interpreter: found[2]};
  }

  function full(row, generation) {
    const held = (row.count || [])[generation], threshold = (row.threshold || [])[generation];
    return isNumber(held) && threshold > 0 ? Math.max(0, Math.min(1, held / threshold)) : null;
  }

  function pressure(row, generation) {
    return `${count((row.count || [])[generation])}/${count((row.threshold || [])[generation])}`;
  }

  const fullest = (row) => Math.max(-1, ...GENERATIONS.map((generation) => full(row, generation) ?? -1));
  const shareTone = (share) => share >= 0.2 ? "bad" : share >= 0.05 ? "warn" : "";

  const COLUMNS = [
    {title: "pid", text: (row) => String(row.pid)},
    {title: "group", left: true, text: (row) => clipped(groupName(row), 40), cell: (row) => words(groupName(row), 24)},
    {title: "interpreter", left: true, text: nameOf, cell: (row) => words(nameOf(row), 28)},
    {title: "gc", left: true, text: (row) => ({true: "on", false: "OFF"})[row.enabled] || UNKNOWN,
      tone: (row) => row.enabled === false ? "warn" : ""},
    {title: "gen 0", text: (row) => pressure(row, 0)}, {title: "gen 1", text: (row) => pressure(row, 1)},
    {title: "gen 2", text: (row) => pressure(row, 2),
      hint: "objects or collections counted, of the threshold at which it collects"},
    {title: "fullest", text: (row) => fullest(row) < 0 ? UNKNOWN : percent(fullest(row)),
      cell: (row) => fullest(row) < 0 ? UNKNOWN : [meter(fullest(row), fullest(row) >= 1 ? "warn" : ""), " ",
        percent(fullest(row))]},
    {title: "share", hint: "of the time of the whole process", text: (row) => percent(row.window.share),
      tone: (row) => shareTone(row.window.share)},
    {title: "time", hint: "in pauses, of the whole process", text: (row) => duration(row.window.seconds)},
    {title: "longest", hint: "pause of the whole process", text: (row) => duration(row.window.max)},
    {title: "pauses", hint: "of the whole process", text: (row) => count(row.window.pauses)},
    {title: "lost", hint: "pauses that found no room in the last tick", text: (row) => count(row.dropped_events),
      tone: (row) => row.dropped_events ? "bad" : ""},
    {title: "collections", text: (row) => count(sum(row.collections))},
    {title: "uncollectable", text: (row) => count(sum(row.uncollectable)), tone: (row) => sum(row.uncollectable) ? "warn" : ""},
  ];

  // --- all interpreters ---------------------------------------------------------------------------

  function charts(answers, state) {
    const series = answers.series;
    if (!series || !series.points) return missing(answers, "series", "charts");
    const at = (name) => series.columns.indexOf(name), step = series.step_s || 5;
    const points = series.points.slice(-Math.ceil((state.window === "10m" ? 600 : 60) / step) - 1);
    const times = points.map((point, place) => point ? point[at("time")] : series.time - step * (points.length - place));
    const values = (name, scale) => points.map((point) => point && isNumber(point[at(name)]) ? point[at(name)] * scale : null);
    const line = (id, title, told, format, floor) => {
      const last = told.filter(isNumber).slice(-1)[0];
      return lineChart({id: "gc " + id, title, shown: format(last), values: told, times, step, format, floor});
    };
    return h("div", {class: "charts"}, line("pauses", "pauses a second", values("gc_pauses", 1 / step),
      (value) => number(value, 1), 1),
      line("seconds", "time in pauses a second, all processes", values("gc_seconds", 1 / step), duration, SHOWN_S));
  }

  function said(answers, state) {
    const window = windowOf(state), totals = answers.summary && answers.summary.totals;
    const held = state.group === undefined && totals && totals.windows && totals.windows[window] && totals.windows[window].gc;
    return h("p", {}, h("strong", {}, counted(answers.gc.matched, "interpreter")),
      held ? `, ${counted(held.pauses, "pause")}, ${duration(held.seconds)} in all, `
      + `the longest ${duration(held.max)}` : "", h("span", {class: "dim"},
        ` (${WINDOW_WORDS[window]}; share, time, longest and pauses are of the whole process)`));
  }

  // --- one interpreter ----------------------------------------------------------------------------

  function smallTable(caption, titles, rows) {
    return h("table", {class: "small"}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, titles.map((title) => h("th", {scope: "col"}, title)))),
      h("tbody", {}, rows.map(([first, ...cells]) => h("tr", {}, h("th", {scope: "row"}, first), cells.map((cell) => h("td", {}, cell))))));
  }

  function generations(row) {
    const titles = ["gen", "count/threshold", "full", "collections", "collected", "uncollectable"];
    return smallTable("its generations", titles, GENERATIONS.map((generation) => [
      String(generation), pressure(row, generation),
      [meter(full(row, generation), full(row, generation) >= 1 ? "warn" : ""), " ", percent(full(row, generation))],
      ...["collections", "collected", "uncollectable"].map((name) => count((row[name] || [])[generation]))]));
  }

  function byGeneration(events) {
    const titles = ["gen", "pauses", "mean", "longest", "in all", "collected", "uncollectable"];
    return smallTable("pauses by generation", titles, GENERATIONS.map((generation) => {
      const of = events.filter((event) => event.generation === generation), lasted = of.map((event) => event.duration);
      return [String(generation), count(of.length), of.length ? duration(sum(lasted) / of.length) : UNKNOWN,
        of.length ? duration(Math.max(...lasted)) : UNKNOWN, duration(sum(lasted)), count(sum(of.map((event) => event.collected))),
        count(sum(of.map((event) => event.uncollectable)))];
    }));
  }

  function timeline(events, answer, id) {
    const now = answer.time, oldest = Math.max(1, ...events.map((event) => now - event.start));
    // where older ones were left out the time before is not without pauses, but unknown
    const span = answer.earlier ? oldest : SPANS_S.find((each) => each >= oldest) || oldest;
    const sums = new Array(TIMELINE).fill(0), counts = new Array(TIMELINE).fill(0);
    for (const event of events) {
      const place = Math.max(0, Math.min(TIMELINE - 1, Math.floor((event.start - now + span) / span * TIMELINE)));
      sums[place] += event.duration;
      counts[place] += 1;
    }
    const each = span / TIMELINE;
    return section(`Pauses in each ${duration(each)}`, barChart({id: "gc time " + id,
      label: `time in pauses over the last ${duration(span)}; the most in ${duration(each)}: `
      + duration(Math.max(...sums)), format: duration, bars: sums.map((value,
        place) => ({value, title: `${duration(span - place * each)} ago: ${duration(value)} in `
      + counted(counts[place], "pause")})), ticks: [{at: 2, name: duration(span) + " ago"},
        {at: TIMELINE / 2, name: duration(span / 2)}, {at: TIMELINE - 4, name: "now"}]}));
  }

  function lengths(events, id) {
    const counts = new Array(LENGTHS_S.length + 1).fill(0);
    for (const event of events) counts[LENGTHS_S.filter((edge) => edge <= event.duration).length] += 1;
    const begin = (place) => place ? duration(LENGTHS_S[place - 1]) : "0";
    return section("Pauses by length", barChart({id: "gc length " + id, label: `pauses by length: ${counts.map((value, place) => [value, place]).filter(([value]) => value)
      .map(([value, place]) => `${count(value)} from ${begin(place)}`).join(", ")}`, format: (value) => counted(value, "pause"),
    bars: counts.map((value,
      place) => ({value,
      title: `${counted(value, "pause")} of ${begin(place)} ${place < LENGTHS_S.length ? "to " + duration(LENGTHS_S[place]) : "and longer"}`})),
    ticks: counts.map((_, place) => ({at: place, name: place % 3 === 0 ? begin(place) : ""}))}));
  }

  function opened(row, answers, state) {
    const answer = answers.events, wanted = openedOf(state);
    const parts = row ? [generations(row), h("p", {}, row.enabled === false
      ? h("span", {class: "warn"}, "Disabled: only gc.collect() collects. ") : null,
      h("span", {class: row.dropped_events ? "bad" : ""}, `pauses lost at its last tick ${count(row.dropped_events)}`),
        `; frozen ${count(row.frozen)}`)] : [];
    if (!answer || String(answer.process) !== wanted.process || (answer.interpreter || "") !== wanted.interpreter) return [parts,
      missing(answers, "events", "its pauses")];
    const held = answer.events.filter((event) => isNumber(event.duration) && event.duration >= 0 && event.duration < 1e6);
    // what its sender says of the time is not believed beyond reason
    const timed = held.filter((event) => isNumber(event.start) && event.start >= answer.time - SPANS_S[SPANS_S.length - 1]
      && event.start <= answer.time + 60);
    const unusable = answer.events.length - timed.length;
    if (!held.length) return [parts,
      h("p", {class: "dim"},
      "No pause of it is known: either it has not collected of late, or its pauses are not sent (gc_event).")];
    return [parts, h("p", {}, `${counted(held.length, "pause")}, ${duration(sum(held.map((event) => event.duration)))} in all, `,
      h("strong", {}, "the longest "
      + duration(Math.max(...held.map((event) => event.duration)))), answer.earlier
        ? h("span", {class: "dim"}, `; ${count(answer.earlier)} older ones not shown`) : null,
    unusable ? h("span", {class: "warn"}, `; ${count(unusable)} of no time within the last hour`) : null),
    timed.length ? timeline(timed, answer, idOf(wanted)) : null, lengths(held, idOf(wanted)), byGeneration(held)];
  }

  view({
    id: "gc", title: "GC", key: "g",
    paths: (state) => {
      const wanted = {gc: path("api/gc", {window: windowOf(state), group: state.group, offset: offsetOf() || undefined,
        limit: LIMIT}),
        series: every(5, path("api/series", {window: windowOf(state), group: state.group}))}, open = openedOf(state);
      if (open) wanted.events = every(2, path("api/gc/events", open));
      return wanted;
    },
    draw: (answers, state) => {
      const none = missing(answers, "gc"), open = openedOf(state);
      if (none) return none;
      const rows = answers.gc.interpreters, there = rows.some((row) => idOf(row) === state.open);
      return [said(answers, state), charts(answers, state),
        open && !there ? section(`Interpreter ${open.interpreter || "(main)"} (its row is not on this page)`,
          opened(null, answers, state)) : null,
        table({caption: "Garbage collectors", columns: COLUMNS, rows, id: idOf, answer: answers.gc, limit: LIMIT,
          opened: (row) => h("div", {class: "inner"}, opened(row, answers, state)),
          empty: "No interpreter of a process that lives has told of its garbage collector. mod_wsgi sends that at each tick, once an application is loaded."})];
    },
  });
}
