// Latency: the histogram of one phase of the requests, its percentiles marked, beside the figures of all phases.

const MARKED = ["p50", "p95", "p99", "max"];
const TICKS_S = [0.001, 0.01, 0.1, 1, 10];
const LEAST_BUCKETS = 16;             // 4 octaves: one full bucket alone is no picture
const LAST_EDGE_S = 65.536;

function histogramCounts(answer) {
  return (answer.counts || []).map((each) => Math.max(0, each || 0));
}

// The first bucket in use and the one behind the last, by whole octaves.
function octaves(counts) {
  const used = counts.map((each, place) => each ? place : -1).filter((place) => place >= 0);
  let first = Math.floor(used[0] / 4) * 4, last = Math.min(counts.length, Math.ceil((used[used.length - 1] + 1) / 4) * 4);
  while (last - first < LEAST_BUCKETS && (first > 0 || last < counts.length)) {
    first = Math.max(0, first - 4);
    last = Math.min(counts.length, last + 4);
  }
  return [first, last];
}

// Where a duration lies on the axis, in buckets and parts of one.
function bucketPosition(seconds, uppers) {
  if (seconds >= LAST_EDGE_S) return uppers.length - 0.5;
  const place = uppers.findIndex((upper) => upper === null || seconds < upper);
  const lower = place ? uppers[place - 1] : 0;
  return place + Math.max(0, seconds - lower) / (uppers[place] - lower);
}

function bucketWords(place, uppers) {
  if (uppers[place] === null) return "above " + duration(uppers[place - 1]);
  return place ? `${edgeWords(uppers[place - 1])} to ${edgeWords(uppers[place])}` : "below " + edgeWords(uppers[place]);
}

function edgeWords(seconds) {
  return seconds >= 1 ? `${+seconds.toFixed(3)} s` : `${+(seconds * 1000).toFixed(2)} ms`;
}

function histogramPicture(answer, counts, id = "latency") {
  const uppers = answer.upper_bounds, [first, last] = octaves(counts);
  const place = (seconds) => bucketPosition(seconds, uppers) - first;
  const bars = counts.slice(first, last).map((value, at) => ({value, title: `${bucketWords(first + at, uppers)}: ${counted(value, "request")}, `
    + `${number(value / answer.requests * 100)} %`}));
  const inside = (at) => at >= 0 && at <= last - first;
  return barChart({id, bars, format: (value) => counted(value, "request"),
    label: `histogram of ${answer.phase}: ${counted(answer.requests, "request")}; ` + MARKED.map((name) => `${name} ${duration(answer[name])}`).join(", "),
    marks: MARKED.filter((name) => isNumber(answer[name])).map((name) => ({at: place(answer[name]), name})).filter((mark) => inside(mark.at)),
    ticks: TICKS_S.map((seconds) => ({at: place(seconds), name: edgeWords(seconds)})).filter((tick) => inside(tick.at))});
}

{
  const MEANINGS = {
    server: "in Apache, until it passes the request on", queue: "until a daemon process takes it",
    daemon: "in the daemon process, until a thread has it", application: "in the application",
    request: "server + queue + daemon + application", gil_wait: "waits for the GIL, in application",
    input_read: "reads of the body, in application", output_write: "writes of the response, in application"};
  const READINGS = {transient: "waits are short", compounding: "waits add up", convoy: "threads wait in line"};

  const phaseOf = (state) => PHASES.includes(state.phase) ? state.phase : "request";

  function bucketTable(answer, counts) {
    let sum = 0;
    const rows = counts.map((value, place) => ({place, value, share: (sum += value) / answer.requests})).filter((row) => row.value);
    return h("details", {key: "buckets"}, h("summary", {}, "the buckets as a table"), table({caption: "buckets of the histogram", rows, id: (row) => row.place, columns: [
      {title: "time", left: true, text: (row) => bucketWords(row.place, answer.upper_bounds)}, {title: "requests", text: (row) => count(row.value)},
      {title: "share", text: (row) => number(row.value / answer.requests * 100) + " %"}, {title: "up to here", text: (row) => number(row.share * 100) + " %"}]}));
  }

  function coefficient(found) {
    if (!found) return h("p", {class: "dim"}, "GIL: the waits do not tell how they end (too few long ones, or no clear fall)");
    const tone = {convoy: "bad", compounding: "warn"}[found.reading] || "good";
    return h("p", {}, "GIL: ", h("strong", {class: tone}, found.reading), `, ${READINGS[found.reading] || "not a reading that is known here"}: `
      + `${percent(found.q)} of ${count(found.waits)} waits end in each interval`);
  }

  function nothing(answer) {
    if (!answer.counts) {
      return `No process has sent ${answer.phase} times in this window.`
        + (["queue", "daemon"].includes(answer.phase) ? " Only daemon mode has a queue and a daemon process, embedded mode has none." : "");
    }
    return "No request has ended in this window." + (answer.window === "now" ? " now is the newest tick of each process: choose a longer window." : "");
  }

  function chosenPhases(state) {
    return h("div", {class: "segments phases", role: "group", "aria-label": "Phase"}, PHASES.map((phase) => h("button", {type: "button",
      "aria-pressed": String(phase === phaseOf(state)), title: MEANINGS[phase], onclick: () => go({phase: phase === "request" ? undefined : phase})}, phase)));
  }

  function phasesOf(answers, state) {
    if (state.group === undefined) return answers.summary && answers.summary.totals ? (answers.summary.totals.windows[state.window] || {}).phases : null;
    const rows = ((answers.summary || {}).groups || []).filter((row) => row.process_group === state.group);
    return rows.length === 1 ? (rows[0].windows[state.window] || {}).phases : null;
  }

  function allPhases(answers, state) {
    const phases = phasesOf(answers, state);
    if (!phases) return null;
    const figure = (title, name) => ({title, text: (phase) => duration((phases[phase] || {})[name])});
    return section("All phases, " + WINDOW_WORDS[state.window], table({caption: "all phases", rows: PHASES, id: (phase) => phase, columns: [
      {title: "phase", left: true, text: (phase) => phase, cell: (phase) => h("a", {href: link("latency", {phase})}, phase)},
      figure("mean", "mean"), figure("p50", "p50"), figure("p95", "p95"), figure("p99", "p99"), figure("longest", "max"),
      {title: "time", left: true, text: (phase) => MEANINGS[phase]}]}));
  }

  function allGroups(answers, state) {
    const rows = (answers.summary || {}).groups || [], phase = phaseOf(state);
    const told = (row) => ((row.windows[state.window] || {}).phases || {})[phase] || {};
    const gil = (row) => (row.windows[state.window] || {}).gil || {};
    const figure = (title, name) => ({title, text: (row) => duration(told(row)[name])});
    return section(`${phase} by group`, missing(answers, "summary") || groupsAsked(answers) || table({caption: phase + " by group", rows, id: (row) => row.hostname + "\n" + row.process_group, columns: [
      {title: "group", left: true, text: groupName, cell: (row) => h("a", {href: link("latency", {group: row.process_group, phase: state.phase})}, words(groupName(row), 32))},
      {title: "host", left: true, text: (row) => row.hostname, cell: (row) => words(row.hostname, 24)},
      figure("mean", "mean"), figure("p50", "p50"), figure("p95", "p95"), figure("p99", "p99"), figure("longest", "max"),
      {title: "GIL wait", hint: "of the application's time", text: (row) => percent(gil(row).share)},
      {title: "GIL", left: true, hint: "how its waits end", text: (row) => (gil(row).coefficient || {}).reading || UNKNOWN,
        tone: (row) => ({convoy: "bad", compounding: "warn"})[(gil(row).coefficient || {}).reading] || ""}]}));
  }

  view({
    id: "latency", title: "Latency", key: "l",
    paths: (state) => ({histogram: path("api/histogram", {phase: phaseOf(state), window: state.window, group: state.group})}),
    parts: ["groups"],
    keys: {
      "[": (state) => go({phase: cycled(PHASES, phaseOf(state), -1)}),
      "]": (state) => go({phase: cycled(PHASES, phaseOf(state), 1)}),
    },
    draw: (answers, state) => {
      const answer = answers.histogram, parts = [chosenPhases(state)];
      const absent = missing(answers, "histogram");
      if (absent) return [...parts, absent];
      const counts = histogramCounts(answer);
      parts.push(h("p", {key: "said"}, h("strong", {}, answer.phase), `: ${counted(answer.requests || 0, "request")} of ${answer.group === null ? "all groups"
        : clipped(answer.group || "(embedded)", 60)}, ${WINDOW_WORDS[answer.window]} `, h("span", {class: "dim"}, MEANINGS[answer.phase])));
      if (!counts.some(Boolean)) return [...parts, h("p", {class: "dim"}, nothing(answer)), allPhases(answers, state), allGroups(answers, state)];
      const notes = [counts[0] ? "the first bar is all below " + edgeWords(answer.upper_bounds[0]) : "",
        counts[counts.length - 1] ? "the last bar is all above " + edgeWords(LAST_EDGE_S) : ""].filter(Boolean);
      return [...parts, facts(MARKED.map((name) => [name === "max" ? "longest" : name, h("strong", {}, duration(answer[name]))])), histogramPicture(answer, counts),
        notes.length ? h("p", {class: "dim"}, notes.join(", ")) : null, answer.phase === "gil_wait" ? coefficient(answer.coefficient) : null,
        bucketTable(answer, counts), allPhases(answers, state), allGroups(answers, state)];
    },
  });
}
