// The tree: which process stands below which, the requests in them and their stacks.  It folds and unfolds, by the mouse and by keys.

{
  const ROWS = 1500;                    // drawn at most
  const SHUT = ["unassociated", "other", "request", "stack"];
  const LABELS = 4, QUEUED_S = 0.01;
  const EVERY_S = 2,
    PROCESS_S = 0.1;   // between two looks, and for each process: of hundreds it costs the collector a tenth of a second
  const TELEMETRY_OF = ["apache-child", "daemon"];
  const SORTS = [[undefined, "oldest first"], ["age", "by age"], ["cpu", "by CPU"], ["rss", "by memory"]];
  const PROCESS_STATES = {D: "waits for a disk", T: "stopped", t: "stopped by a tracer", Z: "a zombie", X: "has ended"};
  const DOES = {running: "runs", waiting: "waits", disk: "waits for a disk", stopped: "is stopped"};
  const TONES = {server: "bold", group: "accent", process: "bold", dead: "warn", unassociated: "dim", "thread-group": "dim",
    other: "dim"};
  const turned = new Set();             // ids of those that are not as they are at first
  let focusedId = null;                 // whose turn Tab is

  function pauseS() {
    const totals = answers.summary && answers.summary.totals;
    return Math.round(Math.max(EVERY_S, totals ? totals.processes * PROCESS_S : 5));
  }

  // --- words, as tree/text.py has them -------------------------------------------------------------

  const whole = (node) => node.label || "";

  function requestsTold(node) {
    if (!node.requests) return "";
    if (!isNumber(node.oldest_s)) return counted(node.requests, "request");
    return node.requests === 1 ? `1 request for ${duration(node.oldest_s)}`
      : `${counted(node.requests, "request")}, the oldest for ${duration(node.oldest_s)}`;
  }

  const pids = (node) => node.pid + (node.inner_pid ? ` (${node.inner_pid} in its own namespace)` : "");

  function figures(node) {
    return [node.life === "vanished" ? "vanished" : "", isNumber(node.age_s) ? `up ${duration(node.age_s)}` : "",
      isNumber(node.cpu) ? `cpu ${number(node.cpu, 2)}` : "",
      isNumber(node.rss_bytes) ? size(node.rss_bytes) : "", node.threads ? counted(node.threads, "thread") : "",
        requestsTold(node), PROCESS_STATES[node.state] || "",
      node.stacks_from === "taken" ? `stacks of ${duration(node.stacks_age_s)} ago` : node.stacks_from === "agent"
        ? "stacks by its agent" : ""];
  }

  function telemetryTold(node) {
    const told = node.telemetry;
    if (!told) return TELEMETRY_OF.includes(node.role) ? ["no telemetry"] : [];
    return [node.life === "silent" ? `silent for ${duration(told.silent_s)}` : ["started", "stopping"].includes(node.life)
      ? node.life : "",
      told.throughput ? `${number(told.throughput)} req/s` : "", isNumber(told.capacity) ? `busy ${percent(told.capacity)}` : ""];
  }

  const WORDS = {
    host: (node) => ["host " + whole(node)],
    server: (node) => [`${whole(node)} ${pids(node)}`, node.role === "apache-parent" ? "Apache's parent" : node.what,
      ...figures(node)],
    group: (node) => [`${`${node.what || ""} ${whole(node)}`.trim()}: ${counted(node.processes || 0, "process", "processes")}`,
      requestsTold(node), node.rss_bytes ? size(node.rss_bytes) : ""],
    process: (node) => [pids(node), ...(["daemon", "worker"].includes(node.role) ? [] : [node.what]),
      ...(["python", "helper", "collector"].includes(node.role) ? [clipped(node.command || whole(node), 60)] : []),
      ...figures(node), ...telemetryTold(node)],
    interpreter: (node) => [whole(node), node.requests ? counted(node.requests, "request") : "no request"],
    request: (node) => {
      const age = isNumber(node.age_s) ? node.ended ? `began ${duration(node.age_s)} ago` : `for ${duration(node.age_s)}`
        : node.ended ? "" : "age not known";
      return [whole(node), age, node.phase === "in the application" ? "" : node.phase,
        node.queued_s >= QUEUED_S ? `after ${duration(node.queued_s)} in the queue` : "",
        node.tid === null ? "" : `thread ${node.tid}`, node.owns_gil ? "holds the GIL" : "",
          node.cpu ? `cpu ${number(node.cpu, 2)}` : "",
        node.accepted_by && node.accepted_by !== node.pid ? `accepted by child ${node.accepted_by}` : "",
          node.request_id ? `request ${node.request_id}` : ""];
    },
    dead: (node) => [whole(node), "work that goes on after its request has ended"],
    unassociated: (node) => [whole(node),
      `${counted(node.count, "thread")} that work${node.count === 1 ? "s" : ""} for no request`],
    stack: (node) => {
      const named = node.how === null ? node.labels || [] : (node.tids || []).map((tid) => tid === null ? "?" : String(tid));
      return [whole(node),
        `${counted(node.count, "thread")}${node.how ? " " + node.how : ""}: ${named.slice(0, LABELS).join(", ")}${node.count > LABELS ? ` and ${count(node.count - LABELS)} more` : ""}`,
        node.owns_gil ? "holds the GIL" : "", node.whole ? "" : `[${node.problem}]`];
    },
    "thread-group": (node) => [node.idle ? counted(node.idle, "thread") + " with nothing to do" : ""],
    other: (node) => [`${whole(node)}: other processes of Python`],
  };

  const wordsOf = (node) => WORDS[node.kind](node).filter(Boolean);

  // What else there is to say of a node, a text for each line.
  function below(node) {
    const out = [], accepted = node.accepted || [];
    if (["request", "stack"].includes(node.kind) && node.at) {
      const does = node.thread_state === "waiting" && node.wait ? `waits in ${String(node.wait).split(" ")[0]}`
        : DOES[node.thread_state] || "";
      out.push(`at ${node.at} ${node.function || ""}${node.in ? " > " + node.in : ""}${does ? "  " + does : ""}`);
    }
    for (const each of accepted.slice(0, LABELS)) out.push(`accepted ${each.label}, which ${each.pid} serves`);
    if (accepted.length > LABELS) out.push(`and accepted ${counted(accepted.length - LABELS, "more request")}`);
    return [...out, ...(node.notes || [])];
  }

  function totalsTold(found) {
    const out = [counted(found.processes, "process", "processes")];
    for (const [name, one] of [["servers", "server"], ["groups", "group"]]) if (found[name]) out.push(counted(found[name], one));
    out.push(counted(found.threads, "thread"), counted(found.requests, "request"),
      counted(found.stacks, "stack") + (found.stacks > found.stacks_different ? `, ${count(found.stacks_different)} different`
      : ""));
    if (found.dead) out.push(counted(found.dead, "request") + " left threads behind");
    return out.join(" \u00b7 ");
  }

  // --- rows ---------------------------------------------------------------------------------------

  const isShut = (node) => (SHUT.includes(node.kind) || node.kind === "group" && !node.what) !== turned.has(node.id);
  const isShown = (node) => WORDS[node.kind] && !node.own && (node.kind !== "thread-group" || node.idle);
  const calleesOf = (node) => (node.children || []).filter(isShown);
  const opens = (node) => calleesOf(node).length > 0 || node.kind === "stack" || node.kind === "request" && Boolean(node.stack);

  // [{node, depth, shut, place, of}] of what is to be seen, in order; a search unfolds what leads to what it has found.
  function rowsOf(nodes, search) {
    const out = [], found = new Set(), word = (search || "").toLowerCase();
    const finds = (node) => {
      let any = [...wordsOf(node), ...below(node)].join("  ").toLowerCase().includes(word);
      for (const child of calleesOf(node)) any = finds(child) || any;
      if (any) found.add(node.id);
      return any;
    };
    const down = (held, depth, parent) => {
      const shown = held.filter((node) => isShown(node) && (!word || found.has(node.id)));
      shown.forEach((node, place) => {
        const shut = word ? !calleesOf(node).some((child) => found.has(child.id)) : opens(node) && isShut(node);
        out.push({node, depth, shut, parent, place: place + 1, of: shown.length});
        if (!shut) down(node.children || [], depth + 1, node.id);
      });
    };
    if (word) nodes.filter(isShown).forEach(finds);
    down(nodes, 0, null);
    return out;
  }

  function stacksById(nodes, out = new Map()) {
    for (const node of nodes) {
      if (node.kind === "stack") out.set(node.id, node);
      stacksById(node.children || [], out);
    }
    return out;
  }

  function moveTo(id) {
    focusedId = id;
    redraw();
    const next = document.querySelector(".tree [tabindex='0']");
    if (next) next.focus();
  }

  function turn(row) {
    if (!opens(row.node)) return;
    if (turned.has(row.node.id)) turned.delete(row.node.id);
    else turned.add(row.node.id);
    moveTo(row.node.id);
    if (needsFrames()) pollNow();
  }

  function needsFrames() {
    return [...turned].some((id) => id.includes(".r") || id.includes(".s"));
  }

  function keyed(event, rows) {
    const at = rows.findIndex((row) => row.node.id === focusedId), row = rows[at];
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = (place) => {
      moveTo(rows[Math.max(0, Math.min(rows.length - 1, place))].node.id);
    };
    const act = {
      ArrowDown: () => to(at + 1), ArrowUp: () => to(at - 1), j: () => to(at + 1), k: () => to(at - 1), Home: () => to(0),
        End: () => to(rows.length - 1),
      ArrowRight: () => row.shut ? turn(row) : rows[at + 1] && rows[at + 1].parent === row.node.id ? to(at + 1) : null,
      ArrowLeft: () => opens(row.node) && !row.shut ? turn(row) : row.parent === null ? null
        : to(rows.findIndex((each) => each.node.id === row.parent)),
      Enter: () => turn(row), " ": () => turn(row),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  function framesOf(row, stacks) {
    const {node} = row, stack = node.kind === "stack" ? node : node.stack ? stacks.get(node.stack) : null;
    if (row.shut || !stack || !["stack", "request"].includes(node.kind)) return null;
    return h("div", {class: "stack"}, node.kind === "request" && (stack.labels || []).length > 1
      ? h("p", {class: "dim"}, `${count(stack.count)} have this stack: ${clipped(stack.labels.join("; "), 300)}`) : null,
      stack.whole === false ? h("p", {class: "warn"}, `[${stack.problem}]`) : null,
      stack.frames ? frameList(stack.frames, "tree " + stack.id) : h("p", {class: "dim"}, "its frames are on their way"));
  }

  function drawRow(row, stacks, plain) {
    const {node, depth} = row, told = wordsOf(node), folds = !plain && opens(node);
    return h("div", {key: node.id, class: "node " + (TONES[node.kind] || ""), role: plain ? "listitem" : "treeitem",
      tabindex: plain ? undefined : node.id === focusedId ? "0" : "-1",
      "aria-level": plain ? undefined : depth + 1, "aria-setsize": plain ? undefined : row.of,
        "aria-posinset": plain ? undefined : row.place,
      "aria-expanded": folds ? String(!row.shut) : undefined, "aria-label": clipped([...told, ...below(node)].join(", "), 400),
        style: {"--depth": String(depth)},
      "data-id": node.id, onfocus: () => {
        focusedId = node.id;
      }},
    h("div", {class: "line", onclick: plain ? undefined : () => turn(row)},
      h("span", {class: "fold", "aria-hidden": "true"}, folds ? row.shut ? "\u25b8" : "\u25be" : ""),
      told.map((text, place) => [place ? h("span", {class: "gap"}, " \u00b7 ") : null,
        place ? h("span", {class: "more"}, clipped(text, 300)) : h("span", {class: "what"}, words(text, 90))])),
    below(node).map((text) => h("div", {class: "note dim"}, words(text, 240))), plain ? null : framesOf(row, stacks));
  }

  function draw(answers, state) {
    const none = missing(answers, "tree");
    if (none) return none;
    const answer = answers.tree, flat = state.flat === "1", search = (state.search || "").toLowerCase();
    const found = flat ? answer.nodes.filter((node) => isShown(node) && (!search
      || [...wordsOf(node), ...below(node)].join("  ").toLowerCase().includes(search)))
      .map((node) => ({node, depth: 0, shut: true, parent: null, place: 0, of: 0})) : rowsOf(answer.nodes, state.search);
    const rows = found.slice(0, ROWS), stacks = stacksById(answer.nodes);
    if (!rows.some((row) => row.node.id === focusedId)) focusedId = rows.length ? rows[0].node.id : null;
    return [h("p", {}, h("strong", {}, totalsTold(answer.totals))), (answer.missing
      || []).map((text) => h("p", {class: "dim"}, "missing: ", words(text, 300))),
      h("div", {class: "tools"}, searchBox("search"), choice("serving", "show",
        [[undefined, "all"], ["1", "what serves requests"]]), choice("flat", "as", [[undefined, "a tree"], ["1", "one list"]]),
        choice("sort", "in order", SORTS),
          h("span", {class: "dim"},
          `${flat ? "" : "arrows move, open and close; "}of ${duration(Math.max(0, answers.summary ? answers.summary.time - answer.time : 0))} ago, looked at every ${pauseS()} s`)),
      h("div", {class: "tree", role: flat ? "list" : "tree", "aria-label": "Processes, requests and stacks",
        onkeydown: flat ? undefined : (event) => keyed(event, rows)}, rows.map((row) => drawRow(row, stacks, flat))),
      rows.length ? null : h("p", {class: "dim"}, state.search ? "nothing has that in it" : "nothing to show"),
      found.length > ROWS ? h("p", {class: "warn"}, `and ${counted(found.length - ROWS, "more row")}: choose a group, or search`)
        : null];
  }

  view({
    id: "tree", title: "Tree", key: "P",
    paths: (state) => ({tree: every(pauseS(), path("api/processes", {tree: 1, stacktraces: needsFrames() ? 1 : undefined,
      flat: state.flat === "1" ? 1 : undefined, no_system: state.serving === "1" ? 1 : undefined,
      sort: SORTS.some(([sort]) => sort === state.sort) ? state.sort : undefined, group: state.group}))}),
    draw,
    text: (answers, state) => answers.tree ? [totalsTold(answers.tree.totals), "",
      ...rowsOf(answers.tree.nodes, state.search).flatMap(({node, depth}) => [
      "  ".repeat(depth) + printable(wordsOf(node).join("  ")), ...below(node).map((text) => "  ".repeat(depth + 1)
        + printable(text))])].join("\n") : "",
  });
}
