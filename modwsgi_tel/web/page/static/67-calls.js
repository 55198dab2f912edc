// Call trees, for the flame graph: read out of a recording, or added up from stacks.  No document in here.
//
// A recording is a file of other people: its size, depth and number of stacks are bounded, and what is no recording is
// refused with a sentence.  Long work is done in slices, so that the page answers meanwhile.

const CALLS = {
  bytes: 50e6,                          // of a file, as `record --diff` takes them (profile/formats.py)
  stacks: 1e6,
  nodes: 1e6,                           // what is beyond goes into one node that says so
  deep: 1000,                           // frames of one stack, the outermost
  letters: 1300,                        // of one name
  slice_ms: 25,
};
const CALLS_DROPPED = "(dropped: too many different stacks)";
const CALLS_CUT = "(cut: deeper than the graph shows)";
const FOLDED_HEAD = "(modwsgi-tel record: ", FOLDED_DIFF = "(modwsgi-tel record --diff: ";
const GROUP_FRAME = /^(?:(?:pid \d+|interpreter \d+|thread (?:\d+|\?))(?: |$)|other threads$)/;   // profile/samples.py GROUP
const LIBRARY_PARTS = ["/lib/python", "/lib64/python", "/site-packages/", "/dist-packages/", "modwsgi_tel/agent/"];

class NotARecording extends Error {}

// Whether a file is a library's, Python's own or an installed one, as tree/frames.py has it.
function isLibrary(file) {
  return file.startsWith("<frozen ") || LIBRARY_PARTS.some(part => file.includes(part));
}

// Stacks added up: node 0 is the whole, a node's number is larger than that of its caller.
class Calls {
  constructor() {
    this.names = [];                    // {name, file}; file: null for what is no function
    this.parent = [0];
    this.name = [-1];
    this.own = [0];
    this.stacks = 0;
    this.dropped = 0;                   // stacks that found no room
    this._named = new Map();
    this._below = new Map();            // caller * 2^21 + name -> node
  }

  nameOf(name, file) {
    const key = file === null ? name : `${name}\0${file}`;
    let at = this._named.get(key);
    if (at === undefined) {
      at = this.names.length;
      this.names.push({name: name.slice(0, CALLS.letters), file: file === null ? null : file.slice(-CALLS.letters)});
      this._named.set(key, at);
    }
    return at;
  }

  // The node of a name that `caller` calls; that of what has no room where there is none.
  step(caller, name) {
    const key = caller * 2097152 + name;
    let node = this._below.get(key);
    if (node === undefined) {
      if (this.parent.length >= CALLS.nodes || name >= 2097151) {
        return -1;
      }
      node = this.parent.length;
      this.parent.push(caller);
      this.name.push(name);
      this.own.push(0);
      this._below.set(key, node);
    }
    return node;
  }

  // Count a stack: names, outermost first.
  add(path, amount) {
    this.stacks += 1;
    let node = 0, depth = 0;
    for (const name of path) {
      const next = this.step(node, depth < CALLS.deep ? name : this.nameOf(CALLS_CUT, null));
      if (next < 0) {
        this.drop(amount);
        return;
      }
      node = next;
      depth += 1;
      if (depth > CALLS.deep) {
        break;
      }
    }
    this.own[node] += amount;
  }

  drop(amount) {
    this.dropped += 1;
    if (this._full === undefined) {
      this._full = this.parent.length;  // the one node beyond the bound
      this.parent.push(0);
      this.name.push(this.nameOf(CALLS_DROPPED, null));
      this.own.push(0);
    }
    this.own[this._full] += amount;
  }

  // Totals, numbers of nodes and first callees; nothing can be added from then on.
  finish() {
    const count = this.parent.length;
    this.parent = Int32Array.from(this.parent);
    this.name = Int32Array.from(this.name);
    this.own = Float64Array.from(this.own);
    this.total = this.own.slice();
    this.size = new Int32Array(count).fill(1);
    this.first = new Int32Array(count);                 // 0: none, as node 0 is nobody's callee
    this.next = new Int32Array(count);
    this._below = this._named = null;
    for (let node = count - 1; node > 0; node -= 1) {
      const caller = this.parent[node];
      this.total[caller] += this.total[node];
      this.size[caller] += this.size[node];
      this.next[node] = this.first[caller];
      this.first[caller] = node;
    }
    return this;
  }

  callees(node) {
    const found = [];
    for (let at = this.first[node]; at; at = this.next[at]) {
      found.push(at);
    }
    return found;
  }

  callers(node) {
    const found = [];
    for (let at = node; at; at = this.parent[at]) {
      found.unshift(at);
    }
    return found;
  }

  // [{name, own, total}] of each name, a recursion counted once; those with the most of their own first.
  functions() {
    const rows = this.names.map((name, index) => ({...name, index, own: 0, total: 0}));
    const inside = new Int32Array(this.names.length);
    let node = this.first[0], way = [];
    while (node) {
      const name = this.name[node];
      rows[name].own += this.own[node];
      if (inside[name] === 0) {
        rows[name].total += this.total[node];
      }
      inside[name] += 1;
      way.push(node);
      if (this.first[node]) {
        node = this.first[node];
        continue;
      }
      node = 0;
      while (way.length && !node) {
        const done = way.pop();
        inside[this.name[done]] -= 1;
        node = this.next[done];
      }
    }
    return rows.filter(row => row.total > 0).sort((a, b) => b.own - a.own || b.total - a.total || (a.name < b.name ? -1 : 1));
  }

  // {names: Uint8Array of those that have the word, count, total: of all below one, each counted once}.
  find(word) {
    const wanted = word.toLowerCase(), names = new Uint8Array(this.names.length);
    if (!wanted) {
      return {names, count: 0, total: 0};
    }
    let count = 0, total = 0;
    this.names.forEach((each, index) => {
      names[index] = frameText(each.name, each.file).toLowerCase().includes(wanted) ? 1 : 0;
    });
    const under = new Uint8Array(this.parent.length);
    for (let node = 1; node < this.parent.length; node += 1) {
      const above = under[this.parent[node]], found = names[this.name[node]];
      under[node] = above | found;
      count += found;
      total += found && !above ? this.total[node] : 0;
    }
    return {names, count, total};
  }
}

function frameText(name, file) {
  return file === null ? name : `${name} (${file})`;
}

// --- recordings -----------------------------------------------------------------------------------

// Lets the page answer, now and then: `await turn()`.
function turns() {
  let since = performance.now();
  return () => {
    if (performance.now() - since < CALLS.slice_ms) {
      return null;
    }
    return new Promise(done => setTimeout(() => {
      since = performance.now();
      done();
    }));
  };
}

// {calls, told, unit: "s" or "samples"} of a recording's text.  Raises NotARecording.
async function readRecording(text) {
  const begins = text.slice(0, 200).trimStart();
  if (begins.startsWith("<")) {
    throw new NotARecording("is a picture: open it in the browser by itself. Here: .folded or .speedscope.json.");
  }
  if (begins.includes("\0") || text.charCodeAt(0) === 0x1f) {
    throw new NotARecording("is no text; a compressed one has to be unpacked first (gunzip). Here: .folded or .speedscope.json.");
  }
  const found = await (begins.startsWith("{") ? readSpeedscope(text) : readFolded(text));
  found.calls.finish();
  if (!(found.calls.total[0] > 0)) {
    throw new NotARecording("holds no samples: record it anew.");
  }
  return found;
}

// As profile/folded.py writes it, `outer;inner 12` with microseconds; without its first line any other tool's, with samples.
async function readFolded(text) {
  if (text.startsWith(FOLDED_DIFF)) {
    throw new NotARecording("is a comparison of two recordings: open one of the two.");
  }
  const calls = new Calls(), turn = turns(), known = new Map(), ours = text.startsWith(FOLDED_HEAD);
  let at = 0, number = 0, told = "", before = [], nodes = [];
  if (ours) {
    const end = text.indexOf("\n");
    const head = end < 0 ? text : text.slice(0, end);
    told = plainFolded(head.slice(FOLDED_HEAD.length).replace(/\) 0\r?$/, ""));
    at = head.length + 1;
    number = 1;
  }
  const named = part => {
    let name = known.get(part);
    if (name === undefined) {
      name = calls.nameOf(...parsedFrame(plainFolded(part)));
      known.set(part, name);
    }
    return name;
  };
  while (at < text.length) {
    let end = text.indexOf("\n", at);
    end = end < 0 ? text.length : end;
    const line = text.slice(at, end);
    at = end + 1;
    number += 1;
    if ((number & 255) === 0) {
      const wait = turn();
      if (wait) {
        await wait;
      }
    }
    if (!line.trim()) {
      continue;
    }
    const space = line.trimEnd().lastIndexOf(" "), amount = line.slice(space + 1).trim();
    if (space <= 0 || !/^\d{1,17}$/.test(amount)) {
      throw new NotARecording(`is no recording: line ${number.toLocaleString("en")} is no folded stack (outer;inner 12).`);
    }
    if (calls.stacks >= CALLS.stacks) {
      throw new NotARecording(`has more than ${CALLS.stacks.toLocaleString("en")} stacks: record a shorter time.`);
    }
    // neighbours have most of their frames in common: what is the same is not looked up again
    const parts = line.slice(0, space).split(";");
    let same = 0;
    while (same < parts.length && same < before.length && parts[same] === before[same]) {
      same += 1;
    }
    nodes.length = same;
    let node = same ? nodes[same - 1] : 0;
    for (let depth = same; depth < parts.length && node >= 0 && depth <= CALLS.deep; depth += 1) {
      node = calls.step(node, depth < CALLS.deep ? named(parts[depth]) : calls.nameOf(CALLS_CUT, null));
      if (node >= 0) {
        nodes.push(node);
      }
    }
    const value = Number(amount) / (ours ? 1e6 : 1);
    calls.stacks += 1;
    if (node < 0) {
      calls.drop(value);
    } else {
      calls.own[node] += value;
    }
    before = parts.slice(0, nodes.length);
  }
  return {calls, told, unit: ours ? "s" : "samples"};
}

function plainFolded(text) {
  return text.replace(/\\x3b/g, ";");
}

// [name, file or null] of `function (file)`, as profile/folded.py parses it.
function parsedFrame(text) {
  const found = GROUP_FRAME.test(text) ? null : /^(.+?) \((.+?)(?::\d+)?\)$/.exec(text);
  return found ? [found[1], found[2]] : [text, null];
}

const SPEEDSCOPE_UNITS = {seconds: 1, milliseconds: 1e-3, microseconds: 1e-6, nanoseconds: 1e-9, none: 0};    // 0: samples

// speedscope's JSON, its sampled profiles added up.
async function readSpeedscope(text) {
  let data = null;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new NotARecording("is damaged: it is no JSON.");
  }
  const profiles = data && data.profiles, frames = data && data.shared && data.shared.frames;
  if (!Array.isArray(profiles) || !Array.isArray(frames)) {
    throw new NotARecording(data && data.meta && data.threads ? "is for the Firefox profiler: record .folded or .speedscope.json." :
      "is no recording: its JSON has no frames and profiles as speedscope's has.");
  }
  const calls = new Calls(), turn = turns(),
    damaged = new NotARecording("is damaged: its frames, samples and weights do not fit together.");
  const names = frames.map(frame => {
    if (!frame || typeof frame.name !== "string") {
      throw damaged;
    }
    return calls.nameOf(frame.name, typeof frame.file === "string" ? frame.file : null);
  });
  let timed = null, count = 0;
  for (const profile of profiles) {
    if (!profile || profile.type !== "sampled") {
      throw new NotARecording("is of events, not of samples: only sampled profiles are read.");
    }
    const scale = Object.prototype.hasOwnProperty.call(SPEEDSCOPE_UNITS, profile.unit) ? SPEEDSCOPE_UNITS[profile.unit] : null;
    const {samples, weights} = profile;
    if (scale === null || (timed !== null && timed !== scale > 0) || !Array.isArray(samples) || !Array.isArray(weights)
        || samples.length !== weights.length) {
      throw damaged;
    }
    timed = scale > 0;
    for (let place = 0; place < samples.length; place += 1) {
      count += 1;
      if ((count & 255) === 0) {
        const wait = turn();
        if (wait) {
          await wait;
        }
      }
      const weight = weights[place], sample = samples[place];
      if (!Array.isArray(sample) || !(Number.isFinite(weight) && weight >= 0)) {
        throw damaged;
      }
      if (sample.length) {              // an empty one is time in which the thread was not taken
        if (calls.stacks >= CALLS.stacks * 4) {
          throw new NotARecording(`has more than ${(CALLS.stacks * 4).toLocaleString("en")} samples: record a shorter time.`);
        }
        calls.add(sample.map(index => {
          const name = Number.isInteger(index) ? names[index] : undefined;
          if (name === undefined) {
            throw damaged;
          }
          return name;
        }), weight * (scale || 1));
      }
    }
  }
  return {calls, told: typeof data.name === "string" ? data.name : "", unit: timed ? "s" : "samples"};
}

// --- stacks that the collector took ---------------------------------------------------------------

// {calls, looks, threads, left: idle ones that were left out} of rows of /api/stacks: one look at each process.
function callsOfStacks(rows, idle) {
  const calls = new Calls();
  let threads = 0, left = 0;
  for (const row of rows) {
    const group = calls.nameOf(row.process_group ? `group ${row.process_group}` : "(embedded)", null);
    for (const thread of Array.isArray(row.threads) ? row.threads : []) {
      if (thread.idle && !idle) {
        left += 1;
        continue;
      }
      const frames = Array.isArray(thread.frames) ? thread.frames : [];
      if (!frames.length && !idle) {
        left += 1;
        continue;
      }
      threads += 1;
      const path = [group];
      for (let place = frames.length - 1; place >= 0; place -= 1) {
        const frame = frames[place];
        path.push(calls.nameOf(String(frame.function || "-"), String(frame.file || "-")));
      }
      if (!frames.length) {
        path.push(calls.nameOf("(no Python frames)", null));
      }
      calls.add(path, 1);
    }
  }
  return {calls: calls.finish(), looks: rows.length, threads, left};
}

// --- boxes ----------------------------------------------------------------------------------------

const BOXES_MOST = 3000, ROWS_MOST = 1000;

// The boxes of what `zoomed` calls, and of what leads to it, in rows from the top: [{node, row, x, width, small}], x and
// width as shares.  Narrower ones than `least` are counted in one that stands for them (small: how many).
function boxesOf(calls, zoomed, least) {
  for (let limit = least; ; limit *= 1.7) {
    const boxes = boxesFrom(calls, zoomed, limit);
    if (boxes.length <= BOXES_MOST) {
      return boxes;
    }
  }
}

function boxesFrom(calls, zoomed, least) {
  const boxes = [{node: 0, row: 0, x: 0, width: 1, small: 0}];
  const way = calls.callers(zoomed), whole = calls.total[zoomed] || 1;
  way.forEach((node, place) => boxes.push({node, row: place + 1, x: 0, width: 1, small: 0}));
  const waiting = [[zoomed, way.length, 0]];
  while (waiting.length && boxes.length <= BOXES_MOST) {
    const [node, row, x] = waiting.pop();
    if (row >= ROWS_MOST) {
      continue;
    }
    const shown = [];
    let small = 0, narrow = 0, at = x;
    for (const callee of calls.callees(node)) {
      const width = calls.total[callee] / whole;
      if (width >= least) {
        shown.push(callee);
      } else if (width > 0) {
        small += calls.size[callee];
        narrow += width;
      }
    }
    shown.sort((a, b) => calls.total[b] - calls.total[a] || a - b);
    const below = [];
    for (const callee of shown) {
      const width = calls.total[callee] / whole;
      boxes.push({node: callee, row: row + 1, x: at, width, small: 0, caller: node});
      below.push([callee, row + 1, at]);
      at += width;
    }
    if (narrow >= least) {
      boxes.push({node: -1, row: row + 1, x: at, width: narrow, small, caller: node});
    }
    waiting.push(...below.reverse());
  }
  return boxes;
}

// --- colours, as profile/flame.py chooses them ----------------------------------------------------

const HUES = 24, NEXT_HUE = 7;
const CRC_TABLE = Uint32Array.from({length: 256}, (_, value) => {
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  }
  return value;
});

function crc32(text) {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

// Gives each file a hue of its own as far as there are enough, mostly the same in every graph.
class Hues {
  constructor() {
    this._of = new Map();
    this._used = new Set();
  }

  // ["g", 0] of a group, ["m", 0] of a mark, ["l", hue] of a library's file, ["h", hue] of another.
  kind(name) {
    if (name.file === null) {
      return [GROUP_FRAME.test(name.name) || name.name.startsWith("group ") || name.name === "(embedded)" ? "g" : "m", 0];
    }
    let hue = this._of.get(name.file);
    if (hue === undefined) {
      hue = crc32(name.file) % HUES;
      while (this._used.size < HUES && this._used.has(hue)) {
        hue = (hue + NEXT_HUE) % HUES;
      }
      this._used.add(hue);
      this._of.set(name.file, hue);
    }
    return [isLibrary(name.file) ? "l" : "h", hue];
  }
}
