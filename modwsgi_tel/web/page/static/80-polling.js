// Asks the collector: the shown view's paths, once per refresh, never two polls at a time.

const REFRESHES = [0.5, 1, 2, 5, 10];
const ASK_MS = 15000;                   // for one answer
const LARGE = 100;                      // processes
const SLOWEST_MS = 30000;               // between two polls while nobody answers
let refresh = 1, paused = false;
let answers = {errors: {}};
let asked = {};                         // {name: {id, at}}: what the answers are to, and since when
let polling = null, timer = null, failures = 0;
let heard = null;                       // wall seconds of the last answer, by the collector's clock
let gone = null;                        // why there is none, in words

function forget() {
  const {summary} = answers;
  answers = {summary, errors: {}};
  asked = {summary: asked.summary};
}

// Of hundreds of processes the summary is a few milliseconds of the collector's time: it comes at each other look.
function isLarge() {
  return Boolean(answers.summary && answers.summary.totals && answers.summary.totals.processes > LARGE);
}

function wantedPaths() {
  const shown = views.get(state.view), told = shown.paths(state) || {};
  const parts = ["totals", "findings", ...shown.parts || []].join(",");
  const wanted = {summary: every(isLarge() ? 2 : 0, path("api/summary", {window: state.window, parts}))};
  for (const name in told) wanted[name] = typeof told[name] === "string" ? {seconds: 0, path: told[name]} : told[name];
  return wanted;
}

function pollNow() {
  if (polling) polling.abort();
  polling = null;
  clearTimeout(timer);
  if (!document.hidden) poll();
}

// The names of what is to be asked for now.  Of what comes seldom, of a large fleet only one at a time: a poll stays small.
function dueNow(wanted, now) {
  const always = [], seldom = [];
  for (const name in wanted) {
    const {path: address, seconds, id = address} = wanted[name];
    const before = asked[name];
    if (!before || before.id !== id || !seconds) always.push(name);
    else if (now - before.at >= seconds * 1000 - 100) seldom.push([(now - before.at) / seconds, name]);
  }
  seldom.sort((a, b) => b[0] - a[0]);
  return [...always, ...seldom.slice(0, isLarge() ? 1 : seldom.length).map(([, name]) => name)];
}

async function poll() {
  const mine = polling = new AbortController();
  const main = document.getElementById("main");
  const now = performance.now(), asks = [];
  let refused = 0, login = false, why = "";
  const wanted = wantedPaths();
  const ending = setTimeout(() => mine.abort("timeout"), ASK_MS);
  for (const name of dueNow(wanted, now)) {
    const {path: address, id = address} = wanted[name];
    asks.push(ask(address, mine.signal).then((found) => {
      if (polling !== mine) return;
      answers[name] = found;
      asked[name] = {id, at: now};
      delete answers.errors[name];
    }, (error) => {
      if (polling !== mine) return;
      if (error.status === undefined) {
        refused += 1;
        why = error.name === "AbortError" || error === "timeout" ? "no answer in time" : "it cannot be reached";
        return;
      }
      login = login || error.status === 401;
      answers.errors[name] = error.message;
      delete answers[name];
      delete asked[name];
    }));
  }
  // what is shown is of another choice until the answers are there
  if (Object.keys(wanted).some((name) => !asked[name] || asked[name].id !== (wanted[name].id || wanted[name].path))) {
    main.setAttribute("aria-busy", "true");
  }
  await Promise.all(asks);
  clearTimeout(ending);
  if (polling !== mine) return;         // something else is wanted by now
  polling = null;
  if (refused) {
    failures += 1;
    gone = why;
  } else if (asks.length) {
    failures = 0;
    gone = login ? "login" : null;
    heard = wallNow();
  }
  main.setAttribute("aria-busy", "false");
  redraw();
  plan();
}

async function ask(address, signal) {
  const answer = await fetch(address, {signal, cache: "no-store", credentials: "same-origin", headers: {Accept: "application/json"}});
  let found = null;
  try {
    found = await answer.json();
  } catch (error) {
    if (error.name === "AbortError" || answer.ok) throw error;
  }
  if (answer.ok) return found;
  throw Object.assign(new Error(found && found.error ? String(found.error) : "the collector answers " + answer.status),
    {status: answer.status});
}

// Sends something by POST: {status, answer}, or throws what the collector said.
function post(address) {
  return fetch(address, {method: "POST", cache: "no-store", credentials: "same-origin"}).then(async (answer) => {
    let found = null;
    try {
      found = await answer.json();
    } catch (error) {
      found = null;
    }
    if (!answer.ok) throw Object.assign(new Error(found && found.error ? String(found.error) : "the collector answers " + answer.status), {status: answer.status});
    return found;
  });
}

function plan() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  const pause = refresh * 1000 * (failures ? Math.min(64, 2 ** failures) : 1);
  timer = setTimeout(poll, failures ? Math.min(Math.max(pause, refresh * 1000), SLOWEST_MS) : pause);
}

function setPaused(wanted) {
  paused = wanted;
  clearTimeout(timer);
  if (!paused) pollNow();
  redraw();
}

function setRefresh(seconds) {
  refresh = seconds;
  store("refresh", seconds);
  redraw();
  if (!polling) plan();
}

function stored(name) {
  try {
    return localStorage.getItem("modwsgi-tel." + name);
  } catch (error) {
    return null;                        // a browser that keeps nothing
  }
}

function store(name, value) {
  try {
    localStorage.setItem("modwsgi-tel." + name, value);
  } catch (error) {
    return;                             // then it holds for this page alone
  }
}
