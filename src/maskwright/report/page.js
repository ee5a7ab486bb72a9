"use strict";
// The page's behaviour. The data stand in the element #data; nothing is loaded, nothing is stored.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const SVG = "http://www.w3.org/2000/svg";

  // Text is only ever set as text: a file name cannot become markup.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  function draw(tag, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // ---------------------------------------------------------------- light and dark
  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  const themeButton = byId("theme");
  const isDark = () => (document.documentElement.dataset.theme || (darkSystem.matches ? "dark" : "light")) === "dark";
  const showTheme = () => themeButton.setAttribute("aria-pressed", String(isDark()));
  themeButton.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  darkSystem.addEventListener("change", showTheme);
  showTheme();

  // ---------------------------------------------------------------- what became of each object
  const home = data.threshold === null ? 0 : data.threshold;
  const state = {
    truth: true, detections: true, labels: true,
    filter: "all", category: "", sort: "worst", threshold: home,
  };
  const MARK = { hit: "✓", miss: "○", alarm: "✕", crowd: "·", unjudged: "·" };
  const WORD = { hit: "hit", miss: "missed", alarm: "false alarm", crowd: "crowd, not scored", unjudged: "not scored" };
  const severalCategories = new Set(data.photos.flatMap((p) => [...p.truth, ...p.dets].map((o) => o.c))).size > 1;

  // An object is found if the detection that matches it is shown; see outcomes.py.
  function truthState(object) {
    if (object.crowd) return "crowd";
    return object.s !== undefined && object.s >= state.threshold ? "hit" : "miss";
  }
  const detectionState = (object) => (object.s < state.threshold ? null : object.o);

  function count(photo) {
    const counts = { hit: 0, miss: 0, alarm: 0 };
    let overlap = 0;
    const inCategory = (object) => !state.category || object.c === state.category;
    for (const object of photo.truth) {
      if (!inCategory(object)) continue;
      const what = truthState(object);
      if (what === "hit") { counts.hit += 1; overlap += object.i || 0; }
      if (what === "miss") counts.miss += 1;
    }
    for (const object of photo.dets) {
      if (inCategory(object) && detectionState(object) === "alarm") counts.alarm += 1;
    }
    const weight = counts.hit + (counts.miss + counts.alarm) / 2;
    counts.quality = weight ? overlap / weight : 1;
    return counts;
  }

  function dimmed(object, what) {
    if (state.category && object.c !== state.category) return true;
    return state.filter !== "all" && what !== state.filter;
  }

  // ---------------------------------------------------------------- a photo with its outlines
  // Returns the element and a function that brings it up to date with `state`.
  function picture(photo) {
    const root = make("span", { class: "picture" });
    if (photo.src) {
      const image = make("img", { alt: "", decoding: "async", draggable: "false" });
      image.src = photo.src;
      root.append(image);
    } else {
      root.classList.add("blank");
    }
    const svg = draw("svg", { viewBox: `0 0 ${photo.w} ${photo.h}`, "aria-hidden": "true", focusable: "false" });
    const entries = [];
    const add = (object, kind) => {
      const group = draw("g", {},
        draw("path", { class: "fill", d: object.d }),
        draw("path", { class: "casing", d: object.d }),
        draw("path", { class: "line", d: object.d }));
      const tag = make("span", { class: "tag" });
      const [x, y] = object.p;
      tag.style.left = `${(100 * clamp(x, 0, photo.w)) / photo.w}%`;
      tag.style.top = `${(100 * clamp(y, 0, photo.h)) / photo.h}%`;
      const place = (y < 0.07 * photo.h ? " low" : "") + (x < 0.15 * photo.w ? " left" : x > 0.85 * photo.w ? " right" : "");
      svg.append(group);
      entries.push({ object, kind, group, tag, place });
    };
    for (const object of photo.truth) add(object, "truth");
    for (const object of [...photo.dets].reverse()) add(object, "det"); // the most certain on top
    root.append(svg, ...entries.map((entry) => entry.tag));

    function update() {
      for (const { object, kind, group, tag, place } of entries) {
        const what = kind === "truth" ? truthState(object) : detectionState(object);
        const shown = what !== null;
        group.classList.toggle("off", !shown);
        group.style.display = shown ? "" : "none";
        tag.hidden = !shown;
        if (!shown) continue;
        const dim = dimmed(object, what) ? " dim" : "";
        const picked = group.classList.contains("picked") ? " picked" : "";
        group.setAttribute("class", `object ${kind} ${what}${dim}${picked}`);
        const found = kind === "truth" && what === "hit" ? " found" : "";
        tag.className = `tag of-${kind} ${what}${found}${place}${dim}`;
        label(tag, object, kind, what);
      }
    }
    return { root, entries, update };
  }

  function label(tag, object, kind, what) {
    // In the cards the parts of class "long" are left out: the outline and its colour say enough there.
    const long = (text) => make("span", { class: "long" }, text);
    const category = severalCategories ? `${object.c} ` : long(`${object.c} `);
    const parts = [];
    if (what === "miss") parts.push("○ ", category, long("missed"));
    else if (what === "alarm") parts.push("✕ ", category, severalCategories ? long(object.s.toFixed(2)) : object.s.toFixed(2));
    else if (kind === "truth") parts.push(object.c + (object.crowd ? " (crowd)" : ""));
    else parts.push(long(`${object.c} `), object.s.toFixed(2));
    tag.replaceChildren(...parts);
  }

  function blankReason(photo) {
    return make("span", { class: "blank-why" }, `photo ${photo.why || "not found"}`);
  }

  // ---------------------------------------------------------------- gallery
  const cards = byId("cards");
  const views = []; // one per photo: its card, its elements, its counts
  let visible = []; // the views that the filter lets through, in order

  function buildCards() {
    cards.classList.toggle("many", data.photos.length > 48);
    for (const [index, photo] of data.photos.entries()) {
      const shown = picture(photo);
      shown.root.style.aspectRatio = `${photo.w} / ${photo.h}`;
      // The card's frame is 4 : 3; the photo is laid into it whole.
      if (photo.w / photo.h > 4 / 3) shown.root.style.width = "100%";
      else shown.root.style.height = "100%";
      if (!photo.src) shown.root.append(blankReason(photo));
      const open = make("button", { type: "button", class: "open", tabindex: "-1" },
        make("span", { class: "crop" }, shown.root));
      const chips = make("span", { class: "chips" });
      const name = make("span", { class: "name", title: photo.n }, photo.n);
      const item = make("li", { class: "card" }, open, make("div", { class: "caption" }, name, chips));
      const view = { index, photo, item, open, chips, picture: shown, counts: null };
      open.addEventListener("click", () => openViewer(view));
      open.addEventListener("focus", () => rove(view));
      views.push(view);
    }
  }

  function chip(kind, number, word) {
    return make("span", {}, make("span", { class: `mark ${kind}`, "aria-hidden": "true" }, MARK[kind]), ` ${number} ${word}`);
  }

  function updateView(view) {
    view.counts = count(view.photo);
    view.picture.update();
    const { hit, miss, alarm } = view.counts;
    const alarms = alarm === 1 ? "false alarm" : "false alarms";
    view.chips.replaceChildren(chip("hit", hit, hit === 1 ? "hit" : "hits"), chip("miss", miss, "missed"), chip("alarm", alarm, alarms));
    view.open.setAttribute("aria-label",
      `Open ${view.photo.n}: ${plural(hit, "hit", "hits")}, ${miss} missed, ${plural(alarm, "false alarm", "false alarms")}`);
  }

  const topScore = (photo) => {
    const scores = photo.dets.filter((d) => !state.category || d.c === state.category).map((d) => d.s);
    return scores.length ? Math.max(...scores) : -1;
  };
  const ORDERS = {
    worst: (a, b) => a.counts.quality - b.counts.quality || b.counts.miss + b.counts.alarm - a.counts.miss - a.counts.alarm,
    name: (a, b) => a.photo.n.localeCompare(b.photo.n, undefined, { numeric: true }),
    score: (a, b) => topScore(b.photo) - topScore(a.photo),
    low: (a, b) => topScore(a.photo) - topScore(b.photo),
  };

  function has(view, filter) {
    if (filter !== "all") return view.counts[filter] > 0;
    return !state.category || [...view.photo.truth, ...view.photo.dets].some((o) => o.c === state.category);
  }

  // `arrange`: also filter and sort; not while the slider moves, or the cards would jump about.
  function update(arrange = true) {
    for (const view of views) updateView(view);
    for (const name of ["truth", "detections", "labels"]) {
      for (const root of [cards, byId("stage")]) root.classList.toggle(`hide-${name}`, !state[name]);
      for (const button of all(`[data-layer="${name}"]`)) button.setAttribute("aria-pressed", String(state[name]));
    }
    for (const button of all("[data-filter]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === state.filter));
      button.querySelector("output").value = views.filter((view) => has(view, button.dataset.filter)).length;
    }
    if (arrange) {
      visible = views.filter((view) => has(view, state.filter)).sort((a, b) => ORDERS[state.sort](a, b) || a.index - b.index);
      cards.replaceChildren(...visible.map((view) => view.item));
      byId("none").hidden = visible.length > 0;
      for (const view of views) view.open.tabIndex = -1;
      if (visible.length) visible[0].open.tabIndex = 0;
    }
    const slider = byId("threshold");
    slider.value = state.threshold;
    slider.setAttribute("aria-valuetext", state.threshold.toFixed(2));
    byId("threshold-value").value = state.threshold === home ? state.threshold.toFixed(3) : state.threshold.toFixed(2);
    byId("home").disabled = state.threshold === home;
    summarise();
    if (current) fillViewer();
  }

  function summarise() {
    const [hits, alarms] = state.threshold === home ? data.at : data.steps[Math.round(state.threshold * 100)];
    const parts = [
      make("b", {}, `${visible.length} of ${views.length} photos shown.`),
      ` In all ${plural(data.total, "photo", "photos")} at this score: ${plural(hits, "hit", "hits")}, ` +
      `${data.objects - hits} missed, ${plural(alarms, "false alarm", "false alarms")}`,
    ];
    const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)}%` : "–");
    parts.push(` (found ${share(hits, data.objects)}, right ${share(hits, hits + alarms)}).`);
    byId("sum").replaceChildren(...parts);
  }

  // One tab stop for the whole gallery; arrow keys move inside it.
  function rove(view) {
    for (const other of visible) other.open.tabIndex = other === view ? 0 : -1;
  }
  function columns() {
    const top = visible.length ? visible[0].item.offsetTop : 0;
    const first = visible.findIndex((view) => view.item.offsetTop !== top);
    return first < 0 ? visible.length : first;
  }
  function onCardKey(event) {
    const at = visible.findIndex((view) => view.open === document.activeElement);
    if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? visible.length - 1 : step === undefined ? -1 : at + step;
    if (step === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    if (visible[to]) visible[to].open.focus();
  }

  // ---------------------------------------------------------------- viewer
  const viewer = byId("viewer");
  const stage = byId("stage");
  let current = null; // the view that is open
  let large = null; // its large picture
  let zoom = 1, centreX = 0.5, centreY = 0.5; // 1 shows the whole photo; the centre is a share of the photo
  const MOST_ZOOM = 16;

  function openViewer(view) {
    current = view;
    if (!viewer.open) {
      viewer.showModal();
      document.documentElement.style.overflow = "hidden";
    }
    large = picture(view.photo);
    if (!view.photo.src) large.root.append(blankReason(view.photo));
    stage.replaceChildren(large.root);
    zoom = 1; centreX = centreY = 0.5;
    fillViewer();
    layOut();
    stage.focus();
  }
  function onClosed() {
    document.documentElement.style.overflow = "";
    const back = current;
    current = large = null;
    stage.replaceChildren();
    if (back && back.item.isConnected) back.open.focus();
  }

  function fillViewer() {
    large.update();
    const { hit, miss, alarm } = current.counts;
    const at = visible.indexOf(current);
    byId("viewer-name").textContent = current.photo.n;
    byId("viewer-name").title = current.photo.n;
    byId("viewer-place").textContent = at < 0 ? "" : `${at + 1} of ${visible.length}`;
    byId("previous").disabled = at <= 0;
    byId("following").disabled = at < 0 || at >= visible.length - 1;
    const [fullWidth, fullHeight] = current.photo.full;
    byId("viewer-sum").textContent =
      `${plural(hit, "hit", "hits")}, ${miss} missed, ${plural(alarm, "false alarm", "false alarms")} ` +
      `at score ${state.threshold.toFixed(2)}. The photo is ${fullWidth} × ${fullHeight} pixels.` +
      (current.photo.cut ? ` ${plural(current.photo.cut, "detection", "detections")} of lower score not drawn.` : "");
    const rank = { miss: 0, alarm: 1, hit: 2, unjudged: 3, crowd: 4 };
    const rows = [];
    for (const entry of large.entries) {
      const what = entry.kind === "truth" ? truthState(entry.object) : detectionState(entry.object);
      // A hit is listed once, as the detection; its truth is the same thing seen from the other side.
      if (what === null || (entry.kind === "truth" && what === "hit" && current.photo.dets.length)) continue;
      rows.push({ entry, what });
    }
    rows.sort((a, b) => rank[a.what] - rank[b.what] || (b.entry.object.s ?? 0) - (a.entry.object.s ?? 0));
    const focused = document.activeElement && document.activeElement.closest("#objects");
    byId("objects").replaceChildren(...rows.map(({ entry, what }) => objectRow(entry, what)));
    if (focused) stage.focus();
  }

  function objectRow(entry, what) {
    const { object, kind } = entry;
    const details = [];
    if (kind === "det") details.push(object.s.toFixed(2));
    if (object.i !== undefined && object.i !== null && what === "hit") details.push(`IoU ${object.i.toFixed(2)}`);
    const button = make("button", { type: "button", "aria-pressed": "false" },
      make("span", { class: `mark ${what}`, "aria-hidden": "true" }, MARK[what]),
      make("span", { class: "what" }, severalCategories ? `${object.c}, ${WORD[what]}` : WORD[what]),
      make("span", { class: "detail" }, details.join(" · ")));
    const light = (on) => entry.group.classList.toggle("picked", on);
    button.addEventListener("mouseenter", () => light(true));
    button.addEventListener("mouseleave", () => light(button.getAttribute("aria-pressed") === "true"));
    button.addEventListener("focus", () => light(true));
    button.addEventListener("blur", () => light(button.getAttribute("aria-pressed") === "true"));
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of all("#objects button")) other.setAttribute("aria-pressed", "false");
      for (const other of large.entries) other.group.classList.remove("picked");
      button.setAttribute("aria-pressed", String(on));
      light(on);
      if (on) zoomTo(object.b);
      else fit();
    });
    return make("li", {}, button);
  }

  function step(by) {
    const to = visible[visible.indexOf(current) + by];
    if (to && visible.includes(current)) openViewer(to);
  }

  const fitScale = () => {
    const margin = 24;
    return Math.max(0.01, Math.min((stage.clientWidth - margin) / current.photo.w, (stage.clientHeight - margin) / current.photo.h));
  };
  function layOut() {
    if (!current) return;
    const scale = fitScale() * zoom;
    const width = current.photo.w * scale, height = current.photo.h * scale;
    // A photo larger than the stage may not leave its edge; a smaller one is centred.
    const hold = (centre, size, room) => (size <= room ? 0.5 : clamp(centre, room / 2 / size, 1 - room / 2 / size));
    centreX = hold(centreX, width, stage.clientWidth);
    centreY = hold(centreY, height, stage.clientHeight);
    Object.assign(large.root.style, {
      width: `${width}px`, height: `${height}px`,
      left: `${stage.clientWidth / 2 - centreX * width}px`, top: `${stage.clientHeight / 2 - centreY * height}px`,
    });
    byId("zoom-fit").textContent = `${Math.round(100 * zoom)}%`;
    // In the large photo the patterns keep their size on the screen, so that zooming in shows what is under them.
    byId("hatch-large").setAttribute("patternTransform", `scale(${1 / scale}) rotate(45)`);
    byId("dots-large").setAttribute("patternTransform", `scale(${1 / scale})`);
    byId("zoom-out").disabled = zoom <= 1;
    byId("zoom-in").disabled = zoom >= MOST_ZOOM;
  }
  // Zooms so that the point (x, y) of the stage stays where it is.
  function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const before = fitScale() * zoom;
    zoom = clamp(zoom * factor, 1, MOST_ZOOM);
    const after = fitScale() * zoom;
    const dx = x - stage.clientWidth / 2, dy = y - stage.clientHeight / 2;
    centreX += (dx / before - dx / after) / current.photo.w;
    centreY += (dy / before - dy / after) / current.photo.h;
    layOut();
  }
  function fit() { zoom = 1; centreX = centreY = 0.5; layOut(); }
  function move(dx, dy) {
    const scale = fitScale() * zoom;
    centreX -= dx / (current.photo.w * scale);
    centreY -= dy / (current.photo.h * scale);
    layOut();
  }
  function zoomTo([x1, y1, x2, y2]) {
    const scale = fitScale();
    const wanted = 0.5 * Math.min(stage.clientWidth / Math.max(1, x2 - x1), stage.clientHeight / Math.max(1, y2 - y1)) / scale;
    zoom = clamp(wanted, 1, 8);
    centreX = (x1 + x2) / 2 / current.photo.w;
    centreY = (y1 + y2) / 2 / current.photo.h;
    layOut();
  }

  function onViewerKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const far = 80;
    const shifted = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] }[event.key];
    const actions = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
      "-": () => zoomBy(1 / 1.5), 0: fit, t: () => toggle("truth"), d: () => toggle("detections"), l: () => toggle("labels"),
    };
    const action = event.shiftKey && shifted ? () => move(...shifted) : actions[event.key.toLowerCase()] || actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  const pointers = new Map();
  function onPointerDown(event) {
    if (event.button > 0) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    stage.classList.add("moving");
  }
  function onPointerMove(event) {
    const last = pointers.get(event.pointerId);
    if (!last || !current) return;
    const now = { x: event.clientX, y: event.clientY };
    if (pointers.size === 1) {
      move(now.x - last.x, now.y - last.y);
    } else if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const before = Math.hypot(last.x - other.x, last.y - other.y), after = Math.hypot(now.x - other.x, now.y - other.y);
      const frame = stage.getBoundingClientRect();
      if (before > 0) zoomBy(after / before, (now.x + other.x) / 2 - frame.left, (now.y + other.y) / 2 - frame.top);
      move((now.x - last.x) / 2, (now.y - last.y) / 2);
    }
    pointers.set(event.pointerId, now);
  }
  function onPointerUp(event) {
    pointers.delete(event.pointerId);
    if (!pointers.size) stage.classList.remove("moving");
  }

  function toggle(layer) {
    state[layer] = !state[layer];
    update(false);
  }

  function connectGallery() {
    buildCards();
    byId("tools").hidden = false;
    for (const button of all("[data-layer]")) button.addEventListener("click", () => toggle(button.dataset.layer));
    for (const button of all("[data-filter]")) {
      button.addEventListener("click", () => { state.filter = button.dataset.filter; update(); });
    }
    byId("sort").addEventListener("change", (event) => { state.sort = event.target.value; update(); });
    const category = byId("category");
    if (category) category.addEventListener("change", () => { state.category = category.value; update(); });
    const slider = byId("threshold");
    let waiting = false;
    slider.addEventListener("input", () => {
      state.threshold = Number(slider.value);
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; update(false); });
    });
    slider.addEventListener("change", () => { state.threshold = Number(slider.value); update(); });
    byId("home").addEventListener("click", () => { state.threshold = home; update(); slider.focus(); });
    cards.addEventListener("keydown", onCardKey);

    viewer.addEventListener("keydown", onViewerKey);
    viewer.addEventListener("close", onClosed);
    byId("close").addEventListener("click", () => viewer.close());
    byId("previous").addEventListener("click", () => step(-1));
    byId("following").addEventListener("click", () => step(1));
    byId("zoom-in").addEventListener("click", () => zoomBy(1.5));
    byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
    byId("zoom-fit").addEventListener("click", fit);
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const frame = stage.getBoundingClientRect();
      const pixels = event.deltaMode === 1 ? 30 * event.deltaY : event.deltaY;
      zoomBy(Math.exp(-clamp(pixels, -200, 200) / 300), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => {
      const frame = stage.getBoundingClientRect();
      if (zoom > 1) fit();
      else zoomBy(3, event.clientX - frame.left, event.clientY - frame.top);
    });
    stage.addEventListener("pointerdown", onPointerDown);
    stage.addEventListener("pointermove", onPointerMove);
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, onPointerUp);
    new ResizeObserver(layOut).observe(stage);
    update();
  }

  // ---------------------------------------------------------------- charts
  // A line chart that redraws at its own width. `series`: {name, points: [[x, y, extra], ...]}; `notes`: vertical lines.
  function chart(figure, { series, x, y, notes, say }) {
    const readout = make("p", { class: "at", "aria-live": "polite" });
    const keys = make("ul", { class: "key-list" });
    const svg = draw("svg", { class: "plot", role: "img", tabindex: "0" });
    figure.append(svg, keys, readout);
    let lines = [], xs = [], at = -1, geometry = null, marker = null;

    function setSeries(next) {
      lines = next.filter((line) => line.points.length);
      xs = [...new Set(lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
      keys.replaceChildren(...lines.map((line, i) => make("li", {},
        draw("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, draw("line", { class: `c${i % 6}`, x1: 0, x2: 24, y1: 4, y2: 4 })),
        line.name, make("b", {}))));
      svg.setAttribute("aria-label", say(lines));
      at = -1;
      render();
    }

    function render() {
      const width = Math.max(240, figure.clientWidth - parseFloat(getComputedStyle(figure).paddingLeft) * 2);
      const height = clamp(width * 0.56, 190, 300);
      const frame = { left: 38, right: 16, top: 10, bottom: 36 };
      const values = lines.flatMap((line) => line.points.map((p) => p[1]));
      const [x0, x1] = x.range || [Math.min(...xs), Math.max(...xs)];
      const top = y.range ? y.range[1] : Math.max(...values, 1e-9);
      const yTicks = ticks(0, top, 5), xTicks = ticks(x0, x1, width < 380 ? 4 : 6);
      if (yTicks[yTicks.length - 1] < top * 0.999) yTicks.push(yTicks[yTicks.length - 1] + (yTicks[1] - yTicks[0] || top));
      const yTop = yTicks[yTicks.length - 1];
      const px = (v) => frame.left + ((v - x0) / (x1 - x0 || 1)) * (width - frame.left - frame.right);
      const py = (v) => height - frame.bottom - (v / yTop) * (height - frame.top - frame.bottom);
      geometry = { px, py, width, height, frame };
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      const parts = [];
      for (const v of yTicks) {
        parts.push(draw("line", { class: v === 0 ? "base" : "grid", x1: frame.left, x2: width - frame.right, y1: py(v), y2: py(v) }));
        parts.push(draw("text", { x: frame.left - 6, y: py(v) + 4, "text-anchor": "end" }, tickText(v, yTicks)));
      }
      for (const v of xTicks) {
        const edge = px(v) > width - 24; // a long number at the right edge ends there
        parts.push(draw("text", { x: edge ? width - 2 : px(v), y: height - frame.bottom + 16, "text-anchor": edge ? "end" : "middle" }, tickText(v, xTicks)));
      }
      parts.push(draw("text", { x: (frame.left + width - frame.right) / 2, y: height - 4, "text-anchor": "middle" }, x.name));
      for (const [k, note] of (notes || []).entries()) {
        // Of two lines the left one is named on its left, if there is room: its name would cross the other.
        const left = notes.some((other) => other.at > note.at) && px(note.at) - frame.left > 90;
        const end = left || px(note.at) > width * 0.7;
        parts.push(draw("line", { class: "note", x1: px(note.at), x2: px(note.at), y1: frame.top, y2: height - frame.bottom }));
        parts.push(draw("text", { x: px(note.at) + (end ? -5 : 5), y: height - frame.bottom - 7 - 14 * k, "text-anchor": end ? "end" : "start" }, note.name));
      }
      lines.forEach((line, i) => {
        const d = line.points.map((p, k) => `${k ? "L" : "M"}${px(p[0]).toFixed(1)} ${py(p[1]).toFixed(1)}`).join("");
        parts.push(draw("path", { class: `curve c${i % 6}`, d }));
        if (line.points.length < 25 && !x.range) {
          for (const p of line.points) parts.push(draw("circle", { class: `f${i % 6}`, cx: px(p[0]), cy: py(p[1]), r: 2.6 }));
        }
      });
      marker = draw("g", {});
      parts.push(marker);
      svg.replaceChildren(...parts);
      read(at);
    }

    // Shows the values at the x of index `index`; -1 shows the last values and no cursor.
    function read(index) {
      at = index;
      const value = index < 0 ? xs[xs.length - 1] : xs[index];
      const found = lines.map((line) => nearest(line.points, value));
      all("b", keys).forEach((b, i) => { b.textContent = found[i] ? y.text(found[i][1]) : "–"; });
      marker.replaceChildren();
      if (index < 0) {
        readout.textContent = x.range ? "" : `At the end: ${x.name} ${x.text(value)}`;
        for (const b of all("b", keys)) if (x.range) b.textContent = "";
        return;
      }
      const { px, py, height, frame } = geometry;
      marker.append(draw("line", { class: "cursor", x1: px(value), x2: px(value), y1: frame.top, y2: height - frame.bottom }));
      found.forEach((p, i) => { if (p) marker.append(draw("circle", { class: `f${i % 6}`, cx: px(p[0]), cy: py(p[1]), r: 4 })); });
      const extra = found.map((p, i) => (p && p[2] ? (lines.length > 1 ? `${lines[i].name}: ${p[2]}` : p[2]) : "")).filter(Boolean);
      readout.textContent = [`${x.name} ${x.text(value)}`, ...extra].join(" · ");
    }

    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect();
      const wanted = event.clientX - frame.left;
      let best = 0;
      xs.forEach((v, i) => { if (Math.abs(geometry.px(v) - wanted) < Math.abs(geometry.px(xs[best]) - wanted)) best = i; });
      read(best);
    });
    svg.addEventListener("pointerleave", () => read(-1));
    svg.addEventListener("blur", () => read(-1));
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1, PageUp: -10, PageDown: 10 }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? xs.length - 1 : by === undefined ? null : clamp(at < 0 ? (by > 0 ? 0 : xs.length - 1) : at + by, 0, xs.length - 1);
      if (to === null) return;
      event.preventDefault();
      read(to);
    });
    setSeries(series);
    let width = 0;
    new ResizeObserver(() => {
      if (figure.clientWidth !== width) { width = figure.clientWidth; render(); }
    }).observe(figure);
    return setSeries;
  }

  function nearest(points, x) {
    let best = null;
    for (const p of points) if (!best || Math.abs(p[0] - x) < Math.abs(best[0] - x)) best = p;
    return best;
  }
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
    const result = [];
    for (let i = Math.ceil(low / size - 1e-9); i * size <= high + size * 1e-6; i += 1) result.push(i * size || 0); // never -0
    return result.length ? result : [low];
  }
  function tickText(value, list) {
    const size = list.length > 1 ? Math.abs(list[1] - list[0]) : Math.abs(value) || 1;
    const digits = clamp(Math.ceil(-Math.log10(size) - 1e-9) + (/[25]$/.test(size.toPrecision(2).replace(/0+$/, "")) && size < 1 && /25/.test(size.toPrecision(2)) ? 1 : 0), 0, 4);
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  const two = (v) => v.toFixed(2), three = (v) => v.toFixed(3), whole = (v) => Math.round(v).toLocaleString("en");
  const column = (rows, key) => rows.filter((r) => r[key] !== undefined && r[key] !== null).map((r) => [r.step, r[key]]);
  const figureOf = (name) => document.querySelector(`[data-chart="${name}"]`);

  function connectCharts() {
    if (data.losses.length) {
      const names = [...new Set(data.losses.flatMap((row) => Object.keys(row)))].filter((n) => n !== "step" && n !== "total");
      const series = ["total", ...names].map((name) => ({ name: name.replaceAll("_", " "), points: column(data.losses, name) }));
      chart(figureOf("loss"), {
        series, x: { name: "step", text: whole }, y: { text: three },
        say: (lines) => `Training loss by step. ${lines.map((l) => `${l.name} from ${three(l.points[0][1])} to ${three(l.points.at(-1)[1])}`).join("; ")}.`,
      });
    }
    if (data.validations.length) {
      const names = ["segm/AP", "segm/AP50", "bbox/AP"];
      const words = { "segm/AP": "mask AP", "segm/AP50": "mask AP50", "bbox/AP": "box AP" };
      const best = data.validations.filter((v) => v.best).at(-1);
      chart(figureOf("validation"), {
        series: names.map((name) => ({ name: words[name], points: column(data.validations, name) })),
        x: { name: "step", text: whole }, y: { range: [0, 1], text: three },
        notes: best && [{ at: best.step, name: "best" }],
        say: (lines) => `Validation scores by step. ${lines.map((l) => `${l.name} ends at ${three(l.points.at(-1)[1])}`).join("; ")}.`,
      });
    }
    if (data.curves.length) connectPrecisionRecall();
    const figure = figureOf("operating");
    if (data.operating.length) {
      const points = (key) => data.operating.filter((p) => p[key] !== null && p.score !== null).map((p) => [p.score, p[key]]).sort((a, b) => a[0] - b[0]);
      chart(figure, {
        series: [["precision", "precision"], ["recall", "recall"], ["f1", "F1"]].map(([key, name]) => ({ name, points: points(key) })),
        x: { name: "score at least", range: [0, 1], text: two }, y: { range: [0, 1], text: three },
        notes: [data.inUse && { at: data.threshold, name: `in use ${two(data.threshold)}` },
          data.best !== null && { at: data.best, name: `best F1 ${two(data.best)}` }].filter(Boolean),
        say: () => `Precision, recall and F1 against the score threshold${data.inUse ? `; ${two(data.threshold)} is in use` : ""}` +
          `${data.best === null ? "" : `; the best F1 on these photos is at ${two(data.best)}`}.`,
      });
    } else {
      figure.append(make("p", { class: "empty" }, "The evaluation has no values for this chart."));
    }
  }

  function connectPrecisionRecall() {
    const categories = [...new Set(data.curves.map((c) => c.category))];
    const select = byId("pr-category");
    const pick = (category) => data.curves.filter((c) => c.category === category).sort((a, b) => a.iou - b.iou).map((c) => ({
      name: `IoU ${c.iou.toFixed(2)}`,
      points: c.recall.map((r, i) => [r, c.precision[i], typeof c.scores[i] === "number" && c.precision[i] > 0 ? `score ${two(c.scores[i])}` : ""])
        .filter((p) => p[0] !== null && p[1] !== null && p[1] !== undefined),
    }));
    const set = chart(figureOf("pr"), {
      series: pick(categories.includes(null) ? null : categories[0]),
      x: { name: "recall", range: [0, 1], text: two }, y: { range: [0, 1], text: three },
      say: (lines) => `Precision against recall. ${lines.map((l) => `${l.name}: area ${three(l.points.reduce((s, p) => s + p[1], 0) / l.points.length)}`).join("; ")}.`,
    });
    if (!select) return;
    for (const [i, category] of categories.entries()) {
      select.append(make("option", { value: String(i) }, category === null ? "all, mean" : category));
    }
    select.value = String(Math.max(0, categories.indexOf(null)));
    select.addEventListener("change", () => set(pick(categories[Number(select.value)])));
  }

  connectCharts();
  if (cards) connectGallery();
})();
