// Amounts, times and names as text: as the console writes them.

const UNKNOWN = "-";
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"};

// Text with everything that is no printable character as an escape: controls, bidirectional marks, line ends.
function printable(text, lines = false) {
  if (!/[^ -~]/.test(text)) return text;
  return text.replace(UNPRINTABLE, (char) => {
    if (lines && char === "\n") return char;
    const code = char.codePointAt(0), hex = code.toString(16);
    return NAMED[char] || (code < 256 ? "\\x" + hex.padStart(2, "0") : code < 65536 ? "\\u" + hex.padStart(4, "0")
      : "\\U" + hex.padStart(8, "0"));
  });
}

function isNumber(value) {
  return typeof value === "number" && isFinite(value);
}

function number(value, digits = 1) {
  if (!isNumber(value)) return UNKNOWN;
  if (Math.abs(value) >= 1e15) return value.toExponential(1);
  const [whole, part] = value.toFixed(digits).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part === undefined ? grouped : grouped + "." + part;
}

function count(value) {
  return number(value, 0);
}

function counted(amount, one, many = one + "s") {
  return count(amount) + " " + (amount === 1 ? one : many);
}

function percent(ratio) {
  return isNumber(ratio) ? number(ratio * 100, 0) + " %" : UNKNOWN;
}

function duration(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  if (seconds < 0.0995) return (seconds * 1000).toFixed(1) + " ms";
  if (seconds < 0.9995) return (seconds * 1000).toFixed(0) + " ms";
  if (seconds < 99.5) return seconds.toFixed(1) + " s";
  if (seconds < 5970) return (seconds / 60).toFixed(0) + " min";
  if (seconds < 172800) return (seconds / 3600).toFixed(1) + " h";
  return number(seconds / 86400, 0) + " d";
}

// As `duration`, of what may take microseconds.
function fine(seconds) {
  return isNumber(seconds) && seconds > 0 && seconds < 0.00095 ? (seconds * 1e6).toFixed(1) + " us" : duration(seconds);
}

// Powers of 1000, as disks and networks count.
function size(bytes) {
  if (!isNumber(bytes)) return UNKNOWN;
  let amount = bytes;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (amount < 999.5 || unit === "TB") return (unit === "B" || amount >= 99.5 ? number(amount, 0) : amount.toFixed(1)) + " " + unit;
    amount /= 1000;
  }
}

function two(value) {
  return String(value).padStart(2, "0");
}

// The collector's newest wall seconds: the clock of the machine that looks may be another one.
function wallNow() {
  return answers.summary && isNumber(answers.summary.time) ? answers.summary.time : Date.now() / 1000;
}

// `03:12:40` local time of wall seconds, with its date when it is not of the hours around `wall`.
function clock(then, wall = wallNow()) {
  const at = isNumber(then) ? new Date(then * 1000) : null;
  if (!at || isNaN(at)) return UNKNOWN;
  const time = two(at.getHours()) + ":" + two(at.getMinutes());
  if (Math.abs(wall - then) < 72000) return time + ":" + two(at.getSeconds());
  return at.getFullYear() + "-" + two(at.getMonth() + 1) + "-" + two(at.getDate()) + " " + time;
}

function ago(then, wall) {
  return isNumber(then) && isNumber(wall) ? Math.max(0, wall - then) : null;
}

// A text that anyone may have chosen: cut at `most` characters, the whole of it in a title.
function words(text, most = 60) {
  const whole = text === null || text === undefined ? UNKNOWN : String(text);
  if (whole.length <= most) return whole;
  return h("span", {title: whole}, Array.from(whole.slice(0, 2 * most)).slice(0, most - 1).join("") + "\u2026");
}

// As `words`, without a title: for text that is copied.
function clipped(text, most = 60) {
  const whole = printable(text === null || text === undefined ? UNKNOWN : String(text));
  return whole.length <= most ? whole : Array.from(whole.slice(0, 2 * most)).slice(0, most - 1).join("") + "\u2026";
}

// The process group of a row, or for what is of none: what kind of process it is.
function groupName(row) {
  if (row.process_group) return row.process_group;
  const roles = row.roles ? Object.keys(row.roles) : [row.role];
  return roles.length === 1 && roles[0] === "apache-child" ? "(Apache child)" : "(embedded)";
}

function ratio(part, whole) {
  return isNumber(part) && whole > 0 ? part / whole : null;
}

const LIVES = ["started", "running", "silent", "stopping", "stopped", "vanished", "replaced"];
const LIFE_CLASS = {silent: "bad", vanished: "bad", stopping: "warn", stopped: "dim", replaced: "dim", started: "accent"};
const LIFE_MARK = {silent: "!", vanished: "!", stopping: "~", stopped: "x", replaced: "x", started: "+", running: ""};
const SEVERITY_CLASS = {critical: "bad", warning: "warn", info: "accent"};
const WINDOW_WORDS = {now: "newest tick", "1m": "last minute", "10m": "last 10 minutes"};

// A process's life: a mark and a word, coloured.
function life(row) {
  const mark = LIFE_MARK[row.life] || "";
  return h("span", {class: LIFE_CLASS[row.life] || ""}, mark ? mark + " " : "", row.life || UNKNOWN);
}

function busyClass(capacity) {
  return capacity >= 0.9 ? "bad" : capacity >= 0.7 ? "warn" : "";
}

function errorsClass(errors, requests) {
  return errors && errors >= 0.01 * (requests || 0) ? "bad" : "";
}

// What an entry of the event log says of its process.
function eventWords(event) {
  const reason = event.shutdown_reason ? ": " + event.shutdown_reason : "";
  switch (event.kind) {
    case "process_started": return "started" + (event.process_parent_pid ? ` (parent ${event.process_parent_pid})` : "");
    case "process_stopping": return "is stopping" + reason
      + (event.active_requests_at_decision ? ", " + counted(event.active_requests_at_decision, "request") + " inside" : "");
    case "process_stopped": return ["stopped" + reason,
      event.active_requests_at_exit ? counted(event.active_requests_at_exit, "request") + " killed" : "",
      event.process_uptime ? "up " + duration(event.process_uptime) : "",
      event.lifetime_request_count ? counted(event.lifetime_request_count, "request") + " served" : ""].filter(Boolean).join(", ");
    case "process_vanished": return "vanished" + (event.lost_requests ? " with " + counted(event.lost_requests, "request") + " inside" : "")
      + ": killed?";
    case "process_restarted": return "went unseen: another process has its pid now";
    default: return String(event.kind || "did something");
  }
}
