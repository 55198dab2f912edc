// Exceptions that left the applications, by type and place, as agents in them tell.

{
  const LIMIT = 50;
  const NONE = "None has left an application, as far as is known: an agent in the application tells of them. `agent.install()` under mod_wsgi, "
    + "`application = agent.middleware(application)` under any other server: see man modwsgi-tel.";
  const COLUMNS = [
    {title: "count", sort: "count", falls: true, text: (row) => count(row.count)},
    {title: "last", sort: "last", falls: true, text: (row) => clock(row.last)},
    {title: "type", left: true, sort: "type", text: (row) => row.type, cell: (row) => words(row.type, 40)},
    {title: "at", left: true, text: (row) => row.place, cell: (row) => words(row.place, 60)},
    {title: "path", left: true, text: (row) => row.path || UNKNOWN, cell: (row) => words(row.path || UNKNOWN, 40)},
    {title: "processes", text: (row) => count(row.processes)},
    {title: "group", left: true, text: groupName, cell: (row) => words(groupName(row), 24)},
  ];

  function opened(row, now) {
    const by = [row.method, row.path].filter(Boolean).join(" ") + (row.request_id ? ` (log id ${row.request_id})` : "");
    return h("article", {"aria-label": "exception " + row.id}, h("h3", {}, words(row.type, 300)),
      row.text ? h("p", {class: "warn"}, words(row.text, 600)) : null,
      h("p", {},
        `${counted(row.count, "time")} in ${counted(row.processes, "process", "processes")} of ${clipped(groupName(row), 60)}: first ${clock(row.first, now)}, last ${clock(row.last, now)}, `
        + `${duration(ago(row.last, now))} ago`), by ? h("p", {class: "accent"}, "last by ", words(by, 400)) : null,
          frameList(row.frames, "exception " + row.id));
  }

  view({
    id: "exceptions", title: "Exceptions", key: "x",
    paths: (state) => {
      const wanted = {exceptions: path("api/exceptions", {...ordered(COLUMNS, "last"), search: state.search, group: state.group,
        offset: offsetOf() || undefined, limit: LIMIT})};
      if (/^\d{1,12}$/.test(state.open || "")
        && !(answers.exceptions && answers.exceptions.exceptions.some((row) => String(row.id) === state.open))) wanted["one "
        + state.open] = every(2, path("api/exceptions", {id: state.open}));
      return wanted;
    },
    draw: (answers, state) => {
      const none = missing(answers, "exceptions");
      if (none) return none;
      const answer = answers.exceptions, rows = answer.exceptions;
      const elsewhere = state.open !== undefined && !rows.some((row) => String(row.id) === state.open),
        one = elsewhere ? answers["one " + state.open] : undefined, found = one && one.exceptions[0];
      return [h("p", {}, h("strong", {}, `${counted(answer.counted, "exception")}, ${counted(answer.matched, "place")}`),
        answer.lost ? h("span", {class: "warn"}, `  ${count(answer.lost)} at places that were too many`) : null,
        answer.evicted ? h("span", {class: "warn"}, `  ${counted(answer.evicted, "place")} forgotten for want of room`) : null),
          h("div", {class: "tools"}, searchBox("search")),
      elsewhere ? h("div", {class: "elsewhere"}, found ? opened(found, one.time) : one
        ? h("p", {class: "warn"}, "It is gone: there was no room for all, or the collector has begun anew.")
        : missing(answers, "one " + state.open)) : null,
      table({caption: "Exceptions", columns: COLUMNS, rows, id: (row) => row.id, answer, limit: LIMIT, order: {sort: "last"},
        opened: (row) => opened(row, answer.time),
        empty: state.search || state.group !== undefined ? "None of them is meant: search anew, or choose other groups." : NONE})];
    },
  });
}
