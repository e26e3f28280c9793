// Draws timelines and curves as SVG.
const SVG = "http://www.w3.org/2000/svg";
const LABEL_WIDTH = 132, RIGHT = 8, ROW = 20, ROW_GAP = 4, PLOT = 44;
const DASHES = ["", "7 4", "2 3", "10 3 2 3"]; // curves differ by more than colour

function element(name, attributes = {}, text = null, namespace = null) {
  const node = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}
const svg = (name, attributes, text = null) => element(name, attributes, text, SVG);
const colour = (index) => `--colour: var(--m${index % 8})`;
const shorten = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

function formatBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let power = 0;
  while (bytes >= 1024 && power < units.length - 1) { bytes /= 1024; power += 1; }
  return `${Number(bytes.toPrecision(3))} ${units[power]}`;
}

// Redraws whenever the width of `host` changes.
function drawResponsively(host, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth === width || host.clientWidth === 0) return;
    width = host.clientWidth;
    draw(width);
  }).observe(host);
}

// One line per rule, then one per guidance branch that did not run all the time and that no rule already shows.
function timelineLines(trace) {
  const rules = [...new Set(trace.rows.flatMap((row) => Object.keys(row.decisions)))];
  const branches = [...new Set(trace.rows.flatMap((row) => row.branches))];
  const lines = rules.map((name) => ({
    name,
    isFull: (row) => row.decisions[name]?.action === "compute",
    isKnown: (row) => name in row.decisions,
  }));
  const pattern = (line) => trace.rows.map(line.isFull).join();
  const shown = new Set(lines.map(pattern)).add(trace.rows.map(() => true).join());
  for (const name of branches) {
    const line = { name: `branch ${name}`, isFull: (row) => row.branches.includes(name), isKnown: () => true };
    if (!shown.has(pattern(line))) lines.push(line);
  }
  return lines;
}

function explainRow(row, total) {
  const parts = [`evaluation ${row.evaluation} of ${total}`];
  if (Number.isFinite(row.timestep)) parts.push(`timestep ${Number(row.timestep.toPrecision(5))}`);
  for (const [rule, decision] of Object.entries(row.decisions)) {
    parts.push(`${rule}: ${decision.action === "skip" ? "reused" : "computed"} (${decision.reason})`);
  }
  for (const [name, value] of Object.entries(row.signals)) {
    if (Number.isFinite(value)) parts.push(`${name} ${Number(value.toPrecision(3))}`);
  }
  parts.push(`${formatBytes(row.cache_bytes)} held`);
  return parts.join(" · ");
}

function drawTimeline(host, clip, index) {
  const { rows, num_evaluations: total, key_steps: keySteps } = clip.trace;
  const lines = timelineLines(clip.trace);
  const signals = [...new Set(rows.flatMap((row) => Object.keys(row.signals)))];
  const card = element("article", { class: "chart", style: colour(index) });
  const header = card.appendChild(element("header"));
  header.append(element("h3", {}, clip.label));
  const notes = clip.trace.notes.length ? ` · ${clip.trace.notes.join("; ")}` : "";
  header.append(element("small", {}, `${keySteps.length} of ${total} evaluations computed in full${notes}`));
  const slider = card.appendChild(element("div", {
    role: "slider", tabindex: "0", "aria-label": `Timeline of ${clip.label}, evaluation`,
    "aria-valuemin": 1, "aria-valuemax": rows.length, "aria-valuenow": 1,
  }));
  const detail = card.appendChild(element("p", { class: "detail" }));
  host.append(card);

  let cursor = 0, mark = null, pitch = 1;
  const select = (position) => {
    cursor = Math.max(0, Math.min(rows.length - 1, position));
    const words = explainRow(rows[cursor], total);
    detail.textContent = words;
    slider.setAttribute("aria-valuenow", cursor + 1);
    slider.setAttribute("aria-valuetext", words);
    if (mark) mark.setAttribute("x", LABEL_WIDTH + cursor * pitch);
  };
  drawResponsively(slider, (width) => {
    pitch = (width - LABEL_WIDTH - RIGHT) / Math.max(total, rows.length);
    const picture = drawTimelineSvg(width, pitch, lines, signals, rows);
    mark = picture.querySelector(".cursor");
    slider.replaceChildren(picture);
    select(cursor);
  });
  slider.addEventListener("pointermove", (event) => {
    const left = slider.getBoundingClientRect().left + LABEL_WIDTH;
    select(Math.floor((event.clientX - left) / pitch));
  });
  slider.addEventListener("keydown", (event) => {
    const jumps = { ArrowLeft: cursor - 1, ArrowRight: cursor + 1, Home: 0, End: rows.length - 1 };
    if (!(event.key in jumps)) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere the arrows step the videos
    select(jumps[event.key]);
  });
}

function drawTimelineSvg(width, pitch, lines, signals, rows) {
  const linesHeight = lines.length * (ROW + ROW_GAP);
  const height = linesHeight + signals.length * (PLOT + ROW_GAP * 3) + ROW;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const gap = pitch > 6 ? 2 : 0.5;
  lines.forEach((line, number) => {
    const y = number * (ROW + ROW_GAP);
    picture.append(svg("text", { x: 0, y: y + ROW - 6 }, shorten(line.name, 20)));
    rows.forEach((row, position) => {
      if (!line.isKnown(row)) return;
      picture.append(svg("rect", {
        class: line.isFull(row) ? "full" : "hollow", rx: Math.min(2, pitch / 4),
        x: LABEL_WIDTH + position * pitch + gap / 2, y: y + 0.5, width: pitch - gap, height: ROW - 1,
      }));
    });
  });
  signals.forEach((name, number) => {
    drawSignal(picture, name, rows, width, pitch, linesHeight + number * (PLOT + ROW_GAP * 3) + ROW_GAP * 2);
  });
  const every = Math.ceil(28 / pitch);
  rows.forEach((row, position) => {
    if (position && (position + 1) % (every > 4 ? 10 : 5)) return;
    const x = LABEL_WIDTH + (position + 0.5) * pitch;
    picture.append(svg("text", { x, y: height - 3, "text-anchor": "middle" }, row.evaluation));
  });
  picture.append(svg("rect", { class: "cursor", x: LABEL_WIDTH, y: -2, width: pitch, height: height - ROW + 4, rx: 2 }));
  return picture;
}

function drawSignal(picture, name, rows, width, pitch, top) {
  const measured = rows.map((row) => row.signals[name]).filter(Number.isFinite);
  const highest = Math.max(...measured, Number.MIN_VALUE);
  picture.append(svg("text", { x: 0, y: top + 12 }, shorten(name, 20)));
  picture.append(svg("text", { x: 0, y: top + 27 }, measured.length ? `max ${Number(highest.toPrecision(3))}` : ""));
  picture.append(svg("line", { class: "grid", x1: LABEL_WIDTH, x2: width - RIGHT, y1: top + PLOT, y2: top + PLOT }));
  rows.forEach((row, position) => {
    const value = row.signals[name];
    if (!Number.isFinite(value)) return;
    const size = Math.max(1, (Math.max(0, value) / highest) * PLOT);
    picture.append(svg("rect", {
      class: "bar-mark", x: LABEL_WIDTH + position * pitch + pitch * 0.2, width: pitch * 0.6, y: top + PLOT - size, height: size,
    }));
  });
}

// Curves of PSNR per frame. Returns a function that marks a frame.
function drawPsnr(host, clips, onPick) {
  const curves = clips.map((clip, index) => ({ label: clip.label, index, values: clip.quality?.frame_psnr }))
    .filter((curve) => curve.values);
  if (!curves.length) { host.textContent = "Nothing to compare."; return () => {}; }
  const finite = curves.flatMap((curve) => curve.values.filter(Number.isFinite));
  const low = finite.length ? Math.floor(Math.min(...finite) / 5) * 5 : 0;
  const high = finite.length ? Math.ceil(Math.max(...finite) / 5 + 0.01) * 5 : 50;
  const card = host.appendChild(element("div", { class: "chart" }));
  const legend = card.appendChild(element("div", { class: "legend" }));
  const area = card.appendChild(element("div"));
  const cells = curves.map((curve) => {
    const item = legend.appendChild(element("span", { style: colour(curve.index) }));
    const line = item.appendChild(svg("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }));
    line.append(svg("line", { class: "curve", x1: 0, x2: 28, y1: 4, y2: 4, "stroke-dasharray": dash(curve) }));
    item.append(curve.label + " ");
    return item.appendChild(element("b"));
  });
  const count = curves[0].values.length;
  let cursor = null, x = () => 0, shown = 0;
  const mark = (frame) => {
    shown = Math.min(frame, count - 1);
    if (cursor) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(shown));
    curves.forEach((curve, number) => { cells[number].textContent = formatPsnr(curve.values[shown]); });
  };
  drawResponsively(area, (width) => {
    x = (frame) => 44 + ((width - 56) * (count > 1 ? frame / (count - 1) : 0.5));
    const picture = drawPsnrSvg(width, x, low, high, curves, count);
    cursor = picture.querySelector(".cursor");
    picture.addEventListener("click", (event) => {
      const fraction = (event.clientX - picture.getBoundingClientRect().left - 44) / (width - 56);
      onPick(Math.round(Math.max(0, Math.min(1, fraction)) * (count - 1)));
    });
    area.replaceChildren(picture);
    mark(shown);
  });
  return mark;
}

const dash = (curve) => DASHES[(curve.index + 3) % DASHES.length];
const formatPsnr = (value) => (Number.isFinite(value) ? `${value.toFixed(1)} dB` : "identical");

function drawPsnrSvg(width, x, low, high, curves, count) {
  const height = 190, bottom = 160;
  const y = (value) => 10 + (bottom - 10) * (1 - (Math.min(value, high) - low) / (high - low));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": describeCurves(curves) });
  const stride = high - low > 30 ? 10 : 5;
  for (let value = low; value <= high; value += stride) {
    picture.append(svg("line", { class: "grid", x1: 44, x2: width - 12, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: 36, y: y(value) + 4, "text-anchor": "end" }, value));
  }
  picture.append(svg("text", { x: 44, y: height - 6 }, "frame 1"));
  picture.append(svg("text", { x: width - 12, y: height - 6, "text-anchor": "end" }, `frame ${count}`));
  for (const curve of curves) {
    const points = curve.values.map((value, frame) => `${x(frame)},${y(Number.isFinite(value) ? value : high)}`);
    picture.append(svg("polyline", {
      class: "curve", style: colour(curve.index), points: points.join(" "), "stroke-dasharray": dash(curve),
    }));
  }
  picture.append(svg("line", { class: "cursor", x1: 44, x2: 44, y1: 6, y2: bottom + 4 }));
  return picture;
}

function describeCurves(curves) {
  return "PSNR per frame in dB. " + curves.map((curve) => {
    const finite = curve.values.filter(Number.isFinite);
    if (!finite.length) return `${curve.label}: identical to plain`;
    return `${curve.label}: ${Math.min(...finite).toFixed(1)} to ${Math.max(...finite).toFixed(1)}`;
  }).join("; ");
}
