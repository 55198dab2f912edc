// Stacks as nodes, for the views that show some: frames, threads with one stack together, and why there are none.

const TIDS_MOST = 8;                    // of the threads of a group that are named
const FRAMES_MOST = 120;                // of a stack, until all are asked for
const CYCLE_MOST = 12;                  // frames of a recursion that is folded
const THREAD_STATES = {running: "running", waiting: "waiting", disk: "waiting for a disk"};
const TAKEN_WHYS = {slow: "a request was slow", silent: "it was silent", asked: "asked for",
  agent: "asked for, as its agent tells"};
const JOINED = {environ: "known by the id in its environ", "mod_wsgi.thread_id": "known by the thread's number in its environ",
  agent: "known by its agent"};
// What a thread waits for, in words.
const WAITS_FOR = {rlock: "an RLock", lock: "a lock", condition: "a condition", event: "an event", queue: "a queue",
  future: "a future",
  join: "the end of a thread", semaphore: "a semaphore", barrier: "a barrier", pool: "a pool", socket: "a socket",
    subprocess: "a child process"};
const wholeStacks = new Set();             // names of stacks that are shown whole

// `app/views.py:12`: the last two parts of a file's path; all of it where `whole`.
function fileLine(frame, whole) {
  const file = String(frame.file || UNKNOWN);
  return (whole ? file : file.split("/").slice(-2).join("/")) + ":" + (frame.line === null || frame.line === undefined ? UNKNOWN
    : frame.line);
}

// `re/__init__.py:166 match`.
function placeWords(frame) {
  return `${fileLine(frame)} ${frame.function || UNKNOWN}`;
}

// Whether a frame is the application's own, neither Python's nor of an installed package.
function isOwn(frame) {
  return !isLibrary(String(frame.file || ""));
}

function sameFrame(a, b) {
  return a.function === b.function && a.file === b.file && a.line === b.line;
}

// Frames with repetitions folded: [{frame, place}] and [{cycle, rounds}] for `rounds` more times the `cycle` frames above.
function foldedFrames(frames) {
  const out = [];
  let at = 0;
  while (at < frames.length) {
    let cycle = 0, rounds = 0;
    for (let length = 1; length <= CYCLE_MOST && !cycle && at + 3 * length <= frames.length; length += 1) {
      let next = at + length;
      while (next + length <= frames.length && frames.slice(next, next
        + length).every((frame, k) => sameFrame(frame, frames[at + k]))) next += length;
      rounds = (next - at) / length - 1;
      if (rounds >= 2) cycle = length;
    }
    const shown = cycle || 1;
    for (let k = 0; k < shown; k += 1) out.push({frame: frames[at + k], place: at + k});
    if (cycle) out.push({cycle, rounds});
    at += shown * (cycle ? rounds + 1 : 1);
  }
  return out;
}

// A list of frames, innermost first.  name: of the stack, to remember whether it is shown whole.  marks: {place: text} before it.
function frameList(frames, name, marks = {}) {
  if (!frames || !frames.length) return h("p", {class: "dim"}, "no Python frames");
  const rows = foldedFrames(frames), whole = wholeStacks.has(name) || rows.length <= FRAMES_MOST;
  const half = FRAMES_MOST / 2, hidden = rows.length - FRAMES_MOST;
  const shown = whole ? rows : [...rows.slice(0, half), null, ...rows.slice(-half)];
  const items = [];
  for (const row of shown) {
    if (row === null) {
      items.push(h("li", {class: "mark"}, h("button", {type: "button", onclick: () => {
        wholeStacks.add(name);
        redraw();
      }}, counted(hidden, "more frame"))));
    } else if (row.cycle) {
      items.push(h("li", {class: "mark"}, `[${row.cycle === 1 ? "the frame above" : `the ${row.cycle} frames above`}, `
        + `${counted(row.rounds, "more time")}]`));
    } else {
      if (marks[row.place]) items.push(h("li", {class: "mark warn"}, marks[row.place]));
      items.push(h("li", {class: isOwn(row.frame) ? "own" : "library"},
        h(isOwn(row.frame) ? "strong" : "span", {class: "function"}, clipped(row.frame.function, 160)), " ",
        h("span", {class: "file", title: fileLine(row.frame, true)}, clippedFront(fileLine(row.frame, true), 120))));
    }
  }
  if (marks[frames.length]) items.push(h("li", {class: "mark warn"}, marks[frames.length]));
  return h("ol", {class: "frames", role: "list"}, items);
}

// Of a path the end is what tells.
function clippedFront(text, most) {
  const all = Array.from(text.slice(-2 * most));
  return text.length <= most ? text : "\u2026" + all.slice(1 - most).join("");
}

// --- threads --------------------------------------------------------------------------------------

function threadsOf(row) {
  return row && Array.isArray(row.threads) ? row.threads : [];
}

// Whether there is no more to say of a thread than that it waits, outside of Python: as a server's main thread does.
function isOutside(thread) {
  return !(thread.frames || []).length && thread.whole !== false && thread.state === "waiting" && !thread.owns_gil && !thread.idle
    && !thread.request;
}

function busyOf(threads) {
  return threads.filter((thread) => !thread.idle && !isOutside(thread));
}

function threadState(thread) {
  const told = THREAD_STATES[thread.state] || String(thread.state || UNKNOWN);
  return thread.wait && (thread.state === "waiting" || thread.state === "disk") ? `${told} in ${clipped(thread.wait, 60)}` : told;
}

function statesWords(threads) {
  const counts = new Map();
  for (const thread of threads) counts.set(threadState(thread), (counts.get(threadState(thread)) || 0) + 1);
  return [...counts].slice(0, 4).map(([told, amount]) => counts.size === 1 ? told : `${count(amount)} ${told}`).join(", ");
}

function tidsWords(threads) {
  const tids = threads.map((thread) => thread.tid === null ? UNKNOWN : String(thread.tid));
  return tids.slice(0, TIDS_MOST).join(", ") + (tids.length > TIDS_MOST ? ` and ${count(tids.length - TIDS_MOST)} more` : "");
}

// `3 threads: 1 running, 2 idle`.
function countsWords(threads) {
  const counts = new Map();
  for (const thread of threads) {
    const told = thread.idle ? "idle" : THREAD_STATES[thread.state] || "in another state";
    counts.set(told, (counts.get(told) || 0) + 1);
  }
  return counted(threads.length, "thread") + ": " + ([...Object.values(THREAD_STATES), "in another state",
    "idle"].filter((told) => counts.has(told))
    .map((told) => `${count(counts.get(told))} ${told}`).join(", ") || "none");
}

// `1 moving, 2 cut`, or "".
function unreadWords(threads) {
  const moving = threads.filter((thread) => thread.problem === "moving").length;
  const cut = threads.filter((thread) => thread.whole === false).length - moving;
  return [[moving, "moving"], [cut, "cut"]].filter(([amount]) => amount > 0).map(([amount,
    what]) => `${count(amount)} ${what}`).join(", ");
}

// Where the GIL is held, or `nobody`, and where the one thread is that does something.
function gilWords(threads) {
  const owners = threads.filter((thread) => thread.owns_gil);
  if (!owners.length) {
    const busy = threads.filter((thread) => (thread.frames || []).length && !thread.idle);
    return "nobody" + (busy.length === 1 ? "; " + placeWords(busy[0].frames[0]) : "");
  }
  const told = owners[0].frames.length ? placeWords(owners[0].frames[0]) : `thread ${owners[0].tid}, no Python frames`;
  return told + (owners.length > 1 ? ` and ${owners.length - 1} more` : "");
}

// `taken 3.2 s ago: a request was slow`.
function takenWords(row) {
  const [kind, ...more] = String(row.why || "").split(": ");
  const why = kind === "agent" && more.length ? "told by its agent: " + clipped(more.join(": "), 40) : TAKEN_WHYS[kind];
  return `taken ${duration(row.age_s)} ago` + (why ? ": " + why : "");
}

function servedWords(request) {
  const told = [request.method, request.path].filter(Boolean).map(String);
  if (request.request_id) told.push(`(log id ${request.request_id})`);
  if (request.how !== "environ" && request.how !== "agent") told.push(`(a guess: ${request.how || "how is not told"})`);
  return told.join(" ") || UNKNOWN;
}

// Threads with one stack together, the holder of the GIL first, then those with most threads.
function threadGroups(threads) {
  const held = new Map();
  for (const thread of threads) {
    const key = thread.whole === false ? "alone " + held.size : JSON.stringify([thread.idle, (thread.frames || []).map((frame) => [
      frame.function, frame.file, frame.line])]);
    if (held.has(key)) held.get(key).push(thread);
    else held.set(key, [thread]);
  }
  const owner = (group) => group.some((thread) => thread.owns_gil);
  return [...held.values()].sort((a, b) => owner(b) - owner(a) || Boolean(a[0].idle) - Boolean(b[0].idle) || b.length - a.length);
}

function groupTitle(group, several) {
  const first = group[0], told = [];
  if (group.length === 1) told.push(["thread", first.tid === null && first.name ? "" : first.tid === null ? UNKNOWN : first.tid,
    first.name === null ? "" : `"${clipped(first.name, 40)}"`].filter((each) => each !== "").join(" "));
  else told.push(counted(group.length, "thread"));
  if (first.idle) told[0] += ", idle";
  const owner = group.find((thread) => thread.owns_gil);
  if (owner) told.push(group.length === 1 ? "holds the GIL" : `${owner.tid} holds the GIL`);
  if (several) told.push(`interpreter ${first.interpreter}`);
  told.push(statesWords(group));
  const used = group.reduce((sum, thread) => sum + (thread.cpu_s || 0), 0);
  if (used) told.push(duration(used) + " CPU");
  if (group.length > 1) told.push(tidsWords(group));
  return told;
}

// What is wrong with a stack, in words.
function problemWords(thread) {
  if (thread.whole !== false) return "";
  if (thread.problem === "moving") return "moving: it ran on while it was read"
    + ((thread.frames || []).length ? "; these frames need not belong together" : "");
  return thread.problem || "cut: the collector does not say why";
}

// All threads of a row of /api/stacks.  name: of the process, as for frameList.
function threadList(row, name, idle) {
  const threads = threadsOf(row), several = new Set(threads.map((thread) => thread.interpreter)).size > 1;
  const outside = threads.filter(isOutside), resting = threads.filter((thread) => thread.idle).length;
  const shown = threadGroups(threads.filter((thread) => (idle || !thread.idle) && !isOutside(thread)));
  return [
    shown.map((group) => h("section", {class: "thread" + (group.some((thread) => thread.owns_gil) ? " gil" : group[0].idle
      ? " idle" : ""),
      key: `${group[0].tid} ${group.length}`},
    h("h4", {}, groupTitle(group, several).map((told, place) => [place ? " \u00b7 " : "", told])),
    group.filter((thread) => thread.request).slice(0, TIDS_MOST).map((thread) => h("p", {class: "accent"},
      (group.length > 1 ? thread.tid + ": " : "") + clipped(servedWords(thread.request), 300))),
    problemWords(group[0]) ? h("p", {class: "warn"}, `[${problemWords(group[0])}]`) : null,
    frameList(group[0].frames, `${name} ${group[0].tid}`))),
    outside.length
      ? h("p", {class: "dim"},
      `${counted(outside.length, "thread")} outside of Python: ${statesWords(outside)}; ${tidsWords(outside)}`) : null,
    resting && !idle ? h("p", {class: "dim"}, counted(resting, "idle thread"), " not shown") : null];
}

// --- asking for stacks ----------------------------------------------------------------------------

const askedFor = new Map();             // pid and id -> what came of it, in words

// A button that has the stacks of a process taken now; what the collector says to that stands beside it.
function askForStacks(pid, id, title = "Take its stacks now") {
  const name = `${pid} ${id}`, said = askedFor.get(name);
  return h("span", {class: "ask"}, h("button", {type: "button", onclick: () => {
    askedFor.set(name, {text: "asking\u2026"});
    redraw();
    post(path("api/stacks",
      {pid, id})).then((answer) => ({text: `asked for; they come within ${duration(Math.max(1, answer.wait_s || 0))}`}),
      (error) => ({text: error.status === undefined ? "no answer from the collector" : error.message,
        wrong: true})).then((told) => {
      askedFor.set(name, told);
      if (askedFor.size > 200) askedFor.delete(askedFor.keys().next().value);
      pollNow();
      redraw();
    });
  }}, title), " ", h("span", {role: "status", class: said && said.wrong ? "warn" : "dim"}, said ? said.text : null));
}
