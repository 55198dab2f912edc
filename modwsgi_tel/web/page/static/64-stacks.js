// Stacks: where the Python of each process was when the collector last read it.

{
  const LIMIT = 10, EVERY_S = 2;        // a process with 15 different stacks is 60 kB, and most of a millisecond of the collector
  const OFF = "The collector takes none: serve --stacks auto lets it.";
  const NONE = "None has been taken yet: that happens when a request is slow, when a process falls silent, and when somebody asks for them.";
  let wantedPid = "";                   // in the field

  const unread = (row) => unreadWords(threadsOf(row));
  const ended = (row) => ["stopped", "vanished", "replaced"].includes(row.life) ? `(${row.life}) ` : "";

  const COLUMNS = [
    {title: "pid", text: (row) => String(row.pid)},
    {title: "group", left: true, text: groupName, cell: (row) => words(groupName(row), 24)},
    {title: "why", left: true, text: (row) => String(row.why || UNKNOWN).split(":")[0]},
    {title: "age", text: (row) => duration(row.age_s)},
    {title: "busy", text: (row) => count(busyOf(threadsOf(row)).length)},
    {title: "idle", text: (row) => count(threadsOf(row).filter((thread) => thread.idle).length)},
    {title: "not whole", left: true, text: (row) => unread(row) || UNKNOWN, tone: (row) => unread(row) ? "warn" : ""},
    {title: "the GIL is held in", left: true, text: (row) => ended(row) + gilWords(threadsOf(row)),
      cell: (row) => words(ended(row) + gilWords(threadsOf(row)), 80)},
  ];

  function opened(row, state) {
    const threads = threadsOf(row);
    return h("article", {class: "stacks", "aria-label": "stacks of process " + row.pid},
      h("p", {}, h("strong", {}, `pid ${row.pid}`), ` of ${clipped(groupName(row), 60)}`,
        row.inner_pid ? ` (${row.inner_pid} in its own namespace)` : "",
        ended(row) ? h("span", {class: "warn"}, " " + ended(row)) : "",
          `, ${takenWords(row)}, Python ${clipped(row.python || UNKNOWN, 40)}`),
      row.command ? h("p", {class: "dim"}, words(row.command, 200)) : null,
      h("p", {}, countsWords(threads), "; GIL: ", gilWords(threads), row.interpreters && row.interpreters.length > 1
        ? `; ${row.interpreters.length} interpreters` : ""),
      unread(row) ? h("p", {class: "warn"}, "not read whole: " + unread(row)) : null,
        row.problem ? h("p", {class: "warn"}, "not all is shown: " + row.problem) : null,
      h("p", {class: "tools"}, askForStacks(row.pid, row.id), h("a", {href: link("processes", {open: String(row.id)})},
        "the process")),
      threadList(row, "stacks " + row.id, state.idle === "1"));
  }

  function askTool() {
    return h("form", {class: "ask", onsubmit: (event) => {
      event.preventDefault();
      if (/^[1-9]\d{0,11}$/.test(wantedPid)) redraw();
    }}, h("label", {}, "of pid ", h("input", {id: "stacks-pid", size: 8, inputmode: "numeric", autocomplete: "off",
      value: wantedPid, oninput: (event) => {
      wantedPid = event.target.value.trim();
      redraw();
    }})), " ", /^[1-9]\d{0,11}$/.test(wantedPid) ? askForStacks(wantedPid, undefined)
      : h("span", {class: "dim"}, "a number: takes its stacks"));
  }

  view({
    id: "stacks", title: "Stacks", key: "S",
    paths: (state) => {
      const wanted = {stacks: every(EVERY_S, path("api/stacks", {group: state.group, offset: offsetOf() || undefined, limit: LIMIT}))};
      if (/^\d{1,12}$/.test(state.open || "")
        && !(answers.stacks && answers.stacks.processes.some((row) => String(row.id) === state.open))) wanted["one "
        + state.open] = every(2, path("api/stacks", {id: state.open}));
      return wanted;
    },
    draw: (answers, state) => {
      const none = missing(answers, "stacks");
      if (none) return none;
      const answer = answers.stacks, rows = answer.processes;
      const elsewhere = state.open !== undefined && !rows.some((row) => String(row.id) === state.open),
        one = elsewhere ? answers["one " + state.open] : undefined, found = one && one.processes[0];
      const counters = Object.entries(answer.counters || {}).filter(([, amount]) => amount).map(([name,
        amount]) => `${count(amount)} ${name}`).join(", ");
      return [answer.problem ? h("p", {class: "warn"}, "Stacks cannot be read: " + answer.problem) : null,
        h("p", {}, h("strong", {}, counted(answer.matched, "process", "processes") + ", as last read"),
          h("span", {class: "dim"}, counters ? "  " + counters : "")),
        h("div", {class: "tools"}, choice("idle", "threads", [[undefined, "that are busy"], ["1", "all, idle ones too"]]),
          answer.post ? askTool() : h("span", {class: "dim"},
          answer.stacks === "off" ? OFF : "Nobody may ask for stacks here.")),
        elsewhere ? h("div", {class: "elsewhere"}, found ? opened(found, state) : one
          ? [h("p", {}, "None of this process has been taken yet."),
          askForStacks(undefined, state.open)] : missing(answers, "one " + state.open)) : null,
        table({caption: "Stacks of processes", columns: COLUMNS, rows, id: (row) => row.id, answer, limit: LIMIT,
          opened: (row) => opened(row, state),
          empty: answer.stacks === "off" ? OFF : answer.not_the_kernels
            ? `None is taken: the pids of ${counted(answer.not_the_kernels, "process", "processes")} in trouble are what their `
            + "datagrams say, not what the kernel says of the sender (a replay, a simulation)." : NONE})];
    },
  });
}
