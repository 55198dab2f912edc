"use strict";
(function () {
  const XHTML = "http://www.w3.org/1999/xhtml", SVG = "http://www.w3.org/2000/svg";
  const page = document.documentElement, holder = document.getElementById("boxes"), told = document.getElementById("told");
  const LETTERS_PX = 26;                // a narrower box shows no text
  const HINT = "Click or Enter: zoom.  Arrows: from box to box.  Escape: the whole graph.  /: search.";
  const boxes = [], above = [];
  for (const element of holder.children) {
    const row = Number(element.getAttribute("y"));
    while (above.length && above[above.length - 1].row >= row) {
      above.pop().end = boxes.length;   // boxes[index + 1 .. end - 1] are below it
    }
    const box = {
      element: element, index: boxes.length, row: row, parent: above[above.length - 1] || null, end: 0, shown: true,
      x: parseFloat(element.getAttribute("x")), width: parseFloat(element.getAttribute("width")),
      title: element.querySelector("title").textContent
    };
    element.setAttribute("tabindex", boxes.length ? "-1" : "0");
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-label", box.title);
    boxes.push(box);
    above.push(box);
  }
  above.forEach(function (box) { box.end = boxes.length; });
  const boxOf = new Map(boxes.map(function (box) { return [box.element, box]; }));
  let zoomed = boxes[0];

  function isAbove(box, other) {
    return box.index < other.index && other.index < box.end;
  }

  function place() {
    const width = holder.getBoundingClientRect().width || page.clientWidth;
    for (const box of boxes) {
      const outer = isAbove(box, zoomed), inner = box === zoomed || isAbove(zoomed, box);
      const scale = 100 / zoomed.width, share = outer ? 100 : box.width * scale;
      box.shown = outer || inner;
      box.element.style.display = box.shown ? "" : "none";
      if (box.shown) {
        box.element.setAttribute("x", (outer ? 0 : (box.x - zoomed.x) * scale) + "%");
        box.element.setAttribute("width", share + "%");
        box.element.classList.toggle("up", outer);
        box.element.classList.toggle("n", share / 100 * width < LETTERS_PX);
      }
    }
    reset.disabled = zoomed === boxes[0];
  }

  function zoom(box) {
    zoomed = box;
    place();
  }

  function tell(box) {
    told.textContent = box ? box.title.split("\n").join("; ") : HINT;
  }

  function focus(box) {
    if (box) {
      boxes.forEach(function (each) { each.element.setAttribute("tabindex", each === box ? "0" : "-1"); });
      box.element.focus({ preventScroll: false });
    }
  }

  function nextTo(box, step) {
    const beside = boxes.filter(function (each) { return each.row === box.row && each.shown; });
    return beside[beside.indexOf(box) + step] || null;
  }

  function find(text) {
    const wanted = text.toLowerCase();
    let share = 0, count = 0, until = 0;
    for (const box of boxes) {
      const found = wanted !== "" && box.title.split("\n")[0].toLowerCase().includes(wanted);
      box.element.classList.toggle("found", found);
      if (found) {
        count += 1;
        if (box.index >= until) {       // not below another that was found: counted once
          share += box.width;
          until = box.end;
        }
      }
    }
    said.textContent = wanted === "" ? "" : count + " found, " + share.toFixed(2) + " %";
  }

  function made(name, attributes) {
    const element = document.createElementNS(XHTML, name);
    Object.keys(attributes).forEach(function (each) { element.setAttribute(each, attributes[each]); });
    return element;
  }

  const controls = document.getElementById("controls");
  const frame = document.createElementNS(SVG, "foreignObject");
  const bar = made("div", { "class": "bar" });
  const search = made("input", { type: "search", placeholder: "Search (/)", "aria-label": "Search for functions and files" });
  const reset = made("button", { type: "button", title: "Escape" });
  const said = made("output", { "aria-live": "polite" });
  reset.textContent = "Whole graph";
  bar.append(search, reset, said);
  frame.append(bar);
  Object.entries({ x: 8, y: controls.dataset.y, width: "98%", height: 26 }).forEach(function (each) {
    frame.setAttribute(each[0], each[1]);
  });
  controls.replaceChildren(frame);
  holder.setAttribute("role", "tree");

  holder.addEventListener("click", function (event) {
    const box = boxOf.get(event.target.closest(".b"));
    if (box) {
      zoom(box);
      focus(box);
    }
  });
  holder.addEventListener("mouseover", function (event) { tell(boxOf.get(event.target.closest(".b"))); });
  holder.addEventListener("mouseleave", function () { tell(null); });
  holder.addEventListener("focusin", function (event) { tell(boxOf.get(event.target.closest(".b"))); });
  search.addEventListener("input", function () { find(search.value); });
  reset.addEventListener("click", function () { zoom(boxes[0]); });
  window.addEventListener("resize", place);

  const KEYS = {
    ArrowUp: function (box) { focus(box.parent); },
    ArrowDown: function (box) { focus(boxes.slice(box.index + 1, box.end).find(function (each) { return each.shown; })); },
    ArrowLeft: function (box) { focus(nextTo(box, -1)); },
    ArrowRight: function (box) { focus(nextTo(box, 1)); },
    Home: function () { focus(boxes[0]); },
    Enter: zoom,
    " ": zoom
  };
  page.addEventListener("keydown", function (event) {
    const box = boxOf.get(document.activeElement);
    if (event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    if (event.key === "Escape") {
      search.value = "";
      find("");
      zoom(boxes[0]);
    } else if (event.key === "/" && document.activeElement !== search) {
      search.focus();
    } else if (box && Object.prototype.hasOwnProperty.call(KEYS, event.key)) {
      KEYS[event.key](box);
    } else {
      return;
    }
    event.preventDefault();
  });
  place();
  tell(null);
}());
