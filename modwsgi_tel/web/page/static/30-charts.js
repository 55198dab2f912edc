// Lines over time and bars, as SVG that is stretched to its place, with its labels beside it as text.
//
//   lineChart({id, title, shown, latest, values, times, step, top, floor, tone, format})
//   barChart({id, label, bars: [{value, title, tone}], marks: [{at, name}], ticks: [{at, name}], format})
//
// `values` one for each of `times` (wall seconds, null where nothing was received); `top` what the whole
// height stands for, without it the largest value, at least `floor`; `shown` the number of now as text, `latest` as a number, which may be
// newer than all points.  The pointer and the arrow keys read single points.

const pointed = {};                     // {chart's id: the point that is read}
const CHART_HIGH = 64;

// The handlers of a chart whose points are read: from 0 to `last`; the pointer at a share of its width is at point `of(share)`, and the arrow
// keys begin from `before`.
function pointing(id, last, of, before) {
  function point(place) {
    if (pointed[id] === place) return;
    if (place === undefined) delete pointed[id];
    else pointed[id] = Math.max(0, Math.min(last, place));
    redraw();
  }
  return {
    onpointermove: (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      point(of((event.clientX - box.left) / box.width));
    },
    onpointerleave: () => point(undefined), onblur: () => point(undefined),
    onkeydown: (event) => {
      const by = {ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6}[event.key];
      if (by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      point((pointed[id] === undefined ? before : pointed[id]) + by);
    }};
}

function lineChart({id, title, shown, values, times, step, top, floor = 0, tone, format, latest}) {
  const known = values.filter(isNumber);
  const highest = Math.max(0, isNumber(latest) ? latest : 0, ...known);
  const peak = top || Math.max(highest, floor) || 1;
  const last = values.length - 1;
  const x = (place) => last > 0 ? place / last * 100 : 100;
  const y = (value) => CHART_HIGH - Math.min(1, Math.max(0, value) / peak) * (CHART_HIGH - 2) - 1;
  let line = "", area = "", begin = null;
  values.forEach((value, place) => {
    if (!isNumber(value)) {
      begin = null;
      return;
    }
    const point = x(place).toFixed(2) + " " + y(value).toFixed(2);
    line += (begin === null ? "M" : "L") + point;
    // a point between two gaps is a short line
    if (begin === null && !isNumber(values[place + 1])) line += "h.6";
    if (begin === null) {
      begin = place;
      area += "M" + x(place).toFixed(2) + " " + CHART_HIGH + "L" + point;
    } else {
      area += "L" + point;
    }
    if (!isNumber(values[place + 1])) area += "L" + x(place).toFixed(2) + " " + CHART_HIGH + "Z";
  });
  let at = pointed[id];
  if (at !== undefined && (at > last || at < 0)) at = undefined;
  const read = at === undefined ? null : clock(times[at]) + "  " + format(values[at]);
  const said = known.length ? `${title}: ${shown}; highest ${format(highest)}, lowest ${format(Math.min(...known))}, `
    + `${clock(times[0])} to ${clock(times[last] + step)}` : `${title}: ${shown}; no points yet`;
  return h("figure", {class: "chart " + (tone || ""), key: id},
    h("figcaption", {}, h("span", {class: "name"}, title), h("span", {class: "value"}, shown),
      h("span", {class: "peak"}, read === null ? known.length ? "max " + format(highest) : "" : read)),
    h("div", {class: "plot", tabindex: "0", role: "group", "aria-label": title + ": the arrow keys read its points",
      ...pointing(id, last, (share) => Math.round(share * last), last)},
      s("svg", {viewBox: `0 0 100 ${CHART_HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": said},
        s("line", {class: "base", x1: 0, x2: 100, y1: CHART_HIGH - 1, y2: CHART_HIGH - 1}),
        s("line", {class: "grid", x1: 0, x2: 100, y1: CHART_HIGH / 2, y2: CHART_HIGH / 2}),
        s("path", {class: "area", d: area}), s("path", {class: "line", d: line}),
        at === undefined ? null : s("line", {class: "cursor", x1: x(at), x2: x(at), y1: 0, y2: CHART_HIGH})),
      peak > highest && known.length ? h("span", {class: "scale", "aria-hidden": "true"}, format(peak)) : null,
      h("span", {class: "unseen", "aria-live": "polite"}, document.activeElement && document.activeElement.closest
        && document.activeElement.closest(".plot") ? read : null)),
    h("div", {class: "times", "aria-hidden": "true"}, times.length ? [h("span", {}, clock(times[0])),
      h("span", {}, clock((times[0] + times[last] + step) / 2)), h("span", {}, clock(times[last] + step))] : null));
}

// Bars side by side.  `at` of marks and ticks: a place on the axis, in bars.
function barChart({id, label, bars, marks = [], ticks = [], format}) {
  const highest = Math.max(0, ...bars.map((bar) => bar.value));
  const wide = bars.length;
  let at = pointed[id];
  if (at !== undefined && at >= wide) at = undefined;
  const read = at === undefined ? null : bars[at].title;
  return h("figure", {class: "bars", key: id},
    h("figcaption", {}, h("span", {class: "peak"}, read === null ? "highest " + format(highest) : read)),
    h("div", {class: "plot", tabindex: "0", role: "group", "aria-label": "the arrow keys read single bars",
      ...pointing(id, wide - 1, (share) => Math.floor(share * wide), -1)},
      s("svg", {viewBox: `0 0 ${wide} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label},
        s("line", {class: "base", x1: 0, x2: wide, y1: 99.5, y2: 99.5}),
        bars.map((bar, place) => {
          // what is there at all is seen
          const high = bar.value ? Math.max(1.5, bar.value / highest * 99) : 0;
          return high ? s("rect", {class: (bar.tone || "") + (place === at ? " read" : ""), x: place + 0.06, width: 0.88, y: 100 - high, height: high}) : null;
        }),
        marks.map((mark) => s("line", {class: "mark", x1: mark.at, x2: mark.at, y1: 0, y2: 100}))),
      spread(marks, wide).map((mark) => h("span", {class: mark.at > wide * 0.85 ? "label before" : "label", style: {left: mark.at / wide * 100 + "%", top: mark.level * 1.15 + "em"}}, mark.name)),
      h("span", {class: "unseen", "aria-live": "polite"}, read)),
    h("div", {class: "ticks", "aria-hidden": "true"}, ticks.map((tick) =>
      h("span", {style: {left: tick.at / wide * 100 + "%"}}, tick.name))));
}

// Marks with a level each, so that the names of those that stand close are below one another.
function spread(marks, wide) {
  const free = [];
  return marks.map((mark) => {
    const at = mark.at / wide;
    let level = 0;
    while (free[level] !== undefined && at < free[level]) level += 1;
    free[level] = at + 0.12;
    return {...mark, level};
  });
}

// A bar of parts that follow one another: [{name, value, tone}], each as wide as its share.
function stacked(parts, label) {
  const whole = parts.reduce((sum, part) => sum + (part.value || 0), 0);
  return h("div", {class: "stacked", role: "img", "aria-label": label}, whole ? parts.filter((part) => part.value > 0).map((part) =>
    h("span", {class: part.tone, title: part.title || part.name, style: {width: part.value / whole * 100 + "%"}})) : null);
}

// A share from 0 to 1 as a short bar.
function meter(share, tone) {
  return h("span", {class: "meter " + (tone || ""), "aria-hidden": "true"},
    h("span", {style: {width: Math.max(0, Math.min(1, share || 0)) * 100 + "%"}}));
}
