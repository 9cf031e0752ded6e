// The live page: what /api/v1/stream tells, as it is recorded. Without a script the page is read again every 15 s.
const SVG = "http://www.w3.org/2000/svg", SECONDS = 90, KEPT = 50, HEIGHT = 92;
const AGAIN_MS = [1000, 2000, 5000, 10_000], OPEN_EVERY_MS = 3000, FRESH_WITHIN_S = 5;
const $ = (query, root = document) => root.querySelector(query);
const lane = $("#lane"), rows = $("#stream"), say = $("#say"), pause = $("#pause"), form = $("#livefilter");
const indicator = $("#indicator"), gapline = $("#gapline");
const buckets = Array.from({ length: SECONDS }, () => ({ web: 0, list: 0 }));
const seen = new Set();
let cursor = null, socket = null, failed = 0, paused = false, waiting = [], missing = null;

// --- drawing
function bar(x, from, count, top, name) {
  const rect = document.createElementNS(SVG, "rect"), unit = HEIGHT / top;
  const at = { class: name, x: x * 10 + 1, width: 8, y: 95 - (from + count) * unit, height: count * unit };
  Object.entries(at).forEach(([key, value]) => rect.setAttribute(key, value));
  lane.append(rect);
}
function draw() {
  lane.querySelectorAll("rect").forEach((rect) => rect.remove());
  const top = Math.max(4, ...buckets.map(({ web, list }) => web + list));
  buckets.forEach(({ web, list }, x) => {
    if (web) bar(x, 0, web, top, "web");
    if (list) bar(x, web, list, top, "list");
  });
  const last = buckets.slice(-10).reduce((sum, { web, list }) => sum + web + list, 0) / 10;
  $("#rate").textContent = `${last.toFixed(1)} events/s over 10 s`;
}
function cell(row, content, name = "") {
  const element = row.insertCell();
  element.className = name;
  element.append(content);
  return element;
}
function part(tag, text, name = "", more = {}) {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return Object.assign(element, more);
}
const icon = (name) => $(`#icons [data-icon="${name}"] .icon`).cloneNode(true);
function chip(state, text) {
  const element = part("span", "", `chip ${state}`);
  element.append(icon(state), text);
  return element;
}
function put(row) {
  $("#waiting")?.remove();
  rows.prepend(row);
  while (rows.rows.length > KEPT) rows.rows[rows.rows.length - 1].remove();
}
function delay(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
function showEvent(event) {
  const row = document.createElement("tr"), web = event.via === "webhook";
  row.className = "fresh";
  const at = new Date(event.recorded_at);
  cell(row, part("time", at.toISOString().slice(11, 19), "", { dateTime: at.toISOString() }), "nowrap");
  cell(row, event.source, "p2");
  const path = `/events/${encodeURIComponent(event.source)}/${encodeURIComponent(event.key)}`;
  cell(row, part("a", event.type, "", { href: path })).append(part("span", event.key, "sub id"));
  cell(row, event.object ?? "–", "p3 id");
  cell(row, part("span", event.via, `way ${web ? "web" : "list"}`));
  cell(row, delay(event.delay_s), "num p2 nowrap");
  put(row);
}

// --- what comes
function wanted(event) {
  const { source, via, types } = Object.fromEntries(new FormData(form));
  const patterns = types.split(",").map((text) => text.trim()).filter(Boolean);
  const fits = (pattern) => (pattern.endsWith("*") ? event.type.startsWith(pattern.slice(0, -1)) : event.type === pattern);
  return (!source || event.source === source) && (!via || event.via === via) && (!patterns.length || patterns.some(fits));
}
function take(event) {
  if (paused) { waiting = [...waiting, event].slice(-KEPT); hold(); } else showEvent(event);
}
function hear({ data }) {
  const message = JSON.parse(data);
  cursor = message.cursor ?? cursor;
  if (message.message === "hello") { failed = 0; tell(paused ? "paused" : "live"); }
  for (const event of message.message === "events" ? message.events : []) {
    if (seen.has(event.id)) continue;
    seen.add(event.id);
    if (seen.size > 5000) seen.delete(seen.values().next().value);
    if (!wanted(event)) continue;
    const ago = Math.max(0, Math.floor((Date.now() - new Date(event.recorded_at)) / 1000));
    const bucket = buckets[SECONDS - 1 - (ago <= FRESH_WITHIN_S ? 0 : ago)];
    if (bucket) bucket[event.via === "webhook" ? "web" : "list"] += 1;
    take(event);
  }
}
function connect() {
  const address = new URL("/api/v1/stream", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  if (cursor) address.searchParams.set("after", cursor);
  socket = new WebSocket(address);
  socket.addEventListener("message", hear);
  socket.addEventListener("close", ({ code }) => {
    tell("lost");
    if (code === 4410) cursor = null;
    setTimeout(connect, AGAIN_MS[Math.min(failed, AGAIN_MS.length - 1)]);
    failed += 1;
  });
}
function tell(state) {
  indicator.dataset.state = state;
  indicator.lastElementChild.textContent = { live: "Live", paused: "Paused", lost: "Not live" }[state];
}

// --- gaps: what is known to be missing and not recorded
async function lookForGaps() {
  let answer = null;
  try { answer = await fetch("/api/v1/sources", { redirect: "error" }); } catch { /* said below */ }
  if (!answer?.ok) { gapline.replaceChildren(chip("unknown", "not known")); return; }
  const listed = (await answer.json()).items.map((each) => each.facts.list).filter(Boolean);
  const open = listed.reduce((sum, each) => sum + each.missing_open, 0);
  if (!listed.length) gapline.replaceChildren(chip("blind", "no list to compare with"));
  else gapline.replaceChildren(open ? chip("hand", `${open} missing, being recovered`) : chip("good", "no gap open"));
  if (missing !== null && open !== missing) {
    const text = open > missing ? `Gap open: ${open} events are known to be missing.`
      : open ? `${missing - open} of ${missing} missing events are recorded.` : "Gap closed: nothing is known to be missing.";
    say.textContent = text;
    const row = document.createElement("tr"), box = document.createElement("div");
    row.className = open ? "gap" : "gap closed";
    box.append(icon(open ? "hand" : "good"), part("span", text));
    cell(row, box).colSpan = 6;
    put(row);
  }
  missing = open;
}

// --- pause
function hold() {
  const many = `${waiting.length} new ${waiting.length === 1 ? "row waits" : "rows wait"}`;
  $("#held").textContent = paused ? `Paused: ${many}.` : `The newest ${KEPT} are kept here.`;
}
function toggle() {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.lastElementChild.textContent = paused ? "Go on" : "Pause";
  if (indicator.dataset.state !== "lost") tell(paused ? "paused" : "live");
  if (!paused) waiting.splice(0).forEach(showEvent);
  hold();
}
pause.hidden = false;
pause.addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("input, select, textarea, button, a, summary, dialog")) return;
  event.preventDefault();
  toggle();
});
form.addEventListener("submit", (event) => event.preventDefault());
tell("lost");
connect();
draw();
lookForGaps();
setInterval(lookForGaps, OPEN_EVERY_MS);
setInterval(() => { buckets.push({ web: 0, list: 0 }); buckets.shift(); draw(); }, 1000);
