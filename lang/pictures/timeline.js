(function () {
  "use strict";
  const byId = function (id) { return document.getElementById(id); };
  const data = JSON.parse(byId("bars").textContent);
  const chart = byId("chart"), drawing = byId("drawing"), plot = drawing.parentNode, told = byId("told");
  const height = drawing.viewBox.baseVal.height, length = Math.max(data.length, 0.001);
  const elements = Array.from(drawing.querySelectorAll("g.bar"));
  const bars = elements.map(function (element, number) {
    const parts = Array.from(element.querySelectorAll("rect:not(.cached)")).map(function (rect) {
      const begin = rect.x.baseVal.value;
      return { kind: rect.getAttribute("class"), begin: begin, end: begin + rect.width.baseVal.value };
    });
    const box = { y: element.parentNode.transform.baseVal.getItem(0).matrix.f, height: element.getBBox().height };
    const [name, line, text, tokens, error] = data.bars[number];
    return { parts, box, name, text, tokens, error, line: data.lines[line], begin: parts[0].begin, end: parts.at(-1).end };
  });
  const numbers = new Map(elements.map(function (element, number) { return [element, number]; }));
  let begin = 0, end = length, kept = null, waiting = false;

  function make(name, attributes, text) {
    const made = document.createElementNS(drawing.namespaceURI, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function step() {
    const least = (end - begin) / 10;
    const power = Math.pow(10, Math.floor(Math.log10(least)));
    return [1, 2, 5, 10].map(function (times) { return times * power; }).find(function (each) { return each >= least; });
  }
  function time(ms) {
    if (length > 5000) return Number((ms / 1000).toFixed(6)) + " s";
    return Number(ms.toFixed(4)) + " ms";
  }
  function duration(ms) {
    return ms >= 1000 ? (ms / 1000).toFixed(2) + " s" : ms.toFixed(ms >= 10 ? 1 : 2) + " ms";
  }
  function draw() {
    waiting = false;
    const width = plot.clientWidth, scale = width / (end - begin);
    drawing.setAttribute("viewBox", begin + " 0 " + (end - begin) + " " + height);
    const marks = [], lines = [], texts = [], apart = step();
    for (let at = Math.ceil(begin / apart) * apart; end > at; at += apart) {
      const x = (at - begin) * scale;
      marks.push(make("line", { x1: x, x2: x, y1: 15, y2: 22 }));
      if (width > x + 3 + time(at).length * 6.7) marks.push(make("text", { x: x + 3, y: 13 }, time(at)));
      lines.push(make("line", { x1: x, x2: x, y1: 0, y2: height }));
    }
    for (const bar of bars) {
      const from = Math.max(bar.begin, begin), room = (Math.min(bar.end, end) - from) * scale;
      if (room > 34 ? bar.box.height >= 13 : false) {
        const label = (bar.text ? bar.name + ": " + bar.text : bar.name).slice(0, 400).replace(/\s+/g, " ");
        const most = Math.floor((room - 6) / 6.7);
        const head = label.length > most ? label.slice(0, most - 1) + "…" : label;
        texts.push(make("text", { x: (from - begin) * scale + 3, y: bar.box.y + bar.box.height / 2 + 2 }, head));
      }
    }
    byId("axis").replaceChildren(...marks);
    byId("lines").replaceChildren(...lines);
    byId("texts").replaceChildren(...texts);
  }
  function show(from, to) {
    const span = Math.min(Math.max(to - from, length * 1e-6), length);
    begin = Math.min(Math.max(from, 0), length - span);
    end = begin + span;
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
  }
  function zoom(times, at) {
    const middle = at === undefined ? (begin + end) / 2 : at;
    show(middle - (middle - begin) / times, middle + (end - middle) / times);
  }
  function move(part) {
    show(begin + part * (end - begin), end + part * (end - begin));
  }
  function place(event) {
    const room = plot.getBoundingClientRect();
    return begin + (event.clientX - room.left) / room.width * (end - begin);
  }

  function add(kind, text, name) {
    if (!text) return;
    const made = document.createElement(kind);
    made.textContent = text;
    if (name) made.className = name;
    told.append(made);
  }
  function tell(bar, event) {
    told.replaceChildren();
    add("b", bar.name);
    add("p", bar.parts.map(function (part) { return part.kind + " " + duration(part.end - part.begin); }).join(", ")
      + "; from " + duration(bar.begin) + " to " + duration(bar.end));
    add("code", bar.line);
    add("pre", bar.text);
    add("p", bar.tokens);
    add("p", bar.error, "error");
    told.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - told.offsetWidth - 12);
    const below = event.clientY + 18, above = event.clientY - told.offsetHeight - 12;
    told.style.left = Math.max(x, 8) + "px";
    told.style.top = Math.max(below + told.offsetHeight > innerHeight ? above : below, 8) + "px";
  }
  function barAt(event) {
    const element = event.target.closest ? event.target.closest("g.bar") : null;
    return element === null ? undefined : numbers.get(element);
  }
  function keep(number, event) {
    if (kept !== null) elements[kept].classList.remove("kept");
    kept = number === undefined ? null : number;
    told.classList.toggle("kept", kept !== null);
    if (kept === null) {
      told.hidden = true;
    } else {
      elements[kept].classList.add("kept");
      tell(bars[kept], event);
    }
  }

  let held = null;
  plot.addEventListener("pointerdown", function (event) {
    if (event.button === 0) held = { x: event.clientX, begin: begin, end: end, moved: false };
  });
  addEventListener("pointermove", function (event) {
    if (held === null) {
      const number = kept === null ? barAt(event) : undefined;
      if (number !== undefined) tell(bars[number], event); else if (kept === null) told.hidden = true;
      return;
    }
    const shift = (held.x - event.clientX) / plot.clientWidth * (held.end - held.begin);
    held.moved = held.moved || Math.abs(held.x - event.clientX) > 3;
    if (held.moved) {
      plot.classList.add("held");
      show(held.begin + shift, held.end + shift);
    }
  });
  addEventListener("pointerup", function (event) {
    if (held !== null ? !held.moved : false) keep(barAt(event), event);
    held = null;
    plot.classList.remove("held");
  });
  plot.addEventListener("wheel", function (event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), place(event));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      move((event.deltaX || event.deltaY) / plot.clientWidth);
    }
  }, { passive: false });
  plot.addEventListener("dblclick", function (event) { zoom(3, place(event)); });
  const keys = {
    "+": function () { zoom(1.5); }, "=": function () { zoom(1.5); }, "-": function () { zoom(1 / 1.5); },
    "0": function () { show(0, length); }, ArrowLeft: function () { move(-0.2); }, ArrowRight: function () { move(0.2); },
    Escape: function () { keep(undefined); }
  };
  chart.addEventListener("keydown", function (event) {
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  const zooms = { in: keys["+"], out: keys["-"], all: keys["0"] };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", zooms[button.dataset.zoom]);
  }
  addEventListener("resize", function () { show(begin, end); });
  draw();
})();
