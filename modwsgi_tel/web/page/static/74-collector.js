// The collector itself: what it receives and loses, whether it stood still, what it holds.  Trouble comes first.

{
  // What went for want of room: its name in `bounds`, in words, what to do about it.
  const LOST_TO = [["processes_evicted", "processes", "raise --max-processes"],
    ["groups_evicted", "process groups", "raise --max-groups"],
    ["interpreters_evicted", "interpreters", "raise --max-interpreters"],
      ["slow_evicted", "slow requests", "raise --max-slow or --slow-bytes"],
    ["records_dropped", "kept datagrams", "raise --keep-bytes"]];
  // What is gone because its time was over, or as it always goes in a log: no trouble.
  const GONE = [["processes_forgotten", "processes", "--process-retention, --silent-retention"],
    ["slow_forgotten", "slow requests", "--slow-retention"],
    ["events_dropped", "starts and ends", "--max-events"]];
  const KINDS_MOST = 12, RATE_S = 0.4;
  let now = null, before = null;        // the newest two answers, for rates

  const wrong = (text) => ({wrong: true, text});

  // [the growth of a figure since the look before, the seconds between], or null.
  function since(name) {
    if (!now || !before || !isNumber(now.collector[name]) || !isNumber(before.collector[name])) return null;
    const grown = now.collector[name] - before.collector[name], seconds = now.time - before.time;
    return grown < 0 || seconds < RATE_S ? null : [grown, seconds];
  }

  function received(own) {
    if (!isNumber(own.received)) return null;
    const lately = since("received"), mean = ratio(own.received, own.uptime_s);
    return counted(own.received, "datagram") + (isNumber(own.received_bytes) ? ", " + size(own.received_bytes) : "")
      + (mean === null ? ""
        : `; ${lately ? `${number(lately[0] / lately[1])} a second now, ` : ""}${number(mean)} a second on average`);
  }

  function lost(own, totals) {
    if (!totals || !isNumber(totals.lost)) return null;
    if (!totals.lost) return "none";
    return wrong(counted(totals.lost, "datagram") + (totals.lost_uncertain
      ? `; ${count(totals.lost_uncertain)} of these may be an unseen restart instead` : ""));
  }

  function refused(own) {
    if (!isNumber(own.decode_errors)) return null;
    if (!own.decode_errors) return "none";
    const reasons = Object.entries(own.wrong || {}).slice(0, KINDS_MOST).map(([reason,
      amount]) => `${clipped(reason, 60)} ${count(amount)}`).join(", ");
    return wrong(counted(own.decode_errors, "datagram was", "datagrams were") + " refused" + (reasons ? ": " + reasons : ""));
  }

  function bounds(own) {
    if (!own.bounds) return null;
    const over = LOST_TO.filter(([name]) => own.bounds[name]).map(([name, what,
      advice]) => wrong(`no room for more ${what}, ${counted(own.bounds[name], "time")}: ${advice}`));
    const gone = GONE.filter(([name]) => own.bounds[name]).map(([name, what,
      option]) => `${what} ${count(own.bounds[name])} (${option})`);
    if (gone.length) over.push("their time was over: " + gone.join(", "));
    return over.length ? over : "nothing went for want of room";
  }

  function stalls(own) {
    if (!isNumber(own.longest_gap_s)) return null;
    const told = `longest gap ${duration(own.longest_gap_s)}, in the last minute ${duration(own.recent_gap_s)}`;
    return own.stalls ? wrong(`${counted(own.stalls, "time")} for a second or longer; ${told}`) : `never; ${told}`;
  }

  function cpu(own) {
    if (!isNumber(own.cpu_s)) return null;
    const lately = since("cpu_s"), whole = ratio(own.cpu_s, own.uptime_s), told = [];
    if (lately) told.push(`${number(lately[0] / lately[1] * 100)} % of a core now`);
    if (whole !== null) told.push(`${number(whole * 100)} % since the start`);
    return [...told, `${duration(own.cpu_s)} in all`].join(", ");
  }

  function http(own) {
    if (!own.http) return null;
    const parts = [[counted(own.http.connections, "connection") + " now", count(own.http.accepted) + " in all",
      counted(own.http.requests, "request")].join(", ")];
    for (const [name, what] of [["errors", "requests answered with an error"],
      ["refused", "connections refused (--max-connections)"], ["wrong_tokens", "wrong tokens"]]) {
      if (own.http[name]) parts.push(`${count(own.http[name])} ${what}`);
    }
    // a wrong path is not the collector's trouble; a reader that found no place is
    return own.http.refused ? wrong(parts.join("; ")) : parts.join("; ");
  }

  function counters(held, fails) {
    if (!held) return null;
    const told = Object.entries(held).filter(([name, amount]) => isNumber(amount)
      && (amount || name === "taken")).map(([name, amount]) => `${count(amount)} ${name}`).join(", ");
    const text = told + (held.problem ? "; " + held.problem : "");
    return held.problem || fails && held[fails] ? wrong(text) : text;
  }

  function recording(own) {
    const held = own.recording;
    if (!held) return null;
    const text = counted(held.records, "record") + " written" + (held.lost_blocks
      ? `, ${counted(held.lost_blocks, "block")} lost (${size(held.lost_bytes)})` : "") + (held.trouble ? "; " + held.trouble : "");
    return held.lost_blocks || held.trouble ? wrong(text) : text;
  }

  const ROWS = [
    ["collector", (own) => [own.version && "modwsgi-tel " + own.version, own.pid && "pid " + own.pid,
      isNumber(own.uptime_s) && "up " + duration(own.uptime_s)].filter(Boolean).join(", ")],
    ["socket", (own) => own.socket_trouble ? wrong(own.socket_trouble) : own.socket],
    ["received", received],
    ["by kind", (own) => Object.entries(own.kinds || {}).sort((a, b) => b[1] - a[1]).slice(0,
      KINDS_MOST).map(([name, amount]) => `${clipped(name, 40)} ${count(amount)}`).join(", ")],
    ["lost", lost], ["wrong", refused], ["bounds", bounds], ["stood still", stalls], ["cpu", cpu],
    ["memory", (own) => [isNumber(own.max_rss_bytes) && "at most " + size(own.max_rss_bytes),
      isNumber(own.kept_bytes) && "kept datagrams " + size(own.kept_bytes)].filter(Boolean).join(", ")],
    ["http", http], ["stacks", (own) => counters(own.stacks)], ["samples", (own) => counters(own.samples)],
    ["recording", recording],
    ["helpers",
      (own) => own.helpers
      && (own.helpers.failed ? wrong(`${count(own.helpers.started)} started, ${count(own.helpers.failed)} failed`)
      : `${count(own.helpers.started)} started`)],
    ["early", (own) => own.without_process ? counted(own.without_process, "record") + " of a process that had not reported yet"
      : null],
    ["log", (own) => own.log_lines_lost ? wrong(counted(own.log_lines_lost, "line") + " lost: see its --log-file") : null],
  ];

  const WRONG_COLUMNS = [
    {title: "time", left: true, text: (each) => clock(each.received)},
    {title: "pid", text: (each) => String(each.sender_pid)}, {title: "uid", text: (each) => String(each.sender_uid)},
    {title: "why", left: true, text: (each) => `${each.reason}: ${each.detail}`,
      cell: (each) => words(`${each.reason}: ${each.detail}`, 120)},
    {title: "size", text: (each) => size(each.bytes)},
    {title: "begins", left: true, text: (each) => each.head || "", cell: (each) => h("code", {}, words(each.head || "", 48))},
  ];

  view({
    id: "collector", title: "Collector", key: "i",
    paths: () => ({own: path("api/summary", {window: "now", parts: "collector"})}),
    draw: (answers) => {
      const none = missing(answers, "own");
      if (none) return none;
      if (now === null || answers.own.time !== now.time) {
        before = now;
        now = answers.own;
      }
      const own = answers.own.collector || {}, totals = answers.summary && answers.summary.totals;
      const told = ROWS.map(([name, make]) => [name, [make(own, totals)].flat().filter(Boolean)]).filter(([,
        texts]) => texts.length);
      const isWrong = ([, texts]) => texts.some((text) => text.wrong), troubles = told.filter(isWrong);
      const row = ([name, texts]) => h("tr", {key: name, class: isWrong([name, texts]) ? "wrong" : ""},
        h("th", {scope: "row", class: "left"}, isWrong([name, texts]) ? "! " : "", name),
        h("td", {class: "left"}, texts.map((text) => h("div", {class: text.wrong ? "bad" : ""},
          words(text.wrong ? text.text : text, 400)))));
      const last = (own.wrong_last || []).slice(-8).reverse();
      return [h("p", {class: troubles.length ? "bad" : ""}, troubles.length ? `${counted(troubles.length, "thing")} wrong with it`
        : "nothing is lost, nothing is wrong with it"),
        h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "The collector"},
          h("table", {class: "told"}, h("caption", {class: "unseen"}, "The collector itself"),
          h("tbody", {}, [...troubles, ...told.filter((each) => !isWrong(each))].map(row)))),
        last.length ? section("Datagrams refused last", table({caption: "Datagrams refused last", columns: WRONG_COLUMNS,
          rows: last, id: (each) => `${each.received} ${each.sender_pid} ${each.head}`})) : null];
    },
  });
}
