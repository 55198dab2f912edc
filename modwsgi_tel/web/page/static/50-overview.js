// The overview: what is wrong, the course of the window, where a request's time goes, each group.
//
// Numbers are those of the window, as in the totals; lines are drawn from points of five seconds.  Of a chosen
// group everything is about that group, but for the table, which marks it.

const PHASES = ["server", "queue", "daemon", "application", "request", "gil_wait", "input_read", "output_write"];
// Phases that follow one another add up to the request; the others overlap the application's time.
const PARTS = [["server", "dimmed"], ["queue", "warned"], ["daemon", "lit"], ["application", "well"]];
const OVERLAPPING = [["gil_wait", "GIL wait"], ["input_read", "input read"], ["output_write", "output write"]];
const POINTS = {now: 12, "1m": 12, "10m": 120};
const SETTLED_S = 12.5;                 // a point that is older does not change any more
const course = {id: null, first: 0, rows: [], newest: null};     // the points so far, of one window and group

function seriesId(state) {
  return JSON.stringify([state.window, state.group]);
}

// The path of the points that are not known yet; all of them for another window or group.
function seriesPath(state) {
  const known = course.id === seriesId(state) && course.newest !== null;
  return every(2, path("api/series", {window: state.window, group: state.group, since: known ? course.newest - SETTLED_S : undefined}),
    "series " + seriesId(state));
}

// The points with those of an answer: {columns by name, times, step}, or null.
function courseOf(answer, state) {
  const points = POINTS[state.window];
  if (answer && answer.window === state.window && answer !== course.taken) {
    const fits = course.id === seriesId(state) && answer.first >= course.first && answer.first <= course.first + course.rows.length;
    if (!fits && answer.points.length < points) {
      course.id = null;                 // the collector began anew: all of it at the next look
      course.newest = null;
      return null;
    }
    const rows = fits ? [...course.rows.slice(0, answer.first - course.first), ...answer.points] : answer.points;
    const first = fits ? course.first : answer.first;
    const over = Math.max(0, rows.length - points);
    Object.assign(course, {id: seriesId(state), first: first + over, rows: rows.slice(over), columns: answer.columns,
      step: answer.step_s, taken: answer});
    const last = course.rows.map((row) => row && row[0]).filter(isNumber).pop();
    course.newest = last === undefined ? null : last;
    // where nothing was received yet, the newest point has just ended
    course.end = last === undefined ? answer.time : last + (course.rows.length - 1 - course.rows.findLastIndex((row) => row)) * answer.step_s;
  }
  if (course.id !== seriesId(state) || !course.rows.length) return null;
  const times = course.rows.map((row, place) => course.end - (course.rows.length - 1 - place) * course.step);
  const values = {};
  course.columns.forEach((name, at) => { values[name] = course.rows.map((row) => row && isNumber(row[at]) ? Math.max(0, row[at]) : null); });
  return {times, values, step: course.step};
}

// What the gauges show, of all or of the chosen group: one row of the summary, or its hosts together.
function windowNow(answers, state) {
  const {totals} = answers.summary || {};
  if (state.group === undefined) return totals ? {window: totals.windows[state.window] || {}, rss: totals.rss} : null;
  const rows = ((answers.summary || {}).groups || []).filter((row) => row.process_group === state.group);
  if (rows.length === 1) return {window: rows[0].windows[state.window] || {}, rss: rows[0].rss};
  return rows.length ? {window: together(rows.map((row) => row.windows[state.window] || {})), rss: sum(rows.map((row) => row.rss))} : null;
}

function sum(values) {
  const known = values.filter(isNumber);
  return known.length ? known.reduce((all, each) => all + each, 0) : null;
}

// Windows of one group on several hosts as one: sums; means by requests, capacity by ticks; no percentiles.
function together(windows) {
  const mean = (pairs) => {
    const known = pairs.filter(([value, weight]) => isNumber(value) && weight > 0);
    return known.length ? sum(known.map(([value, weight]) => value * weight)) / sum(known.map(([, weight]) => weight)) : null;
  };
  const out = {phases: {}, status: {"5xx": sum(windows.map((each) => (each.status || {})["5xx"]))},
    capacity: mean(windows.map((each) => [each.capacity, each.ticks])), gil: {share: null}};
  for (const name of ["throughput", "cpu", "requests"]) out[name] = sum(windows.map((each) => each[name]));
  for (const phase of PHASES) {
    if (windows.some((each) => (each.phases || {})[phase])) {
      out.phases[phase] = {mean: mean(windows.map((each) => [((each.phases || {})[phase] || {}).mean, each.requests]))};
    }
  }
  return out;
}

// A figure with words around it; without them where it is not known.
function worded(value, format, before = "", behind = "") {
  return isNumber(value) ? before + format(value) + behind : UNKNOWN;
}

const GAUGES = [
  {title: "throughput", column: "throughput", latest: ({window}) => window.throughput, shown: ({window}) => worded(window.throughput, number, "", " req/s"), format: (value) => number(value) + " req/s"},
  {title: "busy", column: "capacity", top: 1, latest: ({window}) => window.capacity, shown: ({window}) => percent(window.capacity), format: percent, tone: ({window}) => busyClass(window.capacity)},
  {title: "response", column: "mean", shown: ({window}) => {
    const request = (window.phases || {}).request || {};
    return isNumber(request.p95) ? "p95 " + duration(request.p95) : worded(request.mean, duration, "mean ");
  }, format: (value) => "mean " + duration(value)},
  {title: "longest request", column: "max", latest: ({window}) => ((window.phases || {}).request || {}).max, shown: ({window}) => duration(((window.phases || {}).request || {}).max), format: duration},
  {title: "queue", column: "queue", shown: ({window}) => {
    const queue = (window.phases || {}).queue || {};
    return isNumber(queue.p95) ? "p95 " + duration(queue.p95) : worded(queue.mean, duration, "mean ");
  }, floor: 0.005, format: (value) => "mean " + duration(value)},
  {title: "5xx errors", column: "errors", shown: ({window}) => count((window.status || {})["5xx"]), format: (value) => count(value) + " in 5 s",
    tone: ({window}) => errorsClass((window.status || {})["5xx"], window.requests)},
  {title: "cpu", column: "cpu", latest: ({window}) => window.cpu, floor: 0.25, shown: ({window}) => worded(window.cpu, (value) => number(value, 2), "", " cores"), format: (value) => number(value, 2) + " cores"},
  {title: "memory", column: "rss", latest: ({rss}) => rss, shown: ({rss}) => size(rss), format: size},
  {title: "GIL wait", column: "gil_share", latest: ({window}) => (window.gil || {}).share, floor: 0.2, shown: ({window}) => percent((window.gil || {}).share), format: percent},
];

function gauges(answers, state, now) {
  const known = courseOf(answers.series, state);
  const {times, values, step} = known || {times: [], values: {}, step: 5};
  return h("div", {class: "charts", key: "charts"}, GAUGES.map((gauge) => lineChart({id: "overview " + gauge.title, title: gauge.title,
    shown: now ? gauge.shown(now) : UNKNOWN, values: values[gauge.column] || [], times, step, top: gauge.top, floor: gauge.floor, tone: now && gauge.tone ? gauge.tone(now) : "",
    latest: now && gauge.latest ? gauge.latest(now) : null, format: gauge.format})));
}

function pointsTable(answers, state) {
  const known = courseOf(answers.series, state);
  if (!known) return null;
  return h("details", {key: "points"}, h("summary", {}, "the points of these lines as a table"), h("div", {class: "scroll"}, h("table", {},
    h("caption", {class: "unseen"}, "points of five seconds"),
    h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "from"), GAUGES.map((gauge) => h("th", {scope: "col"}, gauge.title)))),
    h("tbody", {}, known.times.map((time, place) => h("tr", {key: String(Math.round(time))}, h("th", {scope: "row"}, clock(time)),
      GAUGES.map((gauge) => h("td", {}, known.values[gauge.column] && isNumber(known.values[gauge.column][place])
        ? gauge.format(known.values[gauge.column][place]) : UNKNOWN))))))));
}

// What agents tell: what is wrong with them, exceptions, where the time of long requests goes; null where there is nothing.
// Of a chosen group, as far as the most of all are of it: the sums are over all groups.
function insideList(agent, state) {
  if (!agent) return null;
  const all = state.group === undefined, mine = (rows) => (rows || []).find((row) => all || row.process_group === state.group);
  const most = mine(agent.top_exceptions), cost = mine(agent.pivots), wrong = all ? agent.problems || [] : [];
  const raised = most ? `${count(most.count)} ${clipped(most.type, 80)} at ${clipped(most.place, 120)}` : "";
  const told = [
    wrong.length ? ["agent", "bad", clipped(wrong[0], 300) + (wrong.length > 1 ? ` (+${wrong.length - 1} more)` : ""), "processes"] : null,
    all && agent.exceptions ? ["exceptions", "warn", `${count(agent.exceptions)} from ${counted(agent.exception_places, "place")}`
      + (raised ? `; most: ${raised}` : ""), "exceptions"] : raised ? ["exceptions", "warn", raised, "exceptions"] : null,
    cost ? ["time goes", "", `${cost.recent_s ? duration(cost.recent_s) + " in 10 min," : duration(cost.seconds)} of `
      + `${counted(cost.requests, "long request")} in ${clipped(cost.place, 200)}`
      + (cost.blocked_requests ? `, which makes ${counted(cost.blocked_requests, "request")} wait ${duration(cost.blocked_s)}` : ""), "time"] : null,
  ].filter(Boolean);
  return told.length ? h("dl", {class: "words", id: "inside", key: "inside"}, told.map(([name, tone, text, id]) =>
    h("div", {key: name}, h("dt", {}, h("a", {href: link(id)}, name)), h("dd", {class: tone}, text)))) : null;
}

// What to do where nothing has ever been heard.
function firstSteps() {
  return section("Nothing has arrived yet", h("p", {}, "On the server, ", h("code", {}, "sudo modwsgi-tel.pyz doctor"),
    " says what is missing and what mends it. Apache needs mod_wsgi 6 and ", h("code", {}, "WSGITelemetryService"),
    " with the path of this collector's socket, which stands in ", h("a", {href: link("collector")}, "Collector"),
    "; any other server needs the agent in its application."));
}

// Where the time of a request goes: its mean as a bar of parts, and what overlaps the application.
function phaseBar(window) {
  const mean = (name) => ((window.phases || {})[name] || {}).mean;
  if (!isNumber(mean("request"))) return h("p", {class: "dim"}, "no request in this window");
  const parts = PARTS.filter(([name]) => isNumber(mean(name))).map(([name, tone]) => ({name, tone, value: mean(name), title: `${name} ${duration(mean(name))}`}));
  const beside = OVERLAPPING.filter(([name]) => isNumber(mean(name))).map(([name, shown]) => `${shown} ${duration(mean(name))}`);
  return [stacked(parts, `mean of a request ${duration(mean("request"))}: ` + parts.map((part) => part.title).join(", ")),
    h("p", {class: "legend"}, h("strong", {}, "mean " + duration(mean("request"))), parts.map((part) =>
      h("span", {class: "entry", key: part.name}, h("i", {class: "swatch " + part.tone, "aria-hidden": "true"}), part.title)),
    beside.length ? h("span", {class: "dim"}, "of the application: " + beside.join(", ")) : null)];
}

function phaseTable(window) {
  const told = PHASES.filter((name) => (window.phases || {})[name]);
  if (!told.length) return null;
  const figure = (title, name) => ({title, text: (phase) => duration(window.phases[phase][name])});
  return table({caption: "phases of a request", id: (phase) => phase, rows: told, columns: [
    {title: "phase", left: true, text: (phase) => phase, cell: (phase) => h("a", {href: link("latency", {phase})}, phase)},
    figure("mean", "mean"), figure("p50", "p50"), figure("p95", "p95"), figure("p99", "p99"), figure("longest", "max")]});
}

// How long requests took: small here, at length in Latency.
function requestTimes(answers) {
  const answer = answers.histogram;
  if (!answer) return missing(answers, "histogram", "request times");
  const counts = histogramCounts(answer);
  return counts.some(Boolean) ? h("div", {class: "small"}, h("h3", {}, h("a", {href: link("latency")}, "request times")), histogramPicture(answer, counts, "request times")) : null;
}

// --- groups ---------------------------------------------------------------------------------------

const ALIVE = ["started", "running", "silent", "stopping"];

function aliveOf(row) {
  return ALIVE.reduce((all, name) => all + ((row.lives || {})[name] || 0), 0);
}

// `4`, or `3/4` when one of four is not running.
function processesOf(row) {
  const alive = aliveOf(row), fine = ((row.lives || {}).started || 0) + ((row.lives || {}).running || 0);
  return fine === alive ? String(alive) : `${fine}/${alive}`;
}

function groupColumns(state, several) {
  const window = (row) => row.windows[state.window] || {};
  const phase = (name, figure) => (row) => duration(((window(row).phases || {})[name] || {})[figure]);
  const errors = (row) => (window(row).status || {})["5xx"];
  return [
    {title: "group", left: true, text: groupName, cell: (row) => h("a", {href: link("overview", {group: state.group === row.process_group ? undefined : row.process_group}),
      "aria-current": state.group === row.process_group ? "true" : undefined}, words(groupName(row), 32))},
    ...several ? [{title: "host", left: true, text: (row) => row.hostname, cell: (row) => words(row.hostname, 24)}] : [],
    {title: "procs", text: processesOf, tone: (row) => processesOf(row).includes("/") ? "warn" : ""},
    {title: "req/s", text: (row) => number(window(row).throughput)},
    {title: "p50", text: phase("request", "p50")}, {title: "p95", text: phase("request", "p95")}, {title: "p99", text: phase("request", "p99")},
    {title: "longest", text: phase("request", "max")}, {title: "queue p95", text: phase("queue", "p95")},
    {title: "busy", text: (row) => percent(window(row).capacity), tone: (row) => busyClass(window(row).capacity)},
    {title: "used", hint: "threads at work, of all", text: (row) => row.threads ? `${count(row.threads.active)}/${count(row.threads.maximum)}` : UNKNOWN},
    {title: "cpu", hint: "cores", text: (row) => number(window(row).cpu, 2)}, {title: "rss", text: (row) => size(row.rss)},
    {title: "5xx", text: (row) => count(errors(row)), tone: (row) => errorsClass(errors(row), window(row).requests)},
    {title: "slow", hint: "slow requests that run", text: (row) => count(row.slow_active), tone: (row) => row.slow_active ? "warn" : ""},
    {title: "GIL wait", hint: "of the application's time", text: (row) => percent((window(row).gil || {}).share)},
    {title: "lost", hint: "datagrams that did not arrive", text: (row) => count(row.lost), tone: (row) => row.lost ? "warn" : ""},
    {title: "stopped", text: (row) => count(row.stopped)}, {title: "vanished", text: (row) => count(row.vanished), tone: (row) => row.vanished ? "bad" : ""},
  ];
}

// A summary that another view has left has no groups.
function groupsAsked(answers) {
  return answers.summary.groups ? null : h("p", {class: "dim"}, "asking the collector");
}

function groupTable(answers, state) {
  const rows = [...((answers.summary || {}).groups || [])].sort((a, b) => Boolean(aliveOf(b)) - Boolean(aliveOf(a))
    || (a.process_group < b.process_group ? -1 : a.process_group > b.process_group ? 1 : a.hostname < b.hostname ? -1 : 1));
  const several = new Set(rows.map((row) => row.hostname)).size > 1;
  return missing(answers, "summary") || groupsAsked(answers) || table({caption: "process groups", id: (row) => row.hostname + "\n" + row.process_group, rows,
    columns: groupColumns(state, several), empty: "no process has reported yet"});
}

view({
  id: "overview", title: "Overview", key: "o",
  parts: ["groups"],
  paths: (state) => ({series: seriesPath(state), inside: every(isLarge() ? 10 : 2, path("api/summary", {parts: "agent"})),
    histogram: every(isLarge() ? 5 : 1, path("api/histogram", {window: state.window, group: state.group}))}),
  draw: (answers, state) => {
    const now = windowNow(answers, state), {summary} = answers;
    const findings = (summary && summary.findings || []).filter((each) => state.group === undefined || [null, state.group].includes(each.process_group));
    const others = (summary && summary.findings || []).length - findings.length;
    return [
      summary && summary.totals && !summary.totals.processes ? firstSteps() : null,
      findings.length ? h("div", {key: "findings"}, findingList(findings, summary.time)) : null,
      others ? h("p", {class: "dim", key: "others"}, `${others} more about other groups`) : null,
      insideList(answers.inside && answers.inside.agent, state),
      answers.errors.series ? missing(answers, "series", "no lines") : null,
      gauges(answers, state, now), pointsTable(answers, state),
      section("Groups, " + WINDOW_WORDS[state.window], groupTable(answers, state)),
      now ? section("Where a request's time goes" + (state.group === undefined ? "" : ", in " + clipped(state.group || "(embedded)", 40)), h("div", {class: "beside"}, h("div", {}, phaseBar(now.window), phaseTable(now.window)), requestTimes(answers)))
        : null,
    ];
  },
});
