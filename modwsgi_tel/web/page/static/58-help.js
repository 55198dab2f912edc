// Help: the keys, what the words mean, and what the collector answers.

{
  const WORDS = [
    ["busy", "the share of all threads' time that was spent in requests"],
    ["used", "threads at work at the newest tick, of all that there may be"],
    ["queue", "from Apache until a daemon process takes the request: it grows when all threads are busy"],
    ["GIL wait", "the share of the application's time that threads waited for Python's lock; convoy: they wait in line"],
    ["slow", "requests that run longer than WSGISlowRequests and have not ended"],
    ["p95", "95 of 100 requests were faster"],
    ["silent", "a process whose ticks have stopped: it hangs, or it is gone"],
    ["vanished", "it is gone and has not said good-bye: killed, or crashed"],
    ["lost", "datagrams of a process that did not arrive"],
    ["now, 1m, 10m", "the newest tick of each process, the last minute, the last ten"],
    ["-", "not told by the senders; never 0"],
  ];

  view({
    id: "help", title: "Help", key: "?",
    paths: () => ({api: every(3600, "api")}),
    draw: (answers) => {
      const {routes = []} = answers.api || {};
      return [
        section("Keys", table({caption: "keys", rows: [...shownViews().filter((each) => each.key && each.id !== "help").map((each) => [each.key, each.title]),
          ...KEYS.filter(([, what]) => what).map(([key, what, , name]) => [name || key, what]), ["[ ]", "in Latency: the phase of the request before, behind"],
          ["Up Down", "in a table: the row before, behind; Enter opens it"], ["Left Right", "in a chart: single points; in Capacity: the threads"]],
        id: (row) => row.join(" "), columns: [{title: "key", left: true, text: (row) => row[0], cell: (row) => h("kbd", {}, row[0])}, {title: "what", left: true, text: (row) => row[1]}]})),
        section("Words", h("dl", {class: "words"}, WORDS.map(([word, meaning]) => h("div", {key: word}, h("dt", {}, word), h("dd", {}, meaning))))),
        section("What the collector answers", missing(answers, "api"), table({caption: "routes", rows: routes, id: (row) => row.method + row.path, empty: "", columns: [
          {title: "path", left: true, text: (row) => `${row.method} ${row.path}`, cell: (row) => h("code", {}, `${row.method} ${row.path}`)},
          {title: "parameters", left: true, wrap: true, text: (row) => row.parameters.join(" ")}, {title: "what", left: true, wrap: true, text: (row) => row.help}]})),
      ];
    },
  });
}
