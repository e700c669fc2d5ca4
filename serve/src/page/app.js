"use strict";

// The page: an image on the left, a column of probabilities for each ticked adapter, adapters and load on the right.

const at = (id) => document.getElementById(id);
const chosen = new Set();
let backbone = "";
let picture = null; // { bitmap, base64 }
let asked = 0;

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function call(path, body) {
  const headers = {};
  const token = at("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) };
  const response = await fetch(path, options);
  if (response.status === 401) at("token-field").hidden = false;
  const text = await response.text();
  if (response.ok) return response.headers.get("content-type").includes("json") ? JSON.parse(text) : text;
  let fault = { message: `the server answered ${response.status}` };
  try { fault = JSON.parse(text).error; } catch { /* not ours */ }
  throw new Error(fault.hint ? `${fault.message}; ${fault.hint}` : fault.message);
}

function say(text, fault = false) {
  at("state").textContent = text;
  at("state").className = fault ? "fault" : "";
}

// --- adapters ---------------------------------------------------------------------------------------------------------

async function models() {
  try {
    const { data } = await call("/v1/models");
    backbone = data[0].id;
    say(`backbone ${backbone} · ${data.length - 1} adapter${data.length === 2 ? "" : "s"}`);
    if (chosen.size === 0) for (const model of data.slice(1, 3)) chosen.add(model.id);
    if (chosen.size === 0) chosen.add(backbone);
    at("models").replaceChildren(...data.map(card));
  } catch (fault) {
    say(fault.message, true);
  }
}

function card(model) {
  const row = element("label", undefined, { class: "model" });
  const box = element("input", undefined, { type: "checkbox" });
  box.checked = chosen.has(model.id);
  box.addEventListener("change", () => {
    box.checked ? chosen.add(model.id) : chosen.delete(model.id);
    classify();
  });
  const facts = [
    model.parent ? model.method : "zero-shot",
    model.parent && `version ${model.version}`,
    model.parameters && `${model.parameters.toLocaleString("en")} values`,
    model.parent && (model.folded ? "folded" : model.resident ? "in memory" : "on disk"),
  ];
  row.append(box, element("span", model.id), element("small", facts.filter(Boolean).join(" · ")));
  return row;
}

async function load() {
  try {
    const page = await call("/metrics");
    const sum = (name) => page.split("\n").filter((line) => line.startsWith(name) && !line.startsWith("#"))
      .reduce((total, line) => total + Number(line.split(" ").pop()), 0);
    const seconds = sum("inarch_request_seconds_sum");
    const requests = sum("inarch_request_seconds_count");
    const batches = sum("inarch_batch_images_count");
    const facts = {
      "images answered": sum("inarch_images_total").toLocaleString("en"),
      "images a pass": batches ? (sum("inarch_batch_images_sum") / batches).toFixed(1) : "–",
      "waiting": sum("inarch_waiting_images"),
      "mean time": requests ? `${(1000 * seconds / requests).toFixed(1)} ms` : "–",
      "adapters in memory": sum("inarch_resident_adapters "),
      "refused, busy": sum("inarch_refused_busy_total"),
    };
    at("load").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  } catch { /* a token without this scope: nothing to show */ }
}

// --- the image --------------------------------------------------------------------------------------------------------

async function take(file) {
  if (!file) return;
  try {
    const bitmap = await createImageBitmap(file);
    const bytes = new Uint8Array(await file.arrayBuffer());
    let binary = "";
    for (let start = 0; start < bytes.length; start += 0x8000) binary += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
    picture = { bitmap, base64: btoa(binary) };
    draw();
    await classify();
  } catch {
    say("this file is not an image that the browser can show", true);
  }
}

// Shows the image and, over it, how much each part matters. The backbone sees the centre square.
function draw(grid) {
  const canvas = at("image");
  const { bitmap } = picture;
  canvas.width = 640;
  canvas.height = Math.max(1, Math.round((640 * bitmap.height) / bitmap.width));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
  at("hint").hidden = true;
  at("regions").hidden = !grid;
  if (!grid) return;
  const side = Math.min(canvas.width, canvas.height);
  const [left, top, cell] = [(canvas.width - side) / 2, (canvas.height - side) / 2, side / grid.length];
  const most = Math.max(1e-6, ...grid.flat());
  context.fillStyle = "rgba(0, 0, 0, 0.62)";
  // What lies outside the square is never seen.
  context.fillRect(0, 0, left, canvas.height);
  context.fillRect(left + side, 0, left, canvas.height);
  context.fillRect(left, 0, side, top);
  context.fillRect(left, top + side, side, top);
  grid.forEach((row, y) => row.forEach((loss, x) => {
    context.globalAlpha = 1 - Math.max(0, loss) / most;
    context.fillRect(left + x * cell, top + y * cell, cell + 0.5, cell + 0.5);
  }));
  context.globalAlpha = 1;
}

async function classify() {
  if (!picture) return;
  const turn = ++asked;
  const classes = at("classes").value.split(",").map((name) => name.trim()).filter(Boolean);
  const answers = [...chosen].map(async (model) => {
    const request = { model, image: picture.base64, top_k: 5 };
    if (model === backbone) request.classes = classes;
    const started = performance.now();
    try {
      const answer = await call("/v1/classify", request);
      const milliseconds = performance.now() - started;
      const words = model === backbone ? [] : await call(`/v1/models/${encodeURIComponent(model)}/words?count=1`);
      return column(model, answer, milliseconds, request, words);
    } catch (fault) {
      const box = element("div", undefined, { class: "answer" });
      box.append(element("h2", model), element("p", fault.message, { class: "fault" }));
      return box;
    }
  });
  const columns = await Promise.all(answers);
  // A later image or choice has overtaken this one.
  if (turn === asked) at("answers").replaceChildren(...columns);
  load();
}

function column(model, answer, milliseconds, request, words) {
  const box = element("div", undefined, { class: "answer" });
  const title = element("h2", model);
  title.append(element("span", `${answer.version} · ${milliseconds.toFixed(0)} ms`));
  box.append(title);
  for (const { label, score } of answer.predictions) {
    const bar = element("button", undefined, { class: "bar", type: "button", "aria-pressed": "false", title: "Show the regions that matter" });
    const meter = element("meter", undefined, { min: 0, max: 1, value: score, "aria-hidden": "true" });
    bar.append(element("span", label), element("output", `${(100 * score).toFixed(1)} %`), meter);
    bar.addEventListener("click", () => explain(model, label, request, bar));
    box.append(bar);
  }
  if (words.length) {
    const nearest = words.map(({ nearest }) => nearest[0][0]).join(" ");
    box.append(element("p", `Words nearest to its prompt: ${nearest}`, { class: "quiet" }));
  }
  return box;
}

async function explain(model, label, request, bar) {
  for (const other of document.querySelectorAll(".bar")) other.setAttribute("aria-pressed", "false");
  bar.setAttribute("aria-pressed", "true");
  try {
    const { image, classes } = request;
    const { grid, score } = await call("/v1/relevance", { model, image, classes, label });
    draw(grid);
    at("regions").textContent = `Bright: what “${label}” (${(100 * score).toFixed(1)} %, ${model}) rests on.`;
  } catch (fault) {
    say(fault.message, true);
  }
}

// --- events -----------------------------------------------------------------------------------------------------------

const drop = at("drop");
at("file").addEventListener("change", (event) => take(event.target.files[0]));
drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") at("file").click(); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
});
at("classes").addEventListener("change", classify);
at("token").addEventListener("change", () => { models(); classify(); });
models();
load();
setInterval(() => { if (!document.hidden) { load(); } }, 5000);
