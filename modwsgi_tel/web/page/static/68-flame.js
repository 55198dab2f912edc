// The flame graph: of a recording that the user opens, which stays in the page, or of the stacks that the collector has taken.
// Drawn from the top down as profile/flame.py draws it: wider is longer, each function below its caller, a colour is a file.

{
  const ROW = 18, LETTERS_PX = 26, TOP = 25, MORE = 200;
  const PROCESSES = 500, PAGE = 10;     // whose stacks are read at most, and in one answer
  const SOURCES = [[undefined, "a recording"], ["stacks", "stacks that were taken"]];
  const HINT = "Click or Enter: zoom. Arrows: from box to box. Escape: the whole graph. /: search.";
  const none = () => ({calls: null, name: "", told: "", unit: "s", said: "", wrong: "", number: 0});
  const held = {file: none(), stacks: none()};
  let zoomed = 0, shownOf = null, hues = new Hues(), topRows = TOP;
  const reading = {file: 0, stacks: 0}; // numbers of the newest readings: an older one that comes later is not taken
  let found = {calls: null, word: "", names: null, count: 0, total: 0};
  let drawn = {key: "", boxes: []};
  let rate = {calls: null, functions: []};

  const sourceOf = (state) => state.src === "stacks" ? "stacks" : "file";
  const amount = (value, unit) => unit === "s" ? fine(value) : counted(value, unit.replace(/s$/, ""));
  const share = (value, whole) => whole > 0 ? number(value / whole * 100, 2) + " %" : UNKNOWN;

  function take(source, told) {
    Object.assign(held[source], none(), told, {number: reading[source]});
    topRows = TOP;
    redraw();
  }

  // --- sources ------------------------------------------------------------------------------------

  async function read(name, bytes, text) {
    const mine = ++reading.file;
    if (bytes > CALLS.bytes) {
      take("file",
        {name, wrong: `is ${size(bytes)} large, more than ${size(CALLS.bytes)}: record a shorter time, or keep the .folded one, which is smaller.`});
      return;
    }
    take("file", {name, said: `reading ${size(bytes)}\u2026`});
    try {
      const made = await readRecording(await text());
      if (mine === reading.file) take("file", {name, ...made});
    } catch (error) {
      if (mine !== reading.file) return;
      take("file", {name, wrong: error instanceof NotARecording ? error.message : `cannot be read: ${error.message}`});
    }
  }

  function chosen(files) {
    if (files && files.length) read(files[0].name, files[0].size, () => files[0].text());
  }

  async function readStacks(group) {
    const mine = ++reading.stacks, rows = [], name = group === undefined ? "" : group;
    take("stacks", {name, said: "asking the collector\u2026", group});
    try {
      for (let offset = 0; offset < PROCESSES; offset += PAGE) {
        const answer = await ask(path("api/stacks", {group, offset: offset || undefined, limit: PAGE}));
        if (mine !== reading.stacks) return;
        rows.push(...answer.processes);
        if (offset + PAGE >= answer.matched) break;
        take("stacks", {name, said: `${count(rows.length)} of ${counted(answer.matched, "process", "processes")}\u2026`, group});
      }
    } catch (error) {
      if (mine === reading.stacks) take("stacks", {name, wrong: error.status === undefined ? "no answer from the collector"
        : error.message, group});
      return;
    }
    const made = callsOfStacks(rows, false);
    const ages = rows.map((row) => row.age_s).filter(isNumber), oldest = ages.length
      ? `, the oldest of ${duration(Math.max(...ages))} ago` : "";
    if (!made.threads) {
      take("stacks",
        {name, group,
        wrong: rows.length ? `No thread was busy in Python in the last look at ${counted(rows.length, "process", "processes")}.`
        : "The collector has taken no stacks: they are taken when a request is slow, when a process falls silent, and when somebody asks (Stacks)."});
      return;
    }
    take("stacks",
      {name, group, calls: made.calls, unit: "threads",
      told: `One look at each of ${counted(rows.length, "process", "processes")}${oldest}: where ${counted(made.threads, "busy thread")} `
      + `stood (${count(made.left)} with nothing to do left out). That is where they were, not how long they were there: \`modwsgi-tel record\` looks often enough for that.`});
  }

  // --- the graph ----------------------------------------------------------------------------------

  function titleOf(source, box) {
    const {calls, unit} = source, whole = calls.total[0];
    if (box.small) {
      const width = box.width * calls.total[zoomed];
      return `${box.small === 1 ? "1 function that is" : count(box.small) + " functions that are"} too small to draw: ${share(width, whole)} in all`;
    }
    if (box.node === 0) return `all: ${amount(whole, unit)}`;
    const {name, file} = calls.names[calls.name[box.node]], total = calls.total[box.node], own = calls.own[box.node];
    return `${frameText(name, file)}: ${share(total, whole)}, ${amount(total, unit)}; itself ${share(own, whole)}, ${amount(own, unit)}`;
  }

  function labelOf(source, box) {
    if (box.small) return `(${count(box.small)} small)`;
    if (box.node === 0) return "all";
    const {name, file} = source.calls.names[source.calls.name[box.node]];
    return file === null ? name : `${name} (${file.split("/").pop() || file})`;
  }

  function drawBox(source, box, place, wide) {
    const name = box.node > 0 ? source.calls.name[box.node] : -1;
    const [kind, hue] = box.small ? ["s", 0] : name < 0 ? ["g", 0] : hues.kind(source.calls.names[name]);
    const label = clipped(labelOf(source, box), 200), title = clipped(titleOf(source, box), 2000);
    const classes = ["box", kind, box.node !== zoomed && box.width === 1 && box.row < drawn.way ? "up" : "",
      box.width * wide < LETTERS_PX ? "narrow" : "", name >= 0 && found.names && found.names[name] ? "found"
      : ""].filter(Boolean).join(" ");
    return s("svg", {class: classes, x: (box.x * 100).toFixed(4) + "%", y: box.row * ROW,
      width: (box.width * 100).toFixed(4) + "%", height: ROW, tabindex: box.node === zoomed ? "0" : "-1",
      role: "treeitem", "aria-level": box.row + 1, "aria-label": title, "data-place": place,
        style: kind === "h" || kind === "l" ? {"--hue": String(hue * 360 / HUES)} : undefined},
    s("title", {}, title), s("rect", {width: "100%", height: ROW - 1}),
      box.width * wide >= LETTERS_PX ? s("text", {x: 3, y: 13}, label) : null);
  }

  const tells = document.createElement("p");    // of the box that is pointed at: written without drawing anew
  tells.className = "tells";
  tells.setAttribute("role", "status");

  function tell(box, source) {
    tells.textContent = printable(box ? titleOf(source, box) : HINT);
  }

  function boxAt(target) {
    const element = target && target.closest ? target.closest(".box") : null;
    return element ? drawn.boxes[Number(element.dataset.place)] : null;
  }

  function focusBox(graph, box) {
    const element = graph && box && graph.children[drawn.boxes.indexOf(box)];
    if (!element) return;
    for (const each of graph.querySelectorAll("[tabindex='0']")) each.setAttribute("tabindex", "-1");
    element.setAttribute("tabindex", "0");
    element.focus();
  }

  function zoom(box) {
    if (!box || box.small || box.node < 0) return;
    zoomed = box.node;
    redraw();
    focusBox(document.querySelector(".flame > svg"), drawn.boxes.find((each) => each.node === zoomed));
  }

  function keyed(event, source) {
    const graph = event.currentTarget, box = boxAt(event.target), boxes = drawn.boxes;
    if (!box || event.ctrlKey || event.altKey || event.metaKey) return;
    const row = boxes.filter((each) => each.row === box.row).sort((a, b) => a.x - b.x);
    const act = {
      ArrowUp: () => focusBox(graph, boxes.find((each) => each.row === box.row - 1 && each.x <= box.x + 1e-9 && each.x
        + each.width >= box.x + box.width - 1e-9)),
      ArrowDown: () => focusBox(graph, boxes.filter((each) => each.row === box.row + 1 && each.x >= box.x - 1e-9 && each.x < box.x
        + box.width).sort((a, b) => a.x - b.x)[0]),
      ArrowLeft: () => focusBox(graph, row[row.indexOf(box) - 1]), ArrowRight: () => focusBox(graph, row[row.indexOf(box) + 1]),
      Home: () => focusBox(graph, boxes[0]), Enter: () => zoom(box), " ": () => zoom(box),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
    tell(boxAt(document.activeElement), source);
  }

  function graph(source, word) {
    const {calls} = source, wide = Math.max(200, document.getElementById("main").clientWidth - 24);
    if (found.calls !== calls || found.word !== word) found = {calls, word, ...calls.find(word)};
    const key = [source === held.file, source.number, zoomed, wide, word].join(" ");
    if (drawn.key !== key || drawn.calls !== calls) drawn = {key, calls, boxes: boxesOf(calls, zoomed, 1 / wide),
      way: calls.callers(zoomed).length};
    const rows = 1 + drawn.boxes.reduce((most, box) => Math.max(most, box.row), 0);
    if (!tells.textContent) tell(null);
    return [h("div", {class: "tools"}, searchBox("search"), h("button",
      {type: "button", id: "whole", title: "Escape", disabled: zoomed === 0, onclick: () => zoom(drawn.boxes[0])}, "Whole graph"),
      h("span", {role: "status", id: "matched"},
        word ? `${count(found.count)} found, ${share(found.total, calls.total[0])} of the whole` : null)),
    h("div", {class: "flame"}, s("svg", {same: key, width: "100%", height: rows * ROW, role: "tree",
      "aria-label": "Flame graph: each function below its caller", onclick: (event) => {
      zoom(boxAt(event.target));
    }, onmouseover: (event) => tell(boxAt(event.target), source), onmouseleave: () => tell(null),
      onkeydown: (event) => keyed(event, source), after: (element) => {
      // focus does not bubble to a property
      if (!element.dataset.wired) element.addEventListener("focusin", (event) => tell(boxAt(event.target), element.source));
      element.dataset.wired = "1";
      element.source = source;
    }}, drawn.boxes.map((box, place) => drawBox(source, box, place, wide)))), tells,
    h("p", {class: "dim"}, "Wider is ", source.unit === "s" ? "longer" : "more",
      "; what a function calls is below it. A colour is a file, pale: a library.")];
  }

  function functions(source, state) {
    const {calls, unit} = source, whole = calls.total[0];
    if (rate.calls !== calls) rate = {calls, functions: calls.functions()};
    const key = state.sort === "total" ? "total" : "own", falling = state.order !== "asc";
    const rows = rate.functions.filter((row) => row.file !== null || row.own > 0).sort((a,
      b) => (falling ? 1 : -1) * (b[key] - a[key]));
    const figure = (title, name) => ({title: unit === "s" ? title : `${title}: ${unit}`, sort: name, falls: true,
      text: (row) => unit === "s" ? fine(row[name]) : count(row[name])});
    return section("Functions", table({caption: "Functions by time of their own, or in all", id: (row) => row.index,
      order: {sort: "own", falls: true}, rows: rows.slice(0, topRows), columns: [
      figure("own", "own"), {title: "%", text: (row) => share(row.own, whole)}, figure("in all", "total"),
      {title: "%", text: (row) => share(row.total, whole)}, {title: "function", left: true, text: (row) => row.name,
        cell: (row) => h(row.file !== null && !isLibrary(row.file) ? "strong" : "span", {}, words(row.name, 60))},
      {title: "file", left: true, text: (row) => row.file || UNKNOWN, cell: (row) => h("span", {title: row.file},
        clippedFront(row.file || UNKNOWN, 70))}]}),
    rows.length > topRows ? h("p", {}, h("button", {type: "button", onclick: () => {
      topRows += MORE;
      redraw();
    }}, `${count(Math.min(MORE, rows.length - topRows))} more`), h("span", {class: "dim"},
      ` of ${counted(rows.length, "function")}`)) : null);
  }

  // --- the view -----------------------------------------------------------------------------------

  function opener() {
    return h("div", {class: "drop", ondragover: (event) => event.preventDefault(), ondrop: (event) => {
      event.preventDefault();
      chosen(event.dataTransfer.files);
    }},
    h("label", {}, "Open a file, or drop it here: ", h("input", {type: "file", id: "flame-file", accept: ".folded,.txt,.json",
      onchange: (event) => {
      chosen(event.target.files);
      event.target.value = "";          // the same one may be chosen again
    }})), h("p", {class: "dim"}, ".folded or .speedscope.json, as ", h("code", {}, "modwsgi-tel record --output FILE"),
      " writes it; it is read in this page and sent nowhere."),
    h("details", {}, h("summary", {}, "or paste folded stacks"), h("textarea",
      {id: "flame-paste", rows: 5, "aria-label": "Folded stacks, outer;inner 12", spellcheck: "false",
      placeholder: "outer;inner 12"}),
      h("button", {type: "button", id: "flame-draw", onclick: () => {
        const {value} = document.getElementById("flame-paste");
        read("what was pasted", value.length, async () => value);
      }}, "Draw it")));
  }

  function draw(answers, state) {
    const name = sourceOf(state), source = held[name];
    if (name === "stacks" && (!source.number || source.group !== state.group)
      && !source.said) setTimeout(() => readStacks(state.group));
    if (source.calls !== shownOf) {
      shownOf = source.calls;
      zoomed = 0;
      hues = new Hues();
      tells.textContent = "";
    }
    const {calls} = source;
    return [h("div", {class: "tools"}, choice("src", "of", SOURCES), name === "stacks"
      ? h("button", {type: "button", id: "anew", disabled: Boolean(source.said), onclick: () => readStacks(state.group)},
      "Read anew") : null),
      name === "file" ? opener() : null,
      h("p", {role: "status", class: source.wrong ? "bad" : "dim", id: "flame-said"},
        source.wrong ? `${name === "file" ? clipped(source.name, 80) + " " : ""}${source.wrong}` : source.said),
      calls ? [h("p", {}, name === "file" ? [h("strong", {}, words(source.name, 80)), ": "] : null, words(source.told, 600), " ",
        h("span", {class: "dim"}, `${amount(calls.total[0], source.unit)} in ${counted(calls.stacks, "stack")}, `
        + counted(calls.parent.length - 1, "place")), calls.dropped ? h("span", {class: "warn"},
          `; ${counted(calls.dropped, "stack")} found no room`) : null), graph(source, state.search || ""),
          functions(source, state)]
        : name === "file" && !source.said ? h("p", {class: "dim"}, "Nothing is open.") : null];
  }

  view({
    id: "flame", title: "Flame graph", key: "F",
    paths: () => ({}),
    draw,
    keys: {Escape: (state) => zoomed ? zoom({node: 0}) : state.search !== undefined ? go({search: undefined}) : null},
  });
  addEventListener("resize", () => {
    if (state.view === "flame") redraw();
  });
}
