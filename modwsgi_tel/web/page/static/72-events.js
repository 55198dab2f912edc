// The event log: starts and ends of processes with their reasons, the newest first.

{
  const STEPS = [100, 500, 2000];
  const TONES = {process_vanished: "bad", process_restarted: "warn", process_stopping: "warn"};
  const KINDS = [[undefined, "all"], ["process_started", "starts"], ["process_stopping", "stopping"], ["process_stopped", "stops"],
    ["process_vanished", "vanished"], ["process_restarted", "unseen restarts"]];
  const MARKS = {process_started: "+ ", process_vanished: "! ", process_stopped: "x ", process_stopping: "~ ",
    process_restarted: "! "};

  const timeOf = (event) => isNumber(event.received) ? event.received : event.stamp;
  const limitOf = (state) => STEPS.find((step) => String(step) === state.limit) || STEPS[0];
  const toneOf = (event) => TONES[event.kind] || (event.active_requests_at_exit ? "bad" : "");
  const searched = (event) => [event.kind, event.pid, event.hostname, event.process_group, event.shutdown_reason,
    eventWords(event)].join(" ").toLowerCase();

  const COLUMNS = [
    {title: "time", left: true, text: (event) => clock(timeOf(event))},
    {title: "pid", text: (event) => String(event.pid)},
    {title: "what", left: true, text: eventWords, tone: toneOf, cell: (event) => [h("span", {"aria-hidden": "true"},
      MARKS[event.kind] || ""), words(eventWords(event), 160)]},
    // events do not tell what kind of process one without a group is
    {title: "group", left: true, text: (event) => event.process_group || UNKNOWN,
      cell: (event) => words(event.process_group || UNKNOWN, 30)},
    {title: "host", left: true, text: (event) => event.hostname, cell: (event) => words(event.hostname || UNKNOWN, 30)},
  ];

  view({
    id: "events", title: "Events", key: "e",
    paths: (state) => ({events: path("api/lifecycle", {group: state.group, limit: limitOf(state)})}),
    draw: (answers, state) => {
      const none = missing(answers, "events");
      if (none) return none;
      const all = answers.events.lifecycle_events, word = (state.search || "").toLowerCase();
      const rows = all.filter((event) => (!state.kind || event.kind === state.kind)
        && (!word || searched(event).includes(word))).reverse();
      const next = STEPS[STEPS.indexOf(limitOf(state)) + 1], whole = all.length < limitOf(state), cut = rows.length !== all.length;
      return [h("p", {},
        h("strong", {}, cut ? `${count(rows.length)} of the newest ${counted(all.length, "start and end", "starts and ends")}`
        : `the newest ${counted(all.length, "start and end", "starts and ends")}`),
        answers.events.dropped ? h("span", {class: "dim"}, `; ${count(answers.events.dropped)} older ones dropped (--max-events)`)
          : null, h("span", {class: "dim"}, "; bars over time stand in "),
        h("a", {href: link("processes")}, "Processes")),
      h("div", {class: "tools"}, searchBox("search"), choice("kind", "show", KINDS)),
      table({caption: "Starts and ends", columns: COLUMNS, rows, id: (event) => [event.kind, event.sender_pid, event.pid,
        event.received, event.stamp].join(" "),
        empty: cut ? "none of them is meant" : "No process has started or ended since the collector began."}),
      next && !whole ? h("p", {}, h("button", {type: "button", onclick: () => go({limit: String(next)})},
        `the newest ${count(next)}`)) : null];
    },
  });
}
